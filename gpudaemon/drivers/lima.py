"""Arm Mali GPUs (Utgard) of a system on chip: a platform device, clocks by devfreq.

The driver has no fdinfo and no sensor. Its binary file `error` in the device's directory holds dumps of failed
tasks and is not read.

drivers/gpu/drm/lima/lima_drv.c, lima_devfreq.c.
"""

from collections.abc import Sequence

from gpudaemon.drivers import Facts, GpuDriver, devfreq
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device

__all__ = ["DRIVER"]


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return list(devfreq.clocks(device))


DRIVER = GpuDriver(
    kernel_driver="lima",
    vendor="arm",
    identity={},
    emits=devfreq.EMITS,
    attributes=_attributes,
    example=devfreq.EXAMPLE,
)
