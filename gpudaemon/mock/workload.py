"""What a mock GPU is asked to do: named workloads, each a pure function of a seed and the seconds it has run.

A workload gives demand, not results: clocks, power, heat and throttling follow from it in
`gpudaemon.mock.physics`.

idle: nothing but a blip now and then. training: steps of compute with an exchange of gradients at the end of
each, all memory in use, a checkpoint every three minutes. inference: requests that come and go, key-value
caches that fill and empty. thermal: everything at once in air that gets hotter, until the chip throttles.
varying: slow sines, so that a page of graphs looks like a machine at work.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpudaemon.mock.motion import Load

__all__ = ["WORKLOADS", "Demand", "Workload", "noise"]

_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a GPU at one moment; ratios 0 to 1 but for `air`.

    busy: of the compute engines. traffic: of the memory's bandwidth. filled: of the memory in use. media: of
    the codecs. inbound, outbound: of the PCIe link, to and from the device. fabric: of each xGMI link.
    air: °C by which the air is hotter than the host's inlet.
    """

    busy: float = 0.0
    traffic: float = 0.0
    filled: float = 0.0
    media: float = 0.0
    inbound: float = 0.0
    outbound: float = 0.0
    fabric: float = 0.0
    air: float = 0.0


Workload = Callable[[int, float], Demand]
"""seed, seconds since it began -> demand"""


def noise(seed: int, moment: int) -> float:
    """A number from 0 to 1 that is always the same for the same arguments (the mixer of splitmix64)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + moment * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return (mixed ^ mixed >> 31) / 2**64


def _smooth(seed: int, seconds: float) -> float:
    """Noise that goes in a curve from one whole second to the next."""
    before = math.floor(seconds)
    part = seconds - before
    part = part * part * (3 - 2 * part)
    return noise(seed, before) * (1 - part) + noise(seed, before + 1) * part


def _idle(seed: int, seconds: float) -> Demand:
    # A monitoring or desktop process touches the engines for a moment.
    blip = noise(seed, int(seconds)) > 0.95
    return Demand(busy=0.03 if blip else 0.0, traffic=0.01 if blip else 0.0, filled=0.01)


_LOADING = 12.0  # seconds in which a job reads its model into memory
_CHECKPOINT = (180.0, 8.0)  # every so many seconds, for so many


def _training(seed: int, seconds: float) -> Demand:
    if seconds < _LOADING:
        return Demand(busy=0.04, traffic=0.2, filled=0.88 * seconds / _LOADING, inbound=0.6)
    running = seconds - _LOADING
    every, lasts = _CHECKPOINT
    if running % every > every - lasts:
        return Demand(busy=0.08, traffic=0.15, filled=0.9, outbound=0.7)
    step = 1.1 + 0.4 * noise(seed, 1)
    position = running % step / step
    jitter = 0.02 * noise(seed, int(running * 10))
    if position > 0.8:
        return Demand(busy=0.72 + jitter, traffic=0.5, filled=0.9, fabric=0.85, inbound=0.02)
    return Demand(busy=1.0 - jitter, traffic=0.75, filled=0.9, fabric=0.08, inbound=0.05)


def _inference(seed: int, seconds: float) -> Demand:
    level = 0.1 + 0.8 * _smooth(seed, seconds / 20)
    ripple = 0.12 * (_smooth(seed + 1, seconds * 2) - 0.5)
    busy = min(1.0, max(0.0, level + ripple))
    loaded = min(1.0, seconds / _LOADING)
    return Demand(
        busy=busy * loaded,
        traffic=0.9 * busy * loaded,
        filled=loaded * (0.55 + 0.3 * _smooth(seed + 2, seconds / 45)),
        inbound=0.6 if loaded < 1 else 0.04 * busy,
        outbound=0.01 * busy,
        fabric=0.15 * busy * loaded,
    )


def _thermal(_seed: int, seconds: float) -> Demand:
    return Demand(
        busy=1.0,
        traffic=0.95,
        filled=0.3,
        inbound=0.1,
        outbound=0.1,
        fabric=0.1,
        air=min(35.0, seconds),
    )


def _follow(load: Load, seconds: float, *, most: float = 0.9) -> Demand:
    busy = load.busy(seconds)
    return Demand(
        busy=busy,
        traffic=0.6 * busy,
        filled=most * load.filled(seconds),
        inbound=0.12 * busy,
        outbound=0.06 * busy,
        fabric=0.3 * busy,
    )


_loads: dict[tuple[int, float, float], Load] = {}  # bounded by the seeds and ranges that profiles name


def _sines(seed: int, low: float, high: float) -> Load:
    key = (seed, low, high)
    if key not in _loads:
        _loads[key] = Load.seeded(seed, low, high)
    return _loads[key]


def _varying(seed: int, seconds: float) -> Demand:
    return _follow(_sines(seed, 0.05, 0.98), seconds)


def _desktop(seed: int, seconds: float) -> Demand:
    return _follow(_sines(seed, 0.03, 0.6), seconds, most=1.4)


WORKLOADS: Mapping[str, Workload] = {
    "desktop": _desktop,
    "idle": _idle,
    "inference": _inference,
    "thermal": _thermal,
    "training": _training,
    "varying": _varying,
}
