"""The virtual GPU of a guest: virtio-gpu, whose DRM device hangs from the PCI function of its transport.

Its driver link therefore says `virtio-pci`. There is nothing of its own to sample: no load, no memory use, no
clock, no sensor, nothing in fdinfo.

drivers/gpu/drm/virtio/virtgpu_drv.c (virtio_gpu_probe: the parent is the device for DRM).
"""

from gpudaemon.drivers import GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY

__all__ = ["DRIVER"]


DRIVER = GpuDriver(
    kernel_driver="virtio-pci",
    vendor="virtio",
    identity=PCI_IDENTITY,
    emits=(),
)
