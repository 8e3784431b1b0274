"""AMD NPUs: what the amdxdna driver shows in the PCI device's directory, its name and its firmware's version.

Load, clocks, power and sensors are told by ioctl of the device node only, which is never opened; the driver has
no hwmon chip. Memory of its clients is in their fdinfo.

drivers/accel/amdxdna/amdxdna_sysfs.c.
"""

from collections.abc import Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Constant
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.parsers.text import text_or_empty

__all__ = ["DRIVER"]


def _needs(device: Device) -> Sequence[str]:
    return [path for path in ("fw_version",) if path in device.names]


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    version = text_or_empty(facts.get("fw_version"))
    return [(Series(gpu.FIRMWARE_INFO, (device.id, "npu", version)), 1.0)] if version else []


DRIVER = GpuDriver(
    kernel_driver="amdxdna",
    vendor="amd",
    identity={**PCI_IDENTITY, "product_name": "vbnv"},
    emits=(gpu.FIRMWARE_INFO,),
    needs=_needs,
    constants=_constants,
    example=("fw_version", "vbnv"),
)
