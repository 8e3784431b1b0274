"""Rows of the metric table -> PromQL.

A metric is named by its row, never by a string, and a label the row does not have is an error here instead of
an empty panel later. `UP` and `PROCESS_START` are rows too, of metrics that Prometheus and its client library
add to every target.
"""

from dataclasses import dataclass

from gpudaemon.metrics import gpu, hwmon, pcie
from gpudaemon.model.metric import Kind, Metric, Unit, escape_label

__all__ = [
    "EVERYWHERE",
    "GPU",
    "HOST",
    "KEY",
    "PROCESS_START",
    "SCRAPE_SAMPLES",
    "SCRAPE_SECONDS",
    "UP",
    "Scope",
    "gpus_only",
    "increase",
    "numbered_states",
    "rate",
    "select",
]

KEY = "job, instance, device"
"""What names a device among many hosts; every join of two metrics is on these."""

_PROMETHEUS = "https://prometheus.io/docs/concepts/jobs_instances/"


def _target(name: str, help_text: str, unit: Unit = Unit.NONE) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, unit=unit, help=help_text, abi=_PROMETHEUS)


UP = _target("up", "1 while the target answers scrapes.")
SCRAPE_SECONDS = _target("scrape_duration_seconds", "Time the last scrape took.", Unit.SECONDS)
SCRAPE_SAMPLES = _target("scrape_samples_scraped", "Samples of the last scrape.")
PROCESS_START = _target("process_start_time_seconds", "Start of the server process.", Unit.SECONDS)


@dataclass(frozen=True, slots=True)
class Scope:
    """Label matchers that every selector of a dashboard or of a rule file carries.

    common: on every metric. device: on those that have the label `device`.
    """

    common: tuple[str, ...] = ()
    device: str = ""


EVERYWHERE = Scope()
"""Every target there is: the scope of rules."""

_TARGET = ('job=~"$job"', 'instance=~"$instance"')
HOST = Scope(_TARGET)
"""The host chosen in a dashboard."""
GPU = Scope(_TARGET, 'device=~"$device"')
"""The GPUs chosen in a dashboard."""


def select(row: Metric, scope: Scope = EVERYWHERE, **labels: str | tuple[str, ...]) -> str:
    """A selector. A label's value is matched exactly; several values are alternatives; `not_X` excludes.

    ValueError if the row has no such label.
    """
    matchers = list(scope.common)
    if scope.device and "device" in row.labels:
        matchers.append(scope.device)
    for key, wanted in labels.items():
        label = key.removeprefix("not_")
        if label not in (*row.labels, "job", "instance"):
            raise ValueError(f"{row.name} has no label {label!r}")
        equal, regular = ("!=", "!~") if key.startswith("not_") else ("=", "=~")
        if isinstance(wanted, str):
            matchers.append(f'{label}{equal}"{escape_label(wanted)}"')
        else:
            matchers.append(f'{label}{regular}"{escape_label("|".join(wanted))}"')
    return f"{row.name}{{{','.join(matchers)}}}" if matchers else row.name


def rate(row: Metric, scope: Scope, window: str = "$__rate_interval", **labels: str | tuple[str, ...]) -> str:
    """Increase a second of a counter; ValueError where the row is none."""
    return f"rate({_counter(row, scope, **labels)}[{window}])"


def increase(row: Metric, scope: Scope, window: str, **labels: str | tuple[str, ...]) -> str:
    """Increase of a counter over a window; ValueError where the row is none."""
    return f"increase({_counter(row, scope, **labels)}[{window}])"


def _counter(row: Metric, scope: Scope, **labels: str | tuple[str, ...]) -> str:
    if row.kind is not Kind.COUNTER:
        raise ValueError(f"{row.name} is a {row.kind.value}, not a counter")
    return select(row, scope, **labels)


def numbered_states(row: Metric, scope: Scope, numbers: dict[str, int], by: str) -> str:
    """A state set as one series per device whose value is the number of its state: for state timelines."""
    if row.kind is not Kind.STATESET:
        raise ValueError(f"{row.name} is a {row.kind.value}, not a state set")
    each = (f"({select(row, scope, state=state)} == 1) * {number}" for state, number in numbers.items())
    return f"max by ({by}) ({' or '.join(each)})"


_GPU_CLASSES = ("0x03.*", "0x0b40.*", "0x12.*")
"""PCI classes of displays, coprocessors and processing accelerators, by their first digits."""


def gpus_only(expression: str, scope: Scope, wrap: str = "{}") -> str:
    """The series of `expression` that belong to GPUs.

    A GPU that hung before anything was read has no info series, so the others are taken away instead: PCI
    functions of other classes, and chips that are no GPU's. wrap: function around each selector.
    """
    other = wrap.format(select(pcie.INFO, scope, **{"not_class": _GPU_CLASSES}))
    chips = wrap.format(select(hwmon.CHIP_INFO, scope))
    known = wrap.format(select(gpu.INFO, scope))
    return f"(({expression}) unless on ({KEY}) {other} unless on ({KEY}) ({chips} unless on ({KEY}) {known}))"
