"""Intel GPUs driven by i915: clocks, idle residency and throttling of each GT, from below the card's node.

`drm/cardN/gt/gtM/` has one directory a GT. Kernels without it have one GT, whose files stand as `gt_*_freq_mhz`
and `power/rc6_residency_ms` in the node's directory; where both are there the old ones repeat the new. Power,
energy, temperatures, fans and voltages come from the chips `i915` and `i915_gtN` below `hwmon/` and are planned
with every other chip. Sizes and use of video memory are in no file here.

The residency is a 32-bit count of the hardware that the driver extends at each reading: it would be lost by
reading less often than about every 90 minutes, and itself starts anew after 49 days (u32 of milliseconds).
Before Gen12 a reading of the present clock wakes the GT (forcewake), so it is not among the fast ones.

drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c, intel_rps.c, intel_rc6.c, sysfs_engines.c;
Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon.
"""

import re
from collections.abc import Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver, pmu
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.drivers.intel_gt import PROFILES, throttled
from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.parsers.choice import any_bit, chosen, flag
from gpudaemon.parsers.frequency import megahertz
from gpudaemon.parsers.integer import quotient

__all__ = ["DRIVER"]

_GT = re.compile(r"drm/card\d{1,5}/gt/(gt\d{1,3})/([A-Za-z0-9_]{1,48})", re.ASCII)
_OLD = re.compile(r"drm/card\d{1,5}/(gt_\w{1,24}_mhz|power/\w{1,24})", re.ASCII)
_ENGINE = re.compile(r"drm/card\d{1,5}/engine/([a-z]{1,8}\d{1,3})/([a-z0-9_]{1,32})", re.ASCII)
_REASON = re.compile(r"throttle_reason_([a-z0-9_]{1,24})", re.ASCII)

_LIMITS = {
    "rps_max_freq_mhz": ("", "max"),
    "rps_min_freq_mhz": ("", "min"),
    "rps_boost_freq_mhz": ("", "boost"),
    "rps_RP1_freq_mhz": ("", "rp1"),
    "rps_RPn_freq_mhz": ("", "rpn"),
    "rps_vlv_rpe_freq_mhz": ("", "rpe"),
    "media_RPn_freq_mhz": (" media", "rpn"),
}
"""File of a GT -> what its clock's name ends in, name of the limit."""
_RESIDENCIES = {
    "rc6_residency_ms": "rc6",
    "rc6p_residency_ms": "rc6p",
    "rc6pp_residency_ms": "rc6pp",
    "media_rc6_residency_ms": "media_rc6",
}
_TIMEOUTS = {
    "heartbeat_interval_ms": ("heartbeat", 1000),
    "preempt_timeout_ms": ("preempt", 1000),
    "timeslice_duration_ms": ("timeslice", 1000),
    "stop_timeout_ms": ("stop", 1000),
}
"""File of an engine -> name of the timeout, divisor to seconds."""

_milliseconds = quotient(1000)


def _of_gt(device: Device, path: str, gt: str, file: str) -> Iterator[Attribute]:
    """What one file of a GT gives."""

    def one(cadence: Cadence, decode: Decode, *series: Series) -> Attribute:
        return Attribute(path, cadence, series, decode)

    if file == "rps_act_freq_mhz":
        yield one(Cadence.NORMAL, megahertz, Series(gpu.CLOCK, (device.id, gt)))
    elif file == "rps_cur_freq_mhz":
        yield one(Cadence.NORMAL, megahertz, Series(gpu_parts.CLOCK_REQUESTED, (device.id, gt)))
    elif file == "rps_RP0_freq_mhz":
        yield one(Cadence.SLOW, megahertz, Series(gpu.CLOCK_MAX, (device.id, gt)))
    elif file == "media_RP0_freq_mhz":
        yield one(Cadence.SLOW, megahertz, Series(gpu.CLOCK_MAX, (device.id, f"{gt} media")))
    elif file in _LIMITS:
        end, limit = _LIMITS[file]
        yield one(Cadence.SLOW, megahertz, Series(gpu_parts.CLOCK_LIMIT, (device.id, gt + end, limit)))
    elif file in _RESIDENCIES:
        series = Series(gpu_parts.IDLE_SECONDS, (device.id, gt, _RESIDENCIES[file]))
        yield one(Cadence.NORMAL, _milliseconds, series)
    elif file == "rc6_enable":
        yield one(Cadence.SLOW, any_bit, Series(gpu_parts.RC6_ENABLED, (device.id, gt)))
    elif file == "slpc_power_profile":
        states = (Series(gpu_parts.POWER_PROFILE, (device.id, gt, state)) for state in PROFILES)
        yield one(Cadence.SLOW, chosen(PROFILES), *states)
    elif (found := _REASON.fullmatch(file)) and found.group(1) != "status":  # status: any of the others
        yield one(Cadence.NORMAL, flag, throttled(device, gt, found.group(1)))


def _gts(device: Device) -> Iterator[Attribute]:
    found = [(path, match) for path in sorted(device.names) if (match := _GT.fullmatch(path))]
    for path, match in found:
        yield from _of_gt(device, path, *match.groups())
    if found:
        return
    for path in sorted(device.names):
        if old := _OLD.fullmatch(path):
            file = old.group(1).removeprefix("power/")
            yield from _of_gt(device, path, "gt0", f"rps_{file[3:]}" if file.startswith("gt_") else file)


def _engines(device: Device) -> Iterator[Attribute]:
    for path in sorted(device.names):
        found = _ENGINE.fullmatch(path)
        if found is not None and found.group(2) in _TIMEOUTS:
            timeout, divisor = _TIMEOUTS[found.group(2)]
            series = Series(gpu_parts.ENGINE_TIMEOUT, (device.id, "", found.group(1), timeout))
            yield Attribute(path, Cadence.SLOW, (series,), quotient(divisor))


def _needs(device: Device) -> Sequence[str]:
    return pmu.needed(device)


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    return [*_gts(device), *_engines(device), *pmu.i915_counters(device, facts)]


_REASONS = ("status", "pl1", "pl2", "pl4", "thermal", "prochot", "ratl", "vr_thermalert", "vr_tdc")

DRIVER = GpuDriver(
    kernel_driver="i915",
    vendor="intel",
    identity=PCI_IDENTITY,
    emits=(
        gpu.CLOCK,
        gpu.CLOCK_MAX,
        gpu_parts.CLOCK_REQUESTED,
        gpu_parts.CLOCK_LIMIT,
        gpu_parts.IDLE_SECONDS,
        gpu_parts.RC6_ENABLED,
        gpu_parts.POWER_PROFILE,
        gpu_parts.ENGINE_TIMEOUT,
        gpu_parts.BUSY_SECONDS,
        gpu.THROTTLED,
        gpu.THROTTLED_SECONDS,
    ),
    called=(gpu_parts.BUSY_SECONDS,),
    needs=_needs,
    attributes=_attributes,
    example=(
        "drm/card0/gt/gt0/rps_act_freq_mhz",
        "drm/card0/gt/gt0/rps_cur_freq_mhz",
        "drm/card0/gt/gt0/rps_RP0_freq_mhz",
        "drm/card0/gt/gt0/media_RP0_freq_mhz",
        "drm/card0/gt/gt0/rc6_enable",
        "drm/card0/gt/gt0/slpc_power_profile",
        *(f"drm/card0/gt/gt0/{file}" for file in (*_LIMITS, *_RESIDENCIES)),
        *(f"drm/card0/gt/gt0/throttle_reason_{reason}" for reason in _REASONS),
        *(f"drm/card0/engine/rcs0/{file}" for file in _TIMEOUTS),
    ),
)
