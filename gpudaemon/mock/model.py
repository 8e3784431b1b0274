"""One GPU as a physical thing: what its workload does to clocks, power, heat, memory, links and counters.

A GPU lives in steps of `STEP` seconds. Each step follows from the one before and from what the workload asks,
so everything that is shown of a moment, in text files and in binary tables, comes from one `State` and agrees.
Nothing runs in the background: the states up to a moment are computed when somebody asks, and the same orders
at the same moments always give the same states.

Firmware counters start anew with a reset of the GPU, the driver's with the driver; both when the device comes
back. What a step does is in `gpudaemon.mock.physics`.
"""

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gpudaemon.mock.physics import STEP, Chip, State, begin, following, live
from gpudaemon.mock.workload import WORKLOADS

__all__ = ["ERRORS", "STEP", "Chip", "Gpu", "State"]

_HISTORY = 600  # steps that can be asked about without computing anew
_ORDERS = 4096  # orders that are kept, so that what was before can be computed anew
_RATE = 1000  # times a second at which firmware adds to its accumulators
_FIRMWARE = (
    *("energy", "samples", "busy_sum", "traffic_sum", "ppt_sum", "thermal_sum", "memory_thermal_sum"),
    *("received", "sent", "fabric_read", "fabric_written", "recoveries", "replays"),
)
_DRIVER = ("corrected", "uncorrected", "deferred", "driver_energy", "idle_seconds", "resets")
_DEVICE = ("aer_corrected", "aer_nonfatal", "aer_fatal")

ERRORS = (
    *("corrected", "uncorrected", "deferred", "replays", "recoveries"),
    *("aer_corrected", "aer_nonfatal", "aer_fatal"),
)
"""counters that `Gpu.add` takes"""

Change = Callable[[State], None]


@dataclass(order=True, slots=True)
class _Order:
    """Something that happens to a GPU at the begin of a step; `number` keeps orders of one step in turn."""

    step: int
    number: int
    change: Change = field(compare=False)
    workload: str = field(compare=False, default="")
    restart: bool = field(compare=False, default=False)


