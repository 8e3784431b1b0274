"""Memory tiers as a device: files of NUMA nodes, of the kernel's tiers and of how pages are spread.

Listed without opening one. A node is a device of the bus `node`, a tier one of `memory_tiering`
(mm/memory-tiers.c, since Linux 6.1); which nodes are CXL memory is known by the DAX devices of CXL regions
whose driver is kmem.

Documentation/ABI/stable/sysfs-devices-node, Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers,
sysfs-kernel-mm-mempolicy-weighted-interleave.
"""

import os
import re

from gpudaemon.discovery.cxl import is_cxl_dax
from gpudaemon.model.device import Device, DeviceKind

__all__ = ["tiers_device"]

_MOST = 1024
_NODE = re.compile(r"node\d{1,5}", re.ASCII)
_TIER = re.compile(r"memory_tier\d{1,6}", re.ASCII)
_DAX = re.compile(r"dax\d+\.\d+", re.ASCII)
_ACCESS = ("read_bandwidth", "read_latency", "write_bandwidth", "write_latency")
_POLICY = "../kernel/mm/mempolicy/weighted_interleave"
_DEMOTION = "../kernel/mm/numa/demotion_enabled"


def tiers_device(sysfs: str) -> Device | None:
    """The device, below `bus`; None where the kernel has no tiers."""
    bus = os.path.join(sysfs, "bus")
    tiers = _list(f"{bus}/memory_tiering/devices", _TIER)
    if not tiers:
        return None
    names = {f"memory_tiering/devices/{tier}/nodelist" for tier in tiers}
    for node in _list(f"{bus}/node/devices", _NODE):
        wanted = ["cpulist", "meminfo"]
        wanted += [f"access{access}/initiators/{file}" for access in (0, 1) for file in _ACCESS]
        names.update(
            f"node/devices/{node}/{file}"
            for file in wanted
            if os.path.exists(f"{bus}/node/devices/{node}/{file}")
        )
    names.update(
        f"dax/devices/{dax}/target_node"
        for dax in _list(f"{bus}/dax/devices", _DAX)
        if is_cxl_dax(f"{bus}/dax/devices", dax) and _driver(f"{bus}/dax/devices/{dax}") == "kmem"
    )
    names.update(f"{_POLICY}/{name}" for name in _list(f"{bus}/{_POLICY}", re.compile(f"{_NODE.pattern}|auto")))
    if os.path.exists(f"{bus}/{_DEMOTION}"):
        names.add(_DEMOTION)
    return Device(
        id="memory_tiers",
        kind=DeviceKind.MEMORY_TIERS,
        path="bus",
        subsystem="memory_tiering",
        names=frozenset(names),
    )


def _driver(path: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{path}/driver"))
    except OSError:
        return ""


def _list(directory: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if pattern.fullmatch(name))[:_MOST]
    except OSError:
        return []
