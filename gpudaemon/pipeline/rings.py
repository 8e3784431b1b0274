"""The io_uring rings of this host by owner, as the scout last told of them."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpudaemon.metrics import io_uring as rows
from gpudaemon.model.attribute import Row
from gpudaemon.model.metric import Metric
from gpudaemon.model.snapshot import Samples
from gpudaemon.parsers.cgroup import Owner
from gpudaemon.pipeline.rendered import Rendered

__all__ = ["Rings"]

_FRESH = 50.0
"""Seconds for which what was told is served: three times the scout's period for rings and a little."""
_MOST_LINES = 4096
_FIGURES = ("rings", "unknown", "submissions", "completions", "overflow", "pollers", "workers", "poll", "busy")
_METRICS: tuple[tuple[str, Metric], ...] = (
    ("processes", rows.PROCESSES),
    ("rings", rows.RINGS),
    ("unknown", rows.UNKNOWN),
    ("submissions", rows.SUBMISSIONS),
    ("completions", rows.COMPLETIONS),
    ("overflow", rows.OVERFLOW),
    ("pollers", rows.POLLERS),
    ("workers", rows.WORKERS),
    ("poll", rows.POLL_TIME),
    ("busy", rows.POLL_BUSY),
)


class Rings:
    """served: whether a metric is wanted. owners_most: beyond it owners go together as `others`."""

    def __init__(
        self,
        *,
        owners_most: int = 256,
        served: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = owners_most
        self._served = served
        self._clock = clock
        self._next: list[Any] = []
        self._rendered = Rendered(time.time())
        self._at = 0.0
        self._disabled: int | None = None
        self.owners: dict[str, Owner] = {}
        self._sums: dict[str, dict[str, float | None]] = {}

    def reconfigure(self, owners_most: int, served: Callable[[str], bool] | None) -> None:
        """Go over to other options, from the next message on."""
        self._most, self._served = owners_most, served

    def message(self, message: Mapping[str, Any]) -> None:
        """Take one message of the scout."""
        if "rings" in message and isinstance(message["rings"], list):
            self._next += message["rings"]
        elif message.get("rings") is True:
            self._disabled = message["io_uring_disabled"]
            self._add_up()
            self._at = self._clock()
            self._rendered.take(self._rows(), _MOST_LINES, self._served)

    def _add_up(self) -> None:
        told, self._next = self._next, []
        self._sums, self.owners = {}, {}
        for (_, _, _, *figures), owner in told:
            known = Owner(*owner)
            if known.key not in self.owners and len(self.owners) >= self._most:
                known = Owner("others", "cgroup")
            self.owners[known.key] = known
            sums = self._sums.setdefault(known.key, dict.fromkeys((*_FIGURES, "processes"), 0.0))
            sums["processes"] = (sums["processes"] or 0.0) + 1
            for name, value in zip(_FIGURES, figures, strict=True):
                before = sums[name]
                sums[name] = None if before is None or value is None else before + value

    def _rows(self) -> Iterator[Row]:
        if self._disabled is not None:
            yield rows.DISABLED, (), float(self._disabled)
        for key, sums in self._sums.items():
            for name, metric in _METRICS:
                value = sums[name]
                if value is not None:
                    yield metric, (key,), value

    def samples(self, now: float) -> Samples | None:
        """A part of a snapshot, None where nothing fresh is known."""
        return self._rendered.samples("") if self._at and now - self._at <= _FRESH else None
