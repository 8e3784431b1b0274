"""Which processes have a GPU open, and which have rings of io_uring: kept up to date without walking /proc.

Every cycle looks at processes that began since the last one, and at those whose first minute is not over: a
program opens its GPU soon after it begins. Which began is told by the kernel (`sources.process_events`), else
by the names in /proc. A process that has been there for long may open a GPU too. Each open of a node takes a
reference on the driver's module (drivers/gpu/drm/drm_drv.c, drm_stub_open, fops_get), so while that count
stands still nobody did; when it moves, each process is asked by one stat(2) for the number of its descriptors
(fs/proc/ fd.c, proc_fd_getattr, since Linux 6.2), and those where it changed are looked at. Where there is no
such count all are asked each cycle, once a minute they are asked anyway, and all descriptors of every process
are looked at within ten minutes, some in each cycle.

Only links are read and device numbers asked for, which enters no driver.
"""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.parsers.io_uring import RING_LINK
from gpudaemon.parsers.process import process_stat

__all__ = ["Process", "Table", "node_of"]

_PREFIXES = ("/dev/dri/", "/dev/accel/")
_MAJORS = frozenset({226, 261})
"""DRM and accel (Documentation/admin-guide/devices.txt)."""
_YOUNG = 60.0
_SWEEP = 60.0
_FULL = 600.0
_DEAREST = 200.0
"""Times what a look took, before a process is looked at again: at most half a percent of a core for one."""
_CHEAP = 0.001
_MOST_DESCRIPTORS = 1024
"""GPU descriptors, or rings, kept of one process."""


@dataclass(slots=True)
class Process:
    """One process. since: first seen at. count: of descriptors, -1 where that is not known.

    nodes: descriptor -> name of the DRM or accel node. rings: descriptors. started: in ticks after boot, 0 as
    long as it has neither. denied: its descriptors may not be looked at. not_before: looking at it is dear.
    """

    since: float
    young: bool = True
    count: int = -1
    looked: float = 0.0
    not_before: float = 0.0
    denied: bool = False
    started: int = 0
    nodes: dict[int, str] = field(default_factory=dict)
    rings: tuple[int, ...] = ()


def node_of(path: str, target: str, names: dict[int, str], sysfs: str) -> str:
    """Name of the DRM or accel node behind the link `path`, which says `target`; empty where it is none.

    In a container a node may have another's name: the device number counts. Where the link leads nowhere, as
    in a host that does not exist, the name does.
    """
    if not target.startswith(_PREFIXES):
        return ""
    try:
        status = os.stat(path)
    except OSError:
        return target.rsplit("/", 1)[1]
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) not in _MAJORS:
        return ""
    name = names.get(status.st_rdev)
    if name is None:
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        try:
            name = os.readlink(f"{sysfs}/dev/char/{number}").rsplit("/", 1)[1]
        except OSError:
            name = target.rsplit("/", 1)[1]
        if len(names) > 4096:
            names.clear()
        names[status.st_rdev] = name
    return name


