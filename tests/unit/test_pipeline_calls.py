"""Calls on the server's side, with a process that does as told: who hangs, crashes, and is asked again when."""

import asyncio
import errno
from pathlib import Path

import pytest

from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Block
from gpudaemon.parsers.words import numbers
from gpudaemon.pipeline.calls import CallLane, Calls
from gpudaemon.pipeline.holders import Holders
from gpudaemon.pipeline.plan import DevicePlan, PlannedFile, group_of
from gpudaemon.reader.channel import GROUPS, LaneMemory, RecordKind

NORMAL = group_of(Cadence.NORMAL)


class Link:
    """A process of calls that exists when the test says so."""

    def __init__(self) -> None:
        self.up = False
        self.pid = 5_000_001
        self.lanes: dict[int, LaneMemory] = {}
        self.dropped: list[int] = []
        self.reasons: list[str] = []
        self.stopped = 0
        self.on_record = self.on_lost = self.on_start = lambda *_: None  # type: ignore[assignment]

    def attach(self, _: object) -> None: ...

    def start(self) -> None: ...

    def watch(self, _: float) -> None: ...

    def pause(self, _: bool) -> None: ...

    def stop(self) -> None:
        self.up = False
        self.stopped += 1

    def send_lane(self, descriptor: int) -> None:
        memory = LaneMemory(descriptor)
        self.lanes[memory.plan["lane"]] = memory

    def drop_lane(self, number: int) -> None:
        self.dropped.append(number)

    def begin(self) -> None:
        self.up = True
        self.on_start()

    def end(self) -> None:
        self.up = False
        self.on_lost(self.pid)
        self.pid += 1

    def replace(self, reason: str) -> None:
        self.reasons.append(reason)
        self.end()


def plan(device: Device, name: str = "power") -> DevicePlan:
    series = Series(gpu.POWER, (device.id, "gpu"))
    wanted = Attribute(f"nvml/{name}", Cadence.NORMAL, (series,), numbers(1), call="nvml")
    file = PlannedFile(wanted.path, NORMAL, 64, 0, 1, wanted.decode)
    blocks = {gpu.POWER: Block((series.prefix(),), (0,))}
    return DevicePlan(device, False, (file,), blocks, (None,), (), (), -1, -1, call="nvml")


def device(number: int) -> Device:
    return Device(id=f"0000:{number:02x}:00.0", kind=DeviceKind.GPU, path=f"devices/{number}")


class Bench:
    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.link = Link()
        self.looks = 0
        self.holders = Holders(str(directory), "/sys", name="stuck-caller-")
        self.calls = Calls(
            lambda _: self.link,  # type: ignore[arg-type, return-value]
            self.holders,
            sysfs="/sys",
            periods=[1.0] * GROUPS,
            deadline=1.0,
            gone=self.look,
            clock=lambda: self.now,
        )

    def look(self) -> None:
        self.looks += 1

    def add(self, number: int, name: str = "power") -> CallLane:
        one = device(number)
        return self.calls.set(one, {"nvml": plan(one, name)}, {})["nvml"]

    def tell(self, call: CallLane, kind: int) -> None:
        self.link.on_record((kind, 0, 0, call.number, 0, 0, 1, self.now, self.now))

    def answer(self, call: CallLane, answer: bytes) -> None:
        memory = self.link.lanes[call.number]
        memory.begun += 1
        chain = memory.begun
        memory.slots(chain % 6)[0][: len(answer)] = answer
        memory.lengths[chain % 6][0] = len(answer)
        self.link.on_record(
            (RecordKind.FINISHED, 0, 0, call.number, 1 << NORMAL, 0, chain, self.now - 0.001, self.now)
        )

    def pass_time(self, seconds: float) -> bool:
        self.now += seconds
        return self.calls.tick(self.now)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: None)  # the link below has no use for one
    return Bench(tmp_path)


def test_a_lane_is_handed_over_when_its_process_is_there(bench: Bench) -> None:
    call = bench.add(1)
    assert not call.handed and call.state is Outcome.STALE and not call.settled
    bench.link.begin()
    assert call.handed
    bench.answer(call, b"300")
    assert call.state is Outcome.OK and call.settled
    assert call.lane is not None and call.lane.values == [300]


