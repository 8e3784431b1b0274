"""The engine of a process that makes calls: that on threads, where to open is to prepare a question.

Only the power state is a file, and is read first, as everywhere. A path that begins with `/` is a file, any
other a question: `KIND/WHAT`.
"""

import contextlib
import errno
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from gpudaemon.calls import Caller, Question
from gpudaemon.reader.channel import OPEN_ERROR, LaneMemory
from gpudaemon.reader.engine import Chain, Step
from gpudaemon.reader.threads import ThreadEngine

__all__ = ["CallEngine", "Questions"]

_FIRST = 1 << 20
"""Numbers from here on are questions, as numbers below are descriptors."""


class Questions:
    """Questions that are open, by a number that stands for a descriptor."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._numbers = itertools.count(_FIRST)
        self._open: dict[int, Question] = {}
        self._told: set[str] = set()

    def open(self, device: str, path: bytes) -> int:
        """Number of a new question, or -errno."""
        try:
            question = self._caller.open(device, os.fsdecode(path).partition("/")[2])
        except OSError as error:
            return -(error.errno or errno.EIO)
        except Exception:
            self._bug(path)
            return -errno.EIO
        number = next(self._numbers)
        self._open[number] = question
        return number

    def ask(self, number: int, buffer: memoryview) -> int:
        """Put the answer into `buffer`; returns its length (all of it where it does not fit), or -errno."""
        question = self._open.get(number)
        if question is None:
            return -errno.EBADF
        try:
            answer = question.ask()
        except OSError as error:
            number = error.errno or errno.EIO
            return -(OPEN_ERROR + number) if number == errno.EACCES else -number
        except Exception:
            self._bug(type(question).__name__.encode())
            return -errno.EIO
        length = min(len(answer), len(buffer))
        buffer[:length] = answer[:length]
        return length

    def release(self, number: int) -> None:
        """Close a descriptor or a question."""
        if number < _FIRST:
            os.close(number)
            return
        question = self._open.pop(number, None)
        if question is not None:
            with contextlib.suppress(OSError):
                question.close()

    def _bug(self, what: bytes) -> None:
        """Print where it failed, once for each question; the answer is that there is none."""
        text = traceback.format_exc(limit=-4)
        if text not in self._told and len(self._told) < 64:
            self._told.add(text)
            print(f"calls: {what!r}: {text}", file=sys.stderr, flush=True)


class CallEngine(ThreadEngine):
    """See the module."""

    name = "calls"

    def __init__(
        self,
        questions: Questions,
        finished: Callable[[Chain], None],
        quiet: Callable[[], None],
        lock: threading.RLock,
    ) -> None:
        super().__init__(finished, quiet, lock)
        self._questions = questions

    def perform(self, chain: Chain) -> None:
        """Prepare or ask the questions of `chain` in order; the power state is read as a file."""
        if chain.step is Step.GATE or (chain.step is Step.OPEN and chain.paths[0].startswith(b"/")):
            super().perform(chain)
            return
        memory: LaneMemory = chain.owner.memory
        memory.calling = True
        try:
            self._call(chain, memory.plan["device"])
        finally:
            memory.calling = False

    def _call(self, chain: Chain, device: str) -> None:
        before = chain.started
        for position in range(len(chain.indexes)):
            if chain.abandoned:
                return
            if chain.step is Step.OPEN:
                result = self._questions.open(device, chain.paths[position])
            else:
                result = self._questions.ask(chain.descriptors[position], chain.buffers[position][0])
            chain.results[position] = result
            after = time.monotonic()
            chain.costs[position] = after - before
            before = chain.progress = after
            chain.position = position + 1
