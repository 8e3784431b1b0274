"""What processes hold: memory, descriptors, threads; what they cost; and daemons to look at."""

import os
import platform
import re
import sys
import time
from collections import Counter
from pathlib import Path

# Benches are run as scripts; the daemon to run and the rules of comparison belong to the tests.
_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS.parent), str(_TESTS), str(_TESTS / "live")]

from daemon import Page, RunningDaemon, children, is_running, until  # noqa: E402
from processor_time import seconds as cpu_seconds  # noqa: E402

__all__ = [
    "ENGINES",
    "Page",
    "RunningDaemon",
    "children",
    "cpu_seconds",
    "descriptors",
    "is_running",
    "machine",
    "memory",
    "of",
    "open_files",
    "threads",
    "until",
]

ENGINES = ("io_uring", "threads")


def of(daemon: RunningDaemon) -> dict[str, int]:
    """Process ids of a daemon by name."""
    return {"server": daemon.pid, "reader": daemon.reader, "launcher": daemon.launcher}


def memory(pid: int) -> dict[str, float]:
    """MiB of a process: Rss, Pss (pages shared by n processes count 1/n), Uss (pages nobody else maps), Anon.

    Anon is its share of heaps and shared memory: what does not change when strangers map the same libraries.
    """
    found: dict[str, float] = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup.readlines()[1:]:
            name, kilobytes = line.split()[:2]
            found[name.rstrip(":")] = int(kilobytes) / 1024
    return {
        "Rss": found["Rss"],
        "Pss": found["Pss"],
        "Uss": found["Private_Clean"] + found["Private_Dirty"],
        "Anon": found["Pss_Anon"] + found["Pss_Shmem"],
    }


def descriptors(pid: int) -> int:
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def open_files(pid: int) -> Counter[str]:
    """What the descriptors of a process are open on, numbers left out."""
    found: Counter[str] = Counter()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except FileNotFoundError:
            continue
        found[re.sub(r"\d+", "N", os.path.basename(target))] += 1
    return found


def threads(pid: int) -> tuple[int, int]:
    """Threads of a process: its own, and kernel workers of io_uring, which come and go with the load."""
    own = workers = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii", errors="replace") as name:
                is_worker = name.read().startswith("iou-")
        except FileNotFoundError:
            continue
        workers += is_worker
        own += not is_worker
    return own, workers


def machine() -> str:
    """One line about this machine, for a record of results."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, Linux {platform.release()},"
        f" {platform.python_implementation()} {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
