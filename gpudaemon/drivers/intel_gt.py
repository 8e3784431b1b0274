"""What the i915 and xe drivers say alike of a GT: a part of an Intel GPU with clocks and idle states.

Reasons for held clocks have the same names in both: `throttle_reason_pl1` and `throttle/reason_pl1`.
drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c, drivers/gpu/drm/xe/xe_gt_throttle.c.
"""

from gpudaemon.metrics import gpu
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series

__all__ = ["PROFILES", "throttled"]

PROFILES = ("base", "power_saving")
"""Power profiles of the GuC's frequency control."""

_CAUSES = {
    "pl1": "power",
    "pl2": "power",
    "pl4": "power",
    "psys_pl1": "power",
    "psys_pl2": "power",
    "psys_crit": "power",
    "pwrbrk": "power",
    "iccmax": "current",
    "vr_tdc": "current",
    "fastvmode": "current",
    "thermal": "thermal",
    "prochot": "thermal",
    "ratl": "thermal",
    "vr_thermalert": "thermal",
    "vr_thermal": "thermal",
    "soc_thermal": "thermal",
    "soc_avg_thermal": "thermal",
    "mem_thermal": "thermal",
}


def throttled(device: Device, domain: str, reason: str) -> Series:
    """The series of one reason of a GT."""
    return Series(gpu.THROTTLED, (device.id, domain, _CAUSES.get(reason, "other"), reason))
