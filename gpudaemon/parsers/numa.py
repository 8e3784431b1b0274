"""NUMA nodes as sysfs describes them: lists of nodes and processors, and how full a node is.

`0-3,8` (cpulist, nodelist: bitmap_print_list, lib/bitmap-str.c); nothing but a newline is an empty list.
`Node 2 MemTotal:         262144 kB` (drivers/base/node.c, node_read_meminfo).
"""

import re

from gpudaemon.errors import Malformed

__all__ = ["memory", "node_list"]

_LIST = re.compile(r"\d{1,6}(?:-\d{1,6})?(?:,\d{1,6}(?:-\d{1,6})?)*", re.ASCII)
_LINE = re.compile(rb"Node \d{1,5} (MemTotal|MemUsed): +(\d{1,15}) kB", re.ASCII)
_LONGEST = 4096
_MOST = 65536
_KIB = 1024


def node_list(content: bytes) -> frozenset[int]:
    """The numbers of a list; raises Malformed."""
    text = content.decode("ascii", "replace").rstrip("\n")
    if not text:
        return frozenset()
    if len(text) > _LONGEST or _LIST.fullmatch(text) is None:
        raise Malformed("oversized" if len(text) > _LONGEST else "format")
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high or high >= _MOST:
            raise Malformed("out_of_range")
        found.update(range(low, high + 1))
    return frozenset(found)


def memory(content: bytes) -> tuple[float, float | None]:
    """(bytes of a node, bytes of it that are not free) of its `meminfo`; raises Malformed.

    A node that lost all its memory still says so: 0 kB.
    """
    found = {}
    for line in content.splitlines()[:8]:
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            found[match[1]] = int(match[2]) * _KIB
    if b"MemTotal" not in found:
        raise Malformed("format" if content else "empty")
    used = found.get(b"MemUsed")
    return float(found[b"MemTotal"]), None if used is None else float(used)
