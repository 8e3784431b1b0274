"""The CXL bus of two real kernels against what `cxl list -vvv` prints there; what changes; hostile content."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.cxl import COLLECTOR
from gpudaemon.collectors.cxl.build import build, number
from gpudaemon.discovery.cxl import bus_device
from gpudaemon.discovery.scan import scan
from gpudaemon.model.cxl import Bus
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.view import cxl as view
from tests import captures

CAPTURES = {
    "7.3.4": ("sysfs-7.3.4+deb13-amd64.tar.gz", "cxl-list-vvv-7.3.4+deb13-amd64.json"),
    "6.12.95": ("sysfs-6.12.95+deb12-amd64.tar.gz", "cxl-list-vvv-6.12.95+deb12-amd64.json"),
}
MAILBOX = "asked of the device through its mailbox, which these files do not show"
EXCEPTIONS = {
    "partition_info": MAILBOX,
    "firmware": MAILBOX,
    "provider": "a name the tool makes up of the driver's",
    "alias": "the firmware node's name, which is no part of the bus",
    "max_available_extent": "worked out by the tool from the regions of a window",
    "daxregion.id": "the number in the region's name",
    "region.resource": "these two captures hold every file named resource, but empty",
    "align": "of no use for telemetry",
    "online_memblocks": "memory blocks of the node, which are the memory subsystem's",
    "total_memblocks": "memory blocks of the node, which are the memory subsystem's",
    "movable": "memory blocks of the node, which are the memory subsystem's",
}
"""Fact of `cxl list -vvv` -> why it is not in the model."""


@pytest.fixture(scope="module", params=CAPTURES)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Any]:
    """(name, sysfs, what cxl list printed) of a captured host."""
    archive, listing = CAPTURES[request.param]
    source = captures.capture("vm", "lane", archive)
    sysfs = captures.from_tarball(source, str(tmp_path_factory.mktemp("host")))
    with open(captures.capture("vm", "lane", listing), encoding="utf-8") as file:
        return request.param, sysfs, json.load(file)


def bus_of(sysfs: str) -> Bus:
    device = bus_device(sysfs)
    assert device is not None
    return build(device, {path: captures.read(sysfs, device, path) for path in COLLECTOR.needs(device)})


Fact = tuple[str, str, Any, Any]
"""what it is about, which fact, what the tool says, what the model says"""


def facts(bus: Bus, listing: Any) -> Iterator[Fact]:
    """Every fact of the listing, with the model's."""
    for root in listing:
        yield from of_port(bus, root, root["bus"])


def of_port(bus: Bus, said: dict[str, Any], name: str) -> Iterator[Fact]:
    port = bus.ports[name]
    known = {
        "bus": port.name,
        "port": port.name,
        "endpoint": port.name,
        "host": port.uport,
        "parent_dport": port.parent_dport,
        "depth": port.depth,
        "decoders_committed": port.committed,
        "nr_dports": len(port.dports),
    }
    for key, value in said.items():
        head = key.partition(":")[0]
        if key in known:
            yield name, key, value, known[key]
        elif key == "dports":
            for dport in value:
                yield name, "dport", dport["dport"], port.dports.get(dport["id"])
                yield from ((name, "alias", alias, None) for alias in [dport.get("alias")] if alias)
        elif head in ("ports", "endpoints"):
            for below in value:
                below_name = below.get("port") or below["endpoint"]
                yield name, "above", name, bus.ports[below_name].above
                yield from of_port(bus, below, below_name)
        elif head == "memdev":
            yield from of_memdev(bus, value)
        elif head == "decoders":
            for decoder in value:
                yield from of_decoder(bus, decoder)
        else:
            yield name, key, value, None


def of_memdev(bus: Bus, said: dict[str, Any]) -> Iterator[Fact]:
    memdev = bus.memdevs[said["memdev"]]
    known = {
        "memdev": memdev.name,
        "ram_size": memdev.volatile,
        "pmem_size": memdev.persistent,
        "ram_qos_class": memdev.volatile_qos,
        "pmem_qos_class": memdev.persistent_qos,
        "serial": memdev.serial,
        "host": memdev.device,
        "numa_node": memdev.numa_node,
        "firmware_version": memdev.firmware,
    }
    for key, value in said.items():
        yield memdev.name, key, value, known.get(key)


