"""The files of one GPU's clients: read by the reader as a guest in the lane of their device.

Of each process that has the GPU open: the fdinfo of its descriptors, what KFD says of it, then its stat and its
cgroup. stat is read last and kept open, and an open file of /proc belongs to its process and not to the number
(fs/proc/base.c): where it still tells the moment of start that the scout saw, all that was read before it is
that process's. Where it does not, or cannot be read, the process is another one or gone and nothing of it
counts.

A client that several descriptors hold is read through one of them: of the youngest process at first sight, and
that one as long as it holds it. The others are looked at seldom, to know that they are still duplicates.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.parsers.cgroup import NOBODY, Owner, cgroup_owner
from gpudaemon.parsers.fdinfo import Client, client_id, drm_client
from gpudaemon.parsers.process import process_stat
from gpudaemon.reader.channel import LaneMemory

__all__ = ["OFTEN", "SELDOM", "Holder", "Member", "Roster"]

OFTEN, SELDOM = 2, 1
"""Groups of the reader: what is read in each cycle, and what is looked at about once a minute."""
FDINFO, KFD, STAT, CGROUP = "fdinfo", "kfd", "stat", "cgroup"
_LIMITS = {FDINFO: 4096, KFD: 64, STAT: 1024, CGROUP: 8192}
DEPTH = 2


@dataclass(slots=True)
class Member:
    """A process that uses the GPU. descriptors: of its nodes. kfd: paths of its files there."""

    pid: int
    started: int
    descriptors: tuple[int, ...] = ()
    kfd: tuple[str, ...] = ()
    queues: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from a later process of the same number."""
        return self.pid, self.started


@dataclass(slots=True)
class Holder:
    """One file. identifier: of the client it last showed, None for none. raw: what it last said. decoded:
    whether that was decoded, with whatever came of it."""

    index: int
    kind: str
    path: str
    member: Member
    descriptor: int = -1
    group: int = OFTEN
    raw: bytes | None = None
    identifier: int | None = None
    client: Client | None = None
    decoded: bool = False


@dataclass(slots=True)
class _State:
    """What is known of a member. alive: its stat said so in the last cycle."""

    alive: bool = False
    name: str = ""
    owner: Owner = NOBODY


