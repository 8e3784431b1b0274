"""The engine on io_uring, through the `liburing` binding.

Facts this module rests on (io_uring/rw.c, io_uring/io-wq.c, fs/kernfs/file.c):

* kernfs files have a poll method that always answers "readable", so without IOSQE_ASYNC the driver's show()
  runs inside io_uring_enter() of the submitter, hangs and all. IOSQE_ASYNC is therefore on every entry: after
  an -EAGAIN the next link of a chain is issued from the submitter's task work unless it carries the flag too.
* Every attribute read is a short read, which breaks an IOSQE_IO_LINK chain; IOSQE_IO_HARDLINK holds.
* A worker inside a driver cannot be cancelled. What follows it in the chain can be defused: a linked request
  looks its file up only when it is issued (since Linux kernel commit 6bf9c47a3989 ("io_uring: defer file
  assignment") (in v5.18)), so putting /dev/null over its descriptor keeps it out of the driver.
* IOSQE_ASYNC reads of regular files count as unbounded work on some kernels and as bounded on others: both
  worker limits are set. The binding's own call for that passes one integer where the kernel reads and writes
  two, so io_uring_register(2) is called directly.
"""

import ctypes
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from gpudaemon.reader.binding import liburing
from gpudaemon.reader.engine import NOT_READ, Chain, Step

__all__ = ["ENTRIES", "UringEngine", "worker_limits", "worker_processors"]

ENTRIES = 1024
"""Submission entries; the completion ring has twice as many."""
_SEGMENT = 256
"""Most entries of one chain in the ring at a time."""
_FRESH = 0.02
"""A chain younger than this counts as running; an older one only waits for a slow device."""
_WINDOW = 16
"""Chains running at a time: each costs the kernel one worker thread, and idle workers end after 5 s."""
_WAIT = 0.004
"""Seconds to wait for whole chains before going back to one wake-up per completion."""
_HARDLINK, _ASYNC = 1 << 3, 1 << 4
_CANCEL_DATA = 1
_SYS_IO_URING_REGISTER = 427
_REGISTER_IOWQ_AFF, _UNREGISTER_IOWQ_AFF, _REGISTER_IOWQ_MAX_WORKERS = 17, 18, 19
_MOST_PROCESSORS = 8192
"""The most NR_CPUS can be (arch/x86/Kconfig); a mask longer than the kernel's is cut there."""
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC


def worker_limits(ring: int, bounded: int, unbounded: int) -> tuple[int, int]:
    """Set both io-wq worker limits of `ring` (0: leave as it is); returns those in force before.

    Raises OSError. See io_uring_register(2), IORING_REGISTER_IOWQ_MAX_WORKERS.
    """
    values = (ctypes.c_uint32 * 2)(bounded, unbounded)
    _register(ring, _REGISTER_IOWQ_MAX_WORKERS, values, 2)
    return values[0], values[1]


