"""The rings of io_uring of each process, and the kernel threads that work for them.

Reading a ring's fdinfo takes its lock if it is free, for as long as the text takes: a ring full of waiting
entries prints a line for each (io_uring/fdinfo.c). So this is done seldom, and of a text longer than `_LONGEST`
the end is not known. A ring that several descriptors or processes hold counts once: each has an inode of its
own (fs/anon_inodes.c, anon_inode_create_getfile).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpudaemon.errors import Malformed
from gpudaemon.parsers.cgroup import NOBODY, Owner, cgroup_owner
from gpudaemon.parsers.io_uring import Ring, is_poller, is_worker, ring
from gpudaemon.parsers.process import process_stat
from gpudaemon.processes.files import names, read
from gpudaemon.processes.table import Process

__all__ = ["RingOwner", "owner_of_process", "ring_owners"]

_LONGEST = 1 << 20
_MOST_THREADS = 4096
_MOST_PROCESSES = 1024


@dataclass(slots=True)
class RingOwner:
    """What a process has of io_uring.

    rings, unknown: how many, and how many of them told nothing. submissions, completions: that wait. overflow:
    completions in overflow lists, None where a ring does not say. pollers, workers: threads. poll_seconds,
    poll_busy_seconds: of the SQPOLL threads, None where the kernel does not say.
    """

    pid: int
    started: int
    name: str
    rings: int = 0
    unknown: int = 0
    submissions: int = 0
    completions: int = 0
    overflow: int | None = 0
    pollers: int = 0
    workers: int = 0
    poll_seconds: float | None = 0.0
    poll_busy_seconds: float | None = 0.0

    def add(self, one: Ring) -> None:
        """Take one ring in."""
        self.submissions += one.submissions
        self.completions += one.completions
        self.overflow = None if self.overflow is None or one.overflow is None else self.overflow + one.overflow
        self.poll_seconds = _sum(self.poll_seconds, one.poll_seconds)
        self.poll_busy_seconds = _sum(self.poll_busy_seconds, one.poll_busy_seconds)


def _sum(so_far: float | None, more: float | None) -> float | None:
    return None if so_far is None or more is None else so_far + more


def owner_of_process(procfs: str, pid: int) -> Owner:
    """Whom a process works for."""
    try:
        return cgroup_owner(read(f"{procfs}/{pid}/cgroup") or b"")
    except Malformed:
        return NOBODY


def ring_owners(procfs: str, processes: Mapping[int, Process]) -> list[tuple[RingOwner, Owner]]:
    """What each of `processes` has, with whom it works for; one that ended meanwhile is left out."""
    found = []
    seen: set[bytes] = set()
    for pid, process in list(processes.items())[:_MOST_PROCESSES]:
        one = _one(procfs, pid, process, seen)
        if one is not None:
            found.append((one, owner_of_process(procfs, pid)))
    return found


def _one(procfs: str, pid: int, process: Process, seen: set[bytes]) -> RingOwner | None:
    made = RingOwner(pid, process.started, "")
    for descriptor in process.rings:
        content = read(f"{procfs}/{pid}/fdinfo/{descriptor}", _LONGEST)
        if content is None or _inode(content) in seen:
            continue  # closed meanwhile, or a duplicate of one that was looked at
        try:
            one = ring(content, complete=len(content) < _LONGEST)
        except Malformed:
            one = None
        seen.add(_inode(content))
        made.rings += 1
        if one is None:
            made.unknown += 1
            made.overflow = made.poll_seconds = made.poll_busy_seconds = None
        else:
            made.add(one)
    try:
        stat = process_stat(read(f"{procfs}/{pid}/stat", 4096) or b"")
    except Malformed:
        return None
    if not made.rings or stat.started != process.started:
        return None
    made.name = stat.name
    for thread in names(f"{procfs}/{pid}/task")[:_MOST_THREADS]:
        comm = read(f"{procfs}/{pid}/task/{thread}/comm", 64) or b""
        made.workers += is_worker(comm)
        made.pollers += is_poller(comm)
    return made


def _inode(content: bytes) -> bytes:
    """The `ino:` line."""
    start = content.find(b"\nino:")
    return content[start : content.find(b"\n", start + 1)] if start >= 0 else b""
