"""What the tracer tells, kept: counters that go on over its restarts, rows that leave with their device.

A tracer's counters start at zero with its life. What a former one counted is added to what the present one
tells.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpudaemon.collectors import streams
from gpudaemon.metrics import table
from gpudaemon.model.metric import Distribution, Kind, Metric
from gpudaemon.model.snapshot import Samples
from gpudaemon.model.tracing import STATES, StreamRow
from gpudaemon.model.trouble import KINDS, Severity, Trouble
from gpudaemon.pipeline.rendered import Rendered
from gpudaemon.pipeline.scout import ScoutLink

__all__ = ["Standing", "Streams", "Wanted"]

_FRESHEST = 3.0
_MOST_LINES = 16384
"""Series of one subject."""
_MOST_KEPT = 65536
"""Counters of former tracers."""

_Key = tuple[str, tuple[str, ...]]
_Number = float | Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted. subjects: collectors' names. tracing: the options of `[tracing]`. limit: series of a
    subject. served: whether a metric is wanted, None: all are."""

    period: float
    subjects: tuple[str, ...]
    tracing: Mapping[str, Any]
    limit: int = _MOST_LINES
    served: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subject stands, as `Watched` in gpudaemon.tracing.watch."""

    state: str
    recipe: str
    reason: str
    armings: int
    malformed: int


class Streams:
    """link: the tracer's. known: whether a device is in the inventory. trouble: takes what subjects met."""

    def __init__(
        self,
        link: ScoutLink,
        wanted: Wanted,
        *,
        procfs: str,
        sysfs: str,
        known: Callable[[str], bool] = lambda _: True,
        trouble: Callable[[Trouble], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = link
        self.standings: dict[str, Standing] = {}
        self.told: dict[str, Any] = {}
        self._wanted = wanted
        self._procfs, self._sysfs = procfs, sysfs
        self._known = known
        self._trouble = trouble
        self._clock = clock
        self._metrics = {row.name: row for row in table()}
        self._next: dict[str, list[Any]] = {}
        self._subjects: dict[str, _Kept] = {}
        self._before: dict[str, float] = {}
        link.on_message = self._message
        link.on_loss = self._lost

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the tracer watch from now on."""
        self._settle()
        self.link.start(loop)

    def reconfigure(self, wanted: Wanted) -> None:
        """Go over to other options."""
        self._wanted = wanted
        self._settle()

    def attend(self, now: float) -> None:
        """Now and then: a silent tracer is replaced."""
        self.link.watch(now)

    def close(self) -> None:
        """End the tracer."""
        self.link.close()

    def total(self, key: str) -> float:
        """A counter of a cycle's end, over all tracers there were: events, lost, malformed, cpu."""
        before: float = self._before.get(key, 0)
        now: float = self.told.get(key, 0)
        return before + now

    @property
    def cut(self) -> dict[str, int]:
        """Series beyond the limit, by subject."""
        return {name: kept.rendered.cut for name, kept in self._subjects.items() if kept.rendered.cut}

    def samples(self, now: float) -> list[Samples]:
        """Parts of a snapshot: what was told lately."""
        fresh = max(_FRESHEST, 3 * self._wanted.period)
        return [
            kept.rendered.samples("") for kept in self._subjects.values() if kept.at and now - kept.at <= fresh
        ]

    def _settle(self) -> None:
        self.link.settle(
            {
                "procfs": self._procfs,
                "sysfs": self._sysfs,
                "period": self._wanted.period,
                "subjects": list(self._wanted.subjects),
                "tracing": dict(self._wanted.tracing),
            }
        )

    def _message(self, message: dict[str, Any]) -> None:
        if "rows" in message:
            self._next.setdefault(message["subject"], []).extend(message["rows"])
        elif "notes" in message:
            for note in message["notes"]:
                self._note(note)
        elif "cycle" in message:
            self._complete(message)

    def _lost(self) -> None:
        """Nothing is watched by a tracer that is gone, and the cycle it was amid is not the next one's."""
        self.standings = {}
        self._next.clear()

    def _note(self, note: list[Any]) -> None:
        device, kind, severity, text, pid, count = note
        if kind in KINDS:
            found = Trouble(
                at=time.time(),
                device=device,
                kind=kind,
                severity=Severity(severity),
                text=text,
                count=count,
                pid=pid,
            )
            self._trouble(found)

    def _complete(self, message: dict[str, Any]) -> None:
        if message["cycle"] == 1:
            # Another tracer, or one that watches anew: its counters started at zero.
            self._before = {key: self.total(key) for key in ("events", "lost", "malformed", "cpu")}
            for kept in self._subjects.values():
                kept.begin_anew()
        self.told = message
        self.standings = {
            name: Standing(*values) for name, values in message["subjects"].items() if values[0] in STATES
        }
        told, self._next = self._next, {}
        now = self._clock()
        for name in self.standings:
            kept = self._subjects.setdefault(name, _Kept(Rendered(time.time())))
            kept.take(self._numbers(told.get(name, ())))
            kept.at = now
            served = self._served(name, kept.rows())
            kept.rendered.take(served, self._wanted.limit)
        for name in [name for name in self._subjects if name not in self.standings]:
            del self._subjects[name]

    def _numbers(self, rows: Iterable[Any]) -> Iterator[StreamRow]:
        for name, labels, value in rows:
            metric = self._metrics.get(name)
            if metric is not None:
                number = Distribution(tuple(value[0]), value[1]) if isinstance(value, list) else value
                yield metric, tuple(labels), number

    def _served(self, subject: str, rows: Iterable[StreamRow]) -> Iterator[StreamRow]:
        served, stream = self._wanted.served, streams().get(subject)
        of_devices = stream is not None and stream.of_devices
        for metric, labels, value in rows:
            if served is not None and not served(metric.name):
                continue
            has_device = of_devices and metric.labels[:1] == ("device",)
            if not has_device or not labels[0] or self._known(labels[0]):
                yield metric, labels, value


class _Kept:
    """Rows of one subject. at: when they were told."""

    def __init__(self, rendered: Rendered) -> None:
        self.rendered = rendered
        self.at = 0.0
        self._now: dict[_Key, tuple[Metric, _Number]] = {}
        self._base: dict[_Key, tuple[Metric, _Number]] = {}

    def begin_anew(self) -> None:
        """What was counted so far is the base of what comes."""
        for key, (metric, value) in self._sums():
            if metric.kind in (Kind.COUNTER, Kind.HISTOGRAM) and (
                key in self._base or len(self._base) < _MOST_KEPT
            ):
                self._base[key] = (metric, value)
        self._now = {}

    def take(self, rows: Iterable[StreamRow]) -> None:
        """All rows of a cycle."""
        self._now = {(metric.name, labels): (metric, value) for metric, labels, value in rows}

    def rows(self) -> Iterator[StreamRow]:
        """What is known, in order of metrics and labels as first told."""
        for (_, labels), (metric, value) in self._sums():
            yield metric, labels, value

    def _sums(self) -> list[tuple[_Key, tuple[Metric, _Number]]]:
        found = dict(self._base)
        for key, (metric, value) in self._now.items():
            base = self._base.get(key)
            found[key] = (metric, value if base is None else _added(base[1], value))
        return list(found.items())


def _added(base: _Number, more: _Number) -> _Number:
    if isinstance(base, Distribution) and isinstance(more, Distribution):
        if len(base.counts) != len(more.counts):
            return more
        counts = tuple(one + other for one, other in zip(base.counts, more.counts, strict=True))
        return Distribution(counts, base.sum + more.sum)
    if isinstance(base, Distribution) or isinstance(more, Distribution):
        return more
    return base + more
