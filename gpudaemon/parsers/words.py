"""Answers of calls: numbers in a fixed order, and tables of text.

A line is words separated by single blanks, `-` for a value there is none of. A table is lines of fields
separated by tabs. Both are this program's own (`gpudaemon.calls`), but what is in them comes from libraries and
firmware.
"""

from collections.abc import Iterator

from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Decode
from gpudaemon.parsers.integer import integer

__all__ = ["NONE", "bits", "numbers", "optional", "table"]

NONE = b"-"
_NOT_AVAILABLE = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""NVML_VALUE_NOT_AVAILABLE (nvml.h) in a field of 32 or 64 bits: not known."""
_LONGEST = 128


def optional(word: bytes) -> int | None:
    """A number, None for none; raises Malformed."""
    if word == NONE:
        return None
    value = integer(word)
    return None if value in _NOT_AVAILABLE else value


def numbers(*scales: float) -> Decode:
    """A decoder of one line with a number for each scale, by which it is multiplied: base units.

    A number below zero is one no counter or sensor here has, but temperatures: it is kept, it is what was said.
    """

    def decode(content: bytes) -> tuple[float | None, ...]:
        found = content.split(b" ")
        if len(found) != len(scales):
            raise Malformed("format" if content else "empty")
        values = [optional(word) for word in found]
        return tuple(
            None if value is None else value * scale for value, scale in zip(values, scales, strict=True)
        )

    return decode


def bits(*masks: int) -> Decode:
    """A decoder of one number that says for each mask whether a bit of it is set: 1.0 or 0.0."""

    def decode(content: bytes) -> tuple[float | None, ...]:
        value = optional(content)
        if value is None:
            return (None,) * len(masks)
        if value < 0:
            raise Malformed("out_of_range")
        return tuple(float(bool(value & mask)) for mask in masks)

    return decode


def table(content: bytes, fields: int) -> Iterator[tuple[str, ...]]:
    """Lines of `fields` texts each, of at most 128 characters; `-` is an empty one. Raises Malformed."""
    if content and not content.endswith(b"\n"):
        raise Malformed("format")
    for line in content.splitlines():
        words = line.split(b"\t")
        if len(words) != fields:
            raise Malformed("format")
        texts = (word.decode("utf-8", "replace").strip()[:_LONGEST] for word in words)
        yield tuple("" if text == "-" else text for text in texts)
