"""One device on the server's side, with a clock and a reader that do what the test says."""

import logging
import os
from collections.abc import Sequence

import pytest

from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, pcie
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Block
from gpudaemon.pipeline.figures import Figures
from gpudaemon.pipeline.lane import DeviceLane
from gpudaemon.pipeline.plan import GATE, DevicePlan, PlannedFile, reader_plan
from gpudaemon.pipeline.policy import DEMOTED_PERIODS, RETRY_GROUP
from gpudaemon.pipeline.sampler import Periods
from gpudaemon.reader.channel import DEMOTED, DEPTH, GROUPS, OPEN_ERROR, PARKED, LaneMemory

GPU = Device(id="0000:03:00.0", kind=DeviceKind.GPU, path="devices/pci0000:00/0000:03:00.0", driver="amdgpu")
STATIC, SLOW, NORMAL = 0, 1, 2
ENOENT, EIO, EACCES, ENODEV, EBUSY, EOPNOTSUPP = 2, 5, 13, 19, 16, 95


class Decoders:
    """Counts how often it is asked, and fails as told."""

    def __init__(self) -> None:
        self.calls = 0

    def number(self, content: bytes) -> Sequence[float | None]:
        self.calls += 1
        if content == b"bug\n":
            raise ZeroDivisionError
        if not content.strip().isdigit():
            raise Malformed("not_a_number")
        return (float(content),)


class Bench:
    """A lane of four files: gate, a static, a slow counter and a normal one; and both sides of its memory."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.decoders = Decoders()
        self.gone = 0
        decode = self.decoders.number
        series = {
            gpu.MEMORY_TOTAL: Series(gpu.MEMORY_TOTAL, (GPU.id, "vram")),
            gpu.PCIE_REPLAYS: Series(gpu.PCIE_REPLAYS, (GPU.id,)),
            gpu.BUSY: Series(gpu.BUSY, (GPU.id, "gfx")),
        }
        self.prefixes = {metric: one.prefix() for metric, one in series.items()}
        blocks = {metric: Block((prefix,), (at,)) for at, (metric, prefix) in enumerate(self.prefixes.items())}
        files = (
            PlannedFile(GATE, 0, 32),
            PlannedFile("total", STATIC, 64, 0, 1, decode),
            PlannedFile("replays", SLOW, 64, 1, 1, decode),
            PlannedFile("busy", NORMAL, 64, 2, 1, decode),
            PlannedFile("aer", NORMAL, 256, rows=self.rows, bound=3),
        )
        counters = ((self.prefixes[gpu.PCIE_REPLAYS], 1),)
        self.plan = DevicePlan(GPU, True, files, blocks, (None,) * 3, counters, (2,), -1, -1)
        periods = Periods(static=600, slow=60, normal=1, fast=1, deadline=1).by_group()
        descriptor = LaneMemory.create(
            reader_plan(self.plan, 7, "/sys", 1.0), [file.group for file in files], periods
        )
        self.server, self.reader = LaneMemory(descriptor), LaneMemory(descriptor)
        os.close(descriptor)
        self.figures = Figures()
        self.created: dict[str, float] = {}
        self.lane = DeviceLane(
            7, self.plan, self.server, self.figures, self.created, gone=self._gone, clock=lambda: self.now
        )
        self.chain = 0

    def _gone(self) -> None:
        self.gone += 1

    @staticmethod
    def rows(content: bytes) -> list[tuple[Metric, tuple[str, ...], float]]:
        found = []
        for line in content.split():
            if not line.isdigit():
                raise Malformed("format")
            found.append((pcie.AER_ERRORS, (GPU.id, "corrected", line.decode()), 1.0))
        return found

    def begin(self, groups: int, **files: bytes | int) -> int:
        """What the reader does in one chain: content or -errno of each file. Returns the chain's number."""
        self.chain += 1
        self.reader.begun = self.chain
        copy = self.chain % DEPTH
        names = {"gate": 0, "total": 1, "replays": 2, "busy": 3, "aer": 4}
        slots = self.reader.slots(copy)
        for name, value in {"gate": b"active\n", **files}.items():
            index = names[name]
            if isinstance(value, int):
                self.reader.lengths[copy][index] = -value
            else:
                slots[index][: len(value)] = value
                self.reader.lengths[copy][index] = len(value)
        self.reader.finished = self.chain
        return self.chain

    def read(self, *groups: int, seconds: float = 1.0, took: float = 0.001, **files: bytes | int) -> None:
        """A whole reading, `seconds` after the one before; groups are those of the files named."""
        self.now += seconds
        chain = self.begin(0, **files)
        home = {"total": STATIC, "replays": SLOW, "busy": NORMAL, "aer": NORMAL}
        mask = sum(1 << group for group in groups or {home[name] for name in files if name != "gate"})
        self.lane.finished(mask, chain, self.now - took, self.now)

    def value(self, metric: Metric) -> float | None:
        samples = self.lane.samples(self.now)
        return samples.values[samples.blocks[metric].indexes[0]]

    def group(self, name: str) -> int:
        """The group in which the reader sees a file."""
        return self.reader.groups[{"total": 1, "replays": 2, "busy": 3, "aer": 4}[name]]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.read(STATIC, SLOW, NORMAL, total=b"64\n", replays=b"5\n", busy=b"10\n", aer=b"1 2")
    return bench


