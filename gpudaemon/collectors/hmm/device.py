"""Pages that move between system memory and GPUs, counted by the kernel itself. Pure.

Probes of our own on mm/migrate_device.c, and histograms over them that the kernel fills: no event is written
to a buffer, so the daemon's cost does not depend on how much migrates. What a migration is about stands in its
`struct migrate_vma`: the direction in `flags`, a processor's fault in `fault_page`, whose memory it is in the
range's `mm` (include/linux/migrate.h). The structure lies on the stack of the thread that migrates. That stack
is what joins beginning and end: where on it the structure lies differs from call to call
(CONFIG_RANDOMIZE_KSTACK_OFFSET), but there are no more stacks than threads, whatever comes and goes.

The kernel's maps never give room back: what they drop is counted, and they are made anew.
"""

import contextlib
import errno
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.metrics import hmm as rows
from gpudaemon.model.metric import Distribution
from gpudaemon.model.tracing import Context, Event, Hist, HistRow, Note, Recipe, StreamRow, Subject
from gpudaemon.parsers.trace_hist import power, signed

__all__ = ["STREAM", "Migrations"]

_PAGES, _OPERATION, _RANGES, _FAULTS = (
    "gpudaemon/hmm_pages",
    "synthetic/gpudaemon_hmm",
    "gpudaemon/hmm_evict",
    "gpudaemon/hmm_fault",
)
_SELECT_SYSTEM = 1 << 0
"""MIGRATE_VMA_SELECT_SYSTEM: the pages come from system memory."""
_BY_FAULT = "if fault != 0"
_BY_DRIVER = "if fault == 0"
_SECOND = 1_000_000_000
_WINDOW = 10 * _SECOND
_STAYS = 900 * _SECOND
_NO_TIME = 63
_MOST_LOOKS = 256
_MOST_SHOWN = 32
"""Processes with rows of their own."""
_MOST_KNOWN = 4096
_MOST_OWNERS = 256

_Key = tuple[str, str]
"""direction, cause"""


def _probes(kind: str, back: str, process: str) -> tuple[str, ...]:
    """kind, back: what watches the beginning and the end of a function. process: whose memory it is."""
    return (
        f"{kind}:gpudaemon/hmm_begin migrate_vma_setup op=args:x64 flags=args->flags:u64"
        " fault=args->fault_page:x64",
        f"{kind}:gpudaemon/hmm_pages migrate_vma_pages flags=migrate->flags:u64 fault=migrate->fault_page:x64"
        f" asked=migrate->npages:u64 got=migrate->cpages:u64 process={process}:u32",
        f"{back.format('hmm_end', 'migrate_vma_finalize')} op=migrate:x64",
        f"{kind}:gpudaemon/hmm_evict migrate_device_pages asked=npages:u64",
        f"{back.format('hmm_fault', 'hmm_range_fault')} result=$retval:s32",
        "s:gpudaemon_hmm u64 flags; u64 fault; u64 took",
    )


_STACK = "op.buckets=16384"
"""Stacks are of this size or a multiple (arch/*/include/asm/thread_info.h, THREAD_SIZE), and so aligned."""
_TRIGGERS = (
    (_PAGES, f"hist:keys=process,flags:vals=asked,got:size=8192 {_BY_FAULT}"),
    (_PAGES, f"hist:keys=process,flags:vals=asked,got:size=8192 {_BY_DRIVER}"),
    ("gpudaemon/hmm_begin", f"hist:keys={_STACK}:began=common_timestamp,f=flags,p=fault:size=16384"),
    (
        "gpudaemon/hmm_end",
        f"hist:keys={_STACK}:took=common_timestamp-$began:onmatch(gpudaemon.hmm_begin)"
        ".gpudaemon_hmm($f,$p,$took):size=16384",
    ),
    (_OPERATION, f"hist:keys=flags,took.log2:vals=took:size=1024 {_BY_FAULT}"),
    (_OPERATION, f"hist:keys=flags,took.log2:vals=took:size=1024 {_BY_DRIVER}"),
    (_RANGES, "hist:keys=asked.log2:vals=asked:size=128"),
    (_FAULTS, "hist:keys=result:size=128"),
)
_HISTS = (_PAGES, _OPERATION, _RANGES, _FAULTS)
_OWNER = "migrate->vma->vm_mm->owner->tgid"
"""The process whose memory it is (CONFIG_MEMCG), not the thread that happens to do it."""
_RECIPES = tuple(
    Recipe(name=name, probes=_probes(kind, back, _OWNER), triggers=_TRIGGERS, hists=_HISTS)
    for name, kind, back in (
        ("fprobe", "f", "f:gpudaemon/{0} {1}%return"),
        ("kprobe", "p", "r:gpudaemon/{0} {1}"),
    )
)


