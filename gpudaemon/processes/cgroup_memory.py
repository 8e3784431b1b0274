"""Memory of cgroups that have GPU clients: what moved for them, on which nodes it is, how they wait for it.

Only cgroups of version 2, and of several that belong to one owner only the uppermost: figures of a cgroup
include those of the cgroups below it. Reading memory.stat adds up counters of processors (cgroup_rstat_flush),
so it is done seldom; it enters no driver.
"""

from collections.abc import Iterable
from typing import Any

from gpudaemon.errors import Malformed
from gpudaemon.parsers.cgroup import Owner, cgroup_paths, owner_of
from gpudaemon.parsers.cgroup_memory import EVENTS, KINDS, by_node, stat
from gpudaemon.parsers.vmstat import PRESSURE, pressure
from gpudaemon.processes.files import read

__all__ = ["CgroupMemory"]

_MOST_CGROUPS = 256
_TOTALS = tuple(place for place, (_, what) in enumerate(PRESSURE) if what == "total")


class CgroupMemory:
    """Looks when asked."""

    def __init__(self, procfs: str, sysfs: str) -> None:
        self._procfs = procfs
        self._roots = (f"{sysfs}/fs/cgroup/unified", f"{sysfs}/fs/cgroup")

    def look(self, pids: Iterable[int]) -> list[list[Any]]:
        """[owner's fields, path, events, bytes by kind and node, seconds of pressure] by cgroup.

        The seconds are [some, full], None where the kernel does not say.
        """
        found = []
        for path, owner in self._cgroups(pids).items():
            told = self._tell(path)
            if told is not None:
                found.append([_fields(owner), path, *told])
        return found

    def _cgroups(self, pids: Iterable[int]) -> dict[str, Owner]:
        """The uppermost cgroup, or cgroups, of each owner."""
        owners: dict[str, Owner] = {}
        for pid in pids:
            try:
                path = cgroup_paths(read(f"{self._procfs}/{pid}/cgroup") or b"")[0]
            except Malformed:
                continue
            # Of the root it is the host's memory, and what is outside of one's own namespace has no files here.
            if path != "/" and "/../" not in f"{path}/" and len(owners) < _MOST_CGROUPS:
                owners.setdefault(path, owner_of(path))
        return {path: owner for path, owner in owners.items() if not _is_below_one(path, owner, owners)}

    def _tell(self, path: str) -> list[Any] | None:
        for root in self._roots:
            content = read(f"{root}{path}/memory.stat")
            if content is None:
                continue
            try:
                events = stat(content, EVENTS)
                nodes = by_node(read(f"{root}{path}/memory.numa_stat") or b"", KINDS)
            except Malformed:
                return None
            return [events, nodes, self._pressure(f"{root}{path}/memory.pressure")]
        return None

    @staticmethod
    def _pressure(path: str) -> list[float | None]:
        try:
            said = pressure(read(path) or b"")
        except Malformed:
            return [None, None]
        return [said[place] for place in _TOTALS]


def _is_below_one(path: str, owner: Owner, others: dict[str, Owner]) -> bool:
    above = path.rpartition("/")[0]
    while above:
        if above in others and others[above].key == owner.key:
            return True
        above = above.rpartition("/")[0]
    return False


def _fields(owner: Owner) -> list[str]:
    return [getattr(owner, name) for name in Owner.__slots__]
