"""What is made of other values over time: counters that lose nothing between scrapes. Pure.

A counter of this kind is the area below a measure of what was read: energy is that below power, the seconds a
limit was reached those for which a condition was 1. As in windows, a value goes in a straight line from one
reading to the next (so a condition that changed counts for half of the time between them), and what lies in a
gap between readings, longer than values are fresh, is not counted.

`RULES` says which counter is made of what; `gpudaemon.pipeline.plan` finds the series.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from gpudaemon.metrics import gpu
from gpudaemon.model.metric import Metric

__all__ = ["RULES", "Changes", "Integral", "Measure", "Rule"]

Measure = Callable[..., float | None]


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
    """

    counter: Metric
    of: Metric
    measure: Measure
    labels: tuple[str, ...] = ()
    against: tuple[Metric, str] | None = None
    instead: Metric | None = None


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
)
"""The counters made of readings."""


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
