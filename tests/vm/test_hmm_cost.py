"""What watching migrations costs while a process migrates as fast as it can.

A guest under emulation is slower than a host by a factor that is measured: the same loop, there and here. What
the daemon uses more under the flood than without is taken to grow with the number of migrations, and so
reckoned for 20,000 a second, though most of it does not: the kernel adds up.
"""

import time
from collections.abc import Callable

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.test_hmm import CHUNK, Looker
from tests.vm.testgpu import TestGpus

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.guest(devices="minimal", kernels=("7.x",)),
    pytest.mark.timeout(900),
]

Measured = Callable[[str, float, str], None]

_RATE = 20_000
"""Migrations a second."""
_MOST = 0.05
"""Of one processor, for all the daemon does."""
_SECONDS = 20.0
_THERE, _BACK = "hmm.to_device_pages", "hmm.cpu_faults"
_FLAGS = ("--tier", "tracing", "--read.deadline", "5")


def burn() -> float:
    """Seconds of processor time of a loop, the least of five."""
    import time

    found = []
    for _ in range(5):
        began = time.process_time()
        numbers: dict[int, str] = {}
        for number in range(60_000):
            numbers[number % 512] = f"{number:x}"
        found.append(time.process_time() - began)
    return min(found)


def spent(pid: int) -> dict[str, float]:
    """In the guest: processor seconds so far of the daemon's processes together, and of the tracer."""
    import psutil

    found = {"all": 0.0, "tracer": 0.0}
    one = psutil.Process(pid)
    for process in (one, *one.children(recursive=True)):
        times = process.cpu_times()
        found["all"] += times.user + times.system
        if "gpudaemon.tracing.process" in process.cmdline():
            found["tracer"] += times.user + times.system
    return found


def _shares(guest: Guest, pid: int) -> dict[str, float]:
    """Shares of one processor of the guest's."""
    began, before = time.monotonic(), guest.call(spent, pid)
    time.sleep(_SECONDS)
    after, gone = guest.call(spent, pid), time.monotonic() - began
    return {name: (after[name] - before[name]) / gone for name in before}


def _migrations(before: dict[str, int], now: dict[str, int]) -> tuple[float, float]:
    """To the device, a chunk each, and back, a page each."""
    return (now[_THERE] - before[_THERE]) / CHUNK, now[_BACK] - before[_BACK]


def _lost(daemon: GuestDaemon) -> float:
    page = daemon.metrics()
    return page["gpudaemon_hmm_dropped_total"] + page["gpudaemon_daemon_tracer_events_lost_total"]


def test_a_flood_of_migrations(guest: Guest, measured: Measured) -> None:
    with TestGpus(guest) as gpus, GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
        gpu, look = gpus.pci[0], Looker(daemon)
        daemon.until(look.armed, 60.0, "for the probes")
        slower = guest.call(burn) / burn()
        idle = _shares(guest, daemon.pid)
        before = gpu.counters()
        flood = gpu.program("flood", "2048", "say", "hold")
        flood.said()
        first, began = gpu.counters(), time.monotonic()
        busy = _shares(guest, daemon.pid)
        last, gone = gpu.counters(), time.monotonic() - began
        flood.kill()
        rate = sum(_migrations(first, last)) / gone
        assert rate > 500, "that was no flood"

        now = gpu.counters()
        there, back = (float(now[name] - before[name]) for name in (_THERE, _BACK))
        wanted = {("to_device", "driver"): there, ("to_system", "cpu_fault"): back}
        daemon.until(lambda: look.pages() == wanted, 60.0, f"for {wanted}")
        assert tuple(look.operations()[key] for key in wanted) == _migrations(before, now)
        assert look.timed() == look.operations()
        assert _lost(daemon) == 0
        for name in ("tracer", "all"):
            more = max(0.0, busy[name] - idle[name])
            reckoned = (idle[name] + more * max(1.0, _RATE / rate)) / slower
            measured(f"{name}: share of a processor of the guest, idle", idle[name], "")
            measured(f"{name}: with the flood", busy[name], "")
            measured(f"{name}: at {_RATE} a second, of a processor of the host", reckoned, "")
            assert reckoned <= _MOST, name
        measured("migrations", rate, "/s")
        measured("pages moved", there + back, "")
        measured("guest slower than host", slower, "times")
