"""One Intel Arc A770 with i915 and one Habana Gaudi2 with habanalabs, as Linux 6.12 shows them.

A host without any amdgpu: what a driver-neutral reader must be able to use. Sources: drivers/gpu/drm/i915/gt/
intel_gt_sysfs_pm.c and i915_hwmon.c (energy counter, no power reading); drivers/accel/habanalabs/common/sysfs.c
and hwmon.c, where several version files have no final newline and sensor names come from the firmware.
"""

from gpudaemon.mock.amdgpu import add_nodes
from gpudaemon.mock.machine import Process, add_machine, add_process, node_cpus
from gpudaemon.mock.motion import Load, integer
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
from gpudaemon.mock.tree import Tree

__all__ = ["PROFILE"]

_CPUS_PER_NODE = 32
_NODES = 2


def _host(gpus: int) -> Tree:
    if gpus != 2:
        raise ValueError(f"gpus is {gpus}, this profile has exactly 2")
    tree = Tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    _add_arc(tree, _add_port(tree, "00", 0), Load.seeded(770))
    _add_gaudi(tree, _add_port(tree, "80", 1), Load.seeded(2))
    add_machine(tree, nodes=_NODES, cpus_per_node=_CPUS_PER_NODE, memory=2**39)
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


def _add_arc(tree: Tree, port: str, load: Load) -> None:
    function = Function(
        path=f"{port}/0000:03:00.0", vendor=0x8086, device=0x56A0, subsystem=(0x8086, 0x1020),
        pci_class=0x030000, revision=8, driver="i915", link=("2.5", 1), best=("2.5", 1),
        node=0, cpus=node_cpus(0, _CPUS_PER_NODE), autosuspend=10_000,
        bars=(Bar(0x9000_0000, 2**24, 0x140204), Bar(0, 1, 0), Bar(0x60_0000_0000, 2**34, 0x14220C)),
    )  # fmt: skip
    path = function.path
    add_function(tree, function, _NODES * _CPUS_PER_NODE)
    tree.text(path, boot_vga=0)
    add_nodes(tree, path, 0, 128)
    gt = f"{path}/drm/card0/gt/gt0"
    tree.text(gt, id=0, rc6_enable=1, punit_req_freq_mhz=2400, rps_RP0_freq_mhz=2400, rps_RP1_freq_mhz=600)
    tree.text(gt, rps_RPn_freq_mhz=300)
    tree.text(gt, 0o644, rps_boost_freq_mhz=2400, rps_max_freq_mhz=2400, rps_min_freq_mhz=300)
    for name in ("act", "cur"):
        tree.file(f"{gt}/rps_{name}_freq_mhz", generate=integer(lambda t: 300 + 2100 * load.busy(t), 50))
    for reason in ("status", "pl1", "pl2", "pl4", "thermal", "prochot", "ratl", "vr_thermalert", "vr_tdc"):
        tree.text(gt, **{f"throttle_reason_{reason}": 0})
    tree.file(f"{gt}/rc6_residency_ms", generate=integer(lambda t: 300 * (3600 + t)))
    chip = f"{path}/hwmon/hwmon1"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="i915", power1_rated_max=0)
    tree.text(chip, 0o644, power1_max=190_000_000, power1_max_interval=28_000)
    tree.file(f"{chip}/energy1_input", generate=integer(lambda t: 1e6 * 110 * (3600 + t)))
    tree.file(f"{chip}/in0_input", generate=integer(lambda t: 700 + 300 * load.busy(t)))
    tree.file(f"{chip}/fan1_input", generate=integer(lambda t: 900 + 1200 * load.warm(t)))


def _add_gaudi(tree: Tree, port: str, load: Load) -> None:
    function = Function(
        path=f"{port}/0000:81:00.0", vendor=0x1DA3, device=0x1020, subsystem=(0x1DA3, 0x1020),
        pci_class=0x120000, revision=1, driver="habanalabs", link=("16.0", 16), best=("16.0", 16), node=1,
        cpus=node_cpus(1, _CPUS_PER_NODE), bars=(Bar(0xA0_0000_0000, 2**37, 0x14220C),),
    )  # fmt: skip
    path = function.path
    add_function(tree, function, _NODES * _CPUS_PER_NODE)
    accel = f"{path}/accel/accel0"
    add_class_device(tree, accel, "accel", (261, 0), "DEVNAME=accel/accel0\nDEVTYPE=accel_minor\n")
    tree.text(
        path,
        status="operational",
        device_type="GAUDI2",
        pci_addr=function.address,
        module_id=3,
        security_enabled=1,
        hard_reset_cnt=0,
        soft_reset_cnt=0,
        cpucp_kernel_ver="Linux gaudi2 5.10.18-hl-gaudi2-1.16.2-fw-50.1.2-sec-9",
    )
    tree.file(f"{path}/armcp_ver", b"1.16.2-f5d9e3a")
    tree.file(f"{path}/uboot_ver", b"U-Boot 2021.04-hl-gaudi2-1.16.2-fw-50.1.2-sec-9")
    tree.file(f"{path}/max_power", b"600000\n", mode=0o644)
    tree.file(f"{path}/clk_max_freq_mhz", b"1650\n", mode=0o644)
    tree.file(f"{path}/clk_cur_freq_mhz", generate=integer(lambda t: 200 + 1450 * load.busy(t), 50))
    chip = f"{path}/hwmon/hwmon2"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(
        chip, name="hl225", temp1_label="on-die", temp1_crit=105_000, power1_label="power", in1_label="vcc"
    )
    tree.file(f"{chip}/temp1_input", generate=integer(lambda t: 1000 * (38 + 40 * load.warm(t)), 1000))
    tree.file(f"{chip}/power1_input", generate=integer(lambda t: 1e6 * (95 + 480 * load.busy(t)), 1_000_000))
    tree.file(f"{chip}/in1_input", generate=integer(lambda t: 800 + 40 * load.busy(t)))


PROFILE = Profile("mixed", "one Intel Arc A770 (i915) and one Habana Gaudi2 (habanalabs)", _host, 2)