def test_one_that_hangs_among_others_costs_the_process_after_ten_seconds(bench: Bench) -> None:
    bad, good = bench.add(1), bench.add(2)
    bench.link.begin()
    bench.answer(good, b"1")
    bench.tell(bad, RecordKind.HUNG)
    assert bad.state is Outcome.HUNG and good.state is Outcome.OK
    assert bench.pass_time(9.9)
    assert bench.link.reasons == []
    bench.pass_time(0.2)
    assert bench.link.reasons == ["hung"]
    bench.link.begin()
    assert good.handed and not bad.handed
    assert bad.state is Outcome.HUNG  # until it answers again
    bench.pass_time(1.1)
    assert bad.handed
    bench.answer(bad, b"2")
    assert bad.state is Outcome.OK


def test_where_all_hang_the_process_goes_at_once_and_each_time_for_longer(bench: Bench) -> None:
    call = bench.add(1)
    bench.link.begin()
    waits = []
    for _ in range(7):
        bench.tell(call, RecordKind.HUNG)
        bench.pass_time(0.0)
        bench.link.begin()
        waits.append(call.not_before - bench.now)
        bench.pass_time(waits[-1] + 0.1)
        assert call.handed
    assert waits == [1, 5, 30, 120, 600, 600, 600]
    bench.pass_time(100.0)
    bench.tell(call, RecordKind.HUNG)
    bench.pass_time(0.0)
    assert call.not_before - bench.now == 1  # forgiven


def test_a_crash_is_its_callers_whose_call_was_under_way(bench: Bench) -> None:
    bad, good = bench.add(1), bench.add(2)
    bench.link.begin()
    bench.link.lanes[bad.number].calling = True
    bench.link.end()
    bench.link.begin()
    assert good.handed and not bad.handed
    assert bad.settled
    bench.pass_time(1.1)
    assert bad.handed


def test_values_stay_until_they_are_old_while_the_process_is_replaced(bench: Bench) -> None:
    call = bench.add(1)
    bench.link.begin()
    bench.answer(call, b"7")
    bench.link.end()
    bench.link.begin()
    assert call.lane is not None and call.lane.values == [7]
    bench.answer(call, b"8")
    assert call.lane.values == [8]


def test_a_process_that_cannot_end_holds_its_device(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = {5_000_001: True}
    monkeypatch.setattr(
        "gpudaemon.pipeline.holders.start_time", lambda pid: 7 if alive.get(pid, True) else None
    )
    call = bench.add(1)
    bench.link.begin()
    bench.tell(call, RecordKind.HUNG)
    bench.pass_time(0.0)
    bench.link.begin()
    bench.pass_time(1000.0)
    assert not call.handed and call.held == (5_000_001, "nvml/power") and call.state is Outcome.HUNG
    alive[5_000_001] = False
    bench.pass_time(1.0)
    assert call.handed and call.held is None


def test_a_new_plan_waits_for_a_stuck_call(bench: Bench) -> None:
    call = bench.add(1)
    bench.link.begin()
    before = call.number
    bench.tell(call, RecordKind.HUNG)
    bench.add(1, "energy")
    assert call.number == before
    bench.tell(call, RecordKind.RESUMED)
    assert call.number != before and call.plan.files[0].path == "nvml/energy"
    assert bench.link.dropped == [before]


def test_a_new_plan_takes_over_what_is_known(bench: Bench) -> None:
    call = bench.add(1)
    bench.link.begin()
    bench.answer(call, b"5")
    bench.add(1)
    assert call.lane is not None and call.lane.values == [5] and call.state is Outcome.OK


def test_the_process_ends_with_its_last_device(bench: Bench) -> None:
    bench.add(1)
    bench.add(2)
    bench.link.begin()
    bench.calls.remove(device(1).id)
    assert bench.link.stopped == 0
    assert bench.calls.set(device(2), {}, {}) == {}
    assert bench.link.stopped == 1


def test_a_lost_gpu_has_sysfs_looked_at_now_and_then(bench: Bench) -> None:
    call = bench.add(1)
    bench.link.begin()
    for _ in range(31):
        memory = bench.link.lanes[call.number]
        memory.begun += 1
        memory.lengths[memory.begun % 6][0] = -errno.ENODEV
        groups, chain = 1 << NORMAL, memory.begun
        bench.link.on_record(
            (RecordKind.FINISHED, 0, 0, call.number, groups, 0, chain, bench.now - 0.1, bench.now)
        )
        bench.pass_time(1.0)
    assert call.state is Outcome.GONE
    assert bench.looks == 2


def test_a_rest_is_told_to_the_lane_and_kept_over_processes(bench: Bench) -> None:
    call = bench.add(1)
    bench.link.begin()
    bench.calls.rest(call.device.id, 5000.0)
    assert bench.link.lanes[call.number].rest_until == 5000.0
    bench.link.end()
    bench.link.begin()
    assert bench.link.lanes[call.number].rest_until == 5000.0
