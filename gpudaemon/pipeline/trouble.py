"""Trouble of all devices: from uevents, the kernel's log, counters that rise, from who is missing. Counted and
remembered.

Counters are looked at at each heartbeat: what rose since the last look is trouble of that kind, as much as it
rose. What stood there before the daemon saw the device first is history and not counted. Clocks held down for
heat are an episode that counts once, however often the flag flips or the counter ticks.
"""

import enum
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from gpudaemon.metrics import gpu, gpu_throttle, p2p, pcie
from gpudaemon.metrics import trouble as rows
from gpudaemon.model.metric import Kind, Metric, Series
from gpudaemon.model.trouble import KINDS, Severity, Trouble
from gpudaemon.pipeline.lane import DeviceLane
from gpudaemon.pipeline.sampler import Entry

__all__ = ["Source", "Troubles", "Watch"]

_MOST_KEYS = 4096
_MOST_EVENTS = 512
_MOST_COUNTERS = 4096
"""Series of one device that are followed."""
_TWICE = frozenset({"reset", "wedged"})
"""Kinds that a driver may tell both by uevent and in the log."""
_SAME = 5.0
"""Seconds within which the one and the other are the same."""
_MOST_ALONE = 64
_NAMED_AFTER = 2.0
"""Seconds after which a process belongs to no trouble said before."""
_EPISODE = 60.0
"""Seconds without that end an episode."""

_Key = tuple[str, str, str]
Rows = Mapping[Metric, tuple[tuple[str, float], ...]]


class Source(enum.Enum):
    """Where trouble was heard of; all but the log is one."""

    OTHER = 0
    LOG = 1


@dataclass(frozen=True, slots=True)
class Watch:
    """Series whose rise is trouble. label: of the metric that names the severity, empty for `severity`.

    words: value of that label -> severity; a value that is not there is no trouble. about: label for the text.
    episode: a rise is one, and a value that stands goes on with it; else it counts for as much as it rose.
    """

    metric: Metric
    kind: str
    label: str
    words: Mapping[str, Severity]
    about: str = ""
    episode: bool = False


_AER = {"corrected": Severity.CORRECTED, "nonfatal": Severity.UNCORRECTED, "fatal": Severity.FATAL}
_RAS = {
    "corrected": Severity.CORRECTED,
    "deferred": Severity.UNCORRECTED,
    "uncorrected": Severity.UNCORRECTED,
}
# Pending pages and rows are not watched: they are counted when they are retired.
_PAGES = {"reserved": Severity.UNCORRECTED, "failed": Severity.FATAL}
_HEAT = {"thermal": Severity.CORRECTED}
WATCHED = (
    Watch(pcie.AER_ERRORS, "aer", "severity", _AER, "kind"),
    Watch(gpu.RAS_ERRORS, "ras", "severity", _RAS, "block"),
    Watch(gpu.RAS_BAD_PAGES, "retired", "state", _PAGES, "state"),
    Watch(gpu.THROTTLED, "throttled", "cause", _HEAT, "reason", episode=True),
    Watch(gpu_throttle.THROTTLED_TICKS, "throttled", "cause", _HEAT, "reason", episode=True),
)


