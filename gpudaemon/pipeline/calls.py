"""What calls bring of devices: one process a kind, one lane a device in it.

A lane of calls is a `DeviceLane` like that of files: same plan, memory, records, outcomes and freshness. What
differs is what becomes of a call that does not come back. A thread that is stuck in a library holds its locks,
so the whole process is given up: at once where nothing else in it moves, else after `_PATIENCE`. The one that
takes its place is not given the device that hung before a while has passed, longer each time; nor one whose
call was under way when the process died. A process that cannot be ended holds its devices until it has gone,
across restarts of the daemon (`gpudaemon.pipeline.holders`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from gpudaemon.model.device import Device
from gpudaemon.model.outcome import Outcome
from gpudaemon.pipeline.figures import Figures
from gpudaemon.pipeline.holders import Holders
from gpudaemon.pipeline.lane import DeviceLane
from gpudaemon.pipeline.link import ReaderLink, Record
from gpudaemon.pipeline.plan import DevicePlan, reader_plan
from gpudaemon.reader.channel import LaneMemory, RecordKind

__all__ = ["CallLane", "Calls"]

_log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds a call may hang in a process whose other calls come back."""
_BACK_OFF = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Seconds a device is left alone by calls after each failure in a row that took its process along."""
_LOOK_EVERY = 30.0
"""Least seconds between looks at sysfs because calls say that a device is gone: a lost GPU stays in sysfs."""
_FORGIVEN = 60.0
"""Seconds after which a failure is the first again."""


class CallLane:
    """One device's calls of one kind. Owner: the device's entry; figures outlive plans and processes.

    lane: None before it was first handed over. handed: whether the process has it; since when: handed_at.
    failures, not_before: how often it took its process along, and until when it is left alone.
    held: (pid, question) of the former process that cannot end. next_plan: waits until a stuck call is settled.
    """

    __slots__ = (
        "created",
        "device",
        "failures",
        "figures",
        "handed",
        "handed_at",
        "held",
        "kind",
        "lane",
        "next_plan",
        "not_before",
        "number",
        "plan",
    )

    def __init__(self, kind: str, device: Device, plan: DevicePlan, created: dict[str, float]) -> None:
        self.kind = kind
        self.device = device
        self.plan = plan
        self.created = created
        self.figures = Figures()
        self.lane: DeviceLane | None = None
        self.number = 0
        self.handed = False
        self.handed_at = 0.0
        self.failures = 0
        self.not_before = 0.0
        self.held: tuple[int, str] | None = None
        self.next_plan: DevicePlan | None = None

    @property
    def key(self) -> str:
        """Under which a process that cannot end is noted as holding this device."""
        return f"{self.kind} {self.device.id}"

    @property
    def stuck(self) -> bool:
        """Whether a call has not come back in the process that is there."""
        return self.lane is not None and bool(self.lane.hung_file)

    @property
    def state(self) -> Outcome:
        """How calls of this kind stand with the device."""
        if self.held is not None:
            return Outcome.HUNG
        return self.lane.state if self.lane is not None else Outcome.STALE

    @property
    def settled(self) -> bool:
        """Whether it is known how they stand, or that this takes its time."""
        return self.held is not None or self.failures > 0 or (self.lane is not None and self.lane.answered)

    def busy(self) -> bool:
        """Whether the calls say that an engine of the device works."""
        return self.lane is not None and any(self.lane.values[index] for index in self.lane.plan.busy)


class Calls:
    """See the module.

    link: makes the link to the process of a kind, not started. gone: a device seems to be gone, look again.
    """

    def __init__(
        self,
        link: Callable[[str], ReaderLink],
        holders: Holders,
        *,
        sysfs: str,
        periods: Sequence[float],
        deadline: float,
        gone: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_link = link
        self._holders = holders
        self._sysfs = sysfs
        self._periods = list(periods)
        self._deadline = deadline
        self._look_again = gone
        self._looked = -_LOOK_EVERY
        self._clock = clock
        self._numbers = 0
        self._lanes: dict[str, dict[str, CallLane]] = {}
        self._by_number: dict[int, CallLane] = {}
        self._paused = False
        self._processors: Collection[int] | None = None
        self.links: dict[str, ReaderLink] = {}
        self.news: Callable[[str], None] = lambda _: None
        """called with the id of a device of which something was told"""

    def set(
        self, device: Device, plans: Mapping[str, DevicePlan], created: dict[str, float]
    ) -> dict[str, CallLane]:
        """Make the calls of a device those of `plans`, by kind; returns its lanes."""
        for kind in [kind for kind, lanes in self._lanes.items() if device.id in lanes and kind not in plans]:
            self._drop(self._lanes[kind].pop(device.id))
        found = {}
        for kind, plan in plans.items():
            lanes = self._lanes.setdefault(kind, {})
            call = lanes.get(device.id)
            if call is None:
                call = lanes[device.id] = CallLane(kind, device, plan, created)
            call.device = device
            found[kind] = call
            self._link(kind)
            if call.stuck:
                call.next_plan = plan
            elif call.lane is None:
                call.plan = plan
                self._hand_over(call)
            else:
                self._plan_anew(call, plan)
        self._stop_idle()
        return found

    def remove(self, id_: str) -> None:
        """A device is gone, and all calls with it."""
        for lanes in self._lanes.values():
            call = lanes.pop(id_, None)
            if call is not None:
                self._drop(call)
        self._stop_idle()

    def set_periods(self, periods: Sequence[float], deadline: float) -> None:
        """Ask at other periods from now on; another deadline holds for what is planned from now on."""
        self._periods, self._deadline = list(periods), deadline
        for call in self._every():
            if call.lane is not None:
                call.lane.set_periods(periods)

    def pause(self, paused: bool) -> None:
        """Begin no call, or go on."""
        self._paused = paused
        for link in self.links.values():
            link.pause(paused)

    def run_on(self, processors: Collection[int]) -> None:
        """Keep the processes to these processors; empty: to all."""
        self._processors = processors
        for link in self.links.values():
            link.run_on(processors)

    def rest(self, id_: str, until: float) -> None:
        """Let a device rest until this moment, CLOCK_MONOTONIC; 0.0: do not."""
        for lanes in self._lanes.values():
            call = lanes.get(id_)
            if call is not None and call.lane is not None:
                call.lane.memory.rest_until = until

    def tick(self, now: float) -> bool:
        """Now and then. True where something is going on that wants to be looked at within a second."""
        waiting = False
        for kind, lanes in self._lanes.items():
            link = self.links.get(kind)
            if link is None:
                continue
            for call in lanes.values():
                if not call.handed:
                    waiting = True
                    self._hand_over(call)
                elif call.lane is not None and call.lane.next_retry <= now:
                    call.lane.retry(now)
            if any(call.stuck for call in lanes.values()):
                waiting = True
                self._look_at_stuck(link, lanes, now)
            link.watch(now)
        return waiting

    async def close(self) -> None:
        """End every process."""
        for link in self.links.values():
            await link.close()

    # Within

    def _gone(self) -> None:
        now = self._clock()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._look_again()

    def _every(self) -> Iterator[CallLane]:
        for lanes in self._lanes.values():
            yield from lanes.values()

    def _link(self, kind: str) -> ReaderLink:
        link = self.links.get(kind)
        if link is None:
            link = self.links[kind] = self._make_link(kind)
            link.on_record = self._take
            link.on_start = lambda: self._started(kind)
            link.on_lost = lambda pid: self._lost(kind, pid)
            link.attach(asyncio.get_running_loop())
            if self._paused:
                link.pause(True)
            if self._processors is not None:
                link.run_on(self._processors)
        link.start()
        return link

    def _stop_idle(self) -> None:
        """A process that has nothing to do ends."""
        for kind in [kind for kind, lanes in self._lanes.items() if not lanes]:
            del self._lanes[kind]
            self.links[kind].stop()

    def _hand_over(self, call: CallLane) -> None:
        """Have the process of its kind make the calls of a device, if it may."""
        link, now = self.links[call.kind], self._clock()
        held = self._holders.held(link.pid).get(call.key)
        if held != call.held:
            call.held = held
            self.news(call.device.id)
            extra = {"device": call.device.id, "call": call.kind, "pid": held[0] if held else 0}
            _log.warning("device is held by a former process" if held else "device is free again", extra=extra)
        if held is not None or now < call.not_before or not link.up:
            return
        lane = call.lane
        if lane is not None and call.next_plan is None:
            memory = self._memory(call, lane.groups())
            lane.adopt(self._numbers, memory)
        else:
            call.plan, call.next_plan = call.next_plan or call.plan, None
            self._make_lane(call)
        call.handed, call.handed_at = True, now

    def _make_lane(self, call: CallLane) -> None:
        """A lane for the plan, which takes over what the one before knew."""
        plan, before = call.plan, call.lane
        memory = self._memory(call, [file.group for file in plan.files])
        call.lane = DeviceLane(
            call.number, plan, memory, call.figures, call.created, gone=self._gone, resting=False
        )
        if before is not None:
            call.lane.inherit(before)

    def _memory(self, call: CallLane, groups: Sequence[int]) -> LaneMemory:
        self._numbers += 1
        self._by_number.pop(call.number, None)
        call.number = self._numbers
        self._by_number[call.number] = call
        description = reader_plan(call.plan, call.number, self._sysfs, self._deadline)
        descriptor = LaneMemory.create(description, groups, self._periods)
        memory = LaneMemory(descriptor)
        if call.lane is not None:
            memory.rest_until = call.lane.memory.rest_until
        self.links[call.kind].send_lane(descriptor)
        return memory

    def _plan_anew(self, call: CallLane, plan: DevicePlan) -> None:
        call.plan = plan
        if not call.handed:
            call.next_plan = plan
            return
        if call.lane is not None:
            call.lane.settle()
            self.links[call.kind].drop_lane(call.number)
        self._make_lane(call)

    def _drop(self, call: CallLane) -> None:
        if call.lane is not None:
            call.lane.settle()
            if call.handed and self.links[call.kind].up:
                self.links[call.kind].drop_lane(call.number)
        self._by_number.pop(call.number, None)

    def _take(self, record: Record) -> None:
        kind, code, index, number, groups, _, chain, started, ended = record
        call = self._by_number.get(number)
        if call is None or call.lane is None:
            return
        lane = call.lane
        if kind == RecordKind.FINISHED:
            lane.finished(groups, chain, started, ended)
            if code:
                self._gone()
        elif kind in (RecordKind.POWER, RecordKind.RESTING):
            lane.withheld(chain, ended, resting=kind == RecordKind.RESTING)
        elif kind == RecordKind.HUNG:
            lane.hung(index, started)
            self._note_stuck(call.kind)
        elif kind == RecordKind.RESUMED:
            lane.resumed()
            self._note_stuck(call.kind)
            if call.next_plan is not None:
                plan, call.next_plan = call.next_plan, None
                self._plan_anew(call, plan)
        self.news(call.device.id)

    def _look_at_stuck(self, link: ReaderLink, lanes: Mapping[str, CallLane], now: float) -> None:
        """Give a process up in which calls hang: nothing else makes a library let go of its locks."""
        handed = [call for call in lanes.values() if call.handed and call.lane is not None]
        since = min(call.lane.hung_since for call in handed if call.lane is not None and call.stuck)
        if all(call.stuck for call in handed) or now - since > _PATIENCE:
            link.replace("hung")

    def _lost(self, kind: str, pid: int) -> None:
        """The process is gone: whoever it was busy with is left alone for a while."""
        now = self._clock()
        for call in self._lanes.get(kind, {}).values():
            lane = call.lane
            if not call.handed or lane is None:
                continue
            self._by_number.pop(call.number, None)
            call.handed = False
            if lane.hung_file or lane.memory.calling:
                call.failures = call.failures + 1 if now - call.handed_at < _FORGIVEN else 1
                call.not_before = now + _BACK_OFF[min(call.failures, len(_BACK_OFF)) - 1]
                extra = {"device": call.device.id, "call": kind, "pid": pid, "again_in": call.not_before - now}
                _log.warning("process of calls ended in a call to this device", extra=extra)
            lane.hung_file = ""

    def _started(self, kind: str) -> None:
        for call in self._lanes.get(kind, {}).values():
            self._hand_over(call)

    def _note_stuck(self, kind: str) -> None:
        """Write down whom the process holds, should it outlive this server."""
        stuck = {c.key: c.lane for c in self._lanes.get(kind, {}).values() if c.lane is not None and c.stuck}
        self._holders.note(
            self.links[kind].pid,
            {key: lane.hung_file for key, lane in stuck.items()},
            {key: lane.hung_since for key, lane in stuck.items()},
        )