@dataclass(slots=True)
class _Process:
    """One process. owner, name: while they are known. shown: whether it has rows of its own. now: pages to a
    device, and back by faults, since the last look. window: the same of looks of the last seconds, with what
    was counted as thrashed then. active: when any moved last."""

    owner: str
    name: str
    shown: bool = False
    pages: Counter[str] = field(default_factory=Counter)
    now: list[int] = field(default_factory=lambda: [0, 0])
    window: "deque[tuple[int, int, int, int]]" = field(default_factory=lambda: deque(maxlen=_MOST_LOOKS))
    active: int = 0


class Migrations:
    """The accumulator (`model.tracing.Accumulator`)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: dict[tuple[str, str, tuple[str, ...]], Mapping[str, int]] = {}
        self._drops: dict[tuple[str, str], int] = {}
        self._known = False
        self._processes: dict[int, _Process] = {}
        self._owners: dict[str, int] = {}
        self._now = 0
        self._pages: Counter[tuple[str, str, str]] = Counter()
        self._operations: Counter[tuple[str, str, str]] = Counter()
        self._asked: Counter[_Key] = Counter()
        self._tallies: dict[_Key, _Tally] = {}
        self._thrashed: Counter[str] = Counter()
        self._rest: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._evicted = self._evictions = self._dropped = 0

    def armed(self, recipe: Recipe | None) -> None:
        """The kernel's totals start at zero."""
        self._last.clear()
        self._drops.clear()
        self._known = self._known or recipe is not None

    def take(self, events: Sequence[Event]) -> None:
        """Nothing is read from buffers."""

    def lost(self, events: int) -> None:
        """Nothing is read from buffers, so nothing is lost there."""

    def notes(self) -> Iterable[Note]:
        """Trouble: none."""
        return ()

    def take_hist(self, event: str, hist: Hist) -> None:
        """What one trigger has added up."""
        cause = "cpu_fault" if hist.trigger.endswith(_BY_FAULT) else "driver"
        place = (event, cause)
        self._dropped += max(0, hist.dropped - self._drops.get(place, 0))
        self._drops[place] = hist.dropped
        for row in hist.rows:
            new = self._new(place, row)
            if not new["hitcount"]:
                continue
            # What cannot be read gives nothing; a format is checked where the file is taken apart.
            with contextlib.suppress(Malformed, ValueError, KeyError):
                self._take_row(event, cause, row, new)

    def _new(self, place: tuple[str, str], row: HistRow) -> dict[str, int]:
        """What a row has more than at the last look."""
        key = (*place, tuple(row.keys.values()))
        before = self._last.get(key, {})
        self._last[key] = row.values
        return {name: value - before.get(name, 0) for name, value in row.values.items()}

    def _take_row(self, event: str, cause: str, row: HistRow, new: Mapping[str, int]) -> None:
        if event == _FAULTS:
            error = -signed(row.keys["result"], 32)
            self._faults[errno.errorcode.get(error, str(error)) if error else "ok"] += new["hitcount"]
        elif event == _RANGES:
            self._evictions += new["hitcount"]
            self._evicted += new["asked"]
        else:
            direction = "to_device" if int(row.keys["flags"], 0) & _SELECT_SYSTEM else "to_system"
            if event == _OPERATION:
                tally = self._tallies.setdefault((direction, cause), _Tally())
                tally.add(power(row.keys["took"]), new["hitcount"], new["took"])
            else:
                self._moved(int(row.keys["process"]), direction, cause, new)

    def _moved(self, pid: int, direction: str, cause: str, new: Mapping[str, int]) -> None:
        process = self._process(pid)
        self._owners[process.owner] = self._now
        labels = (process.owner, direction, cause)
        self._operations[labels] += new["hitcount"]
        self._pages[labels] += new["got"]
        self._asked[direction, cause] += new["asked"]
        (process.pages if process.shown else self._rest)[direction] += new["got"]
        if direction == "to_device":
            process.now[0] += new["got"]
        elif cause == "cpu_fault":
            process.now[1] += new["got"]

    def _process(self, pid: int) -> _Process:
        known = self._processes.get(pid)
        owner, name = self._context.owner(pid), self._context.comm(pid)
        if known is not None and name in ("", known.name):
            # It ended, or is the same still.
            return known
        if known is not None:
            self._retire(pid)
        if len(self._processes) >= _MOST_KNOWN:
            self._retire(min(self._processes, key=lambda one: self._processes[one].active))
        if owner not in self._owners and len(self._owners) >= _MOST_OWNERS:
            owner = "others"
        shown = bool(name) and sum(one.shown for one in self._processes.values()) < _MOST_SHOWN
        made = self._processes[pid] = _Process(owner, name, shown)
        return made

    def _retire(self, pid: int) -> None:
        """A process has no rows of its own any more: what it moved stays, without its name."""
        self._rest.update(self._processes.pop(pid).pages)

    def _forget_owners(self, now: int) -> None:
        """An owner for whom nothing moved for long goes with its figures."""
        for owner in [owner for owner, active in self._owners.items() if now - active > _STAYS]:
            del self._owners[owner]
            self._thrashed.pop(owner, None)
            for counts in (self._pages, self._operations):
                for labels in [labels for labels in counts if labels[0] == owner]:
                    del counts[labels]

    def _look(self, now: int) -> None:
        self._now = now
        for pid, process in list(self._processes.items()):
            out, back = process.now
            process.now = [0, 0]
            window = process.window
            while window and now - window[0][0] > _WINDOW:
                window.popleft()
            if out or back or (process.pages and not process.active):
                process.active = now
            if not (out or back or window):
                if now - process.active > _STAYS:
                    self._retire(pid)
                continue
            outs = out + sum(one[1] for one in window)
            backs = back + sum(one[2] for one in window)
            fresh = max(0, min(outs, backs) - sum(one[3] for one in window))
            window.append((now, out, back, fresh))
            self._thrashed[process.owner] += fresh

    def rows(self, now: int) -> Iterator[StreamRow]:
        """All figures; none before anything could be watched."""
        if not self._known:
            return
        self._owners = {owner: active or now for owner, active in self._owners.items()}
        self._look(now)
        self._forget_owners(now)
        for metric, counts in ((rows.MIGRATED, self._pages), (rows.MIGRATIONS, self._operations)):
            yield from ((metric, labels, float(count)) for labels, count in counts.items())
        yield from ((rows.RANGE_PAGES, key, float(count)) for key, count in self._asked.items())
        yield from ((rows.SECONDS, key, tally.value()) for key, tally in self._tallies.items())
        yield from ((rows.THRASHED, (owner,), float(count)) for owner, count in self._thrashed.items())
        yield from ((rows.RANGE_FAULTS, (result,), float(count)) for result, count in self._faults.items())
        for pid, process in self._processes.items():
            for direction, count in process.pages.items():
                yield rows.PROCESS_PAGES, (str(pid), process.name, direction), float(count)
        for direction, count in self._rest.items():
            yield rows.PROCESS_PAGES, ("", "", direction), float(count)
        yield rows.EVICTED, (), float(self._evicted)
        yield rows.EVICTIONS, (), float(self._evictions)
        yield rows.DROPPED, (), float(self._dropped)


class _Tally:
    """A histogram over the kernel's powers of two."""

    def __init__(self) -> None:
        self._counts = [0] * (len(rows.SECONDS.buckets) + 1)
        self._nanoseconds = 0

    def add(self, exponent: int, count: int, nanoseconds: int) -> None:
        """So many that took up to 2^exponent, and what they took together."""
        place = min(max(exponent - rows.FIRST_POWER, 0), len(self._counts) - 1)
        self._counts[place] += count
        # A clock that differs between processors may go back: that is no time that could be added up.
        self._nanoseconds += nanoseconds if exponent < _NO_TIME else 0

    def value(self) -> Distribution:
        return Distribution(tuple(self._counts), self._nanoseconds / _SECOND)


STREAM = Subject(name="hmm", recipes=_RECIPES, accumulator=Migrations, of_devices=False)
