"""Words that sysfs files choose among: a list with one in brackets, a list of those that hold, 0 or 1.

`[base]    power_saving` (drivers/gpu/drm/xe/xe_guc_pc.c, drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c),
`[low] normal high` (drivers/gpu/drm/xe/xe_sriov_pf_sysfs.c, emit_choice), `pl1 thermal` or `none`
(drivers/gpu/drm/xe/xe_gt_throttle.c, reasons_show), `Operational` (drivers/accel/habanalabs/common/sysfs.c).
"""

import re
from collections.abc import Collection, Sequence

from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Decode
from gpudaemon.parsers.integer import integer

__all__ = ["any_bit", "chosen", "flag", "holding", "sentence"]

_LONGEST = 256
_MASK = re.compile(rb"[0-9a-f]{1,16}\n?")


def _words(content: bytes) -> list[bytes]:
    if len(content) > _LONGEST:
        raise Malformed("oversized")
    found = content.split()
    if not found:
        raise Malformed("empty")
    return found


def chosen(states: Sequence[str]) -> Decode:
    """A decoder of a list with one word in brackets: 1.0 for that state, 0.0 for the others.

    Raises Malformed where none or several are in brackets, or one that is not among `states`.
    """
    known = [state.encode() for state in states]

    def decode(content: bytes) -> tuple[float, ...]:
        found = [word[1:-1] for word in _words(content) if word[:1] == b"[" and word[-1:] == b"]"]
        if len(found) != 1 or found[0] not in known:
            raise Malformed("format")
        return tuple(float(state == found[0]) for state in known)

    return decode


def holding(states: Sequence[str], none: str) -> Decode:
    """A decoder of a list of words: 1.0 for each state it names, 0.0 for the others; `none` alone: all 0.0.

    Raises Malformed on a word that is not among `states`.
    """
    known = [state.encode() for state in states]
    nothing = none.encode()

    def decode(content: bytes) -> tuple[float, ...]:
        found = _words(content)
        if found == [nothing]:
            return (0.0,) * len(known)
        if any(word not in known for word in found):
            raise Malformed("format")
        return tuple(float(state in found) for state in known)

    return decode


def sentence(states: Sequence[str], unknown: Collection[str] = ()) -> Decode:
    """A decoder of one phrase, whatever its case: 1.0 for that state, 0.0 for the others.

    A phrase of `unknown` gives None for every state; one nobody listed raises Malformed.
    """
    known = [state.encode() for state in states]
    nobody = [phrase.encode() for phrase in unknown]

    def decode(content: bytes) -> tuple[float | None, ...]:
        phrase = b" ".join(_words(content)).lower()
        if phrase in nobody:
            return (None,) * len(known)
        if phrase not in known:
            raise Malformed("format")
        return tuple(float(state == phrase) for state in known)

    return decode


def flag(content: bytes) -> tuple[float]:
    """0 or 1; anything else raises Malformed."""
    value = integer(content)
    if value not in (0, 1):
        raise Malformed("out_of_range")
    return (float(value),)


def any_bit(content: bytes) -> tuple[float]:
    """A mask in hexadecimal without prefix, `%x`: 1.0 where any bit is set; anything else raises Malformed."""
    if _MASK.fullmatch(content) is None:
        raise Malformed("format" if content.strip() else "empty")
    return (float(int(content, 16) != 0),)
