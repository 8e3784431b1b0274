"""A virtual machine with one virtual function of an MI300X, as Linux 6.12 with amdgpu shows it.

In a guest that shares its GPU the driver has no power management: no load, no clocks, no gpu_metrics and no
hwmon chip (pm/amdgpu_pm.c, amdgpu_pm_sysfs_init returns where dpm is not enabled); memory and versions are
there. A virtual function's link registers are not its own, so speed and width are not known (PCI Express Base
Specification, 9.3.5), it has no AER capability here, no NUMA node and no IOMMU.
"""

from gpudaemon.mock.amdgpu import Card, add_nodes
from gpudaemon.mock.machine import Process, add_machine, add_process
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS = 8
_SHARE = Chip(
    idle=140, cap=750, peak=860, low=132, high=2100, memory_low=900, memory_high=1300, memory=51_522_830_336
)
_FIRMWARE = {"mec": 0xB2, "rlc": 0x15, "sdma": 0x12, "sos": 0x36414E, "vcn": 0x1111002, "smc": 0}


def _host(gpus: int) -> Tree:
    if not 1 <= gpus <= 8:
        raise ValueError(f"gpus is {gpus}, allowed are 1 to 8")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    add_host_bridge(tree, "pci0000:00")
    for index in range(gpus):
        _add_function(tree, index)
    add_machine(tree, nodes=1, cpus_per_node=_CPUS, memory=2**36)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    return tree


def _add_function(tree: Tree, index: int) -> None:
    function = Function(
        path=devices_path("pci0000:00", f"0000:00:{5 + index:02x}.0"), vendor=0x1002, device=0x74B5,
        subsystem=(0x1002, 0x74A1), pci_class=0x038000, driver="amdgpu", link=("", 0), best=("", 0), node=-1,
        cpus=(0, _CPUS - 1), aer=False,
        bars=(Bar(0x38_0000_0000 + index * 2**37, 2**36, 0x14220C), Bar(0, 1, 0),
              Bar(0x58_0000_0000 + index * 2**22, 2**21, 0x14220C)),
    )  # fmt: skip
    gpu = Gpu(_SHARE, 74 + index)
    add_function(tree, function, _CPUS, gpu)
    card = Card(function=function, index=index, render=128 + index, hwmon=0, gpu=gpu)
    path = function.path
    for pool in ("vram", "vis_vram"):
        tree.file(f"{path}/mem_info_{pool}_used", generate=shown(gpu, card.used, 4096))
        tree.text(path, **{f"mem_info_{pool}_total": gpu.chip.memory})
    tree.file(f"{path}/mem_info_gtt_used", generate=shown(gpu, lambda now: 2**26 * (1 + now.filled), 4096))
    tree.text(
        path,
        mem_info_gtt_total=2**35,
        mem_info_preempt_used=0,
        mem_info_vram_vendor="hynix",
        vbios_version="113-M3000100-102",
        board_info="type : oam",
    )
    tree.text(f"{path}/fw_version", **{f"{name}_fw_version": f"0x{v:08x}" for name, v in _FIRMWARE.items()})
    add_nodes(tree, path, card.index, card.render)


PROFILE = Profile("vfguest", "a virtual machine with a virtual function of an MI300X", _host, 1)
