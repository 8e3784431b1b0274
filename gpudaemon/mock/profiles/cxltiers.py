"""A server with CXL memory in a slow tier and two MI300X (Linux 7.3 for CXL and tiers).

Two memory devices of 256 GiB behind one CXL host bridge, interleaved two ways into a volatile region that kmem
made NUMA node 2; demotion is on. Sources: gpudaemon.mock.cxl, gpudaemon.mock.tiers, GPUs as in mi300x8.
"""

from gpudaemon.mock.cxl import add_memory
from gpudaemon.mock.machine import RELEASE_7_3
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.profiles.mi300x8 import amdgpu_host
from gpudaemon.mock.tiers import add_tiers
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_GPUS = 2  # on two nodes


def _host(gpus: int) -> Tree:
    if gpus != _GPUS:
        raise ValueError(f"gpus is {gpus}, this profile has exactly {_GPUS}")
    tree = amdgpu_host(gpus)
    del tree.entries["proc/version"]
    tree.file("proc/version", RELEASE_7_3)
    add_memory(tree, targets=2, size=2**38, node=2, cpus=192)
    add_tiers(tree, nodes=2, size=2**39)
    return tree


PROFILE = Profile("cxltiers", "2 MI300X and 512 GiB of CXL memory in a slow tier", _host, _GPUS, "7.3")
