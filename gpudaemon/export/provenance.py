"""Where each row of the metric table comes from: who gives it, from which files, and where it was seen.

Who gives a row and from what follows from the code: a driver's plan for its own example, the rows a
collector emits, what is made of other rows. Where it was seen is data, `seen.json` beside this file, made
by a run over real captures and captures of booted kernels (`python -m tests.seen`): a row no capture has
shown yet is a claim.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from gpudaemon.collectors import collectors
from gpudaemon.drivers import GpuDriver, driver_for, drivers
from gpudaemon.metrics import gpu, runtime_power, table
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric
from gpudaemon.pipeline.derived import RULES
from gpudaemon.pipeline.plan import GATE

__all__ = ["Claim", "claims", "file_pattern", "provider", "rows"]

_NUMBERED = re.compile(
    r"\b(card|renderD|accel|hwmon|tile|gt|vf|node)\d+(?=/)|\b(devfreq|engines?)/[^/]+(?=/)", re.ASCII
)
_CHANNEL = re.compile(r"(temp|in|curr|power|energy|fan|pwm|freq|humidity|intrusion|cpu)\d+(?=_|\Z)", re.ASCII)


def file_pattern(path: str) -> str:
    """A file below a device without the numbers that differ from host to host: `hwmon/hwmon*/temp*_input`."""
    directory, slash, name = _NUMBERED.sub(_unnumbered, path).rpartition("/")
    if not slash or directory.rpartition("/")[2] == "hwmon*":
        name = _CHANNEL.sub(r"\1*", name)
    return directory + slash + name


def _unnumbered(found: re.Match[str]) -> str:
    return f"{found[1]}*" if found[1] else f"{found[2]}/*"


def provider(device: Device, collector: str) -> str:
    """Who plans for a device: its driver's name for the collector that asks drivers, else the collector's."""
    if collector != "gpu" or device.kind in (DeviceKind.PCI, DeviceKind.HWMON):
        return collector
    return driver_for(device).kernel_driver or "generic"


@dataclass(slots=True)
class Claim:
    """One who gives a row.

    by: driver or collector. files: patterns, relative to the device; shown: those of them that gave a value
    in a capture. seen: names of captures, a few; more: how many others. made_of: name of the row this one
    is made of, empty where it is read.
    """

    by: str
    files: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    seen: tuple[str, ...] = ()
    more: int = 0
    made_of: str = ""


def rows() -> tuple[Metric, ...]:
    """The metric table, then rows that a driver's own file declares."""
    own = (row for driver in drivers().values() for row in driver.emits)
    return tuple(dict.fromkeys((*table(), *own)))


@cache
def _seen() -> Mapping[str, Mapping[str, Mapping[str, object]]]:
    text = resources.files(__package__).joinpath("seen.json").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, Mapping[str, object]]] = json.loads(text)
    return found


def _planned(driver: GpuDriver) -> Iterable[tuple[Metric, str]]:
    """(row, file) of what a driver plans for its example; no file for what needs no reading."""
    device = Device(
        id="0000:00:00.0",
        kind=DeviceKind.GPU,
        path="devices/example",
        driver=driver.kernel_driver,
        names=frozenset(driver.example),
    )
    for file in driver.identity.values():
        yield gpu.INFO, file
    for contents in driver.example_facts:
        for planned in driver.attributes(device, contents):
            given = (
                [one.metric for one in planned.series] if isinstance(planned, Attribute) else planned.metrics
            )
            for metric in given:
                yield metric, planned.path
    facts = dict.fromkeys(device.names, b"x\n")
    for series, _ in driver.constants(device, facts):
        for path in driver.needs(device) or ("",):
            yield series.metric, path


def _made() -> dict[str, str]:
    """Rows that are made of others: name -> name of what it is made of."""
    made = {rule.counter.name: rule.of.name for rule in RULES}
    made |= {row.name: of.name for of, windows in gpu.WINDOWS.items() for row in windows}
    return made | {gpu.POWER_SENSOR_UPDATE.name: gpu.POWER.name}


_ALSO_MADE = {gpu.POWER.name: gpu.ENERGY.name}
"""Rows that are read where they can be, and made of another where not."""


def claims() -> dict[str, list[Claim]]:
    """Who gives each row, by its name: the drivers and collectors in order, then what is made of others."""
    found: dict[str, dict[str, Claim]] = {row.name: {} for row in rows()}

    def claim(metric: str, by: str, file: str = "") -> None:
        one = found[metric].setdefault(by, Claim(by))
        if file:
            one.files.add(file_pattern(file))

    made = _made()
    for name, driver in sorted(drivers().items()):
        for metric, file in _planned(driver):
            claim(metric.name, name or "generic", file)
        for metric in driver.emits:
            if metric.name not in made:
                claim(metric.name, name or "generic")
    for name, collector in collectors().items():
        for metric in collector.emits:
            # what the collector of GPUs emits and no driver gives is made of names and links
            if metric.name not in made and (name != "gpu" or not found[metric.name]):
                claim(metric.name, name)
    claim(runtime_power.POWER_STATE.name, "runtime_power", GATE)
    for metric_name, by in _seen().items():
        for one, said in by.items() if metric_name in found else ():
            files, seen, more = said["files"], said["in"], said.get("more", 0)
            assert isinstance(files, list) and isinstance(seen, list) and isinstance(more, int)
            claim(metric_name, one)
            found[metric_name][one].shown = set(files)
            found[metric_name][one].seen = tuple(seen)
            found[metric_name][one].more = more
    for metric_name, of in (*made.items(), *_ALSO_MADE.items()):
        found[metric_name]["the daemon"] = Claim("the daemon", made_of=of)
    return {metric: list(by.values()) for metric, by in found.items()}
