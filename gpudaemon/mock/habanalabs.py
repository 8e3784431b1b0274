"""habanalabs' files of a Gaudi2 (HL-225), as Linux 6.12 shows them.

drivers/accel/habanalabs/common/sysfs.c and hwmon.c: several version files have no final newline, sensors and
the chip's name come from the firmware. In a reset `status` says so and sensors fail with ENODEV.
"""

from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import Function, add_class_device
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Tree

__all__ = ["GAUDI2", "add_gaudi2"]

GAUDI2 = Chip(
    idle=95, cap=600, peak=680, low=200, high=1650, memory_low=1600, memory_high=1600, memory=96 * 2**30,
    hot=84, limit=98, link=28e9,
)  # fmt: skip


def add_gaudi2(tree: Tree, function: Function, gpu: Gpu, *, index: int, hwmon: int, module: int) -> None:
    """Everything below the function's own files. index: of accelN; module: its place in the baseboard."""
    path = function.path
    accel = f"{path}/accel/accel{index}"
    add_class_device(tree, accel, "accel", (261, index), f"DEVNAME=accel/accel{index}\nDEVTYPE=accel_minor\n")
    tree.file(f"{path}/status", b"operational\n", in_reset=b"in reset\n")
    tree.text(
        path,
        device_type="GAUDI2",
        pci_addr=function.address,
        module_id=module,
        security_enabled=1,
        soft_reset_cnt=0,
        cpucp_kernel_ver="Linux gaudi2 5.10.18-hl-gaudi2-1.16.2-fw-50.1.2-sec-9",
    )
    tree.file(f"{path}/hard_reset_cnt", generate=shown(gpu, lambda now: now.resets))
    tree.file(f"{path}/armcp_ver", b"1.16.2-f5d9e3a")
    tree.file(f"{path}/uboot_ver", b"U-Boot 2021.04-hl-gaudi2-1.16.2-fw-50.1.2-sec-9")
    tree.file(f"{path}/max_power", b"600000\n", mode=0o644)
    tree.file(f"{path}/clk_max_freq_mhz", b"1650\n", mode=0o644)
    tree.file(f"{path}/clk_cur_freq_mhz", generate=shown(gpu, lambda now: now.clock, 50))
    chip = f"{path}/hwmon/hwmon{hwmon}"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(
        chip, name="hl225", temp1_label="on-die", temp1_crit=105_000, power1_label="power", in1_label="vcc"
    )
    tree.file(f"{chip}/temp1_input", generate=shown(gpu, lambda now: 1000 * now.hotspot, 1000))
    tree.file(f"{chip}/power1_input", generate=shown(gpu, lambda now: 1e6 * now.power, 1_000_000))
    tree.file(f"{chip}/in1_input", generate=shown(gpu, lambda now: 1000 * now.volts))
