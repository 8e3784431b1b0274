"""Answers of the generic netlink family `drm-ras`: nodes of error counters and what they count.

The content is the kernel's own messages one after the other: struct nlmsghdr (16 bytes), struct genlmsghdr (4),
then attributes, each a struct nlattr (length and type, 16 bits each) with its value, padded to 4 bytes, native
byte order. A node (command 1) is followed by its counters (command 2), which do not say whose they are.

Documentation/netlink/specs/drm_ras.yaml, include/uapi/drm/drm_ras.h, include/uapi/linux/netlink.h.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["GET_ERROR_COUNTER", "LIST_NODES", "Counter", "counters", "messages"]

LIST_NODES, GET_ERROR_COUNTER = 1, 2
"""Commands. 3 clears a counter and is never used."""

_HEADER = struct.Struct("=IHHIIBBH")
"""struct nlmsghdr: length, type, flags, sequence, port; struct genlmsghdr: command, version, reserved."""
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_TYPE = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter. device, node: of the node it belongs to; error: its name."""

    device: str
    node: str
    error: str
    value: int


def messages(content: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """(command, attributes by type) of each message; raises Malformed."""
    offset = 0
    while offset < len(content):
        if offset + _HEADER.size > len(content):
            raise Malformed("format")
        length, _, _, _, _, command, _, _ = _HEADER.unpack_from(content, offset)
        end = offset + length
        if length < _HEADER.size or end > len(content):
            raise Malformed("format")
        yield command, _attributes(content, offset + _HEADER.size, end)
        offset = (end + 3) & ~3


def _attributes(content: bytes, offset: int, end: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset < end:
        if offset + _ATTRIBUTE.size > end:
            raise Malformed("format")
        length, kind = _ATTRIBUTE.unpack_from(content, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            raise Malformed("format")
        found[kind & _TYPE] = content[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def counters(content: bytes) -> Iterator[Counter]:
    """Every counter with the node before it; raises Malformed."""
    device = node = ""
    for command, attributes in messages(content):
        if command == LIST_NODES:
            device, node = _text(attributes, 2), _text(attributes, 3)
        elif command == GET_ERROR_COUNTER:
            if not node:
                raise Malformed("format")
            yield Counter(device, node, _text(attributes, 3), _number(attributes, 4))


def _text(attributes: dict[int, bytes], kind: int) -> str:
    """A NUL-terminated string."""
    value = attributes.get(kind)
    if value is None:
        raise Malformed("format")
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")[:_LONGEST]


def _number(attributes: dict[int, bytes], kind: int) -> int:
    value = attributes.get(kind)
    if value is None or len(value) != _NUMBER.size:
        raise Malformed("format")
    return int(_NUMBER.unpack(value)[0])
