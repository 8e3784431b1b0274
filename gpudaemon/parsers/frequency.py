"""Frequencies of clocks, in megahertz as GPU drivers print them or in hertz as devfreq does.

Documentation/ABI/testing/sysfs-class-devfreq; drivers/gpu/drm/xe/xe_gt_freq.c,
drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c, drivers/accel/ivpu/ivpu_sysfs.c.
"""

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["hertz", "hertz_or_none", "megahertz", "megahertz_or_idle"]

_MEGA = 1_000_000
_HIGHEST = 100_000 * _MEGA
"""No GPU clock reaches 100 GHz. xe prints 627200 MHz as `rpa_freq` of an Arc A380: of the sixteen bits it takes
(xe_guc_pc.c, RPA_MASK) the upper eight are the ratio there, 49 * 50 MHz."""


def _known(value: int) -> float | None:
    if value < 0:
        raise Malformed("out_of_range")
    return float(value) if value <= _HIGHEST else None


def megahertz(content: bytes) -> tuple[float | None]:
    """A number of MHz -> (hertz,); (None,) for one no clock can have; raises Malformed."""
    return (_known(integer(content) * _MEGA),)


def megahertz_or_idle(content: bytes) -> tuple[float | None]:
    """Like `megahertz` where 0 is what the driver says of a device that is not in use: (None,)."""
    return (_known(integer(content) * _MEGA) or None,)


def hertz(content: bytes) -> tuple[float | None]:
    """A number of Hz -> (hertz,); (None,) for one no clock can have; raises Malformed."""
    return (_known(integer(content)),)


def hertz_or_none(content: bytes) -> tuple[float | None]:
    """Like `hertz` where 0 is a limit that nobody set: (None,)."""
    return (_known(integer(content)) or None,)
