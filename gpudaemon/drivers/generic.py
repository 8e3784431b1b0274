"""Every GPU no other driver claims: identity from its PCI function, clocks by devfreq where it has one.

What such a device has besides, temperatures and power in hwmon, links and error counters, is common to all
devices and planned elsewhere. Documentation/ABI/testing/sysfs-bus-pci.
"""

from collections.abc import Sequence

from gpudaemon.drivers import Facts, GpuDriver, devfreq
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device

__all__ = ["DRIVER", "PCI_IDENTITY"]

PCI_IDENTITY = {
    "vendor_id": "vendor",
    "device_id": "device",
    "subsystem_vendor_id": "subsystem_vendor",
    "subsystem_device_id": "subsystem_device",
    "revision": "revision",
}
"""Identity every PCI function has: label of `gpudaemon_gpu_info` -> file."""


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return list(devfreq.clocks(device))


DRIVER = GpuDriver(
    kernel_driver="",
    vendor="",
    identity=PCI_IDENTITY,
    emits=devfreq.EMITS,
    attributes=_attributes,
    example=devfreq.EXAMPLE,
)
