"""Requests of i915: counts, times, preemption, what is seen in part, any order of events."""

import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors.i915_request import RECIPE, Requests
from gpudaemon.model.tracing import Context, Event
from gpudaemon.parsers.trace_format import event_format
from tests import captures

RCS = ("card0", "rcs0")
FIELDS = {tap.event.removeprefix("i915/i915_request_"): tap for tap in RECIPE.taps}
MILLISECOND = 10**6


def requests() -> Requests:
    made = Requests(Context(owner=str, comm=str, unix=float, settings={}))
    made.armed(RECIPE)
    return made


def figures(one: Requests) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for metric, labels, value in one.rows(0):
        assert len(labels) == len(metric.labels)
        key = (metric.name.removeprefix("gpudaemon_i915_"), *labels)
        assert key not in found
        found[key] = value
    return found


def event(at: int, name: str, seqno: int = 1, pid: int = 7, kind: int = 0) -> Event:
    more = (pid,) if name.startswith("wait") else ()
    return at * MILLISECOND, f"i915/i915_request_{name}", (0, kind, 0, 99, seqno, *more)


def test_a_request_of_a_distributions_kernel() -> None:
    one = requests()
    one.take([event(0, "add"), event(1, "add", 2), event(5, "retire"), event(0, "add", 1, kind=4)])
    found = figures(one)
    assert found["requests_added_total", *RCS] == 2
    assert found["requests_retired_total", *RCS] == found["requests_in_flight", *RCS] == 1
    assert found["request_retired_after_seconds", *RCS].sum == pytest.approx(0.005)
    assert found["requests_added_total", "card0", "ccs0"] == 1
    assert not [key for key in found if key[0] == "request_run_seconds"]


def test_turns_on_the_hardware_add_up() -> None:
    one = requests()
    one.take([event(0, "add"), event(1, "in"), event(3, "out"), event(8, "in"), event(9, "out")])
    one.take([event(10, "retire"), event(11, "retire", 5)])
    found = figures(one)
    assert found["request_run_seconds", *RCS].sum == pytest.approx(0.003)
    assert sum(found["request_run_seconds", *RCS].counts) == 1
    assert found["requests_retired_total", *RCS] == 2
    assert found["requests_in_flight", *RCS] == 0


def test_threads_that_wait() -> None:
    one = requests()
    one.take([event(0, "wait_begin", pid=1), event(2, "wait_begin", pid=2), event(5, "wait_end", pid=1)])
    one.take([event(6, "wait_end", pid=3), event(12, "wait_end", pid=2)])
    found = figures(one)
    assert found["request_waits_total", *RCS] == 2
    assert found["request_wait_seconds_total", *RCS] == pytest.approx(0.015)


def test_a_loss_forgets_what_is_in_flight() -> None:
    one = requests()
    one.take([event(0, "add")])
    one.lost(3)
    one.take([event(500, "retire")])
    found = figures(one)
    assert found["requests_lower_bound",] == 1
    assert found["requests_in_flight", *RCS] == 0
    assert sum(found["request_retired_after_seconds", *RCS].counts) == 0


def test_it_is_bounded() -> None:
    one = requests()
    for number in range(70000):
        one.take([event(0, "add", number)])
    for number in range(300):
        one.take([(0, "i915/i915_request_add", (number, 0, 0, 99, 1))])
    found = figures(one)
    assert found["requests_in_flight", *RCS] == 65536
    assert found["requests_lower_bound",] == 1
    assert len({key[1:] for key in found}) <= 258


_EVENTS = st.lists(
    st.builds(
        event, st.integers(0, 1 << 40), st.sampled_from(sorted(FIELDS)), st.integers(0, 5), st.integers(0, 3)
    ),
    max_size=60,
)


@given(_EVENTS)
def test_any_events(events: list[Event]) -> None:
    one = requests()
    one.take(events)
    found = figures(one)
    for key, value in found.items():
        if key[0] == "requests_added_total":
            assert value == sum(name.endswith("_add") for _, name, _ in events)
        if not key[0].endswith("_seconds"):
            assert value >= 0


@pytest.mark.parametrize("kernel", ["6.12.95+deb12", "7.3.4+deb13"])
def test_both_kernels_have_the_fields(kernel: str) -> None:
    path = captures.capture("vm", "lane", f"trace-formats-{kernel}-amd64.tar.gz")
    with tarfile.open(path) as archive:
        for name in ("add", "retire", "wait_begin", "wait_end"):
            tap = FIELDS[name]
            stream = archive.extractfile(f"sys/kernel/tracing/events/{tap.event}/format")
            assert stream is not None
            assert set(tap.fields) <= event_format(stream.read()).fields.keys()
