"""One file per kernel GPU driver, each holding one value named DRIVER.

A driver is found by listing this folder: adding a vendor touches no other file. Drivers are pure: they get
names and contents and return what to sample; they open nothing.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric

__all__ = ["Facts", "GpuDriver", "driver_for", "drivers"]

Facts = Mapping[str, bytes | None]
"""Contents of the static files a plan asked for, by path below the device; None where there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDriver:
    """What gpudaemon knows of one kernel driver.

    kernel_driver: basename of the device's `driver` link, the match key; empty for the driver that serves
        every device no other driver claims.
    vendor: the vendor's name as a label value; empty where the driver serves many.
    identity: label of `gpudaemon_gpu_info` -> file below the device it is read from.
    emits: the rows of the metric table this driver, or what is derived from it, can fill.
    needs: device -> further static files `attributes` must know (identity files are always read).
    attributes: device, facts -> what to sample.
    fast_chip: name of its hwmon chip, where power, clocks and temperatures cost registers or a firmware table
        in memory: cheap enough for ten readings a second.
    """

    kernel_driver: str
    vendor: str
    identity: Mapping[str, str]
    emits: tuple[Metric, ...]
    needs: Callable[[Device], Sequence[str]]
    attributes: Callable[[Device, Facts], Sequence[Attribute | Rows]]
    fast_chip: str = ""


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
