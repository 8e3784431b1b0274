"""PCIe link speed, link width and AER counter lists.

Documentation/ABI/testing/sysfs-bus-pci, Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats;
drivers/pci/probe.c (pci_speed_string), drivers/pci/pcie/aer.c (aer_stats_dev_attr).
"""

import re

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["aer_counters", "link_speed", "link_width", "own_link_width"]

_SPEED = re.compile(rb"(\d{1,3})(?:\.(\d))? GT/s(?: PCIe)?\n?")
_UNKNOWN_SPEED = frozenset({b"Unknown", b"Unknown speed", b"Unknown\n", b"Unknown speed\n"})
_UNKNOWN_WIDTH = 0xFF
_LONGEST_NAME = 48
_MOST_COUNTERS = 64


def link_speed(content: bytes) -> tuple[float | None]:
    """`16.0 GT/s PCIe` -> (transfers per second,); `Unknown` -> (None,); raises Malformed."""
    found = _SPEED.fullmatch(content)
    if found is not None:
        whole, tenth = found.groups()
        return (int(whole) * 1e9 + int(tenth or 0) * 1e8,)
    if content in _UNKNOWN_SPEED:
        return (None,)
    raise Malformed("empty" if not content.strip() else "format")


def link_width(content: bytes) -> tuple[float | None]:
    """Lanes; 255 is PCIE_LNK_WIDTH_UNKNOWN (include/linux/pci.h) -> (None,); raises Malformed."""
    width = integer(content)
    if width == _UNKNOWN_WIDTH:
        return (None,)
    if not 0 <= width <= 64:
        raise Malformed("out_of_range")
    return (float(width),)


def own_link_width(content: bytes) -> tuple[float | None]:
    """Lanes of the link a function that is no bridge sits at; (None,) where it has none; raises Malformed.

    A root complex integrated endpoint has no Link Status register: pcie_capability_read_word
    (drivers/pci/access.c) makes 0 of it. What a bridge says of the link below it may be 0: nobody is there.
    """
    width = link_width(content)
    return width if width[0] else (None,)


def aer_counters(content: bytes) -> tuple[tuple[tuple[str, int], ...], int | None]:
    """Lines `name count` of an `aer_dev_*` file: ((name, count), ...) and the TOTAL line's count.

    Names have no blanks in today's kernels and have some in the ABI document: the count is what follows the
    last one. A name seen twice is added up, so that one name is one series. The total may differ from the sum:
    one message can carry several bits. Raises Malformed.
    """
    counters: dict[str, int] = {}
    total: int | None = None
    for line in content.splitlines():
        if not line.strip():
            continue
        name, separator, count = line.rpartition(b" ")
        name = name.strip()
        if not separator or not name or len(name) > _LONGEST_NAME or not name.isascii():
            raise Malformed("format")
        value = integer(count)
        if value < 0:
            raise Malformed("out_of_range")
        if name.startswith(b"TOTAL_ERR"):
            total = value
            continue
        word = name.decode("ascii")
        counters[word] = counters.get(word, 0) + value
        if len(counters) > _MOST_COUNTERS:
            raise Malformed("oversized")
    if not counters and total is None:
        raise Malformed("empty")
    return tuple(counters.items()), total
