"""KFD's topology as a device: its files, listed without opening one.

`/sys/class/kfd/kfd` is one device for all GPUs of the host. Of its files those below `topology/` that say
something are taken, most telling first where there are too many; caches are left out: a GPU has hundreds.

drivers/gpu/drm/amd/amdkfd/kfd_chardev.c (class `kfd`), kfd_topology.c.
"""

import os
import re

from gpudaemon.model.device import Device, DeviceKind

__all__ = ["topology_device"]

_MOST_FILES = 8192
_NUMBER = re.compile(r"\d{1,5}", re.ASCII)
_PARTS = ("mem_banks", "io_links", "p2p_links")


def topology_device(sysfs: str) -> Device | None:
    """The device whose `topology/` is KFD's; None where the driver is not there."""
    try:
        path = os.path.normpath(os.path.join("class/kfd", os.readlink(os.path.join(sysfs, "class/kfd/kfd"))))
    except OSError:
        return None
    if not path.startswith("devices/"):
        return None
    nodes = os.path.join(sysfs, path, "topology/nodes")
    numbers = _numbers(nodes)
    names = ["topology/generation_id", "topology/system_properties"]
    names += [f"topology/nodes/{number}/{file}" for number in numbers for file in ("gpu_id", "properties")]
    for part in _PARTS:
        for number in numbers:
            base = f"topology/nodes/{number}/{part}"
            names += [f"{base}/{one}/properties" for one in _numbers(os.path.join(nodes, number, part))]
    there = [name for name in names[:2] if os.path.lexists(os.path.join(sysfs, path, name))]
    return Device(
        id="kfd",
        kind=DeviceKind.KFD,
        path=path,
        subsystem="kfd",
        names=frozenset(there + names[2:_MOST_FILES]),
    )


def _numbers(directory: str) -> list[str]:
    """Numbered entries of a directory, in the order of their numbers."""
    try:
        found = os.listdir(directory)
    except OSError:
        return []
    return sorted((name for name in found if _NUMBER.fullmatch(name)), key=int)
