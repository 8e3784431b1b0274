"""The dmem cgroup controller: device memory by cgroup and region.

Documentation/admin-guide/cgroup-v2.rst (DMEM), kernel/cgroup/dmem.c: lines `drm/0000:03:00.0/vram0 12550144`, a
limit may be `max`.
"""

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["dmem"]

_MOST = 256


def dmem(content: bytes) -> tuple[tuple[str, str, int | None], ...]:
    """(device, region, bytes) of each line, None for `max`; raises Malformed.

    device: the middle of the region's name, such as a PCI address; empty where the name has another form.
    """
    found: list[tuple[str, str, int | None]] = []
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        name, blank, value = line.rpartition(b" ")
        if not blank or not name or len(name) > 128 or len(found) >= _MOST:
            raise Malformed("format")
        parts = name.decode("utf-8", "replace").split("/")
        known = len(parts) == 3 and parts[0] == "drm"
        size = None if value == b"max" else integer(value)
        if size is not None and size < 0:
            raise Malformed("out_of_range")
        found.append((parts[1], parts[2], size) if known else ("", "/".join(parts), size))
    return tuple(found)
