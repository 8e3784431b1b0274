"""Pages that move to GPUs and back: figures made of what the kernel's histograms print."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.hmm.device import STREAM, Migrations
from gpudaemon.metrics import hmm as rows
from gpudaemon.model.metric import Distribution, Metric
from gpudaemon.model.tracing import Context
from gpudaemon.parsers.trace_hist import histograms

SECOND = 10**9
PAGES, OPERATION, RANGES, FAULTS = STREAM.recipes[0].hists
TO_DEVICE, TO_SYSTEM = 1, 2
BY_FAULT, BY_DRIVER = "fault != 0", "fault == 0"

Row = tuple[dict[str, object], int, dict[str, int]]
"""keys, hits, sums"""


def block(trigger: str, lines: Iterable[Row], dropped: int = 0) -> bytes:
    """As kernel/trace/trace_events_hist.c prints it."""
    found = list(lines)
    text = f"# event histogram\n#\n# trigger info: {trigger} [active]\n#\n\n"
    for keys, hits, sums in found:
        names = ", ".join(f"{name}: {value:>10}" for name, value in keys.items())
        values = "".join(f"  {name}: {value:>10}" for name, value in sums.items())
        text += f"{{ {names} }} hitcount: {hits:>10}{values}\n"
    hits = sum(one[1] for one in found)
    return (
        text + f"\nTotals:\n    Hits: {hits}\n    Entries: {len(found)}\n    Dropped: {dropped}\n\n\n"
    ).encode()


class Kernel:
    """Maps that add up; `look` has an accumulator read them, as the tracer does each second."""

    def __init__(self) -> None:
        self.hosts = {4711: ("pod/a", "train"), 4712: ("pod/b", "infer")}
        self.context = Context(
            owner=lambda pid: self.hosts.get(pid, ("unknown", ""))[0],
            comm=lambda pid: self.hosts.get(pid, ("", ""))[1],
            unix=float,
            settings={},
        )
        self.figures = Migrations(self.context)
        self.now = 100 * SECOND
        self.dropped = 0
        self.arm()

    def arm(self) -> None:
        self.pages: dict[tuple[str, int, int], list[int]] = {}
        self.took: dict[tuple[str, int, int], list[int]] = {}
        self.figures.armed(STREAM.recipes[0])

    def migrate(self, pid: int, flags: int, cause: str, pages: int, nanoseconds: int = 5000) -> None:
        one = self.pages.setdefault((cause, pid, flags), [0, 0, 0])
        for place, more in enumerate((1, pages + 3, pages)):
            one[place] += more
        power = (nanoseconds - 1).bit_length()
        other = self.took.setdefault((cause, flags, power), [0, 0])
        other[0] += 1
        other[1] += nanoseconds

    def look(self, seconds: float = 1.0) -> dict[tuple[object, ...], object]:
        """(metric, labels...) -> value."""
        self.now += int(seconds * SECOND)
        for cause in (BY_FAULT, BY_DRIVER):
            self._read(
                PAGES,
                block(
                    f"hist:keys=process,flags:vals=hitcount,asked,got:sort=hitcount:size=8192 if {cause}",
                    [
                        ({"process": pid, "flags": flags}, hits, {"asked": asked, "got": got})
                        for (why, pid, flags), (hits, asked, got) in self.pages.items()
                        if why == cause
                    ],
                    self.dropped,
                ),
            )
            self._read(
                OPERATION,
                block(
                    f"hist:keys=flags,took.log2:vals=hitcount,took:sort=hitcount:size=1024 if {cause}",
                    [
                        ({"flags": flags, "took": f"~ 2^{power}"}, hits, {"took": took})
                        for (why, flags, power), (hits, took) in self.took.items()
                        if why == cause
                    ],
                ),
            )
        return {(metric, *labels): value for metric, labels, value in self.figures.rows(self.now)}

    def _read(self, event: str, content: bytes) -> None:
        for hist in histograms(content):
            self.figures.take_hist(event, hist)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def total(found: dict[tuple[object, ...], object], metric: Metric) -> float:
    return sum(float(value) for key, value in found.items() if key[0] is metric)  # type: ignore[arg-type]


def test_direction_cause_and_whose(kernel: Kernel) -> None:
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 200, 70_000)
    kernel.migrate(4711, TO_SYSTEM, BY_FAULT, 1, 3000)
    kernel.migrate(4712, TO_SYSTEM, BY_DRIVER, 40)
    found = kernel.look()
    assert found[rows.MIGRATED, "pod/a", "to_device", "driver"] == 200
    assert found[rows.MIGRATED, "pod/a", "to_system", "cpu_fault"] == 1
    assert found[rows.MIGRATED, "pod/b", "to_system", "driver"] == 40
    assert found[rows.MIGRATIONS, "pod/a", "to_device", "driver"] == 1
    assert found[rows.RANGE_PAGES, "to_device", "driver"] == 203
    assert found[rows.PROCESS_PAGES, "4711", "train", "to_device"] == 200
    took = found[rows.SECONDS, "to_device", "driver"]
    assert isinstance(took, Distribution) and (took.sum, sum(took.counts)) == (70e-6, 1)
    place = took.counts.index(1)
    assert rows.SECONDS.buckets[place - 1] < 70e-6 <= rows.SECONDS.buckets[place]
    # The same maps again are no further migration.
    assert kernel.look() == found


def test_coherent_memory_comes_from_a_device_too(kernel: Kernel) -> None:
    """MIGRATE_VMA_SELECT_DEVICE_COHERENT is 4; a bit for large folios may be set besides."""
    kernel.migrate(4711, 4 | 8, BY_FAULT, 512)
    kernel.migrate(4711, 1 | 8, BY_DRIVER, 512)
    found = kernel.look()
    assert found[rows.MIGRATED, "pod/a", "to_system", "cpu_fault"] == 512
    assert found[rows.MIGRATED, "pod/a", "to_device", "driver"] == 512


def test_arming_anew_loses_nothing(kernel: Kernel) -> None:
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 10)
    kernel.look()
    kernel.arm()
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 7)
    assert kernel.look()[rows.MIGRATED, "pod/a", "to_device", "driver"] == 17


def test_a_process_that_ended_keeps_its_owner_and_an_unknown_one_is_counted(kernel: Kernel) -> None:
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 10)
    kernel.look()
    del kernel.hosts[4711]
    kernel.migrate(4711, TO_SYSTEM, BY_FAULT, 4)
    kernel.migrate(5000, TO_DEVICE, BY_DRIVER, 3)
    found = kernel.look()
    assert found[rows.MIGRATED, "pod/a", "to_system", "cpu_fault"] == 4
    assert found[rows.MIGRATED, "unknown", "to_device", "driver"] == 3
    assert found[rows.PROCESS_PAGES, "", "", "to_device"] == 3
    # Its number is another process's now, and that one's pages are its own.
    kernel.hosts[4711] = ("pod/b", "other")
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 2)
    found = kernel.look()
    assert found[rows.PROCESS_PAGES, "4711", "other", "to_device"] == 2
    assert found[rows.MIGRATED, "pod/b", "to_device", "driver"] == 2
    assert total(found, rows.PROCESS_PAGES) == total(found, rows.MIGRATED) == 19


def test_pages_that_go_there_and_back(kernel: Kernel) -> None:
    def thrashed() -> object:
        return kernel.look()[rows.THRASHED, "pod/a"]

    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 100)
    assert thrashed() == 0
    kernel.migrate(4711, TO_SYSTEM, BY_FAULT, 30)
    assert thrashed() == 30
    assert thrashed() == 30
    kernel.migrate(4711, TO_SYSTEM, BY_FAULT, 100)
    assert thrashed() == 100
    # A driver that takes pages back is no processor that needs them; and what is long ago is not thrashing.
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 50)
    kernel.migrate(4711, TO_SYSTEM, BY_DRIVER, 50)
    kernel.look()
    kernel.look(20)
    kernel.migrate(4711, TO_SYSTEM, BY_FAULT, 50)
    assert thrashed() == 130


def test_results_ranges_and_drops(kernel: Kernel) -> None:
    for result, hits in ((0, 40), (2**64 - 16, 3), (2**32 - 14, 2), (2**64 - 4000, 1)):
        kernel._read(FAULTS, block("hist:keys=result:size=128", [({"result": result}, hits, {})]))
    kernel._read(RANGES, block("hist:keys=asked.log2:vals=asked", [({"asked": "~ 2^9"}, 2, {"asked": 700})]))
    kernel.dropped = 5
    found = kernel.look()
    faults = {key[1]: value for key, value in found.items() if key[0] is rows.RANGE_FAULTS}
    assert faults == {"ok": 40, "EBUSY": 3, "EFAULT": 2, "4000": 1}
    assert (found[rows.EVICTIONS,], found[rows.EVICTED,]) == (2, 700)
    assert found[rows.DROPPED,] == 10 and kernel.look()[rows.DROPPED,] == 10


def test_nothing_is_known_before_anything_is_watched() -> None:
    figures = Migrations(Kernel().context)
    assert list(figures.rows(5)) == []
    figures.armed(None)
    assert list(figures.rows(6)) == []


def test_owners_go_after_a_quarter_of_an_hour(kernel: Kernel) -> None:
    kernel.migrate(4711, TO_DEVICE, BY_DRIVER, 10)
    assert kernel.look()[rows.MIGRATED, "pod/a", "to_device", "driver"] == 10
    found = kernel.look(1000)
    assert not [key for key in found if "pod/a" in key]
    assert found[rows.PROCESS_PAGES, "", "", "to_device"] == 10


@given(
    st.lists(
        st.tuples(
            st.integers(1, 400),
            st.sampled_from((TO_DEVICE, TO_SYSTEM)),
            st.sampled_from((BY_FAULT, BY_DRIVER)),
            st.integers(0, 1000),
        ),
        max_size=60,
    )
)
def test_sums_are_exact_and_bounded(moves: list[tuple[int, int, str, int]]) -> None:
    kernel = Kernel()
    kernel.hosts = {pid: (f"pod/{pid}", f"app{pid}") for pid in range(400)}
    before = 0.0
    for at, (pid, flags, cause, pages) in enumerate(moves):
        kernel.migrate(pid, flags, cause, pages)
        if at % 3 == 0:
            now = total(kernel.look(), rows.MIGRATED)
            assert now >= before
            before = now
    found = kernel.look()
    moved = sum(move[3] for move in moves)
    assert total(found, rows.MIGRATED) == total(found, rows.PROCESS_PAGES) == moved
    assert total(found, rows.MIGRATIONS) == len(moves)
    took = [value for key, value in found.items() if key[0] is rows.SECONDS]
    assert sum(sum(one.counts) for one in took if isinstance(one, Distribution)) == len(moves)
    assert len({key[1] for key in found if key[0] is rows.PROCESS_PAGES}) <= 33
    assert total(found, rows.THRASHED) <= moved
