"""What is made of other values over time: counters that lose nothing between scrapes. Pure.

A counter of this kind is the area below a measure of what was read: energy is that below power, the seconds a
limit was reached those for which a condition was 1. As in windows, a value goes in a straight line from one
reading to the next (so a condition that changed counts for half of the time between them), and what lies in a
gap between readings, longer than values are fresh, is not counted.

`RULES` says which counter is made of what; `gpudaemon.pipeline.plan` finds the series. The other way round,
power is made of a counter of energy, `Rate`, where the GPU has that and no sensor of power. `ALIASES` are
second names of values, for families that have members of several kinds.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from gpudaemon.metrics import gpu, gpu_throttle, memory_tiers
from gpudaemon.model.metric import Metric

__all__ = ["ALIASES", "RULES", "Alias", "Changes", "Integral", "Measure", "Rate", "Rule", "Share"]

Measure = Callable[..., float | None]
_WRAP = 1 << 32


def _amount(value: float) -> float:
    return max(value, 0.0)


def _reaches(value: float, limit: float) -> float | None:
    """1.0 while a limit is reached; a limit of 0 is none the firmware knows."""
    return float(value >= limit) if limit > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a counter is made.

    counter: its row; its labels are those of the series it is made of, then `labels`.
    of: row of what is read. against: row of the limit and the value of its last label, if there is one.
    measure: (value[, limit]) -> what is summed up over time, None for not known; never negative.
    instead: row of a counter in hardware which makes this one needless.
    share: row of a counter (of the device, no further label) beside which `of` is one too: what is summed up is
        time, weighted with the increase of `of` as a share of its increase.
    """

    counter: Metric
    of: Metric
    measure: Measure
    labels: tuple[str, ...] = ()
    against: tuple[Metric, str] | None = None
    instead: Metric | None = None
    share: Metric | None = None


def _pair(part: float, whole: float) -> Any:
    return part, whole


RULES = (
    Rule(counter=gpu.ENERGY, of=gpu.POWER, measure=_amount, labels=("integrated",), instead=gpu.ENERGY),
    Rule(counter=gpu.POWER_ABOVE_CAP, of=gpu.POWER, measure=_reaches, against=(gpu.POWER_LIMIT, "cap")),
    Rule(
        counter=gpu.TEMPERATURE_ABOVE_CRITICAL,
        of=gpu.TEMPERATURE,
        measure=_reaches,
        against=(gpu.TEMPERATURE_LIMIT, "crit"),
    ),
    Rule(counter=gpu.THROTTLED_SECONDS, of=gpu.THROTTLED, measure=_amount),
    Rule(
        counter=gpu.THROTTLED_SECONDS,
        of=gpu_throttle.THROTTLED_TICKS,
        measure=_pair,
        share=gpu_throttle.FIRMWARE_TICKS,
    ),
)
"""The counters made of readings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A second name of a GPU's value.

    row, with labels (device, then `labels`), is the value of `of` whose labels after the device are `where`.
    """

    row: Metric
    labels: tuple[str, ...]
    of: Metric
    where: tuple[str, ...]


ALIASES = (
    Alias(row=memory_tiers.CAPACITY, labels=("vram",), of=gpu.MEMORY_TOTAL, where=("vram",)),
    Alias(row=memory_tiers.USED, labels=("vram",), of=gpu.MEMORY_USED, where=("vram",)),
)
"""Second names."""


class Integral:
    """A counter: the area below a measure, since the first reading.

    total: None before the first reading; born: when that was. value: as read last, None for not known.
    since: moment up to which all is counted.
    """

    __slots__ = ("born", "since", "total", "value")

    def __init__(self) -> None:
        self.total: float | None = None
        self.born = 0.0
        self.value: float | None = None
        self.since = 0.0

    def read(self, at: float, value: float | None, before: float) -> None:
        """The measure at `at` is `value`, None for not known; the reading before it was at `before`."""
        if value is None:
            self.lose(before)
            return
        held = self.value
        if value == held:
            return  # a condition that still holds, or still does not: counted when somebody asks
        if held is not None:
            self.hold(before)
            if at > self.since:
                self._add((held + value) / 2 * (at - self.since))
        elif self.total is None:
            self.total, self.born = 0.0, at
        self.value = value
        self.since = max(self.since, at)

    def hold(self, until: float) -> None:
        """The last reading, at `until`, said again what was known."""
        if self.value is not None and until > self.since:
            self._add(self.value * (until - self.since))
            self.since = until

    def lose(self, before: float) -> None:
        """Nothing is known from the reading at `before` on."""
        self.hold(before)
        self.value = None

    def _add(self, area: float) -> None:
        assert self.total is not None
        self.total += area


