"""One folder per subject: what to read of a device for that subject, and what the content means.

A collector is found by listing this folder: each sub-package holds one value named COLLECTOR. Collectors are
pure: `needs` and `attributes` open nothing. One that watches the kernel by tracing holds a value STREAM as
well.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from gpudaemon.drivers import Facts
from gpudaemon.model.attribute import Attribute, Constant, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric
from gpudaemon.model.tracing import Subject

__all__ = ["Collector", "Constant", "collectors", "streams", "subjects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """One subject.

    emits: the rows of the metric table this collector, or what is derived from it, can fill.
    wants: whether this collector looks at a device at all.
    needs: device -> static files it must know first, relative to the device.
    attributes: device, facts -> what to sample.
    constants: device, facts -> series that need no reading.
    Without `wants` nothing is read of devices for it: its rows come from elsewhere (processes, events).
    """

    name: str
    wants: Callable[[Device], bool] = lambda _: False
    needs: Callable[[Device], Sequence[str]] = lambda _: ()
    attributes: Callable[[Device, Facts], Sequence[Attribute | Rows]] = lambda _device, _facts: ()
    constants: Callable[[Device, Facts], Sequence[Constant]] = lambda _device, _facts: ()
    emits: tuple[Metric, ...] = ()


@cache
def collectors() -> Mapping[str, Collector]:
    """Every collector of this folder by name, in alphabetical order."""
    found = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        collector = getattr(importlib.import_module(f"{__name__}.{module.name}"), "COLLECTOR", None)
        if collector is not None:
            found[collector.name] = collector
    return found


@cache
def streams() -> Mapping[str, Subject]:
    """What is watched by tracing, by the collector's name, in alphabetical order."""
    found = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        stream = getattr(importlib.import_module(f"{__name__}.{module.name}"), "STREAM", None)
        if stream is not None:
            assert stream.name == module.name, stream.name
            found[stream.name] = stream
    return found


@cache
def subjects() -> Mapping[str, frozenset[str]]:
    """Names of the metrics each collector can give, by the collector's name."""
    return {
        name: frozenset(metric.name for metric in collector.emits) for name, collector in collectors().items()
    }
