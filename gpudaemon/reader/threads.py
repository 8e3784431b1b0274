"""The engine on threads: for hosts where io_uring is not to be had, and the cheaper one in steady state.

One thread serves all lanes in turn. When a chain holds it longer than `BOUND`, that thread stays with its
chain and a fresh one takes over the others, so one slow device costs its neighbours at most `BOUND` once.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable

from gpudaemon.reader.engine import Chain, Step

__all__ = ["BOUND", "ThreadEngine"]

BOUND = 0.1
"""Seconds a chain may keep the serving thread before another takes over the rest."""
_STACK = 256 * 1024


class ThreadEngine:
    """See `gpudaemon.reader.engine.Engine`. `finished` is called on a worker thread, under `lock`."""

    name = "threads"
    limits = (0, 0)

    def __init__(
        self, finished: Callable[[Chain], None], quiet: Callable[[], None], lock: threading.RLock
    ) -> None:
        self.finished = finished
        self.quiet = quiet
        self._lock = lock
        self._work = threading.Condition(lock)
        self._queue: deque[Chain] = deque()
        self._running: dict[int, Chain] = {}
        self._idle = 0
        self._closed = False
        threading.stack_size(_STACK)

    def start(self, chain: Chain) -> None:
        with self._lock:
            chain.reset()
            self._queue.append(chain)
            if self._idle:
                self._work.notify()
            elif not self._serving(time.monotonic()):
                self._spawn()

    def run(self) -> None:
        with self._lock:
            if self._queue and not self._idle and not self._serving(time.monotonic()):
                self._spawn()

    def patience(self) -> float | None:
        with self._lock:
            if not self._queue:
                return None
            now = time.monotonic()
            return max(0.0, min((c.started + BOUND - now for c in self._running.values()), default=0.0))

    def descriptor(self) -> int:
        return -1

    def abandon(self, chain: Chain) -> None:
        with self._lock:
            chain.abandoned = True
            if chain in self._queue:
                self._queue.remove(chain)
                self.finished(chain)

    def set_lanes(self, lanes: int) -> None:
        """Threads are started when they are needed; at most one a lane and one to spare."""

    def discard(self, chain: Chain) -> None:
        chain.prepared = None

    def figures(self) -> tuple[int, int]:
        return len(self._running) + len(self._queue), len(self._running) + self._idle

    def overflowed(self) -> bool:
        return False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._work.notify_all()

    def _serving(self, now: float) -> bool:
        """Whether some thread is expected to take the next chain soon."""
        return any(now - chain.started < BOUND for chain in self._running.values())

    def _spawn(self) -> None:
        threading.Thread(target=self._serve, name="lane-reader", daemon=True).start()
        # The new thread counts as idle until it takes its first chain, so that one wish starts one thread.
        self._idle += 1

    def _serve(self) -> None:
        me = threading.get_ident()
        with self._lock:
            while not self._closed:
                if not self._queue:
                    if self._idle > 1:
                        break
                    self._work.wait()
                    continue
                chain = self._queue.popleft()
                self._idle -= 1
                chain.started = chain.progress = time.monotonic()
                self._running[me] = chain
                self._lock.release()
                try:
                    _perform(chain)
                finally:
                    self._lock.acquire()
                    del self._running[me]
                    self._idle += 1
                self.finished(chain)
                if not self._queue:
                    self.quiet()
            self._idle -= 1


def _perform(chain: Chain) -> None:
    """Open or read the files of `chain` in order, noting result and cost of each."""
    opening = chain.step is Step.OPEN
    results, costs = chain.results, chain.costs
    clock = time.monotonic
    before = clock()
    for position in range(len(chain.indexes)):
        if chain.abandoned:
            return
        try:
            if opening:
                results[position] = os.open(chain.paths[position], os.O_RDONLY | os.O_CLOEXEC)
            else:
                results[position] = os.preadv(chain.descriptors[position], (chain.buffers[position],), 0)
        except OSError as error:
            results[position] = -(error.errno or 5)
        after = clock()
        costs[position] = after - before
        before = chain.progress = after
        chain.position = position + 1
