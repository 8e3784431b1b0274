"""File names and units of hwmon chips: `temp2_crit` is channel 2 of kind `temp`, item `crit`.

Documentation/hwmon/sysfs-interface.rst. Units there: millidegree Celsius, millivolt, milliampere, microwatt,
microjoule, RPM, PWM 0 to 255, millipercent of relative humidity; amdgpu adds `freq` in hertz
(drivers/gpu/drm/amd/pm/amdgpu_pm.c).
"""

import re
from dataclasses import dataclass

__all__ = ["CHIP_NUMBERS", "DIVISORS", "SensorName", "is_chip_directory", "sensor_name"]

DIVISORS = {
    "temp": 1000,
    "in": 1000,
    "curr": 1000,
    "power": 1_000_000,
    "energy": 1_000_000,
    "fan": 1,
    "pwm": 255,
    "freq": 1,
    "humidity": 100_000,
    "intrusion": 1,
    "cpu": 1000,
}
"""Divisor to the base unit: degrees, volts, amperes, watts, joules, RPM, ratio of 255, hertz, ratio, volts."""

CHIP_NUMBERS = ("beep_enable", "update_interval", "vrm")
"""Files with a number that concerns the whole chip."""

_NAME = re.compile(rf"({'|'.join(DIVISORS)})(\d{{1,4}})(?:_([a-z0-9_]{{1,48}}))?", re.ASCII)
_CHIP = re.compile(r"hwmon\d{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SensorName:
    """kind: a key of `DIVISORS`. channel: its number. item: what follows the underscore, empty for `pwm1`."""

    kind: str
    channel: int
    item: str


def sensor_name(name: str) -> SensorName | None:
    """The parts of a sensor file's name, None for any other file of a chip (`name`, `update_interval`)."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, channel, item = found.groups()
    if item is None and kind != "pwm":
        return None
    return SensorName(kind, int(channel), item or "")


def is_chip_directory(name: str) -> bool:
    """True for `hwmonK`, a chip's own directory; K changes with every boot and driver reload."""
    return _CHIP.fullmatch(name) is not None
