"""How far apart functions of real hosts are, against what the captures themselves say."""

import itertools
import os
import shutil
from pathlib import Path

import pytest

from gpudaemon.collectors.p2p.paths import path_class
from gpudaemon.metrics import kfd
from gpudaemon.model.metric import Series
from gpudaemon.model.topology import Role
from gpudaemon.pipeline.topology import fabric_of
from tests import captures, topologies

_HWLOC = ("mpibind", "flux-core", "flux-sched", "prrte")
_NCCL = ("rccl-topo", "azhpc", "aws-ofi-nccl")
_TWICE = "the file gives 0000:a1:00.0 to a switch and to a NIC below another one"
EXCEPTIONS: dict[tuple[str, str, str], str] = {
    ("topo_8p1h_1.xml", "0000:a0:00.0", "0000:a1:00.0"): _TWICE,
    ("topo_8p1h_1.xml", "0000:a1:00.0", "0000:ae:00.0"): _TWICE,
    ("topo_8p1h_1.xml", "0000:a1:00.0", "0000:b3:00.0"): _TWICE,
}
"""(capture, function, function) -> why the capture's own answer is another one."""


def compare(name: str, described: topologies.Described) -> None:
    agree, wrong, pairs = 0, [], 0
    for (one, other), allowed in described.apart.items():
        if (name, one, other) in EXCEPTIONS:
            continue
        pairs += 1
        found = path_class(described.topology, one, other).value
        if found in allowed:
            agree += 1
        else:
            wrong.append((one, other, found, sorted(allowed)))
    left = len(described.apart) - pairs
    print(f"{name}: agree {agree} of {pairs}, exceptions {left}")
    assert not wrong, wrong[:10]


def test_exceptions_are_few_and_real() -> None:
    """At most 2 % of the pairs of all files, and none that would agree by itself."""
    total = 0
    for folder, name in every(_NCCL):
        described = topologies.of_nccl(captures.capture(folder, name))
        total += len(described.apart)
        for file, one, other in EXCEPTIONS:
            if file == name:
                assert path_class(described.topology, one, other).value not in described.apart[one, other]
    assert len(EXCEPTIONS) <= 0.02 * total


def every(folders: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(folder, name) for folder in folders for name in captures.files(folder, suffix=".xml")]


@pytest.mark.parametrize("folder,name", every(_HWLOC))
def test_hwloc_xml(folder: str, name: str) -> None:
    compare(name, topologies.of_hwloc(captures.capture(folder, name)))


@pytest.mark.parametrize("folder,name", every(_NCCL))
def test_nccl_and_rccl(folder: str, name: str) -> None:
    compare(name, topologies.of_nccl(captures.capture(folder, name)))


@pytest.mark.parametrize(
    "archive,xml",
    [
        ("32em64t-2n8c+dax+nvme+mic+dimms", "32em64t-2n8c+dax+nvme+mic+dimms"),
        ("40intel64-2g2n4c+pcilocality", "40intel64-2g2n4c+pcilocality"),
        ("fakepcilocalities", "fakepcilocalities"),
    ],
)
def test_hwloc_trees(archive: str, xml: str, tmp_path: Path) -> None:
    """A host's own /sys, through our discovery, against what hwloc made of the same tree."""
    source = captures.capture("hwloc", f"{archive}.tar.bz2")
    unpacked = captures.unpack_host(source, str(tmp_path))
    ours = topologies.of_tree(os.path.join(unpacked, "sys"))
    theirs = topologies.of_hwloc(captures.capture("hwloc", f"{xml}.xml"))
    common = sorted(ours.functions.keys() & theirs.topology.functions.keys())
    chains = [(id_, ours.functions[id_].parents, theirs.topology.functions[id_].parents) for id_ in common]
    wrong = [one for one in chains if one[1] != one[2]]
    missing = sorted(theirs.topology.functions.keys() - ours.functions.keys())
    print(f"{archive}: bridges above {len(common)} functions compared, {len(common) - len(wrong)} agree")
    assert common and not wrong and not missing
    ends = [id_ for id_ in common if ours.functions[id_].role not in (Role.BRIDGE,)]
    pairs = agree = 0
    for one, other in itertools.combinations(ends, 2):
        if (one, other) in theirs.apart:
            pairs += 1
            agree += path_class(ours, one, other).value in theirs.apart[one, other]
    print(f"{archive}: pairs agree {agree} of {pairs}")
    assert agree >= 0.98 * pairs


def test_links_between_gpus_that_kfd_knows(tmp_path: Path) -> None:
    """Eight MI210 in two groups of four: xGMI within a group, as the capture's io_links of type 11 say."""
    source = captures.capture("rocm-k8s-device-plugin", "topo-mi210-xgmi-pcie", "nodes")
    home = tmp_path / "devices/virtual/kfd/kfd/topology"
    shutil.copytree(source, home / "nodes")
    (tmp_path / "class/kfd").mkdir(parents=True)
    (tmp_path / "class/kfd/kfd").symlink_to("../../devices/virtual/kfd/kfd")
    expected, addresses = set(), {}
    for node in (home / "nodes").iterdir():
        lines = dict(line.split() for line in (node / "properties").read_text().splitlines())
        location = int(lines["location_id"])
        addresses[node.name] = (
            f"{int(lines['domain']):04x}:{location >> 8:02x}:{location >> 3 & 31:02x}.{location & 7}"
        )
    for properties in (home / "nodes").glob("*/io_links/*/properties"):
        lines = dict(line.split() for line in properties.read_text().splitlines())
        if lines["type"] == "11":
            expected.add((addresses[lines["node_from"]], addresses[lines["node_to"]]))
    weights = [
        (Series(kfd.LINK_WEIGHT, tuple(labels[name] for name in kfd.LINK_WEIGHT.labels)).prefix(), value)
        for name, labels, value in captures.page_of(str(tmp_path)).samples
        if name == kfd.LINK_WEIGHT.name
    ]
    found = fabric_of(weights)
    print(f"topo-mi210-xgmi-pcie: xGMI links agree {len(expected & found.keys())} of {len(expected)}")
    assert len(expected) == 24 and found.keys() == expected and set(found.values()) == {"XGMI"}
