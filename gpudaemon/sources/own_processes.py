"""What the daemon's own processes cost: CPU time, memory, descriptors, threads.

Read by psutil, in a thread: 118 microseconds a process is too long for the event loop.
"""

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
                try:
                    descriptors = process.num_fds()
                except psutil.AccessDenied:
                    descriptors = None
                found[name] = ProcessCost(
                    times.user + times.system, process.memory_info().rss, process.num_threads(), descriptors
                )
        except psutil.Error:
            continue
    return found
