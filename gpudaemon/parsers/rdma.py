"""What an RDMA port says of itself: state, physical state, rate, counters.

drivers/infiniband/core/sysfs.c (state_show, phys_state_show, rate_show, show_pma_counter),
Documentation/ABI/stable/sysfs-class-infiniband.
"""

import re
from collections.abc import Callable, Sequence

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["PHYSICAL_STATES", "STATES", "counter", "numbered", "rate"]

STATES = {0: "nop", 1: "down", 2: "init", 3: "armed", 4: "active", 5: "active_defer"}
"""enum ib_port_state."""
PHYSICAL_STATES = {
    1: "sleep",
    2: "polling",
    3: "disabled",
    4: "port_configuration_training",
    5: "link_up",
    6: "link_error_recovery",
    7: "phy_test",
}
"""enum ib_port_phys_state."""

_NUMBERED = re.compile(rb"(\d{1,3}): [^\n]{0,64}\n?")
_RATE = re.compile(rb"(\d{1,5})(?:\.(\d))? Gb/sec(?: \([^)\n]{0,32}\))?\n?")
_NONE = re.compile(rb"N/A[^\n]{0,32}\n?")


def numbered(states: dict[int, str]) -> Callable[[bytes], Sequence[float | None]]:
    """A decoder of `4: ACTIVE`: 1.0 for the state with that number, 0.0 for the others.

    A number that is none of `states` gives no value at all. Raises Malformed.
    """
    numbers = tuple(states)

    def decode(content: bytes) -> Sequence[float | None]:
        found = _NUMBERED.fullmatch(content)
        if found is None:
            raise Malformed("empty" if not content.strip() else "format")
        number = int(found.group(1))
        if number not in states:
            return (None,) * len(numbers)
        return tuple(float(one == number) for one in numbers)

    return decode


def rate(content: bytes) -> tuple[float]:
    """`400 Gb/sec (4X NDR)` -> (bytes per second,); raises Malformed."""
    found = _RATE.fullmatch(content)
    if found is None:
        raise Malformed("empty" if not content.strip() else "format")
    whole, tenth = found.groups()
    return ((int(whole) * 1e9 + int(tenth or 0) * 1e8) / 8,)


def counter(factor: int = 1) -> Callable[[bytes], tuple[float | None]]:
    """A decoder of a port counter, times `factor`; `N/A (no PMA)` -> (None,). It raises Malformed.

    Data counters count words of four octets (IBTA, PortXmitData): their factor is 4.
    """

    def decode(content: bytes) -> tuple[float | None]:
        if _NONE.fullmatch(content):
            return (None,)
        value = integer(content)
        if value < 0:
            raise Malformed("out_of_range")
        return (float(value * factor),)

    return decode
