"""Lanes: one per device, one read at a time in each, none of which can hold up another.

    idle ── due ──► gate ── active ──► open ──► read ──► idle
                      │ suspended, resting          │
                      └──► idle                     └ deadline ──► quarantined ── read returns ──► idle

The power state is read, and its content seen, before anything else of a device is submitted. A lane whose
read passes its deadline is quarantined: nothing new is submitted there, its buffers live until the kernel
gives them back, and it resumes by itself.

A device may have a guest besides: a lane whose files are not of the device but lead into its driver, such as
the fdinfo of GPU clients. There is still one read at a time in the device: a guest and the device's own lane
wait for each other, the guest gives way after every few files, and where one of them is quarantined the other
one begins nothing.
"""

import enum
import errno
import os
import time
from array import array
from collections.abc import Callable, Sequence

from gpudaemon.model.forbidden import GATED, is_forbidden
from gpudaemon.reader.channel import DEMOTED, DEPTH, GROUPS, OPEN_ERROR, PARKED, RECORD, LaneMemory, RecordKind
from gpudaemon.reader.engine import Chain, Engine, Step

__all__ = ["KEEP_OPEN", "Lane", "Lanes"]

KEEP_OPEN = 60.0
"""Files read at least this often (seconds) stay open between readings; others are closed again."""
READABLE = (b"active\n", b"unsupported\n")
"""Power states in which a device may be read. "unsupported" is the PM core's word for runtime power
management switched off (drivers/base/power/sysfs.c), which counts as active."""
_ASLEEP_PERIOD = 1.0
"""Seconds between looks at the power state of a device that must not be read."""
_GONE = (-errno.ENODEV, -errno.ENXIO, -errno.EBADF)
_EPSILON = 0.001
_FAR = 3600.0
_FAST = 1 << 3
_GATHER = 0.02
"""Seconds for which records of one tick are gathered, however long the tick takes."""
_PATIENCE = 0.2
"""Seconds a record of files read many times a second may wait."""
_GUEST_CHAIN = 32
"""Files a guest has read before it gives way."""
_SLOW_CHAIN = 0.01
"""Seconds from which a chain's costs are worth telling: the server looks at those of slow chains only."""


class _State(enum.Enum):
    IDLE = "idle"
    RUNNING = "running"
    QUARANTINED = "quarantined"


class Batch:
    """Files read in one chain, and what follows from that for as long as their groups are the same.

    groups: bit mask. rare: those that are closed again afterwards. chains: over the open ones, one for each
    copy of the lane's memory; None as long as it is not settled which are open.
    """

    __slots__ = ("chains", "groups", "indexes", "rare")

    def __init__(self, indexes: tuple[int, ...], groups: int, rare: tuple[int, ...]) -> None:
        self.indexes = indexes
        self.groups = groups
        self.rare = rare
        self.chains: list[Chain | None] = [None] * DEPTH


