"""What is known of each ring: counts, times, what is in flight. Filled by `follow.py` or by `added.py`."""

from collections.abc import Iterator

from gpudaemon.metrics import drm_sched as rows
from gpudaemon.model.metric import Tally
from gpudaemon.model.tracing import Note, StreamRow

__all__ = ["OTHERS", "Ring", "Rings"]

OTHERS = "others"
_MOST_RINGS = 1024
_MOST_OWNERS = 256
"""On one ring; beyond it cgroups go together as `others`."""


def _tally() -> Tally:
    return Tally(rows.FIRST_POWER, rows.LAST_POWER)


class Ring:
    """One ring. waiting, running: jobs now. progress: trace clock when a job last began on an idle ring or
    ended. busy: ns. owners: key -> [jobs, run ns, wait ns]."""

    __slots__ = (
        "busy",
        "depends",
        "device",
        "done",
        "failed",
        "hangs",
        "hung",
        "name",
        "owners",
        "progress",
        "queued",
        "run",
        "running",
        "time",
        "wait",
        "waiting",
    )

    def __init__(self, device: str, name: str) -> None:
        self.device, self.name = device, name
        self.queued = self.run = self.done = 0
        self.failed: dict[str, int] = {}
        self.wait, self.time, self.depends = _tally(), _tally(), _tally()
        self.waiting = self.running = 0
        self.progress = 0
        self.busy = 0
        self.hung = False
        self.hangs = 0
        self.owners: dict[str, list[int]] = {}

    def account(self, owner: str, run: int, wait: int) -> None:
        """A job of an owner ended."""
        sums = self.owners.get(owner)
        if sums is None:
            if len(self.owners) >= _MOST_OWNERS:
                owner = OTHERS
            sums = self.owners.setdefault(owner, [0, 0, 0])
        sums[0] += 1
        sums[1] += run
        sums[2] += wait


class Rings:
    """All rings, and the watch over them. bound: ns without progress that make a hang."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._rings: dict[tuple[str, str], Ring] = {}
        self._notes: list[Note] = []
        self.unmatched = 0
        self.lower_bound = False

    def __iter__(self) -> Iterator[Ring]:
        return iter(self._rings.values())

    def ring(self, device: str, name: str) -> Ring:
        """The ring of that name; beyond the bound all others are one."""
        found = self._rings.get((device, name))
        if found is None:
            if len(self._rings) >= _MOST_RINGS:
                device, name = "", OTHERS
            found = self._rings.setdefault((device, name), Ring(device, name))
        return found

    def still(self) -> None:
        """Nothing is known to be in flight."""
        for ring in self:
            ring.waiting = ring.running = 0
            ring.hung = False

    def watch(self, now: int) -> None:
        """Look for rings that make no progress."""
        for ring in self:
            stuck = ring.running > 0 and now - ring.progress >= self._bound
            if stuck and not ring.hung:
                ring.hangs += 1
                age = (now - ring.progress) / 1e9
                text = f"ring {ring.name}: {ring.running} on the hardware, no progress for {age:.1f} s"
                self._notes.append(Note(device=ring.device, kind="job_hang", severity="uncorrected", text=text))
            ring.hung = stuck

    def notes(self) -> list[Note]:
        """Hangs found since the last call."""
        found, self._notes = self._notes, []
        return found

    def rows(self, now: int, *, events: bool) -> Iterator[StreamRow]:
        """All figures. events: whether they were read one by one, so that more is known."""
        yield rows.LOWER_BOUND, (), float(self.lower_bound)
        yield rows.JOBS_UNMATCHED, (), self.unmatched
        for ring in self:
            labels = (ring.device, ring.name)
            yield rows.JOBS_QUEUED, labels, ring.queued
            yield rows.JOBS_RUN, labels, ring.run
            yield rows.JOBS_DONE, labels, ring.done
            for error, count in ring.failed.items():
                yield rows.JOBS_FAILED, (*labels, error), count
            yield rows.QUEUE_WAIT, labels, ring.wait.distribution()
            yield rows.RUN_TIME, labels, ring.time.distribution()
            if events or ring.depends.total:
                yield rows.DEPENDENCY_WAIT, labels, ring.depends.distribution()
            yield rows.WAITING, labels, ring.waiting
            yield rows.ON_HARDWARE, labels, ring.running
            yield rows.RING_BUSY, labels, ring.busy / 1e9
            yield rows.HUNG, labels, float(ring.hung)
            yield rows.HANGS, labels, ring.hangs
            if ring.running:
                yield rows.NO_PROGRESS, labels, max(0, now - ring.progress) / 1e9
            for owner, (jobs, run, wait) in ring.owners.items():
                yield rows.OWNER_JOBS, (*labels, owner), jobs
                yield rows.OWNER_RUN, (*labels, owner), run / 1e9
                yield rows.OWNER_WAIT, (*labels, owner), wait / 1e9