class Roster:
    """See the module. The lane's memory is made by whoever hands it to the reader.

    malformed: counts by reason.
    """

    def __init__(
        self, device: str, members: Iterable[Member], *, procfs: str, kfd: str, gate: str, most: int
    ) -> None:
        self.device = device
        self.number = 0
        self.memory: LaneMemory | None = None
        self.gated = bool(gate)
        self.paths = [gate] if gate else []
        self.limits = [32] if gate else []
        self.hung = ""
        self.members: list[Member] = []
        self.holders: list[Holder] = []
        self.states: dict[tuple[int, int], _State] = {}
        self.cut = 0
        self.malformed: dict[str, int] = {}
        self.lost: set[int] = set()
        for member in members:
            if len(self.paths) + len(member.descriptors) + len(member.kfd) + 2 > most:
                self.cut += len(member.descriptors)
                continue
            self._add(member, procfs, kfd)

    def _add(self, member: Member, procfs: str, kfd: str) -> None:
        base = f"{procfs}/{member.pid}"
        self.members.append(member)
        self.states[member.key] = _State()
        for descriptor in member.descriptors:
            self._file(FDINFO, f"{base}/fdinfo/{descriptor}", member, descriptor)
        for path in member.kfd:
            self._file(KFD, f"{kfd}/{member.pid}/{path}", member)
        self._file(STAT, f"{base}/stat", member)
        self._file(CGROUP, f"{base}/cgroup", member)

    def _file(self, kind: str, path: str, member: Member, descriptor: int = -1) -> None:
        self.holders.append(Holder(len(self.paths), kind, path, member, descriptor))
        self.paths.append(path)
        self.limits.append(_LIMITS[kind])

    def groups(self) -> list[int]:
        """The group of each file, as a lane's memory wants it."""
        return ([0] if self.gated else []) + [holder.group for holder in self.holders]

    def inherit(self, before: "Roster | None") -> None:
        """Take over what a roster before knew of the same descriptors of the same processes."""
        if before is None:
            return
        known = {(holder.member.key, holder.path): holder for holder in before.holders}
        for holder in self.holders:
            old = known.get((holder.member.key, holder.path))
            if old is not None:
                holder.raw, holder.identifier, holder.client = old.raw, old.identifier, old.client
                holder.group, holder.decoded = old.group, old.decoded
        for key in self.states.keys() & before.states.keys():
            self.states[key] = before.states[key]
        self.malformed = before.malformed

    def take(self, groups: int, chain: int) -> bool:
        """Take over what a chain read; False where it was overwritten meanwhile."""
        memory = self.memory
        assert memory is not None
        lengths = memory.lengths[chain % memory.depth].tolist()
        read = [
            (holder, memory.content(chain, holder.index, lengths[holder.index]) if length >= 0 else None)
            for holder in self.holders
            if groups >> holder.group & 1
            for length in (lengths[holder.index],)
        ]
        if not memory.intact(chain):
            return False
        self.lost.clear()
        self._take_states(read, whole=bool(groups >> OFTEN & 1))
        for holder, raw in read:
            if holder.kind in (FDINFO, KFD):
                self._take_one(holder, raw)
        self._arrange()
        return True

    def _take_states(self, read: list[tuple[Holder, bytes | None]], *, whole: bool) -> None:
        """First whether each process is still the one it was."""
        if not whole:
            return
        for state in self.states.values():
            state.alive = False
        for holder, raw in read:
            state = self.states[holder.member.key]
            if holder.kind == STAT:
                try:
                    stat = process_stat(raw or b"")
                except Malformed:
                    self.lost.add(holder.member.pid)
                    continue
                if stat.started == holder.member.started and stat.state not in ("Z", "X"):
                    state.alive, state.name = True, stat.name
                else:
                    self.lost.add(holder.member.pid)
            elif holder.kind == CGROUP and raw is not None and raw != holder.raw:
                holder.raw = raw
                try:
                    state.owner = cgroup_owner(raw)
                except Malformed as error:
                    self._count(error)

    def _take_one(self, holder: Holder, raw: bytes | None) -> None:
        if raw is None:
            # The descriptor was closed: what it held may still be held by another.
            holder.raw = holder.identifier = holder.client = None
            self.lost.add(holder.member.pid)
            return
        if raw == holder.raw:
            return
        holder.raw, holder.decoded = raw, False
        if holder.kind == KFD:
            return
        identifier = client_id(raw)
        if identifier != holder.identifier:
            holder.client = None
        holder.identifier = identifier
        if identifier is None or holder.group == SELDOM:
            return
        self._decode(holder, raw)

    def _decode(self, holder: Holder, raw: bytes) -> None:
        holder.decoded = True
        try:
            if len(raw) >= _LIMITS[FDINFO]:
                raise Malformed("oversized")
            holder.client = drm_client(raw)
        except Malformed as error:
            holder.client = None
            self._count(error)

    def _count(self, error: Malformed) -> None:
        self.malformed[error.reason] = self.malformed.get(error.reason, 0) + 1

    def _arrange(self) -> None:
        """Have each client read through one descriptor; what has no client is looked at seldom."""
        by_client: dict[int, list[Holder]] = {}
        for holder in self.holders:
            if holder.kind != FDINFO:
                continue
            if holder.identifier is not None and self.states[holder.member.key].alive:
                by_client.setdefault(holder.identifier, []).append(holder)
            elif holder.raw is not None and holder.identifier is None:
                self._move(holder, SELDOM)
        for holders in by_client.values():
            often = [holder for holder in holders if holder.group == OFTEN]
            best = max(often or holders, key=lambda one: (one.member.started, one.member.pid, -one.descriptor))
            for holder in holders:
                self._move(holder, OFTEN if holder is best else SELDOM)
            if not best.decoded and best.raw is not None:
                self._decode(best, best.raw)

    def _move(self, holder: Holder, group: int) -> None:
        if holder.group != group:
            holder.group = group
            if self.memory is not None:
                self.memory.move(holder.index, group)

    # What is known

    def clients(self) -> Iterator[tuple[Holder, Client]]:
        """Clients of processes that are there, each once."""
        for holder in self.holders:
            if holder.client is not None and holder.group == OFTEN and self.states[holder.member.key].alive:
                yield holder, holder.client

    def identifiers(self) -> set[int]:
        """Clients that anybody holds."""
        return {
            holder.identifier
            for holder in self.holders
            if holder.identifier is not None and self.states[holder.member.key].alive
        }

    def of_kfd(self) -> Iterator[tuple[Member, dict[str, bytes]]]:
        """What KFD's files say, by process and path."""
        found: dict[tuple[int, int], dict[str, bytes]] = {}
        for holder in self.holders:
            if holder.kind == KFD and holder.raw is not None and self.states[holder.member.key].alive:
                path = holder.path.split(f"/{holder.member.pid}/", 1)[1]
                found.setdefault(holder.member.key, {})[path] = holder.raw
        for member in self.members:
            if member.kfd and member.key in found:
                yield member, found[member.key]
