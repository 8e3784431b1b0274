"""Whose work each GPU does: the scout's table becomes rosters, what they read becomes accounts and rows.

Owner of everything here is the device: with it go its roster, its accounts and its rows.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpudaemon.collectors.drm_client.accounts import Accounts, Reading
from gpudaemon.collectors.drm_client.compute import Compute, ComputeReading, measure_of, number
from gpudaemon.errors import Malformed
from gpudaemon.metrics import drm_client as rows
from gpudaemon.model.attribute import Row
from gpudaemon.model.snapshot import Samples
from gpudaemon.parsers.cgroup import Owner
from gpudaemon.pipeline.link import ReaderLink, Record
from gpudaemon.pipeline.plan import GATE
from gpudaemon.pipeline.rendered import Rendered
from gpudaemon.pipeline.roster import DEPTH, OFTEN, SELDOM, Member, Roster
from gpudaemon.pipeline.sampler import Entry, Sampler
from gpudaemon.reader.channel import GROUPS, LaneMemory, RecordKind

__all__ = ["Clients", "Wanted"]

_log = logging.getLogger(__name__)
_SELDOM = 75.0
"""Seconds between looks at duplicates; files read so seldom do not stay open (`reader.lanes.KEEP_OPEN`)."""
_WORST_FRESHNESS = 3.0
_MOST_OWNERS = 4096
_MOST_LINES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """period: seconds between looks. owners: most told apart on a device. top: most processes. files: most of
    one device. limit: most series of one device. rings: whether io_uring is looked at too. clients: whether
    GPUs are. cgroups: whether the memory of their cgroups is. events: whether the kernel is asked to tell of
    processes. kubelet: its socket, empty: it is not asked. log: whether the kernel's log is read for trouble.
    served: whether a metric is."""

    period: float = 5.0
    owners: int = 256
    top: int = 0
    files: int = 4096
    limit: int = 5000
    deadline: float = 1.0
    rings: bool = True
    clients: bool = True
    cgroups: bool = True
    events: bool = True
    kubelet: str = ""
    log: bool = False
    served: Callable[[str], bool] | None = None


class _Device:
    """What is kept of one device. at: when its rows were made; since: unix time its counters began."""

    def __init__(self, id_: str, wanted: Wanted) -> None:
        self.accounts = Accounts(id_, owners=wanted.owners, top=wanted.top)
        self.compute = Compute(id_, owners=wanted.owners)
        self.roster: Roster | None = None
        self.members: list[Member] = []
        self.rendered = Rendered(time.time())
        self.at = 0.0
        self.has_compute = False
        self.owners: dict[tuple[int, int], str] = {}


class Clients:
    """See the module. clock: CLOCK_MONOTONIC, for tests."""

    def __init__(
        self,
        sampler: Sampler,
        link: ReaderLink,
        *,
        procfs: str,
        sysfs: str,
        wanted: Wanted,
        ask: Callable[[list[int]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sampler = sampler
        self._link = link
        self._procfs = procfs
        self._sysfs = sysfs
        self._wanted = wanted
        self._ask = ask
        self._clock = clock
        self._devices: dict[str, _Device] = {}
        self._by_number: dict[int, Roster] = {}
        self._owners: dict[str, Owner] = {}
        self._users: list[list[Any]] = []
        self._kfd: list[list[Any]] = []
        self._next_users: list[list[Any]] = []
        self._next_kfd: list[list[Any]] = []
        self._memory: list[tuple[str, str, str, str, float]] = []
        self._next_memory: list[tuple[str, str, str, str, float]] = []
        self._capacity: dict[tuple[str, str], float] = {}
        self._next_capacity: dict[tuple[str, str], float] = {}
        self._homes: dict[str, str] = {}
        self._info = Rendered(time.time())
        self._told_at = 0.0
        sampler.visitors = self.take
        sampler.reader_changed = self._reader_started

    # The scout speaks

    def message(self, message: Mapping[str, Any]) -> None:
        """Take one message of the scout."""
        if "users" in message:
            self._next_users += message["users"]
        elif "kfd" in message:
            self._next_kfd += message["kfd"]
        elif "capacity" in message:
            self._next_capacity.update(
                {(device, region): float(size) for device, region, size in message["capacity"]}
            )
        elif "memory" in message:
            self._take_memory(message["memory"])
        elif "cycle" in message:
            if message["changed"]:
                self._users, self._kfd = self._next_users, self._next_kfd
            self._next_users, self._next_kfd = [], []
            self._memory, self._next_memory = self._next_memory, []
            self._capacity, self._next_capacity = self._next_capacity, {}
            self._told_at = self._clock()
            if self._wanted.clients:
                opened: Counter[str] = Counter()
                for _, _, nodes in self._users:
                    opened.update({node: len(descriptors) for node, descriptors in nodes.items()})
                self._sampler.clients_told(opened, self._told_at)
            self.settle()

    def owner_of(self, device: str, pid: int) -> str:
        """Who a process that has the device open belongs to; empty where that is not known."""
        known = self._devices.get(device)
        owners = known.owners.items() if known is not None else ()
        return next((owner for (one, _), owner in owners if one == pid), "")

    def settle(self) -> None:
        """Make the rosters those of the table and of the devices that are there."""
        if not self._told_at:
            return  # nobody known to use a device is not yet nobody who does
        entries = self._sampler.entries if self._wanted.clients else {}
        for id_ in [id_ for id_ in self._devices if id_ not in entries]:
            self._close(self._devices.pop(id_))
        members = self._members(entries)
        for id_, entry in entries.items():
            if not entry.device.nodes and id_ not in members:
                continue
            device = self._devices.get(id_)
            if device is None:
                device = self._devices[id_] = _Device(id_, self._wanted)
            wanted = members.get(id_, [])
            if not wanted:
                self._nobody(device)
            elif wanted != device.members or device.roster is None:
                self._open(entry, device, wanted)

    def _members(self, entries: Mapping[str, Entry]) -> dict[str, list[Member]]:
        """Who uses which device, by the nodes and by KFD's word."""
        nodes = {node: id_ for id_, entry in entries.items() for node in entry.device.nodes}
        nodes |= {node: id_ for node, id_ in self._homes.items() if node in nodes and id_ in entries}
        found: dict[str, dict[tuple[int, int], Member]] = {}
        for pid, started, opened in self._users:
            for node, descriptors in opened.items():
                id_ = nodes.get(node)
                if id_ is not None and started:
                    member = found.setdefault(id_, {}).setdefault((pid, started), Member(pid, started))
                    member.descriptors = tuple(sorted((*member.descriptors, *descriptors)))
        for pid, files, queues, started in self._kfd:
            for id_, paths in files.items():
                if id_ in entries and started:
                    member = found.setdefault(id_, {}).setdefault((pid, started), Member(pid, started))
                    member.kfd = tuple(path for path in paths if measure_of(path))
                    member.queues = {kind: count for device, kind, count in queues if device == id_}
        return {id_: list(members.values()) for id_, members in found.items()}

    def _take_memory(self, cgroups: Iterable[Any]) -> None:
        for owner, sizes in cgroups:
            known = Owner(*owner)
            self._know(known)
            for kind, device, region, size in sizes:
                self._next_memory.append((device, known.key, region, kind, float(size)))

    # Rosters come and go

    def _open(self, entry: Entry, device: _Device, members: list[Member]) -> None:
        before = device.roster
        if before is not None and before.hung:
            return  # a further lane would leave one more read in its driver
        gate = f"{self._sysfs}/{entry.device.path}/{GATE}" if GATE in entry.device.names else ""
        roster = Roster(
            entry.device.id,
            members,
            procfs=self._procfs,
            kfd=f"{self._sysfs}/class/kfd/kfd/proc",
            gate=gate,
            most=self._wanted.files,
        )
        roster.inherit(before)
        if roster.cut:
            entry.figures.rows_dropped += roster.cut
        self._close(device)
        device.members, device.roster = members, roster
        if entry.held is None:
            self._send(roster)

    def _send(self, roster: Roster) -> None:
        roster.number = self._sampler.next_number()
        plan = {
            "lane": roster.number,
            "device": roster.device,
            "deadline": self._wanted.deadline,
            "gate": roster.gated,
            "paths": roster.paths,
            "limits": roster.limits,
            "depth": DEPTH,
            "guest": True,
        }
        descriptor = LaneMemory.create(plan, roster.groups(), self._periods())
        roster.memory = LaneMemory(descriptor)
        self._link.send_lane(descriptor)
        self._by_number[roster.number] = roster

    def _periods(self) -> list[float]:
        periods = [_SELDOM] * GROUPS
        periods[OFTEN] = self._wanted.period
        periods[SELDOM] = max(_SELDOM, self._wanted.period)
        return periods

    def _close(self, device: _Device) -> None:
        roster = device.roster
        if roster is not None and roster.number:
            self._by_number.pop(roster.number, None)
            self._link.drop_lane(roster.number)
        device.roster, device.members = None, []

    def _nobody(self, device: _Device) -> None:
        """Nobody has the device open: its sums stay."""
        if device.roster is not None and device.roster.hung:
            return
        self._close(device)
        now = self._clock()
        device.owners = {}
        device.accounts.update(now, (), device.accounts.clients)
        if device.has_compute:
            device.compute.update(now, [])
        self._render(device, now)

    def _reader_started(self) -> None:
        """A new reader: hand it every roster, but of devices that a former one holds."""
        self._by_number.clear()
        for id_, device in self._devices.items():
            roster, entry = device.roster, self._sampler.entries.get(id_)
            if roster is None or entry is None:
                continue
            roster.hung = ""
            entry.visitor, entry.visitor_since = "", 0.0
            roster.number = 0
            if entry.held is None:
                self._send(roster)
            else:
                device.roster, device.members = None, []

    def reconfigure(self, wanted: Wanted) -> None:
        """Go over to other options; sums stay."""
        self._wanted = wanted
        for device in self._devices.values():
            device.accounts.top = wanted.top
            device.accounts.owners_most = device.compute.owners_most = wanted.owners
            if device.roster is not None and not device.roster.hung:
                self._close(device)
        self.settle()

    # The reader speaks

    def take(self, record: Record) -> None:
        """Take one record of a guest."""
        kind, _, index, number, groups, _, chain, started, _ = record
        roster = self._by_number.get(number)
        if roster is None:
            return
        entry, device = self._sampler.entries.get(roster.device), self._devices.get(roster.device)
        if entry is None or device is None or roster is not device.roster:
            return
        if kind == RecordKind.FINISHED and groups:
            if roster.take(groups, chain):
                self._account(entry, device, roster, started, whole=bool(groups >> OFTEN & 1))
            else:
                entry.figures.ticks_missed += 1
        elif kind == RecordKind.HUNG:
            roster.hung = roster.paths[index]
            self._sampler.visitor_hangs(entry, roster.hung, started)
        elif kind == RecordKind.RESUMED:
            roster.hung = ""
            for holder in roster.holders:
                holder.raw = None
            self._sampler.visitor_hangs(entry, "", 0.0)
        if entry.lane is not None and roster.memory is not None and roster.gated:
            roster.memory.rest_until = entry.lane.memory.rest_until

    def _account(self, entry: Entry, device: _Device, roster: Roster, at: float, *, whole: bool) -> None:
        if roster.lost:
            self._ask(sorted(roster.lost))
        if not whole:
            return
        for reason, count in roster.malformed.items():
            entry.figures.malformed[reason] = entry.figures.malformed.get(reason, 0) + count
        roster.malformed.clear()
        for state in roster.states.values():
            self._know(state.owner)
        readings = []
        for holder, client in roster.clients():
            self._learn_home(roster.device, client.address, holder.descriptor, holder.member)
            state = roster.states[holder.member.key]
            readings.append(Reading(at, holder.member.key, state.name, state.owner.key, client))
        present = roster.identifiers()
        before = device.accounts.dropped
        device.accounts.update(at, readings, device.accounts.clients - present)
        entry.figures.rows_dropped += device.accounts.dropped - before
        device.owners = {key: state.owner.key for key, state in roster.states.items() if state.alive}
        self._compute(device, roster, at)
        self._render(device, at)

    def _compute(self, device: _Device, roster: Roster, at: float) -> None:
        readings = []
        for member, contents in roster.of_kfd():
            values: dict[str, int] = {}
            for path, raw in contents.items():
                try:
                    measure = measure_of(path)
                    # Partitions of one GPU have a file each.
                    values[measure] = values.get(measure, 0) + number(raw)
                except Malformed:
                    continue
            owner = roster.states[member.key].owner.key
            readings.append(ComputeReading(member.key, owner, values, member.queues))
        if readings or device.has_compute:
            device.has_compute = True
            device.compute.update(at, readings)

    def _learn_home(self, device: str, address: str, descriptor: int, member: Member) -> None:
        """A node of a partition leads to the whole GPU (drivers/gpu/drm/amd/amdxcp): that is its lane."""
        if not address or address == device or address not in self._sampler.entries or len(self._homes) > 1024:
            return
        for pid, started, opened in self._users:
            if (pid, started) == member.key:
                for node, descriptors in opened.items():
                    if descriptor in descriptors:
                        self._homes[node] = address

    def _know(self, owner: Owner) -> None:
        if owner.key not in self._owners and len(self._owners) >= _MOST_OWNERS:
            used = {key for device in self._devices.values() for key in device.accounts.owners()}
            used |= {key for device in self._devices.values() for key in device.compute.owners()}
            self._owners = {key: one for key, one in self._owners.items() if key in used}
            if len(self._owners) >= _MOST_OWNERS:
                return
        self._owners.setdefault(owner.key, owner)

    # What is known

    def _render(self, device: _Device, at: float) -> None:
        self._sampler.version += 1
        device.at = at
        found: list[Row] = list(device.accounts.rows())
        counts: Counter[str] = Counter()
        for member in device.members:
            counts[device.owners.get(member.key, "unknown")] += len(member.descriptors)
        id_ = device.accounts.device
        found += [(rows.DESCRIPTORS, (id_, owner), float(count)) for owner, count in counts.items() if count]
        if device.has_compute:
            found += device.compute.rows()
        device.rendered.take(found, self._wanted.limit, self._wanted.served)

    def series_dropped(self, device: str) -> int:
        """Series of a device's clients beyond `limit`, which are not served."""
        known = self._devices.get(device)
        return known.rendered.cut if known is not None else 0

    def samples(self, now: float, owners: Iterable[Owner] = ()) -> list[Samples]:
        """A part of a snapshot for each device with clients to account for, and one of owners.

        owners: those that other rows name.
        """
        fresh = max(3 * self._wanted.period, _WORST_FRESHNESS)
        parts = []
        keys: set[str] = set()
        for owner in owners:
            self._know(owner)
            keys.add(owner.key)
        for id_, device in self._devices.items():
            if device.at and now - device.at <= fresh:
                parts.append(device.rendered.samples(id_))
                keys.update(device.accounts.owners())
                keys.update(device.compute.owners())
                keys.update(device.owners.values())
        host: list[Row] = []
        if self._told_at and now - self._told_at <= fresh:
            sums: dict[tuple[str, ...], float] = {}
            for device_id, key, region, kind, size in self._memory:
                keys.add(key)
                label = (device_id, key, region, kind)
                sums[label] = sums.get(label, 0.0) + size
            host += [(rows.DMEM, label, size) for label, size in sums.items()]
            host += [(rows.DMEM_CAPACITY, label, size) for label, size in self._capacity.items()]
        host += [(rows.OWNER_INFO, self._labels(key), 1.0) for key in sorted(keys)]
        if host:
            self._info.take(host, _MOST_LINES, self._wanted.served)
            parts.append(self._info.samples(""))
        return parts

    def _labels(self, key: str) -> tuple[str, ...]:
        owner = self._owners.get(key) or Owner(key, "cgroup")
        return (
            owner.key,
            owner.kind,
            owner.unit,
            owner.container,
            owner.runtime,
            owner.pod,
            owner.qos,
            owner.job,
            owner.step,
            owner.machine,
            owner.path[:256],
        )

    def close(self) -> None:
        """Let every roster go."""
        for device in self._devices.values():
            self._close(device)
        self._devices.clear()
