"""The memory controller of cgroup version 2: memory.stat, memory.numa_stat.

Documentation/admin-guide/cgroup-v2.rst (Memory Interface Files), mm/memcontrol.c (memory_stat_format,
memory_numa_stat_show). Which lines there are differs from kernel to kernel.
"""

from collections.abc import Collection

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["EVENTS", "KINDS", "by_node", "stat"]

EVENTS = frozenset(
    {
        *("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive"),
        *("pgpromote_success", "numa_pages_migrated", "numa_hint_faults", "numa_pte_updates"),
        *("pgfault", "pgmajfault", "pswpin", "pswpout"),
        *(f"workingset_{what}_{of}" for what in ("refault", "activate", "restore") for of in ("anon", "file")),
    }
)
"""Lines of memory.stat that are counters of what moved."""
KINDS = frozenset({"anon", "file", "shmem"})
"""Lines of memory.numa_stat."""
_MOST_LINES = 512
_MOST_NODES = 1024


def stat(content: bytes, wanted: Collection[str]) -> dict[str, int]:
    """Those of the lines `name value` that are wanted and there; raises Malformed."""
    found = {}
    lines = content.split(b"\n")
    if len(lines) > _MOST_LINES:
        raise Malformed("format")
    for line in lines:
        name, blank, value = line.partition(b" ")
        key = name.decode("ascii", "replace")
        if not blank:
            if line:
                raise Malformed("format")
        elif key in wanted:
            found[key] = _size(value)
    return found


def by_node(content: bytes, wanted: Collection[str]) -> dict[str, dict[str, int]]:
    """Kind -> node -> bytes of lines such as `anon N0=4096 N1=0`; raises Malformed."""
    found: dict[str, dict[str, int]] = {}
    for line in content.split(b"\n")[:_MOST_LINES]:
        kind, *nodes = line.split(b" ")
        key = kind.decode("ascii", "replace")
        if key not in wanted:
            continue
        if not nodes or len(nodes) > _MOST_NODES:
            raise Malformed("format")
        sizes = found.setdefault(key, {})
        for node in nodes:
            name, equals, value = node.partition(b"=")
            if name[:1] != b"N" or not name[1:].isdigit() or len(name) > 6 or not equals:
                raise Malformed("format")
            sizes[name[1:].decode("ascii")] = _size(value)
    return found


def _size(digits: bytes) -> int:
    value = integer(digits)
    if value < 0:
        raise Malformed("out_of_range")
    return value
