"""A guest in a device's lane: files that lead into the same driver, such as the fdinfo of GPU clients."""

import os
import time
from pathlib import Path

import pytest

from gpudaemon.reader.channel import DEPTH, RECORD, LaneMemory, RecordKind
from tests.unit.test_reader_lanes import NORMAL, PERIODS, Bench

GUEST = 9


class WithGuest(Bench):
    """A lane of a device and a guest in it; each over files of its own."""

    def guest(self, count: int, *, gate: str | None = "active\n", deadline: float = 1.0) -> LaneMemory:
        paths = []
        if gate is not None:
            (self.directory / "runtime_status").write_text(gate)
            paths.append(str(self.directory / "runtime_status"))
        for number in range(count):
            path = self.directory / f"fdinfo{number}"
            path.write_text(f"{number}\n")
            paths.append(str(path))
        plan = {
            "lane": GUEST,
            "device": "0000:03:00.0",
            "deadline": deadline,
            "gate": gate is not None,
            "paths": paths,
            "limits": [64] * len(paths),
            "depth": 2,
            "guest": True,
        }
        groups = [0] * (gate is not None) + [NORMAL] * count
        descriptor = LaneMemory.create(plan, groups, PERIODS)
        self.lanes.add(LaneMemory(descriptor))
        server = LaneMemory(descriptor)
        os.close(descriptor)
        return server

    def told(self, number: int) -> list[int]:
        """Kinds of the records of a lane so far."""
        self.lanes.flush()
        records = [record for packet in self.packets for record in RECORD.iter_unpack(packet)]
        return [record[0] for record in records if record[3] == number]


@pytest.fixture
def bench(tmp_path: Path) -> WithGuest:
    bench = WithGuest(tmp_path)
    bench.wait_for_the_middle()
    return bench


def test_a_guest_reads_after_the_gate_and_tells_once(bench: WithGuest) -> None:
    memory = bench.guest(70)
    bench.lane({"a": NORMAL})
    steps = [step for _ in range(6) for step, _ in bench.tick()]
    assert memory.depth == 2 < DEPTH
    assert steps[:2] == ["open", "gate"]
    assert bench.told(GUEST) == [RecordKind.FINISHED]
    chain = memory.finished
    lengths = list(memory.lengths[chain % memory.depth])
    assert [memory.content(chain, index, lengths[index]) for index in (1, 70)] == [b"0\n", b"69\n"]


def test_guest_and_host_are_never_in_the_driver_together(bench: WithGuest) -> None:
    fast = [600.0, 60.0, 0.1, 0.1, *PERIODS[4:]]
    for memory in (bench.guest(70), bench.lane({"a": NORMAL, "b": NORMAL})):
        memory.set_periods(fast)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        bench.lanes.tick(time.monotonic())
        assert len(bench.engine.queue) <= 1
        if bench.engine.queue:
            bench.engine.step()
        else:
            time.sleep(0.005)
    assert bench.told(1).count(RecordKind.FINISHED) >= 4
    assert bench.told(GUEST).count(RecordKind.FINISHED) >= 4


def test_a_guest_gives_way_between_a_few_files(bench: WithGuest) -> None:
    bench.lane({"a": NORMAL})
    bench.tick()
    bench.guest(70)
    bench.engine.done.clear()
    now = time.monotonic()
    bench.lanes.tick(now)
    for _ in range(3):  # the gate is opened and read, then the first files are opened
        bench.engine.step()
    host = bench.lanes.lanes[1]
    host.all_due(time.monotonic())
    bench.engine.go()
    bench.lanes.tick(time.monotonic())
    bench.engine.go()
    bench.lanes.tick(time.monotonic())
    bench.engine.go()
    owners = [len(indexes) for step, indexes in bench.engine.done if step == "read"]
    assert owners[0] == 32
    assert owners[1] == 1, "the device's own file came in between"
    assert sum(owners) == 71
    assert bench.told(GUEST) == [RecordKind.FINISHED]


def test_where_a_guest_hangs_its_device_is_left_alone(bench: WithGuest) -> None:
    bench.lane({"a": NORMAL})
    bench.tick()
    bench.guest(3, deadline=0.5)
    now = time.monotonic()
    bench.lanes.tick(now)
    while bench.engine.queue[0].step.value != "read":
        bench.engine.step()
    stuck = bench.engine.queue.pop(0)
    bench.lanes.tick(time.monotonic() + 1.0)
    assert bench.told(GUEST) == [RecordKind.HUNG]
    before = bench.told(1)
    assert bench.tick(5.0) == [], "nothing enters the driver"
    assert bench.told(1) == before
    bench.engine.finished(stuck)
    assert bench.told(GUEST)[-1] == RecordKind.RESUMED
    assert bench.tick(6.0), "both go on"


def test_where_the_device_hangs_its_guest_begins_nothing(bench: WithGuest) -> None:
    bench.lane({"a": NORMAL}, deadline=0.5)
    bench.lanes.tick(time.monotonic())
    while bench.engine.queue[0].step.value != "read":
        bench.engine.step()
    stuck = bench.engine.queue.pop(0)
    bench.lanes.tick(time.monotonic() + 1.0)
    bench.guest(3)
    assert bench.tick(2.0) == []
    bench.engine.finished(stuck)
    bench.tick(3.0)
    bench.tick(3.0)
    assert RecordKind.FINISHED in bench.told(GUEST)


@pytest.mark.parametrize("state", ["suspended\n", "suspending\n", "resuming\n"])
def test_a_sleeping_device_has_no_visitors(bench: WithGuest, state: str) -> None:
    bench.guest(3, gate=state)
    steps = [step for step, _ in bench.tick()]
    assert steps == ["open", "gate"]
    assert bench.told(GUEST) == [RecordKind.POWER]


def test_waiting_costs_no_wake_ups(bench: WithGuest) -> None:
    """While the guest reads, the time to look again is not in the past."""
    bench.lane({"a": NORMAL})
    bench.tick()
    bench.guest(3)
    bench.lanes.tick(time.monotonic())
    assert bench.engine.queue
    bench.lanes.lanes[1].all_due(time.monotonic())
    bench.lanes.tick(time.monotonic())
    bench.lanes.tick(time.monotonic())
    assert bench.lanes.next_moment() > time.monotonic()


def test_the_last_guest_leaves_nothing_behind(bench: WithGuest) -> None:
    bench.lane({"a": NORMAL})
    bench.guest(3)
    bench.tick()
    bench.tick()
    bench.lanes.drop(GUEST)
    assert GUEST not in bench.lanes.lanes
    assert bench.tick(2.0)


@pytest.mark.parametrize("depth", [0, 1, DEPTH + 1, "2", True])
def test_a_depth_that_is_none_is_refused(depth: object) -> None:
    with pytest.raises(ValueError, match="depth"):
        LaneMemory.create({"paths": [], "limits": [], "depth": depth}, [], PERIODS)
