"""CPU time of processes to the nanosecond: ended threads and kernel workers of io_uring included.

The kernel keeps a CPU clock for every process, readable by anybody (clock_getcpuclockid(3)). The figures of
/proc/PID/stat are the same, but in hundredths of a second, too coarse for a daemon that uses one percent.
"""

import os
import time
from collections.abc import Iterable

_CPUCLOCK_SCHED = 2


def seconds(pids: Iterable[int]) -> float:
    """CPU seconds of these processes so far; raises OSError where one is gone."""
    # include/linux/posix-timers.h, make_process_cpuclock()
    return sum(time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED) for pid in pids)


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
