"""Jobs of the kernel's own GPU scheduler, on real kernels: what the daemon counts and times against what the
test GPU's driver counts itself, by the kernel's sums and by its events. Clients are killed, jobs hang,
gpu_sched is unloaded under the probes; a daemon that ends or is killed leaves nothing in tracefs.
"""

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.testgpu import Running, TestGpu, TestGpus
from tests.vm.tracefs import contents, kill_all, tracer

pytestmark = [pytest.mark.campaign, pytest.mark.guest(devices="minimal"), pytest.mark.timeout(900)]

Measured = Callable[[str, float, str], None]

_FLAGS = ("--tier", "tracing", "--preset", "scrape", "--read.deadline", "5")
_WAYS = {"sums": (), "events": ("--no-tracing.in-kernel",)}
"""The kernel adds up, where it can; or each event is read."""
_RINGS = {"gfx": 48000, "compute0": 96000, "copy": 24000}
"""Ring -> microseconds of a job: each in the middle of a bucket, for what a timer's lateness gives to one job
it takes from the next."""
_CLIENTS = 4
_HANG = 4.0
"""Seconds. What the kernel adds up is read once a second: a job may have begun a second before it is seen."""


class Looker:
    """A daemon in the guest, and what it says of jobs."""

    def __init__(self, daemon: GuestDaemon) -> None:
        self.daemon = daemon

    def armed(self) -> bool:
        """Whether jobs are watched."""
        return (
            self.daemon.metrics().get('gpudaemon_daemon_tracer_state{subject="drm_sched",state="armed"}') == 1
        )

    def recipe(self) -> str:
        """How."""
        (series,) = (
            series
            for series in self.daemon.metrics().family("gpudaemon_daemon_tracer_info")
            if 'subject="drm_sched"' in series
        )
        return re.findall(r'recipe="([^"]*)"', series)[0]

    def rings(self, name: str) -> dict[str, float]:
        """Ring -> value of a family, of all devices."""
        found: dict[str, float] = {}
        for series, value in self.daemon.metrics().family(f"gpudaemon_drm_sched_{name}").items():
            (ring,) = re.findall(r'ring="([^"]*)"', series)
            found[ring] = found.get(ring, 0) + value
        return found

    def failed(self) -> dict[tuple[str, str], float]:
        """(ring, error) -> jobs."""
        lines = self.daemon.metrics().family("gpudaemon_drm_sched_jobs_failed_total").items()
        return {tuple(re.findall(r'(?:ring|error)="([^"]*)"', series)): value for series, value in lines}

    def buckets(self, name: str, ring: str) -> dict[float, float]:
        """Upper bound -> jobs of just that bucket, those that have any."""
        bounds = sorted(
            (float(re.findall(r'le="([^"]*)"', series)[0]), value)
            for series, value in self.daemon.metrics().family(f"gpudaemon_drm_sched_{name}_bucket").items()
            if f'ring="{ring}"' in series
        )
        below = [0.0, *(value for _, value in bounds)]
        return {
            bound: value - less for (bound, value), less in zip(bounds, below, strict=False) if value > less
        }

    def until(self, name: str, expected: dict[str, float], seconds: float = 60.0) -> None:
        """Wait for exactly these values."""
        try:
            self.daemon.until(lambda: self.rings(name) == expected, seconds)
        except AssertionError as error:
            raise AssertionError(f"{name}: {self.rings(name)} and not {expected}: {error}") from None

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What is in /api/v1/events of these kinds, the oldest first."""
        found = json.loads(self.daemon.get("/api/v1/events")[1])["events"]
        return sorted((one for one in found if one["kind"] in kinds), key=lambda one: float(one["at"]))


def _untouched(guest: Guest) -> dict[str, str]:
    """tracefs without a daemon: another test's may be about to leave."""
    guest.until(lambda: not contents(guest)["groups"], 30.0, "for a clean tracefs")
    return contents(guest)


def _cleans(guest: Guest, clean: dict[str, str]) -> None:
    """The tracer outlives the daemon by the time the kernel takes to end probes."""
    try:
        guest.until(lambda: contents(guest) == clean, 30.0)
    except AssertionError:
        assert contents(guest) == clean


