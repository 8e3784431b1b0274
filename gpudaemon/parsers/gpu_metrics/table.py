"""A gpu_metrics table taken apart: what its header says, and decoders that give the wanted fields as numbers.

A decoder is made once, when a device is planned, for the layout its table has then; it unpacks all it wants in
one go. A field of all ones was not filled by the firmware (drivers/gpu/drm/amd/pm/swsmu/smu_cmn.c,
smu_cmn_init_soft_gpu_metrics) and one beyond what its quantity can be is no value either: both give None.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gpudaemon.errors import Malformed
from gpudaemon.parsers.gpu_metrics.layouts import TABLES, Layout
from gpudaemon.parsers.gpu_metrics.stream import stream_layout

__all__ = ["HEADER", "TABLE_LIMIT", "Pick", "decoder", "is_filled", "layout_of", "raw", "unpacker"]

HEADER = struct.Struct("<HBB")
"""struct metrics_table_header: structure_size, format_revision, content_revision."""
TABLE_LIMIT = 8192
"""Bytes to offer: the driver gives less than a page, and what fills its buffer counts as oversized."""


@dataclass(frozen=True, slots=True)
class Pick:
    """An element of a field, and what makes it a number in base units: value * factor / divisor.

    least, most: what the element, before that, can be.
    """

    field: str
    index: int = 0
    factor: int = 1
    divisor: int = 1
    least: int = 0
    most: int = 0xFFFFFFFFFFFFFFFE


def layout_of(content: bytes) -> Layout | None:
    """How a table is laid out, None where nobody knows its revision; raises Malformed.

    Malformed is a table shorter than its header says, or of another size than its revision has.
    """
    if len(content) < HEADER.size:
        raise Malformed("empty" if not content else "format")
    size, format_, revision = HEADER.unpack_from(content)
    if len(content) < size:
        raise Malformed("format")
    if (format_, revision) == (1, 9):
        return stream_layout(content, size)
    layout = TABLES.get((format_, revision, size))
    if layout is None and any(key[:2] == (format_, revision) for key in TABLES):
        raise Malformed("format")
    return layout


def _unset(code: str) -> int:
    """All ones, as an element of this type reads."""
    return -1 if code.islower() else (1 << 8 * struct.calcsize(f"<{code}")) - 1


def raw(layout: Layout, content: bytes, field: str, index: int = 0) -> int | None:
    """An element as it stands there, None where it is not set or the table has no such field."""
    found = layout.fields.get(field)
    if found is None or index >= found.count:
        return None
    value: int = struct.unpack_from(f"<{found.code}", content, found.place(index))[0]
    return None if value == _unset(found.code) else value


def is_filled(layout: Layout, content: bytes, field: str, index: int = 0) -> bool:
    """Whether the firmware fills this element."""
    return raw(layout, content, field, index) is not None


def unpacker(layout: Layout, elements: Sequence[tuple[str, int]]) -> Callable[[bytes], tuple[Any, ...]]:
    """A function that gives these elements (field, index) of a table, in this order, as they stand there."""
    places = sorted({(layout.fields[name].place(index), layout.fields[name].code) for name, index in elements})
    form, end = "<", 0
    for place, code in places:
        form += f"{place - end}x{code}"
        end = place + struct.calcsize(f"<{code}")
    unpack = struct.Struct(form).unpack_from
    offsets = [place for place, _ in places]
    order = [offsets.index(layout.fields[name].place(index)) for name, index in elements]
    if order == list(range(len(offsets))):
        return unpack
    if len(order) == 1:
        return lambda content: (unpack(content)[order[0]],)
    pick = itemgetter(*order)

    def sorted_out(content: bytes) -> tuple[Any, ...]:
        found: tuple[Any, ...] = pick(unpack(content))
        return found

    return sorted_out


def _checker(layout: Layout) -> Callable[[bytes], None]:
    """Raises Malformed on a table that is not laid out like `layout`."""
    header = HEADER.pack(layout.size, *layout.revision)
    size = layout.size
    form, end, words = "<", 0, []
    for place, word in layout.marks:
        form += f"{place - end}xQ"
        end = place + 8
        words.append(word)
    expected, unpack = tuple(words), struct.Struct(form).unpack_from
    count = len(words).to_bytes(4, "little")

    def check(content: bytes) -> None:
        if content[:4] != header or len(content) < size:
            raise Malformed("format" if content else "empty")
        if expected and (content[4:8] != count or unpack(content) != expected):
            raise Malformed("format")

    return check


def decoder(layout: Layout, picks: Sequence[Pick]) -> Callable[[bytes], list[float | None]]:
    """A decoder of tables laid out like `layout`: one number a pick, None where it is not known.

    It raises Malformed on a table that is laid out differently. Every pick's field must be there.
    """
    check = _checker(layout)
    unpack = unpacker(layout, [(pick.field, pick.index) for pick in picks])
    codes = [layout.fields[pick.field].code for pick in picks]
    rules = tuple(
        (
            pick.factor,
            pick.divisor,
            pick.least,
            min(pick.most, _unset(code) - 1) if code.isupper() else pick.most,
        )
        for pick, code in zip(picks, codes, strict=True)
    )
    if any(code.islower() for code in codes):
        return _with_signs(check, unpack, rules, codes)

    def decode(content: bytes) -> list[float | None]:
        check(content)
        return [
            value * factor / divisor if least <= value <= most else None
            for value, (factor, divisor, least, most) in zip(unpack(content), rules, strict=True)
        ]

    return decode


def _with_signs(
    check: Callable[[bytes], None],
    unpack: Callable[[bytes], tuple[Any, ...]],
    rules: Sequence[tuple[int, int, int, int]],
    codes: Sequence[str],
) -> Callable[[bytes], list[float | None]]:
    """A decoder for elements of which some are signed: there all ones are -1."""
    unset = [_unset(code) for code in codes]

    def decode(content: bytes) -> list[float | None]:
        check(content)
        return [
            None if value == ones or not least <= value <= most else value * factor / divisor
            for value, ones, (factor, divisor, least, most) in zip(unpack(content), unset, rules, strict=True)
        ]

    return decode
