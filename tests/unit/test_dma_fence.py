"""Threads that wait for fences: whose time it is, what is seen in part, any order of events."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.dma_fence import RECIPE, Waits
from gpudaemon.model.tracing import Context, Event
from gpudaemon.parsers.trace_format import event_format
from tests import captures

BEGIN, END = (tap.event for tap in RECIPE.taps)
SECOND = 10**9


def waits() -> Waits:
    context = Context(owner=lambda pid: f"owner-{pid % 10}", comm=lambda _: "", unix=float, settings={})
    made = Waits(context)
    made.armed(RECIPE)
    return made


def figures(one: Waits, now: int = 0) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for metric, labels, value in one.rows(now):
        assert len(labels) == len(metric.labels) and isinstance(value, float)
        key = (metric.name.removeprefix("gpudaemon_dma_fence_"), *labels)
        assert key not in found
        found[key] = value
    return found


def begin(at: int, pid: int, driver: str = "amdgpu") -> Event:
    return at, BEGIN, (pid, driver)


def end(at: int, pid: int) -> Event:
    return at, END, (pid,)


def test_time_goes_to_who_waits() -> None:
    one = waits()
    one.take([begin(0, 1), begin(1 * SECOND, 11), begin(1 * SECOND, 2, "i915")])
    one.take([end(3 * SECOND, 1), end(4 * SECOND, 11), end(5 * SECOND, 2)])
    found = figures(one)
    assert found["wait_seconds_total", "owner-1", "amdgpu"] == 6
    assert found["waits_total", "owner-1", "amdgpu"] == 2
    assert found["wait_seconds_total", "owner-2", "i915"] == 4
    assert found["waiting", "owner-1", "amdgpu"] == found["lower_bound",] == 0


def test_a_wait_that_goes_on_is_time_already() -> None:
    one = waits()
    one.take([begin(1 * SECOND, 1)])
    labels = ("owner-1", "amdgpu")
    for now in (2, 60):
        found = figures(one, now * SECOND)
        assert found["wait_seconds_total", *labels] == now - 1
        assert (found["waiting", *labels], found["waits_total", *labels]) == (1, 0)
    one.take([end(61 * SECOND, 1)])
    assert figures(one, 99 * SECOND)["wait_seconds_total", *labels] == 60


def test_what_is_seen_in_part() -> None:
    """An end without a beginning; a beginning whose end was lost, after which the thread waits again."""
    one = waits()
    one.take([end(1, 1), begin(2 * SECOND, 1), begin(5 * SECOND, 1), end(6 * SECOND, 1)])
    assert figures(one)["wait_seconds_total", "owner-1", "amdgpu"] == 1
    one.take([begin(7 * SECOND, 1)])
    one.lost(0)
    found = figures(one, 100 * SECOND)
    assert found["waiting", "owner-1", "amdgpu"] == 0
    assert found["lower_bound",] == 1


def test_it_is_bounded() -> None:
    context = Context(owner=str, comm=lambda _: "", unix=float, settings={})
    one = Waits(context)
    one.armed(RECIPE)
    one.take([begin(1, pid) for pid in range(20000)])
    found = figures(one, 1)
    assert sum(key[0] == "waits_total" for key in found) <= 1025
    assert sum(value for key, value in found.items() if key[0] == "waiting") == 16384
    assert found["lower_bound",] == 1


_EVENT = st.one_of(
    st.builds(begin, st.integers(0, 1 << 62), st.integers(-1, 30), st.text(max_size=5)),
    st.builds(end, st.integers(0, 1 << 62), st.integers(-1, 30)),
)


@given(st.lists(_EVENT, max_size=60))
def test_any_events(events: list[Event]) -> None:
    one = waits()
    before: dict[tuple[str, ...], float] = {}
    for event in sorted(events, key=lambda event: event[0]):
        one.take([event])
        found = figures(one, event[0])
        assert all(value >= 0 for value in found.values())
        assert all(found[key] >= value for key, value in before.items() if key[0] == "waits_total")
        before = found


@pytest.mark.parametrize("kernel", ["6.12.95+deb12", "7.3.4+deb13"])
def test_both_kernels_have_the_fields(kernel: str) -> None:
    path = captures.capture("vm", "lane", f"trace-formats-{kernel}-amd64.tar.gz")
    with tarfile.open(path) as archive:
        for tap in RECIPE.taps:
            stream = archive.extractfile(f"sys/kernel/tracing/events/{tap.event}/format")
            assert stream is not None
            assert set(tap.fields) <= event_format(stream.read()).fields.keys()
