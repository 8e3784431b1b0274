"""Lanes and the daemon's own figures become a snapshot: immutable, and cheap enough to make at every scrape."""

import mmap
import platform
import time
from collections.abc import Callable, Mapping

from gpudaemon import __version__
from gpudaemon.discovery.inventory import Inventory
from gpudaemon.drivers import Facts, driver_for
from gpudaemon.metrics import daemon as rows
from gpudaemon.metrics import gpu, memory, pcie, runtime_power
from gpudaemon.metrics.device import NUMA_NODE
from gpudaemon.model.device import DeviceKind
from gpudaemon.model.health import STATES as HEALTH
from gpudaemon.model.health import Report
from gpudaemon.model.metric import Kind, Metric, Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Block, DeviceView, Samples, Snapshot
from gpudaemon.model.tracing import STATES as TRACING
from gpudaemon.parsers.power_state import RUNTIME_STATUSES
from gpudaemon.pipeline.calls import CallLane
from gpudaemon.pipeline.counts import Counts
from gpudaemon.pipeline.health import Health, info_prefix
from gpudaemon.pipeline.lane import DeviceLane
from gpudaemon.pipeline.link import ReaderLink
from gpudaemon.pipeline.processes import Processes
from gpudaemon.pipeline.sampler import Entry, Sampler
from gpudaemon.pipeline.streams import Streams

__all__ = ["STATES", "Publisher"]

STATES = ("ok", "suspended", "resting", "paused", "hung", "gone", "denied", "stale")
"""How the daemon can stand with a device."""
_CLASS_INFO = (gpu.INFO, pcie.INFO)
_NO_BLOCKS: Mapping[Metric, Block] = {}
_REMEMBERED = 2048
_PREFIXES = 65536
_SHARED = 0.1

_Key = tuple[int, Outcome, DeviceLane | None]
_Created = Mapping[str, float]


class _Lines:
    """Gathers (prefix, value) lines by metric; prefixes are rendered once and kept, within a bound.

    since: unix time at which counters added from now on began at zero.
    """

    def __init__(
        self, prefixes: dict[tuple[str, ...], str], sets: dict[tuple[str, str], tuple[str, ...]], since: float
    ) -> None:
        self._prefixes = prefixes
        self._sets = sets
        self.rows: dict[Metric, list[tuple[str, float]]] = {}
        self.created: dict[str, float] = {}
        self.since = since

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        key = (metric.name, *labels)
        prefix = self._prefixes.get(key)
        if prefix is None:
            prefix = Series(metric, labels).prefix()
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            self._prefixes[key] = prefix
        if metric.kind is Kind.COUNTER:
            self.created[prefix] = self.since
        self.rows.setdefault(metric, []).append((prefix, value))

    def add_states(self, metric: Metric, words: tuple[str, ...], state: str, device: str) -> None:
        """One line for each of `words`, 1 for `state`: a state set of a device at once, not word by word."""
        prefixes = self._sets.get((metric.name, device))
        if prefixes is None:
            if len(self._sets) >= _PREFIXES:
                self._sets.clear()
            prefixes = tuple(Series(metric, (device, word)).prefix() for word in words)
            self._sets[metric.name, device] = prefixes
        lines = [(prefix, int(word == state)) for word, prefix in zip(words, prefixes, strict=True)]
        self.rows.setdefault(metric, []).extend(lines)


