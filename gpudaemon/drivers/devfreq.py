"""Clocks of GPUs that the kernel's frequency scaling drives: the files below `devfreq/NAME/`.

Frequencies are in hertz where they come from operating points (OPP), as they do for every GPU driver of the
kernel that uses devfreq. `cur_freq` asks the clock framework and wakes nothing. A limit of 0 is one nobody set.

drivers/devfreq/devfreq.c; Documentation/ABI/testing/sysfs-class-devfreq;
drivers/gpu/drm/{panfrost,panthor,lima}/*_devfreq.c.
"""

import re
from collections.abc import Iterator

from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.frequency import hertz, hertz_or_none

__all__ = ["EMITS", "EXAMPLE", "clocks"]

EMITS = (gpu.CLOCK, gpu_parts.CLOCK_REQUESTED, gpu_parts.CLOCK_LIMIT)
EXAMPLE = tuple(f"devfreq/1.gpu/{file}_freq" for file in ("cur", "target", "min", "max"))

_FILE = re.compile(r"devfreq/([^/]{1,64})/(cur|target|min|max)_freq", re.ASCII)


def clocks(device: Device) -> Iterator[Attribute]:
    """What the device's scaler says; the clock is called `core`, a second one by its scaler's name."""
    first = ""
    for path in sorted(device.names):
        found = _FILE.fullmatch(path)
        if found is None:
            continue
        scaler, file = found.groups()
        first = first or scaler
        clock = "core" if scaler == first else scaler
        if file in ("min", "max"):
            series = Series(gpu_parts.CLOCK_LIMIT, (device.id, clock, file))
            yield Attribute(path, Cadence.SLOW, (series,), hertz_or_none)
        else:
            metric: Metric = gpu.CLOCK if file == "cur" else gpu_parts.CLOCK_REQUESTED
            yield Attribute(path, Cadence.NORMAL, (Series(metric, (device.id, clock)),), hertz)
