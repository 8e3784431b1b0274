"""amdgpu's xGMI files: for each member of the hive, in the hive's order, a number of two hexadecimal digits.

`xgmi_num_hops` and `xgmi_num_links` read `00 01 01 ` with a blank after each, the GPU itself as 00.

drivers/gpu/drm/amd/amdgpu/amdgpu_xgmi.c: amdgpu_xgmi_show_num_hops, amdgpu_xgmi_show_num_links.
"""

import re

from gpudaemon.errors import Malformed

__all__ = ["members"]

_LIST = re.compile(rb"(?:[0-9a-f]{2} ?)*\n?", re.IGNORECASE)
_MOST = 64


def members(content: bytes) -> list[int]:
    """The number for each member; raises Malformed."""
    if _LIST.fullmatch(content) is None:
        raise Malformed("format")
    found = [int(number, 16) for number in content.split()]
    if not found:
        raise Malformed("empty")
    if len(found) > _MOST:
        raise Malformed("oversized")
    return found
