"""Windows, counters and update periods of a lane, through a lane's real memory and records."""

import os
import struct
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.drivers import Facts
from gpudaemon.metrics import gpu, gpu_throttle
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.pipeline.figures import Figures
from gpudaemon.pipeline.following import OFFSET
from gpudaemon.pipeline.lane import DeviceLane
from gpudaemon.pipeline.plan import GATE, DevicePlan, Selection, make_plan, reader_plan
from gpudaemon.pipeline.sampler import Periods
from gpudaemon.reader.channel import DEPTH, PARKED, LaneMemory

ID = "0000:03:00.0"
HWMON = "hwmon/hwmon1/"
POWER, CAP, CRIT, TEMPERATURE = (
    HWMON + name for name in ("power1_average", "power1_cap", "temp2_crit", "temp2_input")
)
NAMES = (
    *("gpu_busy_percent", "mem_busy_percent", "gpu_metrics", GATE, HWMON + "name", HWMON + "temp2_label"),
    *(POWER, CAP, CRIT, TEMPERATURE),
)
FACTS: Facts = {HWMON + "name": b"amdgpu\n", HWMON + "temp2_label": b"junction\n"}
PERIODS = Periods(static=600, slow=15, normal=1, fast=0.1, deadline=1)
EIO = 5
START = 100_000.0


def gpu_device(*more: str, without: Iterable[str] = ()) -> Device:
    names = frozenset({*NAMES, *more}) - set(without)
    return Device(
        id=ID,
        kind=DeviceKind.GPU,
        path=f"devices/pci0000:00/{ID}",
        subsystem="pci",
        driver="amdgpu",
        names=names,
    )


def watts(value: float) -> bytes:
    return b"%d\n" % round(value * 1_000_000)


class Bench:
    """A GPU's lane, and a reader whose readings say what the test wants."""

    def __init__(self, plan: DevicePlan | None = None, periods: Periods = PERIODS) -> None:
        self.now = START
        self.periods = periods
        self.figures = Figures()
        self.created: dict[str, float] = {}
        self.contents: dict[str, bytes | int] = {GATE: b"active\n", "gpu_metrics": b"\x04\x00\x01\x01"}
        self.late: list[tuple[int, int, float, float]] = []
        self.lanes = 0
        self.start(plan or make_plan(gpu_device(), FACTS))

    def start(self, plan: DevicePlan, *, inherit: bool = False) -> None:
        before = self.lane if self.lanes else None
        self.lanes += 1
        self.plan = plan
        self.memory, self.reader = self._memory([file.group for file in plan.files])
        self.lane = DeviceLane(
            self.lanes, plan, self.memory, self.figures, self.created, gone=lambda: None, clock=lambda: self.now
        )
        if before is not None and inherit:
            self.lane.inherit(before)
        self.chain = 0
        self.late.clear()

    def _memory(self, groups: list[int]) -> tuple[LaneMemory, LaneMemory]:
        descriptor = LaneMemory.create(
            reader_plan(self.plan, self.lanes, "/sys", 1.0), groups, self.periods.by_group()
        )
        both = LaneMemory(descriptor), LaneMemory(descriptor)
        os.close(descriptor)
        return both

    def another_reader(self) -> None:
        self.late.clear()
        self.lanes += 1
        memory, self.reader = self._memory(self.lane.groups())
        self.lane.adopt(self.lanes, memory)
        self.chain = 0

    def read(self, seconds: float = 0.1, *groups: int, told: bool = True, **contents: bytes | int) -> None:
        """A reading of `groups` (all but STATIC if none is said) so long after the one before."""
        self.now += seconds
        self.contents |= {_PATHS[name]: value for name, value in contents.items()}
        mask = sum(1 << group for group in groups or (1, 2, 3))
        self.chain += 1
        self.reader.begun = self.chain
        copy = self.chain % DEPTH
        slots = self.reader.slots(copy)
        for index, file in enumerate(self.plan.files):
            group = self.reader.groups[index]
            if index and (group == PARKED or not mask >> group & 1):
                continue
            value = self.contents.get(file.path, b"0\n")
            if isinstance(value, int):
                self.reader.lengths[copy][index] = -value
            else:
                slots[index][: len(value)] = value
                self.reader.lengths[copy][index] = len(value)
        self.reader.finished = self.chain
        self.late.append((mask, self.chain, self.now, self.now + 0.002))
        if told:
            self.tell()

    def tell(self) -> None:
        """The server hears of the readings it has not heard of."""
        for mask, chain, started, ended in self.late:
            self.lane.finished(mask, chain, started, ended)
        self.late.clear()

    def value(self, metric: Metric, *labels: str) -> float | None:
        samples = self.lane.samples(self.now)
        block = samples.blocks[metric]
        prefix = Series(metric, (ID, *labels)).prefix()
        return samples.values[block.indexes[block.prefixes.index(prefix)]]

    def counters(self) -> dict[str, float]:
        samples = self.lane.samples(self.now)
        rows = (gpu.ENERGY, gpu.POWER_ABOVE_CAP, gpu.TEMPERATURE_ABOVE_CRITICAL, gpu.THROTTLED_SECONDS)
        return {
            prefix: value
            for row in rows
            if row in samples.blocks
            for prefix, index in zip(samples.blocks[row].prefixes, samples.blocks[row].indexes, strict=True)
            if (value := samples.values[index]) is not None
        }

    def energy(self) -> float | None:
        return self.value(gpu.ENERGY, "power1", "integrated")

    def window(self, length: str = "15s") -> tuple[float | None, float | None, float | None]:
        low, high, mean = (self.value(row, "power1", length) for row in gpu.POWER_WINDOW)
        return low, high, mean


