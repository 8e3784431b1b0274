"""What one step of time does to a GPU: clocks, power, heat and counters that follow from a workload's demand.

- Power is what the chip leaks plus what its engines take at their clock; it never stays above the cap: the
  clock goes down instead (throttle reason `ppt`).
- Heat: a heat sink (slow) and the die on it (fast), air in front of it, a fan that follows the temperature
  where the card has one. A die at its limit takes the clock down too (reason `thermal`).
- Energy is the power of all steps summed up; activity, residencies, link traffic and error counters likewise.
- Asleep (D3cold) nothing counts, and the chip cools.

No kernel formats here: how a driver prints a `State` is the business of the modules that add its files.
"""

import math
from dataclasses import dataclass
from operator import attrgetter

from gpudaemon.mock.workload import Demand, noise

__all__ = ["STEP", "Chip", "State", "begin", "following", "live"]

STEP = 0.1
"""seconds for which a GPU's values stand; a firmware's own averaging is of this order"""

_UP = 86_400  # seconds for which the counters had been running when the host started
_RATE = 1000  # times a second at which firmware adds to its accumulators


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """What one model of GPU can do.

    idle, cap, peak: watts; peak is what it would take at full clock without a cap. low, high: gfx clock, MHz.
    memory_low, memory_high: the same of the memory. memory: bytes. hot: °C of the hot spot at the cap in air of
    25 °C. limit: °C at which it throttles. fan: has one. link: bytes a second of PCIe each way. fabric: bytes a
    second of one xGMI link each way.
    """

    idle: float
    cap: float
    peak: float
    low: int
    high: int
    memory_low: int
    memory_high: int
    memory: int
    hot: float = 88.0
    limit: float = 95.0
    fan: bool = False
    link: float = 57e9
    fabric: float = 64e9


@dataclass(slots=True)
class State:
    """Everything about a GPU during one step.

    step: its number. asleep: in D3cold. busy, traffic, media, filled, fan: ratios 0 to 1. clock, memory_clock:
    MHz. power: watts; slow_power: the same as a filter of a second shows it. edge, hotspot, hbm, regulator: °C.
    volts: of the gfx rail. ppt, thermal: throttled for that reason. energy, driver_energy: joules, of firmware
    and driver. samples: ticks of the firmware's accumulators; busy_sum, traffic_sum: ticks times percent;
    ppt_sum, thermal_sum, memory_thermal_sum: ticks throttled. received, sent: bytes over PCIe; inbound,
    outbound: now, bytes a second. fabric_read, fabric_written: bytes over each xGMI link. recoveries, replays:
    of PCIe.
    corrected, uncorrected, deferred: memory errors. aer_*: errors the PCI core counted. idle_seconds: time
    without work; worked: time at work. resets: since the driver came.
    """

    step: int = 0
    asleep: bool = False
    busy: float = 0.0
    traffic: float = 0.0
    media: float = 0.0
    filled: float = 0.0
    fan: float = 0.0
    clock: float = 0.0
    memory_clock: float = 0.0
    power: float = 0.0
    slow_power: float = 0.0
    sink: float = 25.0
    edge: float = 25.0
    hotspot: float = 25.0
    hbm: float = 25.0
    regulator: float = 25.0
    volts: float = 0.0
    ppt: bool = False
    thermal: bool = False
    allowed: float = 1.0
    energy: float = 0.0
    driver_energy: float = 0.0
    samples: float = 0.0
    busy_sum: float = 0.0
    traffic_sum: float = 0.0
    ppt_sum: float = 0.0
    thermal_sum: float = 0.0
    memory_thermal_sum: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    inbound: float = 0.0
    outbound: float = 0.0
    fabric_read: float = 0.0
    fabric_written: float = 0.0
    recoveries: int = 0
    replays: int = 0
    corrected: int = 0
    uncorrected: int = 0
    deferred: int = 0
    aer_corrected: int = 0
    aer_nonfatal: int = 0
    aer_fatal: int = 0
    idle_seconds: float = 0.0
    worked: float = 0.0
    resets: int = 0

    @property
    def seconds(self) -> float:
        """When the step began."""
        return self.step * STEP


_values = attrgetter(*State.__slots__)


def following(state: State) -> State:
    """The state of the following step, before anything happens in it; copy.copy takes four times as long."""
    state = State(*_values(state))
    state.step += 1
    return state


def begin(chip: Chip, demand: Demand) -> State:
    """The state of a GPU that has met this demand for a long time, its counters a day old."""
    state = State(filled=demand.filled)
    for _ in range(3):
        _work(chip, state, demand, 1.0)
        _settle(chip, state, demand)
    mean = chip.idle + 0.5 * (chip.cap - chip.idle)
    state.energy = state.driver_energy = mean * _UP
    state.samples = 100_000.0
    state.busy_sum, state.traffic_sum = state.samples * 50, state.samples * 30
    state.received = state.sent = 3e9 * _UP
    state.fabric_read = state.fabric_written = 1e9 * _UP
    state.recoveries = 4
    state.idle_seconds = state.worked = _UP / 2
    return state


def live(chip: Chip, state: State, demand: Demand, seed: int) -> None:
    """Bring `state` from the begin of its step to what it is in that step."""
    if state.asleep:
        _sleep(chip, state, demand)
    else:
        _work(chip, state, demand, 0.35)
        _heat(chip, state, demand)
        _count(chip, state, demand, seed)


