"""A record of /dev/kmsg: `6,339,5140900,-;text\\n KEY=value\\n`, and what GPU drivers say in it of trouble.

Documentation/ABI/testing/dev-kmsg, kernel/printk/printk.c. The first number is facility * 8 + level. A process
that writes to /dev/kmsg can choose any facility but 0 (LOG_KERN), which is the kernel's alone: only there is a
text believed, and only from its beginning, because later in a line drivers print names that processes gave
themselves. Bytes that are not printable, and the backslash, come as `\\xNN`.

Texts: NVIDIA's `krcReportXid_IMPL` (open-gpu-kernel-modules, src/nvidia/src/kernel/gpu/rc/kernel_rc.c) and
older forms of it, `NVSWITCH_PRINT_SXID` (src/common/nvswitch), drivers/gpu/drm/amd/amdgpu:
amdgpu_job_timedout(), amdgpu_device_gpu_recover(), amdgpu_vm_print_task_info().
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpudaemon.errors import Malformed
from gpudaemon.model.trouble import Severity

__all__ = ["LONGEST", "PROCESS", "Record", "Said", "kmsg", "said"]

LONGEST = 16384
"""Bytes of a record, more than the kernel makes (CONSOLE_EXT_LOG_MAX, PRINTK_MESSAGE_MAX): 8192."""
PROCESS = "process"
"""`Said.kind` of a line that only names the process of the trouble said before it."""
_TEXT = 200
_TASK = 64
_HEAD = re.compile(rb"(\d{1,10}),(\d{1,20}),(\d{1,20}),[^;]*;([^\n]*)(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Record:
    """facility: 0 for the kernel's own. sequence: counts records since boot. text: one line, escaped still."""

    facility: int
    level: int
    sequence: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """kind: of `model.trouble.KINDS`, or `PROCESS`. address: PCI, `0000:03:00` or with its function; empty
    where the line names none. driver: whose line it is. code: number of an Xid or SXid. instance: of MIG.
    pid: 0 for none, in the numbers of the initial namespace."""

    kind: str
    driver: str
    severity: Severity = Severity.UNCORRECTED
    address: str = ""
    code: int = 0
    text: str = ""
    pid: int = 0
    task: str = ""
    instance: str = ""

    def packed(self) -> list[Any]:
        """As it travels between processes, in JSON."""
        said = (self.kind, self.driver, self.severity.value, self.address, self.code, self.text)
        return [*said, self.pid, self.task, self.instance]

    @classmethod
    def unpacked(cls, values: Sequence[Any]) -> "Said":
        """What `packed` made."""
        kind, driver, severity, address, code, text, pid, task, instance = values
        return cls(
            kind=kind,
            driver=driver,
            severity=Severity(severity),
            address=address,
            code=code,
            text=text,
            pid=pid,
            task=task,
            instance=instance,
        )


def kmsg(content: bytes) -> Record:
    """A record as one read of /dev/kmsg gives it; raises Malformed."""
    if not content:
        raise Malformed("empty")
    if len(content) > LONGEST:
        raise Malformed("oversized")
    found = _HEAD.match(content)
    if found is None:
        raise Malformed("format")
    prefix, sequence = int(found.group(1)), int(found.group(2))
    return Record(prefix >> 3, prefix & 7, sequence, found.group(4).decode("utf-8", "replace"))


def said(text: str) -> Said | None:
    """What a line of the kernel's own says of trouble with a GPU; None for nearly all lines."""
    for start, parse in _PARSERS:
        if text.startswith(start):
            return parse(text)
    return None


_PCI = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?"

# NVIDIA: "NVRM: Xid (PCI:0000:41:00 GPU-I:05 GPU-CI:00): 13, pid=7, name=python, Graphics Exception: ...".
# Older forms are without instances, without a process or its name, without "PCI:", without a domain.

_XID = re.compile(
    rf"NVRM: Xid \((?:PCI:)?(?P<address>{_PCI}|[0-9a-f]{{2,4}}:[0-9a-f]{{2}})"
    r"(?: GPU-I:(?P<gpu>\d{1,5}))?(?: GPU-CI:(?P<compute>\d{1,5}))?\): (?P<code>\d{1,5})(?:, ?(?P<rest>.*)|)",
    re.IGNORECASE | re.ASCII,
)
_UNKNOWN = "(?:'<unknown>'|<unknown>|unknown)"
_OWNER = re.compile(
    rf"pid=(?:'?(?P<pid>\d{{1,10}})'?|{_UNKNOWN})(?:, name=(?P<name>.*?))?(?:, (?P<rest>.*)|$)", re.ASCII
)
_ACTION = re.compile(
    r"GPU recovery action changed from 0x[0-9a-f]+ \([^)]*\) to 0x(?P<now>[0-9a-f]{1,8}) ", re.ASCII
)
_NVLINK = range(144, 151)
_RECOVERY_ACTION = 154

# By the immediate action of NVIDIA's catalogue (docs.nvidia.com/deploy/xid-errors, "Resolution Bucket").
_CORRECTED = frozenset({14, 63, 92, 93, 106, 107, 160, 162})
"""IGNORE, and nothing was lost: rows remapped, single-bit errors, tests."""
_RECOVERED = frozenset(
    {
        *(8, 11, 13, 25, 31, 32, 37, 38, 39, 40, 41, 43, 44, 45, 60, 66, 67, 68, 69, 70, 71, 72, 75, 76, 77),
        *(80, 82, 83, 84, 85, 86, 88, 89, 94, 96, 97, 98, 99, *range(100, 106), 108, 121, *range(126, 136)),
        *(137, 139, 141, 152, 153),
    }
)
"""RESTART_APP, or IGNORE where work was lost: a program ended, the GPU goes on."""
_FATAL = frozenset({46, 54, 62, 64, 79, 95, 109, 110, 119, 120, 136, 140, 143, 151, 155, 156, 158})
"""RESET_GPU, RESTART_BM, RESTART_VM, CHECK_MECHANICALS: the GPU needs somebody."""


