"""Memory that moves to a GPU and back, on real kernels: what the daemon counts against what the test GPU's
driver counts itself, page for page, of all kinds of processes; and what a daemon that ended, or was killed,
leaves in tracefs.

Device-private memory takes CONFIG_DEVICE_PRIVATE, which Debian's 6.12 is built without.
"""

import re
import signal
from collections.abc import Callable

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.testgpu import TestGpu, TestGpus
from tests.vm.tracefs import ROOT, contents, kill_all, tracer

pytestmark = pytest.mark.timeout(900)

Measured = Callable[[str, float, str], None]

_FLAGS = ("--tier", "tracing", "--preset", "scrape", "--read.deadline", "5")
_PAGE = 4096
CHUNK = 64
"""Pages the test driver migrates together (TGCHUNK)."""
_INSTANCE = f"{ROOT}/instances/gpudaemon"
_THREADS = 4 * 1 + 2 * 4
"""That migrate until then: four processes of one, two of four."""
_WITNESSES = {
    ("to_device", "driver"): "hmm.to_device_pages",
    ("to_system", "driver"): "hmm.to_system_pages",
    ("to_system", "cpu_fault"): "hmm.cpu_faults",
}

Moved = dict[tuple[str, str], float]
"""(direction, cause) -> number."""


class Looker:
    """A daemon in the guest, and what it says of migrations."""

    def __init__(self, daemon: GuestDaemon) -> None:
        self.daemon = daemon

    def armed(self) -> bool:
        """Whether migrations are watched."""
        return self.daemon.metrics().get(_state("armed")) == 1

    def _by_kind(self, name: str) -> Moved:
        found: Moved = {}
        for series, value in self.daemon.metrics().family(name).items():
            labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
            key = (labels["direction"], labels["cause"])
            found[key] = found.get(key, 0) + value
        return found

    def pages(self) -> Moved:
        """Of all owners."""
        return self._by_kind("gpudaemon_hmm_migrated_pages_total")

    def operations(self) -> Moved:
        """Of all owners."""
        return self._by_kind("gpudaemon_hmm_migrations_total")

    def timed(self) -> Moved:
        """Operations in the histogram of times."""
        return self._by_kind("gpudaemon_hmm_migration_seconds_count")

    def total(self, name: str) -> float:
        """Of all series of a metric."""
        return sum(self.daemon.metrics().family(f"gpudaemon_hmm_{name}_total").values())

    def of_process(self, pid: int) -> dict[str, float]:
        """Direction -> pages of one process."""
        found = {}
        for series, value in self.daemon.metrics().family("gpudaemon_hmm_process_migrated_pages_total").items():
            labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
            if labels["pid"] == str(pid):
                found[labels["direction"]] = value
        return found

    def until(self, pages: Moved, operations: Moved) -> None:
        """Wait for exactly these numbers, in the counters and in the histogram."""
        wanted = (pages, operations, operations)

        def said() -> tuple[Moved, Moved, Moved]:
            return self.pages(), self.operations(), self.timed()

        try:
            self.daemon.until(lambda: said() == wanted, 60.0)
        except AssertionError as error:
            raise AssertionError(f"{said()} and not {wanted}: {error}") from None


