"""What the memory manager counts: /proc/vmstat, a node's `vmstat`, /proc/zoneinfo, /proc/pressure/memory.

mm/vmstat.c (vmstat_show, zoneinfo_show_print), drivers/base/node.c (node_read_vmstat), kernel/sched/psi.c
(psi_show). Which lines there are differs from kernel to kernel and from configuration to configuration: a line
that is not there is no value, and nothing else follows from it.
"""

import re
from collections.abc import Mapping

from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Decode

__all__ = ["PRESSURE", "counters", "names", "pressure", "zones"]

_LONGEST = 20
_MOST_LINES = 4096
_ZONE = re.compile(rb"Node (\d{1,5}), zone +(\w{1,16})", re.ASCII)
_PAGES = re.compile(rb" +(?:pages )?(free|spanned|present|managed) +(\d{1,20})", re.ASCII)
_PRESSURE = re.compile(
    rb"(some|full) avg10=(\d{1,3}\.\d\d) avg60=(\d{1,3}\.\d\d) avg300=(\d{1,3}\.\d\d) total=(\d{1,20})",
    re.ASCII,
)
PRESSURE = tuple((kind, what) for kind in ("some", "full") for what in ("10s", "60s", "300s", "total"))
"""What each value of `pressure` is: a share of time over a window, or seconds in all."""


def _table(content: bytes) -> dict[bytes, bytes]:
    """Lines `name value`; raises Malformed, also where the end is missing."""
    words = content.split()
    if not words:
        raise Malformed("empty")
    if len(words) % 2 or len(words) > 2 * _MOST_LINES or content[-1:] != b"\n":
        raise Malformed("format")
    return dict(zip(words[::2], words[1::2], strict=True))


def names(content: bytes | None) -> frozenset[str]:
    """Names of the lines; none where there is no content, or none that can be used."""
    try:
        return frozenset(word.decode("ascii", "replace") for word in _table(content or b""))
    except Malformed:
        return frozenset()


def counters(wanted: tuple[str, ...]) -> Decode:
    """A decoder of these lines, None for each that is not there; raises Malformed."""
    keys = tuple(name.encode() for name in wanted)

    def decode(content: bytes) -> list[float | None]:
        found = _table(content)
        return [None if key not in found else _number(found[key]) for key in keys]

    return decode


def _number(digits: bytes) -> float:
    if not digits.isdigit():
        raise Malformed("not_a_number")
    if len(digits) > _LONGEST:
        raise Malformed("out_of_range")
    return float(int(digits))


def zones(content: bytes) -> Mapping[tuple[str, str], Mapping[str, int]]:
    """(node, zone) -> pages `free`, `spanned`, `present`, `managed`, as far as they are said; raises Malformed.

    Lines of the same names further below a zone are of its processors and are told by their colon.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    current: dict[str, int] | None = None
    for line in content.split(b"\n"):
        if line[:1] == b"N":
            zone = _ZONE.fullmatch(line)
            if zone is None:
                raise Malformed("format")
            current = found.setdefault((zone[1].decode(), zone[2].decode()), {})
        elif current is not None and (pages := _PAGES.fullmatch(line)) is not None:
            current.setdefault(pages[1].decode(), int(pages[2]))
    if not found:
        raise Malformed("format" if content.strip() else "empty")
    return found


def pressure(content: bytes) -> tuple[float | None, ...]:
    """Values in the order of `PRESSURE`: ratios, and seconds of the microseconds in `total`; raises Malformed.

    `full` is not there on every kernel.
    """
    found: dict[bytes, tuple[float, ...]] = {}
    for line in content.split(b"\n"):
        if not line:
            continue
        said = _PRESSURE.fullmatch(line)
        if said is None:
            raise Malformed("format")
        # Hundredths without a point, so that 0.29 stays what was printed.
        shares = (int(said[place].replace(b".", b"")) / 10_000 for place in (2, 3, 4))
        found[said[1]] = (*shares, int(said[5]) / 1_000_000)
    if b"some" not in found:
        raise Malformed("format" if content.strip() else "empty")
    none: tuple[None, ...] = (None,) * 4
    return (*found[b"some"], *found.get(b"full", none))
