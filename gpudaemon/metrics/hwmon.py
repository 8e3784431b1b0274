"""Rows of hwmon chips that are not part of a GPU: NVMe drives, network cards, the board, the CPUs.

`sensor` is the label the driver gives (`Composite`, `Core 0`), else kind and channel (`temp1`); `chip` is the
driver's name for the chip. Channel numbers are in `gpudaemon_hwmon_sensor_info`, which with the alarms and the
remaining attributes covers the chips of GPUs too. Meanings: Documentation/hwmon/sysfs-interface.rst.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "ALARM",
    "ATTRIBUTE",
    "CHIP_INFO",
    "CURRENT",
    "CURRENT_LIMIT",
    "ENERGY",
    "FAN",
    "FAN_LIMIT",
    "FAN_TARGET",
    "FREQUENCY",
    "HUMIDITY",
    "POWER",
    "POWER_AVERAGE",
    "POWER_LIMIT",
    "PWM",
    "PWM_ENABLE",
    "PWM_LIMIT",
    "SENSOR_INFO",
    "TEMPERATURE",
    "TEMPERATURE_LIMIT",
    "VOLTAGE",
    "VOLTAGE_LIMIT",
]

_ABI = "Documentation/hwmon/sysfs-interface.rst"
_SENSOR = ("device", "chip", "sensor")
_LIMIT = ("device", "chip", "sensor", "limit")
_CHANNEL = ("device", "chip", "channel")


def _sensor(thing: str, unit: Unit, help_text: str, files: str, otel: str = "") -> Metric:
    name = "_".join(part for part in ("gpudaemon_hwmon", thing, unit.value) if part)
    return Metric(
        name=name, kind=Kind.GAUGE, unit=unit, help=help_text, labels=_SENSOR, abi=f"{_ABI}: {files}", otel=otel
    )


def _limit(thing: str, unit: Unit, help_text: str, files: str) -> Metric:
    name = f"gpudaemon_hwmon_{thing}_limit_{unit.value}"
    return Metric(name=name, kind=Kind.GAUGE, unit=unit, help=help_text, labels=_LIMIT, abi=f"{_ABI}: {files}")


CHIP_INFO = Metric(
    name="gpudaemon_hwmon_chip_info",
    kind=Kind.INFO,
    help="A chip and the name its driver gives it; chip numbers change with every boot and are not shown.",
    labels=("device", "chip", "name", "driver"),
    abi=f"{_ABI}: name",
)
SENSOR_INFO = Metric(
    name="gpudaemon_hwmon_sensor_info",
    kind=Kind.INFO,
    help="The channel a sensor label belongs to, and the label as the driver gives it.",
    labels=("device", "chip", "channel", "sensor", "label"),
    abi=f"{_ABI}: temp[1-*]_label and its like",
)

TEMPERATURE = _sensor("temperature", Unit.CELSIUS, "Temperature.", "temp[1-*]_input", otel="hw.temperature")
TEMPERATURE_LIMIT = _limit(
    "temperature", Unit.CELSIUS, "Temperature limit, named as the kernel names it.", "temp[1-*]_{max,crit,...}"
)
VOLTAGE = _sensor("voltage", Unit.VOLTS, "Voltage.", "in[0-*]_input", otel="hw.voltage")
VOLTAGE_LIMIT = _limit(
    "voltage", Unit.VOLTS, "Voltage limit, named as the kernel names it.", "in[0-*]_{min,max,...}"
)
CURRENT = _sensor("current", Unit.AMPERES, "Current.", "curr[1-*]_input")
CURRENT_LIMIT = _limit(
    "current", Unit.AMPERES, "Current limit, named as the kernel names it.", "curr[1-*]_{max,crit,...}"
)
POWER = _sensor(
    "power",
    Unit.WATTS,
    "Power drawn now, or its average where the chip has nothing else.",
    "power[1-*]_{input,average}",
    otel="hw.power",
)
POWER_AVERAGE = _sensor("power_average", Unit.WATTS, "Power drawn, averaged by the chip.", "power[1-*]_average")
POWER_LIMIT = _limit(
    "power", Unit.WATTS, "Power limit, named as the kernel names it.", "power[1-*]_{cap,max,crit,...}"
)
ENERGY = Metric(
    name="gpudaemon_hwmon_energy_joules_total",
    kind=Kind.COUNTER,
    unit=Unit.JOULES,
    help="Energy used since the driver was loaded or the device last woke.",
    labels=_SENSOR,
    abi=f"{_ABI}: energy[1-*]_input",
    otel="hw.energy",
)
FAN = _sensor("fan", Unit.RPM, "Fan speed.", "fan[1-*]_input", otel="hw.fan.speed")
FAN_LIMIT = _limit("fan", Unit.RPM, "Fan speed limit, named as the kernel names it.", "fan[1-*]_{min,max}")
FAN_TARGET = _sensor("fan_target", Unit.RPM, "Fan speed aimed at.", "fan[1-*]_target")
PWM = _sensor("pwm", Unit.RATIO, "Pulse width of a fan's supply, 1 is full speed.", "pwm[1-*]")
PWM_LIMIT = _limit("pwm", Unit.RATIO, "Lowest and highest pulse width.", "pwm[1-*]_{min,max}")
PWM_ENABLE = _sensor(
    "pwm_enable",
    Unit.NONE,
    "Fan control: 0 none (full speed), 1 manual, 2 and more automatic.",
    "pwm[1-*]_enable",
)
FREQUENCY = _sensor("frequency", Unit.HERTZ, "Clock frequency.", "freq[1-*]_input (amdgpu_pm.c)")
HUMIDITY = _sensor("humidity", Unit.RATIO, "Relative humidity.", "humidity[1-*]_input")

ALARM = Metric(
    name="gpudaemon_hwmon_alarm",
    kind=Kind.GAUGE,
    help="1 while the chip signals this alarm or fault, named as the kernel names it.",
    labels=("device", "chip", "channel", "sensor", "alarm"),
    abi=f"{_ABI}: *_alarm, *_fault",
)
ATTRIBUTE = Metric(
    name="gpudaemon_hwmon_attribute",
    kind=Kind.GAUGE,
    help="Any other number of a channel, or of the whole chip (fan curves, offsets), in the kernel's unit.",
    labels=("device", "chip", "channel", "attribute"),
    abi=_ABI,
)
