"""Trouble on real kernels: lines of the kernel's own in its log, a ring of the test GPU that hangs, errors that
QEMU injects. Each raises exactly its counter; what a process writes into the log raises none.
"""

import contextlib
import json
import re
import signal
from typing import Any

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest, GuestError
from tests.vm.testgpu import TestGpu, TestGpus

pytestmark = pytest.mark.guest(devices="minimal")

PROVOKED = frozenset({"xid", "sxid", "hang", "reset", "core_dump", "aer"})
"""Kinds of `model.trouble` that are provoked here."""

_FLAGS = ("--tier", "full", "--process.period", "2", "--period.slow", "2", "--read.deadline", "5")
_SWITCH = "0000:c3:00.0"


class Looker:
    """A daemon in the guest, and what it says of trouble."""

    def __init__(self, daemon: GuestDaemon) -> None:
        self.daemon = daemon

    def counts(self, name: str = "gpudaemon_trouble_events_total") -> dict[tuple[str, ...], float]:
        """Values of the labels -> count."""
        lines = self.daemon.metrics().family(name).items()
        return {tuple(re.findall(r'="([^"]*)"', series)): value for series, value in lines}

    def until(self, expected: dict[tuple[str, ...], float], seconds: float = 60.0) -> None:
        try:
            self.daemon.until(lambda: self.counts() == expected, seconds)
        except AssertionError as error:
            raise AssertionError(f"{self.counts()} and not {expected}: {error}") from None

    def figure(self, name: str) -> float:
        return self.daemon.metrics()[f"gpudaemon_daemon_kernel_log_{name}"]

    def events(self) -> list[dict[str, Any]]:
        return list(json.loads(self.daemon.get("/api/v1/events")[1])["events"])


def _say(guest: Guest, text: str, count: int = 1) -> None:
    """Write records as a process."""

    def write(text: str, count: int) -> None:
        with open("/dev/kmsg", "wb", buffering=0) as stream:
            for number in range(count):
                stream.write(f"{text} {number}\n".encode())

    guest.call(write, text, count)


def _lines(look: Looker, gpu: TestGpu, pid: int) -> dict[tuple[str, ...], float]:
    """Every form of line; what that makes."""
    slot = gpu.name.partition(".")[0]
    amdgpu = f"log amdgpu {gpu.name}: amdgpu: "
    gpu.order(f"log NVRM: Xid (PCI:{slot}): 31, pid={pid}, name=python, Ch 00000008, MMU Fault")
    gpu.order(f"log NVRM: Xid (PCI:{slot} GPU-I:01): 31, pid={pid}, name=python, Ch 00000009, MMU Fault")
    gpu.order(f"log NVRM: Xid (PCI:{slot}): 79, GPU has fallen off the bus.")
    gpu.order(f"log nvidia-nvswitch0: SXid (PCI:{_SWITCH}): 24007, Fatal, Link 28 sourcetrack timeout error")
    gpu.order(f"log nvidia-nvswitch0: SXid (PCI:{_SWITCH}): 24007, Severity 1 Engine instance 28")
    gpu.order(f"{amdgpu}ring gfx_0.0.0 timeout, signaled seq=7, emitted seq=9")
    gpu.order(f"{amdgpu} Process python pid {pid} thread python pid {pid}")
    gpu.order(f"{amdgpu}GPU reset(1) succeeded!")
    gpu.order(f"{amdgpu}GPU reset(2) failed")
    expected: dict[tuple[str, ...], float] = {
        (gpu.name, "xid", "recovered"): 2,
        (gpu.name, "xid", "fatal"): 1,
        (_SWITCH, "sxid", "fatal"): 1,
        (gpu.name, "hang", "recovered"): 1,
        (gpu.name, "reset", "recovered"): 1,
        (gpu.name, "wedged", "fatal"): 1,
    }
    look.until(expected)
    assert look.counts("gpudaemon_trouble_xids_total") == {(gpu.name, "31"): 2, (gpu.name, "79"): 1}
    assert look.counts("gpudaemon_trouble_sxids_total") == {(_SWITCH, "24007"): 1}
    return expected


