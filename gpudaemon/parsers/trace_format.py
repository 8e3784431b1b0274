"""events/GROUP/EVENT/format and events/header_page: where the fields of trace events lie.

kernel/trace/trace_events.c (f_show) prints a line a field, those common to all events first:

    field:unsigned short common_type;	offset:0;	size:2;	signed:0;
    field:__data_loc char[] name;	offset:8;	size:4;	signed:0;

`__data_loc` fields hold length << 16 | offset from the begin of the event, `__rel_loc` ones the offset from
their own end (include/trace/stages/stage1_struct_define.h). header_page (ring_buffer_print_page_header) says
where the commit counter and the events of a page of the ring buffer lie, whose size is not that of a memory
page everywhere.
"""

import re
from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["Field", "Format", "PageLayout", "event_format", "page_layout"]

_FIELD = re.compile(
    rb"\s*field:\s*(?P<declared>[^;]{1,512});\s*offset:(?P<offset>\d{1,6});\s*size:(?P<size>\d{1,6});"
    rb"(?:\s*signed:(?P<signed>-?\d);)?\s*"
)
_NAME = re.compile(rb"name:\s*(?P<name>[^\s]{1,256})\s*")
_ID = re.compile(rb"ID:\s*(?P<id>\d{1,6})\s*")
_DECLARED = re.compile(r"(?P<type>.*?)(?P<name>\w+)(?P<array>\[[^\]]*\])?", re.DOTALL)
_LONGEST = 1 << 16
_MOST_FIELDS = 256
_LARGEST_EVENT = 1 << 16
_SMALLEST_PAGE, _LARGEST_PAGE = 256, 1 << 22


@dataclass(frozen=True, slots=True)
class Field:
    """One field. type: as declared, without the brackets of an array. location: `data` and `rel` of the two
    kinds that lie elsewhere in the event, else empty. array: of more than one element."""

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    array: bool = False
    location: str = ""

    @property
    def text(self) -> bool:
        """Whether it is a string."""
        return (self.array or bool(self.location)) and self.type.removeprefix("const ").strip() == "char"


@dataclass(frozen=True, slots=True)
class Format:
    """One event's fields by name. id: the `common_type` of its records, different at every boot."""

    name: str
    id: int
    fields: dict[str, Field]

    @property
    def size(self) -> int:
        """Bytes a record has at least."""
        return max(field.offset + field.size for field in self.fields.values())


@dataclass(frozen=True, slots=True)
class PageLayout:
    """A page of the ring buffer: a timestamp of 8 bytes, the commit counter, the events."""

    timestamp: int
    commit: int
    commit_size: int
    data: int
    data_size: int

    @property
    def size(self) -> int:
        """Bytes of a page."""
        return self.data + self.data_size


def event_format(content: bytes) -> Format:
    """One `format` file. Raises Malformed."""
    if len(content) > _LONGEST:
        raise Malformed("oversized")
    name = number = None
    fields: dict[str, Field] = {}
    for line in content.split(b"\n"):
        if name is None and (found := _NAME.fullmatch(line)):
            name = found["name"].decode("utf-8", "replace")
        elif number is None and (found := _ID.fullmatch(line)):
            number = int(found["id"])
        elif (found := _FIELD.fullmatch(line)) and len(fields) < _MOST_FIELDS:
            field = _field(found)
            fields.setdefault(field.name, field)
    if name is None or number is None or not fields:
        raise Malformed("empty" if not content.strip() else "format")
    kind = fields.get("common_type")
    if kind is None or (kind.offset, kind.size) != (0, 2) or number > 0xFFFF:
        raise Malformed("format")
    return Format(name, number, fields)


def page_layout(content: bytes) -> PageLayout:
    """events/header_page. Raises Malformed."""
    if len(content) > _LONGEST:
        raise Malformed("oversized")
    found = {}
    for line in content.split(b"\n"):
        if match := _FIELD.fullmatch(line):
            field = _field(match)
            found[field.name] = field
    try:
        timestamp, commit, data = found["timestamp"], found["commit"], found["data"]
    except KeyError:
        raise Malformed("empty" if not content.strip() else "format") from None
    sizes = timestamp.size == 8 and commit.size in (4, 8) and data.offset >= commit.offset + commit.size
    if not sizes or not _SMALLEST_PAGE <= data.offset + data.size <= _LARGEST_PAGE or timestamp.offset != 0:
        raise Malformed("format")
    if commit.offset < 8 or data.offset > 64:
        raise Malformed("out_of_range")
    return PageLayout(0, commit.offset, commit.size, data.offset, data.size)


def _field(found: re.Match[bytes]) -> Field:
    declared = _DECLARED.fullmatch(found["declared"].decode("utf-8", "replace").strip())
    if declared is None:
        raise Malformed("format")
    kind, name = declared["type"].strip(), declared["name"]
    offset, size = int(found["offset"]), int(found["size"])
    if offset + size > _LARGEST_EVENT:
        raise Malformed("out_of_range")
    location = ""
    for word, known in (("__data_loc", "data"), ("__rel_loc", "rel")):
        if kind.startswith(word):
            if size != 4:
                raise Malformed("format")
            # `__data_loc char[] name`: the brackets stand with the type
            kind, location = kind.removeprefix(word).strip().removesuffix("[]").strip(), known
    array = declared["array"] is not None
    return Field(name, kind, offset, size, found["signed"] not in (None, b"0"), array, location)
