"""PCI functions: identity, link, error counters, power state."""

from dataclasses import replace

import pytest

from gpudaemon.collectors import collectors
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device, DeviceKind

PCIE = collectors()["pcie"]
NAMES = [
    "current_link_speed",
    "current_link_width",
    "max_link_speed",
    "max_link_width",
    "numa_node",
    "power_state",
    "d3cold_allowed",
    "aer_dev_correctable",
    "aer_dev_nonfatal",
    "aer_dev_fatal",
    "aer_rootport_total_err_cor",
    "vendor",
    "device",
    "class",
    "revision",
    "sriov_numvfs",
    "sriov_totalvfs",
    "config",
    "rom",
]
DEVICE = Device(
    id="0000:03:00.0",
    kind=DeviceKind.GPU,
    path="devices/pci0000:00/0000:00:01.0/0000:03:00.0",
    subsystem="pci",
    driver="amdgpu",
    names=frozenset(NAMES),
    links=(("iommu_group", "12"), ("driver", "amdgpu")),
    parents=("0000:00:01.0",),
)


def planned() -> dict[str, Attribute | Rows]:
    return {one.path: one for one in PCIE.attributes(DEVICE, {})}


def test_wants_whatever_is_on_the_pci_bus() -> None:
    assert PCIE.wants(DEVICE)
    assert not PCIE.wants(Device(id="vgem", kind=DeviceKind.GPU, path="devices/faux/vgem", subsystem="faux"))


@pytest.mark.parametrize(
    "kind, lanes", [(DeviceKind.GPU, None), (DeviceKind.NVME, None), (DeviceKind.PCI, 0.0)]
)
def test_no_lanes_are_a_link_with_nobody_or_no_link(kind: DeviceKind, lanes: float | None) -> None:
    """As bochs-display prints them on a root complex, and a root port with an empty slot."""
    plan = {one.path: one for one in PCIE.attributes(replace(DEVICE, kind=kind), {})}
    assert tuple(plan["current_link_width"].decode(b"0\n")) == (lanes,)
    assert tuple(plan["max_link_width"].decode(b"255\n")) == (None,)
    assert tuple(plan["current_link_width"].decode(b"8\n")) == (8.0,)


def test_identity_and_place() -> None:
    facts = {"vendor": b"0x1002\n", "device": b"0x744c\n", "class": b"0x030000\n", "revision": None}
    assert set(PCIE.needs(DEVICE)) == set(facts)
    ((series, value),) = PCIE.constants(DEVICE, facts)
    labels = dict(zip(series.metric.labels, series.values, strict=True))
    assert value == 1.0 and series.metric.name == "gpudaemon_pci_info"
    assert labels == {
        "device": "0000:03:00.0",
        "vendor_id": "0x1002",
        "device_id": "0x744c",
        "subsystem_vendor_id": "",
        "subsystem_device_id": "",
        "class": "0x030000",
        "revision": "",
        "driver": "amdgpu",
        "iommu_group": "12",
        "parent": "0000:00:01.0",
    }


def test_register_reads_are_seldom_and_side_effects_never() -> None:
    plan = planned()
    assert plan["current_link_speed"].cadence is plan["current_link_width"].cadence is Cadence.SLOW
    assert "config" not in plan and "rom" not in plan
    assert all(one.cadence is not Cadence.NORMAL for one in plan.values())


def test_no_numa_node_is_no_sample() -> None:
    assert planned()["numa_node"].decode(b"-1\n") == (None,)
    assert planned()["numa_node"].decode(b"1\n") == (1.0,)


def test_power_state_is_one_of_the_kernels_words() -> None:
    state = planned()["power_state"]
    assert isinstance(state, Attribute)
    values = dict(zip((series.values[1] for series in state.series), state.decode(b"D3hot\n"), strict=True))
    assert values.pop("D3hot") == 1.0 and set(values.values()) == {0.0}
    with pytest.raises(Malformed):
        state.decode(b"D4\n")


def test_aer_counters_by_severity_and_kind() -> None:
    rows = planned()["aer_dev_nonfatal"]
    assert isinstance(rows, Rows)
    found = {
        (metric.name, *labels[1:]): value
        for metric, labels, value in rows.decode(b"DLP 2\nTOTAL_ERR_NONFATAL 3\n")
    }
    assert found == {
        ("gpudaemon_pcie_aer_errors_total", "nonfatal", "DLP"): 2.0,
        ("gpudaemon_pcie_aer_messages_total", "nonfatal"): 3.0,
    }
