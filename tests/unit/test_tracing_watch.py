"""When a subject is armed anew: over a tracefs that only remembers what it was told."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import pytest

from gpudaemon.model.tracing import Context, Event, Hist, Note, Recipe, StreamRow, Subject
from gpudaemon.tracing.tracefs import Tracefs
from gpudaemon.tracing.watch import Watch

EVENT = "gpudaemon/thing"
HEADER = b"""\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;
"""
RECIPE = Recipe(
    name="probe",
    probes=(f"p:{EVENT} some_function",),
    triggers=((EVENT, "hist:keys=key:size=4"),),
    hists=(EVENT,),
)


class Kernel:
    """One map with room for four keys; what finds it full is dropped."""

    root = "/nowhere"

    def __init__(self) -> None:
        self.probes: list[str] = []
        self.map: dict[str, int] | None = None
        self.dropped = 0
        self._pipes: list[int] = []

    def happen(self, key: str) -> None:
        assert self.map is not None
        if key in self.map or len(self.map) < 4:
            self.map[key] = self.map.get(key, 0) + 1
        else:
            self.dropped += 1

    def mounted(self) -> bool:
        return True

    def header_page(self) -> bytes:
        return HEADER

    def claim(self) -> None: ...

    def release(self) -> None: ...

    def remove_all(self) -> None: ...

    def make_instance(self, _: int) -> None: ...

    def disable(self, _: str) -> None: ...

    def processors(self) -> list[int]:
        return [0]

    def open_pages(self, _: int) -> int:
        ours, theirs = os.pipe2(os.O_NONBLOCK)
        self._pipes.append(theirs)
        return ours

    def probe(self, line: str) -> None:
        self.probes.append(line)

    def remove_probe(self, line: str) -> None:
        if line in self.probes:
            self.probes.remove(line)

    def trigger(self, _: str, __: str) -> None:
        self.map, self.dropped = {}, 0

    def remove_triggers(self, _: str) -> None:
        self.map = None

    def hist(self, _: str) -> bytes:
        assert self.map is not None
        lines = "".join(f"{{ key: {key} }} hitcount: {hits}\n" for key, hits in self.map.items())
        hits = sum(self.map.values())
        return (
            f"# event histogram\n#\n# trigger info: hist:keys=key [active]\n#\n\n{lines}\nTotals:\n"
            f"    Hits: {hits}\n    Entries: {len(self.map)}\n    Dropped: {self.dropped}\n"
        ).encode()

    def close(self) -> None:
        for descriptor in self._pipes:
            os.close(descriptor)


class Counts:
    """What happened by key, over all armings."""

    def __init__(self, _: Context) -> None:
        self.total: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def armed(self, _: Recipe | None) -> None:
        self._last = {}

    def take(self, _: Sequence[Event]) -> None: ...

    def lost(self, _: int) -> None: ...

    def notes(self) -> Iterable[Note]:
        return ()

    def rows(self, _: int) -> Iterable[StreamRow]:
        return ()

    def take_hist(self, _: str, hist: Hist) -> None:
        now = {row.keys["key"]: row.values["hitcount"] for row in hist.rows}
        for key, hits in now.items():
            self.total[key] = self.total.get(key, 0) + hits - self._last.get(key, 0)
        self._last = now


class Scene:
    """A tracer that looks when it is told to."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.now = 1000.0
        subject = Subject(name="things", recipes=(RECIPE,), accumulator=Counts, of_devices=False)
        context = Context(owner=str, comm=str, unix=float, settings={})
        tracefs = cast(Tracefs, self.kernel)
        self.watch = Watch(tracefs, [subject], context, sysfs="/nowhere", buffer=64, clock=lambda: self.now)
        (self.watched,) = self.watch.subjects
        self.look(0.0)

    def look(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.watch.attend()
        self.watch.collect()

    @property
    def total(self) -> dict[str, int]:
        return cast(Counts, self.watched.accumulator).total


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.watch.close()
    made.kernel.close()


def test_a_full_histogram_is_made_anew(scene: Scene) -> None:
    for number in range(6):
        scene.kernel.happen(f"{number}")
    scene.look()
    assert scene.watched.armings == 1, "not each second"
    assert scene.total == dict.fromkeys("0123", 1)
    scene.kernel.happen("0")
    scene.look(60.0)
    assert (scene.watched.armings, scene.watched.state) == (2, "armed")
    assert scene.kernel.probes == list(RECIPE.probes)
    for key in ("5", "0"):
        scene.kernel.happen(key)
    scene.look()
    assert scene.total == {"0": 3, "1": 1, "2": 1, "3": 1, "5": 1}


def test_one_that_has_room_stays(scene: Scene) -> None:
    for _ in range(100):
        scene.kernel.happen("0")
        scene.look(60.0)
    assert (scene.watched.armings, scene.total) == (1, {"0": 100})
