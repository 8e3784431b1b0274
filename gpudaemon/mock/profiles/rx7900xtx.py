"""A desktop with one AMD Radeon RX 7900 XTX, as Linux 6.12 with amdgpu shows it.

The card sits behind its own switch (the endpoint's link is internal, the bridge above has the real one), has
every temperature, a fan and displays, and falls asleep 5 s after the last use (`power/control` is `auto`).
Sources: gpudaemon.mock.amdgpu, gpudaemon.mock.pci.
"""

from gpudaemon.mock.amdgpu import Card, add_consumer_card
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS = 16
_NAVI31 = Chip(
    idle=18, cap=339, peak=390, low=500, high=2735, memory_low=96, memory_high=1249, memory=25_753_026_560,
    hot=92, limit=105, fan=True, link=28e9,
)  # fmt: skip


def _host(gpus: int) -> Tree:
    if gpus != 1:
        raise ValueError(f"gpus is {gpus}, this profile has exactly 1")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    add_host_bridge(tree, "pci0000:00")
    path = devices_path("pci0000:00")
    for address, vendor, device, best in (
        ("0000:00:01.1", 0x1022, 0x14DB, "32.0"),
        ("0000:01:00.0", 0x1002, 0x1478, "16.0"),
        ("0000:02:00.0", 0x1002, 0x1479, "16.0"),
    ):
        path = f"{path}/{address}"
        bridge = Function(
            path=path, vendor=vendor, device=device, pci_class=BRIDGE_CLASS, revision=0x10, driver="pcieport",
            link=("16.0", 16), best=(best, 16), node=-1, cpus=(0, _CPUS - 1), group=int(address[5:7], 16) + 10,
            root=best == "32.0",
        )  # fmt: skip
        add_function(tree, bridge, _CPUS)
    function = Function(
        path=f"{path}/0000:03:00.0",
        vendor=0x1002,
        device=0x744C,
        subsystem=(0x1DA2, 0xE471),
        pci_class=0x030000,
        revision=0xC8,
        driver="amdgpu",
        link=("16.0", 16),
        best=("16.0", 16),
        node=-1,
        cpus=(0, _CPUS - 1),
        group=14,
        autosuspend=5000,
        bars=(Bar(0x7C_0000_0000, 2**35, 0x14220C), Bar(0, 1, 0), Bar(0x84_0000_0000, 2**28, 0x14220C)),
    )
    gpu = Gpu(_NAVI31, 7900)
    add_function(tree, function, _CPUS, gpu)
    # VGA devices say whether the firmware used them (pci-sysfs.c, boot_vga_show).
    tree.text(function.path, boot_vga=1)
    add_consumer_card(tree, Card(function=function, index=0, render=128, hwmon=2, gpu=gpu))
    add_machine(tree, nodes=1, cpus_per_node=_CPUS, memory=2**36)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    return tree


PROFILE = Profile("rx7900xtx", "a desktop with one AMD Radeon RX 7900 XTX that falls asleep", _host, 1)