def worker_processors(ring: int, processors: Collection[int]) -> None:
    """Have the io-wq workers of `ring` run on `processors` only; empty: wherever they may.

    Workers do not follow the affinity of the thread that submits. Raises OSError. See io_uring_register(2),
    IORING_REGISTER_IOWQ_AFF.
    """
    if not processors:
        _register(ring, _UNREGISTER_IOWQ_AFF, None, 0)
        return
    mask = bytearray(_MOST_PROCESSORS // 8)
    for number in processors:
        mask[number // 8] |= 1 << number % 8
    _register(ring, _REGISTER_IOWQ_AFF, (ctypes.c_char * len(mask)).from_buffer(mask), len(mask))


def _register(ring: int, opcode: int, argument: Any, count: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SYS_IO_URING_REGISTER, ring, opcode, argument, count) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Prepared:
    """Submission entries of a chain, made once and copied into the ring at each start.

    stuck: position at which the chain was abandoned; what comes after it read /dev/null.
    """

    __slots__ = ("number", "segments", "stuck")

    def __init__(self, number: int, segments: list[Any]) -> None:
        self.number = number
        self.segments = segments
        self.stuck = 0


class UringEngine:
    """See `gpudaemon.reader.engine.Engine`. Lives on one thread; `finished` is called from `run`."""

    name = "io_uring"

    def __init__(
        self, finished: Callable[[Chain], None], quiet: Callable[[], None], lock: threading.RLock
    ) -> None:
        self.finished = finished
        self.quiet = quiet
        self.take_over: Callable[[], None] = lambda: None
        self._ring = liburing.io_uring()
        liburing.io_uring_queue_init(ENTRIES, self._ring)
        self._cqe = liburing.io_uring_cqe()
        self._timeout = liburing.timespec(_WAIT)
        self._null = os.open("/dev/null", _OPEN_FLAGS)
        self._running: dict[int, Chain] = {}
        self._next: dict[int, int] = {}
        self._waiting: deque[tuple[Chain, int]] = deque()
        self._numbers = 1
        self._in_flight = 0
        self.limits = (0, 0)

    def set_lanes(self, lanes: int) -> None:
        """Let the kernel have a worker for every lane and eight to spare; `limits` holds what it granted."""
        wanted = lanes + 8
        if self.limits[0] < wanted or self.limits[1] < wanted:
            worker_limits(self._ring.ring_fd, wanted, wanted)
            self.limits = worker_limits(self._ring.ring_fd, 0, 0)

    def set_processors(self, processors: Collection[int]) -> None:
        worker_processors(self._ring.ring_fd, processors)

    def start(self, chain: Chain) -> None:
        chain.reset()
        if chain.prepared is None:
            self._prepare(chain)
        self._waiting.append((chain, 0))

    def run(self) -> None:
        """Submit what waits, take what is through, and stay while whole chains keep ending."""
        while True:
            submitted = self._submit()
            taken = self._reap()
            if not (submitted or taken) or not (self._waiting or self._fresh(time.monotonic())):
                self.quiet()
                return

    def patience(self) -> float | None:
        if self._waiting:
            return _FRESH
        return None

    def descriptor(self) -> int:
        return int(self._ring.ring_fd)

    def abandon(self, chain: Chain) -> None:
        """Keep the rest of the chain out of the driver, and ask the read in the worker to come back.

        The request to cancel ends an interruptible sleep early; on an uninterruptible one it has no effect.
        """
        chain.abandoned = True
        number = chain.prepared.number
        for entry in tuple(self._waiting):
            if entry[0] is chain:
                self._waiting.remove(entry)
                if number not in self._running:
                    self._end(chain)
                    return
        chain.prepared.stuck = chain.position
        if chain.step is not Step.OPEN:
            for position in range(chain.position + 1, len(chain.indexes)):
                os.dup2(self._null, chain.descriptors[position], inheritable=False)
        entry = liburing.io_uring_sqe()
        liburing.io_uring_prep_cancel64(entry, number << 16 | chain.position + 1, 0)
        entry.user_data = _CANCEL_DATA
        if liburing.io_uring_put_sqe(self._ring, entry):
            self._in_flight += 1
            liburing.io_uring_submit(self._ring)

    def forget(self, owner: object) -> None:
        """Nothing is remembered of lanes."""

    def leads(self) -> bool:
        return True

    def figures(self) -> tuple[int, int]:
        return self._in_flight, len(self._running)

    def close(self) -> None:
        liburing.io_uring_queue_exit(self._ring)
        os.close(self._null)

    def overflowed(self) -> bool:
        """Whether completions ever found no room; the bound on reads in flight is there to prevent it."""
        return bool(liburing.io_uring_cq_has_overflow(self._ring))

    def _prepare(self, chain: Chain) -> None:
        self._numbers += 1
        number = self._numbers
        segments = []
        total = len(chain.indexes)
        for first in range(0, total, _SEGMENT):
            count = min(_SEGMENT, total - first)
            entries = liburing.io_uring_sqe(count)
            for place in range(count):
                position = first + place
                entry = entries[place]
                if chain.step is Step.OPEN:
                    liburing.io_uring_prep_openat(entry, chain.paths[position], _OPEN_FLAGS, 0)
                else:
                    (buffer,) = chain.buffers[position]
                    liburing.io_uring_prep_read(
                        entry, chain.descriptors[position], buffer, len(buffer), chain.offset
                    )
                liburing.io_uring_sqe_set_flags(entry, _ASYNC | (_HARDLINK if place < count - 1 else 0))
                entry.user_data = number << 16 | position + 1
            segments.append(entries)
        chain.prepared = _Prepared(number, segments)

    def _fresh(self, now: float) -> int:
        return sum(now - chain.progress < _FRESH for chain in self._running.values())

    def _submit(self) -> int:
        """Copy waiting segments into the ring, as many as ring and window hold, and wait for them a moment."""
        room = _WINDOW - self._fresh(time.monotonic())
        count = 0
        while self._waiting and room > 0:
            chain, segment = self._waiting[0]
            entries = chain.prepared.segments[segment]
            # Never more in flight than the completion ring can take: it cannot overflow.
            if self._in_flight + len(entries) > ENTRIES or not liburing.io_uring_put_sqe(self._ring, entries):
                break
            self._waiting.popleft()
            chain.progress = time.monotonic()
            self._running[chain.prepared.number] = chain
            self._next[chain.prepared.number] = segment + 1
            self._in_flight += len(entries)
            count += len(entries)
            room -= 1
        if count:
            try:
                liburing.io_uring_submit_and_wait_timeout(self._ring, self._cqe, count, self._timeout)
            except OSError as error:
                if error.errno not in (errno.ETIME, errno.EINTR, errno.EAGAIN, errno.EBUSY):
                    raise
        return count

    def _reap(self) -> int:
        """Take every completion that is there; returns how many."""
        ring, cqe = self._ring, self._cqe
        peek, seen = liburing.io_uring_peek_cqe, liburing.io_uring_cqe_seen
        ready = liburing.io_uring_cq_ready(ring)
        running = self._running
        taken: dict[int, int] = {}
        for _ in range(ready):
            if peek(ring, cqe) < 0:
                break
            data, result = cqe.user_data, cqe.res
            seen(ring, cqe)
            self._in_flight -= 1
            number = data >> 16
            chain = running.get(number)
            if chain is None:
                continue
            position = (data & 0xFFFF) - 1
            if number not in taken:
                taken[number] = position
            if chain.abandoned and not result and position > chain.prepared.stuck:
                result = NOT_READ
            chain.results[position] = result
            chain.position = position + 1
        for number, first in taken.items():
            chain = running[number]
            self._charge(chain, first)
            if chain.position == len(chain.indexes):
                self._end(chain)
            elif chain.position % _SEGMENT == 0:
                self._continue(chain)
        return int(ready)

    @staticmethod
    def _charge(chain: Chain, first: int) -> None:
        """Share the time since the chain's last completion among those that came together from `first` on.

        Files that answer at once come in one batch and share evenly. After a longer wait the first of the
        batch is the one that took it: the wake-up was for its completion.
        """
        now = time.monotonic()
        passed = now - chain.progress
        chain.progress = now
        if passed > 2 * _WAIT:
            chain.costs[first] = passed
        else:
            share = passed / (chain.position - first)
            for position in range(first, chain.position):
                chain.costs[position] = share

    def _continue(self, chain: Chain) -> None:
        """The chain's segment is through: queue its next one, unless it was abandoned."""
        if chain.abandoned:
            self._end(chain)
        else:
            self._waiting.append((chain, self._next[chain.prepared.number]))

    def _end(self, chain: Chain) -> None:
        number = chain.prepared.number
        self._running.pop(number, None)
        self._next.pop(number, None)
        self.finished(chain)
