"""amdgpu's lists of clock and link levels: `pp_dpm_sclk`, `pp_dpm_pcie` and their like.

A line is `1: 1000Mhz *`, the star marking the level in use; `S: 19Mhz *` is deep sleep; PCIe levels read
`1: 16.0GT/s, x16 619Mhz *`, on some ASICs without the clock. SMUs with fine-grained clocks print the present
clock as a level between the lowest and the highest. An ASIC without the clock prints an empty line.

drivers/gpu/drm/amd/pm/amdgpu_pm.c, "pp_dpm_sclk"; drivers/gpu/drm/amd/pm/swsmu/*/*_ppt.c.
"""

import re

from gpudaemon.errors import Malformed

__all__ = ["clock_levels", "pcie_levels"]

_CLOCK = re.compile(rb"(\d{1,3}|S): (\d{1,7})Mhz *(\*?)", re.IGNORECASE)
_CLOCKS = re.compile(rb"(?:(?:\d{1,3}|S): \d{1,7}Mhz *\*?(?:\n|\Z)| *\n)*", re.IGNORECASE)
"""The whole list at once: a card has seven of them, read every tick, and line by line costs a fifth more."""
_PCIE = re.compile(rb"\d{1,3}: (\d{1,3})(?:\.(\d))?GT/s, x(\d{1,2})(?: +(\d{1,7})Mhz)? *(\*?)", re.IGNORECASE)
_MOST_LEVELS = 64


def _lines(content: bytes) -> list[bytes]:
    if len(content) > 4096:
        raise Malformed("oversized")
    lines = [line for line in content.split(b"\n") if line.strip()]
    if len(lines) > _MOST_LEVELS:
        raise Malformed("oversized")
    return lines


def clock_levels(content: bytes) -> tuple[float | None, float | None]:
    """(clock in use, highest clock), in hertz; None where not known; raises Malformed.

    Several levels may be starred: they count when they name the same clock.
    """
    if len(content) > 4096:
        raise Malformed("oversized")
    if _CLOCKS.fullmatch(content) is None:
        raise Malformed("format")
    levels = _CLOCK.findall(content)
    if len(levels) > _MOST_LEVELS:
        raise Malformed("oversized")
    clocks = [int(megahertz) for level, megahertz, _ in levels if level.isdigit()]
    active = {int(megahertz) for _, megahertz, star in levels if star}
    now = active.pop() * 1e6 if len(active) == 1 else None
    return now, max(clocks) * 1e6 if clocks else None


def pcie_levels(content: bytes) -> tuple[float | None, float | None]:
    """(transfers per second, lanes) of the PCIe level in use; None where not known; raises Malformed."""
    active: set[tuple[float, float]] = set()
    for line in _lines(content):
        found = _PCIE.fullmatch(line)
        if found is None:
            raise Malformed("format")
        whole, tenth, lanes, _, star = found.groups()
        if star:
            active.add((int(whole) * 1e9 + int(tenth or 0) * 1e8, float(lanes)))
    return active.pop() if len(active) == 1 else (None, None)
