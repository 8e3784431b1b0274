"""Memory of two tiers on real kernels: node 0 above, CXL memory below. What reclaim demotes and NUMA balancing
promotes is on the page as /proc/vmstat and the nodes' own files count it.

Which pages are where, the kernel says by another way: the process's numa_maps.
"""

import json
import re
import sys
from collections.abc import Callable

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.store import ROOT
from tests.vm.test_cxl import furnish

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.guest(devices="all", fresh=True),
    pytest.mark.timeout(900),
]

Measured = Callable[[str, float, str], None]

_FLAGS = ("--tier", "base", "--preset", "scrape", "--period.normal", "2", "--period.slow", "5")
_PAGES = 600
"""CXL memory is slow under emulation: 9 ms a page and migration."""
_CGROUP = "/sys/fs/cgroup/tiers"
_BALANCING = "/sys/kernel/debug/sched/numa_balancing"
_TIER_LINES = {
    "pgdemote_kswapd": ("gpudaemon_memory_demoted_pages_total", 'by="kswapd"'),
    "pgdemote_direct": ("gpudaemon_memory_demoted_pages_total", 'by="direct"'),
    "pgdemote_khugepaged": ("gpudaemon_memory_demoted_pages_total", 'by="khugepaged"'),
    "pgdemote_proactive": ("gpudaemon_memory_demoted_pages_total", 'by="proactive"'),
    "pgpromote_success": ("gpudaemon_memory_promoted_pages_total", ""),
    "pgpromote_candidate": ("gpudaemon_memory_promotion_candidate_pages_total", 'kind="limited"'),
    "pgpromote_candidate_nrl": ("gpudaemon_memory_promotion_candidate_pages_total", 'kind="unlimited"'),
    "pgmigrate_success": ("gpudaemon_memory_migrated_pages_total", 'result="success"'),
    "pgmigrate_fail": ("gpudaemon_memory_migrated_pages_total", 'result="failure"'),
    "numa_hint_faults": ("gpudaemon_memory_numa_hint_faults_total", ""),
    "numa_hint_faults_local": ("gpudaemon_memory_numa_hint_faults_local_total", ""),
    "numa_pages_migrated": ("gpudaemon_memory_numa_migrated_pages_total", ""),
}

_WORKER = """
import json, mmap, os, sys, time
pages, cgroup, flag = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(f"{cgroup}/cgroup.procs", "w") as stream:
    stream.write(str(os.getpid()))
memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for place in range(0, len(memory), 4096):
    memory[place] = 1
import ctypes
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print(json.dumps({"pid": os.getpid(), "address": address}), flush=True)
while True:
    if not os.path.exists(flag):
        time.sleep(0.2)
        continue
    for place in range(0, len(memory), 4096):
        memory[place]
"""

Counts = dict[str, dict[str, int]]
"""Node, empty for the host -> line -> number."""


def count(nodes: list[str]) -> dict[str, dict[str, int]]:
    """In the guest: vmstat of the host and of nodes."""
    found = {}
    for node in ["", *nodes]:
        path = f"/sys/devices/system/node/node{node}/vmstat" if node else "/proc/vmstat"
        with open(path) as stream:
            found[node] = {name: int(value) for name, value in (line.split() for line in stream)}
    return found


def _nodes(guest: Guest) -> list[str]:
    return [path.rsplit("node", 1)[1] for path in guest.glob("/sys/devices/system/node/node[0-9]*")]


def _compare(guest: Guest, daemon: GuestDaemon, nodes: list[str]) -> int:
    """All lines of tiers: each node's where the node has it, and the sum over what is shown is the host's.

    How many numbers were compared. Waits for a page of a time when the kernel counted nothing.
    """
    compared: dict[str, int] = {}

    def agree() -> list[str]:
        compared.clear()
        before, page = guest.call(count, nodes), daemon.metrics()
        if _of_tiers(guest.call(count, nodes)) != _of_tiers(before):
            return ["the kernel counts still"]
        wrong = []
        for line, (name, labels) in _TIER_LINES.items():
            shown = {
                re.findall(r'node="(\d*)"', series)[0]: value
                for series, value in page.family(name).items()
                if labels in series
            }
            by_node = {node: before[node][line] for node in nodes if line in before[node]}
            total = before[""].get(line)
            wanted = by_node or ({"": total} if total is not None else {})
            if shown != wanted or (shown and sum(shown.values()) != total):
                wrong.append(f"{line}: {shown} and not {wanted}, {total}")
            compared.update({f"{line} {node}": 1 for node in shown})
        return wrong

    try:
        daemon.until(lambda: not agree(), 60.0)
    except AssertionError as error:
        raise AssertionError(f"{agree()}: {error}") from None
    return len(compared)


