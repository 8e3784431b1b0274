"""Counters of the performance monitoring units of a memory device: data read and written, clocks. Pure.

A unit has a directory of its own (`bus/event_source/devices/cxl_pmu_mem0.0`), which discovery lists among the
names of the memdev's function. A unit has few counters and far more events: only those are opened that say how
much data moves. They are pinned, because a counter that takes turns with others counts too little and does not
say so.

drivers/perf/cxl_pmu.c; CXL 3.1, 13.2 (CPMU event groups).
"""

import re
from collections.abc import Iterator, Sequence

from gpudaemon.drivers import Facts
from gpudaemon.drivers.pmu import counter, described, needed
from gpudaemon.metrics import cxl_pmu as rows
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.parsers import pmu

__all__ = ["counters", "files"]

_DIRECTORY = re.compile(r"((?:[^/]+/)*cxl_pmu_(mem\d{1,5})\.(\d{1,3})/)type", re.ASCII)
_EVENTS = {
    "clock_ticks": "",
    "s2m_drs_memdata": "read",
    "m2s_rwd_memwr": "write",
    "m2s_rwd_memwrptl": "",
}
"""Events that are opened -> which way a message of it carries 64 bytes; partial writes carry fewer."""
_LINE = 64

_count = pmu.count()


def _units(device: Device) -> Iterator[tuple[str, str, str]]:
    """(directory, memdev, number of the unit)."""
    for name in sorted(device.names):
        found = _DIRECTORY.fullmatch(name)
        if found is not None:
            yield found[1], found[2], found[3]


def files(device: Device) -> Sequence[str]:
    """Static files that describe the units."""
    return sorted(
        path
        for directory, _, _ in _units(device)
        for path in needed(device, directory)
        if not path.startswith(f"{directory}events/") or path.rpartition("/")[2] in _EVENTS
    )


def counters(device: Device, facts: Facts) -> Iterator[Attribute]:
    """What is counted of each unit."""
    for directory, memdev, number in _units(device):
        unit = described(directory, facts)
        for event, direction in _EVENTS.items() if unit is not None else ():
            terms = unit.events.get(event) if unit is not None else None
            if unit is None or terms is None:
                continue
            labels = (memdev, number)
            series = [Series(rows.EVENTS, (*labels, event))]
            series += [Series(rows.TRAFFIC, (*labels, direction))] if direction else []
            decode = _with_bytes if direction else _count
            name = f"{memdev}.{number}/{event}"
            yield from counter(unit, name, terms, tuple(series), "pmu", decode=decode, pinned=True)


def _with_bytes(content: bytes) -> tuple[float | None, ...]:
    (messages,) = _count(content)
    return messages, None if messages is None else messages * _LINE
