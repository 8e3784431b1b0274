"""The kernel's rules of peer-to-peer DMA, case by case, and what holds of every topology."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.p2p.build import cpu, cpu_of_modalias
from gpudaemon.collectors.p2p.pairs import Pairs, pairs
from gpudaemon.collectors.p2p.paths import PathClass, ceiling, downgraded, link_between, link_bytes, path_class
from gpudaemon.collectors.p2p.reachability import REASONS, Mapping, Reason, verdict
from gpudaemon.model.topology import Acs, Link, Port, Role
from tests.topologies import OFF, REDIRECT, function, host, with_function

GPU, NIC, NVME, OTHER_GPU, FAR = (f"0000:{bus}:00.0" for bus in ("04", "05", "08", "09", "81"))


def test_below_one_switch() -> None:
    found = verdict(host(), GPU, NIC)
    assert (found.mapping, found.reason, found.distance) == (Mapping.BUS_ADDR, Reason.SAME_SWITCH, 4)
    assert found.common == "0000:02:00.0" and found.reachable is True
    assert path_class(host(), GPU, NIC) is PathClass.PIX


def test_over_two_switches() -> None:
    found = verdict(host(), GPU, NVME)
    assert (found.mapping, found.distance) == (Mapping.BUS_ADDR, 6)
    assert path_class(host(), GPU, NVME) is PathClass.PXB


@pytest.mark.parametrize("who", ["0000:03:00.0", "0000:03:01.0", "0000:02:00.0", GPU, NIC])
def test_acs_on_the_way_counts_also_at_the_ends_and_the_common_bridge(who: str) -> None:
    found = verdict(with_function(host(), who, acs=REDIRECT), GPU, NIC)
    assert (found.mapping, found.reason) == (Mapping.NOT_SUPPORTED, Reason.ACS_REDIRECT)
    assert found.redirecting == (who,) and found.reachable is False


def test_acs_above_the_common_bridge_does_not_count() -> None:
    assert verdict(with_function(host(), "0000:00:01.0", acs=REDIRECT), GPU, NIC).reachable is True


def test_acs_that_only_validates_sources_does_not_redirect() -> None:
    assert verdict(with_function(host(), "0000:03:00.0", acs=Acs(0x7F, 0x13)), GPU, NIC).reachable is True


def test_acs_that_could_not_be_read_is_not_known() -> None:
    topology = with_function(host(), "0000:03:00.0", acs=None, extended=False)
    found = verdict(topology, GPU, NIC)
    assert (found.mapping, found.reason, found.reachable) == (Mapping.UNKNOWN, Reason.ACS_UNREADABLE, None)
    assert found.unread == ("0000:03:00.0",)
    # Where the root complex is trusted it works whichever way it goes.
    zen = replace(topology, cpu_vendor="AuthenticAMD", cpu_family=0x19)
    assert verdict(zen, GPU, NIC).reachable is True


@pytest.mark.parametrize(
    "processor,root,other,mapping,reason",
    [
        (("AuthenticAMD", 0x17), 0x1234, OTHER_GPU, Mapping.THRU_HOST_BRIDGE, Reason.AMD_HOST_BRIDGE),
        (("AuthenticAMD", 0x19), 0x1234, FAR, Mapping.THRU_HOST_BRIDGE, Reason.AMD_HOST_BRIDGE),
        (("AuthenticAMD", 0x15), 0x1234, OTHER_GPU, Mapping.NOT_SUPPORTED, Reason.HOST_BRIDGE_NOT_LISTED),
        (("HygonGenuine", 0x18), 0x1234, OTHER_GPU, Mapping.NOT_SUPPORTED, Reason.HOST_BRIDGE_NOT_LISTED),
        (("GenuineIntel", 6), 0x1234, OTHER_GPU, Mapping.NOT_SUPPORTED, Reason.HOST_BRIDGE_NOT_LISTED),
        (("GenuineIntel", 6), 0x2020, OTHER_GPU, Mapping.THRU_HOST_BRIDGE, Reason.LISTED_HOST_BRIDGE),
        (("GenuineIntel", 6), 0x2020, FAR, Mapping.THRU_HOST_BRIDGE, Reason.LISTED_HOST_BRIDGE),
        (("GenuineIntel", 6), 0x3C00, OTHER_GPU, Mapping.THRU_HOST_BRIDGE, Reason.LISTED_HOST_BRIDGE),
        (("GenuineIntel", 6), 0x3C00, FAR, Mapping.NOT_SUPPORTED, Reason.HOST_BRIDGES_DIFFER),
        (("GenuineIntel", 6), 0x0B25, OTHER_GPU, Mapping.THRU_HOST_BRIDGE, Reason.NEWER_KERNELS_LIST),
        (("", 0), 0x2020, OTHER_GPU, Mapping.UNKNOWN, Reason.CPU_UNKNOWN),
    ],
)
def test_through_the_root_complex(
    processor: tuple[str, int], root: int, other: str, mapping: Mapping, reason: Reason
) -> None:
    found = verdict(host(cpu=processor[0], family=processor[1], root=root), GPU, other)
    assert (found.mapping, found.reason) == (mapping, reason)
    assert found.common == ""


def test_what_only_newer_kernels_list_is_not_promised() -> None:
    assert verdict(host(root=0x0B25), GPU, FAR).reachable is None


def test_no_device_stands_for_the_root_complex() -> None:
    """pci_host_bridge_dev: the first on the root bus is neither 00.0 nor a root port."""
    topology = host(root=0x2020)
    functions = {id_: one for id_, one in topology.functions.items() if id_ != "0000:00:00.0"}
    functions["0000:00:00.3"] = function("0000:00:00.3", Role.OTHER, port=Port.INTEGRATED_ENDPOINT)
    found = verdict(replace(topology, functions=functions), GPU, OTHER_GPU)
    assert found.reason is Reason.NO_ROOT_DEVICE
    functions.pop("0000:00:00.3")
    functions["0000:00:01.0"] = replace(functions["0000:00:01.0"], device=0x2030)
    assert verdict(replace(topology, functions=functions), GPU, OTHER_GPU).reachable is True


def test_paths_through_host_bridges() -> None:
    assert path_class(host(), GPU, OTHER_GPU) is PathClass.PHB
    assert path_class(host(), GPU, FAR) is PathClass.SYS
    assert path_class(with_function(host(), FAR, numa_node=0), GPU, FAR) is PathClass.NODE
    assert path_class(host(nodes=1), GPU, FAR) is PathClass.NODE
    assert path_class(host(), GPU, GPU) is PathClass.SELF
    # Unknown nodes are not the same node.
    unknown = with_function(with_function(host(), GPU, numa_node=None), FAR, numa_node=None)
    assert path_class(unknown, GPU, FAR) is PathClass.SYS


def test_ceiling_is_the_narrowest_link() -> None:
    found = ceiling(host(), GPU, NVME)
    assert found is not None and found.at == NVME
    assert found.bytes_per_second == pytest.approx(4 * 8e9 * 128 / 130 / 8)


@pytest.mark.parametrize(
    "speed,width,bytes_per_second",
    [
        (2.5e9, 1, 250e6),
        (5e9, 16, 8e9),
        (8e9, 4, 3.9385e9),
        (16e9, 16, 31.508e9),
        (32e9, 16, 63.015e9),
        (64e9, 16, 128e9),
    ],
)
def test_bytes_of_a_link(speed: float, width: int, bytes_per_second: float) -> None:
    """drivers/pci/pci.h, PCIE_SPEED2MBS_ENC; the well-known figures of each generation."""
    assert link_bytes(Link(speed, width, speed, width)) == pytest.approx(bytes_per_second, rel=1e-4)


def test_an_idle_link_keeps_its_ceiling_and_a_narrow_one_does_not() -> None:
    idle = with_function(host(), GPU, link=Link(2.5e9, 16, 16e9, 16))
    assert ceiling(idle, GPU, NIC) == ceiling(host(), GPU, NIC)
    assert downgraded(idle, GPU) == (False, True)
    narrow = with_function(host(), GPU, link=Link(16e9, 8, 16e9, 16))
    found = ceiling(narrow, GPU, NIC)
    assert found is not None and found.at == GPU and found.bytes_per_second == pytest.approx(15.754e9, rel=1e-4)
    assert downgraded(narrow, GPU) == (True, False)


def test_a_wide_device_in_a_narrow_slot_is_not_downgraded() -> None:
    slot = with_function(host(), "0000:03:00.0", link=Link(16e9, 8, 16e9, 8))
    both = with_function(slot, GPU, link=Link(16e9, 8, 16e9, 16))
    assert downgraded(both, GPU) == (False, False)


def test_there_is_no_link_on_a_root_bus_nor_within_a_switch() -> None:
    assert link_between(host(), "0000:00:01.0") is None
    assert link_between(host(), "0000:03:00.0") is None


def test_the_link_within_an_intel_card_is_no_ceiling() -> None:
    """2.5 GT/s and one lane, as captures of an Arc A380 and a B580 have it below their cards' own switches."""
    stub = Link(2.5e9, 1, 2.5e9, 1)
    narrow = with_function(host(), GPU, link=stub, vendor=0x1002)
    assert (found := ceiling(narrow, GPU, NIC)) is not None and found.at == GPU
    card = with_function(host(), GPU, link=stub, vendor=0x8086)
    assert link_between(card, GPU) is None and downgraded(card, GPU) is None
    assert (found := ceiling(card, GPU, NIC)) is not None and found.at == NIC


