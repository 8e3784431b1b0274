"""KFD, amdgpu's compute driver: properties of its nodes, and the queues of a process.

drivers/gpu/drm/amd/amdkfd/kfd_topology.c (node_show), kfd_process.c (kfd_procfs_show, kfd_procfs_queue_show).
Work that ROCm sends by user queues is in no drm-engine key of fdinfo; what there is of it stands in
/sys/class/kfd/kfd/proc/PID.
"""

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["QUEUE_TYPES", "properties", "queue_type"]

_MOST = 256
QUEUE_TYPES = {0: "compute", 1: "sdma"}
"""Numbers beyond these mean other things on other kernels (kfd_priv.h): they are `other`."""


def properties(content: bytes) -> dict[str, int]:
    """`key value` lines; raises Malformed."""
    found: dict[str, int] = {}
    for line in content.split(b"\n"):
        key, blank, value = line.partition(b" ")
        if not blank:
            continue
        if not key.isascii() or len(key) > 64 or len(found) >= _MOST:
            raise Malformed("format")
        found[key.decode("ascii")] = integer(value.strip())
    return found


def queue_type(content: bytes) -> str:
    """The name of a queue's type; the file has no newline. Raises Malformed."""
    return QUEUE_TYPES.get(integer(content.strip()), "other")