class Publisher:
    """Makes snapshots of all that the sampler, the inventory and the reader's link know.

    of_host: series that belong to no one device, rendered already. processes: who uses the GPUs, None where
    that is not wanted. streams: what is traced, likewise.
    """

    def __init__(
        self,
        sampler: Sampler,
        inventory: Inventory,
        link: ReaderLink,
        counts: Counts,
        *,
        clock: Callable[[], float] = time.monotonic,
        wedged: Callable[[], Mapping[str, str]] = dict,
        not_kept: Callable[[], str] = str,
        of_host: Callable[[], Mapping[Metric, tuple[tuple[str, float], ...]]] = dict,
        processes: Processes | None = None,
        streams: Streams | None = None,
    ) -> None:
        self._processes = processes
        self._streams = streams
        self._health = Health()
        self._wedged = wedged
        self._not_kept = not_kept
        self._of_host = of_host
        self._report = Report()
        self._sampler = sampler
        self._inventory = inventory
        self._link = link
        self._counts = counts
        self._clock = clock
        self._started = time.time()
        self._prefixes: dict[tuple[str, ...], str] = {}
        self._sets: dict[tuple[str, str], tuple[str, ...]] = {}
        self._identities: dict[str, tuple[Facts | None, Mapping[str, str]]] = {}
        self._info: dict[str, tuple[Mapping[Metric, Block], tuple[tuple[Metric, str], ...]]] = {}
        self._told: dict[str, tuple[_Key, tuple[tuple[Metric, list[tuple[str, float]]], ...], _Created]] = {}
        self._versions = 0
        self._newest: Snapshot | None = None
        self._made = -1
        self._made_at = 0.0

    def snapshot(self, *, devices: bool = True) -> Snapshot:
        """The host as it is known now; scrapes that come together share one snapshot.

        devices: with what is known of each device besides its samples, which no page of metrics shows.
        """
        now = self._clock()
        newest = self._newest
        known = self._made == self._sampler.version and now - self._made_at < _SHARED
        if newest is not None and known and (newest.devices or not devices):
            return newest
        self._made, self._made_at = self._sampler.version, now
        self._versions += 1
        samples: list[Samples] = []
        views: list[DeviceView] = []
        lines = _Lines(self._prefixes, self._sets, self._started)
        self._kinds(lines)
        self._own(lines)
        self._missing(lines)
        for id_, entry in self._sampler.entries.items():
            part = entry.samples(now)
            if part is not None:
                samples.append(part)
                self._remember(id_, part)
            lines.since = entry.figures.since
            self._device(lines, entry, now)
            if devices:
                views.append(self._view(entry, now))
        self._forget()
        self._judge(lines, {part.device: part for part in samples}, now)
        own = {metric: tuple(found) for metric, found in lines.rows.items()}
        own.update(self._of_host())
        if self._processes is not None:
            samples += self._processes.samples(now)
        if self._streams is not None:
            samples += self._streams.samples(now)
        samples.append(Samples("", _NO_BLOCKS, (), own, lines.created))
        self._newest = Snapshot(
            at=time.time(), version=self._versions, samples=tuple(samples), devices=tuple(views)
        )
        return self._newest

    def report(self) -> Report:
        """What is thought of each GPU, as of now."""
        self.snapshot(devices=False)
        return self._report

    def _judge(self, lines: _Lines, parts: Mapping[str, Samples], now: float) -> None:
        self._report = self._health.report(
            self._sampler.entries,
            parts,
            self._inventory,
            now,
            wedged=self._wedged(),
            not_kept=self._not_kept(),
        )
        for verdict in self._report.verdicts:
            lines.add_states(rows.DEVICE_HEALTH, HEALTH, verdict.severity.value, verdict.device)

    def ready(self) -> tuple[bool, str]:
        """Ready once every device has answered: read, asleep, hung or refused."""
        waiting = [entry for entry in self._sampler.entries.values() if not _answered(entry)]
        if not self._link.up:
            return False, "no reader"
        if waiting:
            return False, f"waiting for {len(waiting)} of {len(self._sampler.entries)} devices"
        return True, f"{len(self._sampler.entries)} devices"

    def _forget(self) -> None:
        """What was said of a device that left has its lane in it, with memory and a descriptor."""
        entries = self._sampler.entries
        if len(self._told) > len(entries):
            for id_ in self._told.keys() - entries.keys():
                del self._told[id_]

    def _remember(self, id_: str, part: Samples) -> None:
        """The `_info` series of a device outlive it, so that a missing one can still be named."""
        known = self._info.get(id_)
        if known is not None and known[0] is part.blocks:
            return
        found = tuple(
            (metric, prefix)
            for metric in _CLASS_INFO
            if metric in part.blocks
            for prefix in part.blocks[metric].prefixes
        )
        if len(self._info) >= _REMEMBERED:
            self._info.clear()
        self._info[id_] = (part.blocks, found)

    def _device(self, lines: _Lines, entry: Entry, now: float) -> None:
        """How the daemon stands with a device. If it told nothing lately, only ages are new."""
        id_, lane = entry.device.id, entry.lane
        key = (entry.told, entry.state, lane)
        known = self._told.get(id_)
        if known is None or known[0] != key:
            told = _Lines(self._prefixes, self._sets, entry.figures.since)
            self._standing(told, entry)
            if len(self._told) >= _REMEMBERED:
                self._told.clear()
            known = self._told[id_] = (key, tuple(told.rows.items()), told.created)
        for metric, found in known[1]:
            lines.rows.setdefault(metric, []).extend(found)
        lines.created.update(known[2])
        dropped = lane.series_dropped if lane is not None else 0
        if self._processes is not None:
            dropped += self._processes.series_dropped(id_)
        if dropped:
            lines.add(rows.SERIES_DROPPED, dropped, id_)
        if lane is not None and lane.newest:
            lines.add(rows.DATA_AGE, now - lane.newest, id_)
        if entry.held is not None:
            lines.add(rows.STUCK_READ_AGE, now - entry.held_since, id_, entry.held[1])
        elif entry.visitor:
            lines.add(rows.STUCK_READ_AGE, now - entry.visitor_since, id_, entry.visitor)
        elif lane is not None and lane.hung_file:
            lines.add(rows.STUCK_READ_AGE, now - lane.hung_since, id_, lane.hung_file)
        for call in entry.calls.values():
            if call.lane is not None and call.lane.hung_file:
                lines.add(rows.STUCK_READ_AGE, now - call.lane.hung_since, id_, call.lane.hung_file)

    @staticmethod
    def _standing(lines: _Lines, entry: Entry) -> None:
        """What changes only when a device tells something."""
        id_, figures, lane = entry.device.id, entry.figures, entry.lane
        lines.add_states(rows.DEVICE_STATE, STATES, entry.state.value, id_)
        for outcome, count in figures.reads.items():
            lines.add(rows.READS, count, id_, outcome.value)
        for reason, count in figures.malformed.items():
            lines.add(rows.MALFORMED, count, id_, reason)
        lines.add(rows.READ_SECONDS, figures.read_seconds, id_)
        lines.add(rows.HANGS, figures.hangs, id_)
        for metric, value in (
            (rows.SUSPENDED_SEEN, figures.left_suspended),
            (rows.DECODER_FAILURES, figures.decoder_failures),
            (rows.ROWS_DROPPED, figures.rows_dropped),
            (rows.TICKS_MISSED, figures.ticks_missed),
        ):
            if value:
                lines.add(metric, value, id_)
        for call in entry.calls.values():
            _call(lines, call)
        if lane is None:
            return
        if lane.power:
            lines.add_states(runtime_power.POWER_STATE, RUNTIME_STATUSES, lane.power, id_)
        for path, period, cost in lane.demoted():
            lines.add(rows.ATTRIBUTE_PERIOD, period, id_, path)
            lines.add(rows.ATTRIBUTE_READ_SECONDS, cost, id_, path)

    def _missing(self, lines: _Lines) -> None:
        known = self._inventory.expected.known
        for id_ in self._inventory.missing:
            lines.add(rows.DEVICE_MISSING, 1, id_)
            found = self._info.get(id_, (_NO_BLOCKS, ()))[1]
            if not found and id_ in known and known[id_].info:
                # A former run saw it.
                found = ((gpu.INFO, info_prefix(known[id_].info)),)
            for metric, prefix in found:
                lines.rows.setdefault(metric, []).append((prefix, 1))

    def _kinds(self, lines: _Lines) -> None:
        kinds = [device.kind for device in self._inventory.devices.values()]
        for kind in DeviceKind:
            lines.add(rows.DEVICES, kinds.count(kind), kind.value)
        if DeviceKind.MEMORY in kinds:
            # /proc/vmstat counts in pages of this size.
            lines.add(memory.PAGE_SIZE, mmap.PAGESIZE)

    def _own(self, lines: _Lines) -> None:
        link, counts = self._link, self._counts
        beat = link.heartbeat
        lines.add(rows.BUILD_INFO, 1, __version__, platform.python_version())
        if link.engine:
            lines.add(rows.ENGINE_INFO, 1, link.engine, link.reason)
        lines.add(rows.READER_UP, int(link.up))
        lines.add(rows.READER_CPU, link.cpu_seconds)
        lines.add(rows.READS_IN_FLIGHT, beat[3])
        lines.add(rows.WORKERS, beat[4])
        if beat[6]:
            lines.add(rows.WORKER_LIMIT, beat[6] >> 32, "bounded")
            lines.add(rows.WORKER_LIMIT, beat[6] & 0xFFFFFFFF, "unbounded")
        lines.add(rows.STUCK_LANES, beat[2])
        lines.add(rows.STUCK_READER_PROCESSES, self._sampler.stuck_processes)
        lines.add(rows.OVERFLOW, beat[1])
        lines.add(rows.RECORDS_DROPPED, link.records_dropped)
        lines.add(rows.UEVENTS_LOST, counts.uevents_lost)
        lines.add(rows.CONFIG_RELOAD_SUCCESS, int(counts.reload_ok and counts.web_ok))
        lines.add(rows.CONFIG_RELOAD_TIMESTAMP, counts.reloaded)
        lines.add(rows.PAUSED, int(self._sampler.paused))
        if self._processes is not None:
            _scout(lines, self._processes)
        if self._streams is not None:
            _tracer(lines, self._streams)
        for name, cost in counts.processes.items():
            lines.add(rows.PROCESS_CPU, cost.cpu, name)
            lines.add(rows.PROCESS_RESIDENT, cost.resident, name)
            lines.add(rows.PROCESS_THREADS, cost.threads, name)
            if cost.descriptors is not None:
                lines.add(rows.PROCESS_DESCRIPTORS, cost.descriptors, name)
        for call, one in self._sampler.call_links.items():
            lines.add(rows.CALL_UP, int(one.up), call)
            lines.add(rows.CALL_CPU, one.cpu_seconds, call)
            if one.engine:
                lines.add(rows.CALL_INFO, 1, call, one.reason)
            for reason, count in one.restarts.items():
                lines.add(rows.CALL_RESTARTS, count, call, reason)
        for metric, by_label in (
            (rows.READER_RESTARTS, link.restarts),
            (rows.UEVENTS, counts.uevents),
            (rows.RESCANS, counts.rescans),
            (rows.TASK_RESTARTS, counts.task_restarts),
        ):
            for label, count in by_label.items():
                lines.add(metric, count, label)

    def _view(self, entry: Entry, now: float) -> DeviceView:
        device, lane = entry.device, entry.lane
        planned = lane.plan if lane is not None else None
        return DeviceView(
            id=device.id,
            kind=device.kind.value,
            driver=device.driver,
            path=device.path,
            nodes=device.nodes,
            numa_node=_numa_node(entry),
            state=entry.state.value,
            age=now - lane.newest if lane is not None and lane.newest else None,
            identity=self._identity(entry),
            attributes=len(planned.files) if planned is not None else 0,
        )

    def _identity(self, entry: Entry) -> Mapping[str, str]:
        """What the driver's identity files say, decoded once for each reading of the facts."""
        known = self._identities.get(entry.device.id)
        if known is None or known[0] is not entry.facts:
            if len(self._identities) >= _REMEMBERED:
                self._identities.clear()
            known = self._identities[entry.device.id] = (entry.facts, _identity(entry))
        return known[1]


