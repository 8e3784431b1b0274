"""What `gpudaemon topo` shows: matrix, tree, one pair explained, JSON, drawings; hostile names."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.p2p.pairs import Pairs, judge, nearest
from gpudaemon.collectors.p2p.reachability import REASONS, Reason
from gpudaemon.errors import ConfigError
from gpudaemon.model.topology import Bar, Link, Topology
from gpudaemon.view import topo, topo_graph
from tests.topologies import OFF, REDIRECT, host, with_function

GPU, NIC, NVME, OTHER_GPU, FAR = (f"0000:{bus}:00.0" for bus in ("04", "05", "08", "09", "81"))


def shown(topology: Topology) -> str:
    return topo.as_text(topology, Pairs().update(topology))


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.split("\n\n", maxsplit=1)[0].splitlines()[1:]}


def test_the_matrix() -> None:
    matrix = rows(shown(host()))
    assert matrix["GPU0"] == ["GPU0", "X", "PHB-", "SYS-", "PIX+", "PXB+", "0"]
    assert matrix["NIC0"] == ["NIC0", "PIX+", "PHB-", "SYS-", "X", "PXB+", "0"]


def test_links_that_are_not_pci_stand_in_the_place_of_the_path() -> None:
    topology = replace(host(), fabric={(FAR, GPU): "XGMI"})
    assert rows(shown(topology))["GPU0"][3] == "XGMI"
    assert "XGMI joins them directly" in topo.why(topology, judge(topology, GPU, FAR))


def test_what_is_wrong_is_said_with_why_and_where() -> None:
    topology = with_function(host(), "0000:03:00.0", acs=REDIRECT)
    topology = with_function(topology, OTHER_GPU, driver="nvidia")
    lines = shown(replace(topology, fabric={(FAR, GPU): "XGMI"})).splitlines()
    assert "pairs: 1 reach each other by PCI, 8 do not, 0 not known, 1 have a link of their own" in lines
    place = lines.index(f"  - 2: {REASONS[Reason.ACS_REDIRECT]}")
    assert lines[place + 1 : place + 3] == ["    at 0000:03:00.0", "    gpudaemon topo --why GPU0 NIC0"]
    assert "  NVIDIA's driver decides by itself: nvidia-smi topo -p2p r" in lines
    assert not any("do not" in line and "- " in line for line in shown(host(cpu="AuthenticAMD")).splitlines())


def test_the_best_nic_of_each_gpu() -> None:
    other = replace(host().functions[NIC], id="0000:0a:00.0", parents=host().functions[OTHER_GPU].parents)
    topology = replace(host(), functions={**host().functions, other.id: other})
    found = {
        gpu: [pair.dst for pair in pairs] for gpu, pairs in nearest(topology, Pairs().update(topology)).items()
    }
    assert found == {GPU: [NIC], OTHER_GPU: [other.id], FAR: [NIC, other.id]}
    assert json.loads(json.dumps(topo.as_json(topology, Pairs().update(topology))))["nearest_nics"] == found
    assert "  nearest to GPU2: NIC0 (SYS-), NIC1 (SYS-)" in shown(topology).splitlines()


def test_drives_among_themselves_are_left_out() -> None:
    other = replace(host().functions[NVME], id="0000:0a:00.0")
    topology = replace(host(), functions={**host().functions, other.id: other})
    assert len(rows(shown(topology))["NVME0"]) == len(rows(shown(host()))["NVME0"])


def test_the_tree_shows_what_is_wrong_where_it_is() -> None:
    topology = with_function(host(), GPU, link=Link(16e9, 8, 16e9, 16), names=("card0", "renderD128"))
    topology = with_function(topology, "0000:03:01.0", acs=REDIRECT, contained=True)
    lines = shown(topology).splitlines()
    (gpu,) = (line for line in lines if "─ GPU0" in line)
    assert "card0 renderD128" in gpu and "x8" in gpu and "DOWNGRADED, x16 possible" in gpu
    (port,) = (line for line in lines if "─ 0000:03:01.0" in line)
    assert "switch port" in port and "ACS redirects" in port and "CONTAINED by DPC" in port
    assert "pci0000:00" in lines and "pci0000:80" in lines


def test_why_names_the_facts_of_each_step_and_what_could_be_changed() -> None:
    topology = with_function(host(), "0000:03:00.0", acs=REDIRECT, iommu_group="4", iommu_type="DMA-FQ")
    text = topo.why(topology, judge(topology, GPU, NIC))
    for part in (
        "GPU0 0000:04:00.0 -> NIC0 0000:05:00.0",
        "0000:03:00.0: switch port, ",
        "ACS control 0x1d, redirects",
        "IOMMU group 4 (DMA-FQ)",
        "they meet at 0000:02:00.0: over at most one PCIe switch (PIX), distance 4",
        "ACS redirects at 0000:03:00.0",
        "peer-to-peer DMA: no (not_supported, acs_redirect)",
        "at most 31.5 GB/s one way: the link above 0000:04:00.0",
        "what could be changed: ",
        "pci=disable_acs_redir",
    ):
        assert part in text, part
    good = topo.why(host(), judge(host(), GPU, NIC))
    assert "peer-to-peer DMA: yes (bus_addr, same_switch)" in good and "what could be changed" not in good


def test_why_says_that_a_small_bar_hides_memory() -> None:
    topology = with_function(host(), GPU, bars=(Bar(0, 256 << 20),), memory_size=16 << 30)
    assert "0000:04:00.0: its BAR is smaller" in topo.why(topology, judge(topology, GPU, NIC))


@pytest.mark.parametrize("asked", [GPU, "04:00.0", "GPU0", "gpu0", "card0", "/dev/dri/card0", "renderD128"])
def test_a_function_can_be_asked_for_by_any_of_its_names(asked: str) -> None:
    assert topo.find(with_function(host(), GPU, names=("card0", "renderD128")), asked) == GPU


def test_who_is_not_there_is_answered_with_who_is() -> None:
    with pytest.raises(ConfigError, match="GPU7: no such function; there are GPU0"):
        topo.find(host(), "GPU7")


def test_json_says_null_where_nothing_is_known() -> None:
    topology = with_function(host(cpu=""), "0000:03:00.0", acs=None, extended=False)
    found = json.loads(json.dumps(topo.as_json(topology, Pairs().update(topology))))
    by_id = {one["id"]: one for one in found["functions"]}
    assert by_id["0000:03:00.0"]["acs_known"] is False and by_id["0000:03:00.0"]["acs_control"] is None
    assert by_id[GPU]["link"]["width"] == 16 and by_id[GPU]["link_downgraded"] is False
    pairs = {(one["src"], one["dst"]): one for one in found["pairs"]}
    assert pairs[GPU, NIC]["reachable"] is None and pairs[GPU, NIC]["reason"] == "acs_unreadable"
    assert pairs[GPU, NIC]["ceiling_bytes_per_second"] == 31507692308


def test_a_host_without_ends() -> None:
    assert "no GPU" in topo.as_text(Topology(functions={}), ())
    assert "<svg" in topo_graph.as_svg(Topology(functions={}))


def test_drawings_hold_every_end_and_what_is_above_it() -> None:
    topology = host()
    pairs = Pairs().update(topology)
    svg, dot = topo_graph.as_svg(topology), topo_graph.as_dot(topology, pairs)
    texts = {one.text for one in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"GPU0 0000:04:00.0", "NVME0 0000:08:00.0", "pci0000:80", "0000:02:00.0"} <= texts
    assert f'"0000:03:00.0" -- "{GPU}";' in dot and dot.count("style=dashed") == sum(
        bool(pair.verdict.reachable) for pair in pairs
    )
    boxes = [
        (int(one.get("x", "0")), int(one.get("y", "0")))
        for one in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
        if one.get("x")
    ]
    assert len(boxes) == len(set(boxes)), "two boxes at one place"


@given(st.text(max_size=40), st.text(max_size=20))
def test_hostile_names(name: str, driver: str) -> None:
    topology = with_function(host(), GPU, names=(name,), driver=driver, acs=OFF)
    pairs = Pairs().update(topology)
    for text in (shown(topology), topo.why(topology, judge(topology, GPU, NIC))):
        assert all(line.isprintable() for line in text.split("\n"))
    json.dumps(topo.as_json(topology, pairs))
    ElementTree.fromstring(topo_graph.as_svg(topology))
    assert (
        topo_graph.as_dot(topology, pairs).count("\n")
        == len(topo_graph.as_dot(topology, pairs).split("\n")) - 1
    )