def test_a_reading_becomes_values(bench: Bench) -> None:
    assert [bench.value(metric) for metric in (gpu.MEMORY_TOTAL, gpu.PCIE_REPLAYS, gpu.BUSY)] == [64, 5, 10]
    assert bench.lane.state is Outcome.OK
    assert bench.lane.power == "active"
    assert len(bench.lane.samples(bench.now).rows[pcie.AER_ERRORS]) == 2
    assert bench.figures.reads == {Outcome.OK: 4}


def test_the_same_content_is_not_decoded_again_and_stays_fresh(bench: Bench) -> None:
    calls = bench.decoders.calls
    for _ in range(20):
        bench.read(busy=b"10\n", aer=b"1 2")
    assert bench.decoders.calls == calls
    assert bench.value(gpu.BUSY) == 10
    assert len(bench.lane.samples(bench.now).rows[pcie.AER_ERRORS]) == 2
    assert bench.figures.reads == {Outcome.OK: 44}


def test_a_value_is_served_for_three_periods_or_three_seconds(bench: Bench) -> None:
    bench.now += 2.9
    assert bench.value(gpu.BUSY) == 10
    bench.now += 0.2
    assert bench.value(gpu.BUSY) is None
    assert bench.lane.samples(bench.now).rows == {}
    assert bench.value(gpu.PCIE_REPLAYS) == 5
    bench.now += 176.8
    assert bench.value(gpu.PCIE_REPLAYS) == 5
    bench.now += 0.2
    assert bench.value(gpu.PCIE_REPLAYS) is None
    assert bench.value(gpu.MEMORY_TOTAL) == 64
    bench.now += 1621
    assert bench.value(gpu.MEMORY_TOTAL) is None


def test_what_is_stale_stays_away_however_often_it_is_asked_for(bench: Bench) -> None:
    assert bench.value(gpu.BUSY) == 10
    bench.now += 3.1
    assert [bench.value(gpu.BUSY) for _ in range(3)] == [None] * 3
    assert [bench.value(gpu.PCIE_REPLAYS) for _ in range(3)] == [5] * 3


def test_a_file_that_recovers_ages_like_any_other(bench: Bench) -> None:
    bench.read(busy=EIO, aer=EIO)
    assert bench.value(gpu.BUSY) is None
    assert bench.value(gpu.MEMORY_TOTAL) == 64
    bench.now += 2
    bench.lane.retry(bench.now)
    bench.read(RETRY_GROUP, busy=b"20\n", aer=b"1")
    assert bench.value(gpu.BUSY) == 20
    bench.now += 2.9
    assert bench.value(gpu.BUSY) == 20
    bench.now += 0.2
    assert bench.value(gpu.BUSY) is None
    assert bench.lane.samples(bench.now).rows == {}


