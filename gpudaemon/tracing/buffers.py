"""The ring buffers of our instance: pages of every processor, taken apart and put in order of time."""

import os
import select
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter

from gpudaemon.errors import Malformed
from gpudaemon.model.tracing import Event
from gpudaemon.parsers.trace_format import Format, PageLayout
from gpudaemon.parsers.trace_page import Decoder
from gpudaemon.tracing.tracefs import Tracefs

__all__ = ["Buffers"]

_MOST_PAGES = 2048
"""Pages of one processor taken in one go, so that a flood does not keep the others waiting."""
_time = itemgetter(0)


class Buffers:
    """Reads all processors of the instance. Raises OSError where one cannot be opened.

    events, others, malformed: totals. lost: overwritten before they were read; a page that says that some were
    but not how many counts as one, so the figure is a lower bound then, and `uncertain` true.
    """

    def __init__(self, tracefs: Tracefs, layout: PageLayout) -> None:
        self._layout = layout
        self._decoder = Decoder(layout, {})
        self._descriptors: dict[int, int] = {}
        self._poll = select.poll()
        self._pending: list[Event] = []
        self._newest = 0
        self.events = self.others = self.malformed = self.lost = 0
        self.uncertain = False
        try:
            for processor in tracefs.processors():
                self._descriptors[processor] = tracefs.open_pages(processor)
        except OSError:
            self.close()
            raise
        for descriptor in self._descriptors.values():
            self._poll.register(descriptor, select.POLLIN)

    @property
    def processors(self) -> list[int]:
        """Those that have a buffer."""
        return sorted(self._descriptors)

    def watch(self, wanted: Mapping[str, tuple[Format, Sequence[str]]]) -> None:
        """Which events are taken apart from now on. Raises Malformed where two formats have one id."""
        self._decoder = Decoder(self._layout, wanted)

    def wait(self, channel: int, seconds: float) -> bool:
        """Wait until `channel` can be read, a buffer is half full, or so long; whether `channel` can be
        read."""
        self._poll.register(channel, select.POLLIN)
        try:
            ready = self._poll.poll(max(0.0, seconds) * 1000)
        finally:
            self._poll.unregister(channel)
        return any(descriptor == channel for descriptor, _ in ready)

    def drain(self) -> tuple[list[Event], int]:
        """(events in order of time over all processors, number of those lost since the last call).

        While one processor is read another writes: what is newer than the newest event of the call before waits
        for the next call, for something older may yet come from a processor that was read already.
        """
        lost = 0
        fresh = self._pending
        for descriptor in self._descriptors.values():
            lost += self._drain(descriptor, fresh)
        fresh.sort(key=_time)
        cut = bisect_right(fresh, self._newest, key=_time)
        ready, self._pending = fresh[:cut], fresh[cut:]
        if self._pending:
            self._newest = self._pending[-1][0]
        self.lost += lost
        return ready, lost

    def _drain(self, descriptor: int, into: list[Event]) -> int:
        size, lost = self._layout.size, 0
        for _ in range(_MOST_PAGES):
            try:
                content = os.read(descriptor, size)
            except OSError:
                break  # EAGAIN: nothing more
            if not content:
                break
            try:
                page = self._decoder.decode(content)
            except Malformed:
                self.malformed += 1
                continue
            into += page.events
            self.events += len(page.events)
            self.others += page.others
            self.malformed += page.malformed
            if page.missed is None:
                self.uncertain = True
            lost += 1 if page.missed is None else page.missed
        return lost

    def close(self) -> None:
        """An instance whose buffers are open cannot be removed."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
