"""What is watched by tracing, as data: events, probes and hist triggers, and who makes figures of them.

A subject (`gpudaemon.collectors`, value STREAM) names recipes, the best first; the tracer
(`gpudaemon.tracing`) arms the first that this kernel and its rights allow, and gives what it reads to the
subject's accumulator. Everything here is a pure description: what exists is asked of tracefs at run time,
never of a kernel version.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpudaemon.model.metric import Distribution, Metric

__all__ = [
    "GROUP",
    "STATES",
    "SYNTHETIC",
    "Accumulator",
    "Context",
    "Event",
    "Hist",
    "HistRow",
    "Note",
    "Recipe",
    "StreamRow",
    "Subject",
    "Tap",
]

GROUP = "gpudaemon"
"""Name of the tracer's own instance, and the group of its probes."""
SYNTHETIC = "gpudaemon_"
"""With what the names of its synthetic events begin; their group is always `synthetic`."""

STATES = ("armed", "denied", "absent", "refused", "off")
"""How a subject can stand: watched; no right to trace; the kernel or a module has no such events now; the
kernel refused a probe or a trigger; not wanted."""

Event = tuple[int, str, tuple[Any, ...]]
"""trace clock in ns, "group/event", values in the order of the tap's fields.

int; str of character arrays and strings; bytes of other arrays; None of a field this kernel does not have.
"""

StreamRow = tuple[Metric, tuple[str, ...], float | Distribution]
"""metric, label values, value"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """An event that is read from the ring buffer.

    event: "group/event". fields: names in its format, `common_pid` included; one that ends in `?` may be
    missing. filter: for the instance. optional: the recipe does without the event where there is none.
    """

    event: str
    fields: tuple[str, ...]
    filter: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to watch a subject.

    probes: lines of dynamic_events, `f:gpudaemon/NAME ...`, `p:gpudaemon/NAME ...` or `s:gpudaemon_NAME ...`.
    triggers: (event, hist trigger), set in this order and removed in reverse. Only on events made by `probes`:
    unloading a module under a hist trigger on one of its own events makes the kernel WARN
    (kernel/tracepoint.c, tracepoint_module_going), and that must not be possible. hists: events of those whose
    `hist` is read each period, in this order. modules: kernel modules whose loading is reason to look again.
    option: name of an option of `[tracing]` that must be true, empty for none.
    """

    name: str
    taps: tuple[Tap, ...] = ()
    probes: tuple[str, ...] = ()
    triggers: tuple[tuple[str, str], ...] = ()
    hists: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    option: str = ""

    def __post_init__(self) -> None:
        for line in self.probes:
            place = line.partition(" ")[0].partition(":")[2]
            assert place.startswith((f"{GROUP}/", SYNTHETIC)), line
        for event in (*(event for event, _ in self.triggers), *self.hists):
            assert event.startswith((f"{GROUP}/", f"synthetic/{SYNTHETIC}")), event
        assert self.taps or self.hists, self.name


@dataclass(frozen=True, slots=True)
class HistRow:
    """One line of a histogram. keys: as text without blanks around it. values: `hitcount` and the others."""

    keys: Mapping[str, str]
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Hist:
    """What one hist trigger has added up. trigger: its text. dropped: events that found the map full."""

    trigger: str
    rows: tuple[HistRow, ...]
    hits: int
    entries: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Trouble a subject met; the words are those of `model.trouble`: a kind, a severity. count: how often."""

    device: str
    kind: str
    severity: str
    text: str = ""
    pid: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the tracer gives a subject.

    owner: pid -> key of the cgroup's owner, `unknown` where that is not known. comm: pid -> name of the
    process, empty where that is not known. unix: trace clock -> seconds since 1970. settings: the options of
    `[tracing]`.
    """

    owner: Callable[[int], str]
    comm: Callable[[int], str]
    unix: Callable[[int], float]
    settings: Mapping[str, Any]


class Accumulator(Protocol):
    """Makes figures of events; pure. Made once in a tracer's life, in which its counters never fall."""

    def armed(self, recipe: Recipe | None) -> None:
        """Watching begins, or begins anew: totals of hist triggers start at zero, what was in flight is void.
        None: nothing is watched any more."""

    def take(self, events: Sequence[Event]) -> None:
        """Events in order of time, over all processors."""

    def take_hist(self, event: str, hist: Hist) -> None:
        """What a trigger of an event has added up since it was armed."""

    def lost(self, events: int) -> None:
        """So many events were overwritten before they were read; 0: some."""

    def rows(self, now: int) -> Iterable[StreamRow]:
        """All figures. now: the trace clock."""

    def notes(self) -> Iterable[Note]:
        """Trouble since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """name: of the collector. recipes: the best first. of_devices: rows whose first label is `device` are
    served only while that device is in the inventory; a device without a name is served always."""

    name: str
    recipes: tuple[Recipe, ...]
    accumulator: Callable[[Context], Accumulator]
    of_devices: bool = True