def of_decoder(bus: Bus, said: dict[str, Any]) -> Iterator[Fact]:
    decoder = bus.decoders[said["decoder"]]
    port = bus.ports[decoder.port]
    known = {
        "decoder": decoder.name,
        "resource": decoder.start,
        "size": decoder.size,
        "interleave_ways": decoder.ways,
        "interleave_granularity": decoder.granularity,
        "region": decoder.region,
        "dpa_resource": decoder.dpa_start,
        "dpa_size": decoder.dpa_size,
        "mode": decoder.mode,
        "state": "disabled" if not decoder.size else "",
        "nr_targets": len(decoder.targets),
        "qos_class": decoder.qos,
        "pmem_capable": "pmem" in decoder.capable,
        "volatile_capable": "ram" in decoder.capable,
        "accelmem_capable": "type2" in decoder.capable,
        "locked": decoder.locked,
    }
    for key, value in said.items():
        if key == "targets":
            for target in value:
                place = decoder.targets[target["position"]]
                yield decoder.name, "target id", target["id"], place
                yield decoder.name, "target", target["target"], port.dports.get(place)
                yield from ((decoder.name, "alias", one, None) for one in [target.get("alias")] if one)
        elif key.startswith("regions:"):
            for region in value:
                yield from of_region(bus, region, decoder.name)
        else:
            yield decoder.name, key, value, known.get(key)


def of_region(bus: Bus, said: dict[str, Any], decoder: str) -> Iterator[Fact]:
    region = bus.regions[said["region"]]
    yield region.name, "window", decoder, region.decoder
    known = {
        "region": region.name,
        "resource": region.start,
        "size": region.size,
        "type": region.mode,
        "interleave_ways": region.ways,
        "interleave_granularity": region.granularity,
        "decode_state": "commit" if region.committed else "",
    }
    for key, value in said.items():
        if key == "mappings":
            for one in value:
                target = region.targets[one["position"]]
                yield region.name, "mapping", one["decoder"], target
                yield region.name, "memdev", one["memdev"], bus.memdev_of(target)
        elif key == "daxregion":
            yield region.name, "daxregion.id", value["id"], None
            yield region.name, "daxregion.size", value["size"], region.size
            for one in value.get("devices", ()):
                dax = bus.dax[one["chardev"]]
                mode = {"kmem": "system-ram", "device_dax": "devdax"}.get(dax.driver)
                ours = {"chardev": dax.name, "size": dax.size, "target_node": dax.target_node, "mode": mode}
                yield from ((dax.name, fact, told, ours.get(fact)) for fact, told in one.items())
        elif key == "resource" and region.start is None:
            yield region.name, "region.resource", value, None
        else:
            yield region.name, key, value, known.get(key)


def test_every_fact_of_cxl_list(host: tuple[str, str, Any]) -> None:
    name, sysfs, listing = host
    compared, left, wrong = 0, 0, []
    for about, fact, theirs, ours in facts(bus_of(sysfs), listing):
        if fact in EXCEPTIONS and ours is None:
            left += 1
            continue
        compared += 1
        # A captured tree has no file that only root may read where it was not root's; here all were.
        if theirs != ours:
            wrong.append((about, fact, theirs, ours))
    print(f"cxl list -vvv on {name}: compared {compared}, agree {compared - len(wrong)}, exceptions {left}")
    assert compared > 100 and not wrong, wrong[:20]


def test_the_page(host: tuple[str, str, Any]) -> None:
    _, sysfs, _ = host
    page = captures.page_of(sysfs)
    assert not [one for one in page.malformed if one[0] == "cxl"]
    infos = [labels for metric, labels, _ in page.samples if metric == "gpudaemon_cxl_memdev_info"]
    assert {one["serial"] for one in infos} == {"0x1001", "0x1002", "0x1003", "0x1004"}
    (direct,) = (one for one in infos if one["serial"] == "0x1001")
    assert direct["host_bridge"] == "pci0000:20" and direct["port"] == "port1"
    assert (
        page.value("gpudaemon_cxl_memdev_capacity_bytes", memdev=direct["memdev"], type="volatile") == 256 << 20
    )
    assert page.value("gpudaemon_cxl_memdev_capacity_bytes", memdev=direct["memdev"], type="persistent") == 0
    assert page.value("gpudaemon_cxl_region_committed", region="region0") == 1
    assert page.info("gpudaemon_cxl_region_memdev_info", region="region0")["memdev"] == direct["memdev"]
    assert page.info("gpudaemon_cxl_dax_info", region="region0")["driver"] == "kmem"


