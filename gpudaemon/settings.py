"""A configuration in the terms of the parts it is for."""

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpudaemon.config import Config, options
from gpudaemon.model.call import KINDS
from gpudaemon.model.rights import TIERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpudaemon.model.metric import Metric
    from gpudaemon.pipeline.clients import Wanted
    from gpudaemon.pipeline.plan import Selection
    from gpudaemon.pipeline.sampler import Periods
    from gpudaemon.pipeline.streams import Wanted as WantedStreams

__all__ = [
    "calls",
    "control_socket",
    "devices",
    "of_host",
    "periods",
    "processes",
    "selection",
    "streams",
    "wait_for_restart",
]


@dataclass(frozen=True)
class _Names:
    """Whether a name is wanted: it matches `include`, where that is given, and not `exclude`."""

    include: str
    exclude: str

    def __call__(self, name: str) -> bool:
        # re keeps compiled expressions itself.
        if self.include and not re.fullmatch(self.include, name):
            return False
        return not (self.exclude and re.fullmatch(self.exclude, name))


def devices(config: Config) -> _Names:
    """Whether a device with some id is looked at."""
    return _Names(config.device.include, config.device.exclude)


def selection(config: Config) -> "Selection":
    """What is wanted of every device."""
    from gpudaemon.pipeline.plan import Selection

    metric = config.metric
    return Selection(
        config.collectors, _metrics(config), metric.limit, fast=config.periods[-1], calls=calls(config)
    )


def _metrics(config: Config) -> _Names | None:
    """Whether a metric with some name is served; None: all are."""
    metric = config.metric
    return _Names(metric.include, metric.exclude) if metric.include or metric.exclude else None


def calls(config: Config) -> frozenset[str]:
    """Kinds of calls that are made: those wanted, and of which nothing was said, those that can be."""
    return frozenset(
        kind for kind, wanted in config.calls.items() if (_can_call(config, kind) if wanted is None else wanted)
    )


def _can_call(config: Config, kind: str) -> bool:
    """Whether the tier has the rights for a kind of calls, and its library is installed."""
    known = KINDS[kind]
    if known.on_request:
        return False
    if not set(known.capabilities) <= set(TIERS[config.tier]):
        return False
    return not known.library or importlib.util.find_spec(known.library) is not None


def of_host(config: Config, collector: str) -> "Callable[[Metric], bool]":
    """Whether a metric of this collector is served that belongs to no one device."""
    wanted = _metrics(config)
    in_use = collector in config.collectors
    return lambda metric: in_use and (wanted is None or wanted(metric.name))


def periods(config: Config) -> "Periods":
    """Seconds between readings, and for one."""
    from gpudaemon.pipeline.sampler import Periods

    static, slow, normal, fast = config.periods
    return Periods(
        static=static,
        slow=slow,
        normal=normal,
        fast=fast,
        deadline=config.read.deadline,
        call_deadline=config.call.deadline,
    )


def processes(config: Config) -> "Wanted | None":
    """What is wanted of processes; None where nothing is.

    Without a capability only processes of the same user can be looked at: that is worth a process of its own
    to nobody who does not ask for it.
    """
    from gpudaemon.pipeline.clients import Wanted

    asked = config.tier != "base"
    clients = "drm_client" in config.collectors and (asked or config.collector.drm_client is True)
    rings = "io_uring" in config.collectors and (asked or config.collector.io_uring is True)
    # Where a scout is there anyway it tries: without kernel.dmesg_restrict anybody may read the log.
    log = "trouble" in config.collectors
    if not clients and not rings and not (log and "CAP_SYSLOG" in TIERS[config.tier]):
        return None
    process = config.process
    return Wanted(
        period=process.period,
        owners=process.owners,
        top=process.top,
        files=process.files,
        limit=config.metric.limit,
        deadline=config.read.deadline,
        rings=rings,
        clients=clients,
        cgroups="hmm" in config.collectors,
        events=process.events,
        kubelet=process.kubelet,
        log=log,
        served=_metrics(config),
    )


def streams(config: Config) -> "WantedStreams | None":
    """What is traced; None where nothing is.

    tracefs belongs to root, so that a tier without CAP_DAC_OVERRIDE is worth a process only where it is asked
    for, as by root itself.
    """
    from gpudaemon.collectors import streams as subjects
    from gpudaemon.pipeline.streams import Wanted

    allowed = "CAP_DAC_OVERRIDE" in TIERS[config.tier]
    wanted = tuple(
        name
        for name in subjects()
        if name in config.collectors and (allowed or getattr(config.collector, name) is True)
    )
    if not wanted:
        return None
    tracing = config.tracing
    options = {name: getattr(tracing, name) for name in tracing.__struct_fields__}
    return Wanted(
        period=tracing.period,
        subjects=wanted,
        tracing=options,
        limit=config.metric.limit,
        served=_metrics(config),
    )


def wait_for_restart(old: Config, new: Config) -> list[str]:
    """Keys of the options that differ and take effect at the next start only."""
    return [
        option.key
        for option in options()
        if option.restart and _value(old, option.key) != _value(new, option.key)
    ]


def control_socket(config: Config) -> str:
    """Path of the socket over which a daemon with this configuration is asked."""
    return os.path.join(config.path.runtime, "control.sock")


def _value(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
