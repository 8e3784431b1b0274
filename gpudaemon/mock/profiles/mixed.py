"""One Intel Arc A770 with i915 and one Habana Gaudi2 with habanalabs, as Linux 6.12 shows them.

A host without any amdgpu: what a driver-neutral reader must be able to use. Sources: drivers/gpu/drm/i915/gt/
intel_gt_sysfs_pm.c and i915_hwmon.c (energy counter, no power reading); gpudaemon.mock.habanalabs.
"""

from gpudaemon.mock.amdgpu import add_nodes
from gpudaemon.mock.habanalabs import GAUDI2, add_gaudi2
from gpudaemon.mock.machine import INTEL, Process, add_machine, add_process, node_cpus
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import (
    BRIDGE_CLASS,
    Bar,
    Function,
    add_class_device,
    add_function,
    add_host_bridge,
    devices_path,
)
from gpudaemon.mock.profiles import Profile
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS_PER_NODE = 32
_NODES = 2
_ALCHEMIST = Chip(
    idle=38, cap=190, peak=225, low=300, high=2400, memory_low=2000, memory_high=2000, memory=2**34, hot=85,
    limit=100, fan=True, link=28e9,
)  # fmt: skip


def _host(gpus: int) -> Tree:
    if gpus != 2:
        raise ValueError(f"gpus is {gpus}, this profile has exactly 2")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    _add_arc(tree, _add_port(tree, "00", 0), Gpu(_ALCHEMIST, 770))
    _add_gaudi(tree, _add_port(tree, "80", 1), Gpu(GAUDI2, 2))
    add_machine(tree, nodes=_NODES, cpus_per_node=_CPUS_PER_NODE, memory=2**39, cpu=INTEL)
    add_process(tree, Process(1, "systemd", "/init.scope"))
    add_process(
        tree,
        Process(3117, "hl_worker (0)", "/user.slice/user-1000.slice/session-4.scope", {5: "/dev/accel/accel0"}),
    )
    return tree


def _add_port(tree: Tree, root: str, node: int) -> str:
    """A host bridge and a root port; returns the port's path."""
    add_host_bridge(tree, f"pci0000:{root}")
    path = devices_path(f"pci0000:{root}", f"0000:{root}:01.0")
    port = Function(
        path=path, vendor=0x8086, device=0x352A, pci_class=BRIDGE_CLASS, revision=4, driver="pcieport",
        link=("16.0", 16), best=("32.0", 16), node=node, cpus=node_cpus(node, _CPUS_PER_NODE), root=True,
    )  # fmt: skip
    add_function(tree, port, _NODES * _CPUS_PER_NODE)
    return path


def _add_arc(tree: Tree, port: str, gpu: Gpu) -> None:
    function = Function(
        path=f"{port}/0000:03:00.0", vendor=0x8086, device=0x56A0, subsystem=(0x8086, 0x1020),
        pci_class=0x030000, revision=8, driver="i915", link=("2.5", 1), best=("2.5", 1),
        node=0, cpus=node_cpus(0, _CPUS_PER_NODE), autosuspend=10_000,
        bars=(Bar(0x9000_0000, 2**24, 0x140204), Bar(0, 1, 0), Bar(0x60_0000_0000, 2**34, 0x14220C)),
    )  # fmt: skip
    path = function.path
    add_function(tree, function, _NODES * _CPUS_PER_NODE, gpu)
    tree.text(path, boot_vga=0)
    add_nodes(tree, path, 0, 128)
    gt = f"{path}/drm/card0/gt/gt0"
    tree.text(gt, id=0, rc6_enable=1, punit_req_freq_mhz=2400, rps_RP0_freq_mhz=2400, rps_RP1_freq_mhz=600)
    tree.text(gt, rps_RPn_freq_mhz=300)
    tree.text(gt, 0o644, rps_boost_freq_mhz=2400, rps_max_freq_mhz=2400, rps_min_freq_mhz=300)
    for name in ("act", "cur"):
        tree.file(f"{gt}/rps_{name}_freq_mhz", generate=shown(gpu, lambda now: now.clock, 50))
    for reason in ("pl2", "pl4", "prochot", "ratl", "vr_thermalert", "vr_tdc"):
        tree.text(gt, **{f"throttle_reason_{reason}": 0})
    tree.file(f"{gt}/throttle_reason_status", generate=shown(gpu, lambda now: now.ppt or now.thermal))
    tree.file(f"{gt}/throttle_reason_pl1", generate=shown(gpu, lambda now: now.ppt))
    tree.file(f"{gt}/throttle_reason_thermal", generate=shown(gpu, lambda now: now.thermal))
    tree.file(f"{gt}/rc6_residency_ms", generate=shown(gpu, lambda now: 1000 * now.idle_seconds))
    chip = f"{path}/hwmon/hwmon1"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="i915", power1_rated_max=0)
    tree.text(chip, 0o644, power1_max=190_000_000, power1_max_interval=28_000)
    tree.file(f"{chip}/energy1_input", generate=shown(gpu, lambda now: 1e6 * now.driver_energy))
    tree.file(f"{chip}/in0_input", generate=shown(gpu, lambda now: 1000 * now.volts))
    tree.file(f"{chip}/fan1_input", generate=shown(gpu, lambda now: 3100 * now.fan))


def _add_gaudi(tree: Tree, port: str, gpu: Gpu) -> None:
    function = Function(
        path=f"{port}/0000:81:00.0", vendor=0x1DA3, device=0x1020, subsystem=(0x1DA3, 0x1020),
        pci_class=0x120000, revision=1, driver="habanalabs", link=("16.0", 16), best=("16.0", 16), node=1,
        cpus=node_cpus(1, _CPUS_PER_NODE), bars=(Bar(0xA0_0000_0000, 2**37, 0x14220C),),
    )  # fmt: skip
    add_function(tree, function, _NODES * _CPUS_PER_NODE, gpu)
    add_gaudi2(tree, function, gpu, index=0, hwmon=2, module=3)


PROFILE = Profile("mixed", "one Intel Arc A770 (i915) and one Habana Gaudi2 (habanalabs)", _host, 2)
