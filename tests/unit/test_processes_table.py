"""The scout's table of processes over a /proc that does not exist: what is looked at, and what it sees."""

import os
from pathlib import Path

import pytest

from gpudaemon.processes.kfd import KfdProcesses
from gpudaemon.processes.memory import DeviceMemory
from gpudaemon.processes.table import Table, node_of
from tests.procfs import Procfs, amdgpu

TEXT = amdgpu(1, 0)


class Bench:
    """A table whose clock is moved by hand. events: what the kernel would tell; None: it does not."""

    def __init__(self, root: Path, *, events: bool = False) -> None:
        self.now = 1000.0
        self.used = 0.0
        self.procfs = Procfs(root / "proc")
        self.sysfs = root / "sys"
        self.references = self.sysfs / "module" / "amdgpu" / "refcnt"
        self.references.parent.mkdir(parents=True)
        self.references.write_text("0\n")
        self.news: list[tuple[set[int], set[int], bool]] = []
        self.table = Table(
            str(self.procfs.root),
            str(self.sysfs),
            5.0,
            clock=lambda: self.now,
            cpu=lambda: self.used,
            news=(lambda: self.news.pop(0) if self.news else (set(), set(), False)) if events else None,
        )
        self.table.drivers = ("amdgpu",)

    def look(self, later: float = 5.0) -> bool:
        self.now += later
        return self.table.look()

    def users(self) -> dict[int, dict[int, str]]:
        return {pid: process.nodes for pid, process in self.table.users.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def count_descriptors(monkeypatch: pytest.MonkeyPatch, counts: dict[int, int]) -> None:
    """A directory of descriptors that says how many there are, as procfs does."""
    plain = Table._count

    def counted(table: Table, pid: int) -> int:
        return counts[pid] if pid in counts else plain(table, pid)

    monkeypatch.setattr(Table, "_count", counted)


def test_at_first_all_are_looked_at(bench: Bench) -> None:
    bench.procfs.process(10)
    bench.procfs.open(10, 3, TEXT)
    bench.procfs.process(11)
    assert bench.look()
    assert bench.users() == {10: {3: "renderD128"}}
    assert bench.table.users[10].started == 1010


def test_a_new_process_is_seen_in_the_next_cycle_and_opens_its_gpu_later(bench: Bench) -> None:
    bench.look()
    bench.procfs.process(10)
    assert not bench.look()
    bench.procfs.open(10, 3, TEXT)
    assert bench.look()
    assert bench.users() == {10: {3: "renderD128"}}


def test_an_old_process_is_looked_at_when_somebody_opened_a_gpu(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict.fromkeys(range(10, 110), 5)
    count_descriptors(monkeypatch, counts)
    for pid in counts:
        bench.procfs.process(pid)
    bench.look()
    bench.look(30.0)
    before = bench.table.looks
    bench.look()
    assert bench.table.looks - before <= 2, "all but those whose turn it is are left alone"
    bench.procfs.open(50, 3, TEXT)
    counts[50] = 6
    assert not bench.look(), "nobody said anything: its turn comes within ten minutes"
    bench.references.write_text("1\n")
    assert bench.look()
    assert bench.users() == {50: {3: "renderD128"}}


def test_without_a_count_of_references_each_cycle_asks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {10: 5}
    count_descriptors(monkeypatch, counts)
    bench.references.unlink()
    bench.procfs.process(10)
    bench.look()
    bench.procfs.open(10, 3, TEXT)
    counts[10] = 6
    assert bench.look()


def test_after_a_minute_all_are_asked_anyway(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(range(10, 1000), 5)
    count_descriptors(monkeypatch, counts)
    bench.procfs.process(999)
    for pid in range(10, 12):
        bench.procfs.process(pid)
    bench.look()
    bench.procfs.open(999, 3, TEXT)
    counts[999] = 6
    bench.look(61.0)
    assert bench.users() == {999: {3: "renderD128"}}


def test_every_process_has_its_turn_within_ten_minutes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is the same again: one was closed and a GPU opened."""
    counts = dict.fromkeys(range(10, 200), 5)
    count_descriptors(monkeypatch, counts)
    for pid in counts:
        bench.procfs.process(pid)
    bench.look()
    bench.procfs.open(100, 3, TEXT)
    for _ in range(121):
        bench.look()
    assert bench.users() == {100: {3: "renderD128"}}


def test_with_events_no_directory_is_listed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, events=True)
    bench.procfs.process(10)
    bench.look()
    bench.procfs.process(11)
    bench.procfs.open(11, 3, TEXT)
    bench.news.append(({11}, set(), False))
    assert bench.look()
    bench.news.append((set(), {11}, False))
    bench.procfs.end(11)
    assert bench.look()
    assert bench.users() == {}
    assert bench.table.lists == 1


def test_lost_events_are_made_up_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, events=True)
    bench.procfs.process(10)
    bench.look()
    bench.procfs.process(11)
    bench.procfs.open(11, 3, TEXT)
    bench.news.append((set(), set(), True))
    assert bench.look()
    assert bench.table.lists == 2


def test_a_number_used_again_within_one_cycle(tmp_path: Path) -> None:
    bench = Bench(tmp_path, events=True)
    bench.procfs.process(10, started=1)
    bench.procfs.open(10, 3, TEXT)
    bench.look()
    bench.procfs.restart(10, started=2)
    bench.news.append(({10}, set(), False))
    assert bench.look()
    assert bench.table.users[10].started == 2


def test_what_the_server_asks_for_is_looked_at_again(bench: Bench) -> None:
    for pid in range(10, 300):
        bench.procfs.process(pid)
    bench.procfs.open(250, 3, TEXT)
    bench.look()
    bench.procfs.close(250, 3)
    bench.table.ask([250, 9999])
    assert bench.look()
    assert bench.users() == {}


def test_others_processes_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without CAP_SYS_PTRACE; where hidepid is set they are not even there."""
    plain = os.listdir

    def refused(path: str) -> list[str]:
        if path.endswith("/10/fd"):
            raise PermissionError
        return plain(path)

    bench.procfs.process(10)
    bench.procfs.process(11)
    bench.procfs.open(11, 3, TEXT)
    monkeypatch.setattr(os, "listdir", refused)
    bench.look()
    assert bench.table.denied == 1
    assert bench.users() == {11: {3: "renderD128"}}


def test_one_that_ends_while_it_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.readlink

    def vanishing(path: str) -> str:
        if "/10/fd/" in path:
            raise FileNotFoundError
        return plain(path)

    bench.procfs.process(10)
    bench.procfs.open(10, 3, TEXT)
    monkeypatch.setattr(os, "readlink", vanishing)
    assert not bench.look()
    assert bench.users() == {}


def test_a_dear_process_is_not_looked_at_each_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a hundred thousand descriptors whose number always changes."""
    plain = Table._descriptors

    def slow(table: Table, pid: int, process: object) -> object:
        bench.used += 0.3
        return plain(table, pid, process)  # type: ignore[arg-type]

    bench.procfs.process(10)
    monkeypatch.setattr(Table, "_descriptors", slow)
    bench.look()
    for turn in range(8):
        bench.references.write_text(f"{turn}\n")
        bench.look()
    assert bench.table.looks == 1
    bench.references.write_text("x\n")
    bench.look(60.0)
    assert bench.table.looks == 2


def test_the_number_of_a_node_counts_not_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container has renderD129 under the name of renderD128."""
    node = tmp_path / "renderD128"
    try:
        os.mknod(node, 0o600 | 0o020000, os.makedev(226, 129))
    except PermissionError:
        pytest.skip("mknod takes CAP_MKNOD")
    char = tmp_path / "sys" / "dev" / "char"
    char.mkdir(parents=True)
    (char / "226:129").symlink_to("../../devices/x/drm/renderD129")
    assert node_of(str(node), "/dev/dri/renderD128", {}, str(tmp_path / "sys")) == "renderD129"
    other = tmp_path / "file"
    other.write_text("")
    assert node_of(str(other), "/dev/dri/renderD128", {}, "/sys") == "", "a file of that name is no node"
    assert node_of(str(node), "/dev/null", {}, "/sys") == ""
    null = tmp_path / "null"
    os.mknod(null, 0o600 | 0o020000, os.makedev(1, 3))
    assert node_of(str(null), "/dev/dri/renderD128", {}, "/sys") == ""


def test_kfd_names_its_processes_gpus_and_queues(tmp_path: Path) -> None:
    root = tmp_path / "class" / "kfd" / "kfd"
    for node, gpu, properties in (
        ("0", "0", "cpu_cores_count 8\nsimd_count 0\nlocation_id 0\n"),
        ("1", "51366", "simd_count 256\nlocation_id 768\ndomain 0\n"),
    ):
        directory = root / "topology" / "nodes" / node
        directory.mkdir(parents=True)
        (directory / "gpu_id").write_text(f"{gpu}\n")
        (directory / "properties").write_text(properties)
    (root / "topology" / "generation_id").write_text("2\n")
    process = root / "proc" / "77"
    for path, text in (
        ("pasid", "0\n"),
        ("vram_51366", "4096\n"),
        ("sdma_51366", "7\n"),
        ("stats_51366/evicted_ms", "1\n"),
        ("stats_51366/cu_occupancy", "0\n"),
        ("counters_51366/faults", "0\n"),
        ("vram_999", "1\n"),
        ("queues/0/gpuid", "51366"),
        ("queues/0/size", "2097152"),
        ("queues/0/type", "0"),
        ("queues/1/gpuid", "51366"),
        ("queues/1/type", "4"),
    ):
        (process / path).parent.mkdir(parents=True, exist_ok=True)
        (process / path).write_text(text)
    (one,) = KfdProcesses(str(tmp_path)).look()
    assert one.pid == 77
    assert sorted(one.files) == ["0000:03:00.0"]
    assert sorted(one.files["0000:03:00.0"]) == [
        "counters_51366/faults",
        "sdma_51366",
        "stats_51366/cu_occupancy",
        "stats_51366/evicted_ms",
        "vram_51366",
    ]
    assert dict(one.queues) == {("0000:03:00.0", "compute"): 1, ("0000:03:00.0", "other"): 1}


def test_partitions_of_a_gpu_belong_to_its_address(tmp_path: Path) -> None:
    """Its number stands in bits 31 to 28 of location_id, or in the function (amdkfd/kfd_topology.c)."""
    root = tmp_path / "class" / "kfd" / "kfd"
    for node, gpu, location in ((1, 100, 0x300), (2, 101, 0x301), (3, 102, 2 << 28 | 0x300)):
        directory = root / "topology" / "nodes" / str(node)
        directory.mkdir(parents=True)
        (directory / "gpu_id").write_text(f"{gpu}\n")
        (directory / "properties").write_text(f"simd_count 32\nunique_id 7\nlocation_id {location}\n")
        process = root / "proc" / "77"
        process.mkdir(parents=True, exist_ok=True)
        (process / f"vram_{gpu}").write_text("4096\n")
    (one,) = KfdProcesses(str(tmp_path)).look()
    assert {device: sorted(paths) for device, paths in one.files.items()} == {
        "0000:03:00.0": ["vram_100", "vram_101", "vram_102"]
    }


def test_device_memory_by_cgroup_as_documented(tmp_path: Path) -> None:
    procfs = Procfs(tmp_path / "proc")
    cgroups = tmp_path / "sys" / "fs" / "cgroup"
    path = f"/system.slice/docker-{'ab' * 32}.scope"
    (cgroups / path[1:]).mkdir(parents=True)
    (cgroups / "dmem.capacity").write_text(
        "drm/0000:03:00.0/vram0 8514437120\ndrm/0000:03:00.0/stolen 67108864\n"
    )
    (cgroups / path[1:] / "dmem.current").write_text(
        "drm/0000:03:00.0/vram0 12550144\ndrm/0000:03:00.0/stolen 8650752\n"
    )
    (cgroups / path[1:] / "dmem.max").write_text(
        "drm/0000:03:00.0/vram0 1073741824\ndrm/0000:03:00.0/stolen max\n"
    )
    (cgroups / path[1:] / "dmem.min").write_text("drm/0000:03:00.0/vram0 0\n")
    procfs.process(10, cgroup=path)
    procfs.process(11, cgroup=path)
    procfs.process(12, cgroup="/../../elsewhere")
    capacity, found = DeviceMemory(str(procfs.root), str(tmp_path / "sys")).look([10, 11, 12])
    assert capacity == [("0000:03:00.0", "vram0", 8514437120), ("0000:03:00.0", "stolen", 67108864)]
    ((owner, sizes),) = found
    assert owner.key == f"docker/{'ab' * 6}"
    assert sizes == [
        ["current", "0000:03:00.0", "vram0", 12550144],
        ["current", "0000:03:00.0", "stolen", 8650752],
        ["max", "0000:03:00.0", "vram0", 1073741824],
    ]


def test_no_controller_no_memory(tmp_path: Path) -> None:
    assert DeviceMemory("/proc", str(tmp_path)).look([1]) == ([], [])
