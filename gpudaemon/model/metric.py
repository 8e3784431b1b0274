"""One row of the metric table, and one series of it.

Naming follows the Prometheus conventions (base units, `_total` on counters); the table itself is the
package `gpudaemon.metrics`.
"""

import enum
from dataclasses import dataclass, field

__all__ = ["Kind", "Metric", "Series", "Unit", "escape_help", "escape_label"]


class Kind(enum.Enum):
    """Exposition type of a metric; the value is the word after `# TYPE`."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    STATESET = "stateset"


class Unit(enum.Enum):
    """Base unit of a metric; the value is the suffix its name carries (before `_total`)."""

    NONE = ""
    AMPERES = "amperes"
    BYTES = "bytes"
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
    """

    name: str
    kind: Kind
    unit: Unit = Unit.NONE
    help: str
    labels: tuple[str, ...] = ()
    abi: str
    otel: str = ""

    @property
    def family(self) -> str:
        """Name of the OpenMetrics family: without `_total` or `_info`."""
        if self.kind is Kind.COUNTER:
            return self.name.removesuffix("_total")
        if self.kind is Kind.INFO:
            return self.name.removesuffix("_info")
        return self.name


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
