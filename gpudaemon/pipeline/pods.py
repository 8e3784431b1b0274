"""Names of pods by device, as the scout last heard them from the kubelet."""

import time
from collections.abc import Callable, Container, Mapping
from typing import Any

from gpudaemon.metrics import kubernetes as rows
from gpudaemon.model.attribute import Row
from gpudaemon.model.snapshot import Samples
from gpudaemon.pipeline.rendered import Rendered

__all__ = ["Pods"]

_FRESH = 100.0
"""Seconds for which what was heard is served: three times the scout's period and a little."""
_MOST_LINES = 4096


class Pods:
    """devices: ids of the devices of this host. served: whether a metric is wanted."""

    def __init__(
        self,
        devices: Container[str],
        *,
        served: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._devices = devices
        self._served = served
        self._clock = clock
        self._next: list[list[str]] = []
        self._rendered = Rendered(time.time())
        self._at = 0.0

    def reconfigure(self, served: Callable[[str], bool] | None) -> None:
        """Go over to other options, from the next message on."""
        self._served = served

    def message(self, message: Mapping[str, Any]) -> None:
        """Take one message of the scout."""
        if isinstance(message.get("pods"), list):
            self._next += message["pods"]
        elif message.get("pods") is True:
            told, self._next = self._next, []
            self._at = self._clock()
            found: list[Row] = [(rows.KUBELET_UP, (), float(not message["kubelet"]))]
            for identifier, *rest in told:
                device = identifier.lower() if identifier.lower() in self._devices else ""
                found.append((rows.DEVICE_INFO, (device, identifier, *rest), 1.0))
            self._rendered.take(found, _MOST_LINES, self._served)

    def samples(self, now: float) -> Samples | None:
        """A part of a snapshot, None where nothing fresh is known."""
        return self._rendered.samples("") if self._at and now - self._at <= _FRESH else None
