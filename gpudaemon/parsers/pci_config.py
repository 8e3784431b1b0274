"""PCI configuration space: the capabilities that decide where a transaction may go and how fast.

Bytes of `/sys/bus/pci/devices/*/config`: 64 for anybody, 256 or 4096 with CAP_SYS_ADMIN
(drivers/pci/pci-sysfs.c, pci_read_config). A read that stops at 64 bytes says nothing about capabilities: those
are not known, not absent.

Offsets and bits are those of include/uapi/linux/pci_regs.h. The list of capabilities is whatever a device
answers: it may run in a circle or anywhere, so every step is bounded, as in drivers/pci/pci.c
(PCI_FIND_CAP_TTL, pci_find_next_ext_capability).
"""

import struct
from dataclasses import dataclass
from typing import Any

from gpudaemon.model.topology import Acs, Port

__all__ = ["Config", "config_space"]

_HEADER_END = 64
_CONVENTIONAL_END = 256
_STATUS, _STATUS_CAPABILITIES = 0x06, 0x10
_HEADER_TYPE, _FIRST_CAPABILITY = 0x0E, 0x34
_MOST_CAPABILITIES = 48
_MOST_EXTENDED = (4096 - 256) // 8
_EXPRESS = 0x10
_ACS, _ATS, _RESIZABLE_BAR, _DPC = 0x000D, 0x000F, 0x0015, 0x001D

