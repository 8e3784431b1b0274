"""KFD's topology: of real hosts what their files say, GPUs whole and divided, and nothing of a broken file."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.collectors.kfd import COLLECTOR, nodes_of
from gpudaemon.discovery.kfd import topology_device
from gpudaemon.discovery.scan import scan
from gpudaemon.errors import Malformed
from gpudaemon.metrics import kfd
from gpudaemon.model.attribute import Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.kfd_topology import topology
from tests import captures

GPU = {"simd_count": 80, "location_id": 0x0A00, "domain": 0, "drm_render_minor": 128, "unique_id": 7}


HOSTS = {
    "topo-mi210-xgmi-pcie": ("", 8, 1, 56),
    "topology-parsing/topology": ("", 1, 1, 0),
    "topology-parsing-mi308": ("topology-parsing-mi308.tar.xz", 8, 4, 56),
}
"""capture -> archive it is in, GPUs, partitions of each, pairs of GPUs with a link"""


def device(*names: str) -> Device:
    return Device(id="kfd", kind=DeviceKind.KFD, path="devices/virtual/kfd/kfd", names=frozenset(names))


def _root(capture: str, archive: str, directory: Path) -> str:
    if not archive:
        return captures.capture("rocm-k8s-device-plugin", capture)
    with tarfile.open(captures.capture("rocm-k8s-device-plugin", archive)) as tar:
        captures.unpack(tar, str(directory))
    return str(directory / capture / "topology")


def _lines(path: str) -> dict[str, int]:
    with open(path, encoding="ascii") as file:
        return {key: int(value) for key, value in (line.split() for line in file)}


def _said(root: str) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(what, where, number) of every figure of the topology's first nodes, straight from its files."""
    nodes = os.path.join(root, "nodes")
    for node in os.listdir(nodes):
        known = _lines(os.path.join(nodes, node, "properties"))
        if known["simd_count"]:
            yield "units", (node,), known["simd_count"] // known["simd_per_cu"]
            if "num_xcc" in known:
                yield "dies", (node,), known["num_xcc"]
        if known["location_id"] & 7:
            continue  # a further partition
        for part in ("mem_banks", "io_links", "p2p_links"):
            base = os.path.join(nodes, node, part)
            for one in os.listdir(base) if os.path.isdir(base) else ():
                file = _lines(os.path.join(base, one, "properties"))
                if part == "mem_banks":
                    yield "bank", (node, one), file["size_in_bytes"]
                elif not _lines(os.path.join(nodes, str(file["node_to"]), "properties"))["location_id"] & 7:
                    where = (node, str(file["node_to"]), part.split("_")[0])
                    yield "weight", where, file["weight"]
                    for key, what in (("min_bandwidth", "least"), ("max_bandwidth", "most")):
                        if file[key]:
                            yield what, where, file[key] * 10**6


@pytest.mark.parametrize("capture", HOSTS)
def test_a_real_topology_says_what_its_files_say(capture: str, tmp_path: Path) -> None:
    archive, gpus, partitions, links = HOSTS[capture]
    root = _root(capture, archive, tmp_path / "unpacked")
    captures.add_kfd(str(tmp_path / "sys"), root)
    page = captures.page_of(str(tmp_path / "sys"))
    assert page.malformed == []
    ours = {}
    names = {
        "gpudaemon_kfd_compute_units": ("units", ("node",)),
        "gpudaemon_kfd_accelerator_dies": ("dies", ("node",)),
        "gpudaemon_kfd_memory_bank_bytes": ("bank", ("node", "bank")),
        "gpudaemon_kfd_link_weight": ("weight", ("node", "peer_node", "path")),
        "gpudaemon_kfd_link_minimum_bandwidth_bytes_per_second": ("least", ("node", "peer_node", "path")),
        "gpudaemon_kfd_link_maximum_bandwidth_bytes_per_second": ("most", ("node", "peer_node", "path")),
    }
    for name, labels, value in page.samples:
        if name in names:
            what, keys = names[name]
            ours[what, tuple(labels[key] for key in keys)] = value
    theirs = {(what, where): number for what, where, number in _said(root)}
    if (
        capture == "topology-parsing/topology"
    ):  # upstream made node 2 a copy of node 1, links of node 1 included
        theirs = {
            key: value for key, value in theirs.items() if key[1][0] != "2" or key[0] in ("units", "bank")
        }
    agree = sum(ours.get(key) == value for key, value in theirs.items())
    print(f"rocm-k8s-device-plugin/{capture}: compared {len(theirs)}, agree {agree}, excepted 0")
    assert ours == theirs
    found = [
        labels for name, labels, _ in page.samples if name == "gpudaemon_kfd_node_info" and labels["device"]
    ]
    assert len({labels["device"] for labels in found}) == gpus
    for address in {labels["device"] for labels in found}:
        assert address.endswith(".0")
        if capture != "topology-parsing/topology":
            of = sorted(labels["partition"] for labels in found if labels["device"] == address)
            assert of == [str(number) for number in range(partitions)]
    between = [
        labels
        for name, labels, _ in page.samples
        if name == "gpudaemon_kfd_link_weight" and labels["device"] and labels["peer"]
    ]
    assert len({(labels["device"], labels["peer"]) for labels in between}) == links
    series = sum(name.startswith("gpudaemon_kfd_") for name, _, _ in page.samples)
    print(f"  {gpus} GPUs in {partitions} parts: {series} series")
    assert series < 600


