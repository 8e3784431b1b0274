"""Threads that wait for GPUs, whatever the driver: fences of the kernel, event by event.

Each wait writes two events, so that this costs by the wait and is only done where it is asked for. What
dma_fence_wait_timeout() does not see is not here: waits for syncobjs (drm_syncobj.c has a loop of its own),
poll() on a sync file, KFD. A thread waits for one fence at a time, so it alone joins beginning and end; the
fence's numbers are cut to 32 bits in these events. include/trace/events/dma_fence.h.
"""

from collections.abc import Iterable, Iterator, Sequence

from gpudaemon.collectors import Collector
from gpudaemon.metrics import dma_fence as rows
from gpudaemon.model.tracing import Context, Event, Hist, Note, Recipe, StreamRow, Subject, Tap

__all__ = ["COLLECTOR", "STREAM", "Waits"]

_BEGIN, _END = "dma_fence/dma_fence_wait_start", "dma_fence/dma_fence_wait_end"
_MOST_THREADS = 16384
_MOST_KEYS = 1024
_OTHERS = "others"

_Key = tuple[str, str]
"""owner, driver"""

RECIPE = Recipe(
    name="events",
    taps=(Tap(event=_BEGIN, fields=("common_pid", "driver")), Tap(event=_END, fields=("common_pid",))),
)


class Waits:
    """The accumulator (`model.tracing.Accumulator`)."""

    def __init__(self, context: Context) -> None:
        self._owner = context.owner
        self._known = False
        self._lower_bound = False
        self._waiting: dict[int, tuple[int, _Key]] = {}
        self._waits: dict[_Key, int] = {}
        self._nanoseconds: dict[_Key, int] = {}

    def armed(self, recipe: Recipe | None) -> None:
        """Who waits now is not known."""
        self._known = self._known or recipe is not None
        self._waiting.clear()

    def take(self, events: Sequence[Event]) -> None:
        """Beginnings and ends of waits."""
        waiting = self._waiting
        for at, name, values in events:
            pid = values[0]
            begun = waiting.pop(pid, None)
            if name == _END:
                if begun is not None:  # else it began before we looked
                    start, key = begun
                    self._waits[key] += 1
                    self._nanoseconds[key] += max(0, at - start)
            elif len(waiting) < _MOST_THREADS:
                waiting[pid] = (at, self._key(pid, values[1]))
            else:
                self._lower_bound = True

    def take_hist(self, event: str, hist: Hist) -> None:
        """The kernel adds nothing up."""

    def lost(self, events: int) -> None:
        """A wait whose end was lost would never end."""
        self._lower_bound = True
        self._waiting.clear()

    def rows(self, now: int) -> Iterator[StreamRow]:
        """All figures; none before anything could be watched."""
        if not self._known:
            return
        going: dict[_Key, list[int]] = {}
        for start, key in self._waiting.values():
            sums = going.setdefault(key, [0, 0])
            sums[0] += 1
            sums[1] += max(0, now - start)
        for key, count in self._waits.items():
            threads, nanoseconds = going.get(key, (0, 0))
            yield rows.WAITS, key, float(count)
            yield rows.WAIT_TIME, key, (self._nanoseconds[key] + nanoseconds) / 1e9
            yield rows.WAITING, key, float(threads)
        yield rows.LOWER_BOUND, (), float(self._lower_bound)

    def notes(self) -> Iterable[Note]:
        """Trouble: none."""
        return ()

    def _key(self, pid: int, driver: str) -> _Key:
        key = (self._owner(pid), driver)
        if key not in self._waits:
            if len(self._waits) >= _MOST_KEYS:
                key = (_OTHERS, _OTHERS)
            self._waits.setdefault(key, 0)
            self._nanoseconds.setdefault(key, 0)
        return key


COLLECTOR = Collector(name="dma_fence", emits=(rows.WAITS, rows.WAIT_TIME, rows.WAITING, rows.LOWER_BOUND))
STREAM = Subject(name="dma_fence", recipes=(RECIPE,), accumulator=Waits, of_devices=False)
