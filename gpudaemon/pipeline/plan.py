"""A device and its facts become a plan: which files, how often, and the series each gives. Pure.

Two stages: `facts_needed` names the static files the collectors must know first, `make_plan` gets their
contents and settles files, labels and rendered series once, until the device changes. What is made of other
series (`gpudaemon.pipeline.derived`, `gpudaemon.pipeline.windows`) is settled here too. A file that nothing
wanted is made of is not in the plan: it is not read.
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
from gpudaemon.pipeline.derived import RULES, Measure, Rule
from gpudaemon.pipeline.windows import READINGS, WINDOWS

__all__ = [
    "EVERYTHING",
    "GATE",
    "SMALL",
    "CounterPlan",
    "DevicePlan",
    "PlannedFile",
    "Selection",
    "WindowPlan",
    "facts_needed",
    "group_of",
    "make_plan",
]

GATE = "power/runtime_status"
"""File 0 of a gated lane: known before anything else of the device is submitted."""
GATE_LIMIT = 32
SMALL = 256
"""Bytes of a slot that is not worth looking at by itself."""

_GROUPS = {Cadence.STATIC: 0, Cadence.SLOW: 1, Cadence.NORMAL: 2, Cadence.FAST: 3}


def group_of(cadence: Cadence) -> int:
    """The reader's group of a cadence."""
    return _GROUPS[cadence]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a plan.

    group: its home group in the reader. first, count: its values in the device's list (count 0: rows).
    decode: of an attribute; rows: decoder of rows; bound: most rows taken.
    unwanted: rows of the metric table that nobody wants of its content.
    """

    path: str
    group: int
    limit: int
    first: int = 0
    count: int = 0
    decode: Decode | None = None
    rows: Callable[[bytes], Iterable[Row]] | None = None
    bound: int = 0
    unwanted: frozenset[Metric] = frozenset()


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows of one value.

    source: its index. places: index of the first of three figures of each window of WINDOWS, -1: not served.
    """

    source: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CounterPlan:
    """A counter made of values.

    key: metric name and labels, by which its count outlives plans. prefix, index: of its series.
    source, limit: indexes of what it is made of, limit -1 for none.
    """

    key: tuple[str, ...]
    prefix: str
    index: int
    measure: Measure
    source: int
    limit: int


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What to read of one device and what it gives.

    files: in the reader's order; file 0 is the power state where `gated`.
    blocks: metric -> its series; initial: values before any reading (constants are known from the start).
    counters: (prefix, index) of counters, to see them fall.
    busy, control_auto, autosuspend: indexes of values the resting rule looks at (-1: not there).
    windows, integrals: what is made of other values. updates: (index of a value, index of its update period).
    room: most series found in contents. dropped: wanted series that were beyond the limit.
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
    windows: tuple[WindowPlan, ...] = ()
    integrals: tuple[CounterPlan, ...] = ()
    updates: tuple[tuple[int, int], ...] = ()
    room: int = 1_000_000
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted of every device.

    collectors: names of those in use, None for all. wanted: whether a metric of this name is served, None: all.
    limit: most series of one device. Beyond it go first what is made of other series, then those of the
        collectors that come last in alphabetical order.
    fast: seconds between readings of fast files, which settles which windows there are.
    """

    collectors: frozenset[str] | None = None
    wanted: Callable[[str], bool] | None = None
    limit: int = 1_000_000
    fast: float = 1.0


EVERYTHING = Selection()


def facts_needed(device: Device, selection: Selection = EVERYTHING) -> tuple[str, ...]:
    """Static files the collectors must know before they can plan, in order, each once."""
    wanted: dict[str, None] = {}
    for name, collector in collectors().items():
        if (selection.collectors is None or name in selection.collectors) and collector.wants(device):
            for path in collector.needs(device):
                if path in device.names and not is_forbidden(path):
                    wanted[path] = None
    return tuple(wanted)


class _Builder:
    """Gathers series in the order they come; a series that is already there is not taken twice."""

    def __init__(self) -> None:
        self.values: list[float | None] = []
        self.series: dict[tuple[Metric, tuple[str, ...]], int] = {}
        self.fast: set[int] = set()

    def place(self, series: Sequence[Series], values: Sequence[float | None] | None = None) -> int:
        """Append `series`; returns the index of the first value."""
        first = len(self.values)
        for one in series:
            self.series.setdefault((one.metric, one.values), len(self.values))
            self.values.append(None)
        if values is not None:
            self.values[first:] = values
        return first

    def index(self, metric: Metric, *labels: str) -> int:
        return self.series.get((metric, labels), -1)

    def of(self, metric: Metric) -> list[tuple[tuple[str, ...], int]]:
        """(labels, index) of the series of a metric."""
        return [(labels, index) for (row, labels), index in self.series.items() if row is metric]


def make_plan(device: Device, facts: Facts, selection: Selection = EVERYTHING) -> DevicePlan:
    """The whole plan of `device`, from every collector that wants it and is wanted."""
    builder = _Builder()
    found = _found(device, facts, selection, builder)
    windows = _windows(builder, selection)
    integrals = _integrals(builder)
    updates = tuple(
        (source, builder.place((Series(gpu.POWER_SENSOR_UPDATE, labels),)))
        for labels, source in builder.of(gpu.POWER)
    )
    shown, dropped = _shown(builder, selection)
    windows = _served(windows, shown)
    integrals = [one for one in integrals if one.index in shown]
    updates = tuple(pair for pair in updates if pair[1] in shown)
    busy = tuple(index for _, index in builder.of(gpu.BUSY))
    control = builder.index(runtime_power.CONTROL, device.id, "auto")
    autosuspend = builder.index(runtime_power.AUTOSUSPEND_DELAY, device.id)
    needed = shown.keys() | {*busy, control, autosuspend}
    needed |= {source for source, _ in updates} | {one.source for one in windows}
    needed |= {index for one in integrals for index in (one.source, one.limit)}
    gated = GATE in device.names
    files = [file for one in found if (file := _planned(*one, builder, needed, selection)) is not None]
    # Fastest first: files that are read together then lie together in the lane's memory. Among those the small
    # ones first, which are compared as one (`files.Region`).
    files.sort(key=lambda file: (-file.group, file.limit > SMALL))
    by_metric: dict[Metric, list[tuple[str, int]]] = {}
    for index, series in shown.items():
        by_metric.setdefault(series.metric, []).append((series.prefix(), index))
    return DevicePlan(
        device,
        gated,
        (*([PlannedFile(GATE, 0, GATE_LIMIT)] if gated else []), *files),
        {
            metric: Block(tuple(prefix for prefix, _ in pairs), tuple(index for _, index in pairs))
            for metric, pairs in by_metric.items()
        },
        tuple(builder.values),
        tuple(pair for metric, pairs in by_metric.items() if metric.kind is Kind.COUNTER for pair in pairs),
        busy,
        control,
        autosuspend,
        tuple(windows),
        tuple(integrals),
        updates,
        max(selection.limit - len(shown), 0),
        dropped,
    )


def _found(
    device: Device, facts: Facts, selection: Selection, builder: _Builder
) -> list[tuple[Attribute | Rows, int]]:
    """What the collectors want to read, each file once, with the index of its first value."""
    found: list[tuple[Attribute | Rows, int]] = []
    planned: set[str] = {GATE}
    for name, collector in collectors().items():
        if selection.collectors is not None and name not in selection.collectors:
            continue
        if not collector.wants(device):
            continue
        for series, value in collector.constants(device, facts):
            builder.place((series,), (value,))
        for wanted in collector.attributes(device, facts):
            if wanted.path in planned or is_forbidden(wanted.path):
                continue
            planned.add(wanted.path)
            first = builder.place(wanted.series) if isinstance(wanted, Attribute) else 0
            found.append((wanted, first))
            if isinstance(wanted, Attribute) and wanted.cadence is Cadence.FAST:
                builder.fast.update(range(first, first + len(wanted.series)))
    return found


def _windows(builder: _Builder, selection: Selection) -> list[WindowPlan]:
    """Windows of what is read fast, of each length that has room for enough readings."""
    lengths = [length if selection.fast * READINGS <= length else None for length in WINDOWS]
    if not any(lengths):
        return []
    return [
        WindowPlan(
            source,
            tuple(
                -1
                if length is None
                else builder.place([Series(row, (*labels, f"{length:.0f}s")) for row in rows])
                for length in lengths
            ),
        )
        for metric, rows in gpu.WINDOWS.items()
        for labels, source in builder.of(metric)
        if source in builder.fast
    ]


def _served(windows: Iterable[WindowPlan], shown: Mapping[int, Series]) -> list[WindowPlan]:
    """Those of which anything is served."""
    return [
        one for one in windows if any(place + figure in shown for place in one.places for figure in range(3))
    ]


def _integrals(builder: _Builder) -> list[CounterPlan]:
    made = []
    for rule in RULES:
        for labels, source in builder.of(rule.of):
            limit = -1
            if rule.against is not None:
                limit = builder.index(rule.against[0], *labels, rule.against[1])
                if limit < 0:
                    continue
            if not _is_counted(rule, labels, builder):
                series = Series(rule.counter, (*labels, *rule.labels))
                index = builder.place((series,))
                key = (series.metric.name, *series.values)
                made.append(CounterPlan(key, series.prefix(), index, rule.measure, source, limit))
    return made


def _is_counted(rule: Rule, labels: tuple[str, ...], builder: _Builder) -> bool:
    """Whether hardware counts what `rule` would: under the same sensor name, or channel where there is none."""
    if rule.instead is None:
        return False
    names = {name for (_, name, *_), _ in builder.of(rule.instead)}
    return labels[1] in names or labels[1].replace("power", "energy") in names


def _shown(builder: _Builder, selection: Selection) -> tuple[dict[int, Series], int]:
    """(index -> series of what is served, how many beyond the limit are not)."""
    wanted: dict[Metric, bool] = {}
    shown: dict[int, Series] = {}
    dropped = 0
    for (metric, labels), index in builder.series.items():
        if metric not in wanted:
            wanted[metric] = _is_wanted(metric, selection)
        if not wanted[metric]:
            continue
        if len(shown) >= selection.limit:
            dropped += 1
        else:
            shown[index] = Series(metric, labels)
    return shown, dropped


def _is_wanted(metric: Metric, selection: Selection) -> bool:
    return selection.wanted is None or selection.wanted(metric.name)


def _planned(
    wanted: Attribute | Rows, first: int, builder: _Builder, needed: set[int], selection: Selection
) -> PlannedFile | None:
    """The file as the lane wants it; None where nothing that is needed comes of it."""
    group = group_of(wanted.cadence)
    if isinstance(wanted, Rows):
        unwanted = frozenset(metric for metric in wanted.metrics if not _is_wanted(metric, selection))
        if len(unwanted) == len(wanted.metrics) > 0:
            return None
        return PlannedFile(
            wanted.path, group, wanted.limit, rows=wanted.decode, bound=wanted.bound, unwanted=unwanted
        )
    if not any(builder.series[one.metric, one.values] in needed for one in wanted.series):
        return None
    return PlannedFile(wanted.path, group, wanted.limit, first, len(wanted.series), wanted.decode)


def facts_plan(device: Device, paths: Sequence[str]) -> DevicePlan:
    """A plan that only brings the contents of `paths`, decoded by nobody."""
    gated = GATE in device.names
    files = [PlannedFile(GATE, 0, GATE_LIMIT)] if gated else []
    # With the cadence of loads: that is how often the power state of a device is looked at that sleeps now.
    files += [PlannedFile(path, group_of(Cadence.NORMAL), 4096) for path in paths]
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
