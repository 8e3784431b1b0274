"""Rosters over files that do as the kernel's do: duplicates, numbers used again, processes that go."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudaemon.collectors.drm_client.accounts import Accounts, Reading
from gpudaemon.model.metric import escape_label
from gpudaemon.pipeline.roster import DEPTH, OFTEN, SELDOM, Member, Roster
from gpudaemon.reader.channel import GROUPS, LaneMemory
from gpudaemon.reader.lanes import Lanes
from tests.procfs import Procfs, amdgpu
from tests.unit.test_reader_lanes import ByHand

GPU = "0000:03:00.0"


class Bench:
    """A roster, read by lanes whose engine does all at once."""

    def __init__(self, procfs: Procfs) -> None:
        self.procfs = procfs
        self.lanes = Lanes(lambda _: None, lambda: None)
        self.engine = ByHand(self.lanes.finished)
        self.lanes.engine = self.engine  # type: ignore[assignment]
        self.number = 0
        self.roster = Roster(GPU, [], procfs="", kfd="", gate="", most=16)
        self.reads: list[str] = []

    def open(self, *members: Member, most: int = 4096) -> None:
        """Make the roster that of these processes."""
        before, self.number = self.roster, self.number + 1
        roster = Roster(
            GPU, members, procfs=str(self.procfs.root), kfd=str(self.procfs.root / "kfd"), gate="", most=most
        )
        roster.inherit(before)
        plan = {
            "lane": self.number,
            "device": GPU,
            "deadline": 1.0,
            "gate": False,
            "paths": roster.paths,
            "limits": roster.limits,
            "depth": DEPTH,
            "guest": True,
        }
        descriptor = LaneMemory.create(plan, roster.groups(), [0.001] * GROUPS)
        self.lanes.add(LaneMemory(descriptor))
        roster.memory = LaneMemory(descriptor)
        os.close(descriptor)
        if self.number > 1:
            self.lanes.drop(self.number - 1)
        self.roster = roster

    def look(self, groups: int = 1 << OFTEN | 1 << SELDOM) -> Roster:
        """Have all of it read, and take it over."""
        self.engine.done.clear()
        self.lanes.lanes[self.number].all_due(0.0)
        time.sleep(0.002)
        self.lanes.tick(time.monotonic())
        self.engine.go()
        memory = self.roster.memory
        assert memory is not None
        assert self.roster.take(groups, memory.finished)
        return self.roster

    def clients(self) -> dict[int, tuple[int, int]]:
        """client -> (pid, descriptor) it is read through."""
        return {client.identifier: (h.member.pid, h.descriptor) for h, client in self.roster.clients()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(Procfs(tmp_path))


def member(pid: int, *descriptors: int, started: int = 0) -> Member:
    return Member(pid, started or 1000 + pid, descriptors)


def test_a_client_that_many_hold_is_read_once_through_the_youngest(bench: Bench) -> None:
    """dup(2), fork(2) and SCM_RIGHTS look alike: the same client under several descriptors."""
    for pid, descriptor in ((10, 3), (10, 4), (11, 3), (12, 7)):
        if not (bench.procfs.root / str(pid)).exists():
            bench.procfs.process(pid)
        bench.procfs.open(pid, descriptor, amdgpu(5, 100))
    bench.open(member(10, 3, 4), member(11, 3), member(12, 7))
    bench.look()
    assert bench.clients() == {5: (12, 7)}
    groups = [holder.group for holder in bench.roster.holders if holder.kind == "fdinfo"]
    assert sorted(groups) == [SELDOM, SELDOM, SELDOM, OFTEN]
    bench.engine.done.clear()
    bench.look(1 << OFTEN)
    assert bench.clients() == {5: (12, 7)}, "and stays the one"


def test_when_the_holder_goes_another_takes_over_and_the_client_lives_on(bench: Bench) -> None:
    for pid in (10, 11):
        bench.procfs.process(pid)
        bench.procfs.open(pid, 3, amdgpu(5, 100))
    bench.open(member(10, 3), member(11, 3))
    bench.look()
    assert bench.clients() == {5: (11, 3)}
    bench.procfs.end(11)
    roster = bench.look()
    assert roster.identifiers() == {5}
    assert bench.clients() == {5: (10, 3)}
    assert roster.lost == {11}


def test_a_descriptor_that_is_another_client_now(bench: Bench) -> None:
    bench.procfs.process(10)
    bench.procfs.open(10, 3, amdgpu(5, 100))
    bench.procfs.open(10, 4, amdgpu(5, 100))
    bench.open(member(10, 3, 4))
    bench.look()
    bench.procfs.open(10, 3, amdgpu(6, 1))
    bench.look()
    bench.look()
    assert set(bench.clients()) == {5, 6}


def test_a_number_used_again_is_nobodys_work(bench: Bench) -> None:
    """The process is another one since the scout looked: what its descriptors say is not the first one's."""
    bench.procfs.process(10, cgroup="/system.slice/first.service", started=500)
    bench.procfs.open(10, 3, amdgpu(5, 100))
    bench.open(member(10, 3, started=400))
    roster = bench.look()
    assert bench.clients() == {}
    assert roster.identifiers() == set()
    assert roster.lost == {10}


def test_a_zombie_holds_nothing(bench: Bench) -> None:
    bench.procfs.process(10)
    bench.procfs.open(10, 3, amdgpu(5, 100))
    stat = bench.procfs.root / "10" / "stat"
    stat.write_bytes(stat.read_bytes().replace(b") S ", b") Z "))
    bench.open(member(10, 3))
    bench.look()
    assert bench.clients() == {}