def _xid(text: str) -> Said | None:
    found = _XID.fullmatch(text)
    if found is None:
        return None
    code, rest = int(found["code"]), found["rest"] or ""
    address = found["address"].lower()
    if address.count(":") == 1:
        bus, slot = address.split(":")
        if len(bus.lstrip("0")) > 2:
            return None
        address = f"0000:{bus[-2:]}:{slot}"
    pid, task = 0, ""
    owner = _OWNER.fullmatch(rest)
    if owner is not None:
        pid = int(owner["pid"] or 0)
        task = owner["name"] or ""
        task = "" if re.fullmatch(_UNKNOWN, task) else task[:_TASK]
        rest = owner["rest"] or ""
    instance = "/".join(one for one in (found["gpu"], found["compute"]) if one)
    return Said(
        kind="xid",
        driver="nvidia",
        severity=_severity(code, rest),
        address=address,
        code=code,
        text=rest[:_TEXT],
        pid=pid,
        task=task,
        instance=instance,
    )


def _severity(code: int, rest: str) -> Severity:
    if code in _NVLINK:
        return Severity.FATAL if " Fatal " in rest else Severity.UNCORRECTED
    if code == _RECOVERY_ACTION:
        # NVML_GPU_RECOVERY_ACTION_NONE is 0: what was wrong is over.
        action = _ACTION.match(rest)
        ended = action is not None and int(action["now"], 16) == 0
        return Severity.RECOVERED if ended else Severity.FATAL
    if code in _CORRECTED:
        return Severity.CORRECTED
    if code in _RECOVERED:
        return Severity.RECOVERED
    return Severity.FATAL if code in _FATAL else Severity.UNCORRECTED


# An SXid is a line with Fatal or Non-fatal; lines of the same number with `Severity` and `Data {` go with it.

_SXID = re.compile(
    rf"nvidia-nvswitch\d{{1,5}}: SXid \((?:PCI:)?(?P<address>{_PCI})\): (?P<code>\d{{1,6}}), "
    r"(?P<how>Fatal|Non-fatal), ?(?P<rest>.*)",
    re.IGNORECASE | re.ASCII,
)


def _sxid(text: str) -> Said | None:
    found = _SXID.fullmatch(text)
    if found is None:
        return None
    return Said(
        kind="sxid",
        driver="nvidia-nvswitch",
        severity=Severity.FATAL if found["how"].lower() == "fatal" else Severity.UNCORRECTED,
        address=found["address"].lower(),
        code=int(found["code"]),
        text=found["rest"][:_TEXT],
    )


# amdgpu: by dev_err(), in older kernels by DRM_ERROR(), which names no device.

_AMDGPU = re.compile(
    rf"(?:amdgpu (?P<address>{_PCI}): (?:amdgpu: )?(?:\[drm\] ?)?|\[drm:[\w.]{{1,64}} \[amdgpu\]\] )"
    r"(?:\*ERROR\* )?(?P<rest>.*)",
    re.ASCII,
)
_RING_TIMEOUT = re.compile(
    r"ring \S{1,32} timeout, (?:but soft recovered|signaled seq=\d+, emitted seq=\d+)", re.ASCII
)
_RING_RESET = re.compile(r"Ring \S{1,32} reset (?:succeeded|success)", re.ASCII)
_RESET = re.compile(r"GPU reset\(\d+\) (?P<how>succeeded!|failed.*)", re.ASCII)
_PROCESS = re.compile(
    r" ?(?:Process information: process|Process) (?P<rest>.* pid \d{1,10} thread .* pid \d{1,10})", re.ASCII
)
_THREAD = re.compile(r"(?= pid (\d{1,10}) thread )", re.ASCII)


def _amdgpu(text: str) -> Said | None:
    line = _AMDGPU.fullmatch(text)
    if line is None:
        return None
    rest, address = line["rest"].rstrip(), line["address"] or ""

    def one(kind: str, severity: Severity) -> Said:
        return Said(kind=kind, driver="amdgpu", severity=severity, address=address, text=rest[:_TEXT])

    if _RING_TIMEOUT.fullmatch(rest):
        return one("hang", Severity.RECOVERED)
    if _RING_RESET.fullmatch(rest):
        return one("reset", Severity.RECOVERED)
    reset = _RESET.fullmatch(rest)
    if reset is not None:
        worked = reset["how"] == "succeeded!"
        return one("reset" if worked else "wedged", Severity.RECOVERED if worked else Severity.FATAL)
    process = _PROCESS.fullmatch(rest)
    return _process(process["rest"], address) if process is not None else None


def _process(rest: str, address: str) -> Said | None:
    """`NAME pid N thread NAME pid N`. A name may hold such words itself: where the line can be read in two
    ways, nobody is blamed."""
    ways = list(_THREAD.finditer(rest))
    if len(ways) != 1:
        return None
    return Said(
        kind=PROCESS,
        driver="amdgpu",
        address=address,
        pid=int(ways[0][1]),
        task=rest[: ways[0].start()][:_TASK],
    )


_PARSERS: tuple[tuple[str, Callable[[str], Said | None]], ...] = (
    ("NVRM: Xid (", _xid),
    ("nvidia-nvswitch", _sxid),
    ("amdgpu ", _amdgpu),
    ("[drm:", _amdgpu),
)
