"""What the daemon's own processes cost: CPU time, memory, descriptors, threads.

Read by psutil, in a thread: 118 microseconds a process is too long for the event loop.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

__all__ = ["ProcessCost", "own_processes"]


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """cpu: seconds, ended threads and kernel workers included. resident: bytes. descriptors: None where this
    process may not look (a reader with more rights than the server)."""

    cpu: float
    resident: int
    threads: int
    descriptors: int | None


def own_processes(pids: Mapping[str, int]) -> dict[str, ProcessCost]:
    """Costs by the names given; a process that is gone is left out."""
    found = {}
    for name, pid in pids.items():
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                found[name] = ProcessCost(
                    times.user + times.system,
                    process.memory_info().rss,
                    process.num_threads(),
                    _descriptors(process),
                )
        except psutil.Error:
            continue
    return found


def _descriptors(process: psutil.Process) -> int | None:
    # The size of the directory is their number (fs/proc/fd.c, proc_fd_getattr, since Linux 6.2): listing the
    # thousands of a reader with 64 GPUs would cost as much as a third of a page.
    try:
        count = os.stat(f"/proc/{process.pid}/fd").st_size
        return count or process.num_fds()
    except (OSError, psutil.AccessDenied):
        return None
