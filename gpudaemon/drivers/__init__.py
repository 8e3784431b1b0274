"""One file per kernel GPU driver, each holding one value named DRIVER.

A driver is found by listing this folder: adding a vendor touches no other file. Drivers are pure: they get
names and contents and return what to sample; they open nothing.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from gpudaemon.model.attribute import Attribute, Constant, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric
from gpudaemon.parsers.text import text_or_empty

__all__ = ["Facts", "GpuDriver", "driver_for", "drivers"]

Facts = Mapping[str, bytes | None]
"""Contents of the static files a plan asked for, by path below the device; None where there was none."""


def _nothing(_device: Device, _facts: Facts) -> Sequence[Any]:
    return ()


def _no_details(_facts: Facts) -> Mapping[str, str]:
    return {}


def _no_files(_device: Device) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDriver:
    """What gpudaemon knows of one kernel driver.

    kernel_driver: basename of the device's `driver` link, the match key; empty for the driver that serves
        every device no other driver claims.
    vendor: the vendor's name as a label value; empty where the driver serves many.
    identity: label of `gpudaemon_gpu_info` -> file below the device it is read from.
    emits: the rows of the metric table this driver, or what is derived from it, can fill.
    called: those of them that come of calls alone, where the driver has files as well.
    details: facts -> further labels of `gpudaemon_gpu_info`, made of files that say several things.
    needs: device -> further static files `attributes` must know (identity files are always read).
    attributes: device, facts -> what to sample.
    constants: device, facts -> series that need no reading.
    example: files below a device that has everything the driver can show, for the reference and the tests:
        what comes of them is what is claimed. example_facts: contents to plan it with, each in turn, where it
        depends on them what comes.
    sensors: device, facts -> what fills the rows of sensors besides the hwmon chip. A file all of whose series
        this gives is not read.
    sensor_needs: device -> static files `sensors` must know besides names and labels of the chips.
    fast_chip: name of its hwmon chip, where power, clocks and temperatures cost registers or a firmware table
        in memory: cheap enough for ten readings a second.
    """

    kernel_driver: str
    vendor: str
    identity: Mapping[str, str]
    emits: tuple[Metric, ...]
    needs: Callable[[Device], Sequence[str]] = _no_files
    attributes: Callable[[Device, Facts], Sequence[Attribute | Rows]] = _nothing
    constants: Callable[[Device, Facts], Sequence[Constant]] = _nothing
    example: tuple[str, ...] = ()
    example_facts: tuple[Facts, ...] = ({},)
    sensors: Callable[[Device, Facts], Iterable[Attribute]] = _nothing
    sensor_needs: Callable[[Device], Sequence[str]] = _no_files
    called: tuple[Metric, ...] = ()
    details: Callable[[Facts], Mapping[str, str]] = _no_details
    fast_chip: str = ""

    def identified(self, facts: Facts) -> dict[str, str]:
        """Labels of `gpudaemon_gpu_info` that files say; an empty one is not known."""
        found = {label: text_or_empty(facts.get(path)) for label, path in self.identity.items()}
        return found | dict(self.details(facts))


@cache
def drivers() -> Mapping[str, GpuDriver]:
    """Every driver of this folder by `kernel_driver`."""
    found: dict[str, GpuDriver] = {}
    for module in pkgutil.iter_modules(__path__):
        driver = getattr(importlib.import_module(f"{__name__}.{module.name}"), "DRIVER", None)
        if driver is not None:
            found[driver.kernel_driver] = driver
    return found


def driver_for(device: Device) -> GpuDriver:
    """The driver for `device`: the one named like its kernel driver, else the generic one."""
    known = drivers()
    return known.get(device.driver) or known[""]
