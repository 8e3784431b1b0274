"""What crosses between server and reader.

One SOCK_SEQPACKET pair and one sealed memory file a lane. The server writes a plan into a lane's memory and
sends it along; the reader reads files straight into the slots there and sends one 40-byte record per lane and
tick. Content never crosses the socket.

Memory of a lane with n files, little endian, native alignment:

    0    u32 count, u32 plan length, u64 plan offset
    16   u64 begun      number of the chain last begun: written before its first read
    24   u64 finished   number of the chain last finished
    32   f64 rest until CLOCK_MONOTONIC; before it only the power state is read (written by the server)
    40   u32 version    raised by the server when groups or periods change
    44   u32 calling    1 while a call of this lane is under way, where calls are made
    64   f64 period[16] seconds, by group (written by the server)
    192  f32 cost[n]    seconds the last slow read took
         u8  group[n]   group of each file; PARKED: not read (written by the server)
         then DEPTH copies of
             i32 length[n]  bytes read, or -errno of the read, or -(1000 + errno) of the open
             a slot of `limit` bytes for each file
         and the plan as JSON

Chain number c writes copy c modulo DEPTH, so the last readings are all there: the server need not be woken for
each, and one that is late loses none. A torn reading cannot be taken for a good one: the server copies what it
wants and then checks that `begun` is not DEPTH or more ahead of the number in the record. A plan may ask for
another `depth`: what is read each few seconds needs fewer copies.
"""

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any

__all__ = [
    "DEMOTED",
    "DEPTH",
    "GROUPS",
    "OPEN_ERROR",
    "PARKED",
    "RECORD",
    "LaneMemory",
    "RecordKind",
]

GROUPS = 16
"""Groups of files read together: four cadences first, then those for files demoted for their cost."""
DEMOTED = 4
"""First group of demoted files: each such group is a chain of its own, after all others."""
PARKED = 255
"""Group of a file that is not read at all until the server says otherwise."""
DEPTH = 6
"""Readings of a lane that are kept."""
OPEN_ERROR = 1000
"""Added to the errno of a failed open, to tell it from that of a failed read."""

_HEADER = struct.Struct("=IIQ")
_BEGUN, _REST, _VERSION, _CALLING, _PERIODS, _ARRAYS = 16, 32, 40, 44, 64, 192

RECORD = struct.Struct("=BBHIIIQdd")
"""kind, code, file index, lane, groups (bit mask), spare, chain number, started, ended (CLOCK_MONOTONIC)"""


class RecordKind:
    """First byte of a record; a packet that starts with `{` is JSON instead."""

    FINISHED = 1
    """a chain ended; groups say which files were read"""
    POWER = 2
    """the power state was read and forbids more; its text is in slot 0"""
    RESTING = 3
    """the device is let fall asleep; its power state was read and says active"""
    HUNG = 4
    """the deadline passed in the read (code 0) or open (code 1) of the file at `index`"""
    RESUMED = 5
    """the read that hung came back"""
    HEARTBEAT = 6
    """code: completions overflowed; index: quarantined lanes; lane: reads in flight; groups: workers;
    spare: records dropped; chain number: worker limits, bounded << 32 | unbounded; ended: CPU seconds"""


def _align(offset: int, to: int) -> int:
    return (offset + to - 1) // to * to


def _depth(plan: Any) -> int:
    """Copies of a plan's memory; raises ValueError where that is no number of copies."""
    depth = plan.get("depth", DEPTH) if isinstance(plan, dict) else None
    if type(depth) is not int or not 2 <= depth <= DEPTH:
        raise ValueError("lane plan has a depth that is none")
    return depth


def _limits(plan: Any, count: int) -> Sequence[int]:
    """Buffer sizes of a plan; raises ValueError where they are not `count` sizes."""
    limits = plan.get("limits") if isinstance(plan, dict) else None
    if not isinstance(limits, list) or len(limits) != count:
        raise ValueError("lane plan does not fit its files")
    if not all(type(limit) is int and limit > 0 for limit in limits):
        raise ValueError("lane plan has a limit that is no size")
    return limits


