"""amdgpu's lists of clock and link levels: `pp_dpm_sclk`, `pp_dpm_pcie` and their like.

A line is `1: 1000Mhz *`, the star marking the level in use; `S: 19Mhz *` is deep sleep; PCIe levels read
`1: 16.0GT/s, x16 619Mhz *`, on some ASICs without the clock. SMUs with fine-grained clocks print the present
clock as a level between the lowest and the highest. An ASIC without the clock prints an empty line.

drivers/gpu/drm/amd/pm/amdgpu_pm.c, "pp_dpm_sclk"; drivers/gpu/drm/amd/pm/swsmu/*/*_ppt.c.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

from gpudaemon.errors import Malformed

__all__ = ["clock_levels", "pcie_levels"]

_CLOCK = re.compile(rb"(\d{1,3}|S): (\d{1,7})Mhz *(\*?)", re.IGNORECASE)
_PCIE = re.compile(rb"\d{1,3}: (\d{1,3})(?:\.(\d))?GT/s, x(\d{1,2})(?: +(\d{1,7})Mhz)? *(\*?)", re.IGNORECASE)
_MOST_LEVELS = 64

Value = TypeVar("Value")


def _lines(content: bytes) -> list[bytes]:
    if len(content) > 4096:
        raise Malformed("oversized")
    lines = [line for line in content.split(b"\n") if line.strip()]
    if len(lines) > _MOST_LEVELS:
        raise Malformed("oversized")
    return lines


def _only(values: Iterable[Value]) -> Value | None:
    """The one value all starred levels share; None where they differ or none is starred."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def clock_levels(content: bytes) -> tuple[float | None, float | None]:
    """(clock in use, highest clock), in hertz; None where not known; raises Malformed.

    Several levels may be starred: they count when they name the same clock.
    """
    clocks: list[float] = []
    active: list[float] = []
    for line in _lines(content):
        found = _CLOCK.fullmatch(line)
        if found is None:
            raise Malformed("format")
        level, megahertz, star = found.groups()
        hertz = int(megahertz) * 1e6
        if level.isdigit():
            clocks.append(hertz)
        if star:
            active.append(hertz)
    return _only(active), max(clocks, default=None)


def pcie_levels(content: bytes) -> tuple[float | None, float | None]:
    """(transfers per second, lanes) of the PCIe level in use; None where not known; raises Malformed."""
    active: list[tuple[float, float]] = []
    for line in _lines(content):
        found = _PCIE.fullmatch(line)
        if found is None:
            raise Malformed("format")
        whole, tenth, lanes, _, star = found.groups()
        if star:
            active.append((int(whole) * 1e9 + int(tenth or 0) * 1e8, float(lanes)))
    level = _only(active)
    return (None, None) if level is None else level