def test_every_reason_has_words() -> None:
    assert set(REASONS) == set(Reason)


ACS = st.sampled_from([None, OFF, REDIRECT, Acs(0x7F, 0x20), Acs(0, 0x13)])


@given(st.data())
def test_of_every_host_the_verdict_is_the_same_both_ways(data: st.DataObject) -> None:
    """ACS counts wherever it stands on the way, so provider and client may change places."""
    topology = host(root=data.draw(st.sampled_from([0x1234, 0x2020, 0x3C00, 0x0B25])))
    for id_ in topology.functions:
        read = data.draw(st.booleans())
        topology = with_function(topology, id_, acs=data.draw(ACS) if read else None, extended=read)
    for one, other in pairs(topology):
        there, back = verdict(topology, one, other), verdict(topology, other, one)
        assert (there.mapping, there.reason, there.distance) == (back.mapping, back.reason, back.distance)
        assert path_class(topology, one, other) is path_class(topology, other, one)
        assert ceiling(topology, one, other) == ceiling(topology, other, one) or (
            ceiling(topology, one, other).bytes_per_second  # type: ignore[union-attr]
            == ceiling(topology, other, one).bytes_per_second  # type: ignore[union-attr]
        )


def test_only_what_changed_is_judged_anew() -> None:
    kept = Pairs()
    everything = kept.update(host())
    assert kept.judged == len(everything) == 10
    kept.update(host())
    assert kept.judged == 0
    # One drive is taken out of its slot: its pairs go, no other is judged again.
    gone = {id_: one for id_, one in host().functions.items() if id_ != NVME}
    left = kept.update(replace(host(), functions=gone))
    assert kept.judged == 0 and {NVME} & {id_ for pair in left for id_ in (pair.src, pair.dst)} == set()
    # It comes back: its pairs only.
    kept.update(host())
    assert kept.judged == 4
    # ACS of a downstream port: the pairs whose way leads over it.
    found = kept.update(with_function(host(), "0000:03:00.0", acs=REDIRECT))
    assert kept.judged == sum(GPU in (pair.src, pair.dst) for pair in found)
    # A root port may be what the kernel knows a root complex by: all.
    kept.update(with_function(host(), "0000:00:02.0", acs=OFF))
    assert kept.judged == 10


