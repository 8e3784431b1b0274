"""Intel NPUs: what the ivpu driver, module `intel_vpu`, shows in the PCI device's directory.

Busy time, memory in use, scheduling mode and clocks; none of it wakes the device. The busy time is taken
under the lock that job submission takes: not more often than once a second, as the driver asks. The present
clock is 0 while the device is not in use, which is no clock. Before the directory `freq/` there were two
files beside it. There is no hwmon chip.

drivers/accel/ivpu/ivpu_sysfs.c; Documentation/ABI/testing/sysfs-driver-ivpu.
"""

from collections.abc import Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.choice import sentence
from gpudaemon.parsers.frequency import megahertz, megahertz_or_idle
from gpudaemon.parsers.integer import quotient

__all__ = ["DRIVER"]

_MODES = ("HW", "OS")
_VALUES: dict[str, tuple[Cadence, Decode, Metric, tuple[str, ...]]] = {
    "npu_busy_time_us": (Cadence.NORMAL, quotient(1_000_000), gpu_parts.BUSY_SECONDS, ("npu",)),
    "npu_memory_utilization": (Cadence.NORMAL, quotient(), gpu.MEMORY_USED, ("memory",)),
    "freq/current_freq": (Cadence.NORMAL, megahertz_or_idle, gpu.CLOCK, ("npu",)),
    "freq/hw_max_freq": (Cadence.STATIC, megahertz, gpu.CLOCK_MAX, ("npu",)),
    "freq/hw_min_freq": (Cadence.STATIC, megahertz, gpu_parts.CLOCK_LIMIT, ("npu", "hw_min")),
    "freq/hw_efficient_freq": (Cadence.STATIC, megahertz, gpu_parts.CLOCK_LIMIT, ("npu", "hw_efficient")),
    "freq/set_min_freq": (Cadence.SLOW, megahertz, gpu_parts.CLOCK_LIMIT, ("npu", "min")),
    "freq/set_max_freq": (Cadence.SLOW, megahertz, gpu_parts.CLOCK_LIMIT, ("npu", "max")),
}
_OLD = {
    "npu_current_frequency_mhz": "freq/current_freq",
    "npu_max_frequency_mhz": "freq/hw_max_freq",
}
"""Names of the same values before the directory `freq/`; newer kernels keep them beside it."""


def _values(device: Device) -> Iterator[Attribute]:
    for path in sorted(device.names):
        new = _OLD.get(path, path)
        if new not in _VALUES or (path in _OLD and new in device.names):
            continue
        cadence, decode, metric, labels = _VALUES[new]
        yield Attribute(path, cadence, (Series(metric, (device.id, *labels)),), decode)
    if "sched_mode" in device.names:
        series = tuple(Series(gpu_parts.SCHEDULER, (device.id, mode)) for mode in _MODES)
        decode = sentence([mode.lower() for mode in _MODES])
        yield Attribute("sched_mode", Cadence.SLOW, series, decode)


def _attributes(device: Device, _facts: Facts) -> Sequence[Attribute | Rows]:
    return list(_values(device))


DRIVER = GpuDriver(
    kernel_driver="intel_vpu",
    vendor="intel",
    identity=PCI_IDENTITY,
    emits=(
        gpu_parts.BUSY_SECONDS,
        gpu.MEMORY_USED,
        gpu.CLOCK,
        gpu.CLOCK_MAX,
        gpu_parts.CLOCK_LIMIT,
        gpu_parts.SCHEDULER,
    ),
    attributes=_attributes,
    example=(*_VALUES, *_OLD, "sched_mode"),
)
