"""The daemon's own instruments, kept by prometheus_client in a private registry.

prometheus_client's process, garbage collector and platform collectors describe the server process; the
counters and gauges are made of rows of the metric table, so they are documented like every other metric.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from gpudaemon.export.prometheus import END
from gpudaemon.model.metric import Kind, Metric

__all__ = ["counter", "gauge", "instruments", "own_text", "private_registry"]


def private_registry() -> CollectorRegistry:
    """A registry of its own, never the global one, with the collectors of this process."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def counter(registry: CollectorRegistry, row: Metric) -> Counter:
    """Make and register a counter of one row of the table; ValueError where the registry has that name."""
    return Counter(row.name, row.help, labelnames=row.labels, unit=row.unit.value, registry=registry)


def gauge(registry: CollectorRegistry, row: Metric) -> Gauge:
    """Make and register a gauge of one row; ValueError where the registry has that name."""
    return Gauge(row.name, row.help, labelnames=row.labels, unit=row.unit.value, registry=registry)


def instruments(registry: CollectorRegistry, rows: Iterable[Metric]) -> Mapping[Metric, Counter | Gauge]:
    """Make one instrument of each row and register it: a Counter of counters, a Gauge of everything else.

    Help, labels and unit are the row's. A row published here must not occur in snapshots as well. Raises
    ValueError where the registry already has that name.
    """
    return {row: (counter if row.kind is Kind.COUNTER else gauge)(registry, row) for row in rows}


class _WithoutCreated:
    """A registry without its `_created` samples: in text 0.0.4 each would be a family of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            kept = copy(family)
            kept.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield kept


def own_text(registry: CollectorRegistry, openmetrics: bool) -> str:
    """What the registry holds, in either format, without the `# EOF` of OpenMetrics."""
    if openmetrics:
        page: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return page.decode().removesuffix(END)
    return generate_latest(_WithoutCreated(registry)).decode()
