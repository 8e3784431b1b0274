"""All lanes: a device comes, its facts are read, its plan is made, its readings are taken, it goes.

Everything here runs on the event loop and does no I/O but with the reader: a device is read by nobody else.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpudaemon.drivers import Facts
from gpudaemon.model.device import Device
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Samples
from gpudaemon.pipeline.calls import CallLane, Calls
from gpudaemon.pipeline.figures import Figures
from gpudaemon.pipeline.holders import Holders
from gpudaemon.pipeline.joined import Joined
from gpudaemon.pipeline.lane import DeviceLane
from gpudaemon.pipeline.link import ReaderLink, Record
from gpudaemon.pipeline.plan import (
    EVERYTHING,
    DevicePlan,
    Selection,
    call_plans,
    facts_needed,
    facts_plan,
    make_plan,
    reader_plan,
)
from gpudaemon.pipeline.policy import DEMOTED_PERIODS, RETRY_PERIOD
from gpudaemon.reader.channel import GROUPS, LaneMemory, RecordKind

__all__ = ["Entry", "Periods", "Sampler"]

_log = logging.getLogger(__name__)

_CLIENTS_PERIOD = 2.0
"""Seconds between looks for clients while a device rests."""
_CLIENTS_TOLD = 20.0
"""Seconds for which nobody need look for clients after others told of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Seconds between readings, by cadence, and the deadlines of a single read and a single call."""

    static: float
    slow: float
    normal: float
    fast: float
    deadline: float
    call_deadline: float = 5.0

    def by_group(self) -> list[float]:
        """Periods of the reader's groups: the cadences, the demoted ones, the group of files asked again."""
        periods = [self.static, self.slow, self.normal, self.fast, *DEMOTED_PERIODS]
        periods += [DEMOTED_PERIODS[-1]] * (GROUPS - len(periods))
        periods[-1] = RETRY_PERIOD
        return periods


@dataclass(slots=True)
class Entry:
    """One device of the inventory with all that is kept for it.

    lane: None while it is quarantined from the start. facts: None until they are read.
    held: (pid, file) of the former reader that holds it; held_since: since when it does.
    told: how many records came of it. former: of the plan before, while facts for the next are read.
    outdated: a new plan waits until the stuck read comes back. paused: nothing is read now.
    changed: its names are others than when its facts were read.
    visitor: file of a guest lane that hangs in its driver, since visitor_since; empty for none.
    calls: what is asked of it besides, by kind. joined: keeps what the samples of all have in common.
    """

    device: Device
    figures: Figures = field(default_factory=Figures)
    created: dict[str, float] = field(default_factory=dict)
    lane: DeviceLane | None = None
    facts: Facts | None = None
    held: tuple[int, str] | None = None
    held_since: float = 0.0
    told: int = 0
    former: DeviceLane | None = None
    outdated: bool = False
    changed: bool = False
    paused: bool = False
    visitor: str = ""
    visitor_since: float = 0.0
    calls: Mapping[str, CallLane] = field(default_factory=dict)
    joined: Joined = field(default_factory=Joined)

    @property
    def shown(self) -> DeviceLane | None:
        """The lane whose values are served."""
        lane = self.lane
        if lane is None or not lane.plan.provisional or self.former is None:
            return lane
        return self.former if lane.state in (Outcome.OK, Outcome.STALE) else lane

    @property
    def state(self) -> Outcome:
        """How the daemon stands with the device."""
        if self.held is not None or self.visitor:
            return Outcome.HUNG
        state = self.lane.state if self.lane is not None else Outcome.STALE
        for worse in (Outcome.HUNG, Outcome.GONE):
            if state is not Outcome.HUNG and any(call.state is worse for call in self.calls.values()):
                return worse
        if self.paused and state not in (Outcome.HUNG, Outcome.GONE):
            return Outcome.PAUSED
        return state

    def samples(self, now: float) -> Samples | None:
        """What is known of it now, of files and of calls; None before anything is planned."""
        lane = self.shown
        if lane is None or lane.plan.provisional:
            return None
        parts = [lane.samples(now)]
        parts += [call.lane.samples(now) for call in self.calls.values() if call.lane is not None]
        return self.joined.join(parts)


