"""Arm Mali GPUs (Midgard, Bifrost) of a system on chip: a platform device, clocks by devfreq.

Engine time and memory are in the fdinfo of its clients, engine time only while the file `profiling` is 1: it is
left as it is found.

drivers/gpu/drm/panfrost/panfrost_drv.c, panfrost_devfreq.c;
Documentation/ABI/testing/sysfs-driver-panfrost-profiling.
"""

from collections.abc import Sequence

from gpudaemon.drivers import Facts, GpuDriver, devfreq
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device

__all__ = ["DRIVER"]


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return list(devfreq.clocks(device))


DRIVER = GpuDriver(
    kernel_driver="panfrost",
    vendor="arm",
    identity={},
    emits=devfreq.EMITS,
    attributes=_attributes,
    example=devfreq.EXAMPLE,
)
