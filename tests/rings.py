"""Rings of io_uring made by hand, so that what is in them is known exactly. See io_uring_setup(2)."""

import ctypes
import errno
import mmap
import os
import struct

__all__ = ["Ring"]

_SETUP, _ENTER = 425, 426
_SQ_RING, _SQES = 0, 0x10000000
_SQE = 64
_SETUP_SQPOLL = 1 << 1
NOP = 0


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Ring:
    """A ring of `entries` submissions and twice as many completions, nothing of which is ever reaped."""

    def __init__(self, entries: int, *, poll: bool = False, idle: int = 50) -> None:
        parameters = ctypes.create_string_buffer(120)
        struct.pack_into("=5I", parameters, 0, 0, 0, _SETUP_SQPOLL if poll else 0, 0, idle)
        self.descriptor = _call(_SETUP, entries, parameters)
        values = struct.unpack_from("=30I", parameters)
        self.entries, self.completion_entries = values[0], values[1]
        self._head, self._tail, _, _, _, _, self._array = values[10:17]
        size = self._array + 4 * self.entries
        self._ring = mmap.mmap(self.descriptor, size, offset=_SQ_RING)
        self._sqes = mmap.mmap(self.descriptor, _SQE * self.entries, offset=_SQES)
        self._pushed = 0

    def put(self, count: int) -> None:
        """Put `count` operations that do nothing into the submission queue, and tell nobody."""
        for _ in range(count):
            slot = self._pushed % self.entries
            self._sqes[slot * _SQE : (slot + 1) * _SQE] = struct.pack("=B7x24xQ24x", NOP, self._pushed)
            struct.pack_into("=I", self._ring, self._array + 4 * slot, slot)
            self._pushed += 1
            struct.pack_into("=I", self._ring, self._tail, self._pushed)

    def submit(self, count: int) -> int:
        """Have the kernel take `count` of them; returns how many it took."""
        try:
            return _call(_ENTER, self.descriptor, count, 0, 0, None, 0)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return 0
            raise

    def nops(self, count: int) -> int:
        """Put and submit so many, as many at a time as fit; returns how many were taken."""
        taken = 0
        while taken < count:
            part = min(self.entries, count - taken)
            self.put(part)
            taken += self.submit(part)
        return taken

    def close(self) -> None:
        """End the ring."""
        self._ring.close()
        self._sqes.close()
        os.close(self.descriptor)
