"""What the clients of one GPU used, added up. Pure: readings in, rows out.

Sums add the increments that were seen, never present values, so none falls when a process ends. What a client
had used when it was first seen counts if it was not there at the look before; at the daemon's own first look
nobody's past does. A counter that steps back is held at its highest value (Documentation/gpu/
drm-usage-stats.rst allows drivers that).

Busy time comes from nanoseconds where a driver gives them (amdgpu, i915, panfrost, msm); else from cycles
against a clock that runs for all alike (xe): their share of that clock, times the time that went by; else from
cycles and the highest frequency.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gpudaemon.metrics import drm_client as rows
from gpudaemon.model.attribute import Row
from gpudaemon.parsers.fdinfo import Client, Engine

__all__ = ["OTHERS", "Accounts", "Reading"]

OTHERS = "others"
"""Owner of what is beyond the bound of owners."""
_MOST_CLIENTS = 4096
_MOST_ENGINES = 64
_MOST_PROCESSES = 8192
_OWNER_STAYS = 900.0
"""Seconds an owner's sums outlive its last client."""
_HALF_LIFE = 60.0
"""Seconds in which past use counts half as much for who is among the first."""
_NANO = 1e-9

ProcessKey = tuple[int, int]
"""pid and moment of start"""


def _seconds_by() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one client said at `at`, and whose it is."""

    at: float
    process: ProcessKey
    name: str
    owner: str
    client: Client


@dataclass(slots=True)
class _Known:
    """A client. highest: of its counters by engine. total: the clock's by engine. owed: cycles of an engine
    that cannot be told in seconds yet."""

    at: float
    owner: str
    process: ProcessKey
    client: Client
    highest: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    owed: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    """seen: when its owner had a client last. busy: seconds by engine. recent: decayed use, for the order."""

    seen: float
    name: str = ""
    owner: str = ""
    busy: defaultdict[str, float] = field(default_factory=_seconds_by)
    recent: float = 0.0


class Accounts:
    """See the module. device: id. owners: most owners told apart. top: most processes, 0 for none."""

    def __init__(self, device: str, *, owners: int = 256, top: int = 0) -> None:
        self.device = device
        self.top = top
        self.owners_most = owners
        self._clients: dict[int, _Known] = {}
        self._looked = False
        self._frequency = 0.0
        self._at = 0.0
        self._busy: defaultdict[str, float] = defaultdict(float)
        self._cycles: Counter[str] = Counter()
        self._capacity: dict[str, int] = {}
        self._max_hertz: dict[str, int] = {}
        self._owners: dict[str, _Sums] = {}
        self._processes: dict[ProcessKey, _Sums] = {}
        self._rest: defaultdict[str, float] = defaultdict(float)
        self._first: list[ProcessKey] = []
        self._interval = 0.0
        self._last: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.seen = 0
        self.dropped = 0

    @property
    def clients(self) -> frozenset[int]:
        """The clients that are there."""
        return frozenset(self._clients)

    def update(self, at: float, readings: Iterable[Reading], ended: Iterable[int] = ()) -> None:
        """Take one look at all clients: what they say, and which are not there any more."""
        self._interval = at - self._at if self._looked else 0.0
        self._at = at
        self._last.clear()
        spent: defaultdict[tuple[ProcessKey, str], float] = defaultdict(float)
        for reading in readings:
            known = self._clients.get(reading.client.identifier)
            if known is None:
                known = self._begin(reading)
                if known is None:
                    continue
            for name, engine in reading.client.engines.items():
                seconds = self._seconds(known, name, engine, reading.at)
                if seconds:
                    self._last[reading.owner, name] += seconds
                    spent[reading.process, name] += seconds
            known.at, known.client = reading.at, reading.client
            known.owner, known.process = self._owner(reading.owner, at), reading.process
            if self.top:
                self._process(reading, at)
        for identifier in ended:
            self._clients.pop(identifier, None)
        self._add(at, spent)
        self._forget(at)
        self._looked = True

    def _begin(self, reading: Reading) -> _Known | None:
        """A client is seen for the first time."""
        if len(self._clients) >= _MOST_CLIENTS:
            self.dropped += 1
            return None
        self.seen += 1
        known = _Known(reading.at, reading.owner, reading.process, reading.client)
        for name, engine in reading.client.engines.items():
            if not self._looked:
                # Its past is not this daemon's to tell.
                known.highest[name] = engine.busy if engine.busy is not None else engine.cycles or 0
            if engine.total_cycles is not None:
                known.total[name] = engine.total_cycles
        self._clients[reading.client.identifier] = known
        return known

    def _seconds(self, known: _Known, name: str, engine: Engine, at: float) -> float:
        """Seconds an engine class worked for a client since its last reading."""
        if name not in self._capacity and len(self._capacity) >= _MOST_ENGINES:
            return 0.0
        self._capacity[name] = max(engine.capacity, 1)
        if engine.max_hertz:
            self._max_hertz[name] = engine.max_hertz
        value = engine.busy if engine.busy is not None else engine.cycles
        if value is None:
            return 0.0
        before = known.highest.get(name, 0)
        more = max(value - before, 0)
        known.highest[name] = max(value, before)
        if engine.cycles is not None and engine.busy is None:
            self._cycles[name] += more
        elif engine.cycles is not None:
            self._cycles[name] += self._more_cycles(known, name, engine.cycles)
        if engine.busy is not None:
            return more * _NANO
        if engine.total_cycles is not None:
            return self._of_clock(known, name, more, engine.total_cycles, at)
        return more / engine.max_hertz if engine.max_hertz else 0.0

    def _more_cycles(self, known: _Known, name: str, cycles: int) -> int:
        """Cycles beside busy time; kept with the clock's numbers, which such drivers do not have."""
        before = known.total.get(name)
        known.total[name] = max(cycles, before or 0)
        if before is None:
            return cycles if self._looked else 0
        return max(cycles - before, 0)

    def _of_clock(self, known: _Known, name: str, more: int, total: int, at: float) -> float:
        """Cycles as seconds, by how far the clock went in the time between two readings."""
        ticks, passed = total - known.total.get(name, total), at - known.at
        known.total[name] = total
        if ticks > 0 and passed > 0:
            self._frequency = ticks / passed
            more += known.owed.pop(name, 0)
            return more / self._frequency
        if passed > 0:
            # The clock stood or began anew, as after a sleep: these cycles belong to no known time.
            return 0.0
        if not self._frequency:
            known.owed[name] = known.owed.get(name, 0) + more
            return 0.0
        return more / self._frequency

    def _owner(self, key: str, at: float) -> str:
        if key not in self._owners:
            if len(self._owners) >= self.owners_most:
                key = OTHERS
            self._owners.setdefault(key, _Sums(at))
        self._owners[key].seen = at
        return key

    def _process(self, reading: Reading, at: float) -> None:
        sums = self._processes.get(reading.process)
        if sums is None:
            if len(self._processes) >= _MOST_PROCESSES:
                return
            sums = self._processes[reading.process] = _Sums(at)
        sums.seen, sums.name, sums.owner = at, reading.name, self._owner(reading.owner, at)

    def _add(self, at: float, spent: dict[tuple[ProcessKey, str], float]) -> None:
        for (owner, engine), seconds in self._last.items():
            self._busy[engine] += seconds
            self._owners[self._owner(owner, at)].busy[engine] += seconds
        if not self.top:
            return
        decay = 0.5 ** (self._interval / _HALF_LIFE)
        for sums in self._processes.values():
            sums.recent *= decay
        for (process, engine), seconds in spent.items():
            found = self._processes.get(process)
            if found is not None:
                found.busy[engine] += seconds
                found.recent += seconds
            if process not in self._first:
                self._rest[engine] += seconds

    def _forget(self, at: float) -> None:
        """Owners go some time after their last client, processes with it."""
        for known in self._clients.values():
            self._owners[known.owner].seen = at
        for key in [key for key, sums in self._owners.items() if at - sums.seen > _OWNER_STAYS]:
            del self._owners[key]
        if self._processes:
            here = {known.process for known in self._clients.values()}
            self._processes = {key: sums for key, sums in self._processes.items() if key in here}
            ranked = sorted(self._processes, key=lambda key: (-self._processes[key].recent, key))
            self._first = ranked[: self.top]

    # What is known now

    def rows(self) -> Iterator[Row]:
        """Everything there is to publish."""
        device = self.device
        yield rows.CLIENTS, (device,), float(len(self._clients))
        yield rows.CLIENTS_SEEN, (device,), float(self.seen)
        for engine, capacity in self._capacity.items():
            yield rows.ENGINE_BUSY, (device, engine), self._busy.get(engine, 0.0)
            yield rows.ENGINE_CAPACITY, (device, engine), float(capacity)
            if engine in self._cycles:
                yield rows.ENGINE_CYCLES, (device, engine), float(self._cycles[engine])
            if engine in self._max_hertz:
                yield rows.ENGINE_MAX_HERTZ, (device, engine), float(self._max_hertz[engine])
        yield from self._ratios()
        yield from self._owner_rows()
        if self.top:
            yield from self._process_rows()

    def owners(self) -> Iterable[str]:
        """Keys of the owners that have rows."""
        return self._owners.keys()

    def _ratios(self) -> Iterator[Row]:
        if self._interval <= 0:
            return
        by_owner: defaultdict[tuple[str, str], float] = defaultdict(float)
        for (owner, engine), seconds in self._last.items():
            by_owner[owner if owner in self._owners else OTHERS, engine] += seconds
        for engine, capacity in self._capacity.items():
            whole = self._interval * capacity
            used = sum(seconds for (_, name), seconds in by_owner.items() if name == engine)
            yield rows.ENGINE_RATIO, (self.device, engine), min(used / whole, 1.0)
            for owner, sums in self._owners.items():
                if engine in sums.busy or (owner, engine) in by_owner:
                    part = min(by_owner.get((owner, engine), 0.0) / whole, 1.0)
                    yield rows.OWNER_ENGINE_RATIO, (self.device, owner, engine), part

    def _owner_rows(self) -> Iterator[Row]:
        counts: Counter[str] = Counter()
        memory: Counter[tuple[str, str, str]] = Counter()
        for known in self._clients.values():
            counts[known.owner] += 1
            for region, kinds in known.client.memory.items():
                for kind, size in kinds.items():
                    memory[known.owner, region, kind] += size
        for owner, sums in self._owners.items():
            yield rows.OWNER_CLIENTS, (self.device, owner), float(counts[owner])
            for engine, seconds in sums.busy.items():
                yield rows.OWNER_ENGINE_BUSY, (self.device, owner, engine), seconds
        for (owner, region, kind), size in memory.items():
            yield rows.OWNER_MEMORY, (self.device, owner, region, kind), float(size)

    def _process_rows(self) -> Iterator[Row]:
        first = set(self._first)
        for key in self._first:
            sums = self._processes[key]
            yield rows.PROCESS_INFO, (self.device, str(key[0]), sums.name, sums.owner), 1.0
            for engine, seconds in sums.busy.items():
                yield rows.PROCESS_ENGINE_BUSY, (self.device, str(key[0]), engine), seconds
        for engine, seconds in self._rest.items():
            yield rows.PROCESS_ENGINE_BUSY, (self.device, "", engine), seconds
        memory: Counter[tuple[str, str, str]] = Counter()
        for known in self._clients.values():
            pid = str(known.process[0]) if known.process in first else ""
            for region, kinds in known.client.memory.items():
                for kind, size in kinds.items():
                    memory[pid, region, kind] += size
        for (pid, region, kind), size in memory.items():
            yield rows.PROCESS_MEMORY, (self.device, pid, region, kind), float(size)