class Table:
    """See the module.

    news: processes that began and that ended since it was asked last, and whether any were lost; None where the
    kernel does not tell. period: seconds between looks. clock, cpu: seconds gone by, and used by this process.
    """

    def __init__(
        self,
        procfs: str,
        sysfs: str,
        period: float,
        *,
        clock: Callable[[], float],
        cpu: Callable[[], float],
        news: Callable[[], tuple[set[int], set[int], bool]] | None = None,
        rings: bool = True,
    ) -> None:
        self._procfs = procfs
        self._sysfs = sysfs
        self._period = period
        self._clock = clock
        self._cpu = cpu
        self._news = news
        self._rings = rings
        self._names: dict[int, str] = {}
        self._swept = 0.0
        self._references: tuple[str, ...] | None = None
        self._turn: list[int] = []
        self._asked: set[int] = set()
        self.drivers: tuple[str, ...] = ()
        self.processes: dict[int, Process] = {}
        self.lists = 0
        self.sweeps = 0
        self.looks = 0

    @property
    def users(self) -> dict[int, Process]:
        """Those that have a GPU open."""
        return {pid: process for pid, process in self.processes.items() if process.nodes}

    @property
    def ring_owners(self) -> dict[int, Process]:
        """Those that have rings."""
        return {pid: process for pid, process in self.processes.items() if process.rings}

    @property
    def denied(self) -> int:
        """Processes whose descriptors may not be looked at."""
        return sum(process.denied for process in self.processes.values())

    def ask(self, pids: Iterable[int]) -> None:
        """Look at these again next time: what they had open is not there any more."""
        self._asked.update(pids)

    def look(self) -> bool:
        """Bring the table up to date; True where anybody's nodes are others than before."""
        now = self._clock()
        first = not self.processes
        began, ended = self._who()
        changed = False
        for pid in ended:
            process = self.processes.pop(pid, None)
            changed |= process is not None and bool(process.nodes)
        for pid in began:
            # All that is here at first is as good as old.
            self.processes[pid] = Process(now, young=not first)
        due = {pid for pid, process in self.processes.items() if process.young}
        due |= began | (self._asked & self.processes.keys())
        self._asked.clear()
        old = self._swept_ones(now) if self._evidence(now) else set()
        due |= old | self._in_turn()
        for pid in due:
            changed |= self._attend(pid, now, forced=pid in began or pid not in old)
        return changed

    def _who(self) -> tuple[set[int], set[int]]:
        """(processes that began, processes that ended) since last time."""
        if self._news is not None and self.processes:
            began, ended, lost = self._news()
            if not lost:
                # A number may have come round within one cycle: then it is another process.
                return began - ended, ended & self.processes.keys() | (began & self.processes.keys())
        elif self._news is not None:
            self._news()
        self.lists += 1
        here = {int(name) for name in os.listdir(self._procfs) if name.isdigit()}
        known = self.processes.keys()
        return here - known, known - here

    def _evidence(self, now: float) -> bool:
        """Whether somebody may have opened a GPU: the references moved or are not known, or it is time."""
        references = tuple(self._reference(driver) for driver in self.drivers)
        moved = references != self._references or "" in references
        self._references = references
        return (bool(self.drivers) and moved) or now - self._swept >= _SWEEP

    def _reference(self, driver: str) -> str:
        try:
            with open(f"{self._sysfs}/module/{driver}/refcnt", "rb", buffering=0) as file:
                return file.read(32).decode("ascii", "replace")
        except OSError:
            return ""

    def _swept_ones(self, now: float) -> set[int]:
        """Those whose number of descriptors changed."""
        self._swept = now
        self.sweeps += 1
        found = set()
        for pid, process in self.processes.items():
            count = self._count(pid)
            if count != process.count or count <= 0:
                found.add(pid)
        return found

    def _count(self, pid: int) -> int:
        """Open descriptors of a process; 0 before Linux 6.2, -1 where that cannot be seen."""
        try:
            return os.stat(f"{self._procfs}/{pid}/fd").st_size
        except OSError:
            return -1

    def _in_turn(self) -> set[int]:
        """So many that all come round within `_FULL`."""
        share = int(len(self.processes) * self._period / _FULL) + 1
        if len(self._turn) < share:
            self._turn = list(self.processes)
        taken, self._turn = self._turn[:share], self._turn[share:]
        return {pid for pid in taken if pid in self.processes}

    def _attend(self, pid: int, now: float, *, forced: bool) -> bool:
        """Look at one process, if it has anything new; True where its nodes are others than before."""
        process = self.processes[pid]
        if process.young and now - process.since > _YOUNG:
            process.young = False
        if now < process.not_before:
            self._asked.add(pid)
            return False
        count = self._count(pid)
        if process.young and count > 0 and count == process.count and not forced:
            return False
        process.count = count
        began = self._cpu()
        nodes, rings = self._descriptors(pid, process)
        cost = self._cpu() - began
        process.not_before = now + cost * _DEAREST if cost > _CHEAP else 0.0
        # Read each time: where names of /proc are all there is, the number may be another process's by now.
        started = self.start_of(pid) if nodes or rings else 0
        changed = nodes != process.nodes or (bool(nodes) and started != process.started)
        process.nodes, process.rings, process.started = nodes, rings, started
        return changed

    def _descriptors(self, pid: int, process: Process) -> tuple[dict[int, str], tuple[int, ...]]:
        self.looks += 1
        directory = f"{self._procfs}/{pid}/fd"
        process.denied = False
        try:
            names = os.listdir(directory)
        except PermissionError:
            process.denied = True
            return {}, ()
        except OSError:
            return {}, ()
        nodes: dict[int, str] = {}
        rings: list[int] = []
        for name in names:
            path = f"{directory}/{name}"
            try:
                target = os.readlink(path)
            except OSError:
                continue
            if target[:5] == "/dev/":
                node = node_of(path, target, self._names, self._sysfs)
                if node and name.isdigit() and len(nodes) < _MOST_DESCRIPTORS:
                    nodes[int(name)] = node
            elif target == RING_LINK and self._rings and len(rings) < _MOST_DESCRIPTORS:
                rings.append(int(name))
        return nodes, tuple(sorted(rings))

    def start_of(self, pid: int) -> int:
        """When a process started, in ticks after boot; 0 where that cannot be read."""
        try:
            with open(f"{self._procfs}/{pid}/stat", "rb", buffering=0) as file:
                return process_stat(file.read(4096)).started
        except (OSError, Malformed):
            return 0
