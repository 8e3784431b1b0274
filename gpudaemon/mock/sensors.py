"""hwmon chips of a host that belong to no GPU: processor, SSD, battery, thermal zone.

Formats and limits: drivers/hwmon/k10temp.c and coretemp.c, drivers/nvme/host/hwmon.c,
drivers/power/supply/power_supply_sysfs.c and power_supply_hwmon.c, drivers/thermal/thermal_hwmon.c, as of Linux
6.12. A chip whose parent is of a class hangs from it directly (`nvme0/hwmon2`), any other below `hwmon/`.
"""

from collections.abc import Callable
from functools import partial

from gpudaemon.mock.motion import Load
from gpudaemon.mock.pci import Function, add_class_device, add_function, add_plain_power, devices_path
from gpudaemon.mock.show import integer
from gpudaemon.mock.tree import Generate, Tree

__all__ = ["add_battery", "add_coretemp", "add_k10temp", "add_nvme", "add_thermal_zone"]


def _celsius(warm: Callable[[float], float], cold: float, span: float, step: int = 125) -> Generate:
    """Thousandths of a degree in steps, from `cold` °C up by `span` with the heat."""
    return integer(lambda seconds: 1000 * (cold + span * warm(seconds)), step)


def _later(load: Load, lag: float, seconds: float) -> float:
    return load.warm(seconds - lag)


def add_k10temp(tree: Tree, address: str, device: int, *, hwmon: int, load: Load, cpus: int) -> None:
    """An AMD processor's sensor: a chip of the data fabric's function 3, which is no PCI Express function."""
    function = Function(
        path=devices_path("pci0000:00", address), vendor=0x1022, device=device, pci_class=0x060000,
        driver="k10temp", link=None, best=None, node=-1, cpus=(0, cpus - 1),
    )  # fmt: skip
    add_function(tree, function, cpus)
    chip = f"{function.path}/hwmon/hwmon{hwmon}"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="k10temp", temp1_label="Tctl")
    tree.file(f"{chip}/temp1_input", generate=_celsius(load.warm, 38, 45))


def add_coretemp(tree: Tree, package: int, hwmon: int, cores: int, load: Load) -> None:
    """An Intel processor's package and cores: a platform device."""
    path = devices_path("platform", f"coretemp.{package}")
    tree.file(f"{path}/uevent", b"DRIVER=coretemp\nMODALIAS=platform:coretemp\n", mode=0o644)
    tree.file(f"{path}/modalias", b"platform:coretemp\n")
    tree.link(f"{path}/subsystem", "sys/bus/platform")
    tree.link(f"{path}/driver", "sys/bus/platform/drivers/coretemp")
    tree.link(f"sys/bus/platform/devices/coretemp.{package}", path)
    tree.link(f"sys/bus/platform/drivers/coretemp/coretemp.{package}", path)
    add_plain_power(tree, path)
    chip = f"{path}/hwmon/hwmon{hwmon}"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="coretemp")
    labels = [f"Package id {package}", *(f"Core {core}" for core in range(cores))]
    for channel, label in enumerate(labels, start=1):
        # The cores differ a little: each is where the one before it was.
        warm = partial(_later, load, 1.7 * channel)
        tree.file(f"{chip}/temp{channel}_input", generate=_celsius(warm, 35, 30, 1000))
        tree.text(
            chip,
            **{
                f"temp{channel}_label": label,
                f"temp{channel}_max": 84_000,
                f"temp{channel}_crit": 94_000,
                f"temp{channel}_crit_alarm": 0,
            },
        )


