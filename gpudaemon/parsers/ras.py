"""amdgpu's RAS files: error counts of one hardware block, and the list of bad memory pages.

drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c: amdgpu_ras_sysfs_read, amdgpu_ras_sysfs_badpages_read.
"""

import re

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["PAGE_STATES", "bad_pages", "error_counts"]

_INACCESSIBLE = b"Query currently inaccessible"
_PAGE = re.compile(rb"0x[0-9a-f]{8,16} : 0x[0-9a-f]{8,16} : ([RPF])", re.IGNORECASE)

PAGE_STATES = ("reserved", "pending", "failed")
"""What the flags R, P and F of a bad page stand for."""


def error_counts(content: bytes) -> tuple[float | None, float | None, float | None]:
    """`ue: 0\\nce: 0\\n[de: 0\\n]` -> (corrected, uncorrected, deferred); raises Malformed.

    All None where the driver answers with its sentence `Query currently inaccessible`; deferred is None on
    blocks that do not know it.
    """
    counts: dict[bytes, float] = {}
    for line in content.splitlines():
        if line.startswith(_INACCESSIBLE):
            return None, None, None
        key, separator, count = line.partition(b": ")
        if not separator or key not in (b"ue", b"ce", b"de") or key in counts:
            raise Malformed("format")
        value = integer(count)
        if value < 0:
            raise Malformed("out_of_range")
        counts[key] = float(value)
    if b"ue" not in counts or b"ce" not in counts:
        raise Malformed("format" if counts else "empty")
    return counts[b"ce"], counts[b"ue"], counts.get(b"de")


def bad_pages(content: bytes) -> tuple[float, float, float]:
    """Lines `0x00000001 : 0x00001000 : R` -> how many per state of `PAGE_STATES`; raises Malformed.

    An empty file is a card without bad pages: three zeros.
    """
    counts = {b"R": 0, b"P": 0, b"F": 0}
    for line in content.splitlines():
        found = _PAGE.fullmatch(line.strip())
        if found is None:
            raise Malformed("format")
        counts[found.group(1).upper()] += 1
    return float(counts[b"R"]), float(counts[b"P"]), float(counts[b"F"])
