"""The clocks of a mock host, for what prints them: they start together and part when the host sleeps or is set.

Everything else of a mock host counts the seconds since it started, which stand still while it sleeps, as
CLOCK_MONOTONIC does; CLOCK_BOOTTIME goes on in sleep (Documentation/core-api/timekeeping.rst).
"""

import time
from dataclasses import dataclass, field

__all__ = ["HostClock", "LiveClock"]

_BOOT = 1_760_000_000  # CLOCK_REALTIME at boot: a tree must not depend on today
_UP = 86_400  # seconds a mock host has been up when it starts


@dataclass(slots=True)
class HostClock:
    """slept: seconds in system sleep so far. stepped: seconds by which somebody set the wall clock forward."""

    slept: float = 0.0
    stepped: float = 0.0

    def boottime(self, seconds: float) -> float:
        """CLOCK_BOOTTIME at a moment, seconds since the host started."""
        return _UP + seconds + self.slept

    def booted(self) -> int:
        """Unix time of the boot as /proc/stat has it: wall clock less CLOCK_BOOTTIME (fs/proc/stat.c)."""
        return int(_BOOT + self.stepped)


@dataclass(slots=True)
class LiveClock:
    """Seconds since a live host started, as its CLOCK_MONOTONIC would count: not in system sleep.

    began: of this machine's CLOCK_MONOTONIC. sleeps: begin and end of each system sleep there.
    """

    began: float = field(default_factory=time.monotonic)
    sleeps: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self) -> float:
        """Now."""
        return self.at(time.monotonic())

    def at(self, monotonic: float) -> float:
        """At a moment of this machine's CLOCK_MONOTONIC; while the host sleeps, the moment it fell asleep."""
        asleep = sum(max(0.0, min(monotonic, end) - begin) for begin, end in self.sleeps)
        return monotonic - self.began - asleep

    def monotonic(self, seconds: float) -> float:
        """The moment of this machine's CLOCK_MONOTONIC at which `seconds` were reached."""
        moment = self.began + seconds
        for begin, end in self.sleeps:
            if begin < moment:
                moment += end - begin
        return moment

    def asleep(self) -> bool:
        """True during a system sleep."""
        return bool(self.sleeps) and time.monotonic() < self.sleeps[-1][1]
