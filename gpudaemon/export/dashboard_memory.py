"""Rows of the host dashboard about memory that moves: between nodes and tiers, and under pressure."""

from grafana_foundation_sdk.builders import timeseries

from gpudaemon.export.grafana import UNITS, Query, lines
from gpudaemon.export.promql import HOST, rate, select
from gpudaemon.metrics import memory
from gpudaemon.model.metric import Metric, Unit

__all__ = ["memory_that_moves"]


def _bytes(row: Metric, *by: str) -> str:
    """Bytes a second of a counter of pages."""
    size = f"on (job, instance) group_left () {select(memory.PAGE_SIZE, HOST)}"
    return f"sum by (job, instance, {', '.join(by)}) ({rate(row, HOST)}) * {size}"


def memory_that_moves() -> tuple[timeseries.Panel, ...]:
    """Tiers, migration, pressure."""
    return (
        lines(
            "Between tiers",
            "Memory demoted from a node to a slower tier, and promoted to it.",
            UNITS[Unit.BYTES_PER_SECOND],
            [
                Query(_bytes(memory.DEMOTED, "node"), "node {{node}} demoted"),
                Query(_bytes(memory.PROMOTED, "node"), "node {{node}} promoted"),
            ],
            width=8,
        ),
        lines(
            "Migrated by the kernel",
            f"{memory.MIGRATED.help} What moves to a GPU is not in it.",
            UNITS[Unit.BYTES_PER_SECOND],
            [
                Query(_bytes(memory.MIGRATED, "result"), "{{result}}"),
                Query(_bytes(memory.NUMA_MIGRATED, "node"), "NUMA balancing {{node}}"),
            ],
            width=8,
        ),
        lines(
            "Waiting for memory",
            memory.PRESSURE.help,
            UNITS[Unit.RATIO],
            [Query(rate(memory.PRESSURE, HOST), "{{kind}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Pages that came back",
            memory.WORKINGSET.help,
            UNITS[Unit.NONE],
            [Query(rate(memory.WORKINGSET, HOST), "{{event}} {{type}} {{node}}")],
            width=12,
        ),
        lines(
            "System memory of GPU drivers",
            memory.GPU_PAGES.help,
            UNITS[Unit.NONE],
            [Query(select(memory.GPU_PAGES, HOST), "node {{node}} {{state}}")],
            width=12,
        ),
    )
