"""amdgpu's RAS files: error counts of one hardware block, events, and the list of bad memory pages.

drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c: amdgpu_ras_sysfs_read, amdgpu_ras_sysfs_badpages_read,
amdgpu_ras_sysfs_event_state_show.
"""

import re

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["PAGE_STATES", "bad_pages", "error_counts", "event_counts"]

_INACCESSIBLE = b"Query currently inaccessible"
_EVENT = re.compile(rb"([A-Za-z][A-Za-z _-]{0,47}): ?count: ?(\d{1,20}), ?last_seqno: ?\d{1,20}")
_MOST_EVENTS = 32
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


def event_counts(content: bytes) -> dict[str, float]:
    """Lines `Poison Creation: count:2, last_seqno:7` -> count by event (`poison_creation`); raises Malformed.

    The first line, `current seqno: 7`, counts all events there were.
    """
    lines = content.splitlines()
    if not lines or not lines[0].startswith(b"current seqno:"):
        raise Malformed("format" if lines else "empty")
    if len(lines) > _MOST_EVENTS:
        raise Malformed("oversized")
    counts: dict[str, float] = {}
    for line in lines[1:]:
        found = _EVENT.fullmatch(line.strip())
        if found is None:
            raise Malformed("format")
        counts[found[1].decode("ascii").strip().lower().replace(" ", "_")] = float(found[2])
    return counts