def _work(chip: Chip, state: State, demand: Demand, filter_: float) -> None:
    """Load, clocks, power: what the engines do, and what cap and temperature allow."""
    state.busy += (demand.busy - state.busy) * filter_
    state.traffic += (demand.traffic - state.traffic) * filter_
    state.media = demand.media
    state.filled = demand.filled
    used = 0.75 * state.busy + 0.25 * state.traffic
    # The power of a clock goes with its square here, voltage and all: enough for a cap to bite.
    wanted = min(1.0, 1.2 * state.busy) if state.busy < 1 / 1.2 else 1.0
    free = (chip.cap - chip.idle) / max(1e-9, (chip.peak - chip.idle) * used)
    capped = math.sqrt(free) if free < 1 else 1.0
    ratio = min(wanted, capped, state.allowed)
    state.ppt = capped < wanted and capped <= state.allowed
    state.thermal = state.allowed < min(wanted, capped)
    state.clock = chip.low + (chip.high - chip.low) * ratio
    state.memory_clock = float(
        chip.memory_high if state.traffic > 0.05 or state.busy > 0.1 else chip.memory_low
    )
    relative = max(ratio, 0.35)  # the voltage has a floor
    power = min(chip.cap, chip.idle + (chip.peak - chip.idle) * used * relative**2)
    state.power = power if filter_ == 1.0 else state.power + (power - state.power) * 0.5
    state.slow_power += (state.power - state.slow_power) * (1.0 if filter_ == 1.0 else STEP)
    state.volts = 0.68 + 0.4 * ratio * (state.busy > 0.01)


def _rise(chip: Chip) -> float:
    """°C a watt from the air to the hot spot."""
    return (chip.hot - 25.0) / chip.cap


def _target(chip: Chip, state: State, demand: Demand) -> float:
    """°C that the heat sink would come to."""
    blown = 0.6 + 0.4 / (0.5 + state.fan) if chip.fan else 1.0
    return 25.0 + demand.air + 0.6 * _rise(chip) * blown * state.power


def _die(chip: Chip, state: State, demand: Demand, filter_: float) -> None:
    """The temperatures on top of the heat sink's."""
    rise, sink = _rise(chip) * state.power, state.sink
    state.edge += (sink + 0.15 * rise - state.edge) * filter_
    state.hotspot += (sink + 0.4 * rise - state.hotspot) * filter_
    state.hbm += (sink + 0.1 * rise + 12 * state.traffic - state.hbm) * filter_
    state.regulator += (sink + 0.25 * rise - state.regulator) * filter_


def _settle(chip: Chip, state: State, demand: Demand) -> None:
    """All temperatures where they would come to."""
    for _ in range(8):
        state.sink = _target(chip, state, demand)
        state.fan = _blow(chip, state)
    _die(chip, state, demand, 1.0)


def _blow(chip: Chip, state: State) -> float:
    # The fan stands still while the card is cool.
    return min(1.0, max(0.0, (state.edge - 45.0) / 45.0)) if chip.fan else 0.0


def _heat(chip: Chip, state: State, demand: Demand) -> None:
    """One step of warming or cooling, and of the control that keeps the hot spot below its limit."""
    state.sink += (_target(chip, state, demand) - state.sink) * STEP / 18
    _die(chip, state, demand, STEP / 1.2)
    state.fan += (_blow(chip, state) - state.fan) * STEP / 3
    excess = state.hotspot - chip.limit
    change = -0.01 * min(3.0, 1 + excess) if excess > 0 else 0.004 if excess < -1.0 else 0.0
    state.allowed = min(1.0, max(0.2, state.allowed + change))


def _count(chip: Chip, state: State, demand: Demand, seed: int) -> None:
    """Everything that only goes up."""
    state.energy += state.power * STEP
    state.driver_energy += state.power * STEP
    ticks = _RATE * STEP
    state.samples += ticks
    state.busy_sum += ticks * 100 * state.busy
    state.traffic_sum += ticks * 100 * state.traffic
    state.ppt_sum += ticks * state.ppt
    state.thermal_sum += ticks * state.thermal
    state.memory_thermal_sum += ticks * (state.hbm > chip.limit)
    state.inbound, state.outbound = chip.link * demand.inbound, chip.link * demand.outbound
    state.received += state.inbound * STEP
    state.sent += state.outbound * STEP
    state.fabric_read += chip.fabric * demand.fabric * STEP
    state.fabric_written += chip.fabric * demand.fabric * 0.95 * STEP
    state.idle_seconds += STEP * (1 - state.busy)
    state.worked += STEP * state.busy
    # A link that is used has a bit error now and then, a hot one more: a replay, which the PCI core sees as a
    # correctable error; hot memory has errors that ECC corrects.
    chance = noise(seed ^ 0x5EED, state.step)
    heat = max(0.0, state.hotspot - chip.limit + 10) / 10
    if chance < 0.0002 * demand.inbound + 0.002 * heat * heat:
        state.replays += 1
        state.aer_corrected += 1
    elif chance > 1 - 0.0001 * state.traffic - 0.002 * heat * heat:
        state.corrected += 1


def _sleep(chip: Chip, state: State, demand: Demand) -> None:
    """One step in D3cold: no power, nothing counts, the chip cools."""
    state.busy = state.traffic = state.media = 0.0
    state.clock = state.memory_clock = state.volts = 0.0
    state.power = state.slow_power = state.inbound = state.outbound = 0.0
    state.ppt = state.thermal = False
    state.allowed = 1.0
    state.sink += (25.0 + demand.air - state.sink) * STEP / 18
    _die(chip, state, demand, STEP / 1.2)
    state.fan = 0.0
