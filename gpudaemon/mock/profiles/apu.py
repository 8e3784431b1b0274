"""A small computer whose only GPU is that of a Phoenix APU, as Linux 6.12 with amdgpu shows it.

VRAM is a carve-out of the host's memory; no fan, no cap, no critical temperature, one sensor. The package has
the memory, the GPU's power is the package's. Sources: gpudaemon.mock.amdgpu_apu, gpudaemon.mock.pci.
"""

from gpudaemon.mock.amdgpu import Card
from gpudaemon.mock.amdgpu_apu import PHOENIX, add_apu
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Gpu
from gpudaemon.mock.motion import Load
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.sensors import add_k10temp
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS = 16
_MEMORY = 2**35


def _host(gpus: int) -> Tree:
    if gpus != 1:
        raise ValueError(f"gpus is {gpus}, this profile has exactly 1")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    add_host_bridge(tree, "pci0000:00")
    link = ("16.0", 16)
    port = Function(
        path=devices_path("pci0000:00", "0000:00:08.1"), vendor=0x1022, device=0x14EB, pci_class=BRIDGE_CLASS,
        driver="pcieport", link=link, best=link, node=-1, cpus=(0, _CPUS - 1), root=True,
    )  # fmt: skip
    add_function(tree, port, _CPUS)
    function = Function(
        path=f"{port.path}/0000:c4:00.0", vendor=0x1002, device=0x15BF, subsystem=(0x1002, 0x15BF),
        pci_class=0x030000, revision=0xC4, driver="amdgpu", link=link, best=link, node=-1, cpus=(0, _CPUS - 1),
        group=20,
        bars=(Bar(0x80_0000_0000, 2**28, 0x14220C), Bar(0, 1, 0), Bar(0x9000_0000, 2**21, 0x14220C)),
    )  # fmt: skip
    gpu = Gpu(PHOENIX, 780, "desktop")
    add_function(tree, function, _CPUS, gpu)
    tree.text(function.path, boot_vga=1)
    add_apu(tree, Card(function=function, index=0, render=128, hwmon=1, gpu=gpu), _MEMORY // 2)
    add_k10temp(tree, "0000:00:18.3", 0x14F3, hwmon=0, load=Load.seeded(780, high=0.5), cpus=_CPUS)
    add_machine(tree, nodes=1, cpus_per_node=_CPUS, memory=_MEMORY)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    return tree


PROFILE = Profile("apu", "a small computer with a Phoenix APU and no other GPU", _host, 1)
