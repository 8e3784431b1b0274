"""A laptop: the GPU of a Phoenix APU at work, a discrete Radeon RX 7700S asleep, battery, SSD, sensors.

The discrete GPU sleeps behind root port and switch, and these with it (D3cold): it is asleep from the start,
nothing is plugged into it, and reading almost any of its files wakes it and everything above. Sources:
gpudaemon.mock.amdgpu, gpudaemon.mock.amdgpu_apu, gpudaemon.mock.sensors, gpudaemon.mock.pci.
"""

from gpudaemon.mock.amdgpu import NAVI33, Card, add_consumer_card
from gpudaemon.mock.amdgpu_apu import PHOENIX, add_apu
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.motion import Load
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.sensors import add_battery, add_k10temp, add_nvme, add_thermal_zone
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS = 16
_MEMORY = 2**36
_NAVI33 = Chip(
    idle=3, cap=100, peak=115, low=255, high=2208, memory_low=96, memory_high=1124, memory=8_573_157_376,
    hot=88, limit=95, fan=True, link=28e9,
)  # fmt: skip


def _host(gpus: int) -> Tree:
    if gpus != 2:
        raise ValueError(f"gpus is {gpus}, this profile has exactly 2")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    add_host_bridge(tree, "pci0000:00")
    work = Load.seeded(7840, low=0.03, high=0.6)
    _add_discrete(tree)
    _add_apu(tree)
    _add_rest(tree, work)
    add_machine(tree, nodes=1, cpus_per_node=_CPUS, memory=_MEMORY)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    add_process(
        tree,
        Process(2210, "gnome-shell", "/user.slice/user-1000.slice/session-2.scope", {9: "/dev/dri/renderD129"}),
    )
    return tree


def _port(tree: Tree, path: str, ids: tuple[int, int], lanes: int, *, asleep: bool = False) -> str:
    """A PCI bridge that runtime PM may put to sleep when all below it are asleep; returns its path.

    ids: vendor and device. The port driver waits 100 ms (drivers/pci/pcie/portdrv.c).
    """
    port = Function(
        path=path, vendor=ids[0], device=ids[1], pci_class=BRIDGE_CLASS, driver="pcieport",
        link=("16.0", lanes), best=("16.0", lanes), node=-1, cpus=(0, _CPUS - 1), autosuspend=100,
        asleep=asleep, root=path.count("/") == 3,
    )  # fmt: skip
    add_function(tree, port, _CPUS)
    return path


def _add_discrete(tree: Tree) -> None:
    path = devices_path("pci0000:00")
    for address, ids in (
        ("0000:00:01.1", (0x1022, 0x14ED)),
        ("0000:01:00.0", (0x1002, 0x1478)),
        ("0000:02:00.0", (0x1002, 0x1479)),
    ):
        path = _port(tree, f"{path}/{address}", ids, 8, asleep=True)
    function = Function(
        path=f"{path}/0000:03:00.0", vendor=0x1002, device=0x7480, subsystem=(0xF111, 0x0007),
        pci_class=0x030000, revision=0xC1, driver="amdgpu", link=("16.0", 16), best=("16.0", 16), node=-1,
        cpus=(0, _CPUS - 1), group=12, autosuspend=5000, asleep=True,
        bars=(Bar(0x78_0000_0000, 2**33, 0x14220C), Bar(0, 1, 0), Bar(0x7A_0000_0000, 2**28, 0x14220C)),
    )  # fmt: skip
    gpu = Gpu(_NAVI33, 7700, "idle")
    add_function(tree, function, _CPUS, gpu)
    tree.text(function.path, boot_vga=0)
    card = Card(function=function, index=0, render=128, hwmon=5, gpu=gpu)
    add_consumer_card(tree, card, NAVI33, display=False)


def _add_apu(tree: Tree) -> None:
    port = _port(tree, devices_path("pci0000:00", "0000:00:08.1"), (0x1022, 0x14EB), 16)
    function = Function(
        path=f"{port}/0000:c4:00.0", vendor=0x1002, device=0x15BF, subsystem=(0xF111, 0x0005),
        pci_class=0x038000, revision=0xC1, driver="amdgpu", link=("16.0", 16), best=("16.0", 16), node=-1,
        cpus=(0, _CPUS - 1), group=20,
        bars=(Bar(0x80_0000_0000, 2**28, 0x14220C), Bar(0, 1, 0), Bar(0x9000_0000, 2**21, 0x14220C)),
    )  # fmt: skip
    gpu = Gpu(PHOENIX, 7840, "desktop")
    add_function(tree, function, _CPUS, gpu)
    add_apu(tree, Card(function=function, index=1, render=129, hwmon=4, gpu=gpu), _MEMORY // 2)


def _add_rest(tree: Tree, work: Load) -> None:
    add_thermal_zone(tree, 0, work)
    add_battery(tree, 1, work)
    port = _port(tree, devices_path("pci0000:00", "0000:00:02.4"), (0x1022, 0x14EE), 4)
    drive = Function(
        path=f"{port}/0000:c2:00.0", vendor=0x144D, device=0xA80C, subsystem=(0x144D, 0xA801),
        pci_class=0x010802, driver="nvme", link=("16.0", 4), best=("16.0", 4), node=-1, cpus=(0, _CPUS - 1),
        group=15, bars=(Bar(0x9040_0000, 2**14, 0x140204),),
    )  # fmt: skip
    add_nvme(tree, drive, 0, hwmon=2, load=work, cpus=_CPUS)
    add_k10temp(tree, "0000:00:18.3", 0x14F3, hwmon=3, load=work, cpus=_CPUS)


PROFILE = Profile("laptop", "a laptop: a Phoenix APU at work, a Radeon RX 7700S asleep, battery, SSD", _host, 2)
