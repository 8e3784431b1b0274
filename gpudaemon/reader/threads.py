"""The engine on threads: for hosts where io_uring is not to be had, and the cheaper one in steady state.

The thread that runs the reader's loop also reads, one lane after the other, so a tick costs no switch between
threads. A watchdog looks at it: when one chain holds it longer than `BOUND`, that thread stays with its chain
and a fresh one takes over loop and lanes. A lane that was slow before is read on a thread of its own from the
start. So one slow device costs its neighbours at most `BOUND`, once.
"""

import ctypes
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from gpudaemon.reader.engine import Chain, Step

__all__ = ["BOUND", "ThreadEngine"]

BOUND = 0.1
"""Seconds a chain may keep the serving thread before another takes over the rest."""
_STACK = 256 * 1024


class _Alarm:
    """A timer that costs nothing while it does not ring: timerfd_create(2), waited for by read(2).

    A thread that looks at the clock itself would cost more than all reading: it wakes with cold caches.
    """

    def __init__(self) -> None:
        # PyDLL: these calls end in a microsecond, giving up the interpreter for them would cost more.
        self._libc = ctypes.PyDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        # struct itimerspec: interval and value, seconds and nanoseconds each
        self._never = (ctypes.c_long * 4)()
        self._soon = (ctypes.c_long * 4)(0, 0, 0, int(BOUND * 1e9))

    def set(self) -> None:
        """Ring in BOUND seconds, whatever was set before."""
        self._libc.timerfd_settime(self._descriptor, 0, self._soon, None)

    def clear(self) -> None:
        """Do not ring."""
        self._libc.timerfd_settime(self._descriptor, 0, self._never, None)

    def wait(self) -> None:
        """Block until it rings."""
        os.read(self._descriptor, 8)

    def close(self) -> None:
        """Give the timer back."""
        os.close(self._descriptor)


class ThreadEngine:
    """See `gpudaemon.reader.engine.Engine`. `finished` is called on the thread that read, under `lock`.

    take_over: runs the reader's loop on a fresh thread; the old one finds out by `leads`.
    """

    name = "threads"
    limits = (0, 0)

    def __init__(
        self, finished: Callable[[Chain], None], quiet: Callable[[], None], lock: threading.RLock
    ) -> None:
        self.finished = finished
        self.quiet = quiet
        self.take_over: Callable[[], None] = lambda: None
        self._lock = lock
        self._queue: deque[Chain] = deque()
        self._running: dict[int, Chain] = {}
        self._slow: set[object] = set()
        self._leader = 0
        self._closed = False
        self._alarm = _Alarm()
        threading.stack_size(_STACK)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def start(self, chain: Chain) -> None:
        chain.reset()
        self._queue.append(chain)

    def run(self) -> None:
        """Read what `start` queued, on this thread, which leads from now on."""
        me = threading.get_ident()
        if not self._leader:
            self._leader = me
        if self._queue:
            self._alarm.set()
        while self._leader == me and self._queue:
            chain = self._queue.popleft()
            if chain.owner in self._slow:
                threading.Thread(target=self._serve, args=(chain,), name="slow-lane", daemon=True).start()
            else:
                self._serve(chain)
        with self._lock:
            if self._leader == me:
                self._alarm.clear()
            self.quiet()

    def leads(self) -> bool:
        """Whether this thread still is the one that serves all lanes."""
        return self._leader == threading.get_ident()

    def patience(self) -> float | None:
        return 0.0 if self._queue else None

    def descriptor(self) -> int:
        return -1

    def abandon(self, chain: Chain) -> None:
        with self._lock:
            chain.abandoned = True
            if chain in self._queue:
                self._queue.remove(chain)
                self.finished(chain)

    def set_lanes(self, lanes: int) -> None:
        """Threads are started when they are needed: at most one a lane, and two."""

    def set_processors(self, processors: Collection[int]) -> None:
        """Threads are the reader's own: nothing works for them in the kernel."""

    def figures(self) -> tuple[int, int]:
        return len(self._running) + len(self._queue), len(self._running)

    def overflowed(self) -> bool:
        return False

    def close(self) -> None:
        self._closed = True
        self._alarm.set()

    def _serve(self, chain: Chain) -> None:
        me = threading.get_ident()
        chain.started = chain.progress = time.monotonic()
        self._running[me] = chain
        try:
            self.perform(chain)
        finally:
            with self._lock:
                del self._running[me]
                if time.monotonic() - chain.started > BOUND:
                    self._slow.add(chain.owner)
                else:
                    self._slow.discard(chain.owner)
                self.finished(chain)
                if me != self._leader:
                    self.quiet()

    def perform(self, chain: Chain) -> None:
        """Open or read the files of `chain` in order, noting the result of each and what each read cost."""
        _perform(chain)

    def forget(self, owner: object) -> None:
        """A lane is gone: so is what is remembered of it."""
        self._slow.discard(owner)

    def _watch(self) -> None:
        """When the alarm rings, the leader has been busy for BOUND: with one chain, or with several."""
        while True:
            self._alarm.wait()
            if self._closed:
                self._alarm.close()
                return
            with self._lock:
                chain = self._running.get(self._leader)
                if chain is None:
                    continue
                if time.monotonic() - chain.started >= BOUND / 2:
                    thread = threading.Thread(target=self._lead, name="lane-reader", daemon=True)
                    thread.start()
                    self._leader = thread.ident or 0
                else:
                    self._alarm.set()

    def _lead(self) -> None:
        with self._lock:
            # The watchdog holds the lock until it has written down who leads.
            pass
        self.take_over()


def _perform(chain: Chain) -> None:
    if chain.step is Step.OPEN:
        _open_all(chain)
        return
    results, costs = chain.results, chain.costs
    clock, read, offset = time.monotonic, os.preadv, chain.offset
    before = chain.started
    for position, (descriptor, buffer) in enumerate(zip(chain.descriptors, chain.buffers, strict=True)):
        if chain.abandoned:
            return
        try:
            results[position] = read(descriptor, buffer, offset)
        except OSError as error:
            results[position] = -(error.errno or errno.EIO)
        after = clock()
        costs[position] = after - before
        before = chain.progress = after
        chain.position = position + 1


def _open_all(chain: Chain) -> None:
    for position, path in enumerate(chain.paths):
        if chain.abandoned:
            return
        try:
            chain.results[position] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            chain.results[position] = -(error.errno or errno.EIO)
        chain.progress = time.monotonic()
        chain.position = position + 1