_PATHS: dict[str, str] = {
    "power": POWER,
    "cap": CAP,
    "crit": CRIT,
    "temperature": TEMPERATURE,
    "busy": "gpu_busy_percent",
    "metrics": "gpu_metrics",
    "gate": GATE,
    "aer": "aer_dev_fatal",
}


def _to_boundary(bench: Bench, length: float = 15.0) -> None:
    """Set the clock to the beginning of a window, as near as floats go and not before it."""
    unix = bench.now + OFFSET
    bench.now = (unix // length + 1) * length - OFFSET + 1e-6


def test_energy_is_the_area_below_power() -> None:
    bench = Bench()
    bench.read(power=watts(100))
    assert bench.energy() == 0
    for _ in range(50):
        bench.read()
    assert bench.energy() == pytest.approx(500)
    bench.read(power=watts(300))
    assert bench.energy() == pytest.approx(500 + 20)
    bench.read()
    assert bench.energy() == pytest.approx(550)
    prefix = Series(gpu.ENERGY, (ID, "power1", "integrated")).prefix()
    assert bench.created[prefix] == pytest.approx(START + 0.1 + OFFSET)


def test_late_and_batched_records_change_nothing() -> None:
    results = []
    for batch in (1, DEPTH - 1):
        bench = Bench()
        _to_boundary(bench)
        for number in range(160):
            bench.read(power=watts(50 + 300 * (number % 7 == 0)), told=number % batch == 0)
        bench.tell()
        results.append((bench.energy(), bench.window()))
    assert results[0] == results[1]
    assert results[0][1][:2] == (50, 350)


def test_a_record_that_comes_too_late_costs_its_reading_only() -> None:
    bench = Bench()
    for number in range(40):
        bench.read(power=watts(100), told=number < 10 or number > 10 + DEPTH)
    assert bench.figures.ticks_missed > 0
    assert bench.energy() == pytest.approx(39 * 0.1 * 100)


@pytest.mark.parametrize(("gap", "credited"), [(2.9, 290), (3.1, 0)])
def test_no_energy_is_credited_across_a_gap(gap: float, credited: float) -> None:
    bench = Bench()
    bench.read(power=watts(100))
    bench.read(1.0)
    before = bench.energy()
    bench.read(gap)
    assert bench.energy() == pytest.approx((before or 0) + credited)
    bench.read(1.0)
    assert bench.energy() == pytest.approx((before or 0) + credited + 100)


def test_neither_sleep_nor_a_hang_is_credited_however_short() -> None:
    bench = Bench()
    bench.read(power=watts(100), cap=watts(100))
    bench.read(1.0)
    bench.now += 0.5
    bench.chain += 1
    bench.reader.begun = bench.chain
    bench.reader.slots(bench.chain % DEPTH)[0][:10] = b"suspended\n"
    bench.reader.lengths[bench.chain % DEPTH][0] = 10
    bench.lane.withheld(bench.chain, bench.now, resting=False)
    assert bench.lane.state is Outcome.SUSPENDED
    assert bench.energy() == pytest.approx(100)
    bench.read(0.5)
    assert bench.energy() == pytest.approx(100)
    bench.read(1.0)
    bench.lane.hung(2, bench.now)
    bench.lane.resumed()
    bench.read(1.0)
    assert bench.energy() == pytest.approx(200)
    bench.read(1.0)
    assert bench.energy() == pytest.approx(300)
    assert bench.value(gpu.POWER_ABOVE_CAP, "power1") == pytest.approx(3)


def test_a_reading_that_fails_ends_what_is_known() -> None:
    bench = Bench()
    bench.read(power=watts(100))
    bench.read(1.0)
    bench.read(1.0, power=EIO)
    assert bench.energy() == pytest.approx(100)
    assert bench.value(gpu.POWER, "power1") is None
    assert bench.lane.groups().count(PARKED) == 1


def test_a_plan_made_anew_keeps_counts_windows_and_the_straight_line() -> None:
    bench, other = Bench(), Bench()
    for one in (bench, other):
        _to_boundary(one, 60.0)
        for number in range(700):
            if number == 155 and one is bench:
                one.start(make_plan(gpu_device("pp_dpm_sclk"), FACTS), inherit=True)
            if number == 400 and one is bench:
                one.another_reader()
            one.read(power=watts(100 + number // 200))
            if number == 156:
                assert one.window()[:2] == (100, 100)
    assert bench.energy() == pytest.approx(other.energy())
    assert bench.window("60s") == pytest.approx(other.window("60s"))
    assert bench.window("60s")[:2] == (100, 102)


def test_a_window_is_served_until_its_successor_should_have_come() -> None:
    bench = Bench()
    _to_boundary(bench)
    for _ in range(151):
        bench.read(power=watts(80))
    assert bench.window() == (80, 80, pytest.approx(80))
    assert bench.window("60s") == (None, None, None)
    bench.now += 29.5  # its successor would have ended 14.6 s ago, and may be late by as much as it is long
    assert bench.window() == (80, 80, pytest.approx(80))
    bench.now += 0.5
    assert bench.window() == (None, None, None)
    bench.read(600.0)
    assert bench.window() == (None, None, None)
    _to_boundary(bench)
    for _ in range(151):
        bench.read(power=watts(90))
    assert bench.window() == (90, 90, pytest.approx(90))


def _slowly(bench: Bench, power: float = 80, *groups: int) -> None:
    bench.read(0.1, *groups, power=watts(power), told=False)
    mask, chain, started, _ = bench.late.pop()
    bench.now += 0.3
    bench.lane.finished(mask, chain, started, bench.now)


def test_a_file_demoted_for_its_cost_has_no_windows() -> None:
    bench = Bench()
    index = [file.path for file in bench.plan.files].index(POWER)
    bench.reader.costs[index] = 0.3
    _to_boundary(bench)
    for _ in range(3):
        _slowly(bench)
    bench.read(1.0)
    for _ in range(3):
        _slowly(bench)
    assert not bench.lane.demoted()  # a busy moment, and another one
    _slowly(bench)
    assert bench.lane.demoted()
    for _ in range(320):
        bench.read(busy=b"50\n")
    assert bench.window() == (None, None, None)
    low, high, mean = (bench.value(row, "gfx", "15s") for row in gpu.BUSY_WINDOW)
    assert (low, high, mean) == (0.5, 0.5, pytest.approx(0.5))
    group = bench.lane.groups()[index]
    bench.read(5.0, group)
    before = bench.energy()
    bench.read(15.0, group)
    assert bench.energy() == pytest.approx((before or 0) + 15 * 80)
    bench.read(181.0, group)  # three times the minute it was demoted to
    assert bench.energy() == pytest.approx((before or 0) + 15 * 80)


def test_readings_of_a_slower_cadence_make_no_windows() -> None:
    bench = Bench()
    index = [file.path for file in bench.plan.files].index(POWER)
    bench.reader.costs[index] = 0.25
    for _ in range(6):
        _slowly(bench)
    group = bench.lane.groups()[index]
    assert group > 3
    _to_boundary(bench)
    for number in range(40):
        for _ in range(29):
            bench.read(0.1, 3)
        _slowly(bench, 100 + number, group)
        assert bench.window() == bench.window("60s") == (None, None, None)


def test_a_file_that_was_asked_again_has_windows_again() -> None:
    bench = Bench()
    _to_boundary(bench)
    bench.read(power=watts(100))
    bench.read(power=EIO)
    bench.lane.retry(bench.now + 60)
    bench.read(0.1, 15, power=watts(100))
    assert PARKED not in bench.lane.groups()
    for _ in range(320):
        bench.read()
    assert bench.window() == (100, 100, pytest.approx(100))


def test_a_demoted_file_comes_home_when_it_is_quick_again() -> None:
    bench = Bench()
    index = [file.path for file in bench.plan.files].index(POWER)
    bench.reader.costs[index] = 0.25
    for _ in range(6):
        _slowly(bench)
    group = bench.lane.groups()[index]
    bench.read(15.0, group)
    assert bench.lane.groups()[index] == group
    bench.read(15.0, group)
    assert bench.lane.groups()[index] == 3
    assert bench.lane.demoted() == []


@pytest.mark.parametrize("before", ["gpudaemon_gpu_power_watts", "gpudaemon_gpu_power_window_mean_watts"])
def test_what_only_the_new_plan_follows_begins_without_a_change(before: str) -> None:
    few = Selection(wanted=lambda name: name == before)
    bench = Bench(make_plan(gpu_device(), FACTS, few))
    bench.read(power=watts(100))
    bench.start(make_plan(gpu_device(), FACTS), inherit=True)
    assert bench.value(gpu.POWER, "power1") == 100
    assert bench.energy() is None
    for _ in range(11):
        bench.read()
    assert bench.energy() == pytest.approx(100)


def test_what_was_read_last_is_counted_when_the_lane_is_replaced() -> None:
    bench = Bench()
    bench.read(power=watts(100))
    bench.read(2.5)
    bench.read(2.5)
    bench.lane.settle()
    bench.start(make_plan(gpu_device(), FACTS))
    bench.read(10.0)
    assert bench.energy() == pytest.approx(500)


def test_series_beyond_the_limit_and_unwanted_ones_are_not_served() -> None:
    device = gpu_device("aer_dev_fatal")
    wanted = Selection(wanted=lambda name: "aer" in name)
    content = b"RxErr 1\nBadTLP 2\nTimeout 3\nTOTAL_ERR_FATAL 6\n"
    for limit, served, dropped in ((100, 4, 0), (4, 4, 0), (3, 3, 1), (1, 1, 3), (0, 0, 4)):
        bench = Bench(make_plan(device, FACTS, replace(wanted, limit=limit)))
        bench.read(aer=content)
        rows = bench.lane.samples(bench.now).rows
        assert (sum(map(len, rows.values())), bench.lane.series_dropped) == (served, dropped)
        bench.read(aer=b"RxErr 1\nTOTAL_ERR_FATAL 1\n")
        assert bench.lane.series_dropped == max(2 - limit, 0)
        bench.read(aer=EIO)
        assert bench.lane.series_dropped == 0
    errors = Selection(wanted=lambda name: name == "gpudaemon_pcie_aer_errors_total")
    bench = Bench(make_plan(device, FACTS, errors))
    bench.read(aer=content)
    assert {metric.name: len(found) for metric, found in bench.lane.samples(bench.now).rows.items()} == {
        "gpudaemon_pcie_aer_errors_total": 3
    }


def test_slow_presets_have_no_windows() -> None:
    slow = Periods(static=600, slow=60, normal=15, fast=15, deadline=1)
    bench = Bench(periods=slow)
    for _ in range(20):
        bench.read(15.0, power=watts(80))
    assert bench.window() == bench.window("60s") == (None, None, None)
    assert bench.energy() == pytest.approx(19 * 15 * 80)
    bench.lane.set_periods(PERIODS.by_group())
    _to_boundary(bench)
    for _ in range(160):
        bench.read()
    assert bench.window() == (80, 80, pytest.approx(80))


def test_seconds_above_the_cap_follow_power_and_cap() -> None:
    bench = Bench()
    bench.read(power=watts(300), cap=watts(250))
    bench.read(1.0)
    bench.read(1.0)
    assert bench.value(gpu.POWER_ABOVE_CAP, "power1") == pytest.approx(2)
    bench.read(1.0, cap=watts(350))
    bench.read(1.0)
    assert bench.value(gpu.POWER_ABOVE_CAP, "power1") == pytest.approx(2.5, abs=0.51)
    known = bench.value(gpu.POWER_ABOVE_CAP, "power1")
    bench.read(1.0, power=watts(350))
    bench.read(1.0)
    assert bench.value(gpu.POWER_ABOVE_CAP, "power1") == pytest.approx((known or 0) + 1.5)
    known = bench.value(gpu.POWER_ABOVE_CAP, "power1")
    for unknown in (b"\n", b"0\n"):
        bench.read(1.0, cap=unknown)
        before = bench.value(gpu.POWER_ABOVE_CAP, "power1")
        bench.read(1.0)
        bench.read(1.0, power=watts(400))
        assert bench.value(gpu.POWER_ABOVE_CAP, "power1") == before


def test_seconds_above_critical_and_throttled() -> None:
    table = bytearray(b"\xff" * 120)
    table[:4] = b"\x78\x00\x01\x03"
    table[112:] = bytes((1, *[0] * 7))  # PPT0
    bench = Bench(make_plan(gpu_device(), {**FACTS, "gpu_metrics": bytes(table)}))
    bench.read(temperature=b"99000\n", crit=b"100000\n", metrics=bytes(table))
    assert bench.value(gpu.THROTTLED, "", "power", "ppt0") == 1
    assert bench.value(gpu.THROTTLED, "", "thermal", "temp_hotspot") == 0
    table[112], table[116] = 0, 0x10  # HOTSPOT
    bench.read(1.0, temperature=b"100000\n", metrics=bytes(table))
    bench.read(1.0)
    assert bench.value(gpu.TEMPERATURE_ABOVE_CRITICAL, "junction") == pytest.approx(1.5)
    assert bench.value(gpu.THROTTLED_SECONDS, "", "power", "ppt0") == pytest.approx(0.5)
    assert bench.value(gpu.THROTTLED_SECONDS, "", "thermal", "temp_hotspot") == pytest.approx(1.5)
    assert bench.value(gpu.THROTTLED_SECONDS, "", "current", "tdc_gfx") == 0
    bench.read(1.0, metrics=bytes(table[:112]) + b"\xff" * 8)
    assert bench.value(gpu.THROTTLED, "", "power", "ppt0") is None
    assert bench.value(gpu.THROTTLED_SECONDS, "", "thermal", "temp_hotspot") == pytest.approx(1.5)


def test_the_update_period_of_a_sensor() -> None:
    bench = Bench()
    for number in range(200):
        bench.read(power=watts(100 + number // 5))
    assert bench.value(gpu.POWER_SENSOR_UPDATE, "power1") == pytest.approx(0.5)
    for number in range(80):
        bench.read(power=watts(200 + number))
    assert bench.value(gpu.POWER_SENSOR_UPDATE, "power1") is None
    bench = Bench()
    for number in range(40):
        bench.read(power=watts(100 + number // 5))
    assert bench.value(gpu.POWER_SENSOR_UPDATE, "power1") is None  # seven changes, six intervals
    bench.now += 10
    assert bench.value(gpu.POWER_SENSOR_UPDATE, "power1") is None


def test_hardware_that_counts_energy_is_believed() -> None:
    device = gpu_device(HWMON + "energy1_input")
    blocks = make_plan(device, FACTS).blocks
    assert blocks[gpu.ENERGY].prefixes == (Series(gpu.ENERGY, (ID, "energy1", "hardware")).prefix(),)
    labelled = FACTS | {HWMON + "energy1_label": b"card\n", HWMON + "power1_label": b"card\n"}
    device = gpu_device(HWMON + "energy1_input", HWMON + "energy1_label", HWMON + "power1_label")
    blocks = make_plan(device, labelled).blocks
    assert blocks[gpu.ENERGY].prefixes == (Series(gpu.ENERGY, (ID, "card", "hardware")).prefix(),)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.floats(0.05, 0.3), st.integers(0, 500)),
        st.tuples(st.just("same"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("late"), st.integers(1, 9), st.integers(0, 500)),
        st.tuples(st.just("gap"), st.floats(0.1, 200.0), st.just(0)),
        st.tuples(st.just("fail"), st.sampled_from([2, 5, 95]), st.sampled_from(["power", "cap", "metrics"])),
        st.tuples(st.just("garbage"), st.just(0), st.sampled_from(["power", "cap", "metrics"])),
        st.tuples(st.just("cap"), st.integers(0, 400), st.just(0)),
        st.tuples(
            st.sampled_from(["hang", "sleep", "replan", "inherit", "reader", "snapshot", "retry"]),
            st.floats(0.1, 5.0),
            st.just(0),
        ),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_counters_never_fall_whatever_happens(operations: list[tuple[str, float, int | str]]) -> None:
    bench = Bench()
    table = b"\x78\x00\x01\x03" + bytes(108) + b"\x01" + bytes(7)
    bench.read(power=watts(100), cap=watts(250), metrics=table, crit=b"90000\n", temperature=b"95000\n")
    seen = bench.counters()
    read_seconds = 0.001  # what the first reading took
    for what, amount, detail in operations:
        began = bench.now
        _operate(bench, what, amount, detail)
        read_seconds += bench.now - began
        now = bench.counters()
        for prefix, value in now.items():
            assert value >= seen.get(prefix, 0.0), (what, prefix)
        seen |= now
    assert (bench.energy() or 0.0) <= 500 * read_seconds + 1e-6
    for prefix, value in seen.items():
        if "seconds_total" in prefix:
            assert value <= read_seconds + 1e-6, prefix
    assert set(seen) <= set(bench.created)


def _operate(bench: Bench, what: str, amount: float, detail: int | str) -> None:
    if what == "read":
        bench.read(amount, power=watts(float(detail)))
    elif what == "same":
        for _ in range(int(amount)):
            bench.read()
    elif what == "late":
        for number in range(int(amount)):
            bench.read(told=False, power=watts(float(detail) + number))
        bench.tell()
    elif what in ("fail", "garbage"):
        path = _PATHS[str(detail)]
        kept = bench.contents[path]
        bench.read(**{str(detail): b"what?\n" if what == "garbage" else int(amount)})
        bench.contents[path] = kept
    elif what == "cap":
        bench.read(cap=watts(amount))
    else:
        _disturb(bench, what, amount)
    bench.lane.samples(bench.now)


def _disturb(bench: Bench, what: str, amount: float) -> None:
    if what == "gap":
        bench.now += amount
        bench.read()
    elif what == "hang":
        bench.lane.hung(1, bench.now)
        bench.now += amount
        bench.lane.resumed()
        bench.read()
    elif what == "sleep":
        bench.contents[GATE] = b"suspended\n"
        bench.read(amount, 0, told=False)
        bench.late.clear()
        bench.lane.withheld(bench.chain, bench.now, resting=False)
        bench.contents[GATE] = b"active\n"
    elif what in ("replan", "inherit"):
        plan = make_plan(gpu_device(without=[CAP] if amount > 3 else []), FACTS)
        bench.start(plan, inherit=what == "inherit")
    elif what == "reader":
        bench.now += amount
        bench.another_reader()
        bench.read()
    elif what == "retry":
        bench.lane.retry(bench.now + 1000)
        bench.read(1.0, 15)


def _instinct(ticks: int, power: int, thermal: int = 0) -> bytes:
    """A table 1.6 of all ones but accumulation_counter, ppt_residency_acc and socket_thm_residency_acc."""
    table = bytearray(b"\xff" * 1664)
    struct.pack_into("<HBB", table, 0, 1664, 1, 6)
    struct.pack_into("<I4xII", table, 32, ticks, power, thermal)
    return bytes(table)


def test_time_throttled_is_the_firmwares_share_of_the_time_between_readings() -> None:
    facts = {**FACTS, "gpu_metrics": _instinct(0, 0)}
    bench = Bench(make_plan(gpu_device(), facts))

    def seconds(*labels: str) -> float | None:
        return bench.value(gpu.THROTTLED_SECONDS, "", *labels)

    bench.read(metrics=_instinct(1000, 500))
    assert (seconds("power", "ppt"), seconds("thermal", "socket_thm")) == (0, 0)
    bench.read(1.0, metrics=_instinct(2000, 750, 1000))
    assert seconds("power", "ppt") == pytest.approx(0.25)
    assert seconds("thermal", "socket_thm") == pytest.approx(1.0)
    bench.read(1.0)  # the firmware has not moved on: the next reading counts for both seconds
    bench.read(1.0, metrics=_instinct(4000, 1750, 1000))
    assert seconds("power", "ppt") == pytest.approx(1.25)
    bench.read(1.0, metrics=_instinct(10, 0))  # reset: nothing is known of this second
    bench.read(1.0, metrics=_instinct(1010, 100))
    assert seconds("power", "ppt") == pytest.approx(1.35)
    bench.read(10.0, metrics=_instinct(9010, 8100))  # nor of what lies in a gap
    bench.read(1.0, metrics=_instinct(10_010, 8600))
    assert seconds("power", "ppt") == pytest.approx(1.85)
    assert bench.value(gpu_throttle.THROTTLED_TICKS, "", "power", "ppt") == 8600


def test_shares_survive_counters_that_begin_anew_after_32_bits() -> None:
    bench = Bench(make_plan(gpu_device(), {**FACTS, "gpu_metrics": _instinct(0, 0)}))
    bench.read(metrics=_instinct(2**32 - 500, 2**32 - 200))
    bench.read(1.0, metrics=_instinct(500, 300))
    assert bench.value(gpu.THROTTLED_SECONDS, "", "power", "ppt") == pytest.approx(0.5)


XE = "hwmon/hwmon2/"
XE_NAMES = (GATE, *(XE + name for name in ("name", "energy1_input", "energy1_label", "energy2_input")))
XE_FACTS: Facts = {XE + "name": b"xe\n", XE + "energy1_label": b"card\n", XE + "energy2_label": b"pkg\n"}


def xe_bench() -> Bench:
    """A GPU that counts energy, of the card and of the package in it, and has no sensor of power."""
    names = frozenset((*XE_NAMES, XE + "energy2_label"))
    device = Device(id=ID, kind=DeviceKind.GPU, path=f"devices/{ID}", subsystem="pci", driver="xe", names=names)
    return Bench(make_plan(device, XE_FACTS))


def joules(bench: Bench, seconds: float, card: float | None, package: float = 0.0) -> None:
    """A reading of both counters so much later; None: the first does not answer."""
    bench.contents[XE + "energy1_input"] = EIO if card is None else watts(card)
    bench.contents[XE + "energy2_input"] = watts(package)
    bench.read(seconds)


def test_power_is_what_the_counter_of_energy_gains() -> None:
    bench = xe_bench()
    joules(bench, 1.0, 5000)
    assert bench.value(gpu.POWER, "card") is None
    joules(bench, 1.0, 5100)
    assert bench.value(gpu.POWER, "card") == pytest.approx(100)
    joules(bench, 1.0, 5300)
    assert bench.value(gpu.POWER, "card") == pytest.approx(150)
    for _ in range(6):
        joules(bench, 1.0, 5300)  # not one joule more: the mean falls to zero
    assert bench.value(gpu.POWER, "card") == 0
    assert bench.value(gpu.ENERGY, "card", "hardware") == 5300
    assert list(bench.plan.blocks[gpu.POWER].prefixes) == [
        Series(gpu.POWER, (ID, "card")).prefix()  # the package is a part of the card
    ]
    assert gpu.POWER_SENSOR_UPDATE not in bench.plan.blocks
    assert all('source="hardware"' in prefix for prefix in bench.plan.blocks[gpu.ENERGY].prefixes)


def test_a_counter_of_energy_that_starts_again_or_fails_gives_no_power_for_a_while() -> None:
    bench = xe_bench()
    joules(bench, 1.0, 5000)
    joules(bench, 1.0, 5100)
    joules(bench, 1.0, 10)
    assert bench.value(gpu.POWER, "card") is None
    joules(bench, 1.0, 60)
    assert bench.value(gpu.POWER, "card") == pytest.approx(50)
    joules(bench, 1.0, None)
    assert bench.value(gpu.POWER, "card") is None


def test_power_made_of_energy_outlives_a_plan() -> None:
    bench = xe_bench()
    joules(bench, 1.0, 5000)
    joules(bench, 1.0, 5100)
    bench.start(bench.plan, inherit=True)
    joules(bench, 1.0, 5200)
    assert bench.value(gpu.POWER, "card") == pytest.approx(100)


def test_a_gpu_with_a_sensor_of_power_keeps_it() -> None:
    names = (*NAMES, HWMON + "energy1_input")
    device = Device(
        id=ID, kind=DeviceKind.GPU, path="x", subsystem="pci", driver="amdgpu", names=frozenset(names)
    )
    assert make_plan(device, FACTS).rates == ()
