"""Subjects armed and disarmed: which recipe of each this kernel and these rights allow, and what became of it.

The kernel drops events when their module goes, and a probe on a function of a module does not always come
back with it. So each period the identity of the modules a recipe names is compared (the inode of
/sys/module/NAME is a new one after each load), and a subject whose modules changed is armed anew.

So is one with a histogram that is full: its map never gives room back (kernel/trace/tracing_map.c), and would
count nothing of what is new for ever. What happens in the moment between is lost.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.model.tracing import Accumulator, Context, Event, Recipe, Subject, Tap
from gpudaemon.parsers.trace_format import Format, event_format, page_layout
from gpudaemon.parsers.trace_hist import histograms
from gpudaemon.tracing.buffers import Buffers
from gpudaemon.tracing.tracefs import Tracefs, why

__all__ = ["Watch", "Watched"]

_AGAIN = 30.0
"""Seconds after which a subject that could not be armed is tried again without a reason."""
_EMPTIED_EVERY = 60.0
"""Seconds for which a full histogram stays as it is at least."""
_CLOCK_EVERY = 60.0

_Modules = tuple[int, ...]


class _Absent(Exception):
    """What a recipe needs is not in this kernel now."""


@dataclass(slots=True)
class Watched:
    """One subject. recipe: the one in force. state, reason: see `model.tracing.STATES`. armings: how often it
    was armed. malformed: readings of hist files without the documented format. full: a histogram had no room
    since it was armed."""

    subject: Subject
    accumulator: Accumulator
    recipe: Recipe | None = None
    state: str = "absent"
    reason: str = ""
    armings: int = 0
    malformed: int = 0
    taps: list[Tap] = field(default_factory=list)
    modules: _Modules = ()
    due: float = 0.0
    full: bool = False
    armed: float = 0.0


class Watch:
    """All subjects over one tracefs. subjects: those that are wanted. buffer: KiB a processor.

    clock: seconds, monotonic. Nothing here raises: what cannot be done is a subject's state.
    """

    def __init__(
        self,
        tracefs: Tracefs,
        subjects: Iterable[Subject],
        context: Context,
        *,
        sysfs: str,
        buffer: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracefs = tracefs
        self._sysfs = sysfs
        self._settings = context.settings
        self._buffer = buffer
        self._clock = clock
        self.subjects = [Watched(one, one.accumulator(context)) for one in subjects]
        self.buffers: Buffers | None = None
        self._routes: dict[str, Watched] = {}
        self._offset = 0
        self._clock_due = 0.0

    def attend(self) -> None:
        """Arm what can be armed, and anew what lost its module."""
        now = self._clock()
        for one in self.subjects:
            modules = self._modules(one)
            settled = one.recipe is not None or now < one.due
            if one.due and settled and modules == one.modules:
                continue
            self._arm(one, modules)
            one.due = now + _AGAIN

    def collect(self) -> None:
        """Read buffers and histograms, and give the accumulators what is theirs."""
        self._drain()
        for one in self.subjects:
            if one.recipe is not None:
                for event in one.recipe.hists:
                    self._read_hist(one, event)
                # At once, so that all but what comes meanwhile has been read.
                if one.full and self._clock() - one.armed >= _EMPTIED_EVERY:
                    self._arm(one, one.modules)

    def wait(self, channel: int, seconds: float) -> bool:
        """See `Buffers.wait`; buffers that fill meanwhile are drained."""
        end = self._clock() + seconds
        while self.buffers is not None and (left := end - self._clock()) > 0:
            if self.buffers.wait(channel, left):
                return True
            if self._clock() < end - 0.001:
                self._drain()
        return False

    def now(self) -> int:
        """The trace clock, in ns."""
        monotonic = time.monotonic_ns()
        if self.buffers is not None and self._clock() >= self._clock_due:
            self._clock_due = self._clock() + _CLOCK_EVERY
            try:
                self._offset = self._tracefs.clock(self.buffers.processors[0]) - time.monotonic_ns()
            except (OSError, IndexError):
                self._offset = 0
        return monotonic + self._offset

    def close(self) -> None:
        """Remove all that was made."""
        for one in self.subjects:
            self._disarm(one)
        if self.buffers is not None:
            self.buffers.close()
            self.buffers = None
        # What cannot be removed now, the next to trace here removes.
        with contextlib.suppress(OSError):
            self._tracefs.remove_all()
        self._tracefs.release()

    # Arming

    def _modules(self, one: Watched) -> _Modules:
        """What tells a module from the one that was there before, for all that any recipe names; 0: not
        loaded."""
        names = dict.fromkeys(name for recipe in one.subject.recipes for name in recipe.modules)
        return tuple(_inode(f"{self._sysfs}/module/{name}") for name in names)

    def _arm(self, one: Watched, modules: _Modules) -> None:
        self._disarm(one)
        one.modules = modules
        one.full, one.armed = False, self._clock()
        reasons: list[tuple[str, str]] = []
        for recipe in one.subject.recipes:
            if recipe.option and not self._settings.get(recipe.option):
                reasons.append(("absent", f"{recipe.name}: tracing.{recipe.option} is off"))
                continue
            try:
                self._cook(one, recipe)
            except _Absent as absent:
                reasons.append(("absent", f"{recipe.name}: {absent}"))
            except PermissionError as error:
                reasons.append(("denied", why(error)))
            except OSError as error:
                state = "absent" if error.errno == errno.ENOENT else "refused"
                reasons.append((state, f"{recipe.name}: {why(error)}"))
            except Malformed as error:
                reasons.append(("refused", f"{recipe.name}: a format that is not known: {error}"))
            else:
                one.recipe, one.state, one.armings = recipe, "armed", one.armings + 1
                one.reason = "; ".join(reason for _, reason in reasons)
                one.accumulator.armed(recipe)
                return
            self._disarm(one, recipe)
        states = [state for state, _ in reasons]
        one.state = next((state for state in ("denied", "refused") if state in states), "absent")
        one.reason = "; ".join(dict.fromkeys(reason for _, reason in reasons))
        one.accumulator.armed(None)

    def _cook(self, one: Watched, recipe: Recipe) -> None:
        if not self._tracefs.mounted():
            raise _Absent("tracefs is not mounted")
        places = [line.partition(" ")[0].partition(":")[2] for line in recipe.probes]
        own = {place if "/" in place else f"synthetic/{place}" for place in places}
        taps = [tap for tap in recipe.taps if tap.event in own or self._exists(tap)]
        if not taps and not recipe.hists:
            raise _Absent("none of its events")
        self._begin()
        for line in recipe.probes:
            self._tracefs.probe(line)
        for event, text in recipe.triggers:
            self._tracefs.trigger(event, text)
        formats = {tap.event: (event_format(self._tracefs.format(tap.event)), tap) for tap in taps}
        for form, tap in formats.values():
            missing = [name for name in tap.fields if not name.endswith("?") and name not in form.fields]
            if missing:
                raise _Absent(f"{tap.event} has no {', '.join(missing)}")
        one.taps = taps
        self._route()
        for tap in taps:
            self._tracefs.enable(tap.event, tap.filter)

    def _exists(self, tap: Tap) -> bool:
        try:
            self._tracefs.format(tap.event)
        except FileNotFoundError:
            if tap.optional:
                return False
            raise _Absent(f"no event {tap.event}") from None
        return True

    def _begin(self) -> None:
        """Have the instance, clean of what others of ours left. Raises OSError, Malformed."""
        if self.buffers is not None:
            return
        layout = page_layout(self._tracefs.header_page())
        self._tracefs.claim()
        self._tracefs.remove_all()
        self._tracefs.make_instance(self._buffer)
        self.buffers = Buffers(self._tracefs, layout)
        self._clock_due = 0.0

    def _disarm(self, one: Watched, tried: Recipe | None = None) -> None:
        recipe = tried or one.recipe
        if recipe is None:
            return
        for tap in recipe.taps:
            self._tracefs.disable(tap.event)
        for event, _ in reversed(recipe.triggers):
            self._tracefs.remove_triggers(event)
        for line in reversed(recipe.probes):
            self._tracefs.remove_probe(line)
        one.recipe = None
        one.taps = []
        self._route()

    def _route(self) -> None:
        """Tell the decoder what all subjects want. Raises Malformed, OSError."""
        self._routes = {tap.event: one for one in self.subjects for tap in one.taps}
        wanted: dict[str, tuple[Format, Sequence[str]]] = {}
        for one in self.subjects:
            for tap in one.taps:
                try:
                    form = event_format(self._tracefs.format(tap.event))
                except (OSError, Malformed):
                    continue  # it went with its module; its subject is armed anew
                wanted[tap.event] = (form, [name.removesuffix("?") for name in tap.fields])
        if self.buffers is not None:
            self.buffers.watch(wanted)

    # Collecting

    def _drain(self) -> None:
        if self.buffers is None:
            return
        events, lost = self.buffers.drain()
        if lost:
            for one in self.subjects:
                if one.taps:
                    one.accumulator.lost(lost)
        for watched, part in _parts(events, self._routes):
            watched.accumulator.take(part)

    def _read_hist(self, one: Watched, event: str) -> None:
        try:
            found = histograms(self._tracefs.hist(event))
        except OSError:
            return  # it went with its module, which is noticed at the next look
        except Malformed:
            one.malformed += 1
            return
        for hist in found:
            one.full |= hist.dropped > 0
            one.accumulator.take_hist(event, hist)


def _parts(events: list[Event], routes: Mapping[str, Watched]) -> Iterator[tuple[Watched, list[Event]]]:
    """Events by subject, each in order of time."""
    subjects = {id(one): one for one in routes.values()}
    if len(subjects) == 1:
        if events:
            yield next(iter(subjects.values())), events
        return
    parts: dict[int, list[Event]] = {}
    for event in events:
        one = routes.get(event[1])
        if one is not None:
            parts.setdefault(id(one), []).append(event)
    for key, part in parts.items():
        yield subjects[key], part


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