def test_one_that_vanishes_between_scout_and_reader(bench: Bench) -> None:
    bench.open(member(10, 3), member(11, 3))
    roster = bench.look()
    assert bench.clients() == {}
    assert roster.lost == {10, 11}
    bench.procfs.process(11)
    bench.procfs.open(11, 3, amdgpu(7, 1))
    bench.look()
    assert bench.clients() == {7: (11, 3)}


def test_a_driver_without_accounting_is_looked_at_seldom(bench: Bench) -> None:
    bench.procfs.process(10)
    bench.procfs.open(10, 3, "pos:\t0\nflags:\t02100002\n")
    bench.open(member(10, 3))
    roster = bench.look()
    assert [holder.group for holder in roster.holders if holder.kind == "fdinfo"] == [SELDOM]
    assert roster.malformed == {}


def test_content_that_hurts_only_itself(bench: Bench) -> None:
    bench.procfs.process(10)
    bench.procfs.open(10, 3, amdgpu(5, 100).replace("100 ns", "many ns"))
    bench.procfs.open(10, 4, amdgpu(6, 100))
    bench.procfs.open(10, 5, amdgpu(7, 100) + "drm-x:\t" + "y" * 5000 + "\n")
    bench.open(member(10, 3, 4, 5))
    roster = bench.look()
    assert set(bench.clients()) == {6}
    assert roster.malformed == {"not_a_number": 1, "oversized": 1}


def test_an_owner_that_changes_is_followed(bench: Bench) -> None:
    """runc moves a container's first process after it began."""
    bench.procfs.process(10, cgroup="/system.slice/containerd.service")
    bench.procfs.open(10, 3, amdgpu(5, 100))
    bench.open(member(10, 3))
    roster = bench.look()
    assert roster.states[10, 1010].owner.key == "unit/containerd.service"
    (bench.procfs.root / "10" / "cgroup").write_text(f"0::/system.slice/docker-{'ab' * 32}.scope\n")
    assert bench.look().states[10, 1010].owner.key == f"docker/{'ab' * 6}"


def test_kfd_files_are_read_beside(bench: Bench) -> None:
    bench.procfs.process(10)
    directory = bench.procfs.root / "kfd" / "10"
    (directory / "stats_51366").mkdir(parents=True)
    (directory / "vram_51366").write_text("1048576\n")
    (directory / "stats_51366" / "evicted_ms").write_text("12\n")
    bench.open(Member(10, 1010, (), ("vram_51366", "stats_51366/evicted_ms")))
    roster = bench.look()
    assert [(one.pid, found) for one, found in roster.of_kfd()] == [
        (10, {"vram_51366": b"1048576\n", "stats_51366/evicted_ms": b"12\n"})
    ]


def test_files_are_bounded_and_what_is_cut_is_counted(bench: Bench) -> None:
    for pid in range(10, 20):
        bench.procfs.process(pid)
        bench.procfs.open(pid, 3, amdgpu(pid, 1))
    bench.open(*(member(pid, 3) for pid in range(10, 20)), most=9)
    roster = bench.look()
    assert len(roster.paths) == 9
    assert len(bench.clients()) == 3
    assert roster.cut == 7


def test_a_new_roster_knows_what_the_one_before_knew(bench: Bench) -> None:
    for pid in (10, 11):
        bench.procfs.process(pid)
        bench.procfs.open(pid, 3, amdgpu(5, 100))
    bench.open(member(10, 3), member(11, 3))
    bench.look()
    bench.open(member(10, 3), member(11, 3), member(12, 3))
    assert [h.group for h in bench.roster.holders if h.kind == "fdinfo"] == [SELDOM, OFTEN, OFTEN]
    bench.look()
    assert bench.clients() == {5: (11, 3)}


def test_a_copy_that_was_overwritten_is_not_taken(bench: Bench) -> None:
    bench.procfs.process(10)
    bench.procfs.open(10, 3, amdgpu(5, 100))
    bench.open(member(10, 3))
    bench.look()
    memory = bench.roster.memory
    assert memory is not None
    assert not bench.roster.take(1 << OFTEN, memory.finished - DEPTH)


_NAMES = st.binary(max_size=15).filter(lambda name: b"\0" not in name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=_NAMES,
    client=st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=30),
    unit=st.text(
        st.characters(blacklist_characters="/\0\n", blacklist_categories=("Cs",)), min_size=1, max_size=20
    ).filter(lambda unit: unit.strip(".")),
)
def test_names_of_any_kind_give_one_line_each(tmp_path: Path, name: bytes, client: str, unit: str) -> None:
    root = tmp_path / os.urandom(6).hex()
    root.mkdir()
    bench = Bench(Procfs(root))
    bench.procfs.process(10, name=name, cgroup=f"/{unit}.service")
    bench.procfs.open(10, 3, amdgpu(5, 100))
    bench.open(member(10, 3))
    roster = bench.look()
    (state,) = roster.states.values()
    assert state.alive
    accounts = Accounts(GPU, top=3)
    readings = [Reading(1.0, h.member.key, state.name, state.owner.key, one) for h, one in roster.clients()]
    assert readings
    accounts.update(1.0, readings)
    for _, labels, _ in accounts.rows():
        for label in labels:
            assert len(label) <= 128
            assert "\n" not in escape_label(label)
            assert escape_label(label).replace('\\"', "").find('"') == -1
