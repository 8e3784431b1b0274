"""The load model of mock GPUs: physics that hold, orders that act at their moment, the same each time."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.mock.model import STEP, Chip, Gpu
from gpudaemon.mock.physics import State
from gpudaemon.mock.truth import ranges, truth
from gpudaemon.mock.workload import WORKLOADS

CHIP = Chip(
    idle=140, cap=750, peak=860, low=132, high=2100, memory_low=900, memory_high=1300, memory=206 * 10**9
)
CARD = Chip(
    idle=18,
    cap=339,
    peak=390,
    low=500,
    high=2735,
    memory_low=96,
    memory_high=1249,
    memory=24 * 2**30,
    hot=92,
    limit=105,
    fan=True,
)
COUNTERS = (
    *("energy", "driver_energy", "samples", "busy_sum", "traffic_sum", "ppt_sum", "thermal_sum"),
    *("received", "sent", "fabric_read", "fabric_written", "recoveries", "replays", "corrected", "worked"),
    *("idle_seconds", "aer_corrected"),
)


def states(gpu: Gpu, seconds: float) -> list[State]:
    return list(gpu.between(0.0, seconds))


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
@pytest.mark.parametrize("chip", [CHIP, CARD], ids=["passive", "fan"])
def test_nothing_impossible_happens(chip: Chip, workload: str) -> None:
    before = None
    for state in states(Gpu(chip, 5, workload), 59.0):
        assert 0 <= state.busy <= 1
        assert 0 <= state.traffic <= 1
        assert 0 <= state.filled <= 1
        assert chip.low <= state.clock <= chip.high
        assert chip.idle <= state.power <= chip.cap + 1e-6
        assert 24 < state.edge <= state.hotspot < chip.limit + 8
        assert not (state.ppt and state.thermal)
        if before is not None:
            assert all(getattr(state, name) >= getattr(before, name) for name in COUNTERS)
            assert state.energy - before.energy == pytest.approx(state.power * STEP)
        before = state


def test_power_clock_and_heat_follow_the_work() -> None:
    idle, busy = (Gpu(CHIP, 5, name).at(170.0) for name in ("idle", "training"))
    assert busy.busy > 10 * idle.busy
    assert busy.power > 4 * idle.power
    assert busy.clock > 5 * idle.clock
    assert busy.hotspot > idle.hotspot + 30
    assert busy.filled > 0.85


def test_a_cap_takes_the_clock_down() -> None:
    capped = [state for state in states(Gpu(CHIP, 5, "training"), 59.0) if state.ppt]
    assert len(capped) > 100
    assert all(state.clock < CHIP.high for state in capped)
    assert max(state.power for state in capped) == pytest.approx(CHIP.cap, rel=0.01)


def test_heat_takes_the_clock_down_and_only_when_it_is_hot() -> None:
    gpu = Gpu(CHIP, 5, "thermal")
    first = next(state for state in states(gpu, 59.0) if state.thermal)
    assert first.hotspot > CHIP.limit - 1
    later = gpu.at(300.0)
    assert later.thermal
    assert later.power < 0.8 * CHIP.cap
    assert abs(later.hotspot - CHIP.limit) < 3
    gpu.work(300.0, "idle")
    cold = gpu.at(420.0)
    assert not cold.thermal
    assert cold.allowed == 1.0
    assert cold.hotspot < 60


def test_a_fan_turns_when_it_is_hot() -> None:
    assert Gpu(CARD, 5, "idle").at(50.0).fan == 0
    assert Gpu(CARD, 5, "training").at(120.0).fan > 0.2
    assert Gpu(CHIP, 5, "training").at(120.0).fan == 0  # it has none


@settings(max_examples=25, deadline=None)
@given(
    workload=st.sampled_from(sorted(WORKLOADS)),
    moments=st.lists(st.floats(0, 90), min_size=1, max_size=6),
    switch=st.floats(0, 60),
)
def test_states_depend_on_seed_and_moment_only(workload: str, moments: list[float], switch: float) -> None:
    ordered, other = Gpu(CARD, 7, "varying"), Gpu(CARD, 7, "varying", history=40)
    for gpu in (ordered, other):
        gpu.work(switch, workload)
    expected = {moment: ordered.at(moment) for moment in sorted(moments)}
    for moment in moments:
        assert other.at(moment) == expected[moment]
    assert Gpu(CARD, 8, "training").at(30.0) != Gpu(CARD, 7, "training").at(30.0)


def test_an_order_acts_from_the_next_step_on() -> None:
    gpu = Gpu(CHIP, 5, "idle")
    gpu.at(20.0)
    begins = gpu.work(10.03, "training")  # later states were computed already; they are computed anew
    assert begins == pytest.approx(10.1)
    assert gpu.at(10.09).busy == Gpu(CHIP, 5, "idle").at(10.09).busy
    assert gpu.at(25.0).power > 600
    with pytest.raises(ValueError, match="no workload 'sleeping'"):
        gpu.work(0.0, "sleeping")
    with pytest.raises(ValueError, match="no error counter 'energy'"):
        gpu.add(0.0, "energy", 1)


def test_a_reset_starts_the_firmware_anew_and_nothing_else() -> None:
    gpu = Gpu(CHIP, 5, "training")
    before = gpu.at(40.0)
    gpu.add(40.0, "corrected", 3)
    begins = gpu.reset(40.1)
    after = gpu.at(begins)
    assert after.energy < CHIP.cap * STEP
    assert after.samples == pytest.approx(100)
    assert (after.corrected, after.resets) == (before.corrected + 3, before.resets + 1)
    assert after.driver_energy > before.driver_energy
    assert after.filled < 0.05  # memory is lost and the job loads anew
    gpu.reload(50.0)
    assert gpu.at(50.2).corrected == 0
    assert gpu.at(50.2).energy > after.energy
    gpu.add(51.0, "aer_fatal", 2)
    assert gpu.at(51.2).aer_fatal == 2
    gpu.renew(60.0)
    assert (gpu.at(60.1).aer_fatal, gpu.at(60.1).hotspot < 40) == (0, True)


def test_asleep_nothing_counts_and_the_chip_cools() -> None:
    gpu = Gpu(CHIP, 5, "training")
    gpu.sleep(30.0, True)
    begin, end = gpu.at(30.1), gpu.at(60.0)
    assert (end.power, end.clock, end.busy) == (0, 0, 0)
    assert [getattr(end, name) for name in COUNTERS] == [getattr(begin, name) for name in COUNTERS]
    assert 25 < end.hotspot < begin.hotspot - 20
    gpu.sleep(60.0, False)
    assert gpu.at(62.0).power > CHIP.idle * 0.9


def test_counters_wrap_when_told() -> None:
    gpu = Gpu(CHIP, 5, "training")
    gpu.at(30.0)
    gpu.wrap(30.0, 5.0)
    assert 2**32 - 6000 < gpu.at(30.2).samples < 2**32
    assert gpu.at(36.0).samples > 2**32
    assert gpu.at(36.0).busy_sum > 2**32


def test_many_orders_are_forgotten_but_not_what_they_did() -> None:
    gpu = Gpu(CARD, 7, "idle", history=50)
    gpu.work(0.5, "training")
    for number in range(5000):
        gpu.at(1 + number * STEP)
        gpu.sleep(1 + number * STEP, False)
    assert gpu.workload == "training"
    assert gpu.at(501.0).filled > 0.8
    assert len(gpu._orders) < 4200
    assert gpu.at(0.0).step > 0  # what is too old is answered with the oldest that is known


def test_truth_is_in_base_units_and_ranges_hold_every_value() -> None:
    gpu = Gpu(CARD, 5, "training")
    values = truth(CARD, gpu.at(30.0))
    assert 1e9 < values["clock_hertz"] < 3e9
    assert values["power_watts"] <= values["power_cap_watts"] == 339
    assert all(math.isfinite(value) for value in values.values())
    between = list(gpu.between(20.0, 30.0))
    assert len(between) == 101
    found = ranges(CARD, between)
    for state in between:
        for name, value in truth(CARD, state).items():
            low, high = found[name]
            assert low <= value <= high
    assert ranges(CARD, ()) == {}
    assert all(a.step + 1 == b.step for a, b in pairwise(between))
