"""hwmon: temperatures, power, fans, voltages, clocks of every device that has a chip.

Sensors of a GPU's chip fill `gpudaemon_gpu_*`, those of any other chip `gpudaemon_hwmon_*`. A sensor is named
by its label file, else by kind and channel; a label that occurs twice gets the channel appended, so that no
series occurs twice. The number K of `hwmonK` changes with every boot and is in no label. Where a GPU's driver
has one file that says what several of the chip's say, that comes first, and theirs are not read.

Documentation/hwmon/sysfs-interface.rst.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gpudaemon.collectors import Collector, Constant
from gpudaemon.collectors.power import families
from gpudaemon.drivers import Facts, driver_for
from gpudaemon.metrics import gpu, hwmon
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.hwmon import CHIP_NUMBERS, DIVISORS, SensorName, is_chip_directory, sensor_name
from gpudaemon.parsers.integer import quotient, quotient_or_unknown
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR"]

_MOST_SENSOR_FILES = 1024
"""Sensor files planned of one device; the largest board chips have about 300."""


@dataclass(frozen=True, slots=True)
class _Sensor:
    """One file of a chip: directory below the device (with its slash, or empty), name, what the name says."""

    directory: str
    file: str
    parts: SensorName

    @property
    def path(self) -> str:
        return self.directory + self.file

    @property
    def channel(self) -> str:
        return f"{self.parts.kind}{self.parts.channel}"


def _sensors(device: Device) -> dict[str, list[_Sensor]]:
    """Sensor files by chip directory, in a stable order; empty where there is no chip.

    Drivers older than hwmon_device_register_with_info (applesmc) leave their chip's directory empty and put
    the files into the device's own.
    """
    chips: dict[str, list[_Sensor]] = {}
    for path in sorted(device.names, key=lambda path: (len(path), path)):  # hwmon9 before hwmon10
        directory, slash, file = path.rpartition("/")
        if not (is_chip_directory(directory.rpartition("/")[2]) if slash else device.kind is DeviceKind.HWMON):
            continue
        parts = sensor_name(file)
        if parts is not None:
            chips.setdefault(directory + slash, []).append(_Sensor(directory + slash, file, parts))
    return chips


def _wants(device: Device) -> bool:
    if device.kind is DeviceKind.GPU:
        driver = driver_for(device)
        if driver.sensor_needs(device) or any(sensor.call for sensor in driver.sensors(device, {})):
            return True
    return device.kind is not DeviceKind.PARTITION and bool(_sensors(device))


def _needs(device: Device) -> Sequence[str]:
    needed: list[str] = []
    for directory, sensors in _sensors(device).items():
        if f"{directory}name" in device.names:
            needed.append(f"{directory}name")
        needed += [sensor.path for sensor in sensors if sensor.parts.item == "label"]
    of_driver = driver_for(device).sensor_needs(device) if device.kind is DeviceKind.GPU else ()
    return [*needed[:_MOST_SENSOR_FILES], *of_driver]


@dataclass(frozen=True, slots=True)
class _Chip:
    """A chip with the names its series carry; `sensors`: channel (`temp2`) -> sensor label value."""

    directory: str
    name: str
    label: str
    sensors: dict[str, str]
    labels: dict[str, str]
    files: tuple[_Sensor, ...]


def _sensor_labels(files: Sequence[_Sensor], facts: Facts) -> tuple[dict[str, str], dict[str, str]]:
    """Channel -> unique sensor name, channel -> label as the driver gives it."""
    given: dict[str, str] = {}
    for sensor in files:
        if sensor.parts.item == "label":
            given[sensor.channel] = text_or_empty(facts.get(sensor.path))
    channels = {sensor.channel: sensor.parts.kind for sensor in files}
    wanted = {channel: given.get(channel) or channel for channel in channels}
    often = Counter((channels[channel], name) for channel, name in wanted.items())
    names: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for channel, name in wanted.items():
        kind = channels[channel]
        unique = name if often[kind, name] == 1 else f"{name} {channel}"
        while (kind, unique) in taken:  # a label may look like another label with its channel appended
            unique = f"{unique} {channel}"
        taken.add((kind, unique))
        names[channel] = unique
    return names, given


def _chips(device: Device, facts: Facts) -> Iterator[_Chip]:
    """The device's chips; chips of one name are told apart by their order."""
    seen: Counter[str] = Counter()
    budget = _MOST_SENSOR_FILES
    for directory, sensors in _sensors(device).items():
        name = text_or_empty(facts.get(f"{directory}name"))
        label = name or device.driver or device.id
        seen[label] += 1
        label = label if seen[label] == 1 else f"{label} {seen[label]}"
        files = tuple(sensors[:budget])
        budget -= len(files)
        names, given = _sensor_labels(files, facts)
        yield _Chip(directory, name, label, names, given, files)


def _decode(kind: str, item: str) -> Decode:
    if kind == "power" and item in families.GPU["power"].limits:
        # amdgpu prints an empty line when the firmware does not answer (amdgpu_hwmon_show_power_cap_generic)
        none = (0,) if item in families.NO_LIMIT_AT_ZERO else ()
        return quotient_or_unknown(DIVISORS[kind], unknown=none, empty_is_unknown=True)
    if kind == "pwm" and item == "enable":
        return quotient()
    return quotient(DIVISORS[kind])


