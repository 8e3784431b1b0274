"""Memory of the cgroups that have GPU clients, as the scout last told of it."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpudaemon.collectors.hmm.cgroups import CgroupReading, Cgroups
from gpudaemon.model.snapshot import Samples
from gpudaemon.parsers.cgroup import Owner
from gpudaemon.pipeline.rendered import Rendered

__all__ = ["CgroupMemory"]

_FRESH = 50.0
"""Seconds for which what was told is served: three times the scout's period for it and a little."""
_MOST_LINES = 8192


class CgroupMemory:
    """served: whether a metric is wanted. owners_most: beyond it owners go together as `others`."""

    def __init__(
        self,
        *,
        owners_most: int = 256,
        served: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._served = served
        self._clock = clock
        self._sums = Cgroups(owners=owners_most)
        self._next: list[Any] = []
        self._rendered = Rendered(time.time())
        self._at = 0.0
        self._owners: dict[str, Owner] = {}

    def reconfigure(self, owners_most: int, served: Callable[[str], bool] | None) -> None:
        """Go over to other options, from the next message on."""
        self._sums.owners_most, self._served = owners_most, served

    def message(self, message: Mapping[str, Any]) -> None:
        """Take one message of the scout."""
        if isinstance(message.get("cgroups"), list):
            self._next += message["cgroups"]
        elif message.get("cgroups") is True:
            told, self._next = self._next, []
            self._at = self._clock()
            known = {owner[0]: Owner(*owner) for owner, *_ in told}
            self._sums.update(self._at, self._readings(told))
            kept = set(self._sums.owners())
            self._owners = {key: one for key, one in (self._owners | known).items() if key in kept}
            rows = self._sums.rows()
            self._rendered.take(
                (row for row in rows if self._served is None or self._served(row[0].name)), _MOST_LINES
            )

    @staticmethod
    def _readings(told: list[Any]) -> Iterable[CgroupReading]:
        for owner, path, events, nodes, (some, full) in told:
            yield CgroupReading(path, owner[0], events, nodes, (some, full))

    def samples(self, now: float) -> Samples | None:
        """A part of a snapshot, None where nothing fresh is known."""
        return self._rendered.samples("") if self._at and now - self._at <= _FRESH else None

    def owners(self) -> Iterable[Owner]:
        """Whom the samples name."""
        return self._owners.values()
