"""Rows of a GPU's parts and of its function on the bus: GTs, engines, virtual functions, firmware.

`domain` is the part a row is about (`gt0`), empty for the whole GPU. As in `gpudaemon.metrics.gpu`, rows are
neutral where several drivers say the same thing, and a driver fills those it can.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "BUSY_SECONDS",
    "CCS_MODE",
    "CLOCK_LIMIT",
    "CLOCK_REQUESTED",
    "COMPUTE_SLICES",
    "D3COLD_THRESHOLD",
    "ENGINE_ACTIVE_TICKS",
    "ENGINE_TICKS",
    "ENGINE_TIMEOUT",
    "HEALTH_INDICATOR",
    "IDLE_SECONDS",
    "IDLE_STATE",
    "JOBS",
    "LINK_DOWNGRADED",
    "LINK_DOWNGRADE_CAPABLE",
    "MODULE",
    "POWER_PROFILE",
    "RC6_ENABLED",
    "RESETS",
    "SCHEDULER",
    "SECURITY",
    "SRIOV_EXEC_QUANTUM",
    "SRIOV_FUNCTION_INFO",
    "SRIOV_PREEMPT_TIMEOUT",
    "SRIOV_PRIORITY",
    "SRIOV_VRAM_QUOTA",
    "STATUS",
    "SURVIVABILITY_INFO",
    "VIRTUAL_FUNCTION_INFO",
]

_I915 = "drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c"
_XE = "drivers/gpu/drm/xe"
_HL = "Documentation/ABI/testing/sysfs-driver-habanalabs"
_IVPU = "Documentation/ABI/testing/sysfs-driver-ivpu"
_SRIOV = "Documentation/ABI/testing/sysfs-driver-intel-xe-sriov"
_DEVICE = ("device",)
_FUNCTION = ("device", "function")

CLOCK_REQUESTED = Metric(
    name="gpudaemon_gpu_clock_requested_hertz",
    kind=Kind.GAUGE,
    unit=Unit.HERTZ,
    help="Frequency the driver or the firmware asks for; the clock may run slower.",
    labels=("device", "clock"),
    abi=f"{_I915}: rps_cur_freq_mhz; {_XE}/xe_gt_freq.c: cur_freq; "
    "Documentation/ABI/testing/sysfs-class-devfreq: target_freq",
)
CLOCK_LIMIT = Metric(
    name="gpudaemon_gpu_clock_limit_hertz",
    kind=Kind.GAUGE,
    unit=Unit.HERTZ,
    help="Frequency limit of a clock, named as the kernel names it: min and max are set by an administrator, "
    "rpa, rpe, rp1 and rpn are what the hardware can achieve, its efficient and its lowest frequency.",
    labels=("device", "clock", "limit"),
    abi=f"{_I915}: rps_*_freq_mhz; {_XE}/xe_gt_freq.c: *_freq; {_IVPU}: freq/*; {_HL}: clk_max_freq_mhz; "
    "Documentation/ABI/testing/sysfs-class-devfreq: min_freq, max_freq",
)
IDLE_SECONDS = Metric(
    name="gpudaemon_gpu_idle_residency_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time a part of the GPU spent in an idle state.",
    labels=("device", "domain", "state"),
    abi=f"{_I915}: *rc6*_residency_ms; {_XE}/xe_gt_idle.c: gtidle/idle_residency_ms",
)
IDLE_STATE = Metric(
    name="gpudaemon_gpu_idle_state",
    kind=Kind.STATESET,
    help="Idle state a part of the GPU is in.",
    labels=("device", "domain", "state"),
    abi=f"{_XE}/xe_gt_idle.c: gtidle/idle_status",
)
RC6_ENABLED = Metric(
    name="gpudaemon_gpu_rc6_enabled",
    kind=Kind.GAUGE,
    help="1 where the GT may go to its idle state RC6.",
    labels=("device", "domain"),
    abi=f"{_I915}: rc6_enable",
)
POWER_PROFILE = Metric(
    name="gpudaemon_gpu_power_profile",
    kind=Kind.STATESET,
    help="What the firmware's choice of frequencies aims at.",
    labels=("device", "domain", "state"),
    abi=f"{_I915}: slpc_power_profile; {_XE}/xe_guc_pc.c: freq0/power_profile",
)
COMPUTE_SLICES = Metric(
    name="gpudaemon_gpu_compute_slices",
    kind=Kind.GAUGE,
    help="Compute slices of a GT.",
    labels=("device", "domain"),
    abi=f"{_XE}/xe_gt_ccs_mode.c: num_cslices",
)
CCS_MODE = Metric(
    name="gpudaemon_gpu_ccs_mode",
    kind=Kind.GAUGE,
    help="Compute engines the compute slices of a GT are shared out among.",
    labels=("device", "domain"),
    abi=f"{_XE}/xe_gt_ccs_mode.c: ccs_mode",
)
ENGINE_TIMEOUT = Metric(
    name="gpudaemon_gpu_engine_timeout_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="How long an engine may take: job before it is reset, preempt to give way, timeslice before another's "
    "turn, heartbeat between signs of life, stop before a reset. 0 is for ever.",
    labels=("device", "domain", "engine", "timeout"),
    abi=f"{_XE}/xe_hw_engine_class_sysfs.c: engines/*; drivers/gpu/drm/i915/gt/sysfs_engines.c: engine/*",
)
BUSY_SECONDS = Metric(
    name="gpudaemon_gpu_engine_busy_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time an engine was busy since the driver was loaded, as the driver counts it, or since a perf "
    "counter of it was opened.",
    labels=("device", "engine"),
    abi=f"{_IVPU}: npu_busy_time_us; drivers/gpu/drm/v3d/v3d_sysfs.c: gpu_stats; "
    "drivers/gpu/drm/i915/i915_pmu.c: *-busy",
)
ENGINE_ACTIVE_TICKS = Metric(
    name="gpudaemon_gpu_engine_active_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks in which an engine was active; against gpudaemon_gpu_engine_ticks_total it is load.",
    labels=("device", "domain", "engine"),
    abi=f"{_XE}/xe_pmu.c: engine-active-ticks",
)
ENGINE_TICKS = Metric(
    name="gpudaemon_gpu_engine_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks of the clock by which an engine's activity is counted.",
    labels=("device", "domain", "engine"),
    abi=f"{_XE}/xe_pmu.c: engine-total-ticks",
)
JOBS = Metric(
    name="gpudaemon_gpu_engine_jobs_total",
    kind=Kind.COUNTER,
    help="Jobs an engine has done since the driver was loaded.",
    labels=("device", "engine"),
    abi="drivers/gpu/drm/v3d/v3d_sysfs.c: gpu_stats",
)
SCHEDULER = Metric(
    name="gpudaemon_gpu_scheduler_mode",
    kind=Kind.STATESET,
    help="Who schedules the jobs: HW the device's firmware, OS the driver.",
    labels=("device", "state"),
    abi="drivers/accel/ivpu/ivpu_sysfs.c: sched_mode",
)

STATUS = Metric(
    name="gpudaemon_gpu_driver_status",
    kind=Kind.STATESET,
    help="Whether the device can be used, in the driver's own words.",
    labels=("device", "state"),
    abi=f"{_HL}: status",
)
HEALTH_INDICATOR = Metric(
    name="gpudaemon_gpu_health_indicator",
    kind=Kind.STATESET,
    help="Health as the GPU's own firmware, or an administrator, has put it.",
    labels=("device", "state"),
    abi="Documentation/ABI/testing/sysfs-driver-intel-xe-ras: gpu_health",
)
RESETS = Metric(
    name="gpudaemon_gpu_resets_total",
    kind=Kind.COUNTER,
    help="Resets of the device since its driver was loaded: hard, or soft, of compute and DMA engines only.",
    labels=("device", "kind"),
    abi=f"{_HL}: hard_reset_cnt, soft_reset_cnt",
)
SURVIVABILITY_INFO = Metric(
    name="gpudaemon_gpu_survivability_info",
    kind=Kind.INFO,
    help="The driver runs the GPU for no other purpose than a repair of its firmware: since boot, or since an "
    "error. The details, and which of both, are for root; without that right their labels are empty.",
    labels=(
        "device",
        "mode",
        "fdo_mode",
        "capability_info",
        "postcode_trace",
        "postcode_trace_overflow",
    ),
    abi=f"{_XE}/xe_survivability_mode.c: survivability_mode, survivability_info/*",
)
MODULE = Metric(
    name="gpudaemon_gpu_module",
    kind=Kind.GAUGE,
    help="Number of the module on its baseboard.",
    labels=_DEVICE,
    abi=f"{_HL}: module_id",
)
SECURITY = Metric(
    name="gpudaemon_gpu_firmware_security_enabled",
    kind=Kind.GAUGE,
    help="1 where the device runs signed firmware only and keeps its registers from the host.",
    labels=_DEVICE,
    abi=f"{_HL}: security_enabled",
)
D3COLD_THRESHOLD = Metric(
    name="gpudaemon_gpu_d3cold_vram_threshold_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Use of video memory above which the GPU keeps its power when it sleeps.",
    labels=_DEVICE,
    abi=f"{_XE}/xe_device_sysfs.c: vram_d3cold_threshold",
)
LINK_DOWNGRADE_CAPABLE = Metric(
    name="gpudaemon_gpu_pcie_downgrade_capable",
    kind=Kind.GAUGE,
    help="1 where the GPU can fall back from PCIe Gen5 to Gen4 by itself when the link is not stable.",
    labels=_DEVICE,
    abi=f"{_XE}/xe_device_sysfs.c: auto_link_downgrade_capable",
)
LINK_DOWNGRADED = Metric(
    name="gpudaemon_gpu_pcie_downgraded",
    kind=Kind.GAUGE,
    help="1 where the GPU has fallen back from PCIe Gen5 to Gen4 because the link was not stable.",
    labels=_DEVICE,
    abi=f"{_XE}/xe_device_sysfs.c: auto_link_downgrade_status",
)

VIRTUAL_FUNCTION_INFO = Metric(
    name="gpudaemon_gpu_virtual_function_info",
    kind=Kind.INFO,
    help="A virtual function of the GPU `parent`, as its host sees it; not one more GPU.",
    labels=("device", "parent", "driver", "vendor", "card", "render", "accel"),
    abi="Documentation/PCI/pci-iov-howto.rst; Documentation/ABI/testing/sysfs-bus-pci: physfn",
)
SRIOV_FUNCTION_INFO = Metric(
    name="gpudaemon_gpu_sriov_function_info",
    kind=Kind.INFO,
    help="PCI address of each function of a GPU that is shared out: pf, and vf1 and so on while enabled.",
    labels=("device", "function", "address"),
    abi="Documentation/ABI/testing/sysfs-bus-pci: virtfn*",
)
SRIOV_EXEC_QUANTUM = Metric(
    name="gpudaemon_gpu_sriov_exec_quantum_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="Time slice of a function on the GTs; 0 is without an end.",
    labels=_FUNCTION,
    abi=f"{_SRIOV}: profile/exec_quantum_ms",
)
SRIOV_PREEMPT_TIMEOUT = Metric(
    name="gpudaemon_gpu_sriov_preempt_timeout_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="Time a function has to give way on the GTs; 0 is without an end.",
    labels=_FUNCTION,
    abi=f"{_SRIOV}: profile/preempt_timeout_us",
)
SRIOV_PRIORITY = Metric(
    name="gpudaemon_gpu_sriov_priority",
    kind=Kind.STATESET,
    help="Scheduling priority of a function.",
    labels=("device", "function", "state"),
    abi=f"{_SRIOV}: profile/sched_priority",
)
SRIOV_VRAM_QUOTA = Metric(
    name="gpudaemon_gpu_sriov_vram_quota_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Video memory given to a virtual function; 0 is none yet.",
    labels=_FUNCTION,
    abi=f"{_SRIOV}: profile/vram_quota",
)
