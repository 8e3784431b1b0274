r"""KFD's event stream: what amdgpu's compute driver tells of migrations, faults, evictions and resets.

drivers/gpu/drm/amd/amdkfd/kfd_smi_events.c, include/uapi/linux/kfd_ioctl.h (AMDKFD_IOC_SMI_EVENTS). A line an
event, `<id hex> <fields>`. What differs between kernels is told by the line itself:

    3 1a                                        6.1: a reset has a number only, later a cause too
    6 <ns> -<pid> @<start>(<size>) 0->1002 1    until 6.12: the end of a migration has no error
    a <ns> -<pid> 1002                          restored; later with `0`, for some releases with a NUL
    a <ns> -<pid> 1002 R                        not restored yet, to be tried again

Ids, addresses, sizes and GPU ids are hexadecimal; times are CLOCK_BOOTTIME in nanoseconds; addresses and sizes
are pages of 4 KiB. A GPU id of 0 is system memory. The process id is that of the process's own namespace on
newer kernels. Each reader has a buffer of 8 KiB in the kernel; what finds it full is dropped without a word.
"""

import re
from dataclasses import dataclass
from typing import Any

from gpudaemon.errors import Malformed

__all__ = [
    "EVICTION_TRIGGERS",
    "KINDS",
    "MIGRATION_TRIGGERS",
    "UNMAP_TRIGGERS",
    "SmiEvent",
    "SmiLines",
    "smi_event",
]

KINDS = {
    1: "vm_fault",
    2: "thermal_throttle",
    3: "pre_reset",
    4: "post_reset",
    5: "migrate_start",
    6: "migrate_end",
    7: "page_fault_start",
    8: "page_fault_end",
    9: "queue_eviction",
    10: "queue_restore",
    11: "unmap",
    12: "process_start",
    13: "process_end",
}
"""enum kfd_smi_event."""
MIGRATION_TRIGGERS = ("prefetch", "gpu_fault", "cpu_fault", "eviction")
"""enum KFD_MIGRATE_TRIGGERS."""
EVICTION_TRIGGERS = ("svm", "userptr", "ttm", "suspend", "criu_checkpoint", "criu_restore")
"""enum KFD_QUEUE_EVICTION_TRIGGERS."""
UNMAP_TRIGGERS = ("mmu_notify", "mmu_notify_migrate", "cpu_unmap")
"""enum KFD_SVM_UNMAP_TRIGGERS."""

_MOST_TAIL = 8192
"""The kernel's whole buffer: without an end of line it is nothing we know."""
_WHEN = rb"(?P<at>\d{1,19}) -(?P<pid>\d{1,10})"


def _hex(name: str) -> bytes:
    return b"(?P<%s>[0-9a-f]{1,16})" % name.encode()


def _decimal(name: str) -> bytes:
    return rb"(?P<%s>-?\d{1,10})" % name.encode()


_RANGE = rb" @" + _hex("start") + rb"\(" + _hex("pages") + rb"\)"
_WAY = rb" " + _hex("source") + rb"->" + _hex("target")
_FAULT = _WHEN + rb" @" + _hex("start") + rb"\(" + _hex("gpu") + rb"\) (?P<flag>[A-Z])"
_RESET = _hex("first") + rb"(?: (?P<text>.*))?"
_PROCESS = _hex("hex_pid") + rb" (?P<text>.*)"
_FORMATS = {
    number: re.compile(pattern, re.DOTALL)
    for number, pattern in {
        1: _hex("hex_pid") + rb":(?P<text>.*)",
        2: _hex("first") + rb":" + _hex("second"),
        3: _RESET,
        4: _RESET,
        5: _WHEN + _RANGE + _WAY + rb" [0-9a-f]{1,8}:[0-9a-f]{1,8} " + _decimal("trigger"),
        6: _WHEN + _RANGE + _WAY + rb" " + _decimal("trigger") + rb"(?: " + _decimal("error") + rb")?",
        7: _FAULT,
        8: _FAULT,
        9: _WHEN + rb" " + _hex("gpu") + rb" " + _decimal("trigger"),
        10: _WHEN + rb" " + _hex("gpu") + rb"(?: (?P<flag>[0R\x00]))?",
        11: _WHEN + _RANGE + rb" " + _hex("gpu") + rb" " + _decimal("trigger"),
        12: _PROCESS,
        13: _PROCESS,
    }.items()
}
_ID = re.compile(rb"([0-9a-f]{1,4}) ")
_HEXADECIMAL = frozenset({"start", "pages", "gpu", "source", "target", "first", "second", "hex_pid"})


@dataclass(frozen=True, slots=True)
class SmiEvent:
    """One event. kind: a value of `KINDS`, or the id's number where it is none of them.

    at: nanoseconds, 0 where the event has no time. pid: 0 where it names none. gpu: GPU id of the node it is
    about, 0 where it is about none. start, pages: the range. source, target: GPU ids, of migrations. trigger:
    number, -1 where there is none. error: of a migration's end, None where the kernel does not say. flag: the
    letter of a fault (W, R; M, U) or of a restored queue (R, empty). text: cause of a reset, name of a process.
    numbers: of what has others: bits and count of throttling, number of a reset.
    """

    kind: str
    at: int = 0
    pid: int = 0
    gpu: int = 0
    start: int = 0
    pages: int = 0
    source: int = 0
    target: int = 0
    trigger: int = -1
    error: int | None = None
    flag: str = ""
    text: str = ""
    numbers: tuple[int, ...] = ()


def smi_event(line: bytes) -> SmiEvent:
    """A line without its end; raises Malformed. What follows an unknown id is not looked at."""
    head = _ID.match(line)
    if head is None:
        raise Malformed("format" if line else "empty")
    number, rest = int(head[1], 16), line[head.end() :]
    kind = KINDS.get(number)
    if kind is None:
        return SmiEvent(str(number))
    found = _FORMATS[number].fullmatch(rest)
    if found is None:
        raise Malformed("format")
    fields = {name: _value(name, raw) for name, raw in found.groupdict().items() if raw is not None}
    numbers = tuple(fields.pop(name) for name in ("first", "second") if name in fields)
    if "hex_pid" in fields:
        fields["pid"] = fields.pop("hex_pid")
    if "source" in fields:
        fields["gpu"] = fields["target"] or fields["source"]
    return SmiEvent(kind, numbers=numbers, **fields)


def _value(name: str, raw: bytes) -> Any:
    if name == "flag":
        return raw.decode("ascii").strip("0\0")
    if name == "text":
        return raw.decode("utf-8", "replace").strip()
    return int(raw, 16 if name in _HEXADECIMAL else 10)


class SmiLines:
    """The stream as reads bring it: a read may end within a line. malformed: lines that could not be used."""

    def __init__(self) -> None:
        self._tail = b""
        self.malformed = 0

    def feed(self, chunk: bytes) -> list[SmiEvent]:
        """Events that are complete now, in order."""
        *lines, tail = (self._tail + chunk).split(b"\n")
        if len(tail) > _MOST_TAIL:
            self.malformed += 1
            tail = b""
        self._tail = tail
        found = []
        for line in lines:
            try:
                found.append(smi_event(line))
            except Malformed:
                self.malformed += 1
        return found
