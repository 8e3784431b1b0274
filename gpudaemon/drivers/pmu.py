"""Engine time of Intel GPUs by perf counters: what to open, from what sysfs says of the GPU's PMU.

A PMU has a directory of its own (`bus/event_source/devices/i915_0000_03_00.0`, `i915` for the integrated GPU),
which discovery lists among the GPU's names. Its files are static and enter no driver.

i915 counts busy nanoseconds of each engine: `rcs0-busy`. Of its events only those are opened: frequencies,
waits and semaphores would keep a timer of 200 Hz running. Neither opening nor reading them wakes the GPU.

xe counts ticks, active and in total, of one engine that is named by GT, class and instance. **An open event of
xe holds the device awake** (drm/xe/pmu: "Get/put runtime pm on event init"), and one of an engine the GT's
forcewake as well: it is a kind of calls of its own, `pmu_held`, which is made only where somebody asks for it.
Which instances there are is not said anywhere: those that are not there answer that they are not.

drivers/gpu/drm/i915/i915_pmu.c, drivers/gpu/drm/xe/xe_pmu.c.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence, Decode
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.parsers import pmu

__all__ = ["Pmu", "counter", "described", "i915_counters", "needed", "xe_counters"]

_DIRECTORY = re.compile(
    r"((?:[^/]+/)*(?:i915|xe)(?:_[0-9a-f]{4,8}_[0-9a-f]{2}_[0-9a-f]{2}\.[0-7])?)/type", re.ASCII
)
_BUSY = re.compile(r"((?:rcs|bcs|vcs|vecs|ccs)\d{1,3})-busy(?:-gt\d)?", re.ASCII)
_ENGINES = re.compile(r"tile\d+/gt(\d{1,2})/engines/(rcs|bcs|vcs|vecs|ccs)/.*", re.ASCII)
_CLASSES = {"rcs": (0, 1), "bcs": (1, 9), "vcs": (2, 8), "vecs": (3, 4), "ccs": (4, 4)}
"""Class of an engine and most instances of it (drivers/gpu/drm/xe/xe_hw_engine_types.h)."""
_TICKS = {
    "engine-active-ticks": gpu_parts.ENGINE_ACTIVE_TICKS,
    "engine-total-ticks": gpu_parts.ENGINE_TICKS,
}
_count, _seconds = pmu.count(), pmu.count(10**9)


@dataclass(frozen=True, slots=True)
class Pmu:
    """A PMU as its files describe it. events: terms by name."""

    kind: int
    processor: int
    fields: Mapping[str, pmu.Field]
    events: Mapping[str, Mapping[str, int | None]]


def _directory(device: Device) -> str:
    """The PMU's directory among the device's names, with a slash; empty where it has none."""
    for name in device.names:
        found = _DIRECTORY.fullmatch(name)
        if found is not None:
            return f"{found.group(1)}/"
    return ""


def needed(device: Device, directory: str = "") -> Sequence[str]:
    """Static files that describe the device's PMU, or the one in a directory among its names."""
    directory = directory or _directory(device)
    if not directory:
        return ()
    parts = ("type", "cpumask", "format/", "events/")
    own = (name for name in device.names if name.startswith(tuple(directory + part for part in parts)))
    return sorted(name for name in own if not name.endswith((".unit", ".scale")))


def described(directory: str, facts: Facts) -> Pmu | None:
    """The PMU in a directory, which ends in a slash. An event whose description cannot be read is left out.

    None where there is no PMU, or its own description cannot be read.
    """
    if not directory:
        return None
    try:
        kind = pmu.kind(facts.get(f"{directory}type") or b"")
        processor = pmu.first_processor(facts.get(f"{directory}cpumask") or b"0")
    except Malformed:
        return None
    fields: dict[str, pmu.Field] = {}
    events: dict[str, Mapping[str, int | None]] = {}
    for path, content in facts.items():
        part, _, name = path.removeprefix(directory).partition("/")
        if content is None or not path.startswith(directory) or not name:
            continue
        try:
            if part == "format":
                fields[name] = pmu.field(content)
            elif part == "events":
                events[name] = pmu.terms(content)
        except Malformed:
            continue
    return Pmu(kind, processor, fields, events)


def counter(
    found: Pmu,
    name: str,
    terms: Mapping[str, int | None],
    series: tuple[Series, ...],
    call: str,
    *,
    decode: Decode = _count,
    pinned: bool = False,
) -> Iterator[Attribute]:
    """The counter, if every term has a value and a place. pinned: it counts all the time or cannot be read."""
    values = {term: value for term, value in terms.items() if value is not None}
    if len(values) < len(terms):
        return
    try:
        config, config1, config2 = pmu.configuration(values, found.fields)
    except Malformed:
        return
    where = f"type={found.kind} cpu={found.processor} config={config:#x},{config1:#x},{config2:#x}"
    where += " pinned" if pinned else ""
    yield Attribute(f"{call}/{name} {where}", Cadence.NORMAL, series, decode, limit=32, call=call)


def i915_counters(device: Device, facts: Facts) -> Iterator[Attribute]:
    """Busy time of each engine."""
    found = described(_directory(device), facts)
    for name, terms in sorted(found.events.items()) if found is not None else ():
        engine = _BUSY.fullmatch(name)
        if engine is not None and found is not None:
            series = Series(gpu_parts.BUSY_SECONDS, (device.id, engine.group(1)))
            yield from counter(found, name, terms, (series,), "pmu", decode=_seconds)


def xe_counters(device: Device, facts: Facts) -> Iterator[Attribute]:
    """Ticks of each engine there may be."""
    found = described(_directory(device), facts)
    if found is None:
        return
    engines = {(int(path.group(1)), path.group(2)) for path in map(_ENGINES.fullmatch, device.names) if path}
    for gt, engine in sorted(engines):
        number, instances = _CLASSES[engine]
        for instance in range(instances):
            for event, metric in _TICKS.items():
                terms = found.events.get(event)
                if terms is None:
                    continue
                named = {**terms, "gt": gt, "engine_class": number, "engine_instance": instance}
                series = Series(metric, (device.id, f"gt{gt}", f"{engine}{instance}"))
                name = f"gt{gt}/{engine}{instance}/{event}"
                yield from counter(found, name, named, (series,), "pmu_held")
