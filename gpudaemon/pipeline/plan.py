"""A device and its facts become a plan: which files, how often, and the series each gives. Pure.

Two stages: `facts_needed` names the static files the collectors must know first, `make_plan` gets their
contents and settles files, labels and rendered series once, until the device changes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpudaemon.collectors import collectors
from gpudaemon.drivers import Facts
from gpudaemon.metrics import gpu, runtime_power
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Row, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.forbidden import is_forbidden
from gpudaemon.model.metric import Kind, Metric, Series
from gpudaemon.model.snapshot import Block

__all__ = ["GATE", "DevicePlan", "PlannedFile", "facts_needed", "group_of", "make_plan"]

GATE = "power/runtime_status"
"""File 0 of a gated lane: known before anything else of the device is submitted."""
GATE_LIMIT = 32

_GROUPS = {Cadence.STATIC: 0, Cadence.SLOW: 1, Cadence.NORMAL: 2, Cadence.FAST: 3}


def group_of(cadence: Cadence) -> int:
    """The reader's group of a cadence."""
    return _GROUPS[cadence]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a plan.

    group: its home group in the reader. first, count: its values in the device's list (count 0: rows).
    decode: of an attribute; rows: decoder of rows; bound: most rows taken.
    """

    path: str
    group: int
    limit: int
    first: int = 0
    count: int = 0
    decode: Decode | None = None
    rows: Callable[[bytes], Iterable[Row]] | None = None
    bound: int = 0


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What to read of one device and what it gives.

    files: in the reader's order; file 0 is the power state where `gated`.
    blocks: metric -> its series; initial: values before any reading (constants are known from the start).
    counters: (prefix, index) of counters, to see them fall.
    busy, control_auto, autosuspend: indexes of values the resting rule looks at (-1: not there).
    """

    device: Device
    gated: bool
    files: tuple[PlannedFile, ...]
    blocks: Mapping[Metric, Block]
    initial: tuple[float | None, ...]
    counters: tuple[tuple[str, int], ...]
    busy: tuple[int, ...]
    control_auto: int
    autosuspend: int


def facts_needed(device: Device, enabled: Sequence[str] | None = None) -> tuple[str, ...]:
    """Static files the collectors must know before they can plan, in order, each once."""
    wanted: dict[str, None] = {}
    for name, collector in collectors().items():
        if (enabled is None or name in enabled) and collector.wants(device):
            for path in collector.needs(device):
                if path in device.names and not is_forbidden(path):
                    wanted[path] = None
    return tuple(wanted)


class _Builder:
    """Gathers series in the order they come; a series that is already there is not taken twice."""

    def __init__(self) -> None:
        self.values: list[float | None] = []
        self.series: dict[tuple[Metric, tuple[str, ...]], int] = {}
        self.by_metric: dict[Metric, list[tuple[str, int]]] = {}

    def place(self, series: Sequence[Series], values: Sequence[float | None]) -> int:
        """Append `series`; returns the index of the first value."""
        first = len(self.values)
        for one, value in zip(series, values, strict=True):
            key = (one.metric, one.values)
            if key not in self.series:
                self.series[key] = len(self.values)
                self.by_metric.setdefault(one.metric, []).append((one.prefix(), len(self.values)))
            self.values.append(value)
        return first

    def index(self, metric: Metric, *labels: str) -> int:
        return self.series.get((metric, labels), -1)


def make_plan(device: Device, facts: Facts, enabled: Sequence[str] | None = None) -> DevicePlan:
    """The whole plan of `device`, from every collector that wants it (of `enabled`, None: all)."""
    builder = _Builder()
    gated = GATE in device.names
    files: list[PlannedFile] = []
    if gated:
        files.append(PlannedFile(GATE, 0, GATE_LIMIT))
    planned: set[str] = {GATE}
    for name, collector in collectors().items():
        if (enabled is not None and name not in enabled) or not collector.wants(device):
            continue
        for series, value in collector.constants(device, facts):
            builder.place((series,), (value,))
        for wanted in collector.attributes(device, facts):
            if wanted.path not in planned and not is_forbidden(wanted.path):
                planned.add(wanted.path)
                files.append(_planned(wanted, builder))
    # Fastest first: files that are read together then lie together in the lane's memory.
    files[gated:] = sorted(files[gated:], key=lambda file: -file.group)
    blocks = {
        metric: Block(tuple(prefix for prefix, _ in found), tuple(index for _, index in found))
        for metric, found in builder.by_metric.items()
    }
    counters = tuple(
        pair for metric, found in builder.by_metric.items() if metric.kind is Kind.COUNTER for pair in found
    )
    busy = tuple(index for _, index in builder.by_metric.get(gpu.BUSY, []))
    return DevicePlan(
        device,
        gated,
        tuple(files),
        blocks,
        tuple(builder.values),
        counters,
        busy,
        builder.index(runtime_power.CONTROL, device.id, "auto"),
        builder.index(runtime_power.AUTOSUSPEND_DELAY, device.id),
    )


def _planned(wanted: Attribute | Rows, builder: _Builder) -> PlannedFile:
    group = group_of(wanted.cadence)
    if isinstance(wanted, Rows):
        return PlannedFile(wanted.path, group, wanted.limit, rows=wanted.decode, bound=wanted.bound)
    count = len(wanted.series)
    first = builder.place(wanted.series, (None,) * count)
    return PlannedFile(wanted.path, group, wanted.limit, first, count, wanted.decode)


def facts_plan(device: Device, paths: Sequence[str]) -> DevicePlan:
    """A plan that only brings the contents of `paths`, decoded by nobody."""
    gated = GATE in device.names
    files = [PlannedFile(GATE, 0, GATE_LIMIT)] if gated else []
    files += [PlannedFile(path, 0, 4096) for path in paths]
    return DevicePlan(device, gated, tuple(files), {}, (), (), (), -1, -1)


def reader_plan(plan: DevicePlan, number: int, sysfs: str, deadline: float) -> dict[str, Any]:
    """What the reader is told of a plan: paths, limits, the deadline; see `LaneMemory.create`."""
    base = f"{sysfs}/{plan.device.path}"
    return {
        "lane": number,
        "device": plan.device.id,
        "deadline": deadline,
        "gate": plan.gated,
        "paths": [f"{base}/{file.path}" for file in plan.files],
        "limits": [file.limit for file in plan.files],
    }
