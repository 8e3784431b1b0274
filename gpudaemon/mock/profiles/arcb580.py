"""A desktop with one Intel Arc B580, as Linux 7.3 with xe shows it; it falls asleep after a second.

The card has a PCIe switch of its own: the endpoint's link is internal, the upstream port's is the slot's.
Sources: gpudaemon.mock.xe, gpudaemon.mock.pci.
"""

from gpudaemon.mock.machine import RELEASE_7_3, Process, add_machine, add_process
from gpudaemon.mock.model import Gpu
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree
from gpudaemon.mock.xe import B580, add_b580

__all__ = ["PROFILE"]

_CPUS = 16


def _host(gpus: int) -> Tree:
    if gpus != 1:
        raise ValueError(f"gpus is {gpus}, this profile has exactly 1")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    add_host_bridge(tree, "pci0000:00")
    path = devices_path("pci0000:00")
    for address, vendor, device in (
        ("0000:00:01.1", 0x1022, 0x1483),
        ("0000:07:00.0", 0x8086, 0xE2FF),
        ("0000:08:01.0", 0x8086, 0xE2F0),
    ):
        path = f"{path}/{address}"
        internal = address.startswith("0000:08")
        bridge = Function(
            path=path, vendor=vendor, device=device, pci_class=BRIDGE_CLASS, driver="pcieport",
            link=("2.5", 1) if internal else ("16.0", 8), best=("2.5", 1) if internal else ("16.0", 8), node=-1,
            cpus=(0, _CPUS - 1), group=int(address[5:7], 16) + 10, root=address == "0000:00:01.1",
        )  # fmt: skip
        add_function(tree, bridge, _CPUS)
    function = Function(
        path=f"{path}/0000:09:00.0", vendor=0x8086, device=0xE20B, subsystem=(0x8086, 0x1100),
        pci_class=0x030000, driver="xe", link=("2.5", 1), best=("2.5", 1), node=-1, cpus=(0, _CPUS - 1),
        group=20, autosuspend=1000,
        bars=(Bar(0xF000_0000, 2**24, 0x140204), Bar(0, 1, 0), Bar(0x78_0000_0000, 2**34, 0x14220C)),
    )  # fmt: skip
    gpu = Gpu(B580, 580, "desktop")
    add_function(tree, function, _CPUS, gpu)
    tree.text(function.path, boot_vga=0)
    add_b580(tree, function, gpu, card=1, render=128, hwmon=2)
    add_machine(tree, nodes=1, cpus_per_node=_CPUS, memory=2**35, release=RELEASE_7_3)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    return tree


PROFILE = Profile("arcb580", "a desktop with one Intel Arc B580 (xe) that falls asleep", _host, 1, "7.3")
