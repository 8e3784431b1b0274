"""Capabilities: what each process keeps, what it drops, and how it drops it for good.

See capabilities(7) and prctl(2). No library is used: the reader must stay small, and four calls suffice.
"""

import ctypes
import os
from collections.abc import Iterable

from gpudaemon.model.rights import NUMBERS

__all__ = ["effective", "keep_only"]

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
_CAPABILITY_VERSION_3 = 0x20080522


def effective() -> int:
    """This process's effective capabilities as a bit mask, from /proc/self/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def keep_only(names: Iterable[str]) -> None:
    """Drop every capability but `names` from all sets of this process, the bounding set included.

    What is kept is also raised as ambient, so that it survives the exec of a reader. Those this process does
    not hold are silently left out: a tier asks, the service manager grants. Raises OSError where the kernel
    refuses, which it does not for dropping.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    held = effective()
    kept = sum(1 << NUMBERS[name] for name in names) & held
    for number in range(64):
        if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) < 0:
            break
        if not kept >> number & 1 and libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            # Without CAP_SETPCAP the bounding set stays; with no_new_privs nothing can be gained from it.
            break
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    # effective, permitted, inheritable; first the low words, then the high ones
    data = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    if libc.capset(header, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
    for number in range(64):
        if kept >> number & 1:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no_new_privs: {os.strerror(number)}")