@pytest.mark.parametrize("card", ["phoenix", "vangogh"])
def test_the_topology_of_an_apu_names_the_card_beside_it(card: str, tmp_path: Path) -> None:
    address = captures.from_card_folder(captures.capture("lact", "amd", card), str(tmp_path))
    captures.add_kfd(str(tmp_path), captures.capture("lact", "amd", card, "kfd", "topology"))
    page = captures.page_of(str(tmp_path))
    assert page.malformed == []
    info = page.info("gpudaemon_kfd_node_info", node="1")
    assert (info["device"], info["partition"]) == (address, "0")
    assert (page.value("gpudaemon_kfd_topology_generation") or 0) > 0
    if card == "phoenix":  # of the other, node 0 was not copied
        link = page.info("gpudaemon_kfd_link_weight", node="1", peer_node="0")
        assert link["type"] in ("hypertransport", "pcie") and link["path"] == "io"


def test_a_host_without_kfd_has_no_such_device(tmp_path: Path) -> None:
    assert topology_device(str(tmp_path)) is None
    os.makedirs(tmp_path / "class/kfd")
    os.symlink("../../elsewhere", tmp_path / "class/kfd/kfd")
    assert topology_device(str(tmp_path)) is None


def test_the_device_lists_what_says_something(tmp_path: Path) -> None:
    for path in (
        *("topology/generation_id", "topology/nodes/0/properties", "topology/nodes/0/caches/0/properties"),
        *("topology/nodes/10/io_links/3/properties", "topology/nodes/x/properties", "proc/4242/pasid"),
    ):
        file = tmp_path / "devices/virtual/kfd/kfd" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0\n")
    os.makedirs(tmp_path / "class/kfd")
    os.symlink("../../devices/virtual/kfd/kfd", tmp_path / "class/kfd/kfd")
    (found,) = scan(str(tmp_path))
    assert (found.id, found.kind, found.nodes) == ("kfd", DeviceKind.KFD, ())
    assert found.names == {
        *("topology/generation_id", "topology/nodes/0/properties", "topology/nodes/0/gpu_id"),
        *(
            "topology/nodes/10/gpu_id",
            "topology/nodes/10/properties",
            "topology/nodes/10/io_links/3/properties",
        ),
    }
    needed = list(COLLECTOR.needs(found))
    assert needed[0] == "topology/generation_id" and "topology/nodes/10/io_links/3/properties" not in needed


@pytest.mark.parametrize("way", ["function", "bits 31 to 28"])
def test_partitions_are_parts_of_one_device(way: str) -> None:
    nodes = {0: {"cpu_cores_count": 96, "simd_count": 0, "location_id": 0}}
    for partition in range(4):
        location = 0x0A00 + partition if way == "function" else 0x0A00 | partition << 28
        nodes[partition + 1] = GPU | {"location_id": location, "drm_render_minor": 128 + partition}
    nodes[5] = GPU | {"location_id": 0x8000, "unique_id": 8, "drm_render_minor": 136}
    found = topology(nodes)
    assert [(node.device, node.partition, node.render) for node in found.values()] == [
        ("", 0, ""),
        ("0000:0a:00.0", 0, "renderD128"),
        ("0000:0a:00.0", 1, "renderD129"),
        ("0000:0a:00.0", 2, "renderD130"),
        ("0000:0a:00.0", 3, "renderD131"),
        ("0000:80:00.0", 0, "renderD136"),
    ]


def test_gpus_without_an_identity_stand_for_themselves() -> None:
    nodes = {number: GPU | {"unique_id": 0, "location_id": number << 8} for number in (1, 2)}
    assert [node.device for node in topology(nodes).values()] == ["0000:01:00.0", "0000:02:00.0"]


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 99), st.dictionaries(st.sampled_from([*GPU, "simd_per_cu"]), st.integers()))
)
def test_any_properties_make_a_topology(nodes: dict[int, dict[str, int]]) -> None:
    for node in topology(nodes).values():
        assert node.device == "" or len(node.device) >= 12
        assert node.partition >= 0


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_content_is_decoded_or_malformed(content: bytes) -> None:
    facts: dict[str, bytes | None] = {
        "topology/nodes/0/properties": b"simd_count 4\nsimd_per_cu 2\nlocation_id 256\nunique_id 9\n",
        "topology/nodes/1/properties": content,
    }
    assert 0 in nodes_of(facts)
    names = {f"topology/nodes/0/{part}/0/properties" for part in ("mem_banks", "io_links", "p2p_links")}
    list(COLLECTOR.constants(device(), facts))
    for planned in COLLECTOR.attributes(device(*names), facts):
        assert isinstance(planned, Rows)
        try:
            rows = list(planned.decode(content))
        except Malformed:
            continue
        assert all(
            metric in COLLECTOR.emits and len(labels) == len(metric.labels) for metric, labels, _ in rows
        )


def test_a_link_to_a_further_partition_gives_nothing() -> None:
    facts: dict[str, bytes | None] = {
        f"topology/nodes/{number}/properties": b"simd_count 4\nsimd_per_cu 2\nlocation_id %d\nunique_id 9\n"
        % (256 + number)
        for number in (0, 1)
    }
    path = "topology/nodes/{}/io_links/0/properties"
    (planned,) = COLLECTOR.attributes(device(path.format(0), path.format(1)), facts)
    assert planned.path == path.format(0)
    link = b"type 11\nnode_from 0\nnode_to %d\nweight 15\nmax_bandwidth 50000\n"
    assert list(planned.decode(link % 1)) == []
    assert [(metric, value) for metric, _, value in planned.decode(link % 0)] == [
        (kfd.LINK_WEIGHT, 15.0),
        (kfd.LINK_MAXIMUM_BANDWIDTH, 50e9),
    ]
