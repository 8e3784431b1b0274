"""Intel GPUs driven by xe: clocks, idle residency and throttling of each GT, SR-IOV functions, health, repair.

`tileT/gtG/` in the PCI device's directory has one directory a GT, and G is unique in the device. Power limits,
energy, temperatures and fans come from the chip `xe` below `hwmon/` and are planned with every other chip;
many parts have no power sensor, there power is what the energy counter gains. Sizes and use of video memory
are in no file here.

Nearly every file RESUMES a sleeping device (xe_pm_runtime), and those of `memory/freq0` send the firmware a
message without doing so: all are read behind the power-state gate only. The clock asked for (`cur_freq`)
holds the GT awake while it is read (forcewake), and `min_freq` and `max_freq` ask the GuC: seldom. The idle
residency is a 32-bit count of the hardware that the driver extends at each reading, as in i915.

A GPU in survivability mode is bound to xe, may have no DRM node at all and only waits to be flashed: the file
`survivability_mode`, for root, is there in no other case, so its presence alone tells.

drivers/gpu/drm/xe: xe_gt_freq.c, xe_guc_pc.c, xe_gt_throttle.c, xe_gt_idle.c, xe_vram_freq.c, xe_gt_ccs_mode.c,
xe_hw_engine_class_sysfs.c, xe_device_sysfs.c, xe_survivability_mode.c, xe_ras.c (gpu_health);
Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon, -sriov, -ras.
"""

import re
from collections.abc import Iterator, Sequence

from gpudaemon.drivers import Facts, GpuDriver, drm_ras, pmu
from gpudaemon.drivers.firmware import version_row
from gpudaemon.drivers.generic import PCI_IDENTITY
from gpudaemon.drivers.intel_gt import PROFILES, throttled
from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence, Constant, Decode, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.choice import chosen, flag, holding
from gpudaemon.parsers.frequency import megahertz
from gpudaemon.parsers.integer import integer, quotient, words
from gpudaemon.parsers.text import text_or_empty

__all__ = ["DRIVER"]

_GT = re.compile(r"tile\d{1,2}/(gt\d{1,3})/([a-z0-9_/]{1,48})", re.ASCII)
_MEMORY = re.compile(r"tile(\d{1,2})/memory/freq0/(min|max)_freq", re.ASCII)
_REASON = re.compile(r"freq0/throttle/reason_([a-z0-9_]{1,24})", re.ASCII)
_ENGINE = re.compile(r"engines/([a-z]{1,8})/([a-z_]{1,32})", re.ASCII)
_PROFILE = re.compile(r"sriov_admin/(pf|vf\d{1,4})/profile/([a-z_]{1,24})", re.ASCII)

_LIMITS = ("min", "max", "rpa", "rpe", "rpn")
_IDLE = ("gt-c0", "gt-c6")
_TIMEOUTS = {
    "job_timeout_ms": ("job", 1000),
    "preempt_timeout_us": ("preempt", 1_000_000),
    "timeslice_duration_us": ("timeslice", 1_000_000),
}
"""File of an engine class -> name of the timeout, divisor to seconds."""
_PRIORITIES = ("low", "normal", "high")
_SHARES: dict[str, tuple[Metric, int]] = {
    "exec_quantum_ms": (gpu_parts.SRIOV_EXEC_QUANTUM, 1000),
    "preempt_timeout_us": (gpu_parts.SRIOV_PREEMPT_TIMEOUT, 1_000_000),
    "vram_quota": (gpu_parts.SRIOV_VRAM_QUOTA, 1),
}
_HEALTH = ("ok", "warning", "critical")
_FLAGS = {
    "auto_link_downgrade_capable": gpu_parts.LINK_DOWNGRADE_CAPABLE,
    "auto_link_downgrade_status": gpu_parts.LINK_DOWNGRADED,
}
_LATE_BINDING = re.compile(r"lb_([a-z_]{1,32})_version", re.ASCII)
_UNPROVISIONED = "0.0.0.0"

_SURVIVABILITY = "survivability_mode"
_DETAILS = ("fdo_mode", "capability_info", "postcode_trace", "postcode_trace_overflow")

_milliseconds = quotient(1000)
_whole = quotient()


def _mebibytes(content: bytes) -> tuple[float]:
    return (float(integer(content) << 20),)


def _clock(device: Device, path: str, gt: str, file: str) -> Iterator[Attribute]:
    name = file.removeprefix("freq0/").removesuffix("_freq")
    if name == "act":
        yield Attribute(path, Cadence.FAST, (Series(gpu.CLOCK, (device.id, gt)),), megahertz)
    elif name == "cur":
        yield Attribute(path, Cadence.SLOW, (Series(gpu_parts.CLOCK_REQUESTED, (device.id, gt)),), megahertz)
    elif name == "rp0":
        yield Attribute(path, Cadence.SLOW, (Series(gpu.CLOCK_MAX, (device.id, gt)),), megahertz)
    elif name in _LIMITS:
        series = Series(gpu_parts.CLOCK_LIMIT, (device.id, gt, name))
        yield Attribute(path, Cadence.SLOW, (series,), megahertz)


