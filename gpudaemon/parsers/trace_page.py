"""Pages of the trace ring buffer, as `trace_pipe_raw` gives them -> events.

kernel/trace/ring_buffer.c, include/linux/ring_buffer.h. A page begins with the time of its first event and
the commit counter: how many bytes of events there are, with flags in its upper bits that say that events
before this page were overwritten, and that their number stands behind the events. A record begins with 32
bits, 5 of them type_len, 27 the time since the record before:

    0            data; the next 32 bits are the length, their own 4 bytes included
    1 to 28      data of 4 * type_len bytes
    29           padding: a record that was given up, or the end of the page where no time went by
    30           time extend: the next 32 bits are the upper ones of the difference
    31           absolute time, of which the upper 5 bits are those of the page (rb_fix_abs_ts)

On big-endian machines the 5 bits are the upper ones.
"""

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpudaemon.errors import Malformed
from gpudaemon.model.tracing import Event
from gpudaemon.parsers.trace_format import Field, Format, PageLayout

__all__ = ["Decoder", "Page"]

_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_MISSED, _MISSED_STORED = 1 << 31, 1 << 30
_COMMITTED = (1 << 27) - 1
_DELTA = (1 << 27) - 1
_TIME = (1 << 59) - 1
"""An absolute time has 59 bits."""
_MOST_STRINGS = 4096

_Take = Callable[[bytes, int, int], tuple[Any, ...]]
"""page, where an event lies, where it ends -> its values"""
Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Page:
    """What a page held. events: of the formats asked for, in order of time. others: number of further ones.
    missed: events overwritten before this page, 0 where none were, None where some were and the number is not
    known. malformed: records that were left out because they are not as their format says."""

    events: list[Event]
    others: int
    missed: int | None
    malformed: int


class Decoder:
    """Takes pages apart. wanted: name for the event -> its format and the fields to take, in order; a field
    that the format does not have is None in every event. order: byte order of the machine the pages come
    from.

    Raises Malformed where two formats have one id.
    """

    def __init__(
        self,
        layout: PageLayout,
        wanted: Mapping[str, tuple[Format, Sequence[str]]],
        *,
        order: Order = sys.byteorder,
    ) -> None:
        self._layout = layout
        mark = "<" if order == "little" else ">"
        self._word = struct.Struct(f"{mark}I").unpack_from
        self._type = struct.Struct(f"{mark}H").unpack_from
        self._header = struct.Struct(f"{mark}Q").unpack_from
        self._commit = struct.Struct(f"{mark}{'Q' if layout.commit_size == 8 else 'I'}").unpack_from
        self._little = order == "little"
        self._events: dict[int, tuple[str, _Take, int]] = {}
        for name, (form, fields) in wanted.items():
            if form.id in self._events:
                raise Malformed("format")
            self._events[form.id] = (name, _taker(form, fields, mark), form.size)

    def decode(self, page: bytes) -> Page:  # noqa: PLR0912, PLR0915 - a call a record would cost as much again
        """One page. Raises Malformed where it is none."""
        layout = self._layout
        if len(page) < layout.data:
            raise Malformed("empty")
        stamp = now = self._header(page, 0)[0]
        commit = self._commit(page, layout.commit)[0]
        size = commit & _COMMITTED
        at, end = layout.data, layout.data + size
        if end > len(page):
            raise Malformed("out_of_range")
        missed = self._missed(page, commit, end) if commit & _MISSED else 0
        events: list[Event] = []
        add = events.append
        word, kind_of, wanted, little = self._word, self._type, self._events, self._little
        others = malformed = 0
        while at + 4 <= end:
            head = word(page, at)[0]
            if little:
                kind, delta = head & 31, head >> 5
            else:
                kind, delta = head >> 27, head & _DELTA
            at += 4
            if 0 < kind < _PADDING:
                start, stop = at, at + 4 * kind
                now += delta
            elif at + 4 > end:
                break
            elif kind == 0:
                start, stop = at + 4, at + word(page, at)[0]
                now += delta
                if stop < start:
                    malformed += 1
                    break
            elif kind == _PADDING:
                if delta == 0:
                    break
                now += delta
                # array[0] holds the length of what follows its own word (rb_event_discard)
                at += word(page, at)[0]
                continue
            else:
                extended = (word(page, at)[0] << 27) + delta
                now = (stamp & ~_TIME) | (extended & _TIME) if kind == _TIME_STAMP else now + extended
                if kind == _TIME_STAMP and now < stamp:
                    now += 1 << 59  # they went over since the page began
                at += 4
                continue
            at = stop
            if stop > end or stop - start < 8:
                malformed += 1
                continue
            known = wanted.get(kind_of(page, start)[0])
            if known is None:
                others += 1
                continue
            name, take, least = known
            if stop - start < least:
                malformed += 1
                continue
            try:
                add((now, name, take(page, start, stop)))
            except (ValueError, IndexError, struct.error):
                malformed += 1
        return Page(events, others, missed, malformed)

    def _missed(self, page: bytes, commit: int, end: int) -> int | None:
        """How many events were lost before this page (ring_buffer_read_page)."""
        if commit & _MISSED_STORED and end + self._layout.commit_size <= len(page):
            return int(self._commit(page, end)[0]) or None
        return None


