"""A configuration in the terms of the parts it is for."""

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpudaemon.config import Config, options

if TYPE_CHECKING:
    from gpudaemon.pipeline.plan import Selection
    from gpudaemon.pipeline.sampler import Periods

__all__ = ["control_socket", "devices", "periods", "selection", "wait_for_restart"]


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
    wanted = _Names(metric.include, metric.exclude) if metric.include or metric.exclude else None
    return Selection(config.collectors, wanted, metric.limit, fast=config.periods[-1])


def periods(config: Config) -> "Periods":
    """Seconds between readings, and for one."""
    from gpudaemon.pipeline.sampler import Periods

    static, slow, normal, fast = config.periods
    return Periods(static=static, slow=slow, normal=normal, fast=fast, deadline=config.read.deadline)


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
