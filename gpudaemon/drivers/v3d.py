"""Broadcom VideoCore GPUs (Raspberry Pi): busy time and jobs of each queue, from one file of a platform device.

`gpu_stats` is kept in memory and wakes nothing. The clock is the firmware's and in no file here.

drivers/gpu/drm/v3d/v3d_sysfs.c.
"""

from collections.abc import Callable, Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.metrics import gpu_parts
from gpudaemon.model.attribute import TEXT_LIMIT, Attribute, Cadence, Row, Rows
from gpudaemon.model.device import Device
from gpudaemon.parsers.v3d import queues

__all__ = ["DRIVER"]

_METRICS = (gpu_parts.BUSY_SECONDS, gpu_parts.JOBS)
_NANOSECONDS = 1e9


def _rows(device: str) -> Callable[[bytes], Iterator[Row]]:
    def decode(content: bytes) -> Iterator[Row]:
        for name, jobs, runtime in queues(content):
            yield gpu_parts.BUSY_SECONDS, (device, name), runtime / _NANOSECONDS
            yield gpu_parts.JOBS, (device, name), float(jobs)

    return decode


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    if "gpu_stats" not in device.names:
        return ()
    return [Rows("gpu_stats", Cadence.NORMAL, _rows(device.id), _METRICS, limit=TEXT_LIMIT, bound=64)]


DRIVER = GpuDriver(
    kernel_driver="v3d",
    vendor="broadcom",
    identity={},
    emits=_METRICS,
    attributes=_attributes,
    example=("gpu_stats",),
)
