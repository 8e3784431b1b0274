"""Rings of io_uring: what /proc/PID/fdinfo/FD says of one, and which threads of a process work for rings.

io_uring/fdinfo.c (io_uring_show_fdinfo), io_uring/sqpoll.c, io_uring/io-wq.c. Values of a ring in use race:
head and tail are read one after the other. A kernel that cannot take the ring's lock at once leaves sections
out (6.12 the lists, 7.3 all there is): what is not there is not known.
"""

import re
from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["RING_LINK", "Ring", "is_poller", "is_worker", "ring"]

RING_LINK = "anon_inode:[io_uring]"
"""Where /proc/PID/fd/FD of a ring points."""

_WRAP = 1 << 32
_KEY = re.compile(rb"(\w+):[ \t]*(\S*)", re.ASCII)
_WORKER = re.compile(rb"iou-wrk-\d{1,10}\n?")
_POLLER = re.compile(rb"iou-sqp-\d{1,10}\n?")
_OVERFLOW = re.compile(rb"[ \t]+user_data=\d+, res=-?\d+, flags=[0-9a-fx]+")


@dataclass(frozen=True, slots=True)
class Ring:
    """One ring; None: the kernel does not say.

    submissions, completions: entries that wait to be taken, by the kernel and by the program.
    submission_entries, completion_entries: sizes. overflow: completions that found no room and wait in a
    list. poller: thread id of its SQPOLL thread, 0 where there is none. poll_seconds, poll_busy_seconds: that
    thread's time altogether, and with work.
    """

    submissions: int
    completions: int
    submission_entries: int
    completion_entries: int
    overflow: int | None
    poller: int | None
    poll_seconds: float | None
    poll_busy_seconds: float | None


def ring(content: bytes, *, complete: bool = True) -> Ring | None:
    """None where the ring's lock was taken and nothing is told. complete: the content ends where the file ends.

    Raises Malformed.
    """
    head, found, tail = content.partition(b"\nCqOverflowList:")
    numbers: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        key = _KEY.match(line)
        if key is not None:
            numbers.setdefault(key.group(1), key.group(2))
    if b"SqMask" not in numbers:
        return None
    overflow = None
    if found and complete:
        lines = tail.split(b"\n")[1:]
        overflow = sum(_OVERFLOW.fullmatch(line) is not None for line in lines)
    poller = _signed(numbers.get(b"SqThread"))
    poll, busy = _signed(numbers.get(b"SqTotalTime")), _signed(numbers.get(b"SqWorkTime"))
    return Ring(
        _distance(numbers, b"Sq"),
        _distance(numbers, b"Cq"),
        _number(numbers, b"SqMask", 16) + 1,
        _number(numbers, b"CqMask", 16) + 1,
        overflow,
        None if poller is None else max(poller, 0),
        None if poll is None else poll / 1e6,
        None if busy is None else busy / 1e6,
    )


def is_worker(name: bytes) -> bool:
    """Whether a thread of this name is an io-wq worker."""
    return _WORKER.fullmatch(name) is not None


def is_poller(name: bytes) -> bool:
    """Whether a thread of this name polls a submission queue."""
    return _POLLER.fullmatch(name) is not None


def _distance(numbers: dict[bytes, bytes], which: bytes) -> int:
    """From head to tail; both count up and wrap at 32 bits. More than the ring holds is a race."""
    waiting = (_number(numbers, which + b"Tail", 10) - _number(numbers, which + b"Head", 10)) % _WRAP
    size = _number(numbers, which + b"Mask", 16) + 1
    # The head was read first and moved on before the tail was: the difference then lies a little below zero.
    return waiting if waiting <= size else size if waiting < _WRAP // 2 else 0


def _number(numbers: dict[bytes, bytes], key: bytes, base: int) -> int:
    digits = numbers.get(key)
    if digits is None:
        raise Malformed("format")
    if len(digits) > 20:
        raise Malformed("out_of_range")
    try:
        value = int(digits, base)
    except ValueError:
        raise Malformed("not_a_number") from None
    if not 0 <= value < _WRAP:
        raise Malformed("out_of_range")
    return value


def _signed(digits: bytes | None) -> int | None:
    if digits is None or not digits.removeprefix(b"-").isdigit() or len(digits) > 20:
        return None
    return int(digits)
