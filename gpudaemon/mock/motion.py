"""Values that move smoothly, and the same way each time: functions of a seed and the seconds since start.

A sum of slow sines with phases drawn from the seed. Sensors of the host follow it, and GPUs whose workload is
`varying`.
"""

import math
import random
from dataclasses import dataclass

__all__ = ["Load"]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy one GPU is, between `low` and `high` (ratios 0 to 1).

    phases: of the sines, radians.
    """

    low: float
    high: float
    phases: tuple[float, ...]

    @staticmethod
    def seeded(seed: int, low: float = 0.05, high: float = 0.98) -> "Load":
        """The load of the GPU numbered `seed`; equal arguments give equal motion."""
        source = random.Random(seed)
        return Load(low, high, tuple(source.uniform(0, 2 * math.pi) for _ in range(4)))

    def _wave(self, seconds: float, periods: tuple[float, ...]) -> float:
        # Weights 1, 1/2, 1/4: the slow one leads, the fast ones ripple; the sum stays within -1 to 1.
        total = 0.0
        weight = 4 / 7
        for period, phase in zip(periods, self.phases, strict=False):
            total += weight * math.sin(2 * math.pi * seconds / period + phase)
            weight /= 2
        return total

    def busy(self, seconds: float) -> float:
        """Share of time the engines work, a ratio; periods 61, 17 and 5 s."""
        return self.low + (self.high - self.low) * (0.5 + 0.5 * self._wave(seconds, (61.0, 17.0, 5.0)))

    def warm(self, seconds: float) -> float:
        """Heat, a ratio: the load as a heat sink sees it, without the quick ripple."""
        return self.low + (self.high - self.low) * (0.5 + 0.5 * self._wave(seconds - 8, (61.0, 97.0)))

    def filled(self, seconds: float) -> float:
        """Share of memory in use, a ratio: allocations change in minutes."""
        return self.low + (self.high - self.low) * (0.5 + 0.5 * self._wave(seconds, (301.0, 127.0)))
