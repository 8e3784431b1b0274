"""KFD's own list of processes: which have amdgpu's compute driver open, on which GPUs, and their queues.

/sys/class/kfd/kfd/proc/PID (drivers/gpu/drm/amd/amdkfd/kfd_process.c), /sys/class/kfd/kfd/topology. Only names
and files that print what the kernel has in memory are read here. What enters the hardware, such as `sdma_*` and
`cu_occupancy`, is named to the server, which has it read in the lane of the GPU.
"""

from collections import Counter
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer
from gpudaemon.parsers.kfd import properties, queue_type
from gpudaemon.parsers.kfd_topology import topology
from gpudaemon.processes.files import names, read

__all__ = ["KfdProcess", "KfdProcesses"]

_CLASS = "class/kfd/kfd"
_MOST_PROCESSES = 1024
_MOST_QUEUES = 256
_FILES = ("vram", "sdma")
_DIRECTORIES = {"stats": ("evicted_ms", "cu_occupancy"), "counters": ("faults", "page_in", "page_out")}


@dataclass(slots=True)
class KfdProcess:
    """files: PCI address -> paths below the directory. queues: (PCI address, type) -> how many."""

    pid: int
    files: dict[str, list[str]] = field(default_factory=dict)
    queues: Counter[tuple[str, str]] = field(default_factory=Counter)


class KfdProcesses:
    """Looks when asked; which GPU an id stands for is read again when KFD's topology changed."""

    def __init__(self, sysfs: str) -> None:
        self._root = f"{sysfs}/{_CLASS}"
        self._generation: bytes | None = None
        self._gpus: dict[str, str] = {}

    @property
    def directory(self) -> str:
        """Where the directories of the processes are."""
        return f"{self._root}/proc"

    def look(self) -> list[KfdProcess]:
        """Every process KFD knows."""
        pids = [name for name in names(self.directory) if name.isdigit()][:_MOST_PROCESSES]
        if pids:
            self._follow_topology()
        return [self._process(int(pid)) for pid in pids]

    def _follow_topology(self) -> None:
        generation = read(f"{self._root}/topology/generation_id", 64)
        if generation == self._generation and self._gpus:
            return
        self._generation = generation
        ids: dict[int, int] = {}
        known: dict[int, dict[str, int]] = {}
        for node in names(f"{self._root}/topology/nodes"):
            directory = f"{self._root}/topology/nodes/{node}"
            if not node.isdecimal():
                continue
            try:
                gpu = integer((read(f"{directory}/gpu_id", 64) or b"").strip())
                known[int(node)] = properties(read(f"{directory}/properties") or b"")
            except Malformed:
                continue
            ids[int(node)] = gpu
        # A partition has an id of its own and belongs to its GPU.
        self._gpus = {
            str(ids[number]): node.device
            for number, node in topology(known).items()
            if ids[number] > 0 and node.device
        }

    def _process(self, pid: int) -> KfdProcess:
        made = KfdProcess(pid)
        here = names(f"{self.directory}/{pid}")
        for name in here:
            kind, _, gpu = name.partition("_")
            address = self._gpus.get(gpu)
            if address is None:
                continue
            if kind in _FILES:
                made.files.setdefault(address, []).append(name)
            elif kind in _DIRECTORIES:
                wanted = _DIRECTORIES[kind]
                made.files.setdefault(address, []).extend(
                    f"{name}/{file}" for file in names(f"{self.directory}/{pid}/{name}") if file in wanted
                )
        if "queues" in here:
            self._count_queues(made)
        return made

    def _count_queues(self, made: KfdProcess) -> None:
        directory = f"{self.directory}/{made.pid}/queues"
        for queue in names(directory)[:_MOST_QUEUES]:
            gpu = (read(f"{directory}/{queue}/gpuid", 64) or b"").strip().decode("ascii", "replace")
            try:
                kind = queue_type(read(f"{directory}/{queue}/type", 64) or b"")
            except Malformed:
                continue
            if gpu in self._gpus:
                made.queues[self._gpus[gpu], kind] += 1