class Lane:
    """One device's files and what is going on with them. release: closes a descriptor."""

    def __init__(self, memory: LaneMemory, now: float, release: Callable[[int], None] = os.close) -> None:
        plan = memory.plan
        self.number: int = plan["lane"]
        self.deadline: float = plan["deadline"]
        self.gated: bool = plan["gate"]
        self.device: str = plan["device"]
        self.guest: bool = plan.get("guest", False)
        self.long = frozenset(plan.get("long", ()))
        self.parts: list[int] = []
        """long files that may go on after what was read of them"""
        self.memory = memory
        self.paths = [os.fsencode(path) for path in plan["paths"]]
        self.refused = [
            is_forbidden(path) and not (self.gated and path.endswith(f"/{GATED}")) for path in plan["paths"]
        ]
        self.descriptors = [-1] * memory.count
        self.state = _State.IDLE
        self.chain: Chain | None = None
        self.closing = False
        self.count = 0
        self.pending: list[Batch] = []
        self.due_groups = 0
        self.started = 0.0
        self.wake = now
        self.resumes_at = now
        self.gave_way = 0.0
        self._release = release
        self.version = -1
        self.copy = 0
        self._slots = [memory.slots(copy) for copy in range(memory.depth)]
        self._chains: dict[tuple[Step, int, tuple[int, ...]], Chain] = {}
        self._files: list[list[int]] = []
        self._periods: Sequence[float] = ()
        self._active: tuple[int, ...] = ()
        self._due: list[float] = [now] * GROUPS
        self._batches: dict[int, list[Batch]] = {}

    def follow(self, now: float) -> None:
        """Take over groups and periods where the server changed them."""
        version = self.memory.version
        if version == self.version:
            return
        self.version = version
        self._files = [[] for _ in range(GROUPS)]
        self._periods = self.memory.periods.tolist()
        self._batches.clear()
        for index in range(1 if self.gated else 0, self.memory.count):
            group = self.memory.groups[index]
            if group != PARKED:
                self._files[group].append(index)
            elif self.descriptors[index] >= 0:
                self.close(index)
        self._active = tuple(group for group, files in enumerate(self._files) if files)
        for group in self._active:
            self._due[group] = min(self._due[group], now + self._periods[group])

    def take_due(self, now: float) -> int:
        """Groups due by `now` as a bit mask, their next moment set; ticks missed are not made up.

        Moments are whole multiples of the period, the same for every lane: reader and server then wake once
        for all lanes, which halves what a reading costs.
        """
        self.follow(now)
        mask = 0
        wake = now + _FAR
        soon = now + _EPSILON
        for group in self._active:
            due = self._due[group]
            if due <= soon:
                mask |= 1 << group
                period = self._periods[group]
                due = self._due[group] = (soon // period + 1) * period
            wake = min(wake, due)
        self.wake = wake
        return mask

    @property
    def outdated(self) -> bool:
        """Whether the server moved files that are not a guest's since the pending batches were made."""
        return not self.guest and self.memory.version != self.version

    def make_anew(self, now: float) -> None:
        """Give up the pending batches: their groups are due at once."""
        for batch in self.pending:
            for group in self._active:
                if batch.groups >> group & 1:
                    self._due[group] = now
        self.pending.clear()
        self.wake = now

    def all_due(self, now: float) -> None:
        """Everything is due at once."""
        self.wake = now
        self._due = [now] * GROUPS

    def postpone(self, mask: int, now: float) -> None:
        """The device may not be read now: what is due stays due, the power state is looked at again soon."""
        for group in self._active:
            if mask >> group & 1:
                self._due[group] = now
        fastest = min((self._periods[group] for group in self._active), default=1.0)
        self.wake = now + max(_ASLEEP_PERIOD, fastest)

    def batches(self, mask: int) -> list[Batch]:
        """Files of the due groups as batches: the cadences together, each demoted group on its own."""
        made = self._batches.get(mask)
        if made is None:
            together: list[int] = []
            groups = 0
            for group in range(DEMOTED - 1, -1, -1):
                if mask >> group & 1:
                    together += self._files[group]
                    groups |= 1 << group
            if self.guest:
                made = self._pieces(together, groups)
            else:
                made = [self._batch(together, groups)] if together else []
            made += [self._batch(self._files[g], 1 << g) for g in range(DEMOTED, GROUPS) if mask >> g & 1]
            self._batches[mask] = made
        return made

    def _pieces(self, indexes: list[int], groups: int) -> list[Batch]:
        """Batches of a few files each. The last one tells of the groups; `rare` files are closed after each."""
        parts = [indexes[at : at + _GUEST_CHAIN] for at in range(0, len(indexes), _GUEST_CHAIN)]
        made = [self._batch(part, groups) for part in parts]
        for batch in made:
            batch.rare = tuple(index for index in batch.rare if index in batch.indexes)
        for batch in made[:-1]:
            batch.groups = 0
        return made

    def _batch(self, indexes: list[int], groups: int) -> Batch:
        rare = [g for g in self._active if groups >> g & 1 and self._periods[g] > KEEP_OPEN]
        return Batch(tuple(indexes), groups, tuple(index for group in rare for index in self._files[group]))

    def chain_for(self, step: Step, indexes: tuple[int, ...]) -> Chain:
        """The chain over these files into the present copy, kept as long as their descriptors are."""
        if step is Step.OPEN:
            return Chain(self, step, indexes, paths=[self.paths[index] for index in indexes])
        key = (step, self.copy, indexes)
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = Chain(
                self,
                step,
                indexes,
                descriptors=[self.descriptors[index] for index in indexes],
                buffers=[self._slots[self.copy][index] for index in indexes],
            )
        return chain

    def rest_of(self, index: int) -> Chain | None:
        """A chain over what follows of a long file into the present copy; None where nothing more fits."""
        length = self.lengths[index]
        buffer = self._slots[self.copy][index][length:]
        if not len(buffer):
            return None
        return Chain(
            self, Step.READ, (index,), descriptors=[self.descriptors[index]], buffers=[buffer], offset=length
        )

    def close(self, index: int) -> None:
        """Close one file; chains made for its descriptor go with it."""
        if self.descriptors[index] >= 0:
            self._release(self.descriptors[index])
            self.descriptors[index] = -1
            self._chains = {key: chain for key, chain in self._chains.items() if index not in key[2]}
            for batches in self._batches.values():
                for batch in batches:
                    if index in batch.indexes:
                        batch.chains = [None] * DEPTH

    @property
    def lengths(self) -> memoryview:
        """Lengths in the present copy."""
        return self.memory.lengths[self.copy]

    def state_text(self, length: int) -> bytes:
        """What the power state says."""
        return bytes(self._slots[self.copy][0][:length])

    def close_all(self) -> None:
        """Close every file of the lane."""
        for index in range(self.memory.count):
            self.close(index)

    def forget(self) -> None:
        """Close everything and break the cycles of lane and chains, so that its memory goes at once."""
        self.close_all()
        self._chains.clear()
        self._batches.clear()
        self.pending.clear()


class Lanes:
    """All lanes: starts what is due, watches deadlines, tells the server.

    send: takes one packet of records. overdue: called when a lane becomes idle after its next tick was due,
    from whatever thread it ran on. release: closes a descriptor. let_go: what is open keeps a device from
    falling asleep, so of one that is asleep or shall be nothing stays open but the power state. Every method
    runs under the engine's lock.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        overdue: Callable[[], None],
        *,
        release: Callable[[int], None] = os.close,
        let_go: bool = False,
    ) -> None:
        self._send = send
        self._release = release
        self._let_go = let_go
        self._overdue = overdue
        self._records: list[bytes] = []
        self._oldest = 0.0
        self._urgent = 0.0
        self._waiting: dict[int, int] = {}
        self._next = 0.0
        self._paused = False
        self._guests: dict[str, list[Lane]] = {}
        self.lanes: dict[int, Lane] = {}
        self.engine: Engine | None = None

    @property
    def quarantined(self) -> int:
        """Lanes that wait for a read the kernel has not given back."""
        return sum(lane.state is _State.QUARANTINED for lane in self.lanes.values())

    def add(self, memory: LaneMemory) -> None:
        """Take a lane in; its first reading is due at once."""
        lane = Lane(memory, time.monotonic(), self._release)
        self.lanes[lane.number] = lane
        if lane.guest:
            self._guests.setdefault(lane.device, []).append(lane)
        self._next = 0.0
        assert self.engine is not None
        self.engine.set_lanes(len(self.lanes))

    def drop(self, number: int) -> None:
        """Let a lane go, at once or when its stuck read comes back."""
        lane = self.lanes.get(number)
        if lane is None:
            return
        if lane.state is _State.IDLE:
            self._forget(lane)
        else:
            lane.closing = True

    def pause(self, paused: bool) -> None:
        """Begin nothing, until told otherwise; then everything is due. Deadlines are watched all along."""
        if self._paused and not paused:
            for lane in self.lanes.values():
                lane.all_due(time.monotonic())
        self._paused = paused
        self._next = 0.0

    def tick(self, now: float) -> None:
        """Start every lane that is due, and quarantine every one whose deadline has passed.

        A host with many lanes has hundreds: nothing is looked at before the first of them has something to do.
        """
        if now + _EPSILON < self._next:
            return
        moment = now + _FAR
        for lane in list(self.lanes.values()):
            if lane.state is _State.IDLE:
                if self._paused:
                    continue
                if lane.wake <= now + _EPSILON:
                    if self._guests and self._held_up(lane, now):
                        # Whoever has the device now says so when it is through.
                        continue
                    self._begin(lane, now)
            elif lane.state is _State.RUNNING:
                chain = lane.chain
                if chain is not None and now - chain.progress > lane.deadline:
                    self._quarantine(lane, chain, now)
            moment = min(moment, self._moment_of(lane, now))
        self._next = moment

    def _held_up(self, lane: Lane, now: float) -> bool:
        """Whether somebody else has the device, or is to have it first: of guest and host one waits."""
        if not lane.guest:
            return any(guest.state is not _State.IDLE for guest in self._guests.get(lane.device, ()))
        for other in self.lanes.values():
            if other.device == lane.device and other is not lane:
                if other.state is not _State.IDLE:
                    return True
                if lane.pending and not other.guest and other.started < lane.gave_way and other.wake <= now:
                    return True
        return False

    def _free(self, lane: Lane) -> None:
        """A lane is idle; one that waited for it may begin."""
        lane.state = _State.IDLE
        if lane.device in self._guests:
            self._next = 0.0
            self._overdue()

    @staticmethod
    def _moment_of(lane: Lane, now: float) -> float:
        """When a lane has something to do. A running one's tick counts: it is idle by then, or will say so."""
        if lane.state is _State.IDLE:
            return lane.wake
        moment = now + _FAR
        if lane.state is _State.RUNNING:
            if lane.wake > now:
                moment = lane.wake
            chain = lane.chain
            if chain is not None:
                moment = min(moment, chain.progress + lane.deadline + _EPSILON)
        return moment

    def next_moment(self) -> float:
        """CLOCK_MONOTONIC of the next tick or deadline; it may turn out that there is nothing to do."""
        return self._next

    def finished(self, chain: Chain) -> None:
        """A chain is through (the engine's call-back)."""
        lane: Lane = chain.owner
        lane.chain = None
        if lane.closing:
            if chain.step is Step.OPEN:
                _keep_descriptors(lane, chain)
            self._free(lane)
            self._forget(lane)
        elif lane.state is _State.QUARANTINED:
            self._resume(lane, chain)
        elif chain.step is Step.GATE:
            self._gate_read(lane, chain)
        elif chain.step is Step.OPEN:
            _keep_descriptors(lane, chain)
            self._open_done(lane, chain)
        else:
            self._read_done(lane, chain)

    def flush(self) -> None:
        """Send the records gathered so far as one packet.

        A wake-up costs the server more than what it then does. Records of files that are read many times a
        second do not wake it by themselves: they go along with others, or when the oldest has waited for
        `_PATIENCE`. What they tell of is kept in the lane's memory, DEPTH readings deep.
        """
        if self._records and (self._urgent or time.monotonic() - self._oldest > _PATIENCE):
            packet = b"".join(self._records)
            self._records.clear()
            self._urgent = 0.0
            self._waiting.clear()
            self._send(packet)

    def _begin(self, lane: Lane, now: float) -> None:
        if lane.pending:
            # A guest that gave way: it goes on where it was.
            lane.wake = lane.resumes_at
        mask = lane.due_groups if lane.pending else lane.take_due(now)
        if not mask:
            return
        lane.state = _State.RUNNING
        lane.started = now
        if not lane.pending:
            lane.due_groups = mask
            lane.count += 1
            lane.copy = lane.count % lane.memory.depth
            lane.memory.begun = lane.count
        if not lane.gated:
            self._pass(lane)
        elif lane.descriptors[0] < 0:
            self._start(lane, lane.chain_for(Step.OPEN, (0,)))
        else:
            self._start(lane, lane.chain_for(Step.GATE, (0,)))

    def _start(self, lane: Lane, chain: Chain) -> None:
        lane.chain = chain
        assert self.engine is not None
        self.engine.start(chain)

    def _gate_read(self, lane: Lane, chain: Chain) -> None:
        length = chain.results[0]
        lane.lengths[0] = length
        if length < 0:
            lane.close(0)
            if length in _GONE:
                self._end(lane, RecordKind.FINISHED, code=1)
                return
            # The file is there but cannot be read: the state is not known, so nothing else is touched.
            self._withhold(lane, RecordKind.POWER)
        elif lane.state_text(length) not in READABLE:
            self._withhold(lane, RecordKind.POWER)
        elif lane.memory.rest_until > time.monotonic():
            self._withhold(lane, RecordKind.RESTING)
        else:
            self._pass(lane)

    def _withhold(self, lane: Lane, kind: int) -> None:
        now = time.monotonic()
        if kind == RecordKind.POWER:
            # The server knows nothing of this device any more: when it wakes, its rare files are due too.
            lane.all_due(now)
        if self._let_go:
            for index in range(1, lane.memory.count):
                lane.close(index)
        lane.postpone(lane.due_groups, now)
        self._next = min(self._next, lane.wake)
        self._end(lane, kind)

    def _pass(self, lane: Lane) -> None:
        """The device may be read: open what is closed, then read, one batch after the other."""
        if not lane.pending:
            lane.pending = lane.batches(lane.due_groups).copy()
        self._next_batch(lane)

    def _next_batch(self, lane: Lane) -> None:
        batch = lane.pending[0]
        chain = batch.chains[lane.copy]
        if chain is not None:
            self._start(lane, chain)
            return
        for index in batch.indexes:
            if lane.refused[index]:
                lane.lengths[index] = -(OPEN_ERROR + errno.EPERM)
        closed = tuple(i for i in batch.indexes if lane.descriptors[i] < 0 and not lane.refused[i])
        if closed:
            self._start(lane, lane.chain_for(Step.OPEN, closed))
        else:
            self._read_batch(lane)

    def _open_done(self, lane: Lane, chain: Chain) -> None:
        if lane.gated and chain.indexes == (0,):
            if lane.descriptors[0] >= 0:
                self._start(lane, lane.chain_for(Step.GATE, (0,)))
            elif lane.lengths[0] in (-(OPEN_ERROR + errno.ENOENT), -(OPEN_ERROR + errno.ENOTDIR)):
                # No runtime power management, or no device any more: the other files will tell.
                self._pass(lane)
            else:
                self._withhold(lane, RecordKind.POWER)
        else:
            self._read_batch(lane)

    def _read_batch(self, lane: Lane) -> None:
        batch = lane.pending[0]
        readable = tuple(index for index in batch.indexes if lane.descriptors[index] >= 0)
        if not readable:
            self._batch_done(lane)
            return
        chain = lane.chain_for(Step.READ, readable)
        if len(readable) == len(batch.indexes):
            # A file that could not be opened is tried again next time; without one, nothing is to be settled.
            batch.chains[lane.copy] = chain
        self._start(lane, chain)

    def _read_done(self, lane: Lane, chain: Chain) -> None:
        if chain.offset:
            self._part_done(lane, chain)
            return
        memory, results, indexes = lane.memory, chain.results, chain.indexes
        first, last = indexes[0], indexes[-1]
        if last - first == len(indexes) - 1:
            lane.lengths[first : last + 1] = array("i", results)
        else:
            for index, length in zip(indexes, results, strict=True):
                lane.lengths[index] = length
        if time.monotonic() - lane.started > _SLOW_CHAIN:
            for index, cost in zip(indexes, chain.costs, strict=True):
                memory.costs[index] = cost
        if min(results) < 0:
            for index, length in zip(indexes, results, strict=True):
                if length < 0:
                    # The server parks what fails; what it asks for again is opened anew.
                    lane.close(index)
        if lane.long:
            lane.parts = [index for index in indexes if index in lane.long and lane.lengths[index] > 0]
            self._next_part(lane)
        else:
            self._batch_done(lane)

    def _part_done(self, lane: Lane, chain: Chain) -> None:
        """A part of a long file is here; one of nothing is its end."""
        (index,), (result,) = chain.indexes, chain.results
        if result > 0:
            lane.lengths[index] = chain.offset + result
        else:
            lane.parts.remove(index)
            if result < 0:
                lane.lengths[index] = result
                lane.close(index)
        self._next_part(lane)

    def _next_part(self, lane: Lane) -> None:
        while lane.parts and not lane.closing:
            chain = lane.rest_of(lane.parts[0])
            if chain is not None:
                self._start(lane, chain)
                return
            lane.parts.pop(0)
        self._batch_done(lane)

    def _batch_done(self, lane: Lane) -> None:
        batch = lane.pending.pop(0)
        for index in batch.rare:
            lane.close(index)
        lane.memory.finished = lane.count
        if batch.groups or not lane.guest:
            self._record(lane, RecordKind.FINISHED, groups=batch.groups)
        if lane.guest and lane.pending and not lane.closing and self._host_waits(lane):
            lane.resumes_at, lane.wake = lane.wake, 0.0
            lane.gave_way = time.monotonic()
            self._free(lane)
        elif lane.pending and not lane.closing:
            lane.started = time.monotonic()
            if lane.outdated:
                # The server takes every file that was there when a batch began for one that was read in it.
                lane.make_anew(lane.started)
                self._idle(lane)
            else:
                self._next_batch(lane)
        else:
            lane.pending.clear()
            self._idle(lane)

    def _host_waits(self, guest: Lane) -> bool:
        now = time.monotonic() + _EPSILON
        return any(
            lane.wake <= now for lane in self.lanes.values() if lane.device == guest.device and not lane.guest
        )

    def _idle(self, lane: Lane) -> None:
        self._free(lane)
        if lane.wake <= time.monotonic():
            self._next = 0.0
            self._overdue()

    def _quarantine(self, lane: Lane, chain: Chain, now: float) -> None:
        lane.state = _State.QUARANTINED
        place = min(chain.position, len(chain.indexes) - 1)
        code = 1 if chain.step is Step.OPEN else 0
        self._record(lane, RecordKind.HUNG, index=chain.indexes[place], code=code, started=chain.progress)
        self.flush()
        assert self.engine is not None
        self.engine.abandon(chain)

    def _resume(self, lane: Lane, chain: Chain) -> None:
        """The stuck read is back. Every file is opened anew: the device may be another one by now."""
        if chain.step is Step.OPEN:
            _keep_descriptors(lane, chain)
        lane.close_all()
        lane.pending.clear()
        self._free(lane)
        lane.all_due(time.monotonic())
        self._record(lane, RecordKind.RESUMED)
        self._next = 0.0
        self._overdue()

    def _end(self, lane: Lane, kind: int, *, code: int = 0) -> None:
        lane.memory.finished = lane.count
        lane.pending.clear()
        self._free(lane)
        self._record(lane, kind, code=code)

    def _record(
        self, lane: Lane, kind: int, *, index: int = 0, code: int = 0, groups: int = 0, started: float = 0.0
    ) -> None:
        now = time.monotonic()
        if not self._records:
            self._oldest = now
        self._records.append(
            RECORD.pack(kind, code, index, lane.number, groups, 0, lane.count, started or lane.started, now)
        )
        waiting = self._waiting.get(lane.number, 0)
        if groups == _FAST and waiting < DEPTH // 2 - 1:
            self._waiting[lane.number] = waiting + 1
        elif not self._urgent:
            # Half of the kept readings may gather; the other half is a late server's time.
            self._urgent = now
        if self._urgent and (now - self._urgent > _GATHER or len(self._records) >= 64):
            self.flush()

    def _forget(self, lane: Lane) -> None:
        lane.forget()
        self.lanes.pop(lane.number, None)
        if lane.guest:
            guests = self._guests[lane.device]
            guests.remove(lane)
            if not guests:
                del self._guests[lane.device]
            self._next = 0.0
        assert self.engine is not None
        self.engine.forget(lane)


def _keep_descriptors(lane: Lane, chain: Chain) -> None:
    """Take what an OPEN chain brought: descriptors, or the errno of each failure."""
    for index, result in zip(chain.indexes, chain.results, strict=True):
        if result >= 0:
            lane.descriptors[index] = result
        else:
            lane.lengths[index] = result - OPEN_ERROR