def test_the_tree_for_a_person(host: tuple[str, str, Any]) -> None:
    _, sysfs, _ = host
    text = view.as_text(bus_of(sysfs))
    assert text.startswith("root0 ACPI0017:00") and "serial 0x1003, 256M volatile" in text
    assert "region0 256M ram" in text and "memory of node" in text
    json.dumps(view.as_json(bus_of(sysfs)))


def test_what_is_not_for_reading_is_not_listed(host: tuple[str, str, Any]) -> None:
    device = bus_device(host[1])
    assert device is not None
    for bad in (
        "trigger_poison_list",
        "CDAT",
        "create_ram_region",
        "delete_region",
        "erase",
        "sanitize",
        "uevent",
    ):
        assert not [path for path in device.names if path.endswith(bad)]


def test_every_file_of_the_model_is_looked_at_again() -> None:
    """A region committed or torn down is another model: the plan is made anew."""
    names = {f"cxl/devices/region0/{file}" for file in ("commit", "size", "target0", "mode", "resource")}
    names |= {f"cxl/devices/decoder3.0/{file}" for file in ("size", "region", "mode", "dpa_size")}
    device = Device(id="cxl", kind=DeviceKind.CXL_BUS, path="bus", names=frozenset(names))
    planned = COLLECTOR.attributes(device, {})
    assert {one.path for one in planned if getattr(one, "settles", False)} == names


def test_no_bus_is_no_device(tmp_path: Path) -> None:
    assert bus_device(str(tmp_path)) is None
    assert [one for one in scan(str(tmp_path)) if one.kind is DeviceKind.CXL_BUS] == []
    empty = build(Device(id="cxl", kind=DeviceKind.CXL_BUS, path="bus"), {})
    assert "no CXL bus" in view.as_text(empty)


def test_dax_devices_of_other_memory_are_not_cxl(tmp_path: Path) -> None:
    for name, target in (
        ("dax0.0", "platform/hmem.0/dax0.0"),
        ("dax1.0", "ACPI0017:00/root0/decoder0.0/region1/dax_region1/dax1.0"),
    ):
        path = tmp_path / "devices" / target
        path.mkdir(parents=True)
        (path / "size").write_bytes(b"4096\n")
        link = tmp_path / "bus/dax/devices" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../devices/{target}")
    device = bus_device(str(tmp_path))
    assert device is not None and {path.split("/")[2] for path in device.names} == {"dax1.0"}


@pytest.mark.parametrize(
    "content,value",
    [
        (b"0x10000000\n", 1 << 28),
        (b"0x0000000000000000\n", 0),
        (b"0xffffffffffffffff\n", None),
        (b"256\n", 256),
        (b"-1\n", None),
        (b"\n", None),
        (b"", None),
        (None, None),
        (b"region0\n", None),
        (b"0x\n", None),
    ],
)
def test_numbers(content: bytes | None, value: int | None) -> None:
    assert number(content) == value


FILES = ("size", "mode", "region", "target_list", "interleave_ways", "target0", "serial", "ram/size", "commit")
NAMES = ("root0", "port1", "endpoint2", "decoder0.0", "decoder2.0", "region0", "mem0", "dax0.0")


@given(
    st.dictionaries(st.tuples(st.sampled_from(NAMES), st.sampled_from(FILES)), st.binary(max_size=40)),
    st.dictionaries(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(("..", "uport", "dport0", "parent_dport", "driver"))),
        st.sampled_from((*NAMES, "", "0000:00:00.0")),
    ),
)
def test_any_bus_is_shown(contents: dict[tuple[str, str], bytes], links: dict[tuple[str, str], str]) -> None:
    """Whatever hangs from whatever, in circles too."""
    facts_ = {f"cxl/devices/{name}/{file}": content for (name, file), content in contents.items()}
    device = Device(
        id="cxl",
        kind=DeviceKind.CXL_BUS,
        path="bus",
        names=frozenset(facts_),
        links=tuple(sorted((f"{name}/{link}", target) for (name, link), target in links.items())),
    )
    bus = build(device, facts_)
    json.dumps(view.as_json(bus))
    assert all(line.isprintable() for line in view.as_text(bus).split("\n"))
    COLLECTOR.constants(device, facts_)
    COLLECTOR.attributes(device, facts_)