class Sampler:
    """See the module.

    selection: what is wanted of a device. resting: idle devices are given the chance to fall asleep.
    later: calls something in the loop's next round.
    gone: a device seems to be gone, look again. calls: makes the calls, None for none.
    """

    def __init__(
        self,
        link: ReaderLink,
        holders: Holders,
        *,
        sysfs: str,
        procfs: str = "/proc",
        periods: Periods,
        selection: Selection = EVERYTHING,
        resting: bool = True,
        gone: Callable[[], None] = lambda: None,
        later: Callable[[Callable[[], None]], object] = lambda what: what(),
        calls: Calls | None = None,
    ) -> None:
        self._calls = calls
        self._link = link
        self._holders = holders
        self._sysfs = sysfs
        self._procfs = procfs
        self._clients_asked = 0.0
        self._clients_told = -_CLIENTS_TOLD
        self._periods = periods
        self._selection = selection
        self._resting = resting
        self.paused = False
        self._gone = gone
        self._later = later
        self._planning: deque[tuple[Entry, DeviceLane]] = deque()
        self._numbers = 0
        self._by_number: dict[int, Entry] = {}
        self._once: dict[str, tuple[Entry, Callable[[Facts], None]]] = {}
        self.entries: dict[str, Entry] = {}
        self.stuck_processes = holders.processes(link.pid)
        self.version = 0
        self.visitors: Callable[[Record], None] = lambda _: None
        """takes the records of guest lanes (`gpudaemon.pipeline.clients`)"""
        self.planned: Callable[[], None] = lambda: None
        """called when every device whose facts are known has its plan"""
        self.reader_changed: Callable[[], None] = lambda: None
        """called when a new reader took the lanes of devices"""
        link.on_record = self.take
        link.on_start = self._reader_started
        link.on_lost = self._reader_lost
        link.on_clients = self._clients_seen
        if calls is not None:
            calls.news = self._call_news

    @property
    def call_links(self) -> Mapping[str, ReaderLink]:
        """The links to processes that make calls, by kind."""
        return self._calls.links if self._calls is not None else {}

    # Devices come and go

    def set_devices(self, devices: Iterable[Device]) -> None:
        """Make the lanes those of `devices`; a device that changed is planned anew, others are left alone."""
        wanted = {device.id: device for device in devices}
        for id_ in [id_ for id_ in self.entries if id_ not in wanted]:
            self.remove(id_)
        for id_, device in wanted.items():
            entry = self.entries.get(id_)
            if entry is None:
                self.entries[id_] = entry = Entry(device, paused=self.paused)
                self._open(entry)
            elif entry.device != device:
                # Names that come or go beside the others take nothing away from what is known of those.
                same = (entry.device.path, entry.device.driver) == (device.path, device.driver)
                entry.device = device
                entry.changed = True
                self._plan_anew(entry, keep=same)

    def remove(self, id_: str) -> None:
        """A device is gone: everything kept for it goes too."""
        entry = self.entries.pop(id_, None)
        if entry is not None:
            self._close(entry)
            if self._calls is not None and entry.calls:
                self._calls.remove(id_)
            self.version += 1

    def reconfigure(self, *, periods: Periods, selection: Selection, resting: bool) -> None:
        """Plan every device anew where this is another configuration; what is known stays known meanwhile."""
        before = (self._periods.deadline, self._periods.call_deadline, self._selection, self._resting)
        periods_changed = periods != self._periods
        self._periods, self._selection, self._resting = periods, selection, resting
        if self._calls is not None and periods_changed:
            self._calls.set_periods(periods.by_group(), periods.call_deadline)
        if (periods.deadline, periods.call_deadline, selection, resting) != before:
            for entry in self.entries.values():
                self._plan_anew(entry)
        elif periods_changed:
            for entry in self.entries.values():
                if entry.lane is not None:
                    entry.lane.set_periods(periods.by_group())

    def pause(self, paused: bool) -> None:
        """Read nothing, or read again. What hangs stays in quarantine either way."""
        self.paused = paused
        for entry in self.entries.values():
            entry.paused = paused
        self._link.pause(paused)
        if self._calls is not None:
            self._calls.pause(paused)
        self.version += 1

    def read_once(self, device: Device, paths: Sequence[str], done: Callable[[Facts], None]) -> None:
        """Read files of a device that is not (yet) in the inventory; `done` gets their contents."""
        old = self._once.pop(device.id, None)
        if old is not None:
            self._close(old[0])
        entry = Entry(device)
        self._once[device.id] = (entry, done)
        self._send(entry, facts_plan(device, paths))

    # The reader speaks

    def take(self, record: Record) -> None:
        """Take one record of a lane; those of lanes dropped meanwhile are nobody's."""
        kind, code, index, number, groups, _, chain, started, ended = record
        entry = self._by_number.get(number)
        if entry is None or entry.lane is None:
            self.visitors(record)
            return
        lane = entry.lane
        self.version += 1
        entry.told += 1
        if kind == RecordKind.FINISHED:
            lane.finished(groups, chain, started, ended)
            if code:
                self._gone()
            elif entry.facts is None and groups:
                self._facts_read(entry, lane)
            elif lane.unsettled:
                self._settle_anew(entry, lane)
        elif kind in (RecordKind.POWER, RecordKind.RESTING):
            lane.withheld(chain, ended, resting=kind == RecordKind.RESTING)
        elif kind == RecordKind.HUNG:
            lane.hung(index, started)
            self._note_stuck()
        elif kind == RecordKind.RESUMED:
            lane.resumed()
            self._note_stuck()
            if entry.outdated:
                self._plan_anew(entry)
        if entry.calls:
            self._rest_calls(entry)

    def next_number(self) -> int:
        """A number for a lane that nobody else has."""
        self._numbers += 1
        return self._numbers

    def clients_told(self, descriptors: Mapping[str, int], now: float) -> None:
        """Open descriptors by node, from somebody who keeps looking: the reader need not."""
        self._clients_told = now
        self._clients_seen(descriptors)

    def visitor_hangs(self, entry: Entry, path: str, since: float) -> None:
        """A file of a guest lane hangs in a device's driver, or, with an empty path, it came back."""
        entry.visitor, entry.visitor_since = path, since
        entry.told += 1
        self.version += 1
        if path:
            entry.figures.hangs += 1
            entry.figures.count(Outcome.HUNG)
            _log.warning("read hangs, device quarantined", extra={"device": entry.device.id, "attribute": path})
        self._note_stuck()

    def tick(self, now: float) -> bool:
        """Now and then: files asked again, devices released by former readers, a silent reader replaced.

        True where something is going on that wants to be looked at within a second.
        """
        resting = waiting = False
        for entry in self.entries.values():
            lane = entry.lane
            if lane is None:
                waiting = True
                continue
            if lane.next_retry <= now:
                lane.retry(now)
            if lane.state is Outcome.RESTING:
                resting = True
            elif lane.state is Outcome.HUNG:
                waiting = True
        self._check_held()
        told = now - self._clients_told < _CLIENTS_TOLD
        if resting and not told and not self.paused and now - self._clients_asked >= _CLIENTS_PERIOD:
            self._clients_asked = now
            self._link.ask_clients(self._procfs)
        self._link.watch(now)
        if self._calls is not None and self._calls.tick(now):
            waiting = True
        return waiting or resting

    # Within

    def _open(self, entry: Entry) -> None:
        """Start reading a device: its facts first, where its collectors need any."""
        self.version += 1
        held = self._holders.held(self._link.pid).get(entry.device.id)
        if held is not None:
            entry.held = held
            entry.held_since = self._holders.since(entry.device.id) or time.monotonic()
            _log.warning(
                "device is held by a former reader",
                extra={"device": entry.device.id, "pid": held[0], "attribute": held[1]},
            )
            return
        entry.held = None
        if entry.changed:
            entry.facts, entry.changed = None, False
        needed = facts_needed(entry.device, self._selection)
        if entry.facts is None and needed:
            self._send(entry, facts_plan(entry.device, needed))
        else:
            entry.facts = entry.facts or {}
            self._plan(entry, entry.facts)

    def _plan_anew(self, entry: Entry, *, keep: bool = True) -> None:
        """The device or the configuration is another one. keep: what is known is served until it is known anew.

        A device that hangs waits: a further lane would leave one more read in its driver.
        """
        entry.outdated = entry.lane is not None and entry.lane.state is Outcome.HUNG
        if entry.outdated or entry.held is not None:
            return
        facts, lane = entry.facts, entry.lane
        if (
            lane is not None
            and facts is not None
            and not entry.changed
            and set(facts_needed(entry.device, self._selection)) <= set(facts)
        ):
            self._queue(entry, lane)
        else:
            self._close(entry)
            former = lane if facts is not None else entry.former
            entry.former = former if keep else None
            entry.facts, entry.changed = None, False
            self._open(entry)

    def _settle_anew(self, entry: Entry, lane: DeviceLane) -> None:
        """A file the plan rests on says something else now: read the facts again; what is known stays known.

        Names may be others as well: sysfs is looked at again too.
        """
        self._gone()
        self._close(entry)
        entry.former, entry.facts = lane, None
        self._open(entry)

    def _plan(self, entry: Entry, facts: Facts) -> None:
        """All is known that a plan takes: have the device read, and called."""
        plan = make_plan(entry.device, facts, self._selection)
        self._send(entry, plan)
        if self._calls is None or not (self._selection.calls or entry.calls):
            return
        plans = call_plans(entry.device, facts, self._selection, plan)
        if plans or entry.calls:
            entry.calls = self._calls.set(entry.device, plans, entry.created)
            self._rest_calls(entry)
            assert entry.lane is not None
            entry.lane.busy_elsewhere = lambda: any(call.busy() for call in entry.calls.values())

    def _rest_calls(self, entry: Entry) -> None:
        """A device that is left alone is not called either."""
        if entry.lane is not None and self._calls is not None:
            self._calls.rest(entry.device.id, entry.lane.memory.rest_until)

    def _call_news(self, id_: str) -> None:
        entry = self.entries.get(id_)
        if entry is not None:
            self.version += 1
            entry.told += 1

    def _send(self, entry: Entry, plan: DevicePlan) -> None:
        """Make a lane for `plan` and hand it to the reader."""
        self._numbers += 1
        number = self._numbers
        groups = [file.group for file in plan.files]
        memory = self._memory(plan, number, groups)
        before = [lane for lane in (entry.former, entry.lane) if lane is not None]
        entry.lane = DeviceLane(
            number, plan, memory, entry.figures, entry.created, gone=self._gone, resting=self._resting
        )
        for lane in before:
            entry.lane.inherit(lane)
        if not plan.provisional:
            entry.former = None
        if len(plan.files) == plan.gated:
            # Nothing to read, as of a partition: the reader never answers for it, and nothing is wanting.
            entry.lane.state, entry.lane.answered = Outcome.OK, True
        self._by_number[number] = entry

    def _memory(self, plan: DevicePlan, number: int, groups: Sequence[int]) -> LaneMemory:
        description = reader_plan(plan, number, self._sysfs, self._periods.deadline, procfs=self._procfs)
        descriptor = LaneMemory.create(description, groups, self._periods.by_group())
        memory = LaneMemory(descriptor)
        self._link.send_lane(descriptor)
        return memory

    def _close(self, entry: Entry) -> None:
        if entry.lane is not None:
            self._by_number.pop(entry.lane.number, None)
            self._link.drop_lane(entry.lane.number)
            entry.lane.settle()
            entry.lane = None

    def _facts_read(self, entry: Entry, lane: DeviceLane) -> None:
        """If this was a facts lane, its contents are here: plan what comes next."""
        id_ = entry.device.id
        once = self._once.get(id_)
        if once is not None and once[0] is entry:
            del self._once[id_]
            self._close(entry)
            once[1](lane.facts())
        else:
            entry.facts = lane.facts()
            self._queue(entry, lane)

    def _queue(self, entry: Entry, lane: DeviceLane) -> None:
        """Plan the device soon; `lane` is read until then."""
        self._planning.append((entry, lane))
        if len(self._planning) == 1:
            self._later(self._plan_next)

    def _plan_next(self) -> None:
        """Facts have become known through a lane: the device's real lane takes its place.

        A plan takes a millisecond, and after start all facts come together: one plan in each round of the
        loop, so that it serves others in between.
        """
        entry, lane = self._planning.popleft()
        self._later(self._plan_next if self._planning else self.planned)
        if entry.lane is not lane or entry.facts is None:
            return
        if lane.state is Outcome.HUNG:
            entry.outdated = True
            return
        entry.outdated = False
        self._by_number.pop(lane.number, None)
        self._link.drop_lane(lane.number)
        self._plan(entry, entry.facts)

    def _note_stuck(self) -> None:
        hung = {
            id_: entry.lane
            for id_, entry in self.entries.items()
            if entry.lane is not None and entry.lane.hung_file
        }
        stuck = {id_: lane.hung_file for id_, lane in hung.items()}
        since = {id_: lane.hung_since for id_, lane in hung.items()}
        for id_, entry in self.entries.items():
            if entry.visitor and id_ not in stuck:
                stuck[id_], since[id_] = entry.visitor, entry.visitor_since
        self._holders.note(self._link.pid, stuck, since)

    def _check_held(self) -> None:
        held: Mapping[str, tuple[int, str]] = self._holders.held(self._link.pid)
        self.stuck_processes = len({pid for pid, _ in held.values()})
        for id_, entry in self.entries.items():
            if entry.held is not None and id_ not in held:
                _log.info("device is free again", extra={"device": id_})
                self._open(entry)

    def _clients_seen(self, descriptors: Mapping[str, int]) -> None:
        """A client that appears ends the rest of its device: there is something to see again."""
        for entry in self.entries.values():
            if entry.lane is not None:
                entry.lane.clients(sum(descriptors.get(node, 0) for node in entry.device.nodes))
                if entry.calls:
                    self._rest_calls(entry)

    def _reader_lost(self, _: int) -> None:
        """Nobody reads now. Values age by the ordinary rule; stuck lanes wait for their reader to end."""
        self._by_number.clear()

    def _reader_started(self) -> None:
        """Hand every lane to the new reader, but those that a former one still holds."""
        held = self._holders.held(self._link.pid)
        everyone = [*self.entries.values(), *(entry for entry, _ in self._once.values())]
        for entry in everyone:
            if entry.device.id in held:
                entry.held = held[entry.device.id]
                entry.held_since = entry.lane.hung_since if entry.lane is not None else time.monotonic()
                entry.lane = None
            elif entry.lane is not None:
                self._numbers += 1
                lane = entry.lane
                lane.adopt(self._numbers, self._memory(lane.plan, self._numbers, lane.groups()))
                self._by_number[self._numbers] = entry
        self.reader_changed()
