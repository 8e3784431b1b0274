"""Descriptions of perf counters in sysfs: which bits of an event's configuration mean what.

`format/<field>` is `config:0-20` or `config1:0-7,32-35`: the register and its bits, lowest first.
`events/<name>` is terms separated by commas, `config=0x1000` or `event=0x02,gt=0`; a term without a value is 1,
one whose value is `?` must be chosen by whoever opens it. `cpumask` lists the processors on which a counter of
the whole device may be opened. What is read of an open counter is its value as 64 bits, native byte order.

Documentation/ABI/testing/sysfs-bus-event_source-devices-format and -events, perf_event_open(2).
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Decode
from gpudaemon.parsers.integer import integer

__all__ = ["Field", "configuration", "count", "field", "first_processor", "kind", "terms"]

_RANGES = re.compile(r"(config|config1|config2):(\d{1,2}(?:-\d{1,2})?(?:,\d{1,2}(?:-\d{1,2})?)*)", re.ASCII)
_TERM = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,63})(?:=(0x[0-9a-fA-F]{1,16}|\d{1,20}|\?))?", re.ASCII)
_PROCESSOR = re.compile(r"(\d{1,6})(?:[-,\n].*)?", re.ASCII | re.DOTALL)
_REGISTERS = ("config", "config1", "config2")
_MOST_TERMS = 16
_COUNT = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Field:
    """Where a value goes: its register, and ranges of bits (first, last), filled from the lowest on."""

    register: str
    ranges: tuple[tuple[int, int], ...]


def field(content: bytes) -> Field:
    """The content of `format/<field>`; raises Malformed."""
    found = _RANGES.fullmatch(_text(content))
    if found is None:
        raise Malformed("format")
    ranges = []
    for part in found.group(2).split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high <= 63:
            raise Malformed("out_of_range")
        ranges.append((low, high))
    return Field(found.group(1), tuple(ranges))


def terms(content: bytes) -> dict[str, int | None]:
    """The content of `events/<name>`: value by name, None for one that is to be chosen; raises Malformed."""
    found: dict[str, int | None] = {}
    parts = _text(content).split(",")
    if len(parts) > _MOST_TERMS:
        raise Malformed("format")
    for part in parts:
        match = _TERM.fullmatch(part)
        if match is None:
            raise Malformed("format")
        value = match.group(2)
        found[match.group(1)] = None if value == "?" else int(value, 0) if value else 1
    return found


def configuration(values: Mapping[str, int], fields: Mapping[str, Field]) -> tuple[int, int, int]:
    """config, config1 and config2; raises Malformed for a value without a place or too large for it."""
    registers = dict.fromkeys(_REGISTERS, 0)
    for name, value in values.items():
        if name in registers and name not in fields:
            registers[name] |= value
            continue
        if name not in fields:
            raise Malformed("format")
        left = value
        for low, high in fields[name].ranges:
            width = high - low + 1
            registers[fields[name].register] |= (left & (1 << width) - 1) << low
            left >>= width
        if left:
            raise Malformed("out_of_range")
    if any(value >> 64 for value in registers.values()):
        raise Malformed("out_of_range")
    return registers["config"], registers["config1"], registers["config2"]


def first_processor(content: bytes) -> int:
    """The first processor of `cpumask`; raises Malformed."""
    found = _PROCESSOR.fullmatch(_text(content))
    if found is None:
        raise Malformed("format")
    return int(found.group(1))


def count(divisor: int = 1) -> Decode:
    """A decoder of what is read of a counter, divided by `divisor`."""

    def decode(content: bytes) -> tuple[float]:
        if len(content) != _COUNT.size:
            raise Malformed("format" if content else "empty")
        return (_COUNT.unpack(content)[0] / divisor,)

    return decode


def kind(content: bytes) -> int:
    """The content of `type`, a PMU's number; raises Malformed."""
    value = integer(content)
    if not 0 <= value < 1 << 32:
        raise Malformed("out_of_range")
    return value


def _text(content: bytes) -> str:
    if len(content) > 4096:
        raise Malformed("oversized")
    return content.decode("ascii", "replace").strip("\n")
