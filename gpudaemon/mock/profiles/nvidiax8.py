"""Eight NVIDIA H100 with NVIDIA's own driver and without its library NVML (Linux 6.12, driver 570).

What is left without NVML: PCI identity, links and AER counters, NUMA nodes, runtime power, the files below
/proc/driver/nvidia. No DRM node (modeset=0), no hwmon. One process holds /dev/nvidia0. Sources:
gpudaemon.mock.nvidia, gpudaemon.mock.chassis.
"""

import uuid

from gpudaemon.mock.chassis import CPUS_PER_NODE, add_slot, no_bars, nodes_for
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.nvidia import add_driver, add_gpu
from gpudaemon.mock.pci import Bar, Function, add_function
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_H100 = Chip(
    idle=70, cap=700, peak=800, low=345, high=1980, memory_low=2619, memory_high=2619, memory=85_520_809_984,
    hot=78, limit=87,
)  # fmt: skip


def _host(gpus: int) -> Tree:
    if not 1 <= gpus <= 16:
        raise ValueError(f"gpus is {gpus}, allowed are 1 to 16")
    tree = Tree()
    add_driver(tree)
    link = ("32.0", 16)
    for index in range(gpus):
        slot = add_slot(tree, index, gpus, link)
        function = Function(
            path=slot.path, vendor=0x10DE, device=0x2330, subsystem=(0x10DE, 0x16C1), pci_class=0x030200,
            revision=0xA1, driver="nvidia", link=link, best=link, node=slot.node, cpus=slot.cpus,
            group=slot.group,
            bars=(
                Bar(slot.window + 2**38, 2**24, 0x14220C), *no_bars(1), Bar(slot.window, 2**37, 0x14220C),
                *no_bars(1), Bar(slot.window + 2**38 + 2**26, 2**25, 0x14220C),
            ),
        )  # fmt: skip
        add_function(tree, function, slot.total, Gpu(_H100, 100 + index))
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, f"mock H100 {index}"))
        add_gpu(tree, function, index=index, model="NVIDIA H100 80GB HBM3", uuid=f"GPU-{name}")
    add_machine(tree, nodes=nodes_for(gpus), cpus_per_node=CPUS_PER_NODE, memory=2**41)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    held = {3: "/dev/nvidiactl", 4: "/dev/nvidia-uvm", 5: "/dev/nvidia0"}
    add_process(tree, Process(6021, "python3", "/user.slice/user-1000.slice/session-7.scope", held))
    return tree


PROFILE = Profile("nvidiax8", "8 NVIDIA H100 without NVML: proc and PCI only", _host, 8)