class Gpu:
    """One GPU over time. chip, seed, workload: what it is, what makes it differ from its like, what it does.

    prepare: called before states up to a moment are computed, so that whoever knows of orders (runtime power
    management) can give them first.
    """

    def __init__(self, chip: Chip, seed: int, workload: str = "varying", *, history: int = _HISTORY) -> None:
        self.chip = chip
        self.seed = seed
        self.prepare: Callable[[float], None] = lambda _seconds: None
        self._first = workload
        self._since = 0
        self._origin: State | None = None
        self._orders: list[_Order] = []
        self._states: deque[State] = deque(maxlen=history)
        self._start()

    def remember(self, steps: int) -> None:
        """How many states are kept for questions about the past."""
        self._states = deque(self._states, maxlen=steps)

    def restart(self, seed: int, workload: str | None = None) -> None:
        """Begin another life, before anybody has seen this one. Raises ValueError for no workload."""
        if workload is not None and workload not in WORKLOADS:
            raise ValueError(f"no workload {workload!r}: there are {', '.join(WORKLOADS)}")
        self.seed = seed
        self._first = workload or self._first
        self._start()

    @property
    def workload(self) -> str:
        """What it does at the newest moment that was asked about."""
        return self._workload

    def at(self, seconds: float) -> State:
        """The state at a moment, seconds since the host started; not to be changed by the caller."""
        step = max(0, math.floor(seconds / STEP + 1e-6))
        newest = self._states[-1]
        if newest.step == step:
            return newest
        if newest.step < step:
            self.prepare(seconds)
            return self._advance(step)
        if step < self._states[0].step:
            self._start()
            return self._advance(max(step, self._states[0].step))
        return self._states[step - self._states[0].step]

    def between(self, since: float, until: float) -> Iterator[State]:
        """Every state that was true at some moment from `since` to `until`, as far back as is known."""
        last = self.at(until)
        first = max(0, math.floor(since / STEP + 1e-6))
        return (state for state in list(self._states) if first <= state.step <= last.step)

    def _start(self) -> None:
        """The state at the begin: as if it had worked like this for long."""
        self._workload, self._began, self._next = self._first, self._since, 0
        self._states.clear()
        if self._origin is not None:
            self._states.append(self._origin)
            return
        self._states.append(begin(self.chip, WORKLOADS[self._first](self.seed, 0.0)))

    def _advance(self, step: int) -> State:
        state = self._states[-1]
        while state.step < step:
            state = following(state)
            self._follow(state)
            demand = WORKLOADS[self._workload](self.seed, (state.step - self._began) * STEP)
            live(self.chip, state, demand, self.seed)
            self._states.append(state)
        return state

    def _follow(self, state: State) -> None:
        """Carry out the orders of this step."""
        while self._next < len(self._orders) and self._orders[self._next].step <= state.step:
            order = self._orders[self._next]
            self._next += 1
            if order.workload:
                self._workload = order.workload
            if order.workload or order.restart:
                self._began = state.step
            order.change(state)

    def _order(self, seconds: float, change: Change, workload: str = "", *, restart: bool = False) -> float:
        """Have something happen at the first step that begins after a moment; returns that step's begin."""
        step = max(0, math.floor(seconds / STEP + 1e-6)) + 1
        if step <= self._states[-1].step:
            # It was computed as if nothing had happened: forget that and go on from before.
            while self._states and self._states[-1].step >= step:
                self._states.pop()
            if not self._states:
                self._start()
            else:
                self._replay(self._states[-1].step)
        if len(self._orders) >= _ORDERS:
            self._forget()
        insort(self._orders, _Order(step, len(self._orders), change, workload, restart))
        return step * STEP

    def _forget(self) -> None:
        """Let the oldest state that is known be the begin of all, and drop the orders before it."""
        self._origin = self._states[0]
        done = [order for order in self._orders if order.step <= self._origin.step]
        for order in done:
            self._first = order.workload or self._first
            if order.workload or order.restart:
                self._since = order.step
        self._orders = self._orders[len(done) :]
        for number, order in enumerate(self._orders):
            order.number = number
        self._next -= len(done)

    def _replay(self, step: int) -> None:
        """Which orders were carried out up to a step, and what they left."""
        self._workload, self._began, self._next = self._first, self._since, 0
        for order in self._orders:
            if order.step > step:
                break
            self._next += 1
            self._workload = order.workload or self._workload
            if order.workload or order.restart:
                self._began = order.step

    def work(self, seconds: float, workload: str) -> float:
        """Do something else from the next step on; returns when that is. Raises ValueError for no workload."""
        if workload not in WORKLOADS:
            raise ValueError(f"no workload {workload!r}: there are {', '.join(WORKLOADS)}")
        return self._order(seconds, lambda _state: None, workload)

    def sleep(self, seconds: float, asleep: bool) -> float:
        """Fall asleep or wake."""
        return self._order(seconds, lambda state: setattr(state, "asleep", asleep))

    def reset(self, seconds: float) -> float:
        """Reset the chip: its memory is lost, its firmware counts from zero, the job starts again."""

        def change(state: State) -> None:
            _clear(state, _FIRMWARE)
            state.resets += 1
            state.busy = state.traffic = state.filled = 0.0

        return self._order(seconds, change, restart=True)

    def reload(self, seconds: float) -> float:
        """Bind the driver anew: what it counted itself starts from zero, and the job starts again."""

        def change(state: State) -> None:
            _clear(state, _DRIVER)
            state.busy = state.traffic = state.filled = 0.0

        return self._order(seconds, change, restart=True)

    def renew(self, seconds: float) -> float:
        """Come back after removal: every counter from zero, the chip as warm as the air."""

        def change(state: State) -> None:
            _clear(state, (*_FIRMWARE, *_DRIVER, *_DEVICE))
            state.busy = state.traffic = state.filled = 0.0
            state.sink = state.edge = state.hotspot = state.hbm = state.regulator = 25.0

        return self._order(seconds, change, restart=True)

    def cool(self, seconds: float, passed: float) -> float:
        """Come back from a system sleep: switched off for so many seconds, then with nothing to do at first."""

        def change(state: State) -> None:
            state.sink = 25.0 + (state.sink - 25.0) * math.exp(-passed / 18)
            state.edge = state.hotspot = state.hbm = state.regulator = state.sink
            state.busy = state.traffic = 0.0

        return self._order(seconds, change)

    def wrap(self, seconds: float, lead: float) -> float:
        """Bring the counters of 32 bits to where they wrap within `lead` seconds of work at half load."""

        def change(state: State) -> None:
            for name, rate in (("samples", 1.0), ("busy_sum", 50.0), ("traffic_sum", 30.0)):
                setattr(state, name, 2.0**32 - max(1.0, lead * _RATE * rate))

        return self._order(seconds, change)

    def add(self, seconds: float, counter: str, count: int) -> float:
        """Have errors happen. Raises ValueError for a counter that does not count errors."""
        if counter not in ERRORS:
            raise ValueError(f"no error counter {counter!r}: there are {', '.join(ERRORS)}")
        return self._order(seconds, lambda state: setattr(state, counter, getattr(state, counter) + count))


def _clear(state: State, counters: tuple[str, ...]) -> None:
    for name in counters:
        setattr(state, name, type(getattr(state, name))(0))
