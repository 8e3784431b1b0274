"""Counters of a device by perf_event_open(2): opened once, read as often as wanted.

A question is `NAME type=N cpu=N config=C,C1,C2`: a counter of the whole device (no process) on the processor
its PMU names. With ` pinned` at the end it counts all the time or not at all: where a PMU has too few counters,
others would take turns and count too little; a pinned one that found no place answers EBUSY.

It needs CAP_PERFMON where kernel.perf_event_paranoid is above 0. An answer is what read(2) gives: the count
since the counter was opened, 64 bits. A device that sleeps or rests has no counter open: those of some drivers
keep it awake.
"""

import ctypes
import errno
import os
import platform
import re
import struct

__all__ = ["Counter", "Pmu", "caller"]

_CALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "ppc64le": 319, "s390x": 331}
"""Number of perf_event_open by machine (arch/*/kernel/syscalls/, include/uapi/asm-generic/unistd.h)."""
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQ")
"""struct perf_event_attr up to config2: type, size, config, sample_period, sample_type, read_format, flags,
wakeup_events, bp_type, config1, config2 (PERF_ATTR_SIZE_VER1)."""
_FLAG_FD_CLOEXEC = 8
_PINNED = 1 << 2
"""Bit of `pinned` among the flags."""
_QUESTION = re.compile(
    r"\S+ type=(\d{1,10}) cpu=(\d{1,6}) config=(0x[0-9a-f]{1,16}),(0x[0-9a-f]{1,16}),(0x[0-9a-f]{1,16})"
    r"( pinned)?",
    re.ASCII,
)


class Counter:
    """An open counter. Raises OSError; EACCES where a capability is missing."""

    def __init__(
        self, kind: int, processor: int, config: tuple[int, int, int], *, pinned: bool = False
    ) -> None:
        number = _CALL.get(platform.machine())
        if number is None:
            raise OSError(errno.ENOSYS, f"perf_event_open on {platform.machine()}")
        size = _ATTRIBUTES.size
        flags = _PINNED if pinned else 0
        attributes = _ATTRIBUTES.pack(kind, size, config[0], 0, 0, 0, flags, 0, 0, config[1], config[2])
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        self._descriptor = libc.syscall(
            ctypes.c_long(number),
            ctypes.c_char_p(attributes),
            ctypes.c_int(-1),
            ctypes.c_int(processor),
            ctypes.c_int(-1),
            ctypes.c_ulong(_FLAG_FD_CLOEXEC),
        )
        if self._descriptor < 0:
            found = ctypes.get_errno()
            raise OSError(errno.EACCES if found == errno.EPERM else found, "perf_event_open")

    def ask(self) -> bytes:
        answer = os.read(self._descriptor, 8)
        if not answer:  # a pinned counter in error state (perf_event_open(2))
            raise OSError(errno.EBUSY, "the PMU has no counter free")
        return answer

    def close(self) -> None:
        os.close(self._descriptor)


class Pmu:
    """See the module."""

    about = "perf_event_open"
    let_go = True

    def open(self, device: str, question: str) -> Counter:
        """Open a counter; `device` is in the PMU's number already. Raises OSError."""
        found = _QUESTION.fullmatch(question)
        if found is None:
            raise OSError(errno.ENOENT, f"pmu: no question {question}")
        config = (int(found.group(3), 16), int(found.group(4), 16), int(found.group(5), 16))
        return Counter(int(found.group(1)), int(found.group(2)), config, pinned=bool(found.group(6)))


def caller() -> Pmu:
    """The caller of this kind."""
    return Pmu()