class Share(Integral):
    """A counter of time, weighted with the share one counter's increase is of another's.

    value: the two counters, (part, whole), as read last. Each counts in 32 bits and begins anew after them;
    readings between which one was reset, or the part grew more than the whole, count for nothing.
    """

    __slots__ = ()

    def read(self, at: float, value: Any, before: float) -> None:
        """The counters at `at` are `value`, None for not known."""
        held: Any = self.value
        if value is not None and held is not None:
            part, whole = ((int(new) - int(old)) % _WRAP for new, old in zip(value, held, strict=True))
            if part <= whole and 0 < whole < _WRAP // 2 and at > self.since:
                self._add(part / whole * (at - self.since))
        elif value is not None and self.total is None:
            self.total, self.born = 0.0, at
        self.value = value
        self.since = at

    def hold(self, until: float) -> None:
        """Counters that said again what they said count for nothing."""

    def lose(self, before: float) -> None:
        """Nothing is known from the reading at `before` on."""
        self.value = None


class Rate:
    """How fast a counter of hardware rises: its mean over the last seconds, or since the reading before.

    A mean over more than one reading, because nobody says how often such a counter is brought up to date.
    """

    __slots__ = ("_points", "value")

    _SPAN = 5.0
    _MOST = 256

    def __init__(self) -> None:
        self.value: float | None = None
        self._points: deque[tuple[float, float]] = deque(maxlen=self._MOST)

    def read(self, at: float, value: float | None, before: float) -> None:
        """A reading at `at` gave `value`, None for not known; one that is less than before begins anew."""
        if value is None or (self.value is not None and value < self.value):
            self._points.clear()
        self.value = value
        if value is not None:
            self._points.append((at, value))
            while len(self._points) > 2 and self._points[1][0] <= at - self._SPAN:
                self._points.popleft()

    def hold(self, until: float) -> None:
        """Nothing rose."""

    def lose(self, before: float) -> None:
        """Nothing is known from the reading at `before` on."""
        self.value = None
        self._points.clear()

    def mean(self, last: float) -> float | None:
        """Units a second up to the last reading, at `last`; None before two readings."""
        if self.value is None or not self._points:
            return None
        known = [point for point in self._points if point[0] <= last - self._SPAN]
        start, before = known[-1] if known else self._points[0]
        return (self.value - before) / (last - start) if last > start else None


class Changes:
    """The time between two changes of a value, for sensors that are read more often than they change."""

    __slots__ = ("_changed", "_intervals", "_median", "value")

    _MOST = 64
    _LEAST = 8
    _RESOLVED = 1.5
    """Readings from one change to the next, at least: a faster sensor changes at every reading."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._changed = 0.0
        self._intervals: deque[float] = deque(maxlen=self._MOST)
        self._median: float | None = None

    def read(self, at: float, value: float | None, before: float) -> None:
        """A reading at `at` gave `value`, None for not known."""
        if value is None or self.value is None:
            self._changed = 0.0  # when it last changed was not seen
        elif value != self.value:
            if self._changed:
                self._intervals.append(at - self._changed)
                self._median = None
            self._changed = at
        self.value = value

    def hold(self, until: float) -> None:
        """Nothing changed."""

    def lose(self, before: float) -> None:
        """Nothing is known from the reading at `before` on."""
        self.value = None
        self._changed = 0.0

    def interval(self, period: float) -> float | None:
        """Median seconds between changes; None before enough were seen and where readings are too seldom."""
        if len(self._intervals) < self._LEAST:
            return None
        if self._median is None:
            self._median = median(self._intervals)
        return self._median if self._median >= self._RESOLVED * period else None