class Expected:
    """Pages and operations there must be by now."""

    def __init__(self) -> None:
        self.pages: Moved = {}
        self.operations: Moved = {}

    def add(self, direction: str, cause: str, pages: float, operations: float) -> None:
        key = (direction, cause)
        self.pages[key] = self.pages.get(key, 0) + pages
        self.operations[key] = self.operations.get(key, 0) + operations

    def round_trip(self, pages: int) -> None:
        """To the device by a driver that takes a chunk at a time, and back one page at a fault."""
        self.add("to_device", "driver", pages, -(-pages // CHUNK))
        self.add("to_system", "cpu_fault", pages, pages)


def _state(state: str) -> str:
    return f'gpudaemon_daemon_tracer_state{{subject="hmm",state="{state}"}}'


def _tidy(guest: Guest, clean: dict[str, str]) -> None:
    """Wait for a tracer that goes on without its daemon to have removed all it made."""
    try:
        guest.until(lambda: contents(guest) == clean, 60.0, "for the tracer to tidy up")
    except AssertionError as error:
        raise AssertionError(f"{error}: {contents(guest)}") from None


def _witness(gpu: TestGpu, before: dict[str, int]) -> Moved:
    """Pages that moved since by the driver's own counters, of the kinds of which there were any."""
    now = gpu.counters()
    found = {key: float(now[name] - before[name]) for key, name in _WITNESSES.items()}
    return {key: value for key, value in found.items() if value}


def _processes(look: Looker, gpu: TestGpu, expected: Expected) -> None:
    """One of one thread, one of four, one that ends with pages on the device: exact, each for itself."""
    before = gpu.counters()
    single = gpu.program("migrate", str(900 * _PAGE), "touch", "40", "back", "say", "hold")
    pid = single.said()["pid"]
    expected.add("to_device", "driver", 900, -(-900 // CHUNK))
    expected.add("to_system", "cpu_fault", 40, 40)
    # It looks at all 900 and collects the 860 that are there.
    expected.add("to_system", "driver", 860, -(-900 // CHUNK))
    look.until(expected.pages, expected.operations)
    assert look.of_process(pid) == {"to_device": 900, "to_system": 900}

    there_and_back = gpu.program("migrate", str(300 * _PAGE), "touch", "300", "say", "hold")
    pid = there_and_back.said()["pid"]
    expected.round_trip(300)
    look.until(expected.pages, expected.operations)
    assert look.of_process(pid) == {"to_device": 300, "to_system": 300}

    threads = gpu.program("threads", "4", "150", "say", "hold")
    pid = threads.said()["pid"]
    for _ in range(4):
        expected.round_trip(150)
    look.until(expected.pages, expected.operations)
    assert look.of_process(pid) == {"to_device": 600, "to_system": 600}

    ends = gpu.program("migrate", str(500 * _PAGE), "touch", "120", "say", "hold")
    pid = ends.said()["pid"]
    ends.kill()
    expected.add("to_device", "driver", 500, -(-500 // CHUNK))
    expected.add("to_system", "cpu_fault", 120, 120)
    look.until(expected.pages, expected.operations)
    assert _witness(gpu, before) == expected.pages, "the driver's own counters"
    for one in (single, there_and_back, threads):
        one.kill()
    look.until(expected.pages, expected.operations)
    # All of it came back within seconds, if the machine was fast enough.
    assert 0 < look.total("thrashed_pages") <= expected.pages["to_system", "cpu_fault"]


def _ranges(look: Looker, gpu: TestGpu, expected: Expected) -> None:
    """Looks at page tables, and a device that is emptied: no migration of a process."""
    before = gpu.counters()
    client = gpu.program("migrate", str(100 * _PAGE), "where", "where", "say", "hold")
    client.said()
    expected.add("to_device", "driver", 100, -(-100 // CHUNK))
    gpu.order("evict")
    look.until(expected.pages, expected.operations)
    now = gpu.counters()
    assert now["hmm.evicted_pages"] - before["hmm.evicted_pages"] == 100
    looks = now["hmm.range_faults"] - before["hmm.range_faults"]
    assert looks >= 2 * -(-100 // CHUNK)
    look.daemon.until(lambda: look.total("range_faults") == looks, 30.0, f"for {looks} looks")
    assert look.total("device_ranges") == 1
    assert look.total("device_range_pages") == now["hmm.pages"], "all the device has, whatever was there"
    client.kill()


def _killed_amid(look: Looker, gpu: TestGpu, expected: Expected) -> None:
    """Killed while four threads migrate: as many as the driver itself has counted, and every one was timed."""
    pages, operations, before = look.pages(), look.operations(), gpu.counters()
    storm = gpu.program("storm", "4", "96", "say", "hold")
    storm.said()
    gpu.guest.until(lambda: gpu.counters()["hmm.cpu_faults"] - before["hmm.cpu_faults"] > 500, 60.0)
    storm.kill()
    moved = _witness(gpu, before)
    assert moved["to_device", "driver"] > moved["to_system", "cpu_fault"] > 500
    look.daemon.until(
        lambda: {key: look.pages()[key] - pages.get(key, 0) for key in moved} == moved,
        60.0,
        f"for {moved} more than {pages}",
    )
    done = {key: look.operations()[key] - operations.get(key, 0) for key in moved}
    assert look.timed() == look.operations()
    for direction, cause in moved:
        expected.add(direction, cause, moved[direction, cause], done[direction, cause])
    assert done["to_system", "cpu_fault"] >= moved["to_system", "cpu_fault"]


@pytest.mark.campaign  # two and a half minutes
@pytest.mark.guest(devices="minimal", kernels=("7.x",))
def test_pages_of_processes(guest: Guest, measured: Measured) -> None:
    """Exactly as many as moved, over the death of the tracer, of the daemon and of all at once."""
    clean = contents(guest)
    with TestGpus(guest) as gpus:
        gpu = gpus.pci[0]
        expected = Expected()
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(look.armed, 60.0, "for the probes")
            _processes(look, gpu, expected)
            _ranges(look, gpu, expected)
            _killed_amid(look, gpu, expected)
            # What joins beginnings and ends has room for stacks, of which there are no more than threads.
            begun = guest.read(f"{_INSTANCE}/events/gpudaemon/hmm_begin/hist")
            (entries,) = re.findall(r"Entries: (\d+)", begun)
            assert 4 <= int(entries) <= _THREADS, begun[-2000:]

            # What a tracer that was killed has left is removed by the next, which goes on counting.
            guest.run("kill", f"-{signal.SIGKILL}", str(guest.call(tracer, daemon.pid)))
            daemon.until(lambda: sum(daemon.metrics().family(_RESTARTS).values()) == 1, 60.0, "for its end")
            daemon.until(look.armed, 60.0, "for another tracer")
            look.until(expected.pages, expected.operations)
            again = gpu.program("migrate", str(200 * _PAGE), "touch", "200", "say", "hold")
            again.said()
            expected.round_trip(200)
            look.until(expected.pages, expected.operations)
            again.kill()
            measured("pages", sum(expected.pages.values()), "")
        _tidy(guest, clean)

        for kill in (False, True):
            _restart(guest, gpu, clean, all_at_once=kill)
    _tidy(guest, clean)


_RESTARTS = "gpudaemon_daemon_tracer_restarts_total"


def _restart(guest: Guest, gpu: TestGpu, clean: dict[str, str], *, all_at_once: bool) -> None:
    """SIGKILL: a tracer that lives on tidies up, else the next daemon's does; that counts anew, and exactly."""
    daemon = GuestDaemon(guest, *_FLAGS, wait=400.0).__enter__()
    try:
        daemon.until(Looker(daemon).armed, 60.0, "for the probes")
        assert contents(guest) != clean
        if all_at_once:
            assert guest.call(kill_all, daemon.pid) > 2
            guest.until(lambda: guest.ended(daemon.pid) is not None, 30.0)
            assert "gpudaemon" in contents(guest)["instances"], "nobody was left to remove it"
        else:
            daemon.stop(force=True)
            _tidy(guest, clean)
    finally:
        daemon.stop(force=True)
    with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
        look = Looker(daemon)
        daemon.until(look.armed, 60.0, "for the probes")
        client = gpu.program("migrate", str(130 * _PAGE), "touch", "130", "say", "hold")
        client.said()
        expected = Expected()
        expected.round_trip(130)
        look.until(expected.pages, expected.operations)
        client.kill()
    _tidy(guest, clean)


@pytest.mark.guest(devices="minimal", kernels=("6.12",))
def test_a_kernel_without_device_memory(guest: Guest) -> None:
    """It has the functions and nobody who calls them: the figures are there, none of them rises, and nothing is
    left behind."""
    clean = contents(guest)
    with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
        look = Looker(daemon)
        daemon.until(look.armed, 60.0, "for the probes")
        assert contents(guest) != clean
        daemon.until(lambda: "gpudaemon_hmm_dropped_total" in daemon.metrics(), 30.0)
        page = daemon.metrics()
        found = {series: value for series, value in page.items() if series.startswith("gpudaemon_hmm_")}
        assert len(found) >= 3 and not any(found.values()), found
        assert page.family("gpudaemon_memory_migrated_pages_total"), "what the kernel counts itself"
    _tidy(guest, clean)
