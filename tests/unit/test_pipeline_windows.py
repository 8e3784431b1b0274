"""Windows against a slow reference that knows every reading."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.pipeline.windows import COVER, WINDOWS, Window, gap_after, window_end

PERIOD = 0.5
GAP = gap_after(PERIOD)
Reading = tuple[float, float | None]
Figures = tuple[float | None, float | None, float | None]


def reference(readings: list[Reading], length: float, offset: float) -> Figures:
    """Figures of the last window of `length` that ended by the last reading, from every reading there was."""
    end = (readings[-1][0] + offset) // length * length - offset
    start = end - length
    covered = area = 0.0
    for (t1, v1), (t2, v2) in pairwise(readings):
        if v1 is None or v2 is None or t2 - t1 > GAP:
            continue
        a, b = max(t1, start), min(t2, end)
        if b > a:
            slope = (v2 - v1) / (t2 - t1)
            area += (b - a) * (v1 + slope * ((a + b) / 2 - t1))
            covered += b - a
    within = [value for at, value in readings if start <= at < end and value is not None]
    if covered < COVER * length or not within:
        return (None, None, None)
    return (min(within), max(within), min(max(area / covered, min(within)), max(within)))


@dataclass
class Feeder:
    """Tells a window what a lane would: changes, losses and ends of windows, and nothing else."""

    window: Window
    offset: float
    last: float = 0.0
    known: float | None = None
    end: float = 0.0

    def read(self, at: float, value: float | None) -> None:
        if self.last and at - self.last > GAP:
            self.window.lose(self.last)
            self.known = None
        if value != self.known:
            self.window.read(at, value, self.last)
        if at >= self.end:
            self.window.hold(at)
            self.window.close(at)
            self.end = window_end(at, self.offset)
        self.known, self.last = value, at


STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(PERIOD), st.floats(0.01, 1.4), st.floats(0.01, 200.0)),
        st.integers(1, 60),
        st.one_of(st.none(), st.integers(0, 400)),
    ),
    min_size=1,
    max_size=30,
)


def _same(found: Figures, wanted: Figures) -> bool:
    if None in found or None in wanted:
        return found == wanted
    return found == pytest.approx(wanted, rel=1e-9, abs=1e-6)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.floats(1.7e9, 1.8e9), st.floats(1.0, 1e6))
def test_windows_are_those_of_the_reference(
    steps: list[tuple[float, int, int | None]], offset: float, start: float
) -> None:
    """A step: so long nothing is read, then so many readings a period apart say that value."""
    window = Window(offset)
    feeder = Feeder(window, offset)
    readings: list[Reading] = []
    now = start
    for pause, times, value in steps:
        now += pause
        for _ in range(times):
            readings.append((now, value))
            feeder.read(now, value)
            for which, length in enumerate(WINDOWS):
                end = (now + offset) // length * length - offset
                if abs(now - end) > 1e-3 and _border(readings, end, length):
                    assert _same(window.figures[which], reference(readings, length, offset)), (now, length)
            now += PERIOD


def _border(readings: list[Reading], end: float, length: float) -> bool:
    """False where rounding decides: coverage within a hair of the limit, or a reading on a boundary."""
    start = end - length
    covered = sum(
        max(0.0, min(t2, end) - max(t1, start))
        for (t1, v1), (t2, v2) in pairwise(readings)
        if v1 is not None and v2 is not None and t2 - t1 <= GAP
    )
    nearest = min(min(abs(at - start), abs(at - end)) for at, _ in readings)
    return abs(covered - COVER * length) > 1e-3 and nearest > 1e-3


def _fed(readings: list[Reading]) -> Window:
    window = Window(0.0)
    feeder = Feeder(window, 0.0)
    for at, value in readings:
        feeder.read(at, value)
    return window


def test_a_reading_at_the_boundary_belongs_to_the_window_that_begins() -> None:
    readings: list[Reading] = [(30.0 + i / 2, 100.0) for i in range(30)]
    window = _fed([*readings, (45.0, 900.0)])
    assert window.figures[0] == (100.0, 100.0, 100.0)  # the mean is kept between the readings' extremes
    window = _fed([*readings, (45.0, 900.0), *((45.5 + i / 2, 100.0) for i in range(30))])
    assert window.figures[0][1] == 900.0


def test_a_spike_across_a_boundary_is_in_both_windows_with_its_share_of_area() -> None:
    readings: list[Reading] = [(float(i), 100.0) for i in range(30, 45)]
    readings += [(44.5, 400.0), (45.5, 400.0)] + [(float(i), 100.0) for i in range(46, 61)]
    first = _fed([r for r in readings if r[0] <= 46])
    # 44 to 44.5 rises by 300 W, 44.5 to 45 stays: 75 + 150 joules above 100 W
    assert first.figures[0] == (100.0, 400.0, pytest.approx(100 + 225 / 15))
    second = _fed(readings)
    assert second.figures[0] == (100.0, 400.0, pytest.approx(100 + 225 / 15))


def test_a_window_is_complete_only_when_a_reading_shows_it() -> None:
    window = _fed([(30.0 + i / 2, 5.0) for i in range(30)])
    assert window.figures[0] == (None, None, None)
    window = _fed([(30.0 + i / 2, 5.0) for i in range(31)])
    assert window.figures[0] == (5.0, 5.0, 5.0)


@pytest.mark.parametrize(("missing", "served"), [(2.5, True), (4.0, False)])
def test_a_window_needs_most_of_its_time(missing: float, served: bool) -> None:
    readings: list[Reading] = [(30 + i / 2, 7.0) for i in range(31)]
    seen = [(at, None if 35 < at < 35 + missing else value) for at, value in readings]
    assert (_fed(seen).figures[0] != (None, None, None)) is served


def test_a_minute_is_four_parts() -> None:
    readings: list[Reading] = [(60.0 + i / 2, float(i // 30)) for i in range(121)]
    window = _fed(readings)
    assert window.figures[1][:2] == (0.0, 3.0)
    assert window.figures[1][2] == pytest.approx(1.5, abs=0.02)
    assert window.figures[0][:2] == (3.0, 3.0)


def test_boundaries_are_those_of_unix_time() -> None:
    offset = 1_700_000_003.25
    for moment in (10.0, 11.75, 1e5):
        end = window_end(moment, offset)
        assert moment < end <= moment + 15
        assert (end + offset) % 15 == pytest.approx(0, abs=1e-5) or (end + offset) % 15 == pytest.approx(15)
