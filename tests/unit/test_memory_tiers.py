"""Nodes, tiers and GPUs as one family: a booted kernel's files, a mock host with GPUs, any content."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.memory_tiers import COLLECTOR
from gpudaemon.discovery.memory_tiers import tiers_device
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, memory_tiers
from gpudaemon.mock import build
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.numa import memory, node_list
from gpudaemon.pipeline.plan import Selection, facts_needed, make_plan
from tests import captures


@pytest.mark.parametrize(
    "archive,tier", [("sysfs-7.3.4+deb13-amd64.tar.gz", "271"), ("sysfs-6.12.95+deb12-amd64.tar.gz", "15570")]
)
def test_a_booted_kernel_with_cxl_memory(archive: str, tier: str, tmp_path: Path) -> None:
    sysfs = captures.from_tarball(captures.capture("vm", "lane", archive), str(tmp_path))
    page = captures.page_of(sysfs)
    assert not [one for one in page.malformed if one[0] == "memory_tiers"]
    assert page.info("gpudaemon_memory_pool_info", pool="node2") == {
        "pool": "node2",
        "kind": "cxl",
        "tier": tier,
    }
    assert page.info("gpudaemon_memory_pool_info", pool="node0")["kind"] == "dram"
    assert page.value("gpudaemon_memory_pool_bytes", pool="node2", kind="cxl") == 256 << 20
    used = page.value("gpudaemon_memory_pool_used_bytes", pool="node2", kind="cxl")
    assert used is not None and 0 <= used < 1 << 20
    labels = {"pool": "node0", "kind": "dram", "direction": "read", "access": "1"}
    assert page.value("gpudaemon_memory_pool_latency_seconds", **labels) == 10e-9
    assert page.value("gpudaemon_memory_demotion_enabled") == 0


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """sysfs of a host with two GPUs and CXL memory."""
    directory = str(tmp_path_factory.mktemp("host"))
    build("cxltiers", directory)
    return f"{directory}/sys"


def test_gpus_are_in_the_same_families(mock: str) -> None:
    page = captures.page_of(mock)
    found = {
        (labels["pool"], labels["kind"]): value
        for name, labels, value in page.samples
        if name == "gpudaemon_memory_pool_bytes"
    }
    kinds = {kind for _, kind in found}
    assert kinds == {"dram", "cxl", "vram"}
    for device in captures.devices(mock):
        if device.kind is DeviceKind.GPU:
            total = page.value("gpudaemon_gpu_memory_total_bytes", device=device.id, pool="vram")
            assert found[device.id, "vram"] == total and total
            used = page.value("gpudaemon_memory_pool_used_bytes", pool=device.id, kind="vram")
            assert used == page.value("gpudaemon_gpu_memory_used_bytes", device=device.id, pool="vram")
    assert page.value("gpudaemon_memory_pool_interleave_weight", pool="node2") == 1
    assert page.value("gpudaemon_memory_interleave_auto") == 1


def test_a_second_name_costs_a_file_only_where_it_is_wanted(mock: str) -> None:
    device = next(one for one in captures.devices(mock) if one.kind is DeviceKind.GPU)
    facts = {path: captures.read(mock, device, path) for path in facts_needed(device)}

    def files(*wanted: str) -> set[str]:
        plan = make_plan(device, facts, Selection(wanted=lambda name: name in wanted))
        served = {metric.name for metric in plan.blocks}
        assert served == set(wanted)
        return {file.path for file in plan.files if "vram" in file.path}

    assert files(memory_tiers.CAPACITY.name) == {"mem_info_vram_total"}
    assert files(memory_tiers.CAPACITY.name, gpu.MEMORY_TOTAL.name) == files(gpu.MEMORY_TOTAL.name)
    assert not make_plan(device, facts, Selection(frozenset({"gpu"}))).blocks.get(memory_tiers.CAPACITY)


def test_no_tiers_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "bus/node/devices/node0").mkdir(parents=True)
    assert tiers_device(str(tmp_path)) is None


@pytest.mark.parametrize(
    "content,numbers",
    [(b"\n", set()), (b"0\n", {0}), (b"0-3,8\n", {0, 1, 2, 3, 8}), (b"1,1\n", {1})],
)
def test_lists(content: bytes, numbers: set[int]) -> None:
    assert node_list(content) == numbers


@given(st.frozensets(st.integers(0, 2000), max_size=50))
def test_any_list_comes_back(numbers: frozenset[int]) -> None:
    """As the kernel prints it: runs as ranges."""
    parts, rest = [], sorted(numbers)
    while rest:
        last = rest[0]
        while last + 1 in numbers:
            last += 1
        parts.append(f"{rest[0]}-{last}" if last > rest[0] else f"{last}")
        rest = [one for one in rest if one > last]
    assert node_list((",".join(parts) + "\n").encode()) == numbers


@given(st.binary(max_size=200) | st.text("0123456789-,\n", max_size=30).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    for parse in (node_list, memory):
        try:
            parse(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS


FILES = ("cpulist", "meminfo", "access0/initiators/read_latency", "access1/initiators/write_bandwidth")
NAMES = (
    *(f"node/devices/node{node}/{file}" for node in (0, 2) for file in FILES),
    "memory_tiering/devices/memory_tier4/nodelist",
    "dax/devices/dax0.0/target_node",
    "../kernel/mm/mempolicy/weighted_interleave/node0",
    "../kernel/mm/mempolicy/weighted_interleave/auto",
    "../kernel/mm/numa/demotion_enabled",
)


@given(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=60) | st.sampled_from((b"0\n", b"true\n"))))
def test_any_content(contents: dict[str, bytes]) -> None:
    device = Device(id="memory_tiers", kind=DeviceKind.MEMORY_TIERS, path="bus", names=frozenset(contents))
    COLLECTOR.constants(device, contents)
    for one in COLLECTOR.attributes(device, contents):
        try:
            one.decode(contents[one.path])
        except Malformed as error:
            assert error.reason in Malformed.REASONS


def test_a_weight_of_a_node_that_is_not_there() -> None:
    """Linux 6.12 has a file for every node there could be (mm/mempolicy.c, add_weighted_interleave_group)."""
    weights = "../kernel/mm/mempolicy/weighted_interleave"
    names = frozenset({"node/devices/node0/meminfo", f"{weights}/node0", f"{weights}/node2"})
    device = Device(id="memory_tiers", kind=DeviceKind.MEMORY_TIERS, path="bus", names=names)
    assert {one.path for one in COLLECTOR.attributes(device, {})} == names - {f"{weights}/node2"}
