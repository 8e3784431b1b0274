"""The memory of the host as a device: files of its NUMA nodes, and of procfs, listed without opening one.

drivers/base/node.c. On a kernel without CONFIG_NUMA there are no nodes in sysfs, and no such device.
"""

import os
import re
from dataclasses import replace

from gpudaemon.model.device import PROC, Device, DeviceKind

__all__ = ["memory_device", "with_procfs"]

_NODE = re.compile(r"node\d{1,5}", re.ASCII)
_MOST_NODES = 1024
_FILES = ("vmstat", "zoneinfo", "pressure/memory")
"""Files of procfs that are read: none of them has a side effect (`/proc/sys/vm/stat_refresh` has)."""


def memory_device(sysfs: str) -> Device | None:
    """The device with names `node/node<N>/vmstat`; None where no node has that file."""
    path = "devices/system"
    base = os.path.join(sysfs, path, "node")
    try:
        nodes = sorted(name for name in os.listdir(base) if _NODE.fullmatch(name))[:_MOST_NODES]
    except OSError:
        return None
    names = [f"node/{node}/vmstat" for node in nodes if os.path.lexists(f"{base}/{node}/vmstat")]
    if not names:
        return None
    return Device(id="memory", kind=DeviceKind.MEMORY, path=path, subsystem="node", names=frozenset(names))


def with_procfs(procfs: str, device: Device) -> Device:
    """The device with those of `procfs` that are there."""
    names = {f"{PROC}{name}" for name in _FILES if os.path.exists(f"{procfs}/{name}")}
    return replace(device, names=device.names | names)
