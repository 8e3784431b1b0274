"""Intel Gaudi and Goya accelerators: what habanalabs shows in the PCI device's directory.

Status, clocks, power limit, resets, versions and place on the baseboard. Temperatures, power, voltages,
currents and fans come from its hwmon chip, whose name and sensors the card's firmware chooses, and are
planned with every other chip. Clocks, the power limit and every sensor are a message to the firmware
(milliseconds, seconds where it is stuck) and answer ENODEV while the device is in reset or disabled; the
status and the counts are in memory, so a device in reset still says so.

Use of memory, ECC events and utilisation are told by ioctl of the device node only. The node is never opened:
the compute node belongs to one user, and opening it takes that place.

drivers/accel/habanalabs/common/sysfs.c, goya/goya_hwmgr.c; Documentation/ABI/testing/sysfs-driver-habanalabs.
"""

from collections.abc import Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.drivers.firmware import version_row
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.parsers.choice import flag, sentence
from gpudaemon.parsers.frequency import hertz, megahertz
from gpudaemon.parsers.integer import quotient

__all__ = ["DRIVER"]

_STATUSES = (
    "operational",
    "in reset",
    "disabled",
    "needs reset",
    "in device creation",
    "in reset after device release",
)
"""As in the driver, which prints the first letter as a capital (status_show)."""

_CLOCKS: dict[str, tuple[str, Decode]] = {
    "clk_cur_freq_mhz": ("device", megahertz),
    "mme_clk_curr": ("mme", hertz),
    "tpc_clk_curr": ("tpc", hertz),
    "ic_clk_curr": ("ic", hertz),
}
_LIMITS: dict[str, tuple[str, Decode]] = {
    "clk_max_freq_mhz": ("device", megahertz),
    "mme_clk": ("mme", hertz),
    "tpc_clk": ("tpc", hertz),
    "ic_clk": ("ic", hertz),
}
"""Gaudi and Gaudi2 have one clock, in MHz; Goya three, in Hz."""
_RESETS = {"hard_reset_cnt": "hard", "soft_reset_cnt": "soft"}
_VERSIONS = (
    "cpucp_ver",
    "cpucp_kernel_ver",
    "fw_os_ver",
    "preboot_btl_ver",
    "uboot_ver",
    "cpld_ver",
    "fuse_ver",
    "infineon_ver",
    "vrm_ver",
    "thermal_ver",
)
"""`armcp_ver` and `armcp_kernel_ver` repeat the first two."""

_whole = quotient()
_milliwatts = quotient(1000)


def _clocks(device: Device) -> Iterator[Attribute]:
    for path, (clock, decode) in _CLOCKS.items():
        if path in device.names:
            yield Attribute(path, Cadence.NORMAL, (Series(gpu.CLOCK, (device.id, clock)),), decode)
    for path, (clock, decode) in _LIMITS.items():
        if path in device.names:
            series = Series(gpu_parts.CLOCK_LIMIT, (device.id, clock, "max"))
            yield Attribute(path, Cadence.SLOW, (series,), decode)


def _state(device: Device) -> Iterator[Attribute]:
    if "status" in device.names:
        series = tuple(Series(gpu_parts.STATUS, (device.id, state)) for state in _STATUSES)
        yield Attribute("status", Cadence.NORMAL, series, sentence(_STATUSES))
    for path, kind in _RESETS.items():
        if path in device.names:
            yield Attribute(path, Cadence.NORMAL, (Series(gpu_parts.RESETS, (device.id, kind)),), _whole)
    for path, cadence, row, decode in (
        ("max_power", Cadence.SLOW, Series(gpu.POWER_LIMIT, (device.id, "device", "max")), _milliwatts),
        ("module_id", Cadence.STATIC, Series(gpu_parts.MODULE, (device.id,)), _whole),
        ("security_enabled", Cadence.STATIC, Series(gpu_parts.SECURITY, (device.id,)), flag),
    ):
        if path in device.names:
            yield Attribute(path, cadence, (row,), decode)


def _versions(device: Device) -> Iterator[Rows]:
    for path in _VERSIONS:
        if path in device.names:
            decode = version_row(device.id, path.removesuffix("_ver"))
            yield Rows(path, Cadence.STATIC, decode, (gpu.FIRMWARE_INFO,), limit=512, bound=1)


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return [*_clocks(device), *_state(device), *_versions(device)]


DRIVER = GpuDriver(
    kernel_driver="habanalabs",
    vendor="intel",
    identity={**PCI_IDENTITY, "product_name": "device_type"},
    emits=(
        gpu.CLOCK,
        gpu_parts.CLOCK_LIMIT,
        gpu_parts.STATUS,
        gpu_parts.RESETS,
        gpu.POWER_LIMIT,
        gpu_parts.MODULE,
        gpu_parts.SECURITY,
        gpu.FIRMWARE_INFO,
    ),
    attributes=_attributes,
    example=(
        *_CLOCKS,
        *_LIMITS,
        "status",
        *_RESETS,
        "max_power",
        "module_id",
        "security_enabled",
        "device_type",
        *_VERSIONS,
    ),
)
