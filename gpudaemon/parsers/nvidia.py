"""What NVIDIA's driver shows in /proc/driver/nvidia: `Key: value` lines, and the version's sentence.

Between colon and value are blanks and tabs. A value the driver does not know yet, as before the GPU was used
for the first time, is made of question marks.

NVIDIA open-gpu-kernel-modules, kernel-open/nvidia/nv-procfs.c.
"""

import re

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["NUMA_STATES", "driver_version", "entries", "numa_node", "numa_status"]

NUMA_STATES = (
    "disabled",
    "offline",
    "online_in_progress",
    "online",
    "online_failed",
    "offline_in_progress",
    "offline_failed",
)
"""Words of `Status:` in `numa_status`."""

_MOST = 64
_LONGEST = 128
_VERSION = re.compile(r"^NVRM version:.*?\s(\d{1,4}\.\d{1,4}(?:\.\d{1,4})?)(?:\s|$)", re.ASCII | re.MULTILINE)


def entries(content: bytes) -> dict[str, str]:
    """Values by key, the unknown ones left out; lines without a colon are none."""
    found: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").split("\n")[:_MOST]:
        key, colon, value = line.partition(":")
        value = value.strip()[:_LONGEST]
        if colon and key and value and "?" not in value:
            found[key.strip()[:_LONGEST]] = value
    return found


def driver_version(content: bytes) -> str:
    """The driver's version from /proc/driver/nvidia/version, empty where it is not there."""
    found = _VERSION.search(content.decode("ascii", "replace")[:4096])
    return found.group(1) if found is not None else ""


def numa_node(content: bytes) -> int | None:
    """The NUMA node of the GPU's memory; None where it has none; raises Malformed."""
    word = entries(content).get("Node", "")
    try:
        value = integer(word.encode("ascii", "replace"))
    except Malformed:
        raise Malformed("format") from None
    return value if value >= 0 else None


def numa_status(content: bytes) -> tuple[float | None, ...]:
    """The node, then 1.0 for the one of NUMA_STATES it is in; raises Malformed."""
    state = entries(content).get("Status", "")
    if state not in NUMA_STATES:
        raise Malformed("format")
    node = numa_node(content)
    return (None if node is None else float(node), *(float(state == one) for one in NUMA_STATES))
