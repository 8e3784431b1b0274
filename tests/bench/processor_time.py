"""CPU time of processes to the nanosecond, kernel workers of io_uring included.

/proc/PID/task/TID/schedstat holds each thread's time on a processor in nanoseconds
(Documentation/scheduler/sched-stats.rst); io_uring's workers are threads of their process. A thread that ends
between two looks would take its time along, so utime and stime of /proc/PID/stat, which count ended threads
in clock ticks, serve as the floor.
"""

import os
from collections.abc import Iterable

_TICK = os.sysconf("SC_CLK_TCK")


def seconds(pids: Iterable[int]) -> float:
    """CPU seconds of all threads of these processes so far."""
    total = 0.0
    for pid in pids:
        threads = 0
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as schedstat:
                    threads += int(schedstat.read().split()[0])
            except FileNotFoundError:
                continue
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        ticks = (int(fields[11]) + int(fields[12])) / _TICK
        total += max(threads / 1e9, ticks)
    return total


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    found = [pid]
    for one in found:
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children", encoding="ascii") as children:
                    found += [int(child) for child in children.read().split()]
        except FileNotFoundError:
            continue
    return found
