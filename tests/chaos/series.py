"""Which series a device's files give, and what is true of them: from the plan and from the mock host's
model."""

import re
from dataclasses import dataclass, field

from gpudaemon.metrics import table
from gpudaemon.model.attribute import Cadence
from gpudaemon.model.metric import Kind
from gpudaemon.pipeline.finder import survey
from gpudaemon.pipeline.plan import facts_needed, group_of, make_plan

__all__ = [
    "COUNTERS",
    "TRUTH",
    "WIRING",
    "DeviceSeries",
    "True_",
    "is_identity",
    "is_topology",
    "is_value",
    "of_devices",
]

COUNTERS = frozenset(metric.name for metric in table() if metric.kind is Kind.COUNTER)

PERIODS = {group_of(Cadence.STATIC): 600.0, group_of(Cadence.SLOW): 5.0, group_of(Cadence.NORMAL): 1.0}
PERIODS[group_of(Cadence.FAST)] = 1.0
"""Seconds between readings: those of the preset `normal`, and --period.slow 5"""
_LATE = re.compile(r"gpudaemon_gpu_\w+_(window_\w+|sensor_update_seconds)\b")
_ABOUT = (
    *("gpudaemon_daemon_", "gpudaemon_device_health{", "gpudaemon_device_state{", "gpudaemon_device_missing{"),
    *("gpudaemon_device_data_age", "gpudaemon_device_left_suspended", "gpudaemon_trouble_"),
)
WIRING = ("gpudaemon_p2p_", "gpudaemon_pcie_link_ceiling", "gpudaemon_pcie_link_downgraded")


def is_value(series: str) -> bool:
    """Whether a series says what a file of the device says, at once: nothing about the daemon or about time."""
    return not series.startswith(_ABOUT) and _LATE.match(series) is None


def is_topology(series: str) -> bool:
    """Whether a series says how devices are wired: known of the host, not read of a device at every moment."""
    return series.startswith(WIRING)


def is_identity(series: str) -> bool:
    """Whether a series only says who somebody is; card numbers in it change with the driver's binding."""
    return series.split("{", 1)[0].endswith("_info")


@dataclass(slots=True)
class DeviceSeries:
    """by_file: path below the device -> its series. still: those that never change. oldest: seconds that a
    value may be old. constant: those that need no reading."""

    by_file: dict[str, set[str]] = field(default_factory=dict)
    still: set[str] = field(default_factory=set)
    oldest: dict[str, float] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)


def of_devices(sysfs: str) -> dict[str, DeviceSeries]:
    """What the plan of each device says of its series."""
    found = {}
    for device in survey(sysfs, {}, ())[0]:
        facts = {}
        for path in facts_needed(device):
            try:
                with open(f"{sysfs}/{device.path}/{path}", "rb") as stream:
                    facts[path] = stream.read(4096)
            except OSError:
                facts[path] = None
        plan = make_plan(device, facts)
        prefixes = {}
        for block in plan.blocks.values():
            for prefix, index in zip(block.prefixes, block.indexes, strict=True):
                prefixes[index] = prefix.rstrip()
        series = found[device.id] = DeviceSeries()
        series.constant = {
            prefixes[i] for i, value in enumerate(plan.initial) if value is not None and i in prefixes
        }
        made = [(one.source, one.index) for one in plan.integrals] + list(plan.updates)
        for file in plan.files:
            own = range(file.first, file.first + file.count)
            indexes = [*own, *(index for source, index in made if source in own)]
            series.by_file[re.sub(r"hwmon\d+", "hwmon*", file.path)] = {
                prefixes[i] for i in indexes if i in prefixes
            }
            for index in indexes:
                if index in prefixes:
                    series.oldest[prefixes[index]] = max(3.0, 3 * PERIODS[file.group]) + 1.0
            if file.group == group_of(Cadence.STATIC):
                series.still |= {prefixes[i] for i in indexes if i in prefixes}
    return found


@dataclass(frozen=True, slots=True)
class True_:
    """How a series follows from the model: value = name x scale (+ offset x full); below, above: tolerance."""

    name: str
    scale: float = 1.0
    offset: float = 0.0
    below: float = 1e-6
    above: float = 1e-6


_VRAM = 206141652992.0
TRUTH: dict[str, True_] = {
    'gpudaemon_gpu_busy_ratio{device="%s",engine="gfx"}': True_("busy_ratio", below=0.0101),
    'gpudaemon_gpu_busy_ratio{device="%s",engine="memory"}': True_("memory_busy_ratio", below=0.0101),
    'gpudaemon_gpu_memory_used_bytes{device="%s",pool="vram"}': True_(
        "memory_filled_ratio", 0.9 * _VRAM, 0.02 * _VRAM, below=8192, above=8192
    ),
    'gpudaemon_gpu_clock_hertz{device="%s",clock="sclk"}': True_("clock_hertz", below=5.01e6),
    'gpudaemon_gpu_temperature_celsius{device="%s",sensor="junction"}': True_("hotspot_celsius", below=1.01),
    'gpudaemon_gpu_temperature_celsius{device="%s",sensor="mem"}': True_("memory_celsius", below=1.01),
    'gpudaemon_gpu_power_watts{device="%s",sensor="PPT"}': True_("power_watts", below=1.01),
    'gpudaemon_gpu_power_limit_watts{device="%s",sensor="PPT",limit="cap"}': True_("power_cap_watts"),
    'gpudaemon_gpu_memory_total_bytes{device="%s",pool="vram"}': True_("memory_bytes"),
    'gpudaemon_gpu_ras_errors_total{device="%s",block="umc",severity="corrected"}': True_(
        "memory_errors_corrected"
    ),
    'gpudaemon_gpu_ras_errors_total{device="%s",block="umc",severity="uncorrected"}': True_(
        "memory_errors_uncorrected"
    ),
    'gpudaemon_gpu_pcie_replays_total{device="%s"}': True_("pcie_replays"),
    'gpudaemon_gpu_pcie_recoveries_total{device="%s"}': True_("pcie_recoveries"),
    'gpudaemon_gpu_temperature_celsius{device="%s",sensor="vrsoc"}': True_("regulator_celsius", below=1.01),
    'gpudaemon_gpu_energy_joules_total{device="%s",sensor="PPT",source="hardware"}': True_(
        "energy_joules", below=0.1, above=0.1
    ),
    'gpudaemon_gpu_xgmi_read_bytes_total{device="%s",link="3"}': True_("fabric_read_bytes", below=2048),
    'gpudaemon_gpu_xgmi_written_bytes_total{device="%s",link="3"}': True_("fabric_written_bytes", below=2048),
}
