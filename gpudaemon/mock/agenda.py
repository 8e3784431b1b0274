"""What a live host has yet to do: calls at moments of this machine's CLOCK_MONOTONIC, in their order."""

import heapq
import itertools
import time
from collections.abc import Callable

__all__ = ["Agenda"]

_MOST = 100_000


class Agenda:
    """Calls to come. Whoever runs the loop asks `timeout` and calls `run_due`."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Make a call in so many seconds. Raises ValueError for more calls than anybody means."""
        if len(self._entries) >= _MOST:
            raise ValueError(f"{_MOST} things are waiting to be done already")
        heapq.heappush(self._entries, (time.monotonic() + seconds, next(self._numbers), call))

    def timeout(self) -> float | None:
        """Seconds until the next call, None for none."""
        return max(0.0, self._entries[0][0] - time.monotonic()) if self._entries else None

    def run_due(self) -> None:
        """Make the calls whose moment has come."""
        while self._entries and self._entries[0][0] <= time.monotonic():
            heapq.heappop(self._entries)[2]()
