"""Rows of the host dashboard about a GPU's parts, its firmware, and what a driver alone knows.

A row that a driver's own file declares has a panel by itself: a new driver needs no edit here.
"""

from grafana_foundation_sdk.builders import statetimeline, timeseries

from gpudaemon.export.grafana import UNITS, Query, State, lines, strip
from gpudaemon.export.promql import GPU, numbered_states, rate, select
from gpudaemon.export.provenance import rows
from gpudaemon.metrics import gpu, gpu_parts, table
from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = ["firmware", "own", "parts"]

_Panels = tuple[timeseries.Panel | statetimeline.Panel, ...]

_HEALTH = {"ok": (0, "green"), "warning": (1, "orange"), "critical": (2, "red")}
_STATUS = {
    "operational": (0, "green"),
    "in reset": (1, "orange"),
    "in reset after device release": (2, "light-orange"),
    "in device creation": (3, "blue"),
    "needs reset": (4, "red"),
    "disabled": (5, "dark-red"),
}


def parts() -> _Panels:
    """GTs and engines: how long idle, how fast, how busy."""
    return (
        lines(
            "Idle",
            "Share of time each part of the GPU was in an idle state. No line: the driver does not count it.",
            UNITS[Unit.RATIO],
            [Query(rate(gpu_parts.IDLE_SECONDS, GPU), "{{device}} {{domain}} {{state}}")],
            width=8,
            maximum=1,
        ),
        lines(
            "Clock asked for, and its limits",
            gpu_parts.CLOCK_LIMIT.help,
            UNITS[gpu.CLOCK.unit],
            [
                Query(select(gpu_parts.CLOCK_REQUESTED, GPU), "{{device}} {{clock}}"),
                Query(
                    select(gpu_parts.CLOCK_LIMIT, GPU, limit=("min", "max")),
                    "{{device}} {{clock}} {{limit}}",
                    "limit",
                ),
            ],
            width=8,
        ),
        lines(
            "Busy, counted by the driver",
            "Share of time each engine was busy, where the driver counts it for the whole device.",
            UNITS[Unit.RATIO],
            [Query(rate(gpu_parts.BUSY_SECONDS, GPU), "{{device}} {{engine}}")],
            width=8,
            maximum=1,
        ),
    )


def _states(row: Metric, states: dict[str, tuple[int, str]]) -> tuple[Query, list[State]]:
    numbers = {state: number for state, (number, _) in states.items()}
    shown = [State(number, state, color) for state, (number, color) in states.items()]
    return Query(numbered_states(row, GPU, numbers, "device"), "{{device}}"), shown


def firmware() -> _Panels:
    """What firmware and driver say of the device's health, and how it is shared out."""
    health, healths = _states(gpu_parts.HEALTH_INDICATOR, _HEALTH)
    status, statuses = _states(gpu_parts.STATUS, _STATUS)
    return (
        strip("Health by the firmware", gpu_parts.HEALTH_INDICATOR.help, [health], healths, width=8),
        strip("Can it be used", gpu_parts.STATUS.help, [status], statuses, width=8),
        lines(
            "Resets",
            gpu_parts.RESETS.help,
            UNITS[Unit.NONE],
            [Query(select(gpu_parts.RESETS, GPU), "{{device}} {{kind}}")],
            width=8,
        ),
        lines(
            "Video memory of virtual functions",
            gpu_parts.SRIOV_VRAM_QUOTA.help,
            UNITS[Unit.BYTES],
            [Query(select(gpu_parts.SRIOV_VRAM_QUOTA, GPU), "{{device}} {{function}}")],
            width=24,
            stacked=True,
        ),
    )


def own() -> _Panels:
    """A panel for each row that a driver's own file declares."""
    known = set(table())
    return tuple(
        lines(
            row.name.removeprefix("gpudaemon_"),
            row.help,
            UNITS[Unit.NONE if row.kind is Kind.COUNTER else row.unit],
            [
                Query(
                    rate(row, GPU) if row.kind is Kind.COUNTER else select(row, GPU),
                    " ".join(f"{{{{{label}}}}}" for label in row.labels),
                )
            ],
            width=8,
        )
        for row in rows()
        if row not in known and row.kind is not Kind.INFO
    )
