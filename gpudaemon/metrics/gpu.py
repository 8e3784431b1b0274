"""Rows of GPUs: what they do, use, draw and suffer.

Rows are neutral: a driver fills those it can. Limits share a row per quantity, told apart by the kernel's own
word in `limit` (crit, emergency, cap, cap_max): one query shows the distance to every limit. Power that the
chip measures momentarily and as an average are two rows, and `gpudaemon_gpu_power_watts` is there for either,
so that a sum over hosts neither misses cards nor counts them twice.

Rows that are read fast also have their minimum, maximum and mean over fixed windows of time, and some have a
counter of what they amounted to, so that nothing between two scrapes is lost: see docs/windows.md.
"""

from collections.abc import Mapping

from gpudaemon.metrics.windows import WindowRows, window_rows
from gpudaemon.model.metric import Kind, Metric, Unit

_HWMON = "Documentation/hwmon/sysfs-interface.rst"
_AMDGPU_PM = "drivers/gpu/drm/amd/pm/amdgpu_pm.c"
_DEVICE = ("device",)
_SENSOR = ("device", "sensor")
_LIMIT = ("device", "sensor", "limit")


def _gauge(
    name: str, unit: Unit, help_text: str, labels: tuple[str, ...], abi: str, *, otel: str = ""
) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, unit=unit, help=help_text, labels=labels, abi=abi, otel=otel)


