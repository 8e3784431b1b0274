"""Values that follow a programme instead of a sine: idle, and pulses at known moments of the real clock.

A `Schedule` is the truth, a number as a function of the time since a stated moment of CLOCK_MONOTONIC; a
`Sensor` is how a driver shows it: scaled, rounded, averaged, renewed every so often and held in between. A test
keeps the schedule and compares what the daemon made of it: CLOCK_MONOTONIC is the same in every process.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from gpudaemon.mock.tree import Generate

__all__ = ["Schedule", "Sensor"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number over time: `idle`, and during each pulse its value.

    pulses: (start seconds, duration seconds, value), in the order of their starts, none overlapping the next;
    a pulse includes its first moment and not its last. Raises ValueError for any other.
    """

    idle: float
    pulses: Sequence[tuple[float, float, float]] = ()
    _starts: list[float] = field(init=False, repr=False, compare=False)
    _excess: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = [self.idle, *(number for pulse in self.pulses for number in pulse)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("every number of a schedule is finite")
        for start, duration, _ in self.pulses:
            if duration <= 0:
                raise ValueError(f"the pulse at {start} s lasts {duration} s, allowed are positive durations")
        for (start, duration, _), (following, _, _) in pairwise(self.pulses):
            if start + duration > following + 1e-9:  # 0.009 + 0.001 is more than 0.01
                raise ValueError(f"the pulse at {start} s lasts beyond the start of the next at {following} s")
        object.__setattr__(self, "_starts", [start for start, _, _ in self.pulses])
        # _excess[i]: integral above idle of all pulses before pulse i.
        above = (duration * (value - self.idle) for _, duration, value in self.pulses)
        object.__setattr__(self, "_excess", list(accumulate(above, initial=0.0)))

    def at(self, seconds: float) -> float:
        """The value at a moment."""
        index = bisect_right(self._starts, seconds) - 1
        if index >= 0:
            start, duration, value = self.pulses[index]
            if seconds < start + duration:
                return value
        return self.idle

    def integral(self, begin: float, end: float) -> float:
        """The value summed over time from `begin` to `end`: of watts, joules."""
        return self.idle * (end - begin) + self._above(end) - self._above(begin)

    def _above(self, seconds: float) -> float:
        """Integral above idle from the first pulse until `seconds`."""
        index = bisect_right(self._starts, seconds) - 1
        if index < 0:
            return 0.0
        start, duration, value = self.pulses[index]
        return self._excess[index] + min(seconds - start, duration) * (value - self.idle)


@dataclass(frozen=True, slots=True)
class Sensor:
    """How a schedule shows in a file: `%d\\n` of value times scale, rounded down to a multiple of `step`.

    update: seconds for which the sensor holds a value, 0 for none; phase: seconds by which its updates come
    after the multiples of `update`. average: seconds before the update over which the value is a mean, 0 for
    none. Raises ValueError for what cannot be.
    """

    scale: float = 1.0
    step: int = 1
    update: float = 0.0
    phase: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.scale, self.step, self.update, self.phase, self.average)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("every number of a sensor is finite")
        if self.step < 1 or self.update < 0 or self.average < 0:
            raise ValueError("a sensor has step >= 1, update >= 0 and average >= 0")

    def sampled(self, seconds: float) -> float:
        """The moment of the update whose value a read at `seconds` meets."""
        if not self.update:
            return seconds
        return math.floor((seconds - self.phase) / self.update) * self.update + self.phase

    def value(self, schedule: Schedule, seconds: float) -> int:
        """The number that a read at `seconds` gives."""
        moment = self.sampled(seconds)
        if self.average:
            value = schedule.integral(moment - self.average, moment) / self.average
        else:
            value = schedule.at(moment)
        # 0.57 * 100 is 56.99999999999999; what is meant is 57.
        return math.floor(round(value * self.scale, 6)) // self.step * self.step


def generate(schedule: Schedule, sensor: Sensor, since: float) -> Generate:
    """The content of a file whose sensor follows `schedule`; since: its moment 0, in seconds of the host."""
    return lambda seconds: b"%d\n" % sensor.value(schedule, seconds - since)


def parse(schedule: Mapping[str, Any], sensor: Mapping[str, Any]) -> tuple[Schedule, Sensor]:
    """Both from what the control protocol carries. Raises TypeError and ValueError for anything else."""
    pulses = tuple((float(start), float(length), float(value)) for start, length, value in schedule["pulses"])
    return Schedule(float(schedule["idle"]), pulses), Sensor(**sensor)