def _scout(lines: _Lines, processes: Processes) -> None:
    """How the scout stands and what it saw."""
    told = processes.told
    lines.add(rows.SCOUT_UP, int(processes.link.up))
    for reason, count in processes.link.restarts.items():
        lines.add(rows.SCOUT_RESTARTS, count, reason)
    if told:
        lines.add(rows.SCOUT_CPU, told["cpu"])
        lines.add(rows.SCOUT_PROCESSES, told["processes"])
        lines.add(rows.SCOUT_DENIED, told["denied"])
        lines.add(rows.SCOUT_EVENTS, int(told["events"] == "netlink"))
        for kind in ("lists", "sweeps", "looks"):
            lines.add(rows.SCOUT_WORK, told[kind], kind)
    lines.add(rows.KERNEL_LOG_UP, int(processes.link.up and processes.log.up))
    lines.add(rows.KERNEL_LOG_RECORDS, processes.log.records)
    lines.add(rows.KERNEL_LOG_LOST, processes.log.lost)


def _tracer(lines: _Lines, streams: Streams) -> None:
    """How the tracer stands and what it saw."""
    lines.add(rows.TRACER_UP, int(streams.link.up))
    for reason, count in streams.link.restarts.items():
        lines.add(rows.TRACER_RESTARTS, count, reason)
    if not streams.told:
        return
    lines.add(rows.TRACER_CPU, streams.total("cpu"))
    lines.add(rows.TRACER_EVENTS, streams.total("events"))
    lines.add(rows.TRACER_LOST, streams.total("lost"))
    lines.add(rows.TRACER_MALFORMED, streams.total("malformed"))
    for subject, one in streams.standings.items():
        for state in TRACING:
            lines.add(rows.TRACER_STATE, int(state == one.state), subject, state)
        lines.add(rows.TRACER_INFO, 1, subject, one.recipe, one.reason)
    for subject, cut in streams.cut.items():
        lines.add(rows.TRACER_SERIES_DROPPED, cut, subject)