_U16, _U32 = struct.Struct("<H"), struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a configuration space says; None is always "not known".

    vendor, device: 16 bit. bridge: has a type 1 header. port: None also for a conventional function.
    express: whether it is a PCI Express function. acs: None where it has none; see `extended`.
    extended: extended capabilities were read, so that None means "has none".
    atomic_routing, atomic_completer, atomic_requester: AtomicOps are routed by a port, completed by a function,
        allowed for its requests. relaxed_ordering: allowed for its requests. ats: address translation in use.
    link_speed, link_width, link_max_speed, link_max_width: speeds as the numbers 1 (2.5 GT/s) to 6 (64 GT/s).
    bar_sizes: BAR -> sizes it could be resized to, bytes. contained: downstream port containment has triggered.
    """

    vendor: int
    device: int
    bridge: bool
    express: bool | None = None
    port: Port | None = None
    extended: bool = False
    acs: Acs | None = None
    ats: bool | None = None
    atomic_routing: bool | None = None
    atomic_completer: bool | None = None
    atomic_requester: bool | None = None
    relaxed_ordering: bool | None = None
    link_speed: int | None = None
    link_width: int | None = None
    link_max_speed: int | None = None
    link_max_width: int | None = None
    bar_sizes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    contained: bool | None = None


def config_space(content: bytes) -> Config | None:
    """What is in a configuration space; None where nobody answered (all ones, too short). Never raises."""
    if len(content) < _HEADER_END or content[:4] == b"\xff\xff\xff\xff":
        return None
    vendor, device = struct.unpack_from("<HH", content)
    bridge = content[_HEADER_TYPE] & 0x7F == 1
    if len(content) <= _HEADER_END:
        return Config(vendor=vendor, device=device, bridge=bridge)
    found = _express(content, _capabilities(content).get(_EXPRESS))
    # Extended space exists for PCI Express only; where the read ends before it, it is not known.
    whole = len(content) > _CONVENTIONAL_END
    extended = _extended(content) if whole else {}
    if whole or not found["express"]:
        found |= {"extended": True, **_of_extended(content, extended)}
    return Config(vendor=vendor, device=device, bridge=bridge, **found)


def _word(content: bytes, offset: int) -> int | None:
    if offset + 2 > len(content):
        return None
    value: int = _U16.unpack_from(content, offset)[0]
    return value


def _double(content: bytes, offset: int) -> int | None:
    if offset + 4 > len(content):
        return None
    value: int = _U32.unpack_from(content, offset)[0]
    return value


def _capabilities(content: bytes) -> dict[int, int]:
    """Capability id -> offset, the first of each."""
    found: dict[int, int] = {}
    status = _word(content, _STATUS) or 0
    if not status & _STATUS_CAPABILITIES:
        return found
    place = content[_FIRST_CAPABILITY] & 0xFC
    for _ in range(_MOST_CAPABILITIES):
        if place < _HEADER_END or place + 2 > min(len(content), _CONVENTIONAL_END) or content[place] == 0xFF:
            break
        found.setdefault(content[place], place)
        place = content[place + 1] & 0xFC
    return found


def _extended(content: bytes) -> dict[int, int]:
    """Extended capability id -> offset, the first of each."""
    found: dict[int, int] = {}
    place = _CONVENTIONAL_END
    for _ in range(_MOST_EXTENDED):
        header = _double(content, place)
        if header in (None, 0, 0xFFFFFFFF):
            break
        assert header is not None
        found.setdefault(header & 0xFFFF, place)
        place = header >> 20 & 0xFFC
        if place < _CONVENTIONAL_END:
            break
    return found


def _bit(value: int | None, mask: int) -> bool | None:
    return None if value is None else value & mask != 0


def _express(content: bytes, place: int | None) -> dict[str, Any]:
    """What the PCI Express capability says."""
    if place is None:
        return {"express": False}
    flags = _word(content, place + 0x02)
    if flags is None:
        return {"express": True}
    kind = flags >> 4 & 0xF
    port = Port(kind) if kind in {one.value for one in Port} else None
    found: dict[str, Any] = {
        "express": True,
        "port": port,
        "relaxed_ordering": _bit(_word(content, place + 0x08), 0x0010),
    }
    capability, status = _double(content, place + 0x0C), _word(content, place + 0x12)
    if port not in (Port.INTEGRATED_ENDPOINT, Port.EVENT_COLLECTOR):
        if capability is not None:
            found |= {
                "link_max_speed": capability & 0xF or None,
                "link_max_width": capability >> 4 & 0x3F or None,
            }
        if status is not None:
            found |= {"link_speed": status & 0xF or None, "link_width": status >> 4 & 0x3F or None}
    # Version 1 of the capability has no second set of registers.
    if flags & 0xF >= 2:
        second, control = _double(content, place + 0x24), _word(content, place + 0x28)
        found |= {
            "atomic_routing": _bit(second, 0x40),
            "atomic_completer": _bit(second, 0x80 | 0x100 | 0x200),
            "atomic_requester": _bit(control, 0x40),
        }
    return found


def _of_extended(content: bytes, places: dict[int, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    place = places.get(_ACS)
    if place is not None:
        capability, control = _word(content, place + 4), _word(content, place + 6)
        if capability is not None and control is not None:
            found["acs"] = Acs(capability, control)
    place = places.get(_ATS)
    if place is not None:
        found["ats"] = _bit(_word(content, place + 6), 0x8000)
    place = places.get(_DPC)
    if place is not None:
        found["contained"] = _bit(_word(content, place + 8), 0x0001)
    place = places.get(_RESIZABLE_BAR)
    if place is not None:
        found["bar_sizes"] = _bar_sizes(content, place)
    return found


def _bar_sizes(content: bytes, place: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Sizes each BAR of the resizable-BAR capability supports: 2**(20 + n) bytes for bit 4 + n."""
    first = _double(content, place + 8)
    if first is None:
        return ()
    found = []
    for number in range(min(first >> 5 & 0x7, 6)):
        sizes, control = _double(content, place + 4 + 8 * number), _double(content, place + 8 + 8 * number)
        if sizes is None or control is None or control & 0x7 > 5:
            continue
        found.append((control & 0x7, tuple(1 << 20 + bit for bit in range(28) if sizes >> 4 + bit & 1)))
    return tuple(found)
