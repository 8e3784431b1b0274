"""Jobs of the DRM scheduler: followed event by event, and as the kernel has added them up."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.collectors.drm_sched import recipes
from gpudaemon.collectors.drm_sched.account import Jobs
from gpudaemon.metrics import drm_sched as rows
from gpudaemon.model.metric import Distribution
from gpudaemon.model.tracing import Context, Event, Hist, HistRow, Recipe
from tests import captures
from tests.traces import RawTrace

GPU = "0000:03:00.0"
FPROBE, EVENTS, OLD = recipes.RECIPES
SECOND = 10**9


def jobs(recipe: Recipe = EVENTS, hang: float = 5.0) -> Jobs:
    context = Context(owner=lambda pid: f"owner-{pid}", comm=lambda _: "", unix=float, settings={"hang": hang})
    made = Jobs(context)
    made.armed(recipe)
    return made


def figures(one: Jobs, now: int = 0) -> dict[tuple[str, ...], Any]:
    """(name without prefix and suffix, labels but the device) -> value."""
    found: dict[tuple[str, ...], Any] = {}
    for metric, labels, value in one.rows(now):
        name = metric.name.removeprefix("gpudaemon_drm_sched_").removesuffix("_total")
        key = (name, *labels[1:]) if labels else (name,)
        assert key not in found, f"{key} twice"
        assert len(labels) == len(metric.labels)
        found[key] = value
    return found


def queue(now: int, seqno: int, ring: str = "gfx", pid: int = 7) -> Event:
    return now, recipes.QUEUE, (1, seqno, ring, GPU, pid)


def run(now: int, seqno: int, ring: str = "gfx") -> Event:
    return now, recipes.RUN, (1, seqno, ring, GPU)


def done(now: int, seqno: int) -> Event:
    return now, recipes.DONE, (1, seqno)


def test_a_job_behind_another_runs_from_its_end() -> None:
    one = jobs()
    one.take([queue(100, 1), queue(110, 2), run(200, 1), run(210, 2), done(1200, 1), done(1700, 2)])
    found = figures(one)
    assert found["run_seconds", "gfx"].sum == pytest.approx(1.5e-6)
    assert found["queue_wait_seconds", "gfx"].sum == pytest.approx((100 + 1090) / 1e9)
    assert found["ring_busy_seconds", "gfx"] == pytest.approx(1.5e-6)
    assert [found[f"jobs_{word}", "gfx"] for word in ("queued", "run", "done")] == [2, 2, 2]
    assert found["jobs_waiting", "gfx"] == found["jobs_on_hardware", "gfx"] == 0
    assert found["owner_jobs_done", "gfx", "owner-7"] == 2


def test_rings_that_work_at_once_do_not_shorten_each_other() -> None:
    one = jobs()
    one.take([queue(0, 1), queue(0, 2, "copy"), run(10, 1), run(10, 2, "copy"), done(110, 1), done(210, 2)])
    found = figures(one)
    assert (found["run_seconds", "gfx"].sum, found["run_seconds", "copy"].sum) == (1e-7, 2e-7)


def test_a_dependency_is_time_of_its_own() -> None:
    one = jobs()
    blocked = [(60, recipes.DEPENDS, (1, 1)), (70, recipes.DEPENDS, (1, 1))]
    one.take([queue(10, 1), *blocked, run(5060, 1), done(9999, 1)])
    found = figures(one)
    assert found["dependency_wait_seconds", "gfx"].sum == pytest.approx(5e-6)
    assert found["queue_wait_seconds", "gfx"].sum == pytest.approx(5.05e-6)


def test_what_is_seen_in_part_is_counted() -> None:
    """A job begun before, one that was dropped with its process, one that was cancelled before it ran."""
    one = jobs()
    one.take([run(10, 1), done(20, 1), queue(30, 2), queue(30, 3), done(40, 3), done(50, 99)])
    found = figures(one, now=50)
    assert found["jobs_unmatched",] == 2
    assert found["run_seconds", "gfx"].sum == pytest.approx(1e-8)
    assert found["queue_wait_seconds", "gfx"].counts == (0,) * (len(rows.QUEUE_WAIT.buckets) + 1)
    assert found["jobs_waiting", "gfx"] == 1
    assert figures(one, now=120 * SECOND)["jobs_waiting", "gfx"] == 0
    assert figures(one, now=120 * SECOND)["jobs_unmatched",] == 3


def test_a_hang_is_noticed_once_and_ends() -> None:
    one = jobs(hang=2.0)
    one.take([queue(0, 1), run(1 * SECOND, 1)])
    assert figures(one, now=int(2.9 * SECOND))["hung", "gfx"] == 0
    assert not list(one.notes())
    found = figures(one, now=int(3.1 * SECOND))
    assert (found["hung", "gfx"], found["hangs", "gfx"]) == (1, 1)
    assert found["no_progress_seconds", "gfx"] == pytest.approx(2.1)
    figures(one, now=4 * SECOND)
    (note,) = one.notes()
    assert (note.device, note.kind) == (GPU, "job_hang") and "gfx" in note.text
    one.take([done(5 * SECOND, 1)])
    found = figures(one, now=5 * SECOND)
    assert (found["hung", "gfx"], found["hangs", "gfx"]) == (0, 1)


def test_a_busy_ring_does_not_hang() -> None:
    """A job waits long behind others, which end one after the other."""
    one = jobs(hang=2.0)
    one.take([queue(0, number) for number in range(1, 6)])
    one.take([run(number, number) for number in range(1, 6)])
    for number in range(1, 5):
        one.take([done(number * SECOND, number)])
        assert figures(one, now=number * SECOND)["hung", "gfx"] == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["queue", "run", "done", "dep"]), st.integers(1, 6)), max_size=60),
    st.booleans(),
)
def test_any_order_of_events(steps: list[tuple[str, int]], old: bool) -> None:
    """Whatever is lost, levels are never below zero and counts add up."""
    one = jobs(OLD if old else EVENTS)
    made = {
        False: {"queue": queue, "run": run, "done": done, "dep": lambda t, s: (t, recipes.DEPENDS, (1, s))},
        True: {
            "queue": lambda t, s: (t, recipes.OLD_QUEUE, (s, s, "gfx", 7)),
            "run": lambda t, s: (t, recipes.OLD_RUN, (s, s, "gfx")),
            "done": lambda t, s: (t, recipes.OLD_DONE, (s,)),
            "dep": lambda t, s: (t, recipes.OLD_DEPENDS, ("gfx", s)),
        },
    }[old]
    one.take([made[word](10 * at + 10, seqno) for at, (word, seqno) in enumerate(steps)])
    found = figures(one, now=10 * len(steps))
    words = Counter(word for word, _ in steps)
    assert found.get(("jobs_queued", "gfx"), 0) == words["queue"]
    assert found.get(("jobs_run", "gfx"), 0) == words["run"]
    if ("jobs_done", "gfx") in found:
        assert found["jobs_waiting", "gfx"] >= 0 and found["jobs_on_hardware", "gfx"] >= 0
        assert sum(found["run_seconds", "gfx"].counts) <= found["jobs_done", "gfx"] <= words["done"]
        assert found["ring_busy_seconds", "gfx"] <= 10 * len(steps) / 1e9
    one.armed(None)
    for (name, *_), value in figures(one, now=10 * len(steps)).items():
        assert not name.startswith(("jobs_waiting", "jobs_on_hardware", "hung")) or value == 0


def test_a_fence_that_is_anothers_by_now() -> None:
    """Older kernels name a fence by its address; an end there and the queueing of the next job were lost."""
    one = jobs(OLD)
    one.take([(10, recipes.OLD_QUEUE, (5, 1, "gfx", 7)), (20, recipes.OLD_RUN, (5, 9, "copy"))])
    one.take([(30, recipes.OLD_DONE, (5,))])
    found = figures(one, now=40)
    assert found["jobs_unmatched",] == 2
    assert found["jobs_waiting", "gfx"] == found["jobs_on_hardware", "copy"] == 0
    assert found["jobs_done", "copy"] == 1 and found["run_seconds", "copy"].sum == pytest.approx(1e-8)


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["queue", "run", "done"]), st.integers(1, 3), st.sampled_from(["gfx", "copy"])
        ),
        max_size=40,
    )
)
def test_any_order_of_events_on_two_rings(steps: list[tuple[str, int, str]]) -> None:
    one = jobs(OLD)
    words = {
        "queue": lambda t, fence, ring: (t, recipes.OLD_QUEUE, (fence, t, ring, 7)),
        "run": lambda t, fence, ring: (t, recipes.OLD_RUN, (fence, t, ring)),
        "done": lambda t, fence, ring: (t, recipes.OLD_DONE, (fence,)),
    }
    one.take([words[word](10 * at + 10, fence, ring) for at, (word, fence, ring) in enumerate(steps)])
    for (name, *_), value in figures(one, now=10 * len(steps)).items():
        assert not name.startswith(("jobs_waiting", "jobs_on_hardware")) or value >= 0


def test_nothing_is_left_of_many_jobs() -> None:
    """Invariants after 100,000 jobs, of which some are dropped with their process."""
    one = jobs()
    now = seqno = dropped = 0
    for _ in range(1000):
        batch = []
        for number in range(100):
            seqno += 1
            batch.append(queue(now + number, seqno, pid=seqno % 300))
            if seqno % 97 == 0:
                dropped += 1
                continue
            batch += [run(now + 200 + number, seqno), done(now + 1000 + number, seqno)]
        one.take(sorted(batch, key=lambda event: event[0]))
        now += 2000
    found = figures(one, now=now + 100 * SECOND)
    assert found["jobs_queued", "gfx"] == 100_000
    assert found["jobs_done", "gfx"] == found["jobs_run", "gfx"] == 100_000 - dropped
    assert found["jobs_unmatched",] == dropped and found["jobs_waiting", "gfx"] == 0
    assert sum(found["run_seconds", "gfx"].counts) == 100_000 - dropped
    owners = [value for (name, *_), value in found.items() if name == "owner_jobs_done"]
    assert len(owners) <= 257 and sum(owners) == 100_000 - dropped
    assert not one._follow._jobs and not any(one._follow._running.values())


# As the kernel adds up


def hist(keys: str, *lines: tuple[dict[str, str], dict[str, int]], dropped: int = 0) -> Hist:
    made = tuple(HistRow(key, value) for key, value in lines)
    return Hist(f"hist:keys={keys}:vals=hitcount:size=2048", made, 0, len(made), dropped)


def kernel(one: Jobs, queued: int, run: int, done: int, *, errors: int = 0, dropped: int = 0) -> None:
    """A reading of all histograms of one ring, in the order of the recipe; each job takes 1000 ns."""
    ring = {"at": "18446612682342", "ring": "gfx"}
    well = done - errors
    one.take_hist(
        recipes.JOB,
        hist(
            "at,ring,run.log2",
            ({**ring, "run": "~ 2^10"}, {"hitcount": well, "run": 1000 * well}),
            dropped=dropped,
        ),
    )
    one.take_hist(
        recipes.JOB,
        hist("at,ring,wait.log2", ({**ring, "wait": "~ 2^20"}, {"hitcount": well, "wait": 600_000 * well})),
    )
    one.take_hist(recipes.CLEANUP, hist("common_cpu", ({"common_cpu": "0"}, {"hitcount": well})))
    lines = [({**ring, "err": "0"}, {"hitcount": well})]
    if errors:
        lines.append(({**ring, "err": "18446744073709551554"}, {"hitcount": errors}))
    one.take_hist(recipes.CLEANUP, hist("at,ring,err", *lines))
    one.take_hist(recipes.SCHEDULED, hist("at,ring", (ring, {"hitcount": run})))
    one.take_hist(recipes.PUSHED, hist("at,ring", (ring, {"hitcount": queued})))
    one.take_hist(recipes.PUSHED, hist("at,dev", ({"at": ring["at"], "dev": GPU}, {"hitcount": queued})))


def test_what_the_kernel_added_up() -> None:
    one = jobs(FPROBE)
    kernel(one, 5, 4, 3, errors=1)
    kernel(one, 5, 4, 3, errors=1)  # the device's name comes with the first reading
    found = figures(one, now=SECOND)
    assert [found[f"jobs_{word}", "gfx"] for word in ("queued", "run", "done")] == [5, 4, 3]
    assert found["jobs_failed", "gfx", "ETIME"] == 1
    assert (found["jobs_waiting", "gfx"], found["jobs_on_hardware", "gfx"]) == (1, 1)
    assert found["run_seconds", "gfx"] == Distribution((2, *(0,) * len(rows.RUN_TIME.buckets)), 2e-6)
    assert found["queue_wait_seconds", "gfx"].sum == pytest.approx(1.2e-3)
    assert found["lower_bound",] == 0


def test_counts_go_on_when_histograms_begin_anew() -> None:
    one = jobs(FPROBE)
    for _ in range(2):
        kernel(one, 5, 5, 5)
        kernel(one, 5, 5, 5)
        figures(one, now=SECOND)
        one.armed(None)
        one.armed(FPROBE)
    found = figures(one, now=SECOND)
    assert found["jobs_done", "gfx"] == 10 and found["run_seconds", "gfx"].sum == pytest.approx(1e-5)


def test_jobs_in_flight_when_counting_began_are_no_hang() -> None:
    one = jobs(FPROBE, hang=1.0)
    kernel(one, 0, 0, 3)
    kernel(one, 0, 0, 3)
    kernel(one, 4, 4, 7)
    for now in range(1, 5):
        found = figures(one, now=now * SECOND)
        assert (found["jobs_waiting", "gfx"], found["jobs_on_hardware", "gfx"], found["hung", "gfx"]) == (
            0,
            0,
            0,
        )


def test_a_hang_as_the_kernel_counts() -> None:
    one = jobs(FPROBE, hang=1.0)
    for now in range(4):
        kernel(one, 5, 5, 4)
        found = figures(one, now=now * SECOND)
    assert (found["hung", "gfx"], found["jobs_on_hardware", "gfx"]) == (1, 1)
    kernel(one, 5, 5, 5, errors=1)
    found = figures(one, now=5 * SECOND)
    assert (found["hung", "gfx"], found["hangs", "gfx"]) == (0, 1)


def test_a_full_map_makes_a_lower_bound() -> None:
    one = jobs(FPROBE)
    kernel(one, 5, 5, 5, dropped=3)
    assert figures(one)["lower_bound",] == 1


# Real traces


@pytest.mark.parametrize("version", captures.names("vm", "test-gpu"))
def test_raw_pages_of_real_kernels(version: str) -> None:
    """Twelve thousand jobs of four clients, three rings: each is matched."""
    trace = RawTrace(Path(captures.capture("vm", "test-gpu", version, "raw-binary")))
    events = trace.events()
    one = jobs(trace.recipe)
    one.take(events)
    found = figures(one, now=events[-1][0])
    assert found["jobs_unmatched",] == 0
    rings = {key[1] for key in found if key[0] == "jobs_done"}
    total = 0
    for ring in rings:
        assert found["jobs_queued", ring] == found["jobs_run", ring] == found["jobs_done", ring]
        assert sum(found["run_seconds", ring].counts) == found["jobs_done", ring]
        assert sum(found["queue_wait_seconds", ring].counts) == found["jobs_done", ring]
        assert found["jobs_waiting", ring] == found["jobs_on_hardware", ring] == 0
        assert found["ring_busy_seconds", ring] == pytest.approx(found["run_seconds", ring].sum, rel=1e-3)
        total += found["jobs_done", ring]
    assert total == 12000


_PACKET = re.compile(r"timestamp: (\d+)\s+pid: (\d+)\s+(drm_\w+) \{(.*?)\}", re.DOTALL)
_VALUE = re.compile(r'(\w+): (?:"([^"]*)"|(\d+))')


def test_perfetto_agrees() -> None:
    """A trace of perfetto's own tests: how long each job had its ring, as its query answers."""
    folder = Path(captures.capture("perfetto"))
    taps = {tap.event.split("/")[1]: tap for tap in OLD.taps}
    events: list[Event] = []
    for stamp, pid, name, body in _PACKET.findall((folder / "drm_sched.textproto").read_text()):
        values: dict[str, Any] = {key: text or int(number or 0) for key, text, number in _VALUE.findall(body)}
        values["common_pid"] = int(pid)
        events.append((int(stamp), taps[name].event, tuple(values[field] for field in taps[name].fields)))
    text = (folder / "EXPECTED_drm_sched.txt").read_text().split("# test_drm_sched_thread_track")[0]
    expected = [int(length) for length in re.findall(r'^"sched-ring0",\d+,(\d+),', text, re.MULTILINE)]
    assert len(expected) == 4
    one, took, before = jobs(OLD), [], 0
    for event in sorted(events):
        one.take([event])
        spent = round(figures(one)["run_seconds", "ring0"].sum * 1e9)
        if event[1] == recipes.OLD_DONE:
            took.append(spent - before)
            before = spent
    assert took == expected