@contextlib.contextmanager
def _ending(*clients: Running) -> Iterator[None]:
    """They are killed at the end; a module in use cannot be unloaded."""
    try:
        yield
    finally:
        for client in clients:
            client.kill()


def _load(gpu: TestGpu, each: int = 10) -> None:
    """Jobs of known durations by four processes at once, `each` on all three rings; until they are done."""
    words = [word for ring, us in _RINGS.items() for word in ("submit", ring, str(each), str(us))]
    clients = [gpu.program(*words, "wait", "60", "say", "hold") for _ in range(_CLIENTS)]
    with _ending(*clients):
        for client in clients:
            client.said()


def _counted(look: Looker, gpu: TestGpu, each: int = 10) -> float:
    """All jobs of `_load` are, as the driver counts them too; how many there are on each ring."""
    jobs = float(_CLIENTS * each)
    for name in ("jobs_done_total", "jobs_run_total", "jobs_queued_total"):
        look.until(name, dict.fromkeys(_RINGS, jobs))
    counters = gpu.counters()
    assert [counters[f"ring.{ring}.done"] for ring in _RINGS] == [jobs] * 3
    return jobs


def _exact(look: Looker, gpu: TestGpu, each: int) -> float:
    """Counts equal the driver's own, and so do times, to 1 %; the greatest difference.

    A ring that was idle begins late by a timer's lateness: there must be many jobs in a row.
    """
    jobs = _counted(look, gpu, each)
    counters = gpu.counters()
    worst = 0.0
    for ring, seconds in look.rings("run_seconds_sum").items():
        busy = counters[f"ring.{ring}.busy_ns"] / 1e9
        assert busy == pytest.approx(jobs * _RINGS[ring] / 1e6)
        worst = max(worst, abs(seconds / busy - 1))
        assert seconds == pytest.approx(busy, rel=0.01), (ring, look.recipe())
    for ring, microseconds in _RINGS.items():
        above = 2.0 ** (microseconds * 1000).bit_length() / 1e9
        assert look.buckets("run_seconds", ring) == {above: jobs}, ring
        assert look.rings("queue_wait_seconds_count")[ring] == jobs
    assert set(look.rings("jobs_on_hardware").values()) == set(look.rings("jobs_waiting").values()) == {0}
    page = look.daemon.metrics()
    assert page["gpudaemon_drm_sched_lower_bound"] == page["gpudaemon_drm_sched_jobs_unmatched_total"] == 0
    assert not look.failed()
    return worst