def test_malformed_content_costs_its_own_sample(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bench.read(busy=b"nonsense\n", aer=b"1 2 3")
    assert bench.value(gpu.BUSY) is None
    assert bench.value(gpu.PCIE_REPLAYS) == 5
    assert len(bench.lane.samples(bench.now).rows[pcie.AER_ERRORS]) == 3
    assert bench.figures.malformed == {"not_a_number": 3}
    assert bench.figures.reads[Outcome.MALFORMED] == 3
    assert [record.message for record in caplog.records] == ["malformed (not_a_number)"]
    assert "nonsense" in caplog.records[0].content
    assert bench.lane.state is Outcome.OK
    bench.read(busy=b"11\n", aer=b"1 2 3")
    assert bench.value(gpu.BUSY) == 11


def test_content_that_fills_its_buffer_is_oversized(bench: Bench) -> None:
    bench.read(busy=b"1" * 64, aer=b"1")
    assert bench.figures.malformed == {"oversized": 1}
    assert bench.value(gpu.BUSY) is None
    bench.read(busy=b"1" * 63, aer=b"1")
    assert bench.value(gpu.BUSY) == float("1" * 63)


def test_a_decoder_s_bug_is_contained(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        bench.read(busy=b"bug\n", aer=b"1 2")
    assert bench.figures.decoder_failures == 3
    assert bench.value(gpu.BUSY) is None
    assert bench.value(gpu.MEMORY_TOTAL) == 64
    assert sum("ZeroDivisionError" in record.getMessage() for record in caplog.records) == 1


def test_rows_beyond_the_bound_are_dropped_and_counted(bench: Bench) -> None:
    bench.read(busy=b"1\n", aer=b"1 2 3 4 5")
    assert len(bench.lane.samples(bench.now).rows[pcie.AER_ERRORS]) == 3
    assert bench.figures.rows_dropped == 1


def test_rows_that_repeat_a_series_are_taken_once(bench: Bench) -> None:
    bench.read(busy=b"1\n", aer=b"1 1")
    assert len(bench.lane.samples(bench.now).rows[pcie.AER_ERRORS]) == 1


def test_a_counter_that_falls_was_reset(bench: Bench) -> None:
    bench.read(replays=b"9\n")
    assert bench.created == {}
    bench.read(replays=b"2\n")
    assert list(bench.created) == [bench.prefixes[gpu.PCIE_REPLAYS]]
    assert bench.value(gpu.PCIE_REPLAYS) == 2


@pytest.mark.parametrize("number", [OPEN_ERROR + ENOENT, EOPNOTSUPP, OPEN_ERROR + EACCES])
def test_what_is_absent_is_asked_for_5_30_and_120_seconds_after_the_device_came(number: int) -> None:
    bench = Bench()
    bench.read(busy=number, aer=b"1")
    asked = []
    while bench.now < 1000 + 125:
        assert bench.value(gpu.BUSY) is None
        bench.lane.retry(bench.now)
        if bench.group("busy") == RETRY_GROUP:
            asked.append(round(bench.now - 1000))
            bench.read(RETRY_GROUP, NORMAL, busy=number, aer=b"1")
        else:
            assert bench.group("busy") == PARKED
            bench.read(aer=b"1")
    assert len(asked) == 3
    assert all(wanted <= at <= wanted + 2 for at, wanted in zip(asked, (5, 30, 120), strict=True))
    assert bench.lane.state is Outcome.OK


def test_a_file_that_appears_goes_home(bench: Bench) -> None:
    bench.read(busy=OPEN_ERROR + ENOENT, aer=b"1")
    bench.now += 10
    bench.lane.retry(bench.now)
    assert bench.group("busy") == RETRY_GROUP
    bench.read(RETRY_GROUP, NORMAL, busy=b"33\n", aer=b"1")
    assert bench.group("busy") == NORMAL
    assert bench.value(gpu.BUSY) == 33
    bench.read(busy=b"34\n", aer=b"1")
    assert bench.value(gpu.BUSY) == 34


@pytest.mark.parametrize("left", [0, 3])
def test_a_file_that_came_home_waits_for_a_reading_of_its_own(bench: Bench, left: int) -> None:
    """A late server: the reader has read the cadence again before it knew that the file belongs there.

    left: length of the file in that reading's copy, from an earlier one, or of none at all.
    """
    bench.read(busy=OPEN_ERROR + ENOENT, aer=b"1")
    bench.now += 10
    bench.lane.retry(bench.now)
    began = bench.now + 1
    first = bench.begin(0, busy=b"33\n", aer=b"1")
    copy = (first + 1) % DEPTH
    bench.reader.lengths[copy][3] = left
    bench.reader.slots(copy)[3][:3] = b"99\n"
    second = bench.begin(0, aer=b"2")
    bench.now += 3
    bench.lane.finished(1 << RETRY_GROUP | 1 << NORMAL, first, began, began)
    assert bench.group("busy") == NORMAL
    bench.lane.finished(1 << NORMAL, second, began + 1, began + 1)
    assert bench.value(gpu.BUSY) == 33
    assert bench.figures.malformed == {}
    # What that copy held by chance is not taken for known when it really is read.
    bench.read(busy=b"99\n", aer=b"2")
    assert bench.value(gpu.BUSY) == 99


@pytest.mark.parametrize("number", [EIO, EBUSY])
def test_a_busy_driver_costs_the_value_and_is_asked_again_after_a_second(bench: Bench, number: int) -> None:
    bench.read(busy=number, aer=b"1")
    assert bench.value(gpu.BUSY) is None
    assert bench.figures.reads[Outcome.TRANSIENT] == 1
    assert bench.group("busy") == PARKED
    bench.lane.retry(bench.now + 0.9)
    assert bench.group("busy") == PARKED
    bench.lane.retry(bench.now + 1.1)
    assert bench.group("busy") == RETRY_GROUP


def test_a_device_that_is_gone_says_so(bench: Bench) -> None:
    bench.read(busy=ENODEV, aer=ENODEV)
    assert bench.gone == 1
    assert bench.lane.state is Outcome.GONE
    assert bench.value(gpu.BUSY) is None


def test_asleep_nothing_is_known(bench: Bench) -> None:
    for _ in range(3):
        bench.now += 1
        chain = bench.begin(0, gate=b"suspended\n")
        bench.lane.withheld(chain, bench.now, resting=False)
    assert bench.lane.state is Outcome.SUSPENDED
    assert bench.lane.power == "suspended"
    assert [bench.value(metric) for metric in (gpu.MEMORY_TOTAL, gpu.PCIE_REPLAYS, gpu.BUSY)] == [None] * 3
    assert bench.lane.samples(bench.now).rows == {}
    assert bench.figures.left_suspended == pytest.approx(2)
    # The same bytes as before it slept are news.
    bench.read(STATIC, SLOW, NORMAL, total=b"64\n", replays=b"5\n", busy=b"10\n", aer=b"1 2")
    assert [bench.value(metric) for metric in (gpu.MEMORY_TOTAL, gpu.PCIE_REPLAYS, gpu.BUSY)] == [64, 5, 10]


def test_resting_keeps_what_is_fresh(bench: Bench) -> None:
    bench.now += 1
    bench.lane.withheld(bench.begin(0), bench.now, resting=True)
    assert bench.lane.state is Outcome.RESTING
    assert bench.value(gpu.BUSY) == 10


def test_a_gate_that_cannot_be_read_leaves_nothing_known(bench: Bench) -> None:
    bench.now += 1
    bench.lane.withheld(bench.begin(0, gate=EIO), bench.now, resting=False)
    assert bench.lane.state is Outcome.STALE
    assert bench.value(gpu.BUSY) is None


def test_a_hung_file_is_named_and_everything_is_read_anew(bench: Bench) -> None:
    bench.lane.hung(3, bench.now)
    assert bench.lane.state is Outcome.HUNG
    assert bench.lane.hung_file == "busy"
    assert bench.figures.hangs == 1
    bench.now += 50
    bench.lane.resumed()
    assert (bench.lane.state, bench.lane.hung_file) == (Outcome.STALE, "")
    bench.read(STATIC, SLOW, NORMAL, total=b"64\n", replays=b"5\n", busy=b"10\n", aer=b"1 2")
    assert [bench.value(metric) for metric in (gpu.MEMORY_TOTAL, gpu.PCIE_REPLAYS, gpu.BUSY)] == [64, 5, 10]


def test_two_slow_reads_demote_a_file_and_quick_ones_bring_it_back(bench: Bench) -> None:
    def read(cost: float, group: int) -> None:
        bench.reader.costs[3] = cost
        bench.read(group, busy=b"10\n", aer=b"1", took=cost + 0.1)

    read(0.2, NORMAL)
    assert bench.group("busy") == NORMAL
    read(0.2, NORMAL)
    assert bench.group("busy") == DEMOTED
    assert bench.lane.demoted() == [("busy", DEMOTED_PERIODS[0], pytest.approx(0.2))]
    assert bench.group("aer") == NORMAL
    # Fresh by its own cadence now: three times 15 s.
    bench.now += 40
    assert bench.value(gpu.BUSY) == 10
    read(0.001, DEMOTED)
    read(0.001, DEMOTED)
    assert bench.group("busy") == NORMAL
    assert bench.lane.demoted() == []


def test_a_reading_overtaken_by_later_ones_is_not_taken(bench: Bench) -> None:
    late = bench.begin(0, busy=b"77\n", aer=b"1")
    for _ in range(DEPTH):
        bench.begin(0, busy=b"78\n", aer=b"1")
    bench.lane.finished(1 << NORMAL, late, bench.now, bench.now)
    assert bench.figures.ticks_missed == 1
    assert bench.value(gpu.BUSY) == 10
    bench.lane.finished(1 << NORMAL, bench.chain, bench.now, bench.now)
    assert bench.value(gpu.BUSY) == 78


def test_what_is_read_seldom_is_not_lost_by_a_late_look() -> None:
    """The slow files were read in a chain whose record came too late; the next is due in a minute."""
    bench = Bench()
    bench.now += 1
    late = bench.begin(0, total=b"64\n", replays=b"5\n", busy=b"10\n", aer=b"1")
    for number in range(DEPTH):
        bench.begin(0, busy=f"{number}\n".encode(), aer=b"1")
    bench.lane.finished(1 << STATIC | 1 << SLOW | 1 << NORMAL, late, bench.now, bench.now)
    assert bench.value(gpu.PCIE_REPLAYS) is None
    for _ in range(3):
        bench.read(busy=b"9\n", aer=b"1")
    assert [bench.value(metric) for metric in (gpu.MEMORY_TOTAL, gpu.PCIE_REPLAYS, gpu.BUSY)] == [64, 5, 9]
    assert bench.figures.malformed == {}
    # As old as they are: from the late chain.
    bench.now = 1001 + 180.5
    assert bench.value(gpu.PCIE_REPLAYS) is None


def test_a_new_reader_takes_over_what_is_known(bench: Bench) -> None:
    bench.read(busy=OPEN_ERROR + ENOENT, aer=b"1")
    groups = bench.lane.groups()
    assert groups[3] == PARKED
    periods = bench.server.periods.tolist()
    descriptor = LaneMemory.create(reader_plan(bench.plan, 8, "/sys", 1.0), groups, periods)
    memory, bench.reader = LaneMemory(descriptor), LaneMemory(descriptor)
    os.close(descriptor)
    bench.lane.adopt(8, memory)
    assert bench.value(gpu.PCIE_REPLAYS) == 5
    bench.chain = 0
    bench.read(SLOW, NORMAL, replays=b"6\n", aer=b"1")
    assert bench.value(gpu.PCIE_REPLAYS) == 6
    assert len(groups) == len(bench.plan.files) and max(g for g in groups if g != PARKED) < GROUPS