def _throttle(device: Device, directory: str, gt: str, reasons: Sequence[str]) -> Iterator[Attribute]:
    """Reasons of one GT: all in one file, read at one moment, where the kernel has it; else one file each."""
    path = f"{directory}freq0/throttle/reasons"
    if path in device.names:
        series = tuple(throttled(device, gt, reason) for reason in reasons)
        yield Attribute(path, Cadence.NORMAL, series, holding(reasons, none="none"), limit=512)
        return
    for reason in reasons:
        own = f"{directory}freq0/throttle/reason_{reason}"
        yield Attribute(own, Cadence.NORMAL, (throttled(device, gt, reason),), flag)


def _of_gt(device: Device, path: str, gt: str, file: str) -> Iterator[Attribute]:
    """What one file of a GT gives, reasons for throttling apart."""

    def one(cadence: Cadence, metric: Metric, decode: Decode, states: Sequence[str] = ()) -> Attribute:
        series = tuple(Series(metric, (device.id, gt, state)) for state in states)
        return Attribute(path, cadence, series or (Series(metric, (device.id, gt)),), decode)

    if file == "gtidle/idle_residency_ms":
        yield one(Cadence.NORMAL, gpu_parts.IDLE_SECONDS, _milliseconds, ("gt-c6",))
    elif file == "gtidle/idle_status":
        yield one(Cadence.NORMAL, gpu_parts.IDLE_STATE, words(_IDLE, unknown=("unknown",)), _IDLE)
    elif file == "freq0/power_profile":
        yield one(Cadence.SLOW, gpu_parts.POWER_PROFILE, chosen(PROFILES), PROFILES)
    elif file == "num_cslices":
        yield one(Cadence.SLOW, gpu_parts.COMPUTE_SLICES, _whole)
    elif file == "ccs_mode":
        yield one(Cadence.SLOW, gpu_parts.CCS_MODE, _whole)
    elif (found := _ENGINE.fullmatch(file)) and found.group(2) in _TIMEOUTS:
        timeout, divisor = _TIMEOUTS[found.group(2)]
        series = Series(gpu_parts.ENGINE_TIMEOUT, (device.id, gt, found.group(1), timeout))
        yield Attribute(path, Cadence.SLOW, (series,), quotient(divisor))


def _gts(device: Device) -> Iterator[Attribute]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for path in sorted(device.names):
        found = _GT.fullmatch(path)
        if found is None:
            continue
        gt, file = found.groups()
        if reason := _REASON.fullmatch(file):
            reasons.setdefault((path.removesuffix(file), gt), []).append(reason.group(1))
        elif file.startswith("freq0/") and file.endswith("_freq"):
            yield from _clock(device, path, gt, file)
        else:
            yield from _of_gt(device, path, gt, file)
    for (directory, gt), names in reasons.items():
        yield from _throttle(device, directory, gt, names)


def _memory_clocks(device: Device) -> Iterator[Attribute]:
    """What the memory's clock can be: burnt into fuses."""
    for path in sorted(device.names):
        if found := _MEMORY.fullmatch(path):
            clock, limit = f"tile{found.group(1)} memory", found.group(2)
            series = Series(gpu_parts.CLOCK_LIMIT, (device.id, clock, limit))
            if limit == "max":
                series = Series(gpu.CLOCK_MAX, (device.id, clock))
            yield Attribute(path, Cadence.STATIC, (series,), megahertz)


def _functions(device: Device) -> Iterator[Attribute]:
    """Shares of the physical function and of the virtual ones that are enabled."""
    enabled = {name for name, _ in device.links if name.startswith("virtfn")}
    for path in sorted(device.names):
        found = _PROFILE.fullmatch(path)
        if found is None:
            continue
        function, file = found.groups()
        if function != "pf" and f"virtfn{int(function[2:]) - 1}" not in enabled:
            continue
        if file == "sched_priority":
            states = (Series(gpu_parts.SRIOV_PRIORITY, (device.id, function, word)) for word in _PRIORITIES)
            yield Attribute(path, Cadence.SLOW, tuple(states), chosen(_PRIORITIES))
        elif file in _SHARES:
            metric, divisor = _SHARES[file]
            yield Attribute(path, Cadence.SLOW, (Series(metric, (device.id, function)),), quotient(divisor))