def _of_tiers(counts: Counts) -> Counts:
    return {
        node: {line: value for line, value in lines.items() if line in _TIER_LINES}
        for node, lines in counts.items()
    }


def _furnish(guest: Guest) -> str:
    """A region of CXL memory that is a node of a lower tier; its number."""
    furnish(guest)
    before = _nodes(guest)
    volatile = guest.shell("grep -l 0x1001 /sys/bus/cxl/devices/mem*/serial").split("/")[-2]
    guest.run("cxl", "create-region", "-m", "-t", "ram", "-d", "decoder0.0", "-w", "1", volatile)
    guest.until(lambda: len(_nodes(guest)) > len(before), 60.0, "for the node")
    (lower,) = set(_nodes(guest)) - set(before)

    def online() -> bool:
        said = guest.read(f"/sys/devices/system/node/node{lower}/meminfo").split()
        return int(said[said.index("MemTotal:") + 1]) > 0

    guest.until(online, 60.0, "for its memory")
    guest.write("/sys/kernel/mm/transparent_hugepage/enabled", "never")
    guest.shell("mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup")
    guest.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    guest.run("mkdir", _CGROUP)
    return lower


def _where(guest: Guest, worker: dict[str, int]) -> dict[str, int]:
    """Node -> pages of the worker's memory."""
    start = f"{worker['address']:x}".zfill(8)
    for line in guest.read(f"/proc/{worker['pid']}/numa_maps").splitlines():
        if line.startswith(f"{start} "):
            return {node: int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)}
    raise AssertionError("the kernel does not know of the worker's memory")


def _reclaim(guest: Guest) -> None:
    """Have the kernel reclaim all of the group, by a file that fails with EAGAIN where it got less."""
    guest.shell(f"echo {_PAGES * 4096} > {_CGROUP}/memory.reclaim", check=False, seconds=120.0)


def _promote(guest: Guest, flag: str, worker: dict[str, int]) -> None:
    """Have the process use its memory until most of it is above."""
    guest.write("/proc/sys/kernel/numa_balancing", "2")
    guest.write(flag, "")
    try:
        guest.until(lambda: _where(guest, worker).get("0", 0) > _PAGES // 2, 180.0, "for promotion")
    finally:
        guest.run("rm", flag)
        guest.write("/proc/sys/kernel/numa_balancing", "0")


def test_demotion_and_promotion(guest: Guest, measured: Measured) -> None:
    lower = _furnish(guest)
    nodes = _nodes(guest)
    guest.write("/sys/kernel/mm/numa/demotion_enabled", "1")
    for name, value in (
        ("scan_delay_ms", 100),
        ("scan_period_min_ms", 100),
        ("hot_threshold_ms", 60000),
    ):
        guest.write(f"{_BALANCING}/{name}", str(value))
    with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
        numbers = _compare(guest, daemon, nodes)
        start = guest.call(count, nodes)
        log, flag = "/run/tiers-worker", "/run/tiers-use"
        command = (sys.executable, "-P", "-c", _WORKER, str(_PAGES), _CGROUP, flag)
        pid = guest.start(*command, log=log, environment={"PYTHONPATH": str(ROOT)})
        guest.until(lambda: "\n" in guest.read(log), 120.0, "for the worker")
        worker = json.loads(guest.read(log))
        assert _where(guest, worker) == {"0": _PAGES}

        _reclaim(guest)
        below = _where(guest, worker).get(lower, 0)
        reclaimed = guest.call(count, nodes)
        assert below > 0 and _demoted(reclaimed) - _demoted(start) >= below
        _compare(guest, daemon, nodes)

        _promote(guest, flag, worker)
        promoted = guest.call(count, nodes)
        above = promoted[""]["pgpromote_success"] - reclaimed[""]["pgpromote_success"]
        assert above > 0
        numbers = _compare(guest, daemon, nodes)

        # A limit that is reached: reclaim by whoever allocates, or sets it.
        guest.write(f"{_CGROUP}/memory.high", str(64 << 10), seconds=120.0)
        end = guest.call(count, nodes)
        assert end[""]["pgdemote_direct"] > promoted[""]["pgdemote_direct"]
        _compare(guest, daemon, nodes)
        page = daemon.metrics()
        shown = sum(page.family("gpudaemon_memory_demoted_pages_total").values())
        assert shown - _demoted(start) >= below
        measured("demoted by reclaim, pages", _demoted(reclaimed) - _demoted(start), "")
        measured("promoted, pages", above, "")
        measured("demoted by a limit, pages", _demoted(end) - _demoted(promoted), "")
        measured("numbers compared each time", numbers, "")
        guest.run("kill", "-KILL", str(pid))


def _demoted(counts: Counts) -> int:
    return sum(value for line, value in counts[""].items() if line.startswith("pgdemote_"))
