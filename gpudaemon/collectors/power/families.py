"""Which row of the metric table a file of a hwmon chip fills.

Items after Documentation/hwmon/sysfs-interface.rst; `freq` and `fan1_enable` after
drivers/gpu/drm/amd/pm/amdgpu_pm.c.
"""

from dataclasses import dataclass

from gpudaemon.metrics import gpu, hwmon
from gpudaemon.model.metric import Metric

__all__ = [
    "FAST",
    "FAST_TEMPERATURES",
    "GPU",
    "HWMON",
    "NO_LIMIT_AT_ZERO",
    "TEXT_ITEMS",
    "UNREADABLE_ITEMS",
    "Family",
    "emits",
    "is_alarm",
]

TEXT_ITEMS = frozenset({"label", "accuracy", "model_number", "serial_number", "oem_info"})
"""Items that are text (`accuracy` is `90%`): never sampled."""

UNREADABLE_ITEMS = frozenset({"reset_history"})
"""Items that can only be written."""


def is_alarm(item: str) -> bool:
    """True for `alarm`, `crit_alarm`, `fault` and their like: 0 or 1."""
    return item in ("alarm", "fault") or item.endswith("_alarm")


@dataclass(frozen=True, slots=True)
class Family:
    """The rows of one kind of sensor.

    values: item -> row with the labels of a sensor. limits: items that share the row `limit`.
    """

    values: dict[str, Metric]
    limits: frozenset[str] = frozenset()
    limit: Metric | None = None


_TEMPERATURE_LIMITS = frozenset(
    {
        "min",
        "min_hyst",
        "max",
        "max_hyst",
        "crit",
        "crit_hyst",
        "lcrit",
        "lcrit_hyst",
        "emergency",
        "emergency_hyst",
    }
)
_LIMITS = frozenset({"min", "max", "crit", "lcrit", "rated_min", "rated_max"})
_POWER_LIMITS = _LIMITS | {"cap", "cap_default", "cap_min", "cap_max", "cap_hyst"}
_RANGE = frozenset({"min", "max"})

NO_LIMIT_AT_ZERO = frozenset({"max", "rated_max"})
"""Power limits that are switched off, or not known, where they read 0
(Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon, sysfs-driver-intel-xe-hwmon: power1_max)."""

GPU = {
    "temp": Family({"input": gpu.TEMPERATURE}, _TEMPERATURE_LIMITS, gpu.TEMPERATURE_LIMIT),
    "in": Family({"input": gpu.VOLTAGE}, _LIMITS, gpu.VOLTAGE_LIMIT),
    "curr": Family({"input": gpu.CURRENT}, _LIMITS, gpu.CURRENT_LIMIT),
    "power": Family({"input": gpu.POWER, "average": gpu.POWER_AVERAGE}, _POWER_LIMITS, gpu.POWER_LIMIT),
    "energy": Family({"input": gpu.ENERGY}),
    "fan": Family(
        {"input": gpu.FAN, "target": gpu.FAN_TARGET, "enable": gpu.FAN_ENABLE}, _RANGE, gpu.FAN_LIMIT
    ),
    "pwm": Family({"": gpu.PWM, "enable": gpu.PWM_ENABLE}, _RANGE, gpu.PWM_LIMIT),
    "freq": Family({"input": gpu.CLOCK}),
}
"""Rows of the chips of a GPU; its labels are device and sensor (clock for `freq`)."""

HWMON = {
    "temp": Family({"input": hwmon.TEMPERATURE}, _TEMPERATURE_LIMITS, hwmon.TEMPERATURE_LIMIT),
    "in": Family({"input": hwmon.VOLTAGE}, _LIMITS, hwmon.VOLTAGE_LIMIT),
    "curr": Family({"input": hwmon.CURRENT}, _LIMITS, hwmon.CURRENT_LIMIT),
    "power": Family({"input": hwmon.POWER, "average": hwmon.POWER_AVERAGE}, _POWER_LIMITS, hwmon.POWER_LIMIT),
    "energy": Family({"input": hwmon.ENERGY}),
    "fan": Family({"input": hwmon.FAN, "target": hwmon.FAN_TARGET}, _RANGE, hwmon.FAN_LIMIT),
    "pwm": Family({"": hwmon.PWM, "enable": hwmon.PWM_ENABLE}, _RANGE, hwmon.PWM_LIMIT),
    "freq": Family({"input": hwmon.FREQUENCY}),
    "humidity": Family({"input": hwmon.HUMIDITY}),
}
"""Rows of every other chip; its labels are device, chip and sensor."""

FAST: dict[str, frozenset[str]] = {"power": frozenset({"input", "average"}), "freq": frozenset({"input"})}
"""Kinds and items of a GPU's sensors that change faster than once a second."""

FAST_TEMPERATURES = frozenset({"edge", "junction"})
"""Labels of temperature sensors that follow a load at once; memory has mass."""


def emits() -> tuple[Metric, ...]:
    """The rows any chip can fill, each once, with what is derived from them."""
    found: dict[Metric, None] = {}
    for family in (*GPU.values(), *HWMON.values()):
        found |= dict.fromkeys(family.values.values())
        if family.limit is not None:
            found[family.limit] = None
    for metric in tuple(found):
        found |= dict.fromkeys(gpu.WINDOWS.get(metric, ()))
    derived = (gpu.POWER_ABOVE_CAP, gpu.TEMPERATURE_ABOVE_CRITICAL, gpu.POWER_SENSOR_UPDATE)
    return (*found, *derived, hwmon.CHIP_INFO, hwmon.SENSOR_INFO, hwmon.ALARM, hwmon.ATTRIBUTE)