def _device(device: Device) -> Iterator[Attribute | Rows]:
    for path, metric in _FLAGS.items():
        if path in device.names:
            yield Attribute(path, Cadence.SLOW, (Series(metric, (device.id,)),), flag)
    if "vram_d3cold_threshold" in device.names:
        series = Series(gpu_parts.D3COLD_THRESHOLD, (device.id,))
        yield Attribute("vram_d3cold_threshold", Cadence.SLOW, (series,), _mebibytes)
    if "gpu_health" in device.names:
        states = tuple(Series(gpu_parts.HEALTH_INDICATOR, (device.id, state)) for state in _HEALTH)
        yield Attribute("gpu_health", Cadence.SLOW, states, words(_HEALTH))
    for path in sorted(device.names):
        if found := _LATE_BINDING.fullmatch(path):
            decode = version_row(device.id, found.group(1), _UNPROVISIONED)
            yield Rows(path, Cadence.STATIC, decode, (gpu.FIRMWARE_INFO,), limit=64, bound=1)


def _needs(device: Device) -> Sequence[str]:
    wanted = (_SURVIVABILITY, *(f"survivability_info/{name}" for name in _DETAILS))
    return [*(path for path in wanted if path in device.names), *pmu.needed(device)]


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    return [
        *_gts(device),
        *_memory_clocks(device),
        *_functions(device),
        *_device(device),
        *drm_ras.error_counters(device),
        *pmu.xe_counters(device, facts),
    ]


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    if _SURVIVABILITY not in device.names:
        return ()
    details = (text_or_empty(facts.get(f"survivability_info/{name}")) for name in _DETAILS)
    values = (device.id, text_or_empty(facts.get(_SURVIVABILITY)), *details)
    return [(Series(gpu_parts.SURVIVABILITY_INFO, values), 1.0)]


_REASONS = ("pl1", "pl2", "pl4", "thermal", "prochot", "ratl", "vr_thermalert", "vr_tdc")

_CALLED = (gpu.RAS_ERRORS, gpu_parts.ENGINE_ACTIVE_TICKS, gpu_parts.ENGINE_TICKS)

DRIVER = GpuDriver(
    kernel_driver="xe",
    vendor="intel",
    identity=PCI_IDENTITY,
    emits=(
        gpu.CLOCK,
        *gpu.CLOCK_WINDOW,
        gpu.CLOCK_MAX,
        gpu_parts.CLOCK_REQUESTED,
        gpu_parts.CLOCK_LIMIT,
        gpu_parts.IDLE_SECONDS,
        gpu_parts.IDLE_STATE,
        gpu_parts.POWER_PROFILE,
        gpu_parts.ENGINE_TIMEOUT,
        gpu_parts.COMPUTE_SLICES,
        gpu_parts.CCS_MODE,
        gpu.THROTTLED,
        gpu.THROTTLED_SECONDS,
        gpu_parts.SRIOV_EXEC_QUANTUM,
        gpu_parts.SRIOV_PREEMPT_TIMEOUT,
        gpu_parts.SRIOV_PRIORITY,
        gpu_parts.SRIOV_VRAM_QUOTA,
        gpu_parts.HEALTH_INDICATOR,
        gpu_parts.SURVIVABILITY_INFO,
        gpu_parts.D3COLD_THRESHOLD,
        gpu_parts.LINK_DOWNGRADE_CAPABLE,
        gpu_parts.LINK_DOWNGRADED,
        gpu.FIRMWARE_INFO,
        *_CALLED,
    ),
    called=_CALLED,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
    example=(
        *(f"tile0/gt0/freq0/{name}_freq" for name in ("act", "cur", "rp0", *_LIMITS)),
        "tile0/gt0/freq0/throttle/reasons",
        *(f"tile0/gt0/freq0/throttle/reason_{reason}" for reason in _REASONS),
        *(f"tile0/gt1/freq0/throttle/reason_{reason}" for reason in _REASONS),
        "tile0/gt0/freq0/power_profile",
        "tile0/gt0/gtidle/idle_status",
        "tile0/gt0/gtidle/idle_residency_ms",
        "tile0/gt0/num_cslices",
        "tile0/gt0/ccs_mode",
        *(f"tile0/gt0/engines/rcs/{file}" for file in _TIMEOUTS),
        "tile0/memory/freq0/min_freq",
        "tile0/memory/freq0/max_freq",
        *(f"sriov_admin/pf/profile/{file}" for file in (*_SHARES, "sched_priority")),
        *_FLAGS,
        "gpu_health",
        "vram_d3cold_threshold",
        "lb_fan_control_version",
        "lb_voltage_regulator_version",
        _SURVIVABILITY,
        *(f"survivability_info/{name}" for name in _DETAILS),
    ),
)
