"""NUMA nodes in memory tiers: a node without CPUs, demotion and promotion, as Linux 7.3 shows them.

drivers/base/node.c, mm/memory-tiers.c, mm/vmstat.c; the tier's number is the abstract distance over 128, which
depends on the platform's HMAT (a Debian 7.3 kernel on emulated CXL memory says 271). What moves between tiers
follows a slow sine, so that counters only go up.
"""

import math

from gpudaemon.mock.cxl import ACCESS
from gpudaemon.mock.tree import Generate, Tree

__all__ = ["add_tiers"]

_PAGE = 4096
_FAST, _SLOW = 4, 271


def _moved(seconds: float, rate: float) -> int:
    """Pages moved since the start: a rate that swings between nothing and twice its mean, summed up."""
    return int(rate * (seconds - math.sin(seconds / 20) * 20))


def _share(seconds: float) -> float:
    return 0.4 + 0.3 * math.sin(seconds / 60)


def _vmstat(seconds: float) -> dict[str, int]:
    demoted, promoted = _moved(seconds, 900), _moved(seconds, 700)
    return {
        "pgpromote_success": 81_920 + promoted,
        "pgpromote_candidate": 163_840 + 3 * promoted,
        "pgdemote_kswapd": 204_800 + demoted,
        "pgdemote_direct": 512 + demoted // 50,
        "pgdemote_khugepaged": 0,
        "pgdemote_proactive": 2092,
    }


def _host_vmstat(seconds: float) -> bytes:
    values = {
        "nr_free_pages": 90_000_000,
        "numa_hit": 9_000_000 + int(40_000 * seconds),
        "numa_miss": 1200 + int(3 * seconds),
        "numa_foreign": 1200 + int(3 * seconds),
        "numa_interleave": 4100,
        "numa_local": 8_800_000 + int(39_000 * seconds),
        "numa_other": 200_000 + int(1000 * seconds),
        **_vmstat(seconds),
        "nr_gpu_active": 0,
        "nr_gpu_reclaim": 0,
        "numa_pte_updates": 400_000 + int(900 * seconds),
        "numa_huge_pte_updates": 300,
        "numa_hint_faults": 300_000 + int(800 * seconds),
        "numa_hint_faults_local": 200_000 + int(500 * seconds),
        "numa_pages_migrated": 90_000 + _moved(seconds, 700),
        "pgmigrate_success": 400_000 + _moved(seconds, 1600),
        "pgmigrate_fail": 130,
        "thp_migration_success": 70,
        "thp_migration_fail": 0,
        "thp_migration_split": 2,
    }
    return "".join(f"{name} {value}\n" for name, value in values.items()).encode()


def _node_vmstat(kib: int, slow: bool) -> Generate:
    def content(seconds: float) -> bytes:
        free = int(kib // 4 * (1 - _share(seconds)))
        values = {"nr_free_pages": free, "numa_hit": 6 + int(900 * seconds), "numa_miss": 0}
        counts = _vmstat(seconds)
        # Promotion is counted on the node that pages come to, demotion on the one they leave (mm/migrate.c,
        # mm/vmscan.c).
        for name, count in counts.items():
            values[name] = count if name.startswith("pgpromote") != slow else 0
        return "".join(f"{name} {value}\n" for name, value in values.items()).encode()

    return content


def _meminfo(node: int, kib: int) -> Generate:
    def content(seconds: float) -> bytes:
        used = int(kib * _share(seconds))
        lines = {"MemTotal": kib, "MemFree": kib - used, "MemUsed": used, "SwapCached": 0, "GPUActive": 0}
        return "".join(
            f"Node {node} {name + ':':<15} {value:8d} kB\n" for name, value in lines.items()
        ).encode()

    return content


def add_tiers(tree: Tree, *, nodes: int, size: int) -> None:
    """The memory node after the `nodes` that have CPUs, and the tiers; size: bytes of it."""
    base, node, kib = "sys/devices/system/node", nodes, size // 1024
    for name in ("online", "possible", "has_memory", "has_normal_memory"):
        del tree.entries[f"{base}/{name}"]
        tree.text(base, **{name: f"0-{node}"})
    for other in range(nodes):
        del tree.entries[f"{base}/node{other}/distance"]
        near = " ".join(
            "10" if column == other else "32" if column < nodes else "50" for column in range(node + 1)
        )
        tree.text(f"{base}/node{other}", distance=near)
        tree.file(f"{base}/node{other}/vmstat", generate=_node_vmstat(2**28, slow=False))
    home = f"{base}/node{node}"
    tree.text(home, cpulist="", distance=" ".join(["50"] * nodes + ["10"]))
    tree.file(f"{home}/meminfo", generate=_meminfo(node, kib))
    tree.file(f"{home}/vmstat", generate=_node_vmstat(kib, slow=True))
    tree.text(f"{home}/memory_failure", total=0, ignored=0, failed=0, delayed=0, recovered=0)
    for access in ("access0", "access1"):
        tree.text(f"{home}/{access}/initiators", **ACCESS)
        tree.link(f"{home}/{access}/initiators/node0", f"{base}/node0")
    tree.link(f"sys/bus/node/devices/node{node}", home)
    for tier, listed in ((_FAST, f"0-{nodes - 1}" if nodes > 1 else "0"), (_SLOW, str(node))):
        place = f"sys/devices/virtual/memory_tiering/memory_tier{tier}"
        tree.text(place, nodelist=listed)
        tree.file(f"{place}/uevent", b"", mode=0o644)
        tree.link(f"{place}/subsystem", "sys/bus/memory_tiering")
        tree.link(f"sys/bus/memory_tiering/devices/memory_tier{tier}", place)
    tree.file("sys/kernel/mm/numa/demotion_enabled", b"true\n", mode=0o644)
    weights = {f"node{number}": 4 if number < nodes else 1 for number in range(node + 1)}
    tree.text("sys/kernel/mm/mempolicy/weighted_interleave", 0o644, **weights, auto="true")
    tree.file("proc/sys/kernel/numa_balancing", b"2\n", mode=0o644)
    tree.file("proc/vmstat", generate=_host_vmstat)
