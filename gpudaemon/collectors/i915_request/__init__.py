"""Requests of i915, event by event: it does not use the DRM scheduler.

Kernels of distributions trace when a request is added and retired, and who waits for one. When it ran is told
only by those built with CONFIG_DRM_I915_LOW_LEVEL_TRACEPOINTS; retiring is lazy, so the time until then is an
upper bound. A request is (device, context, seqno); the fence's context is whole here, its number has 32 bits.
drivers/gpu/drm/i915/i915_trace.h, i915_request.c.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gpudaemon.collectors import Collector
from gpudaemon.metrics import i915_request as rows
from gpudaemon.model.metric import Metric, Tally
from gpudaemon.model.tracing import Context, Event, Hist, Note, Recipe, StreamRow, Subject, Tap

__all__ = ["COLLECTOR", "RECIPE", "STREAM", "Requests"]

_ADD, _RETIRE, _IN, _OUT, _WAIT_BEGIN, _WAIT_END = (
    f"i915/i915_request_{name}" for name in ("add", "retire", "in", "out", "wait_begin", "wait_end")
)
_REQUEST = ("dev", "class", "instance", "ctx", "seqno")
_CLASSES = ("rcs", "bcs", "vcs", "vecs", "ccs")
"""include/uapi/drm/i915_drm.h, enum drm_i915_gem_engine_class."""
_MOST_REQUESTS = 65536
_MOST_THREADS = 16384
_MOST_ENGINES = 256

_Request = tuple[int, int, int]
"""device, context, seqno"""

RECIPE = Recipe(
    name="events",
    modules=("i915",),
    taps=(
        Tap(event=_ADD, fields=_REQUEST),
        Tap(event=_RETIRE, fields=_REQUEST),
        *(Tap(event=event, fields=_REQUEST, optional=True) for event in (_IN, _OUT)),
        *(
            Tap(event=event, fields=(*_REQUEST, "common_pid"), optional=True)
            for event in (_WAIT_BEGIN, _WAIT_END)
        ),
    ),
)


def _tally() -> Tally:
    return Tally(rows.FIRST_POWER, rows.LAST_POWER)


@dataclass(slots=True)
class _Engine:
    """What is known of one engine. in_flight: requests added and not retired. waited: ns."""

    added: int = 0
    retired: int = 0
    in_flight: int = 0
    until: Tally = field(default_factory=_tally)
    run: Tally = field(default_factory=_tally)
    waits: int = 0
    waited: int = 0


class Requests:
    """The accumulator (`model.tracing.Accumulator`)."""

    def __init__(self, _: Context) -> None:
        self._known = False
        self._lower_bound = False
        self._low_level = False
        self._engines: dict[tuple[str, str], _Engine] = {}
        self._added: dict[_Request, int] = {}
        self._began: dict[_Request, int] = {}
        self._ran: dict[_Request, int] = {}
        self._waiting: dict[int, int] = {}

    def armed(self, recipe: Recipe | None) -> None:
        """Nothing is known of what is in flight."""
        self._known = self._known or recipe is not None
        self._forget()

    def take(self, events: Sequence[Event]) -> None:
        """Events of requests."""
        for at, name, values in events:
            device, kind, instance, context, seqno = values[:5]
            engine = self._engine(device, kind, instance)
            request = (device, context, seqno)
            if name == _ADD:
                self._add(engine, request, at)
            elif name == _RETIRE:
                self._retire(engine, request, at)
            elif name == _IN:
                self._low_level = True
                if len(self._began) < _MOST_REQUESTS:
                    self._began[request] = at
            elif name == _OUT:
                began = self._began.pop(request, None)
                if began is not None and len(self._ran) < _MOST_REQUESTS:
                    self._ran[request] = self._ran.get(request, 0) + max(0, at - began)
            elif name == _WAIT_BEGIN:
                if len(self._waiting) < _MOST_THREADS:
                    self._waiting[values[5]] = at
            elif (began := self._waiting.pop(values[5], None)) is not None:
                engine.waits += 1
                engine.waited += max(0, at - began)

    def take_hist(self, event: str, hist: Hist) -> None:
        """The kernel adds nothing up."""

    def lost(self, events: int) -> None:
        """Ends may be among what was lost: nothing is known of what is in flight."""
        self._lower_bound = True
        self._forget()

    def rows(self, now: int) -> Iterator[StreamRow]:
        """All figures; none before anything could be watched."""
        if not self._known:
            return
        for labels, engine in self._engines.items():
            numbers: tuple[tuple[Metric, float], ...] = (
                (rows.ADDED, engine.added),
                (rows.RETIRED, engine.retired),
                (rows.IN_FLIGHT, engine.in_flight),
                (rows.WAITS, engine.waits),
                (rows.WAIT_TIME, engine.waited / 1e9),
            )
            yield from ((metric, labels, float(value)) for metric, value in numbers)
            yield rows.UNTIL_RETIRED, labels, engine.until.distribution()
            if self._low_level:
                yield rows.RUN_TIME, labels, engine.run.distribution()
        yield rows.LOWER_BOUND, (), float(self._lower_bound)

    def notes(self) -> Iterable[Note]:
        """Trouble: the driver's own watch finds hangs, and says so by uevents."""
        return ()

    def _forget(self) -> None:
        for known in (self._added, self._began, self._ran):
            known.clear()
        self._waiting.clear()
        for engine in self._engines.values():
            engine.in_flight = 0

    def _engine(self, device: int, kind: int, instance: int) -> _Engine:
        name = f"{_CLASSES[kind]}{instance}" if kind < len(_CLASSES) else f"{kind}:{instance}"
        place = (f"card{device}", name)
        if place not in self._engines and len(self._engines) >= _MOST_ENGINES:
            place = ("others", "others")
        return self._engines.setdefault(place, _Engine())

    def _add(self, engine: _Engine, request: _Request, at: int) -> None:
        engine.added += 1
        if len(self._added) >= _MOST_REQUESTS:
            self._lower_bound = True
            return
        if request not in self._added:
            engine.in_flight += 1
        self._added[request] = at

    def _retire(self, engine: _Engine, request: _Request, at: int) -> None:
        engine.retired += 1
        added = self._added.pop(request, None)
        self._began.pop(request, None)
        ran = self._ran.pop(request, None)
        if added is not None:
            engine.in_flight = max(0, engine.in_flight - 1)
            engine.until.observe(at - added)
        if ran is not None:
            engine.run.observe(ran)


COLLECTOR = Collector(
    name="i915_request", emits=tuple(one for one in vars(rows).values() if isinstance(one, Metric))
)
STREAM = Subject(name="i915_request", recipes=(RECIPE,), accumulator=Requests, of_devices=False)
