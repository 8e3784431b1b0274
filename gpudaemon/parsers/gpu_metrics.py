"""amdgpu's `gpu_metrics`: a binary table of the firmware, told apart by the two revisions in its header.

Read here: `indep_throttle_status`, which tables 1.3 and 2.2 to 2.4 have and whose bits mean the same on every
chip (`throttle_status` before it does not). A field of all ones was not filled by the firmware. Other revisions
give nothing: MI300 counts residencies in 1.6 and later instead, and sends a stream of attributes as 1.9.

drivers/gpu/drm/amd/include/kgd_pp_interface.h (structures), drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h
(SMU_THROTTLER_*_BIT), drivers/gpu/drm/amd/pm/swsmu/smu_cmn.c (header, filling with all ones).
"""

import struct

from gpudaemon.errors import Malformed

__all__ = ["THROTTLE_REASONS", "has_throttle_status", "throttle_reasons"]

THROTTLE_REASONS = ("power", "current", "thermal", "other")
"""Bits 0 to 15 (PPT, SPL), 16 to 31 (TDC, EDC), 32 to 55 (temperatures, PROCHOT), 56 and more (PPM, FIT)."""

_MASKS = (0xFFFF, 0xFFFF << 16, 0xFFFFFF << 32, 0xFF << 56)
_HEADER = struct.Struct("<HBB")
_STATUS = struct.Struct("<Q")
_TABLES = {(1, 3): (120, 112), (2, 2): (128, 120), (2, 3): (152, 120), (2, 4): (168, 120)}
"""(format, content revision) -> (size of the structure, offset of indep_throttle_status)"""
_UNKNOWN: tuple[float | None, ...] = (None,) * len(THROTTLE_REASONS)
_NONE: tuple[float | None, ...] = (0.0,) * len(THROTTLE_REASONS)


def has_throttle_status(content: bytes) -> bool:
    """True for a table of a revision that has `indep_throttle_status`."""
    return len(content) >= _HEADER.size and _HEADER.unpack_from(content)[1:] in _TABLES


def throttle_reasons(content: bytes) -> tuple[float | None, ...]:
    """1.0 for each of THROTTLE_REASONS that holds clocks down, 0.0 for the others; None: not known.

    Raises Malformed on a table shorter than its header says, or of another size than its revision has.
    """
    if len(content) < _HEADER.size:
        raise Malformed("empty" if not content else "format")
    size, layout, revision = _HEADER.unpack_from(content)
    known = _TABLES.get((layout, revision))
    if known is None:
        return _UNKNOWN
    if size != known[0] or len(content) < size:
        raise Malformed("format")
    status: int = _STATUS.unpack_from(content, known[1])[0]
    if not status:
        return _NONE
    if status == 0xFFFFFFFFFFFFFFFF:
        return _UNKNOWN
    return tuple(float(status & mask != 0) for mask in _MASKS)
