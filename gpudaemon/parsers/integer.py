"""Decimal and hexadecimal integers, one a file, as sysfs_emit("%d\\n") prints them.

Stricter than int(): an underscore, a plus sign, an inner or outer blank is no kernel number. The decoders
are the hot path of every tick: one call of a scalar decoder costs a few hundred nanoseconds.

Documentation/filesystems/sysfs.rst, "Attributes".
"""

from collections.abc import Collection

from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Decode

__all__ = ["ALL_ONES", "hexadecimal", "integer", "percentage", "quotient", "quotient_or_unknown", "words"]

ALL_ONES = frozenset({0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""A firmware table field of 16, 32 or 64 bits that nobody filled: not known, never a value."""

_ERROR_RESPONSES = frozenset(
    one + end for one in (b"4294967295", b"18446744073709551615") for end in (b"", b"\n")
)

_LONGEST = 20
"""Characters of 2**64 - 1 and of -2**63."""
_LONGEST_LINE = _LONGEST + 1
_NEWLINE = 10


def integer(content: bytes) -> int:
    """A signed decimal of at most 64 bits, with or without its newline; raises Malformed."""
    digits = content[:-1] if content[-1:] == b"\n" else content
    if not digits:
        raise Malformed("empty")
    unsigned = digits[1:] if digits[:1] == b"-" else digits
    if not unsigned.isdigit():
        raise Malformed("not_a_number")
    if len(digits) > _LONGEST:
        raise Malformed("out_of_range")
    return int(digits)


def hexadecimal(content: bytes) -> int:
    """`0x1002` as an int, at most 64 bits, with or without its newline; raises Malformed."""
    digits = content[:-1] if content[-1:] == b"\n" else content
    if not digits:
        raise Malformed("empty")
    if digits[:2] != b"0x" or not digits[2:].isalnum():
        raise Malformed("not_a_number")
    if len(digits) > len("0x") + 16:
        raise Malformed("out_of_range")
    try:
        return int(digits, 16)
    except ValueError:
        raise Malformed("not_a_number") from None


def quotient(divisor: int = 1, *, signed: bool = True) -> Decode:
    """A decoder of one integer that divides by `divisor`: (base units,).

    signed: whether it may be negative; what the kernel prints as %u or %llu may not.

    All ones in 32 or 64 bits is not known: what reading a device that fell off its bus gives
    (PCI_ERROR_RESPONSE, include/linux/pci.h).

    Division, not multiplication with a reciprocal: 814 mV is 0.814 V and not 0.8140000000000001.
    """

    def decode(content: bytes) -> tuple[float | None]:
        if content in _ERROR_RESPONSES:
            return (None,)
        # int() alone would accept " 1", "+1" and "1_0"; isdigit() on bytes knows ASCII digits only
        if content[:-1].isdigit() and content[-1] == _NEWLINE and len(content) <= _LONGEST_LINE:
            return (int(content) / divisor,)
        value = integer(content)
        if value < 0 and not signed:
            raise Malformed("out_of_range")
        return (value / divisor,)

    return decode


def quotient_or_unknown(
    divisor: int = 1, *, unknown: Collection[int] = (), empty_is_unknown: bool = False
) -> Decode:
    """Like `quotient`, where some values (before division), or an empty line, mean "not known": (None,)."""

    def decode(content: bytes) -> tuple[float | None]:
        if empty_is_unknown and content in (b"", b"\n"):
            return (None,)
        if content in _ERROR_RESPONSES:
            return (None,)
        value = integer(content)
        return (None if value in unknown else value / divisor,)

    return decode


def percentage(content: bytes) -> tuple[float | None]:
    """An integer 0 to 100 as a ratio; all-ones is not known; anything else raises Malformed."""
    value = integer(content)
    if 0 <= value <= 100:
        return (value / 100,)
    if value in ALL_ONES:
        return (None,)
    raise Malformed("out_of_range")


def words(states: tuple[str, ...], unknown: Collection[str] = ()) -> Decode:
    """A decoder of a one-word file: 1.0 for the state it names, 0.0 for the others.

    A word of `unknown` gives None for every state; a word nobody listed raises Malformed.
    """
    rows: dict[bytes, tuple[float | None, ...]] = {
        word.encode(): tuple(float(word == state) for state in states) for word in states
    }
    rows |= {word.encode(): (None,) * len(states) for word in unknown}

    def decode(content: bytes) -> tuple[float | None, ...]:
        word = content.strip(b" \n")
        if not word:
            raise Malformed("empty")
        try:
            return rows[word]
        except KeyError:
            raise Malformed("format") from None

    return decode
