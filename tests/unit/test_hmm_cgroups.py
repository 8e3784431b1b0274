"""Memory of cgroups with GPU clients: what is read of them, added up by owner, and served."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.hmm.cgroups import CgroupReading, Cgroups
from gpudaemon.errors import Malformed
from gpudaemon.metrics import memory as rows
from gpudaemon.parsers.cgroup_memory import EVENTS, KINDS, by_node, stat
from gpudaemon.pipeline.cgroup_memory import CgroupMemory as Served
from gpudaemon.processes.cgroup_memory import CgroupMemory
from tests.procfs import Procfs

POD = "/kubepods.slice/kubepods-pod0a1b2c3d_0000_4000_8000_000000000001.slice"
SCOPE = f"{POD}/cri-containerd-{'ab' * 32}.scope"
STAT = (
    "anon 409600\nfile 8192\nsec_pagetables 0\nworkingset_refault_anon 3\npgdemote_kswapd 100\n"
    "pgpromote_success 40\npgfault 5000\nthp_fault_alloc 9\n"
)
NUMA = "anon N0=204800 N2=204800\nfile N0=8192 N2=0\nkernel_stack N0=16384 N2=0\n"
PRESSURE = (
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n"
)


class Host:
    """A procfs and a cgroupfs that do not exist."""

    def __init__(self, root: Path) -> None:
        self.procfs = Procfs(root / "proc")
        self.cgroups = root / "sys/fs/cgroup"
        self.look = CgroupMemory(str(root / "proc"), str(root / "sys")).look

    def cgroup(self, path: str, **files: str) -> None:
        directory = self.cgroups / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / f"memory.{name}").write_text(content)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_a_cgroup_says(host: Host) -> None:
    host.procfs.process(10, cgroup=SCOPE)
    host.procfs.process(11, cgroup=SCOPE)
    host.procfs.process(12, cgroup="/")
    host.procfs.process(13, cgroup="/../outside")
    host.cgroup(SCOPE, stat=STAT, numa_stat=NUMA, pressure=PRESSURE)
    host.cgroup("/", stat=STAT)
    ((owner, path, events, nodes, pressure),) = host.look([10, 11, 12, 13, 14])
    assert owner[0].startswith("pod/0a1b2c3d") and path == SCOPE
    assert events == {
        "workingset_refault_anon": 3,
        "pgdemote_kswapd": 100,
        "pgpromote_success": 40,
        "pgfault": 5000,
    }
    assert nodes == {"anon": {"0": 204800, "2": 204800}, "file": {"0": 8192, "2": 0}}
    assert pressure == [1.5, 2e-6]


def test_one_owner_is_not_counted_twice(host: Host) -> None:
    """A container that makes cgroups of its own: figures of the upper one include those of the lower."""
    for pid, path in ((10, f"{SCOPE}/init.scope"), (11, SCOPE), (12, "/system.slice/app.service")):
        host.procfs.process(pid, cgroup=path)
        host.cgroup(path, stat=STAT)
    assert sorted(path for _, path, *_ in host.look([10, 11, 12])) == [SCOPE, "/system.slice/app.service"]


def test_version_1_has_none(host: Host) -> None:
    host.procfs.process(10, cgroup=SCOPE)
    assert host.look([10]) == []


def reading(path: str, count: int, owner: str = "a", waited: float | None = None) -> CgroupReading:
    return CgroupReading(path, owner, {"pgdemote_kswapd": count}, {"anon": {"0": count}}, (waited, None))


def demoted(cgroups: Cgroups) -> dict[str, float]:
    return {labels[0]: value for metric, labels, value in cgroups.rows() if metric is rows.CGROUP_EVENTS}


def test_sums_outlive_cgroups_and_never_fall() -> None:
    cgroups = Cgroups()
    cgroups.update(0, [reading("/a/1", 10), reading("/a/2", 5)])
    assert demoted(cgroups) == {"a": 15}
    cgroups.update(15, [reading("/a/2", 6)])
    assert demoted(cgroups) == {"a": 16}
    # The same name, another cgroup.
    cgroups.update(30, [reading("/a/2", 2)])
    assert demoted(cgroups) == {"a": 18}
    assert [value for metric, _, value in cgroups.rows() if metric is rows.CGROUP_NODE] == [2]
    cgroups.update(31, [])
    assert demoted(cgroups) == {"a": 18}
    assert not [1 for metric, _, _ in cgroups.rows() if metric is rows.CGROUP_NODE]
    cgroups.update(2000, [])
    assert demoted(cgroups) == {}


def test_another_level_of_the_same_cgroups_adds_only_what_is_new() -> None:
    cgroups = Cgroups()
    cgroups.update(0, [reading("/a/1", 10), reading("/a/2", 5)])
    cgroups.update(15, [reading("/a", 17)])
    assert demoted(cgroups) == {"a": 17}
    cgroups.update(30, [reading("/a/1", 11)])
    assert demoted(cgroups) == {"a": 17}
    cgroups.update(45, [reading("/a/1", 14)])
    assert demoted(cgroups) == {"a": 20}


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 100)), max_size=6), max_size=8))
def test_owners_are_bounded_and_nothing_is_lost(looks: list[list[tuple[str, int]]]) -> None:
    cgroups = Cgroups(owners=2)
    before: dict[str, float] = {}
    most: dict[str, int] = {}
    for at, look in enumerate(looks):
        cgroups.update(at, [reading(f"/{name}", count, name) for name, count in dict(look).items()])
        now = demoted(cgroups)
        assert len(now) <= 3
        assert all(now[owner] >= count for owner, count in before.items())
        before = now
        for name, count in dict(look).items():
            most[name] = max(most.get(name, 0), count)
    assert sum(before.values()) >= sum(most.values())


def test_what_the_scout_tells_is_served_for_a_while() -> None:
    now = 100.0
    served = Served(clock=lambda: now, served=lambda name: name != "gpudaemon_cgroup_memory_node_bytes")
    assert served.samples(now) is None
    fields: list[Any] = ["unit/a.service", "unit", "/a.service", "a.service", *[""] * 7]
    told = json.loads(json.dumps([fields, "/a.service", {"pgfault": 7}, {"anon": {"0": 1}}, [0.5, None]]))
    served.message({"cgroups": [told]})
    served.message({"cycle": 1, "cgroups": True})
    samples = served.samples(now + 49)
    assert samples is not None and rows.CGROUP_NODE not in samples.rows
    ((line, value),) = samples.rows[rows.CGROUP_EVENTS]
    assert (line, value) == (
        'gpudaemon_cgroup_memory_events_total{owner="unit/a.service",event="pgfault"} ',
        7,
    )
    assert [value for _, value in samples.rows[rows.CGROUP_PRESSURE]] == [0.5]
    assert [owner.unit for owner in served.owners()] == ["a.service"]
    served.message({"cycle": 2, "cgroups": False})
    assert served.samples(now + 51) is None


@given(st.binary(max_size=120) | st.text("anon pgfault N0=12\n", max_size=120).map(str.encode))
def test_any_content(content: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert stat(content, EVENTS).keys() <= EVENTS
    with contextlib.suppress(Malformed):
        assert by_node(content, KINDS).keys() <= KINDS