@pytest.mark.parametrize(
    "modalias,cpuinfo",
    [
        ("cpu:type:x86,ven0002fam0019mod0011:feature:,0000", "vendor_id\t: AuthenticAMD\ncpu family\t: 25\n"),
        ("cpu:type:x86,ven0000fam0006mod00CF:feature:,0000", "vendor_id\t: GenuineIntel\ncpu family\t: 6\n"),
        ("cpu:type:aarch64:feature:,0000", "processor\t: 0\nCPU implementer\t: 0x41\n"),
        ("", ""),
    ],
)
def test_sysfs_and_procfs_tell_of_the_same_processor(modalias: str, cpuinfo: str) -> None:
    """cpu_supports_p2pdma(): X86_VENDOR_AMD, which Hygon is not, and its family."""
    assert cpu_of_modalias(modalias) == cpu(cpuinfo)
    assert cpu_of_modalias("cpu:type:x86,ven0009fam0018mod0000:feature:")[0] == "other"


@given(st.text(max_size=60) | st.from_regex(r"\Acpu:type:(x86,)?(ven\w{0,5})?(fam\w{0,5})?.*\Z"))
def test_any_text_tells_a_processor_or_none(text: str) -> None:
    for vendor, family in (cpu_of_modalias(text), cpu(text)):
        assert isinstance(vendor, str) and (family is None or family >= 0)
