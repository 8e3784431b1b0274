"""One row of the metric table, and one series of it.

Naming follows the Prometheus conventions (base units, `_total` on counters); the table itself is the
package `gpudaemon.metrics`.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = [
    "Distribution",
    "Kind",
    "Metric",
    "Series",
    "Tally",
    "Unit",
    "escape_help",
    "escape_label",
    "powers_of_two",
]


class Kind(enum.Enum):
    """Exposition type of a metric; the value is the word after `# TYPE`."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    STATESET = "stateset"
    HISTOGRAM = "histogram"


class Unit(enum.Enum):
    """Base unit of a metric; the value is the suffix its name carries (before `_total`)."""

    NONE = ""
    AMPERES = "amperes"
    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes_per_second"
    CELSIUS = "celsius"
    HERTZ = "hertz"
    JOULES = "joules"
    RATIO = "ratio"
    RPM = "rpm"
    SECONDS = "seconds"
    TRANSFERS_PER_SECOND = "transfers_per_second"
    VOLTS = "volts"
    WATTS = "watts"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """One row of the metric table. Each row exists once: rows are compared and hashed by identity.

    name: full name, `gpudaemon_` first, unit and `_total` / `_info` last.
    labels: label names, in exposition order.
    abi: kernel file or document the meaning comes from.
    otel: OpenTelemetry name, where there is one.
    buckets: of a histogram, the upper bounds in ascending order, without the infinite one.
    """

    name: str
    kind: Kind
    unit: Unit = Unit.NONE
    help: str
    labels: tuple[str, ...] = ()
    abi: str
    otel: str = ""
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        ordered = list(self.buckets) == sorted(set(self.buckets))
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets) or not ordered:
            raise AssertionError(f"{self.name}: {self.kind} with buckets {self.buckets}")

    @property
    def family(self) -> str:
        """Name of the OpenMetrics family: without `_total` or `_info`."""
        if self.kind is Kind.COUNTER:
            return self.name.removesuffix("_total")
        if self.kind is Kind.INFO:
            return self.name.removesuffix("_info")
        return self.name


@dataclass(frozen=True, slots=True)
class Distribution:
    """Value of a histogram. counts: observations in each bucket alone, then those above the last bound.
    sum: of all observations, in the metric's unit."""

    counts: tuple[int, ...]
    sum: float

    def lines(self) -> Iterator[float]:
        """Values of the series in the order of `Series.histogram`."""
        total = 0
        for count in self.counts:
            total += count
            yield total
        yield self.sum
        yield total


class Tally:
    """A histogram of times that is being filled; its bounds are `powers_of_two(first, last)`."""

    __slots__ = ("_first", "_most", "counts", "nanoseconds")

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._most = last - first + 1
        self.counts = [0] * (self._most + 1)
        self.nanoseconds = 0

    def observe(self, nanoseconds: int) -> None:
        """One observation; a bound belongs to the bucket below it (`le`). Below zero is taken for zero."""
        if nanoseconds <= 1:
            self.counts[0] += 1
            self.nanoseconds += max(nanoseconds, 0)
            return
        place = (nanoseconds - 1).bit_length() - self._first
        self.counts[min(place, self._most) if place > 0 else 0] += 1
        self.nanoseconds += nanoseconds

    def add(self, power: int, count: int, nanoseconds: int) -> None:
        """So many observations above 2^(power - 1) and up to 2^power, which make `nanoseconds` together."""
        self.counts[min(max(power - self._first, 0), self._most)] += count
        self.nanoseconds += nanoseconds

    @property
    def total(self) -> int:
        """How many observations."""
        return sum(self.counts)

    def distribution(self) -> Distribution:
        """As it is now, in seconds."""
        return Distribution(tuple(self.counts), self.nanoseconds / 1e9)


def powers_of_two(first: int, last: int) -> tuple[float, ...]:
    """Bounds 2^first to 2^last nanoseconds, in seconds.

    These are the bounds of the kernel's `.log2` keys: its bucket `2^n` holds values above 2^(n-1) up to 2^n
    (kernel/trace/trace_events_hist.c, hist_field_log2: ilog2(roundup_pow_of_two(value))).
    """
    return tuple((1 << power) / 1e9 for power in range(first, last + 1))


def escape_label(value: str) -> str:
    """Escape a label value as both text formats ask; control characters other than newline become U+FFFD.

    Prometheus accepts any UTF-8, but a raw NUL or carriage return in a page breaks people's tools.
    """
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in value)


def escape_help(text: str, *, quotes: bool) -> str:
    """Escape a help text; OpenMetrics also escapes double quotes (`quotes=True`)."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


@dataclass(frozen=True, slots=True)
class Series:
    """A metric with its label values: what an attribute publishes, fixed at plan time.

    values: label values in the order of `metric.labels`.
    """

    metric: Metric
    values: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.values) != len(self.metric.labels):
            raise AssertionError(f"{self.metric.name}: {self.metric.labels} against {self.values}")

    def prefix(self) -> str:
        """The line of this series up to its value, rendered once: `name{label="value"} `."""
        if not self.values:
            return f"{self.metric.name} "
        pairs = zip(self.metric.labels, self.values, strict=True)
        labels = ",".join(f'{name}="{escape_label(value)}"' for name, value in pairs)
        return f"{self.metric.name}{{{labels}}} "

    def histogram(self) -> tuple[str, ...]:
        """The lines of a histogram up to their values: a bucket each with its `le`, then `_sum`, `_count`."""
        name = self.metric.name
        pairs = zip(self.metric.labels, self.values, strict=True)
        labels = [f'{label}="{escape_label(value)}"' for label, value in pairs]
        joined = f"{{{','.join(labels)}}}" if labels else ""
        start = f"{name}_bucket{{{''.join(f'{label},' for label in labels)}le="
        return (
            *(f'{start}"{bound}"}} ' for bound in (*map(repr, self.metric.buckets), "+Inf")),
            f"{name}_sum{joined} ",
            f"{name}_count{joined} ",
        )
