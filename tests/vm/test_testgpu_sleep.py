"""Devices that sleep are left asleep, those with nothing to do fall asleep: by the kernel's own word.

`power/runtime_status`, `runtime_active_time` and `runtime_usage` are the PM core's; `pm.resumes`, `access.*`
and `wake.*` the driver's. Everything that can be collected is.
"""

import time
from collections.abc import Callable

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.testgpu import TestGpu, TestGpus

Measured = Callable[[str, float, str], None]

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.guest(devices="minimal"),
    pytest.mark.parametrize("engine", ["io_uring", "threads"]),
]

_TOUCHES = ("access.", "wake.", "pm.resumes", "pm.suspends", "pm.refused", "pm.awake_ns", "opens")


def _touched(gpu: TestGpu) -> dict[str, int]:
    return {name: value for name, value in gpu.counters().items() if name.startswith(_TOUCHES)}


def _fall_asleep(guest: Guest, gpu: TestGpu, milliseconds: int = 100) -> None:
    gpu.autosuspend(milliseconds)
    guest.until(lambda: gpu.power("runtime_status") == "suspended")


def _active_time(gpu: TestGpu) -> int:
    return int(gpu.power("runtime_active_time"))


def test_what_sleeps_stays_asleep(guest: Guest, measured: Measured, engine: str) -> None:
    """One of each flavour sleeps, one of them held open by a program; fdinfo of all would wake them."""
    with TestGpus(guest, devices=2) as gpus:
        awake, asleep = gpus[0], [gpus[1], gpus.pci[0]]
        for gpu in gpus:
            gpu.order("fdinfo wake")
        holders = [gpu.program("bo", "vram", "65536", "say", "hold") for gpu in (awake, asleep[1])]
        for holder in holders:
            holder.said()
        for gpu in asleep:
            _fall_asleep(guest, gpu)
        before = [(_touched(gpu), _active_time(gpu), gpu.power("runtime_usage")) for gpu in asleep]
        slept = [int(gpu.power("runtime_suspended_time")) for gpu in asleep]
        began = time.monotonic()
        with GuestDaemon(guest, "--engine", engine, "--preset", "fast", "--read.deadline", "3") as daemon:
            for gpu in asleep:
                daemon.until(lambda: daemon.metrics().states(gpu.name) == ["suspended"])  # noqa: B023
            daemon.until(lambda: len(daemon.metrics().data(awake.name)) > 10, 60.0)
            until = time.monotonic() + 10.0
            while time.monotonic() < until:
                page = daemon.metrics()
                for gpu in asleep:
                    assert page.states(gpu.name) == ["suspended"]
                assert page.states(awake.name) == ["ok"]
                time.sleep(0.5)
            for gpu in asleep:
                assert not [
                    series for series in page.of_device(gpu.name) if "_celsius" in series or "_watts" in series
                ]
        for gpu, (touched, active, usage), was in zip(asleep, before, slept, strict=True):
            assert gpu.power("runtime_status") == "suspended"
            assert _touched(gpu) == touched
            assert (_active_time(gpu), gpu.power("runtime_usage")) == (active, usage)
            # The kernel's clock of this sleep went on all the time; it counts in milliseconds.
            assert int(gpu.power("runtime_suspended_time")) - was >= 1000 * 10
        measured("asleep beside the daemon, 0 accesses", time.monotonic() - began, "s")
        for holder in holders:
            holder.kill()


def test_idle_one_falls_asleep_beside_the_daemon(guest: Guest, measured: Measured, engine: str) -> None:
    """Its every read restarts the autosuspend timer; it sleeps because the daemon rests."""
    with TestGpus(guest, devices=1) as gpus:
        gpu = gpus[0]
        guest.write(f"{gpu.path}/power/control", "on")
        gpu.autosuspend(1000)
        with GuestDaemon(guest, "--engine", engine, "--preset", "normal", "--read.deadline", "3") as daemon:
            daemon.until(lambda: len(daemon.metrics().data(gpu.name)) > 10, 60.0)
            reads = gpu.counters()["access.hwmon"]
            daemon.until(lambda: gpu.counters()["access.hwmon"] > reads, 10.0)
            guest.write(f"{gpu.path}/power/control", "auto")
            took = daemon.until(lambda: gpu.power("runtime_status") == "suspended", 60.0)
            daemon.until(lambda: daemon.metrics().states(gpu.name) == ["suspended"])
            touched = _touched(gpu)
            time.sleep(5.0)
            assert _touched(gpu) == touched
            assert gpu.power("runtime_status") == "suspended"
            measured("asleep after it may be; autosuspend delay 1 s", took, "s")

            # Work wakes it; that is seen, and its data come back.
            gpu.order("load gfx 50 10000")
            daemon.until(lambda: gpu.power("runtime_status") == "active")
            daemon.until(lambda: daemon.metrics().states(gpu.name) in (["ok"], ["resting"]), 30.0)
            daemon.until(lambda: len(daemon.metrics().data(gpu.name)) > 10, 90.0)
            gpu.order("load gfx 0 10000")
            assert gpu.counters()["wake.hwmon"] == touched["wake.hwmon"]