def test_the_kernels_log(guest: Guest) -> None:
    guest.write(
        "/proc/sys/kernel/printk_devkmsg", "on\n"
    )  # else the kernel takes ten lines of a process and no more
    with TestGpus(guest) as gpus:
        gpu = gpus.pci[0]
        slot = gpu.name.partition(".")[0]
        client = gpu.program("say", "hold")
        pid = client.said()["pid"]
        gpu.order(f"log NVRM: Xid (PCI:{slot}): 48, history")
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(lambda: look.figure("up") == 1, 60.0)
            daemon.until(
                lambda: daemon.metrics().get(f'gpudaemon_drm_clients{{device="{gpu.name}"}}') == 1, 60.0
            )
            _say(guest, f"<3>NVRM: Xid (PCI:{slot}): 79, by a process")
            expected = _lines(look, gpu, pid)
            named = [(one["kind"], one["pid"], one["task"]) for one in look.events() if one["pid"]]
            assert named == [("xid", pid, "python")] * 2 + [("hang", pid, "python")]
            assert all(one["owner"] for one in look.events() if one["pid"]), look.events()

            # Of what came while nobody read nothing is lost, and nothing counts twice.
            (scout,) = guest.running("gpudaemon.processes.process")
            guest.run("kill", f"-{signal.SIGKILL}", str(scout))
            gpu.order(f"log NVRM: Xid (PCI:{slot}): 63, Row Remapper: New row marked for remapping")
            expected[gpu.name, "xid", "corrected"] = 1
            look.until(expected)
            assert look.figure("lost_total") == 0

            # What the kernel overwrites meanwhile is lost and counted.
            (scout,) = guest.running("gpudaemon.processes.process")
            guest.run("kill", f"-{signal.SIGSTOP}", str(scout))
            size = int(guest.run("dmesg", "--raw").stdout.count("\n"))
            read = look.figure("records_total")
            _say(guest, "<7>noise of a test, " + "x" * 900, 4000)
            gpu.order(f"log NVRM: Xid (PCI:{slot}): 92, High single-bit ECC error rate")
            guest.run("kill", f"-{signal.SIGCONT}", str(scout))
            expected[gpu.name, "xid", "corrected"] = 2
            look.until(expected)
            lost, read = look.figure("lost_total"), look.figure("records_total") - read
            print(
                f"{guest.kernel.release}: {size} lines before, {read:.0f} read and {lost:.0f} lost of some 4001"
            )
            assert lost > 0 and read + lost >= 4001
            assert read + lost < 4001 + 200, "other lines of the kernel"
            assert look.counts() == expected
        client.kill()


@pytest.mark.campaign  # its last repair was not run
def test_a_ring_that_hangs(guest: Guest) -> None:
    """The scheduler's own time-out: a core dump and, where the kernel has that event, a reset by its name."""
    with TestGpus(guest, timeout_ms=1000) as gpus:
        gpu = gpus.pci[0]
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(lambda: daemon.metrics().states(gpu.name) == ["ok"], 60.0)
            with contextlib.suppress(GuestError):  # a kernel without the event
                gpu.order("wedge none")
            client = gpu.program("submit", "gfx", "1", "9000000", "say", "hold")
            pid = client.said()["pid"]
            guest.until(lambda: gpu.counters()["coredumps"] == 1, 60.0, "for the time-out")
            expected: dict[tuple[str, ...], float] = {(gpu.name, "core_dump", "recovered"): 1}
            if gpu.counters()["wedged"]:
                expected[gpu.name, "reset", "recovered"] = 1
            look.until(expected)
            named = [one["pid"] for one in look.events() if one["kind"] == "reset" and one["pid"]]
            assert named in ([], [pid])
            client.kill()
            assert look.counts() == expected


@pytest.mark.campaign  # its last repair was not run
def test_errors_of_a_link(guest: Guest) -> None:
    """QEMU puts an error into the port above two GPUs; the kernel's AER driver counts it."""
    with TestGpus(guest) as gpus:
        port = _above(gpus.pci[1])[0]
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            look = Looker(daemon)
            daemon.until(lambda: daemon.metrics().states(port) == ["ok"], 60.0)
            before = guest.read(f"/sys/bus/pci/devices/{port}/aer_dev_correctable")
            print(guest.qmp.human("pcie_aer_inject_error -c switch_rp 0x40"))
            guest.until(lambda: guest.read(f"/sys/bus/pci/devices/{port}/aer_dev_correctable") != before, 20.0)
            look.until({(port, "aer", "corrected"): 1})


def _above(gpu: TestGpu) -> list[str]:
    """PCI addresses above it, the root port first."""
    return re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", gpu.path)[:-1]
