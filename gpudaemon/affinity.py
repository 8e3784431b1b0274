"""On which processors a process runs; see sched_setaffinity(2)."""

import contextlib
import os

from gpudaemon.errors import ConfigError

__all__ = ["processors", "run_on"]


def processors(text: str) -> set[int]:
    """`0-3,8` -> {0, 1, 2, 3, 8}; empty: none is named."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def run_on(text: str, *others: int) -> None:
    """Keep every thread of this process, and the processes `others`, to the processors named; empty: to all.

    Raises ConfigError where none of them is there.
    """
    wanted = processors(text) or range(os.cpu_count() or 1)
    for task in (*map(int, os.listdir("/proc/self/task")), *others):
        try:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(task, wanted)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(f"cpu.server = {text!r}: {error}") from None