INFO = Metric(
    name="gpudaemon_gpu_info",
    kind=Kind.INFO,
    help="Identity of a GPU: card numbers, names and serials, which may change, live here and nowhere else.",
    labels=(
        "device",
        "driver",
        "vendor",
        "card",
        "render",
        "accel",
        "vendor_id",
        "device_id",
        "subsystem_vendor_id",
        "subsystem_device_id",
        "revision",
        "product_name",
        "product_number",
        "serial_number",
        "unique_id",
        "vbios_version",
        "memory_vendor",
    ),
    abi="Documentation/ABI/testing/sysfs-bus-pci, Documentation/gpu/amdgpu/driver-misc.rst",
)
PARTITION_INFO = Metric(
    name="gpudaemon_gpu_partition_info",
    kind=Kind.INFO,
    help="A partition of a GPU that has DRM nodes of its own; not one more GPU.",
    labels=("device", "card", "render", "parent"),
    abi="drivers/gpu/drm/amd/amdxcp/amdgpu_xcp_drv.c, drivers/gpu/drm/amd/amdkfd/kfd_topology.c",
)
FIRMWARE_INFO = Metric(
    name="gpudaemon_gpu_firmware_info",
    kind=Kind.INFO,
    help="Firmware version of a part of the GPU, as the driver prints it.",
    labels=("device", "component", "version"),
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_ucode.c: fw_version/*_fw_version",
)

BUSY = _gauge(
    "gpudaemon_gpu_busy_ratio",
    Unit.RATIO,
    "Share of time an engine was busy, as the GPU's firmware averages it.",
    ("device", "engine"),
    f"{_AMDGPU_PM}: gpu_busy_percent, mem_busy_percent, vcn_busy_percent",
    otel="hw.gpu.utilization",
)
BUSY_WINDOW = window_rows(BUSY)
MEMORY_USED = _gauge(
    "gpudaemon_gpu_memory_used_bytes",
    Unit.BYTES,
    "Memory in use; vis_vram is the part of vram the CPU can see, gtt is system memory mapped by the GPU.",
    ("device", "pool"),
    "Documentation/gpu/amdgpu/driver-misc.rst: mem_info_*_used",
    otel="hw.gpu.memory.usage",
)
MEMORY_TOTAL = _gauge(
    "gpudaemon_gpu_memory_total_bytes",
    Unit.BYTES,
    "Size of a memory pool.",
    ("device", "pool"),
    "Documentation/gpu/amdgpu/driver-misc.rst: mem_info_*_total",
    otel="hw.gpu.memory.limit",
)

CLOCK = _gauge(
    "gpudaemon_gpu_clock_hertz",
    Unit.HERTZ,
    "Present frequency of a clock.",
    ("device", "clock"),
    f"{_AMDGPU_PM}: freq[1-*]_input",
)
CLOCK_WINDOW = window_rows(CLOCK)
CLOCK_LEVEL = _gauge(
    "gpudaemon_gpu_clock_level_hertz",
    Unit.HERTZ,
    "Frequency of the level a clock is at; no sample while the driver marks several.",
    ("device", "clock"),
    f"{_AMDGPU_PM}: pp_dpm_*",
)
CLOCK_MAX = _gauge(
    "gpudaemon_gpu_clock_max_hertz",
    Unit.HERTZ,
    "Frequency of a clock's highest level.",
    ("device", "clock"),
    f"{_AMDGPU_PM}: pp_dpm_*",
)
PCIE_LEVEL_TRANSFERS = _gauge(
    "gpudaemon_gpu_pcie_level_transfers_per_second",
    Unit.TRANSFERS_PER_SECOND,
    "Link speed of the PCIe level the firmware has chosen, per lane.",
    _DEVICE,
    f"{_AMDGPU_PM}: pp_dpm_pcie",
)
PCIE_LEVEL_WIDTH = _gauge(
    "gpudaemon_gpu_pcie_level_width",
    Unit.NONE,
    "Lanes of the PCIe level the firmware has chosen.",
    _DEVICE,
    f"{_AMDGPU_PM}: pp_dpm_pcie",
)
PCIE_REPLAYS = Metric(
    name="gpudaemon_gpu_pcie_replays_total",
    kind=Kind.COUNTER,
    help="PCIe packets sent again after the other end refused them: a bad link before it fails.",
    labels=_DEVICE,
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_device.c: pcie_replay_count",
)

RAS_ERRORS = Metric(
    name="gpudaemon_gpu_ras_errors_total",
    kind=Kind.COUNTER,
    help="Errors of a hardware block since the driver was loaded.",
    labels=("device", "block", "severity"),
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c: ras/*_err_count (ce, ue, de)",
    otel="hw.errors",
)
RAS_EVENTS = Metric(
    name="gpudaemon_gpu_ras_events_total",
    kind=Kind.COUNTER,
    help="Error events of the whole GPU since the driver was loaded: fatal errors, poison created or consumed.",
    labels=("device", "event"),
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c: ras/event_state",
)
RAS_BAD_PAGES = _gauge(
    "gpudaemon_gpu_ras_bad_pages",
    Unit.NONE,
    "Memory pages taken out of use: reserved, pending or failed to reserve.",
    ("device", "state"),
    "drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c: ras/gpu_vram_bad_pages",
)

_THROTTLE_ABI = (
    "drivers/gpu/drm/amd/include/kgd_pp_interface.h: gpu_metrics, indep_throttle_status; "
    "drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c: throttle_reason_*; "
    "drivers/gpu/drm/xe/xe_gt_throttle.c: throttle/reasons"
)
_THROTTLE = ("device", "domain", "cause", "reason")
THROTTLED = _gauge(
    "gpudaemon_gpu_throttled",
    Unit.NONE,
    "1 while the firmware holds clocks down for this reason, in the kernel's own word (`pl1`, `vr_tdc`); cause "
    "is what it comes to on any GPU: power, current, thermal, other. domain is the part held down (`gt0`), "
    "empty for the whole GPU.",
    _THROTTLE,
    _THROTTLE_ABI,
)
THROTTLED_SECONDS = Metric(
    name="gpudaemon_gpu_throttled_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time the firmware was seen holding clocks down for this reason.",
    labels=_THROTTLE,
    abi=_THROTTLE_ABI,
)

PERFORMANCE_LEVEL = Metric(
    name="gpudaemon_gpu_performance_level",
    kind=Kind.STATESET,
    help="How clocks are chosen; anything but auto was set by somebody.",
    labels=("device", "state"),
    abi=f"{_AMDGPU_PM}: power_dpm_force_performance_level",
)
COMPUTE_PARTITION = Metric(
    name="gpudaemon_gpu_compute_partition",
    kind=Kind.STATESET,
    help="How the GPU is divided for compute.",
    labels=("device", "state"),
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_gfx.c: current_compute_partition",
)
MEMORY_PARTITION = Metric(
    name="gpudaemon_gpu_memory_partition",
    kind=Kind.STATESET,
    help="How the GPU's memory is divided among its NUMA domains.",
    labels=("device", "state"),
    abi="drivers/gpu/drm/amd/amdgpu/amdgpu_gmc.c: current_memory_partition",
)

TEMPERATURE = _gauge(
    "gpudaemon_gpu_temperature_celsius",
    Unit.CELSIUS,
    "Temperature.",
    _SENSOR,
    f"{_HWMON}: temp[1-*]_input",
    otel="hw.temperature",
)
TEMPERATURE_WINDOW = window_rows(TEMPERATURE)
TEMPERATURE_LIMIT = _gauge(
    "gpudaemon_gpu_temperature_limit_celsius",
    Unit.CELSIUS,
    "Temperature limit, named as the kernel names it: at crit the GPU throttles, at emergency it shuts down.",
    _LIMIT,
    f"{_HWMON}: temp[1-*]_{{crit,emergency,...}}",
    otel="hw.temperature.limit",
)
TEMPERATURE_ABOVE_CRITICAL = Metric(
    name="gpudaemon_gpu_temperature_above_critical_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time the temperature was seen at its critical limit or above.",
    labels=_SENSOR,
    abi=f"{_HWMON}: temp[1-*]_input, temp[1-*]_crit",
)
THERMAL_CAP = _gauge(
    "gpudaemon_gpu_thermal_cap_celsius",
    Unit.CELSIUS,
    "Temperature an APU throttles at.",
    _DEVICE,
    f"{_AMDGPU_PM}: apu_thermal_cap",
)
POWER = _gauge(
    "gpudaemon_gpu_power_watts",
    Unit.WATTS,
    "Power drawn now, or its average where the GPU has nothing else; where it only counts energy, what that "
    "counter gained in the last seconds.",
    _SENSOR,
    f"{_HWMON}: power[1-*]_{{input,average}}",
    otel="hw.power",
)
POWER_WINDOW = window_rows(POWER)
POWER_AVERAGE = _gauge(
    "gpudaemon_gpu_power_average_watts",
    Unit.WATTS,
    "Power drawn, averaged by the GPU.",
    _SENSOR,
    f"{_HWMON}: power[1-*]_average",
)
POWER_LIMIT = _gauge(
    "gpudaemon_gpu_power_limit_watts",
    Unit.WATTS,
    "Power limit, named as the kernel names it: cap is in force, cap_default the maker's, cap_max the highest.",
    _LIMIT,
    f"{_HWMON}: power[1-*]_{{cap,max,crit,...}}",
)
POWER_ABOVE_CAP = Metric(
    name="gpudaemon_gpu_power_above_cap_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time the power was seen at the cap in force or above.",
    labels=_SENSOR,
    abi=f"{_HWMON}: power[1-*]_{{input,average}}, power[1-*]_cap",
)
POWER_SENSOR_UPDATE = _gauge(
    "gpudaemon_gpu_power_sensor_update_seconds",
    Unit.SECONDS,
    "Time between two changes of what the power sensor says, median of the last; no sample while it changes "
    "at nearly every reading, for then it is shorter than can be seen.",
    _SENSOR,
    f"{_HWMON}: power[1-*]_{{input,average}}",
)
ENERGY = Metric(
    name="gpudaemon_gpu_energy_joules_total",
    kind=Kind.COUNTER,
    unit=Unit.JOULES,
    help="Energy used: hardware counts since the driver was loaded or the GPU last woke; integrated is power "
    "summed up over the time the daemon saw it, where the GPU has no counter.",
    labels=("device", "sensor", "source"),
    abi=f"{_HWMON}: energy[1-*]_input, power[1-*]_{{input,average}}",
    otel="hw.energy",
)
DOMAIN_POWER = _gauge(
    "gpudaemon_gpu_domain_power_watts",
    Unit.WATTS,
    "Power of a part of the package, of which gpudaemon_gpu_power_watts is the whole.",
    ("device", "domain"),
    "drivers/gpu/drm/amd/include/kgd_pp_interface.h: gpu_metrics 2.x and 3.0, average_*_power",
)
MEMORY_BANDWIDTH = _gauge(
    "gpudaemon_gpu_memory_bandwidth_bytes_per_second",
    Unit.BYTES_PER_SECOND,
    "Traffic of the package's memory (dram) or of a part with it, as the firmware averages it.",
    ("device", "agent", "direction"),
    "drivers/gpu/drm/amd/include/kgd_pp_interface.h: gpu_metrics 3.0, average_{dram,ipu}_{reads,writes}",
)
BOARD_POWER = _gauge(
    "gpudaemon_gpu_board_power_watts",
    Unit.WATTS,
    "Power of the node and of the baseboard a GPU module sits on.",
    _SENSOR,
    f"{_AMDGPU_PM}: board/{{node_power,baseboard_power}}",
)
BOARD_POWER_LIMIT = _gauge(
    "gpudaemon_gpu_board_power_limit_watts",
    Unit.WATTS,
    "Power limit of the node and of the baseboard.",
    _LIMIT,
    f"{_AMDGPU_PM}: board/{{cur_node_power_limit,max_node_power_limit,baseboard_power_limit}}",
)
NODE_POWER_MANAGEMENT = _gauge(
    "gpudaemon_gpu_node_power_management_enabled",
    Unit.NONE,
    "1 while the power of the whole node is managed by the firmware of its boards.",
    _DEVICE,
    f"{_AMDGPU_PM}: board/npm_status",
)
VOLTAGE = _gauge(
    "gpudaemon_gpu_voltage_volts",
    Unit.VOLTS,
    "Voltage.",
    _SENSOR,
    f"{_HWMON}: in[0-*]_input",
    otel="hw.voltage",
)
VOLTAGE_LIMIT = _gauge(
    "gpudaemon_gpu_voltage_limit_volts",
    Unit.VOLTS,
    "Voltage limit, named as the kernel names it.",
    _LIMIT,
    f"{_HWMON}: in[0-*]_{{min,max,...}}",
)
CURRENT = _gauge(
    "gpudaemon_gpu_current_amperes", Unit.AMPERES, "Current.", _SENSOR, f"{_HWMON}: curr[1-*]_input"
)
CURRENT_LIMIT = _gauge(
    "gpudaemon_gpu_current_limit_amperes",
    Unit.AMPERES,
    "Current limit, named as the kernel names it.",
    _LIMIT,
    f"{_HWMON}: curr[1-*]_{{max,crit,...}}",
)
FAN = _gauge(
    "gpudaemon_gpu_fan_rpm", Unit.RPM, "Fan speed.", _SENSOR, f"{_HWMON}: fan[1-*]_input", otel="hw.fan.speed"
)
FAN_LIMIT = _gauge(
    "gpudaemon_gpu_fan_limit_rpm",
    Unit.RPM,
    "Lowest and highest fan speed.",
    _LIMIT,
    f"{_HWMON}: fan[1-*]_{{min,max}}",
)
FAN_TARGET = _gauge(
    "gpudaemon_gpu_fan_target_rpm", Unit.RPM, "Fan speed aimed at.", _SENSOR, f"{_HWMON}: fan[1-*]_target"
)
FAN_ENABLE = _gauge(
    "gpudaemon_gpu_fan_enable",
    Unit.NONE,
    "1 where the fan is driven to a target speed, 0 where the firmware drives it.",
    _SENSOR,
    f"{_AMDGPU_PM}: fan1_enable",
)
PWM = _gauge(
    "gpudaemon_gpu_pwm_ratio",
    Unit.RATIO,
    "Pulse width of the fan's supply, 1 is full speed.",
    _SENSOR,
    f"{_HWMON}: pwm[1-*]",
)
PWM_LIMIT = _gauge(
    "gpudaemon_gpu_pwm_limit_ratio",
    Unit.RATIO,
    "Lowest and highest pulse width.",
    _LIMIT,
    f"{_HWMON}: pwm[1-*]_{{min,max}}",
)
PWM_ENABLE = _gauge(
    "gpudaemon_gpu_pwm_enable",
    Unit.NONE,
    "Fan control: 0 none (full speed), 1 manual, 2 automatic.",
    _SENSOR,
    f"{_HWMON}: pwm[1-*]_enable",
)

WINDOWS: Mapping[Metric, WindowRows] = {
    BUSY: BUSY_WINDOW,
    CLOCK: CLOCK_WINDOW,
    TEMPERATURE: TEMPERATURE_WINDOW,
    POWER: POWER_WINDOW,
}
"""Rows that have windows where they are read fast."""