class Troubles:
    """See the module. owner: (device, pid) -> who a process belongs to, empty where that is not known."""

    def __init__(
        self,
        *,
        watched: Iterable[Watch] = WATCHED,
        owner: Callable[[str, int], str] = lambda _device, _pid: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._watched = tuple(watched)
        self._owner = owner
        self._clock = clock
        self._counts: dict[_Key, int] = {}
        self._last: dict[_Key, float] = {}
        self._values: dict[str, dict[str, float]] = {}
        self._episodes: dict[tuple[str, str], float] = {}
        self._alone: deque[tuple[Trouble, Source]] = deque(maxlen=_MOST_ALONE)
        """of kinds that come twice, those heard of from one source only as yet"""
        self._links: dict[str, float] = {}
        self._missing: frozenset[str] = frozenset()
        self.dropped = 0
        self.events: deque[Trouble] = deque(maxlen=_MOST_EVENTS)
        """the latest, oldest first"""

    def note(self, trouble: Trouble, source: Source = Source.OTHER) -> None:
        """Count and remember."""
        assert trouble.kind in KINDS, trouble.kind
        if trouble.kind in _TWICE and self._is_known(trouble, source):
            return
        key = (trouble.device, trouble.kind, trouble.severity.value)
        if key not in self._counts and len(self._counts) >= _MOST_KEYS:
            self.dropped += trouble.count
        else:
            self._counts[key] = self._counts.get(key, 0) + trouble.count
            self._last[key] = trouble.at
        self.events.append(self._owned(trouble))

    def name(self, device: str, kind: str, pid: int, task: str, at: float) -> None:
        """The kernel said whose trouble it was: the last of that kind, unless that is long ago or is named."""
        for place in range(len(self.events) - 1, -1, -1):
            one = self.events[place]
            if one.at < at - _NAMED_AFTER:
                return
            if (one.device, one.kind) == (device, kind):
                if not one.pid:
                    self.events[place] = self._owned(replace(one, pid=pid, task=task))
                return

    def _owned(self, trouble: Trouble) -> Trouble:
        if not trouble.pid or trouble.owner:
            return trouble
        return replace(trouble, owner=self._owner(trouble.device, trouble.pid))

    def _is_known(self, trouble: Trouble, source: Source) -> bool:
        """Whether the same was heard of from another source just before; then that one gets what it lacked."""
        for place, (other, heard) in enumerate(self._alone):
            same = (other.device, other.kind) == (trouble.device, trouble.kind) and heard is not source
            if same and trouble.at - other.at <= _SAME:
                del self._alone[place]
                if trouble.pid:
                    self.name(trouble.device, trouble.kind, trouble.pid, trouble.task, other.at)
                return True
        self._alone.append((trouble, source))
        return False

    def missing(self, devices: Iterable[str]) -> None:
        """Which devices are missed now: each that is new on the list is trouble."""
        now = frozenset(devices)
        for device in sorted(now - self._missing):
            self.note(Trouble(at=self._clock(), device=device, kind="missing", severity=Severity.FATAL))
        self._missing = now

    def look(self, entries: Mapping[str, Entry], of_host: Mapping[Metric, Iterable[tuple[str, float]]]) -> None:
        """See which counters rose, and which links lost lanes."""
        # What is not known for a while, of a device that sleeps or a file that fails, stays as it was last.
        shown = {device for device, entry in entries.items() if next(_lanes(entry), None) is not None}
        self._values = {device: known for device, known in self._values.items() if device in shown}
        now = self._clock()
        self._episodes = {key: at for key, at in self._episodes.items() if 0 <= now - at <= _EPISODE}
        for device, entry in entries.items():
            for watch in self._watched:
                for prefix, value in _values(entry, watch.metric):
                    self._rose(device, watch, prefix, value)
        before, self._links = self._links, dict(of_host.get(p2p.LINK_DOWNGRADED, ()))
        for prefix, value in self._links.items():
            if value and before.get(prefix) == 0:
                device = _labels(p2p.LINK_DOWNGRADED, prefix)["device"]
                self.note(
                    Trouble(
                        at=self._clock(), device=device, kind="link_downgraded", severity=Severity.UNCORRECTED
                    )
                )

    def _rose(self, device: str, watch: Watch, prefix: str, value: float) -> None:
        before = self._before(device, prefix, value)
        if before is None:
            return
        rose = value > before
        if not rose and not (watch.episode and value and (device, prefix) in self._episodes):
            return
        labels = _labels(watch.metric, prefix)
        severity = watch.words.get(labels.get(watch.label, ""))
        if severity is None:
            return
        now = self._clock()
        if watch.episode:
            goes_on = (device, prefix) in self._episodes
            if rose or watch.metric.kind is Kind.GAUGE:
                self._episodes[device, prefix] = now
            if goes_on:
                return
        self.note(
            Trouble(
                at=now,
                device=device,
                kind=watch.kind,
                severity=severity,
                text=labels.get(watch.about, ""),
                count=1 if watch.episode else max(1, round(value - before)),
            )
        )

    def _before(self, device: str, prefix: str, value: float) -> float | None:
        """The value before this one, None for the first; this one is kept."""
        known = self._values.setdefault(device, {})
        before = known.get(prefix)
        if before is not None or len(known) < _MOST_COUNTERS:
            known[prefix] = value
        return before

    def rows(self, wanted: Callable[[Metric], bool] = lambda _: True) -> Rows:
        """Series of what was counted. wanted: whether a metric is served."""
        if not self._counts:
            return {}
        made: dict[Metric, tuple[tuple[str, float], ...]] = {
            rows.EVENTS: tuple((Series(rows.EVENTS, key).prefix(), n) for key, n in self._counts.items()),
            rows.LAST_SEEN: tuple((Series(rows.LAST_SEEN, key).prefix(), at) for key, at in self._last.items()),
        }
        if self.dropped:
            made[rows.EVENTS_DROPPED] = ((Series(rows.EVENTS_DROPPED).prefix(), self.dropped),)
        return {metric: lines for metric, lines in made.items() if wanted(metric)}


def _lanes(entry: Entry) -> Iterator[DeviceLane]:
    """What files give of a device, and what calls give."""
    lanes = (entry.shown, *(call.lane for call in entry.calls.values()))
    return (lane for lane in lanes if lane is not None)


def _values(entry: Entry, metric: Metric) -> Iterator[tuple[str, float]]:
    """Series of a metric that a device has now, with their values; what files give comes first."""
    known: set[str] = set()
    for lane in _lanes(entry):
        block = lane.plan.blocks.get(metric)
        lines = [line for found in lane.rows.values() for line in found.get(metric, ())]
        if block is not None:
            values = (
                (prefix, lane.values[at]) for prefix, at in zip(block.prefixes, block.indexes, strict=True)
            )
            lines += [(prefix, value) for prefix, value in values if value is not None]
        # A later part of the page does not have a series again (`pipeline.joined`).
        for prefix, value in lines:
            if prefix not in known:
                yield prefix, value
        known.update(prefix for prefix, _ in lines)


def _labels(metric: Metric, prefix: str) -> dict[str, str]:
    """Labels of a rendered series whose values need no escaping, as those of devices and severities do not."""
    inside = prefix.partition("{")[2].rpartition("}")[0]
    pairs = (pair.partition("=") for pair in inside.split('",'))
    found = {name: value.strip('"') for name, _, value in pairs}
    return {name: found.get(name, "") for name in metric.labels}