def add_nvme(tree: Tree, function: Function, index: int, *, hwmon: int, load: Load, cpus: int) -> None:
    """An SSD: controller `nvme<index>` and its temperatures."""
    add_function(tree, function, cpus)
    controller = f"{function.path}/nvme/nvme{index}"
    add_class_device(tree, controller, "nvme", (240, index), f"DEVNAME=nvme{index}\nNVME_TRTYPE=pcie\n")
    tree.text(
        controller,
        model=f"{'Mock NVMe SSD 1TB':<40}",
        serial=f"{f'S6X0000{index:04d}':<20}",
        state="live",
        transport="pcie",
        address=function.address,
    )
    chip = f"{controller}/hwmon{hwmon}"
    add_class_device(tree, chip, "hwmon", None, "", parent=controller)
    tree.text(chip, name="nvme", temp1_label="Composite", temp2_label="Sensor 1", temp1_alarm=0)
    tree.text(chip, temp1_max=84_850, temp1_min=-273_150, temp1_crit=88_850)
    # Kelvin in whole numbers: a reading ends in 850.
    tree.file(f"{chip}/temp1_input", generate=lambda t: b"%d850\n" % (36 + 12 * load.warm(t)))
    tree.file(f"{chip}/temp2_input", generate=lambda t: b"%d850\n" % (42 + 12 * load.warm(t)))


def add_battery(tree: Tree, hwmon: int, load: Load) -> None:
    """A battery that discharges, its hwmon chip, and the mains adapter that is unplugged."""
    supplies = devices_path("LNXSYSTM:00", "LNXSYBUS:00", "PNP0A08:00", "device:42", "PNP0C09:00")
    adapter, battery = (
        f"{supplies}/ACPI0003:00/power_supply/ACAD",
        f"{supplies}/PNP0C0A:00/power_supply/BAT1",
    )
    add_class_device(tree, adapter, "power_supply", None, "POWER_SUPPLY_NAME=ACAD\nPOWER_SUPPLY_ONLINE=0\n")
    tree.text(adapter, type="Mains", online=0)
    add_class_device(
        tree, battery, "power_supply", None, "POWER_SUPPLY_NAME=BAT1\nPOWER_SUPPLY_STATUS=Discharging\n"
    )
    tree.text(battery, type="Battery", status="Discharging", present=1, technology="Li-ion", cycle_count=87)
    tree.text(battery, charge_full_design=5_491_000, charge_full=5_280_000, voltage_min_design=15_480_000)
    volts = integer(lambda t: 15_900_000 - 300_000 * load.busy(t), 1000)  # µV
    amperes = integer(lambda t: 900_000 + 4_200_000 * load.busy(t), 1000)  # µA
    tree.file(f"{battery}/voltage_now", generate=volts)
    tree.file(f"{battery}/current_now", generate=amperes)
    tree.file(f"{battery}/charge_now", generate=integer(lambda t: 4_100_000 - 700 * t, 1000))
    tree.file(f"{battery}/capacity", generate=integer(lambda t: (4_100_000 - 700 * t) / 52_800))
    chip = f"{battery}/hwmon{hwmon}"
    add_class_device(tree, chip, "hwmon", None, "", parent=battery)
    tree.text(chip, name="BAT1")
    tree.file(f"{chip}/in0_input", generate=integer(lambda t: int(volts(t)) / 1000))
    tree.file(f"{chip}/curr1_input", generate=integer(lambda t: int(amperes(t)) / 1000))


def add_thermal_zone(tree: Tree, hwmon: int, load: Load) -> None:
    """ACPI's thermal zone: a chip below a virtual device."""
    path = devices_path("virtual", "thermal", "thermal_zone0")
    tree.file(f"{path}/uevent", b"", mode=0o644)
    tree.link(f"{path}/subsystem", "sys/class/thermal")
    tree.link("sys/class/thermal/thermal_zone0", path)
    add_plain_power(tree, path)
    degrees = _celsius(load.warm, 37, 30, 1000)
    tree.text(path, type="acpitz")
    tree.file(f"{path}/temp", generate=degrees)
    chip = f"{path}/hwmon{hwmon}"
    add_class_device(tree, chip, "hwmon", None, "", parent=path)
    tree.text(chip, name="acpitz")
    tree.file(f"{chip}/temp1_input", generate=degrees)
