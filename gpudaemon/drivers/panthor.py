"""Arm Mali GPUs (Valhall, with a command stream front end) of a system on chip: clocks by devfreq.

Engine time and memory are in the fdinfo of its clients, engine time only while the file `profiling` is not
0: it is left as it is found.

drivers/gpu/drm/panthor/panthor_drv.c, panthor_devfreq.c;
Documentation/ABI/testing/sysfs-driver-panthor-profiling.
"""

from collections.abc import Sequence

from gpudaemon.drivers import Facts, GpuDriver, devfreq
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device

__all__ = ["DRIVER"]


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return list(devfreq.clocks(device))


DRIVER = GpuDriver(
    kernel_driver="panthor",
    vendor="arm",
    identity={},
    emits=devfreq.EMITS,
    attributes=_attributes,
    example=devfreq.EXAMPLE,
)