def _twice(decode: Decode) -> Callable[[bytes], Sequence[float | None]]:
    def decode_twice(content: bytes) -> Sequence[float | None]:
        value = decode(content)[0]
        return (value, value)

    return decode_twice


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chip's series go: the families to use and the label values in front of the sensor.

    fast: its sensors are cheap enough to be read many times a second.
    """

    families: dict[str, families.Family]
    front: tuple[str, ...]
    prefix: str
    fast: bool


def _cadence(place: _Place, chip: _Chip, sensor: _Sensor, *, needed: bool) -> Cadence:
    """How often a value is read; needed: it is the one its quantity is known by."""
    parts = sensor.parts
    if parts.item in ("enable", "target"):
        return Cadence.SLOW
    if place.fast and needed:
        label = chip.labels.get(sensor.channel)
        if parts.item in families.FAST.get(parts.kind, ()):
            return Cadence.FAST
        if parts.kind == "temp" and parts.item == "input" and label in families.FAST_TEMPERATURES:
            return Cadence.FAST
    return Cadence.NORMAL


def _values(place: _Place, chip: _Chip, sensor: _Sensor, momentary: frozenset[str]) -> Attribute | None:
    """The attribute of a value or a limit that has a row of its own; None where it has none."""
    parts = sensor.parts
    family = place.families.get(parts.kind)
    if family is None:
        return None
    labels = (*place.front, place.prefix + chip.sensors[sensor.channel])
    decode = _decode(parts.kind, parts.item)
    metric = family.values.get(parts.item)
    if metric is not None:
        only_average = parts.kind == "power" and parts.item == "average" and sensor.channel not in momentary
        cadence = _cadence(place, chip, sensor, needed=only_average or parts.item != "average")
        if only_average:
            both = (Series(family.values["input"], labels), Series(metric, labels))
            return Attribute(sensor.path, cadence, both, _twice(decode))
        if metric is gpu.ENERGY:
            labels = (*labels, "hardware")
        return Attribute(sensor.path, cadence, (Series(metric, labels),), decode)
    if family.limit is not None and parts.item in family.limits:
        return Attribute(sensor.path, Cadence.SLOW, (Series(family.limit, (*labels, parts.item)),), decode)
    return None


_raw = quotient_or_unknown(empty_is_unknown=True)
"""Numbers without a row of their own; applesmc prints nothing for a fan's safe speed."""


def _remaining(device: Device, chip: _Chip, sensor: _Sensor) -> Attribute:
    """An alarm, or a number that has no row of its own: raw, with its channel."""
    front = (device.id, chip.label, sensor.channel)
    item = sensor.parts.item
    metric: Metric = hwmon.ATTRIBUTE
    values: tuple[str, ...] = (*front, item)
    if families.is_alarm(item):
        metric, values = hwmon.ALARM, (*front, chip.sensors[sensor.channel], item)
    return Attribute(sensor.path, Cadence.SLOW, (Series(metric, values),), _raw)


def _of_chip(device: Device, chip: _Chip) -> Iterator[Attribute]:
    """Numbers of the chip as a whole, raw, under the channel `chip`."""
    for name in CHIP_NUMBERS:
        path = chip.directory + name
        if path in device.names:
            series = Series(hwmon.ATTRIBUTE, (device.id, chip.label, "chip", name))
            yield Attribute(path, Cadence.SLOW, (series,), _raw)


def _places(device: Device, chips: Sequence[_Chip]) -> Iterator[tuple[_Chip, _Place]]:
    """Where each chip's series go.

    A GPU's sensors have no chip label: where chips share a sensor name, the later chip's name goes in front.
    """
    taken: set[tuple[str, str]] = set()
    for chip in chips:
        if device.kind not in (DeviceKind.GPU, DeviceKind.VIRTUAL_FUNCTION):
            yield chip, _Place(families.HWMON, (device.id, chip.label), "", False)
            continue
        names = {(sensor.parts.kind, chip.sensors[sensor.channel]) for sensor in chip.files}
        prefix = ""
        while taken & {(kind, prefix + name) for kind, name in names}:
            prefix += f"{chip.label} "
        taken |= {(kind, prefix + name) for kind, name in names}
        # Chips of other drivers may sit on an I2C bus or behind a mailbox that takes milliseconds.
        fast = chip.name != "" and chip.name == driver_for(device).fast_chip
        yield chip, _Place(families.GPU, (device.id,), prefix, fast)


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    planned: list[Attribute | Rows] = []
    if device.kind is DeviceKind.GPU:
        planned += driver_for(device).sensors(device, facts)
    for chip, place in _places(device, tuple(_chips(device, facts))):
        momentary = frozenset(
            sensor.channel for sensor in chip.files if sensor.file == f"{sensor.channel}_input"
        )
        planned += _of_chip(device, chip)
        for sensor in chip.files:
            if sensor.parts.item in families.TEXT_ITEMS | families.UNREADABLE_ITEMS:
                continue
            own = _values(place, chip, sensor, momentary)
            planned.append(own if own is not None else _remaining(device, chip, sensor))
    return planned


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    found: list[Constant] = []
    for chip, place in _places(device, tuple(_chips(device, facts))):
        info = (device.id, chip.label, chip.name, device.driver)
        found.append((Series(hwmon.CHIP_INFO, info), 1.0))
        for channel, sensor in chip.sensors.items():
            values = (device.id, chip.label, channel, place.prefix + sensor, chip.labels.get(channel, ""))
            found.append((Series(hwmon.SENSOR_INFO, values), 1.0))
    return found


COLLECTOR = Collector(
    name="power",
    emits=families.emits(),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
