"""Jobs followed event by event: queue, run, done, in both generations of names.

What was seen of these events (docs/drm-scheduler.md): done names a fence only; the fence of older kernels is an
address that is used again; a job whose process is killed may get neither run nor done. So a job is known by its
fence until it is done, replaced, or too old.
"""

from collections.abc import Callable, Sequence
from typing import Any

from gpudaemon.collectors.drm_sched import recipes
from gpudaemon.collectors.drm_sched.rings import Ring, Rings
from gpudaemon.model.tracing import Event

__all__ = ["Follow"]

_MOST_JOBS = 65536
_OLD = 60 * 10**9
"""ns after which a job that is queued and does not run is given up."""

_PARALLEL = 0.5
"""Share of jobs that end before one that began earlier, from which on a ring is not one after the other."""

_QUEUED, _RAN, _OWNER, _RING, _BLOCKED = range(5)
_Job = list[Any]


class Follow:
    """owner: pid -> whom it works for."""

    def __init__(self, rings: Rings, owner: Callable[[int], str]) -> None:
        self._rings = rings
        self._owner = owner
        self._jobs: dict[Any, _Job] = {}
        self._ids: dict[tuple[str, int], Any] = {}
        self._running: dict[int, dict[Any, int]] = {}
        self._last_done: dict[int, int] = {}
        self._disorder: dict[int, float] = {}
        self._swept = 0

    def forget(self) -> None:
        """Nothing is known of what is in flight."""
        self._rings.unmatched += len(self._jobs)
        self._jobs.clear()
        self._ids.clear()
        self._running.clear()
        self._last_done.clear()
        self._disorder.clear()

    def take(self, events: Sequence[Event]) -> None:
        """Events in order of time."""
        for now, name, values in events:
            if name == recipes.QUEUE:
                context, seqno, ring, device, pid = values
                self._queue((context, seqno), self._rings.ring(device, ring), now, pid)
            elif name == recipes.RUN:
                context, seqno, ring, device = values
                self._run((context, seqno), self._rings.ring(device, ring), now)
            elif name == recipes.DONE:
                self._done(values, now)
            elif name == recipes.DEPENDS:
                self._blocked(values, now)
            elif name == recipes.OLD_QUEUE:
                fence, number, ring, pid = values
                self._ids[ring, number] = fence
                self._queue(fence, self._rings.ring("", ring), now, pid)
            elif name == recipes.OLD_RUN:
                fence, number, ring = values
                self._ids.pop((ring, number), None)
                self._run(fence, self._rings.ring("", ring), now)
            elif name == recipes.OLD_DONE:
                self._done(values[0], now)
            elif name == recipes.OLD_DEPENDS:
                self._blocked(self._ids.get((values[0], values[1])), now)

    def expire(self, now: int) -> None:
        """Give up jobs that were queued long ago and never ran: nobody will tell of them."""
        if now - self._swept < _OLD // 6:
            return
        self._swept = now
        old = [key for key, job in self._jobs.items() if not job[_RAN] and now - job[_QUEUED] > _OLD]
        for key in old:
            self._give_up(key)
        if len(self._ids) > _MOST_JOBS:
            self._ids.clear()

    def _queue(self, key: Any, ring: Ring, now: int, pid: int) -> None:
        jobs = self._jobs
        if key in jobs:
            self._give_up(key)  # its fence is another's now
        elif len(jobs) >= _MOST_JOBS:
            self._give_up(next(iter(jobs)))
        jobs[key] = [now, 0, self._owner(pid), ring, 0]
        ring.queued += 1
        ring.waiting += 1

    def _run(self, key: Any, ring: Ring, now: int) -> None:
        ring.run += 1
        job = self._jobs.get(key)
        if job is not None and job[_RING] is not ring:
            # Older events name a fence by its address (drm_run_job): what was queued there last is another job,
            # the end of that one and the queueing of this one were overwritten.
            self._give_up(key)
            job = None
        if job is None:
            # Queued before we looked: its end will be understood, its wait is not known.
            if len(self._jobs) >= _MOST_JOBS:
                self._give_up(next(iter(self._jobs)))
            job = self._jobs[key] = [0, 0, "", ring, 0]
            self._rings.unmatched += 1
        elif job[_RAN]:
            return  # given to the hardware again after a reset
        else:
            ring.waiting -= 1
        job[_RAN] = now
        if job[_BLOCKED]:
            ring.depends.observe(now - job[_BLOCKED])
        running = self._running.setdefault(id(ring), {})
        if not running:
            ring.progress = now
        running[key] = now
        ring.running = len(running)

    def _done(self, key: Any, now: int) -> None:
        job = self._jobs.pop(key, None)
        if job is None:
            self._rings.unmatched += 1
            return
        ring: Ring = job[_RING]
        ring.done += 1
        if not job[_RAN]:
            # Cancelled before it ran.
            ring.waiting -= 1
            return
        place = id(ring)
        running = self._running[place]
        # Jobs of a ring end in the order in which they began; then one began when the one before it ended. Two
        # that are signalled on two processors at once may look the other way round; where most do, several
        # schedulers have rings of one name, whose jobs run beside each other.
        disorder = self._disorder.get(place, 0.0)
        disorder += ((next(iter(running)) != key) - disorder) / 16
        self._disorder[place] = disorder
        del running[key]
        ring.running = len(running)
        last = self._last_done.get(place, 0)
        start = max(job[_RAN], last) if disorder < _PARALLEL else job[_RAN]
        self._last_done[place] = now
        ring.progress = now
        took = now - start
        ring.time.observe(took)
        ring.busy += now - max(start, last)
        waited = 0
        if job[_QUEUED]:
            waited = start - job[_QUEUED]
            ring.wait.observe(waited)
        if job[_OWNER]:
            ring.account(job[_OWNER], took, waited)

    def _blocked(self, key: Any, now: int) -> None:
        job = self._jobs.get(key)
        if job is not None and not job[_BLOCKED] and not job[_RAN]:
            job[_BLOCKED] = now

    def _give_up(self, key: Any) -> None:
        job = self._jobs.pop(key)
        ring: Ring = job[_RING]
        self._rings.unmatched += 1
        if job[_RAN]:
            running = self._running.get(id(ring), {})
            running.pop(key, None)
            ring.running = len(running)
        else:
            ring.waiting -= 1