def _taker(form: Format, fields: Sequence[str], mark: str) -> _Take:
    """A function that takes these fields of an event: one unpacking for all, then what needs more."""
    known = [form.fields.get(name) for name in fields]
    here = sorted((field for field in known if field is not None), key=lambda field: field.offset)
    layout, at = [mark], 0
    places: dict[str, int] = {}
    for field in here:
        if field.name in places:
            continue
        if field.offset < at:
            raise Malformed("format")  # fields that overlap
        layout.append(f"{field.offset - at}x{_code(field)}")
        places[field.name] = len(places)
        at = field.offset + field.size
    unpack = struct.Struct("".join(layout)).unpack_from
    order = [None if field is None else places[field.name] for field in known]
    finish = [
        (index, _finisher(field, mark))
        for index, field in enumerate(known)
        if field is not None and (field.location or field.array or field.size not in (1, 2, 4, 8))
    ]
    straight = order == list(range(len(places))) and len(known) == len(places)
    if straight and not finish:
        return lambda page, start, _: unpack(page, start)

    def take(page: bytes, start: int, stop: int) -> tuple[Any, ...]:
        raw = unpack(page, start)
        values = list(raw) if straight else [None if place is None else raw[place] for place in order]
        for index, done in finish:
            values[index] = done(values[index], page, start, stop)
        return tuple(values)

    return take


_CODES = {(1, False): "B", (1, True): "b", (2, False): "H", (2, True): "h"}
_CODES |= {(4, False): "I", (4, True): "i", (8, False): "Q", (8, True): "q"}


def _code(field: Field) -> str:
    if field.location:
        return "I"
    if field.array or (field.size, field.signed) not in _CODES:
        return f"{field.size}s"
    return _CODES[field.size, field.signed]


def _finisher(field: Field, mark: str) -> Callable[[Any, bytes, int, int], Any]:
    """What makes the value of a field that is no plain number."""
    texts: dict[bytes, str] = {}

    def text(content: bytes) -> str:
        known = texts.get(content)
        if known is None:
            if len(texts) >= _MOST_STRINGS:
                texts.clear()
            known = texts[content] = content.split(b"\0", 1)[0].decode("utf-8", "replace")
        return known

    if not field.location:
        return (lambda value, *_: text(value)) if field.text else (lambda value, *_: bytes(value))
    base = field.offset + field.size if field.location == "rel" else 0
    is_text = field.text

    def located(value: int, page: bytes, start: int, stop: int) -> Any:
        begin = start + base + (value & 0xFFFF)
        end = begin + (value >> 16)
        if end > stop:
            raise ValueError("beyond the event")
        content = page[begin:end]
        return text(content) if is_text else content

    return located