def _call(lines: _Lines, call: CallLane) -> None:
    """How calls of one kind stand with a device; what their answers were is counted like that of files."""
    id_, kind, figures = call.device.id, call.kind, call.figures
    for state in STATES:
        lines.add(rows.CALL_STATE, int(state == call.state.value), id_, kind, state)
    for outcome, count in figures.reads.items():
        lines.add(rows.CALLS, count, id_, kind, outcome.value)
    lines.add(rows.CALL_SECONDS, figures.read_seconds, id_, kind)
    lines.add(rows.CALL_HANGS, figures.hangs, id_, kind)
    for reason, count in figures.malformed.items():
        lines.add(rows.MALFORMED, count, id_, f"{kind}: {reason}")
    if call.lane is not None:
        for path, period, cost in call.lane.demoted():
            lines.add(rows.ATTRIBUTE_PERIOD, period, id_, path)
            lines.add(rows.ATTRIBUTE_READ_SECONDS, cost, id_, path)


def _answered(entry: Entry) -> bool:
    """Whether it is known how the device stands: it was read as planned, or sleeps, hangs or refuses."""
    if not all(call.settled for call in entry.calls.values()):
        return False
    if entry.state is not Outcome.STALE:
        # A new plan inherits the state of the one before: `ok` counts once it was read itself.
        return entry.state is not Outcome.OK or entry.lane is None or _was_read(entry.lane)
    return entry.held is not None or (entry.lane is not None and entry.lane.answered)


def _was_read(lane: DeviceLane) -> bool:
    return lane.answered and not lane.plan.provisional


def _identity(entry: Entry) -> Mapping[str, str]:
    """What the driver's identity files say, empty ones left out."""
    facts = entry.facts or {}
    found = driver_for(entry.device).identified(facts)
    return {label: text for label, text in found.items() if text}


def _numa_node(entry: Entry) -> int | None:
    lane = entry.lane
    block = lane.plan.blocks.get(NUMA_NODE) if lane is not None else None
    if lane is None or block is None:
        return None
    value = lane.values[block.indexes[0]]
    return int(value) if value is not None else None
