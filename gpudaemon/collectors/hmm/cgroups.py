"""What moved for the cgroups that have GPU clients, added up by owner. Pure.

A cgroup's counters begin with the cgroup, so all they say is its owner's, also what they say when they are
seen first. When a cgroup goes its last figures stay in the owner's sums, which therefore never fall; an owner
without cgroups is kept for a quarter of an hour. Figures of a cgroup include those of the cgroups below it:
where another level of one owner's cgroups is told of than before, only what is new is added.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gpudaemon.metrics import memory as rows
from gpudaemon.model.attribute import Row

__all__ = ["CgroupReading", "Cgroups"]

_STAYS = 900.0
_PRESSURE = ("some", "full")


@dataclass(frozen=True, slots=True)
class CgroupReading:
    """One cgroup. events: line of memory.stat -> count. nodes: kind -> node -> bytes. pressure: some and full,
    seconds, None where not known."""

    path: str
    owner: str
    events: Mapping[str, int]
    nodes: Mapping[str, Mapping[str, int]]
    pressure: tuple[float | None, float | None]

    def counts(self) -> "_Counts":
        """Everything that only rises."""
        found = {("event", name): float(count) for name, count in self.events.items()}
        found |= {
            ("pressure", kind): seconds
            for kind, seconds in zip(_PRESSURE, self.pressure, strict=True)
            if seconds is not None
        }
        return found


_Counts = dict[tuple[str, str], float]


@dataclass(slots=True)
class _Sums:
    seen: float
    counts: _Counts = field(default_factory=dict)


class Cgroups:
    """Of the host. owners_most: beyond it owners go together as `others`."""

    def __init__(self, *, owners: int = 256) -> None:
        self.owners_most = owners
        self._sums: dict[str, _Sums] = {}
        self._last: dict[str, tuple[str, _Counts]] = {}
        self._nodes: Counter[tuple[str, str, str]] = Counter()

    def update(self, at: float, readings: Iterable[CgroupReading]) -> None:
        """Take one look at every cgroup there is to look at. at: seconds of any steady clock."""
        before, self._last = self._last, {}
        self._nodes.clear()
        for reading in readings:
            owner = self._owner(reading.owner, at)
            counts = reading.counts()
            known = self._known(before, reading.path, owner, counts)
            sums = self._sums[owner].counts
            for key, count in counts.items():
                past = known.get(key, 0.0)
                # One that fell is of another cgroup with the same name.
                sums[key] = sums.get(key, 0.0) + (count - past if count >= past else count)
            self._last[reading.path] = (owner, counts)
            for kind, sizes in reading.nodes.items():
                for node, size in sizes.items():
                    self._nodes[owner, node, kind] += size
        for owner in [owner for owner, one in self._sums.items() if at - one.seen > _STAYS]:
            del self._sums[owner]

    @staticmethod
    def _known(before: Mapping[str, tuple[str, _Counts]], path: str, owner: str, counts: _Counts) -> _Counts:
        """What is in the owner's sums already of what a cgroup says."""
        if path in before:
            known_owner, known = before[path]
            return known if known_owner == owner else {}
        below: _Counts = {}
        for other, (known_owner, known) in before.items():
            if known_owner == owner and path.startswith(f"{other}/"):
                return counts
            if known_owner == owner and other.startswith(f"{path}/"):
                for key, count in known.items():
                    below[key] = below.get(key, 0.0) + count
        return below

    def _owner(self, key: str, at: float) -> str:
        if key not in self._sums and len(self._sums) >= self.owners_most:
            key = "others"
        self._sums.setdefault(key, _Sums(at)).seen = at
        return key

    def owners(self) -> Iterator[str]:
        """Keys of the owners that have rows."""
        return iter(self._sums)

    def rows(self) -> Iterator[Row]:
        """Everything there is to publish."""
        for owner, sums in self._sums.items():
            for (what, name), count in sums.counts.items():
                metric = rows.CGROUP_EVENTS if what == "event" else rows.CGROUP_PRESSURE
                yield metric, (owner, name), count
        for (owner, node, kind), size in self._nodes.items():
            yield rows.CGROUP_NODE, (owner, node, kind), float(size)
