"""The daemon with a look at its event loop: `python -m tests.chaos.probed run ...` as `gpudaemon run ...`.

A task of the daemon's own loop sleeps 5 ms at a time. How late it wakes, less the time its thread stood in the
run queue meanwhile (second figure of /proc/PID/task/TID/schedstat, CONFIG_SCHED_INFO: ready to run, but another
had the processor), is how long the loop itself kept it: work in one piece, a wait in a system call, a thread
with the interpreter. Both go into a file of records, mapped, so that they outlive a kill:
GPUDAEMON_CHAOS_PAUSES names it.
"""

import asyncio
import mmap
import os
import struct
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "STEP", "Pace", "Pauses", "beside", "read"]

STEP = 0.005
RECORD = struct.Struct("<ddd")
"""CLOCK_MONOTONIC, seconds late, seconds of that in the run queue"""
_MOST = 400_000


class Pauses:
    """A file of records, and where the next one goes."""

    def __init__(self, path: str) -> None:
        with open(path, "a+b") as stream:
            stream.truncate(_MOST * RECORD.size)
            self._map = mmap.mmap(stream.fileno(), _MOST * RECORD.size)
        self._next = 0
        self._threads: dict[str, int] = {}
        self._listed = 0.0

    def waited(self) -> float:
        """Seconds this process's threads have stood in the run queue: any of them may have the interpreter."""
        now = time.monotonic()
        if now - self._listed > 1.0:
            self._listed = now
            self._list()
        total = 0
        for descriptor in self._threads.values():
            with suppress(OSError):
                total += int(os.pread(descriptor, 64, 0).split()[1])
        return total * 1e-9

    def _list(self) -> None:
        names = set(os.listdir("/proc/self/task"))
        for name in self._threads.keys() - names:
            os.close(self._threads.pop(name))
        for name in names - self._threads.keys():
            with suppress(OSError):
                self._threads[name] = os.open(f"/proc/self/task/{name}/schedstat", os.O_RDONLY)

    def note(self, moment: float, late: float, waited: float) -> None:
        """Add a record; a full file takes no more."""
        if self._next < _MOST:
            RECORD.pack_into(self._map, self._next * RECORD.size, moment, late, waited)
            self._next += 1

    async def watch(self) -> None:
        """For ever."""
        waited = self.waited()
        while True:
            began = time.monotonic()
            await asyncio.sleep(STEP)
            now, then = time.monotonic(), self.waited()
            self.note(now, max(0.0, now - began - STEP), max(0.0, then - waited))
            waited = then


class Pace:
    """What the machine did to a process that does nothing: read from its file while it is written.

    A process that wakes late is one that others were let in front of. Every step of the way from a file to a
    page waits like that, four processes one after the other: `slack` says how many seconds that may come to.
    """

    FACTOR = 4.0
    BACK = 10.0
    """seconds before a moment that may still be felt in it"""

    def __init__(self, path: str) -> None:
        self._stream = open(path, "rb")  # noqa: SIM115 - read on for as long as the run lasts
        self._late: list[tuple[float, float]] = []
        self.moments: list[float] = []

    def _read_on(self) -> None:
        while len(record := self._stream.read(RECORD.size)) == RECORD.size:
            moment, late, _ = RECORD.unpack(record)
            if moment == 0:
                self._stream.seek(-RECORD.size, os.SEEK_CUR)
                return
            if late > STEP:
                self._late.append((moment, late))

    def slack(self, begin: float, end: float) -> float:
        """Seconds by which the machine may have held things up until `end`."""
        self._read_on()
        first = bisect_left(self._late, (begin - self.BACK, 0.0))
        last = bisect_left(self._late, (end + 0.5, 0.0))
        return self.FACTOR * sum(late for _, late in self._late[first:last])


@contextmanager
def beside(path: str) -> Iterator[None]:
    """The process that shows what the machine does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.control", path], cwd=Path(__file__).resolve().parents[2]
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def read(path: str) -> list[tuple[float, float, float]]:
    """The records of a file, in order."""
    with open(path, "rb") as stream:
        content = stream.read()
    found = []
    for record in RECORD.iter_unpack(content):
        if record[0] == 0:
            break
        found.append(record)
    return found


def main() -> None:
    """Run the command with a watched loop."""
    from gpudaemon import daemon
    from gpudaemon.cli import main as command

    serve = daemon.Daemon.serve

    async def watched(self: daemon.Daemon, **arguments: Any) -> None:
        pauses = Pauses(os.environ["GPUDAEMON_CHAOS_PAUSES"])
        watching = asyncio.create_task(pauses.watch())
        try:
            await serve(self, **arguments)
        finally:
            watching.cancel()

    daemon.Daemon.serve = watched  # type: ignore[method-assign]
    command(sys.argv[1:])


if __name__ == "__main__":
    main()
