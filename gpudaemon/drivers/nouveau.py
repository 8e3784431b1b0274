"""NVIDIA GPUs driven by nouveau: identity from the PCI function, sensors from its hwmon chip.

The driver has no file of its own to sample. Its chip `nouveau` below `hwmon/` has a temperature with limits, a
fan, a voltage and a power, each only where the VBIOS knows it, and none of most on GPUs that run GSP firmware
(Turing and later); it is planned with every other chip. A sensor of a sleeping GPU answers EINVAL: all are read
behind the power-state gate. There is no load, no memory use and nothing in fdinfo.

drivers/gpu/drm/nouveau/nouveau_hwmon.c.
"""

from gpudaemon.drivers import GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY

__all__ = ["DRIVER"]


DRIVER = GpuDriver(
    kernel_driver="nouveau",
    vendor="nvidia",
    identity=PCI_IDENTITY,
    emits=(),
)
