"""Memory that moves: what the memory manager of the host counts of it.

Which of its lines are counted by node differs from kernel to kernel (those of demotion became a node's between
6.1 and 6.12): what the first node's file has is taken of the nodes, all else of the host, so that a sum over
`node` counts nothing twice.

Reading these files adds up counters of processors and enters no driver. mm/vmstat.c, kernel/sched/psi.c.
"""

import re
from collections.abc import Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.collectors.hmm.device import STREAM
from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.metrics import hmm, memory
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import PROC, Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers import vmstat

__all__ = ["COLLECTOR", "LINES", "STREAM"]

LINES: dict[str, tuple[Metric, tuple[str, ...]]] = {
    "pgmigrate_success": (memory.MIGRATED, ("success",)),
    "pgmigrate_fail": (memory.MIGRATED, ("failure",)),
    "thp_migration_success": (memory.HUGE_MIGRATED, ("success",)),
    "thp_migration_fail": (memory.HUGE_MIGRATED, ("failure",)),
    "thp_migration_split": (memory.HUGE_MIGRATED, ("split",)),
    "pgdemote_kswapd": (memory.DEMOTED, ("kswapd",)),
    "pgdemote_direct": (memory.DEMOTED, ("direct",)),
    "pgdemote_khugepaged": (memory.DEMOTED, ("khugepaged",)),
    "pgdemote_proactive": (memory.DEMOTED, ("proactive",)),
    "pgpromote_success": (memory.PROMOTED, ()),
    "pgpromote_candidate": (memory.PROMOTION_CANDIDATES, ("limited",)),
    "pgpromote_candidate_nrl": (memory.PROMOTION_CANDIDATES, ("unlimited",)),
    "numa_pages_migrated": (memory.NUMA_MIGRATED, ()),
    "numa_hint_faults": (memory.HINT_FAULTS, ()),
    "numa_hint_faults_local": (memory.LOCAL_HINT_FAULTS, ()),
    "numa_pte_updates": (memory.PTE_UPDATES, ()),
    "numa_huge_pte_updates": (memory.HUGE_PTE_UPDATES, ()),
    **{
        f"numa_{kind}": (memory.ALLOCATED, (kind,))
        for kind in ("hit", "miss", "foreign", "interleave", "local", "other")
    },
    "pswpin": (memory.SWAPPED, ("in",)),
    "pswpout": (memory.SWAPPED, ("out",)),
    **{
        f"workingset_{event}_{kind}": (memory.WORKINGSET, (event, kind))
        for event in ("refault", "activate", "restore")
        for kind in ("anon", "file")
    },
    "pgfault": (memory.FAULTS, ()),
    "pgmajfault": (memory.MAJOR_FAULTS, ()),
    "compact_stall": (memory.COMPACTIONS, ("stall",)),
    "compact_success": (memory.COMPACTIONS, ("success",)),
    "compact_fail": (memory.COMPACTIONS, ("fail",)),
    "compact_daemon_wake": (memory.COMPACTIONS, ("daemon_wake",)),
    "compact_migrate_scanned": (memory.COMPACTED, ("migrate_scanned",)),
    "compact_free_scanned": (memory.COMPACTED, ("free_scanned",)),
    "compact_isolated": (memory.COMPACTED, ("isolated",)),
    "nr_gpu_active": (memory.GPU_PAGES, ("active",)),
    "nr_gpu_reclaim": (memory.GPU_PAGES, ("reclaim",)),
}
"""Line of a vmstat -> its row, and the labels after `node`."""

_HOST, _ZONES, _PSI = f"{PROC}vmstat", f"{PROC}zoneinfo", f"{PROC}pressure/memory"
_NODE = re.compile(r"node/node(\d{1,5})/vmstat", re.ASCII)
_LIMIT = 16384
_ZONE_LIMIT = 1 << 19
"""A kilobyte a zone and processor: 2 nodes of 256 processors print about 300 KB."""
_ZONE_KINDS = ("spanned", "present", "managed")


def _wants(device: Device) -> bool:
    return device.kind is DeviceKind.MEMORY


def _nodes(device: Device) -> dict[str, str]:
    """Node -> its file, in the order of their numbers."""
    found = {int(one[1]): path for path in device.names if (one := _NODE.fullmatch(path)) is not None}
    return {str(number): found[number] for number in sorted(found)}


def _needs(device: Device) -> Sequence[str]:
    return list(_nodes(device).values())[:1]


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    nodes = _nodes(device)
    first = next(iter(nodes.values()), "")
    by_node = vmstat.names(facts.get(first)) & LINES.keys()
    planned: list[Attribute | Rows] = []
    if _HOST in device.names:
        planned.append(_counters(_HOST, "", tuple(name for name in LINES if name not in by_node), long=True))
    if by_node:
        lines = tuple(name for name in LINES if name in by_node)
        planned += [_counters(path, node, lines) for node, path in nodes.items()]
    if _PSI in device.names:
        series = tuple(
            Series(memory.PRESSURE, (kind,)) if what == "total" else Series(memory.PRESSURE_RATIO, (kind, what))
            for kind, what in vmstat.PRESSURE
        )
        planned.append(Attribute(_PSI, Cadence.NORMAL, series, vmstat.pressure, 512))
    if _ZONES in device.names:
        numbers = tuple(nodes)
        zones = tuple(Series(memory.ZONE_DEVICE, (node, kind)) for node in numbers for kind in _ZONE_KINDS)
        planned.append(Attribute(_ZONES, Cadence.SLOW, zones, _device_zones(numbers), _ZONE_LIMIT, long=True))
    return planned


def _counters(path: str, node: str, lines: tuple[str, ...], *, long: bool = False) -> Attribute:
    series = tuple(Series(LINES[name][0], (node, *LINES[name][1])) for name in lines)
    return Attribute(path, Cadence.NORMAL, series, vmstat.counters(lines), _LIMIT, long=long)


def _device_zones(nodes: tuple[str, ...]) -> Decode:
    def decode(content: bytes) -> list[float | None]:
        found = vmstat.zones(content)
        if not any(zone == "Device" for _, zone in found):
            if any(node not in {one for one, _ in found} for node in nodes):
                raise Malformed("format")
            return [None] * (len(nodes) * len(_ZONE_KINDS))
        said = (found.get((node, "Device"), {}) for node in nodes)
        return [float(zone[kind]) if kind in zone else None for zone in said for kind in _ZONE_KINDS]

    return decode


def _constants(_: Device, __: Facts) -> Sequence[Constant]:
    return ()


COLLECTOR = Collector(
    name="hmm",
    emits=(
        *dict.fromkeys(metric for metric, _ in LINES.values()),
        memory.ZONE_DEVICE,
        memory.PRESSURE,
        memory.PRESSURE_RATIO,
        memory.CGROUP_EVENTS,
        memory.CGROUP_NODE,
        memory.CGROUP_PRESSURE,
        *(one for one in vars(hmm).values() if isinstance(one, Metric)),
    ),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
