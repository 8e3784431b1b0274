"""Configuration space: what lspci decoded of real devices, and whatever bytes a device may answer."""

import re
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.model.topology import Acs, Port
from gpudaemon.parsers.pci_config import Config, config_space
from tests.captures import capture, files

_SPEEDS = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}
_PORTS = {
    "Endpoint": Port.ENDPOINT,
    "Legacy Endpoint": Port.LEGACY_ENDPOINT,
    "Root Port": Port.ROOT_PORT,
    "Upstream Port": Port.UPSTREAM,
    "Downstream Port": Port.DOWNSTREAM,
    "PCI-Express to PCI/PCI-X Bridge": Port.PCI_BRIDGE,
    "PCI/PCI-X to PCI-Express Bridge": Port.PCIE_BRIDGE,
    "Root Complex Integrated Endpoint": Port.INTEGRATED_ENDPOINT,
}
_ACS_BITS = (
    *(("SrcValid", 0x01), ("TransBlk", 0x02), ("ReqRedir", 0x04), ("CmpltRedir", 0x08)),
    *(("UpstreamFwd", 0x10), ("EgressCtrl", 0x20), ("DirectTrans", 0x40)),
)


def dumps(text: str) -> Iterator[tuple[str, bytes]]:
    """(what lspci says of a function, its bytes) of each function in an lspci -vvvxxxx dump."""
    for block in re.split(r"\n(?=(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] \w)", text):
        rows = re.findall(r"^([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?){16})\s*$", block, re.MULTILINE)
        content = b"".join(bytes.fromhex(row) for _, row in rows)
        if len(content) >= 64:
            yield block, content


def said(block: str) -> dict[str, object]:
    """What lspci decoded, in the terms of `Config`."""
    found: dict[str, object] = {}
    if match := re.search(r"Express \(v\d\) ([A-Za-z/\- ]+?)(?:[,(]| \(|$)", block, re.MULTILINE):
        found["port"] = _PORTS.get(match.group(1).strip())
    for name, line in (("link_max", "LnkCap"), ("link", "LnkSta")):
        if match := re.search(rf"\b{line}:.*?Speed ([\d.]+)GT/s[^,]*, Width x(\d+)", block):
            found[f"{name}_speed"] = _SPEEDS[match.group(1)]
            found[f"{name}_width"] = int(match.group(2)) or None
    if match := re.search(r"\bRlxdOrd([+-])", block):
        found["relaxed_ordering"] = match.group(1) == "+"
    if match := re.search(r"AtomicOpsCtl: ReqEn([+-])", block):
        found["atomic_requester"] = match.group(1) == "+"
    if match := re.search(r"AtomicOpsCap: Routing([+-])", block):
        found["atomic_routing"] = match.group(1) == "+"
    if match := re.search(r"DpcSta:\s+Trigger([+-])", block):
        found["contained"] = match.group(1) == "+"
    caps, control = (re.search(rf"{line}:\s+(.*)", block) for line in ("ACSCap", "ACSCtl"))
    if caps and control:
        bits = [sum(bit for name, bit in _ACS_BITS if f"{name}+" in one.group(1)) for one in (caps, control)]
        found["acs"] = Acs(*bits)
    return found


@pytest.mark.parametrize("name", files("pciutils"))
def test_lspci(name: str) -> None:
    """Every value that lspci prints of a function and that its bytes hold."""
    compared, wrong = 0, []
    with open(capture("pciutils", name), encoding="utf-8", errors="replace") as file:
        text = file.read()
    for block, content in dumps(text):
        config = config_space(content)
        assert config is not None
        for field, value in said(block).items():
            if field in ("acs", "contained") and len(content) <= 256:
                continue  # the text was made from the whole, the bytes are cut
            compared += 1
            if getattr(config, field) != value:
                wrong.append((block.split(" ")[0], field, value, getattr(config, field)))
    print(f"{name}: compared {compared}, agree {compared - len(wrong)}")
    assert not wrong


@given(st.binary(max_size=4200))
def test_any_bytes(content: bytes) -> None:
    found = config_space(content)
    assert found is None or isinstance(found, Config)


@given(st.integers(0, 63), st.integers(0, 255), st.lists(st.integers(0, 4095), max_size=64))
def test_capabilities_that_run_in_circles(first: int, next_: int, places: list[int]) -> None:
    """Each capability points anywhere, itself included; so do extended ones."""
    content = bytearray(4096)
    content[0:4] = b"\x02\x10\x4c\x74"
    content[6], content[0x34] = 0x10, first << 2
    for place in range(64, 256, 4):
        content[place : place + 2] = bytes((0x10, next_))
    for number, place in enumerate(places):
        struct.pack_into("<I", content, place & 0xFFC, 0x000D | place << 20 | number << 16)
    assert config_space(bytes(content)) is not None


def test_a_read_that_stopped_at_64_bytes_knows_no_capability() -> None:
    content = bytes.fromhex("86 80 30 20") + bytes(60)
    assert config_space(content) == Config(vendor=0x8086, device=0x2030, bridge=False)


def test_nobody_answers() -> None:
    assert config_space(b"\xff" * 4096) is None
    assert config_space(b"\x86\x80") is None


def with_capability(kind: int, *, acs: tuple[int, int] | None = None, size: int = 4096) -> bytes:
    """A function of that port type with a PCI Express capability, and ACS where given."""
    content = bytearray(size)
    struct.pack_into("<HH", content, 0, 0x1002, 0x1478)
    content[6], content[0x34] = 0x10, 0x40
    struct.pack_into("<BBH", content, 0x40, 0x10, 0, kind << 4 | 2)
    if acs is not None and size > 256:
        struct.pack_into("<IHH", content, 0x100, 0x0001_000D, *acs)
    return bytes(content)


@pytest.mark.parametrize(
    "bit,redirects", [(0x01, False), (0x04, True), (0x08, True), (0x10, False), (0x20, True)]
)
def test_which_bits_redirect(bit: int, redirects: bool) -> None:
    """drivers/pci/p2pdma.c, pci_bridge_has_acs_redir: RR, CR and EC."""
    config = config_space(with_capability(0x6, acs=(0x7F, bit)))
    assert config is not None and config.acs is not None
    assert (config.port, config.acs.redirects) == (Port.DOWNSTREAM, redirects)


def test_no_acs_is_known_only_where_extended_space_was_read() -> None:
    whole, cut = config_space(with_capability(0x0)), config_space(with_capability(0x0, size=256))
    assert whole is not None and cut is not None
    assert (whole.acs, whole.extended) == (None, True)
    assert (cut.acs, cut.extended) == (None, False)
