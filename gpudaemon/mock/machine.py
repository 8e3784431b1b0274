"""What a host has besides its devices: NUMA nodes and the parts of procfs a telemetry daemon looks at.

Formats: drivers/base/node.c, fs/proc/stat.c, fs/proc/meminfo.c, fs/proc/uptime.c, fs/proc/array.c,
kernel/cgroup/cgroup.c (proc_cgroup_show), drivers/gpu/drm/drm_file.c (drm_show_fdinfo), as of Linux 6.12.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpudaemon.mock.clock import HostClock
from gpudaemon.mock.tree import Generate, Tree

__all__ = ["AMD", "INTEL", "RELEASE_7_3", "Process", "add_machine", "add_process", "node_cpus"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the mock host.

    cgroup: path of its cgroup v2. descriptors: number -> target of the link in fd/.
    fdinfo: number -> content of fdinfo/<number>.
    """

    pid: int
    comm: str
    cgroup: str
    descriptors: Mapping[int, str] = field(default_factory=dict)
    fdinfo: Mapping[int, Generate] = field(default_factory=dict)


def node_cpus(node: int, cpus_per_node: int) -> tuple[int, int]:
    """First and last CPU of a NUMA node."""
    return node * cpus_per_node, (node + 1) * cpus_per_node - 1


_RELEASE = (
    "Linux version 6.12.107+deb13-amd64 (debian-kernel@lists.debian.org) (x86_64-linux-gnu-gcc-14 (Debian "
    "14.2.0-19) 14.2.0, GNU ld (GNU Binutils for Debian) 2.44) #1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1\n"
)
RELEASE_7_3 = (
    "Linux version 7.3.4+deb13-amd64 (debian-kernel@lists.debian.org) (x86_64-linux-gnu-gcc-14 (Debian "
    "14.2.0-19) 14.2.0, GNU ld (GNU Binutils for Debian) 2.44) #1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1~bpo13+1 "
    "(2026-11-15)\n"
)


AMD, INTEL = ("AuthenticAMD", 25), ("GenuineIntel", 6)
"""vendor_id and cpu family of /proc/cpuinfo: Zen 3 and later, and every Core and Xeon."""


def add_machine(
    tree: Tree,
    *,
    nodes: int,
    cpus_per_node: int,
    memory: int,
    cpu: tuple[str, int] = AMD,
    release: str = _RELEASE,
) -> None:
    """NUMA nodes and the host's own files in proc.

    memory: bytes of the whole host; cpu: what its processors are; release: /proc/version.
    """
    base = "sys/devices/system/node"
    listed = f"0-{nodes - 1}" if nodes > 1 else "0"
    tree.text(base, online=listed, possible=listed, has_cpu=listed, has_memory=listed, has_normal_memory=listed)
    for node in range(nodes):
        first, last = node_cpus(node, cpus_per_node)
        distance = " ".join("10" if other == node else "32" for other in range(nodes))
        tree.text(f"{base}/node{node}", cpulist=f"{first}-{last}", distance=distance)
        kib = memory // 1024 // nodes
        tree.file(
            f"{base}/node{node}/meminfo",
            f"Node {node} MemTotal:       {kib:8d} kB\nNode {node} MemFree:        {kib * 3 // 4:8d} kB\n"
            f"Node {node} MemUsed:        {kib // 4:8d} kB\n",
        )
        tree.link(f"sys/bus/node/devices/node{node}", f"{base}/node{node}")
    _add_proc(tree, nodes * cpus_per_node, memory // 1024, release)
    tree.file("proc/cpuinfo", _cpuinfo(nodes * cpus_per_node, *cpu))
    vendor, family = cpu
    number, model = (2, 0x11) if vendor == AMD[0] else (0, 0x8F)
    alias = f"cpu:type:x86,ven{number:04X}fam{family:04X}mod{model:04X}:feature:,0000,0001,0002,0003"
    tree.text("sys/devices/system/cpu", modalias=alias)


def _add_proc(tree: Tree, cpus: int, kib: int, release: str) -> None:
    clock = tree.clock
    tree.file("proc/version", release)
    tree.file(
        "proc/uptime",
        generate=lambda seconds: b"%.2f %.2f\n" % (up := clock.boottime(seconds), up * cpus * 0.9),
    )
    tree.file("proc/stat", generate=lambda seconds: _stat(cpus, clock, seconds))
    tree.file("proc/meminfo", _meminfo(kib))
    tree.file("proc/loadavg", b"3.12 2.98 3.01 4/2310 48211\n")


def _cpuinfo(cpus: int, vendor: str, family: int) -> str:
    """What tells processors apart; the kernel prints more of each (arch/x86/kernel/cpu/proc.c)."""
    return "".join(
        f"processor\t: {number}\nvendor_id\t: {vendor}\ncpu family\t: {family}\n\n" for number in range(cpus)
    )


def _stat(cpus: int, clock: HostClock, moment: float) -> bytes:
    seconds = clock.boottime(moment)
    # Clock ticks of 1/100 s: user nice system idle iowait irq softirq steal guest guest_nice.
    each = [int(seconds * share) for share in (6, 0, 3, 90, 1, 0, 0, 0, 0, 0)]
    lines = ["cpu  " + " ".join(str(ticks * cpus) for ticks in each)]
    lines += [f"cpu{cpu} " + " ".join(map(str, each)) for cpu in range(cpus)]
    lines += [f"intr {int(seconds * 900)}", f"ctxt {int(seconds * 4000)}", f"btime {clock.booted()}"]
    lines += [f"processes {48_000 + int(seconds)}", "procs_running 4", "procs_blocked 0"]
    return ("\n".join(lines) + "\n").encode()


def _meminfo(kib: int) -> str:
    values = {
        "MemTotal": kib,
        "MemFree": kib * 3 // 4,
        "MemAvailable": kib * 4 // 5,
        "Buffers": 203_112,
        "Cached": kib // 16,
        "SwapCached": 0,
        "Active": kib // 20,
        "Inactive": kib // 18,
        "SwapTotal": 0,
        "SwapFree": 0,
        "Dirty": 1_208,
        "Writeback": 0,
        "AnonPages": kib // 24,
        "Mapped": kib // 200,
        "Shmem": kib // 400,
        "Slab": kib // 120,
    }
    return "".join(f"{name + ':':<16}{value:8d} kB\n" for name, value in values.items())


def add_process(tree: Tree, process: Process) -> None:
    """The files of one process that attribution needs: stat, comm, cgroup, fd/ and fdinfo/."""
    base = f"proc/{process.pid}"
    start = 100_000 + process.pid  # clock ticks after boot, field 22
    fields = (
        f"S 1 {process.pid} {process.pid} 0 -1 4194560 1200 0 3 0 812 204 0 0 20 0 9 0 {start} 912384000 51200"
    )
    tree.file(f"{base}/stat", f"{process.pid} ({process.comm}) {fields}" + " 0" * 28 + "\n")
    tree.file(f"{base}/comm", f"{process.comm}\n", mode=0o644)
    tree.file(f"{base}/cgroup", f"0::{process.cgroup}\n")
    for number, target in process.descriptors.items():
        tree.link(f"{base}/fd/{number}", target)
    for number, generate in process.fdinfo.items():
        tree.file(f"{base}/fdinfo/{number}", generate=generate)
