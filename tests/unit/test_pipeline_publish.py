"""From devices to snapshots, with a reader that the test plays."""

import gc
import os
import re
import weakref
from pathlib import Path

import pytest

from gpudaemon.discovery.inventory import Inventory
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Kind
from gpudaemon.model.snapshot import Snapshot
from gpudaemon.pipeline.counts import Counts
from gpudaemon.pipeline.holders import Holders
from gpudaemon.pipeline.plan import GATE
from gpudaemon.pipeline.publish import STATES, Publisher
from gpudaemon.pipeline.sampler import Periods, Sampler
from gpudaemon.reader.channel import DEPTH, LaneMemory, RecordKind

PATH = "devices/pci0000:00/0000:03:00.0"
CONTENT = {
    GATE: b"active\n",
    "gpu_busy_percent": b"25\n",
    "vendor": b"0x1002\n",
    "unique_id": b"abc\n",
    "power/control": b"auto\n",
}
GPU = Device(id="0000:03:00.0", kind=DeviceKind.GPU, path=PATH, driver="amdgpu", names=frozenset(CONTENT))


class Link:
    """The reader's end, played by the test: every lane is read with `CONTENT` when `read` is called."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.up = True
        self.engine, self.reason = "by hand", "a test"
        self.restarts: dict[str, int] = {}
        self.heartbeat = (RecordKind.HEARTBEAT, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        self.cpu_seconds = 0.0
        self.records_dropped = 0
        self.lanes: dict[int, LaneMemory] = {}
        self.on_record = lambda _: None
        self.on_start = lambda: None
        self.on_lost = lambda _: None

    def send_lane(self, descriptor: int) -> None:
        memory = LaneMemory(descriptor)
        os.close(descriptor)
        self.lanes[memory.plan["lane"]] = memory

    def drop_lane(self, number: int) -> None:
        self.lanes.pop(number, None)

    def ask_clients(self, procfs: str) -> None:
        """Nobody is asked."""

    def watch(self, now: float) -> None:
        """This reader is never silent."""

    def read(self, now: float, content: dict[str, bytes] | None = None) -> None:
        """One reading of every lane there is now."""
        for number, memory in list(self.lanes.items()):
            memory.begun = chain = memory.begun + 1
            kind, mask = RecordKind.FINISHED, 0
            for index, path in enumerate(memory.plan["paths"]):
                name = path.split(f"{PATH}/", 1)[-1]
                text = (content or CONTENT).get(name, CONTENT.get(name, b""))
                memory.slots(chain % DEPTH)[index][: len(text)] = text
                memory.lengths[chain % DEPTH][index] = len(text)
                if memory.groups[index] < 16:
                    mask |= 1 << memory.groups[index]
                if name == GATE and text != b"active\n":
                    kind = RecordKind.POWER
            self.on_record((kind, 0, 0, number, mask, 0, chain, now, now))


class Bench:
    def __init__(self, directory: Path) -> None:
        self.now = 100.0
        self.link = Link()
        self.inventory = Inventory()
        holders = Holders(str(directory), "/sys")
        periods = Periods(static=600, slow=60, normal=1, fast=1, deadline=1)
        self.sampler = Sampler(self.link, holders, sysfs="/sys", periods=periods)  # type: ignore[arg-type]
        self.counts = Counts(0.0)
        self.publisher = Publisher(
            self.sampler,
            self.inventory,
            self.link,  # type: ignore[arg-type]
            self.counts,
            clock=lambda: self.now,
        )

    def have(self, *devices: Device) -> None:
        self.inventory.update(devices)
        self.sampler.set_devices(self.inventory.devices.values())

    def read(self, content: dict[str, bytes] | None = None) -> None:
        self.now += 1
        self.link.read(self.now, content)

    def series(self) -> dict[str, float]:
        """The newest snapshot as lines; a series that stands there twice is an error."""
        self.now += 0.2
        return lines_of(self.publisher.snapshot())


def lines_of(snapshot: Snapshot) -> dict[str, float]:
    found: dict[str, float] = {}
    for samples in snapshot.samples:
        pairs = [
            (prefix, samples.values[index])
            for block in samples.blocks.values()
            for prefix, index in zip(block.prefixes, block.indexes, strict=True)
        ]
        pairs += [pair for rows in samples.rows.values() for pair in rows]
        for prefix, value in pairs:
            if value is not None:
                assert prefix not in found, prefix
                found[prefix.strip()] = value
    return found


def states(series: dict[str, float], device: str = GPU.id) -> dict[str, float]:
    found = {}
    for line, value in series.items():
        state = re.fullmatch(rf'gpudaemon_device_state{{device="{device}",state="(\w+)"}}', line)
        if state:
            found[state.group(1)] = value
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_facts_then_a_plan_then_values(bench: Bench) -> None:
    bench.have(GPU)
    assert bench.publisher.ready() == (False, "waiting for 1 of 1 devices")
    bench.read()
    # The facts are here, not one value yet.
    assert not bench.publisher.ready()[0]
    bench.read()
    assert bench.publisher.ready() == (True, "1 devices")
    series = bench.series()
    assert series[f'gpudaemon_gpu_busy_ratio{{device="{GPU.id}",engine="gfx"}}'] == 0.25
    (info,) = [line for line in series if line.startswith("gpudaemon_gpu_info")]
    assert 'unique_id="abc"' in info
    assert bench.publisher.snapshot().devices[0].identity["unique_id"] == "abc"


def test_exactly_one_state_is_1(bench: Bench) -> None:
    bench.have(GPU)
    seen = []
    for content in (None, None, {GATE: b"suspended\n"}, None):
        found = states(bench.series())
        assert set(found) == set(STATES)
        assert sorted(found.values()) == [0] * (len(STATES) - 1) + [1]
        seen.append(next(state for state, value in found.items() if value))
        bench.read(content)
    assert states(bench.series())["ok"] == 1
    assert seen[0] == "stale"
    assert "suspended" in seen


def test_a_hung_device_is_named_with_its_file_and_age(bench: Bench) -> None:
    bench.have(GPU)
    bench.read()
    bench.read()
    (number,) = bench.link.lanes
    index = [path.rsplit("/", 1)[1] for path in bench.link.lanes[number].plan["paths"]].index(
        "gpu_busy_percent"
    )
    bench.link.on_record((RecordKind.HUNG, 0, index, number, 0, 0, 3, bench.now, bench.now))
    bench.now += 50
    series = bench.series()
    assert states(series)["hung"] == 1
    age = series[f'gpudaemon_daemon_stuck_read_age_seconds{{device="{GPU.id}",attribute="gpu_busy_percent"}}']
    assert 50 <= age < 51
    assert not [line for line in series if line.startswith("gpudaemon_gpu_busy_ratio")]
    bench.link.on_record((RecordKind.RESUMED, 0, 0, number, 0, 0, 3, bench.now, bench.now))
    bench.read()
    assert states(bench.series())["ok"] == 1


def test_a_device_that_left_keeps_its_info_only(bench: Bench) -> None:
    bench.have(GPU)
    bench.read()
    bench.read()
    infos = {line for line in bench.series() if line.startswith(("gpudaemon_gpu_info", "gpudaemon_pci_info"))}
    bench.have()
    series = bench.series()
    missing = f'gpudaemon_device_missing{{device="{GPU.id}"}}'
    health = {line for line in series if line.startswith("gpudaemon_device_health")}
    assert {line for line in series if GPU.id in line} == {missing, *infos, *health}
    assert series[f'gpudaemon_device_health{{device="{GPU.id}",state="failed"}}'] == 1
    assert bench.publisher.ready()[0]
    assert bench.link.lanes == {}
    bench.have(GPU)
    bench.read()
    bench.read()
    assert missing not in bench.series()
    assert states(bench.series())["ok"] == 1


def test_a_device_that_left_gives_its_memory_back(bench: Bench) -> None:
    bench.have(GPU)
    bench.read()
    bench.read()
    bench.series()
    lane = bench.sampler.entries[GPU.id].lane
    assert lane is not None
    memory = weakref.ref(lane.memory)
    del lane
    bench.have()
    bench.series()
    gc.collect()
    assert memory() is None


def test_a_device_that_changed_is_planned_anew_and_its_counters_go_on(bench: Bench) -> None:
    bench.have(GPU)
    bench.read()
    bench.read()
    name = f'gpudaemon_daemon_reads_total{{device="{GPU.id}",outcome="ok"}}'
    before = bench.series()[name]
    other = Device(
        id=GPU.id, kind=GPU.kind, path=GPU.path, driver="amdgpu", names=GPU.names | {"mem_busy_percent"}
    )
    bench.have(other)
    for _ in range(2):
        bench.read({"mem_busy_percent": b"50\n"})
    series = bench.series()
    assert series[f'gpudaemon_gpu_busy_ratio{{device="{GPU.id}",engine="memory"}}'] == 0.5
    assert series[name] > before
    assert len(bench.link.lanes) == 1


def test_a_change_of_one_device_leaves_the_others_alone(bench: Bench) -> None:
    second = Device(id="0000:23:00.0", kind=DeviceKind.GPU, path="devices/b", driver="amdgpu")
    bench.have(GPU, second)
    bench.read()
    lanes = dict(bench.link.lanes)
    bench.have(GPU)
    assert set(bench.link.lanes) < set(lanes)
    assert all(bench.link.lanes[number] is lanes[number] for number in bench.link.lanes)


@pytest.mark.parametrize("names", [frozenset(), frozenset({GATE})])
@pytest.mark.parametrize("kind", [DeviceKind.PARTITION, DeviceKind.GPU, DeviceKind.HWMON])
def test_a_device_with_nothing_to_read_does_not_hold_up_readiness(
    bench: Bench, kind: DeviceKind, names: frozenset[str]
) -> None:
    """A partition has a node and no file of its own (amdgpu_xcp_drv.c)."""
    bench.have(Device(id="amdgpu_xcp_1", kind=kind, path="devices/platform/amdgpu_xcp_1", names=names))
    bench.sampler.tick(bench.now)
    assert bench.publisher.ready()[0]
    assert states(bench.series(), "amdgpu_xcp_1")["ok"] == 1


def test_a_new_reader_gets_every_lane(bench: Bench) -> None:
    bench.have(GPU)
    bench.read()
    bench.read()
    series = {line for line in bench.series() if line.startswith("gpudaemon_gpu_")}
    bench.link.on_lost(1)
    bench.link.lanes.clear()
    bench.link.on_start()
    assert len(bench.link.lanes) == 1
    # Younger than three seconds: served all the while.
    assert {line for line in bench.series() if line.startswith("gpudaemon_gpu_")} == series
    bench.read()
    assert {line for line in bench.series() if line.startswith("gpudaemon_gpu_")} == series


def test_snapshots_are_shared_for_a_moment_and_made_anew_after_news(bench: Bench) -> None:
    bench.have(GPU)
    first = bench.publisher.snapshot()
    assert bench.publisher.snapshot() is first
    bench.read()
    second = bench.publisher.snapshot()
    assert second is not first
    assert second.version > first.version
    bench.now += 0.5
    assert bench.publisher.snapshot() is not second


def test_counters_say_when_they_began(bench: Bench) -> None:
    bench.have(GPU)
    bench.read()
    bench.read()
    bench.counts.uevents["drm"] = 3
    bench.now += 1
    own = bench.publisher.snapshot().samples[-1]
    counters = [
        prefix for metric, rows in own.rows.items() if metric.kind is Kind.COUNTER for prefix, _ in rows
    ]
    assert counters
    assert set(counters) <= set(own.created)
    assert lines_of(bench.publisher.snapshot())['gpudaemon_daemon_uevents_total{subsystem="drm"}'] == 3