@pytest.mark.parametrize("way", _WAYS)
def test_jobs_of_four_clients_on_three_rings(guest: Guest, measured: Measured, way: str) -> None:
    clean = _untouched(guest)
    with TestGpus(guest) as gpus:
        gpu = gpus.pci[0]
        with GuestDaemon(guest, *_FLAGS, *_WAYS[way], wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(look.armed, 60.0, "for the probes")
            recipe = look.recipe()
            assert (recipe == "fprobe") == (way == "sums")
            _load(gpu, 50)
            measured(f"{recipe}: run time is off by", 100 * _exact(look, gpu, 50), "%")
            (device,) = {
                re.findall(r'device="([^"]*)"', series)[0]
                for series in daemon.metrics().family("gpudaemon_drm_sched_jobs_done_total")
            }
            assert device == ("" if recipe == "old events" else gpu.name)
    _cleans(guest, clean)


@pytest.mark.parametrize("way", _WAYS)
def test_a_job_that_hangs(guest: Guest, measured: Measured, way: str) -> None:
    """Seen by its own bound, long before the driver's; what the driver then does comes after it."""
    with TestGpus(guest, timeout_ms=15000) as gpus:
        gpu = gpus.pci[0]
        flags = (*_FLAGS, *_WAYS[way], "--tracing.hang", str(_HANG))
        with GuestDaemon(guest, *flags, wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(look.armed, 60.0, "for the probes")
            client = gpu.program("hang", "gfx", "submit", "gfx", "3", "1000", "say", "hold")
            with _ending(client):
                client.said()
                _hung(look, gpu, measured)


def _hung(look: Looker, gpu: TestGpu, measured: Measured) -> None:
    guest, recipe, began = gpu.guest, look.recipe(), time.monotonic()
    look.until("hung", {"gfx": 1.0}, 20.0)
    took = time.monotonic() - began
    measured(f"{recipe}: hung to metric", took, "s")
    assert took < 2 * _HANG
    assert gpu.counters()["ring.gfx.timed_out"] == 0, "the driver was first"
    assert look.rings("hangs_total")["gfx"] == 1
    assert look.rings("jobs_on_hardware")["gfx"] >= 1
    assert look.rings("no_progress_seconds")["gfx"] >= _HANG

    guest.until(lambda: gpu.counters()["coredumps"] == 1, 60.0, "for the driver's own time-out")
    look.until("hung", {"gfx": 0.0})
    look.until("jobs_done_total", {"gfx": 4.0})
    look.daemon.until(lambda: look.events("core_dump"), 60.0, "for the core dump")
    # The kernel keeps it for five minutes, and takes no other of this device meanwhile.
    guest.shell("for data in /sys/class/devcoredump/devcd*/data; do echo 0 > $data; done")
    assert [one["kind"] for one in look.events("job_hang", "core_dump")] == ["job_hang", "core_dump"]
    (hang,) = look.events("job_hang")
    assert hang["device"] == ("" if recipe == "old events" else gpu.name)
    if recipe == "fprobe":
        # drm_sched_start() marks the guilty one: ECANCELED, or what the driver gave it.
        ((_, error), count), *rest = look.failed().items()
        assert not rest and count == 1 and error in ("ETIME", "ECANCELED")


@pytest.mark.parametrize("way", _WAYS)
def test_clients_that_are_killed_and_jobs_that_wait(guest: Guest, way: str) -> None:
    def depend(node: str) -> None:
        from tests.vm.module.client import Client

        with Client(node) as client:
            first = client.syncobj()
            client.submit("gfx", microseconds=300_000, signal=first)
            client.submit("copy", microseconds=1000, after=first)
            client.wait(30.0)

    with TestGpus(guest) as gpus:
        gpu = gpus.pci[0]
        with GuestDaemon(guest, *_FLAGS, *_WAYS[way], wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(look.armed, 60.0, "for the probes")
            guest.call(depend, gpu.node)
            look.until("jobs_done_total", {"gfx": 1.0, "copy": 1.0})
            assert look.rings("queue_wait_seconds_sum")["copy"] >= 0.29
            assert look.rings("run_seconds_sum")["copy"] < 0.1
            if way == "events":
                waited = look.rings("dependency_wait_seconds_sum").get("copy", 0.0)
                # The tracepoint of a dependency was made stable later than the others.
                assert waited >= 0.29 or look.recipe() == "old events", waited

            victim = gpu.program("submit", "compute0", "60", "100000", "say", "hold")
            with _ending(victim):
                victim.said()
                look.daemon.until(lambda: look.rings("jobs_run_total").get("compute0", 0) >= 2, 30.0)
            guest.until(lambda: gpu.counters()["jobs"] == 0, 60.0, "for its jobs")
            counters = gpu.counters()
            cancelled = counters["ring.compute0.cancelled"]
            assert cancelled > 0 and counters["ring.compute0.queued"] == 60
            look.until("jobs_queued_total", {"gfx": 1.0, "copy": 1.0, "compute0": 60.0})
            if look.recipe() == "fprobe":
                look.until("jobs_done_total", {"gfx": 1.0, "copy": 1.0, "compute0": 60.0})
                assert sum(look.failed().values()) == cancelled, look.failed()
                assert look.rings("jobs_waiting")["compute0"] == look.rings("jobs_on_hardware")["compute0"] == 0
            # Those that ended well have a time; of the killed some do where events are read,
            # which tell no errors.
            ended = counters["ring.compute0.done"]
            daemon.until(
                lambda: look.rings("run_seconds_count")["compute0"] >= ended, 30.0, f"for {ended} times"
            )


def test_the_scheduler_goes_and_comes(guest: Guest, measured: Measured) -> None:
    """gpu_sched unloaded and loaded under the daemon, then its tracer killed: no complaint of the kernel (the
    fixture looks), nothing left, and the numbers go on."""
    clean = _untouched(guest)
    with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
        look = Looker(daemon)
        with TestGpus(guest) as gpus:
            daemon.until(look.armed, 60.0, "for the probes")
            _load(gpus.pci[0])
            _counted(look, gpus.pci[0])
        guest.run("rmmod", "gpu_sched")
        daemon.until(lambda: not look.armed(), 60.0, "for the news that it went")
        with TestGpus(guest) as gpus:
            began = time.monotonic()
            daemon.until(look.armed, 60.0, "for the probes on the new module")
            measured("loaded to armed", time.monotonic() - began, "s")
            _load(gpus.pci[0])
            jobs = 2.0 * _CLIENTS * 10
            look.until("jobs_done_total", dict.fromkeys(_RINGS, jobs))

            # The tracer is killed: another one takes over and removes what it left.
            guest.run("kill", f"-{signal.SIGKILL}", str(guest.call(tracer, daemon.pid)))
            daemon.until(lambda: _restarts(daemon) == 1, 60.0, "for its end")
            daemon.until(look.armed, 60.0, "for another tracer")
            look.until("jobs_done_total", dict.fromkeys(_RINGS, jobs))
            _load(gpus.pci[0])
            look.until("jobs_done_total", dict.fromkeys(_RINGS, 1.5 * jobs))
    _cleans(guest, clean)


def _restarts(daemon: GuestDaemon) -> float:
    return sum(daemon.metrics().family("gpudaemon_daemon_tracer_restarts_total").values())


def test_all_of_a_daemon_is_killed(guest: Guest) -> None:
    """Nobody is left to tidy up; the next daemon does, and counts."""
    clean = _untouched(guest)
    with TestGpus(guest) as gpus:
        daemon = GuestDaemon(guest, *_FLAGS, wait=400.0).__enter__()
        try:
            daemon.until(Looker(daemon).armed, 60.0, "for the probes")
            assert guest.call(kill_all, daemon.pid) > 2
            guest.until(lambda: guest.ended(daemon.pid) is not None, 30.0)
            assert contents(guest) != clean
        finally:
            daemon.stop(force=True)
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(look.armed, 60.0, "for the probes")
            _load(gpus.pci[0])
            _counted(look, gpus.pci[0])
    _cleans(guest, clean)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", _WAYS)
def test_a_hundred_thousand_jobs(guest: Guest, measured: Measured, way: str) -> None:
    """As fast as an emulated machine does them: nothing leaks, nothing is lost untold, and what it costs."""
    with TestGpus(guest) as gpus:
        gpu = gpus.pci[0]
        with GuestDaemon(guest, *_FLAGS, *_WAYS[way], wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(look.armed, 60.0, "for the probes")
            _load(gpu)
            first = _counted(look, gpu)
            cpu = daemon.metrics()["gpudaemon_daemon_tracer_cpu_seconds_total"]
            began = time.monotonic()
            clients = [
                gpu.program("submit", ring, "33334", "0", "wait", "600", "say", "hold") for ring in _RINGS
            ]
            with _ending(*clients):
                for client in clients:
                    client.said(600.0)
            guest.until(lambda: gpu.counters()["jobs"] == 0, 60.0)
            took = time.monotonic() - began
            time.sleep(5)  # for the last look at what was traced
            # Who reads each event of a flood under emulation is late: until it said so, or has counted all.
            expected = dict.fromkeys(_RINGS, first + 33334)
            daemon.until(
                lambda: (
                    daemon.metrics().get("gpudaemon_drm_sched_lower_bound") == 1
                    or look.rings("jobs_done_total") == expected
                ),
                120.0,
                "for its figures",
            )
            page = daemon.metrics()
            recipe = look.recipe()
            cost = page["gpudaemon_daemon_tracer_cpu_seconds_total"] - cpu
            measured(f"{recipe}: jobs a second", 100_002 / took, "")
            measured(f"{recipe}: tracer CPU a job", 1e6 * cost / 100_002, "us")
            measured(f"{recipe}: tracer, for a second of them, of a core", 100 * cost / took, "%")
            done = look.rings("jobs_done_total")
            if page["gpudaemon_drm_sched_lower_bound"]:
                assert page["gpudaemon_daemon_tracer_events_lost_total"] > 0
                assert all(value <= first + 33334 for value in done.values())
            else:
                assert done == expected
                assert page["gpudaemon_drm_sched_jobs_unmatched_total"] == 0
                assert set(look.rings("jobs_waiting").values()) == {0}
                assert set(look.rings("jobs_on_hardware").values()) == {0}
