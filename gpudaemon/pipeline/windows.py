"""Minimum, maximum and mean of one value over fixed windows of 15 and 60 seconds of unix time. Pure.

Windows begin at whole multiples of their length since 1970, so that everybody who asks is told the same. The
clock of readings does not follow the wall clock: unix time is CLOCK_MONOTONIC plus an offset settled once, when
the daemon starts.

Between two readings the value goes in a straight line: the mean is the area below divided by the time covered,
and a line that crosses a boundary belongs to both sides in parts. Minimum and maximum are those of readings,
the beginning of a window included and its end not. A window with less than 80 % of its time covered by readings
has no figures: see docs/windows.md.

Nothing is done for a reading that says what the one before said: a value is held until somebody has to know.
"""

from collections.abc import Sequence
from math import floor

__all__ = ["COVER", "READINGS", "WINDOWS", "Window", "gap_after", "window_end"]

WINDOWS = (15.0, 60.0)
"""Lengths in seconds. Whatever is longer is put together from parts of the first length."""
COVER = 0.8
"""Share of a window that readings must cover."""
READINGS = 5
"""Readings a window must have room for: slower files have no windows."""
_PARTS = round(WINDOWS[-1] / WINDOWS[0])
_LEAST_GAP = 3.0

_Part = tuple[float, float, float, float]
"""lowest, highest, area, covered"""
_Figures = tuple[float | None, float | None, float | None]
_NOTHING: _Figures = (None, None, None)


def gap_after(period: float) -> float:
    """Seconds between two readings after which what lies between is not known: as long as a value is fresh."""
    return max(3 * period, _LEAST_GAP)


def window_end(moment: float, offset: float) -> float:
    """End (CLOCK_MONOTONIC) of the shortest window that `moment` is in. offset: unix time less that clock."""
    return (floor((moment + offset) / WINDOWS[0]) + 1) * WINDOWS[0] - offset


class Window:
    """The windows of one value.

    offset: unix time less CLOCK_MONOTONIC, all moments being of the latter.
    figures: (minimum, maximum, mean) of the last complete window of each length, None where not known.
    ended: when each of them ended, 0.0 for never.
    end: of the shortest window open now, 0.0 before the first reading.
    """

    __slots__ = (
        "_area",
        "_covered",
        "_high",
        "_low",
        "_number",
        "_offset",
        "_parts",
        "_since",
        "end",
        "ended",
        "figures",
        "value",
    )

    def __init__(self, offset: float) -> None:
        self._offset = offset
        self.value: float | None = None
        self._since = 0.0
        self._number = 0
        self._low: float | None = None
        self._high = self._area = self._covered = 0.0
        self._parts: list[_Part | None] = [None] * _PARTS
        self.end = 0.0
        self.figures: list[_Figures] = [_NOTHING, _NOTHING]
        self.ended = [0.0, 0.0]

    def read(self, at: float, value: float | None, before: float) -> None:
        """A reading at `at` gave `value`, None for not known; the reading before it was at `before`."""
        if value is None:
            self.lose(before)
            return
        held = self.value
        if held is None:
            self._skip_to(at)
        else:
            self.hold(before)
            if at > self._since:
                self._cover(self._since, held, at, value)
        self.value = value
        self._since = max(self._since, at)
        self._note(value)

    def hold(self, until: float) -> None:
        """The last reading, at `until`, said again what was known."""
        held = self.value
        if held is not None and until > self._since:
            self._cover(self._since, held, until, held)
            self._since = until
            self._note(held)

    def lose(self, before: float) -> None:
        """Nothing is known from the reading at `before` on."""
        self.hold(before)
        self.value = None

    def close(self, at: float) -> None:
        """Every window that ended by `at` is complete; what is not covered by then never will be."""
        self._skip_to(at)

    def _note(self, value: float) -> None:
        if self._low is None:
            self._low = self._high = value
        elif value < self._low:
            self._low = value
        elif value > self._high:
            self._high = value

    def _cover(self, start: float, first: float, stop: float, last: float) -> None:
        """Readings say that the value went from `first` at `start` to `last` at `stop`."""
        while stop >= self.end:
            within = self.end - start
            middle = first + (last - first) * (within / (stop - start)) if stop > start else last
            self._area += (first + middle) / 2 * within
            self._covered += within
            start, first = self.end, middle
            self._roll()
        self._area += (first + last) / 2 * (stop - start)
        self._covered += stop - start

    def _skip_to(self, at: float) -> None:
        """Close what ended by `at`, as far as it was covered."""
        if not self.end or at - self.end > WINDOWS[-1] + WINDOWS[0]:
            self._number = floor((at + self._offset) / WINDOWS[0])
            self.end = window_end(at, self._offset)
            self._parts = [None] * _PARTS
            self.figures = [_NOTHING, _NOTHING]
            self._low, self._area, self._covered = None, 0.0, 0.0
        while at >= self.end:
            self._roll()

    def _roll(self) -> None:
        """The open window is over; the next begins, with nothing in it."""
        short, long = WINDOWS
        part = None if self._low is None else (self._low, self._high, self._area, self._covered)
        self._parts[self._number % _PARTS] = part
        self.figures[0] = _figures((part,), short)
        self.ended[0] = self.end
        if self._number % _PARTS == _PARTS - 1:
            self.figures[1] = _figures(self._parts, long)
            self.ended[1] = self.end
            self._parts = [None] * _PARTS
        self._number += 1
        self.end = (self._number + 1) * short - self._offset
        self._low, self._area, self._covered = None, 0.0, 0.0


def _figures(parts: Sequence[_Part | None], length: float) -> _Figures:
    """Figures of a window made of `parts`; none where too little of it is covered."""
    known = [part for part in parts if part is not None]
    covered = sum(part[3] for part in known)
    if covered < COVER * length:
        return _NOTHING
    low = min(part[0] for part in known)
    high = max(part[1] for part in known)
    mean = sum(part[2] for part in known) / covered
    # The line from the reading before the window may begin above or below all readings within.
    return low, high, min(max(mean, low), high)
