"""Qualcomm Cloud AI accelerators: the error counts qaic keeps in the PCI device's directory.

They are received from the device since the driver was loaded, kept in memory and wake nothing. Everything else
is told by ioctl of the device node only, which is never opened; there is no hwmon chip.

drivers/accel/qaic/qaic_ras.c; Documentation/ABI/testing/sysfs-driver-qaic.
"""

from collections.abc import Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.parsers.integer import quotient

__all__ = ["DRIVER"]

_COUNTS = {"ce_count": "corrected", "ue_count": "uncorrected", "ue_nonfatal_count": "uncorrected_nonfatal"}
"""File -> severity; the last are uncorrected too, and did not stop the device."""

_whole = quotient()


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return [
        Attribute(path, Cadence.SLOW, (Series(gpu.RAS_ERRORS, (device.id, "device", severity)),), _whole)
        for path, severity in _COUNTS.items()
        if path in device.names
    ]


DRIVER = GpuDriver(
    kernel_driver="qaic",
    vendor="qualcomm",
    identity=PCI_IDENTITY,
    emits=(gpu.RAS_ERRORS,),
    attributes=_attributes,
    example=tuple(_COUNTS),
)
