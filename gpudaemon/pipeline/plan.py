"""A device and its facts become a plan: which files, how often, and the series each gives. Pure.

Two stages: `facts_needed` names the static files the collectors must know first, `make_plan` gets their
contents and settles files, labels and rendered series once, until the device changes. What is made of other
series (`gpudaemon.pipeline.derived`, `gpudaemon.pipeline.windows`) is settled here too. A file that nothing
wanted is made of is not in the plan: it is not read.

What calls bring (`gpudaemon.model.call`) is planned like files, in a plan of its own for each kind.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpudaemon.collectors import Constant, collectors, subjects
from gpudaemon.drivers import Facts
from gpudaemon.metrics import gpu, runtime_power
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Row, Rows
from gpudaemon.model.device import PROC, Device, DeviceKind
from gpudaemon.model.forbidden import GATED, is_forbidden
from gpudaemon.model.metric import Kind, Metric, Series
from gpudaemon.model.snapshot import Block
from gpudaemon.pipeline.derived import ALIASES, RULES, Measure, Rule
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
    "call_plans",
    "facts_needed",
    "group_of",
    "make_plan",
]

GATE = "power/runtime_status"
"""File 0 of a gated lane: known before anything else of the device is submitted."""
GATE_LIMIT = 32
_FACT_LIMIT = 4160
"""A page, or the 4 KiB of a configuration space, and room to see that there was no more."""
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
    settles, known: the plan was made with this content (None: with none), and another makes another plan.
    long: read until its end, see `Attribute`.
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
    settles: bool = False
    known: bytes | None = None
    long: bool = False


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
    shared: both are counters, and it is a share of time.
    """

    key: tuple[str, ...]
    prefix: str
    index: int
    measure: Measure
    source: int
    limit: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What to read of one device and what it gives.

    files: in the reader's order; file 0 is the power state where `gated`.
    blocks: metric -> its series; initial: values before any reading (constants are known from the start).
    counters: (prefix, index) of counters, to see them fall.
    busy, control_auto, autosuspend: indexes of values the resting rule looks at (-1: not there).
    windows, integrals: what is made of other values. updates: (index of a value, index of its update period).
    rates: (index of a counter, index of how fast it rises).
    room: most series found in contents. dropped: wanted series that were beyond the limit.
    call: kind of the calls that bring it all, and paths are what is asked; empty: files.
    provisional: it only brings the facts that the real plan takes.
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
    rates: tuple[tuple[int, int], ...] = ()
    room: int = 1_000_000
    dropped: int = 0
    call: str = ""
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted of every device.

    collectors: names of those in use, None for all. wanted: whether a metric of this name is served, None: all.
    limit: most series of one device. Beyond it go first what is made of other series, then those of the
        collectors that come last in alphabetical order.
    fast: seconds between readings of fast files, which settles which windows there are.
    calls: kinds of calls that are made.
    """

    collectors: frozenset[str] | None = None
    wanted: Callable[[str], bool] | None = None
    limit: int = 1_000_000
    fast: float = 1.0
    calls: frozenset[str] = frozenset()


EVERYTHING = Selection()


def facts_needed(device: Device, selection: Selection = EVERYTHING) -> tuple[str, ...]:
    """Static files the collectors must know before they can plan, in order, each once."""
    wanted: dict[str, None] = {}
    for name, collector in collectors().items():
        if (selection.collectors is None or name in selection.collectors) and collector.wants(device):
            for path in collector.needs(device):
                # Listings leave out what must not be read, and so the exception too.
                gated = path == GATED and GATE in device.names
                if gated or (path in device.names and not is_forbidden(path)):
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


def make_plan(device: Device, facts: Facts, selection: Selection = EVERYTHING, *, call: str = "") -> DevicePlan:
    """The whole plan of `device`, from every collector that wants it and is wanted.

    call: plan what calls of this kind bring instead of files.
    """
    builder = _Builder()
    found = _found(device, facts, selection, builder, call)
    windows = _windows(builder, selection)
    integrals = _integrals(builder)
    updates = tuple(
        (source, builder.place((Series(gpu.POWER_SENSOR_UPDATE, labels),)))
        for labels, source in builder.of(gpu.POWER)
    )
    rates = _rates(builder)
    shown, dropped = _shown(builder, selection)
    windows = _served(windows, shown)
    rates = [pair for pair in rates if pair[1] in shown]
    integrals = [one for one in integrals if one.index in shown]
    updates = tuple(pair for pair in updates if pair[1] in shown)
    # What nobody wants is read for the resting rule, but no call is made for it.
    busy = tuple(index for _, index in builder.of(gpu.BUSY) if not call or index in shown)
    control = builder.index(runtime_power.CONTROL, device.id, "auto")
    autosuspend = builder.index(runtime_power.AUTOSUSPEND_DELAY, device.id)
    needed = shown.keys() | {*busy, control, autosuspend}
    needed |= {source for source, _ in updates} | {one.source for one in windows}
    needed |= {index for one in integrals for index in (one.source, one.limit)}
    needed |= {source for source, _ in rates}
    aliases = (
        _aliases(builder, selection, selection.limit - len(shown)) if device.kind is DeviceKind.GPU else []
    )
    needed |= {index for _, index in aliases}
    gated = GATE in device.names
    made = [_planned(wanted, first, builder, needed, selection) for wanted, first in found]
    files = [
        replace(file, known=facts.get(file.path)) if file.settles else file for file in made if file is not None
    ]
    # Fastest first: files that are read together then lie together in the lane's memory. Among those the small
    # ones first, which are compared as one (`files.Region`).
    files.sort(key=lambda file: (-file.group, file.limit > SMALL))
    by_metric: dict[Metric, list[tuple[str, int]]] = {}
    for index, series in shown.items():
        by_metric.setdefault(series.metric, []).append((series.prefix(), index))
    for series, index in aliases:
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
        tuple(rates),
        max(selection.limit - len(shown) - len(aliases), 0),
        dropped,
        call,
    )


def call_plans(
    device: Device, facts: Facts, selection: Selection, planned: DevicePlan
) -> dict[str, DevicePlan]:
    """A plan for each kind of calls that brings something of `device`. planned: that of its files.

    What there is in files is not asked for as well; the limit holds for all plans together.
    """
    plans: dict[str, DevicePlan] = {}
    room = planned.room
    for kind in sorted(selection.calls):
        plan = make_plan(device, facts, replace(selection, limit=room), call=kind)
        if len(plan.files) > plan.gated:
            plans[kind] = plan
            room = plan.room
    return plans


def _found(
    device: Device, facts: Facts, selection: Selection, builder: _Builder, call: str
) -> list[tuple[Attribute | Rows, int]]:
    """What the collectors want to read, each file once, with the index of its first value."""
    planned: dict[str, Attribute | Rows] = {}
    order: list[Constant | str] = []
    for name, collector in collectors().items():
        if selection.collectors is not None and name not in selection.collectors:
            continue
        if not collector.wants(device):
            continue
        if not call:
            order += collector.constants(device, facts)
        for wanted in collector.attributes(device, facts):
            if wanted.call != call or wanted.path == GATE or is_forbidden(wanted.path):
                continue
            before = planned.setdefault(wanted.path, wanted)
            if before is wanted:
                order.append(wanted.path)
            elif isinstance(before, Attribute) and isinstance(wanted, Attribute):
                planned[wanted.path] = _joined(before, wanted)
    found: list[tuple[Attribute | Rows, int]] = []
    for item in order:
        if not isinstance(item, str):
            builder.place((item[0],), (item[1],))
            continue
        wanted = planned[item]
        first = builder.place(wanted.series) if isinstance(wanted, Attribute) else 0
        found.append((wanted, first))
        if isinstance(wanted, Attribute) and wanted.cadence is Cadence.FAST:
            builder.fast.update(
                first + place for place, one in enumerate(wanted.series) if one not in wanted.steady
            )
    return found


def _joined(one: Attribute, other: Attribute) -> Attribute:
    """One file of which two collectors make different series, read as often as the hastier of them wants."""
    if set(one.series) & set(other.series):
        return one  # the same thing twice
    decodes = (one.decode, other.decode)

    def decode(content: bytes) -> Sequence[float | None]:
        return [value for part in decodes for value in part(content)]

    cadence = max(one.cadence, other.cadence, key=group_of)
    return Attribute(
        one.path,
        cadence,
        (*one.series, *other.series),
        decode,
        max(one.limit, other.limit),
        # what the less hasty one wants is followed no closer than that
        one.steady
        | other.steady
        | {s for part in (one, other) if part.cadence is not cadence for s in part.series},
        one.settles or other.settles,
        long=one.long or other.long,
    )


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
            if rule.share is not None:
                limit = builder.index(rule.share, labels[0])
                if limit < 0:
                    continue
            if not _is_counted(rule, labels, builder):
                series = Series(rule.counter, (*labels, *rule.labels))
                index = builder.place((series,))
                key = (series.metric.name, *series.values)
                shared = rule.share is not None
                made.append(CounterPlan(key, series.prefix(), index, rule.measure, source, limit, shared))
    return made


def _rates(builder: _Builder) -> list[tuple[int, int]]:
    """Power of a GPU that has counters of energy and no sensor of power, under the first counter's name.

    xe counts the card first and then the package, a part of it: both would be summed up.
    """
    counted = [(labels, index) for labels, index in builder.of(gpu.ENERGY) if labels[-1] == "hardware"]
    if not counted or builder.of(gpu.POWER):
        return []
    (device, sensor, _), index = counted[0]
    name = sensor.replace("energy", "power")
    return [(index, builder.place((Series(gpu.POWER, (device, name)),)))]


def _aliases(builder: _Builder, selection: Selection, room: int) -> list[tuple[Series, int]]:
    """Second names of values, with the index of each, where the collector of that name is in use."""
    made = [
        (Series(alias.row, (labels[0], *alias.labels)), index)
        for alias in ALIASES
        if _is_wanted(alias.row, selection) and _is_collected(alias.row, selection)
        for labels, index in builder.of(alias.of)
        if labels[1:] == alias.where
    ]
    return made[: max(room, 0)]


def _is_collected(metric: Metric, selection: Selection) -> bool:
    in_use = selection.collectors
    return in_use is None or any(metric.name in names for name, names in subjects().items() if name in in_use)


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
    # Of a series that two files give, the first file's is served: one that gives nothing else is not read.
    places = [builder.series[one.metric, one.values] for one in wanted.series]
    gives = any(place == first + step and place in needed for step, place in enumerate(places))
    if not gives and not wanted.settles:
        return None
    return PlannedFile(
        wanted.path,
        group,
        wanted.limit,
        first,
        len(wanted.series),
        wanted.decode,
        settles=wanted.settles,
        long=wanted.long,
    )


def facts_plan(device: Device, paths: Sequence[str]) -> DevicePlan:
    """A plan that only brings the contents of `paths`, decoded by nobody."""
    gated = GATE in device.names
    files = [PlannedFile(GATE, 0, GATE_LIMIT)] if gated else []
    # With the cadence of loads: that is how often the power state of a device is looked at that sleeps now.
    files += [PlannedFile(path, group_of(Cadence.NORMAL), _FACT_LIMIT) for path in paths]
    return DevicePlan(device, gated, tuple(files), {}, (), (), (), -1, -1, provisional=True)


def reader_plan(
    plan: DevicePlan, number: int, sysfs: str, deadline: float, *, procfs: str = "/proc"
) -> dict[str, Any]:
    """What the reader is told of a plan: paths, limits, the deadline; see `LaneMemory.create`."""
    base = f"{sysfs}/{plan.device.path}"
    questions = [file.path for file in plan.files[1 if plan.gated else 0 :]] if plan.call else []
    files = [
        f"{procfs}/{file.path.removeprefix(PROC)}" if file.path.startswith(PROC) else f"{base}/{file.path}"
        for file in plan.files[: len(plan.files) - len(questions)]
    ]
    return {
        "lane": number,
        "device": plan.device.id,
        "deadline": deadline,
        "gate": plan.gated,
        "paths": files + questions,
        "limits": [file.limit for file in plan.files],
        "long": [index for index, file in enumerate(plan.files) if file.long],
    }