class LaneMemory:
    """The shared memory of one lane, as either side sees it.

    offsets: where each slot begins in a copy. lengths: of each copy. lengths, costs, groups, periods: typed
    views of the arrays.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the memory behind `descriptor`, which may be closed afterwards. Raises OSError, ValueError."""
        size = os.fstat(descriptor).st_size
        if size < _ARRAYS:
            raise ValueError("lane memory is too small")
        self.map = mmap.mmap(descriptor, size)
        view = memoryview(self.map)
        count, length, offset = _HEADER.unpack_from(view)
        if offset + length > size:
            raise ValueError("lane plan lies outside its memory")
        self.count = count
        self.plan: dict[str, Any] = json.loads(bytes(view[offset : offset + length]))
        limits = _limits(self.plan, count)
        self.depth = _depth(self.plan)
        first, self.stride, self.offsets = _layout(limits)
        if first + self.depth * self.stride > offset:
            raise ValueError("lane files do not fit their memory")
        self._first = first
        self._view = view
        self._limits = limits
        costs = _ARRAYS
        groups = costs + 4 * count
        self._counters = view[_BEGUN : _BEGUN + 16].cast("Q")
        self._rest = view[_REST : _REST + 8].cast("d")
        self._version = view[_VERSION : _VERSION + 4].cast("I")
        self._calling = view[_CALLING : _CALLING + 4].cast("I")
        self.periods = view[_PERIODS : _PERIODS + 8 * GROUPS].cast("d")
        self.costs = view[costs:groups].cast("f")
        self.groups = view[groups : groups + count]
        self.lengths = tuple(
            view[base : base + 4 * count].cast("i") for base in (self.base(copy) for copy in range(self.depth))
        )

    @staticmethod
    def create(plan: dict[str, Any], groups: Sequence[int], periods: Sequence[float]) -> int:
        """A sealed memory file that holds `plan`; returns its descriptor.

        plan: `lane`, `device`, `deadline`, `gate` (whether file 0 is the power state), `paths`, `limits`, and
        where it applies `depth` and `guest` (see `lanes`) and `long`, numbers of the files that are read until
        their end.
        """
        count = len(plan["paths"])
        first, stride, _ = _layout(plan["limits"])
        end = first + _depth(plan) * stride
        text = json.dumps(plan).encode()
        descriptor = os.memfd_create("gpudaemon-lane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, end + len(text))
            # The size can change under neither side: no SIGBUS, whatever the other one does.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            with mmap.mmap(descriptor, end + len(text)) as memory:
                _HEADER.pack_into(memory, 0, count, len(text), end)
                struct.pack_into(f"={GROUPS}d", memory, _PERIODS, *periods)
                memory[_ARRAYS + 4 * count : _ARRAYS + 5 * count] = bytes(groups)
                memory[end:] = text
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @property
    def begun(self) -> int:
        return self._counters[0]

    @begun.setter
    def begun(self, number: int) -> None:
        self._counters[0] = number

    @property
    def finished(self) -> int:
        return self._counters[1]

    @finished.setter
    def finished(self, number: int) -> None:
        self._counters[1] = number

    @property
    def rest_until(self) -> float:
        return self._rest[0]

    @rest_until.setter
    def rest_until(self, moment: float) -> None:
        self._rest[0] = moment

    @property
    def version(self) -> int:
        return self._version[0]

    @property
    def calling(self) -> bool:
        """Whether a call is under way: it stays so where the process ends in it."""
        return bool(self._calling[0])

    @calling.setter
    def calling(self, calling: bool) -> None:
        self._calling[0] = calling

    def move(self, index: int, group: int) -> None:
        """Put one file into `group`; the reader follows at its next tick."""
        self.groups[index] = group
        self._version[0] = (self._version[0] + 1) & 0xFFFFFFFF

    def set_periods(self, periods: Sequence[float]) -> None:
        """Change the period of every group at once."""
        for group, period in enumerate(periods):
            self.periods[group] = period
        self._version[0] = (self._version[0] + 1) & 0xFFFFFFFF

    def base(self, chain: int) -> int:
        """Where in `map` the copy begins that chain number `chain` writes: its lengths, then its slots."""
        return self._first + chain % self.depth * self.stride

    def slots(self, copy: int) -> list[memoryview]:
        """A writable view of each file's buffer in one copy."""
        base = self.base(copy)
        return [
            self._view[base + offset : base + offset + limit]
            for offset, limit in zip(self.offsets, self._limits, strict=True)
        ]

    def intact(self, chain: int) -> bool:
        """Whether what chain number `chain` wrote is still there; to be asked after copying it."""
        return self.begun - chain < self.depth

    def content(self, chain: int, index: int, length: int) -> bytes:
        """A copy of the first `length` bytes of a file's slot, as chain number `chain` left it."""
        start = self.base(chain) + self.offsets[index]
        return self.map[start : start + length]


def _layout(limits: Sequence[int]) -> tuple[int, int, list[int]]:
    """(where the first copy begins, bytes from one copy to the next, slots from the beginning of a copy)."""
    count = len(limits)
    offset = _align(4 * count, 8)
    offsets = []
    for limit in limits:
        offsets.append(offset)
        offset = _align(offset + limit, 8)
    return _align(_ARRAYS + 5 * count, 64), _align(offset, 64), offsets
