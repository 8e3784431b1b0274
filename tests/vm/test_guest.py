"""The lane itself: what a guest promises to the tests."""

import os
import platform
import sys
from pathlib import Path

import pytest

from tests.vm.guest import Guest, GuestError, GuestLate


@pytest.mark.guest()
def test_kernel_is_the_one_asked_for(guest: Guest) -> None:
    assert guest.run("uname", "-r").stdout.strip() == guest.kernel.release


@pytest.mark.guest()
def test_results_come_back(guest: Guest) -> None:
    done = guest.run("sh", "-c", "cat; echo err >&2; exit 3", check=False, stdin="in")
    assert (done.status, done.stdout, done.stderr) == (3, "in", "err\n")
    with pytest.raises(AssertionError, match="status 3"):
        guest.run("sh", "-c", "exit 3")


@pytest.mark.guest()
def test_functions_run_in_the_guest(guest: Guest) -> None:
    def release_and(number: int) -> list[object]:
        import os

        return [os.uname().release, number + 1]

    assert guest.call(release_and, 41) == [guest.kernel.release, 42]

    def failing() -> None:
        raise ValueError("of the guest")

    with pytest.raises(GuestError, match="ValueError: of the guest"):
        guest.call(failing)


@pytest.mark.guest()
def test_errno_of_a_file(guest: Guest) -> None:
    with pytest.raises(GuestError) as raised:
        guest.read("/sys/no/such")
    assert raised.value.errno == 2


@pytest.mark.guest()
def test_late_command_is_killed(guest: Guest) -> None:
    with pytest.raises(GuestLate):
        guest.run("sleep", "4321", seconds=0.5)

    def sleepers() -> int:
        import pathlib

        lines = [one.read_bytes() for one in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
        return sum(line.split(b"\0")[:2] == [b"sleep", b"4321"] for line in lines)

    assert guest.call(sleepers) == 0


@pytest.mark.guest()
def test_host_is_read_only(guest: Guest) -> None:
    path = os.path.abspath(__file__)
    assert guest.read(path) == Path(path).read_text()
    guest.write("/etc/gpudaemon-guest", "x")
    assert not os.path.exists("/etc/gpudaemon-guest")
    (guest.out / "note").write_text("from the host")
    assert guest.read("/mnt/out/note") == "from the host"


@pytest.mark.guest()
def test_python_of_this_environment(guest: Guest) -> None:
    done = guest.run(sys.executable, "-c", "import platform; print(platform.python_version())")
    assert done.stdout.strip() == platform.python_version()


@pytest.mark.guest(devices="minimal", fresh=True, kernels=("7.x",))
def test_complaint_of_the_kernel_is_found(guest: Guest) -> None:
    assert guest.faults() == ""
    guest.write("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at somewhere\n")
    assert "at somewhere" in guest.faults()
    assert guest.faults() == ""


@pytest.mark.guest(devices="minimal", fresh=True, kernels=("7.x",))
def test_guest_that_died(guest: Guest) -> None:
    assert guest.is_well()
    guest.qmp.command("quit")
    guest.until(lambda: not guest.is_well())
    with pytest.raises(GuestError):
        guest.run("true")
    guest.close()
