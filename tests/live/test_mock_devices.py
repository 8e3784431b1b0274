"""Devices of the live mock host that sleep, wake, go and come back."""

import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest

from gpudaemon.mock import ControlError, HostProcess

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

GPU = "0000:03:00.0"


@pytest.fixture(scope="module")
def desktop() -> Iterator[HostProcess]:
    with HostProcess("rx7900xtx") as host:
        yield host


@pytest.fixture
def server() -> Iterator[HostProcess]:
    with HostProcess("mi300x8", gpus=2) as host:
        yield host


def read(host: HostProcess, name: str) -> str:
    with open(os.path.join(host.sysfs, "class/drm/card0/device", name)) as stream:
        return stream.read().strip()


def state(host: HostProcess) -> str:
    return read(host, "power/runtime_status")


def test_a_profile_that_sleeps_says_so(desktop: HostProcess) -> None:
    assert read(desktop, "power/control") == "auto"
    assert read(desktop, "power/autosuspend_delay_ms") == "5000"


def test_it_falls_asleep_by_itself_and_an_access_wakes_it(desktop: HostProcess) -> None:
    desktop.control.autosuspend(GPU, 300)
    read(desktop, "gpu_busy_percent")
    assert state(desktop) == "active"
    time.sleep(0.5)
    before = desktop.control.stats()["devices"][GPU]
    slept = int(read(desktop, "power/runtime_suspended_time"))
    for name in ("power/control", "vendor", "class", "uevent", "numa_node", "local_cpulist", "power_state"):
        read(desktop, name)
    os.listdir(os.path.join(desktop.sysfs, "class/drm/card0/device"))
    os.stat(os.path.join(desktop.sysfs, "class/drm/card0/device/gpu_busy_percent"))
    descriptor = os.open(os.path.join(desktop.sysfs, "class/drm/card0/device/gpu_busy_percent"), os.O_RDONLY)
    assert (state(desktop), read(desktop, "power_state")) == ("suspended", "D3cold")
    assert int(read(desktop, "power/runtime_suspended_time")) >= slept
    assert desktop.control.stats()["devices"][GPU]["accesses"] == before["accesses"]
    assert os.pread(descriptor, 64, 0)
    os.close(descriptor)
    after = desktop.control.stats()["devices"][GPU]
    assert state(desktop) == "active"
    assert after["accesses"] == before["accesses"] + 1
    assert after["suspended_accesses"] == before["suspended_accesses"] + 1
    assert abs(after["last_access"] - time.time()) < 5
    assert after["runtime_status"] == "active"


def test_accesses_keep_it_awake(desktop: HostProcess) -> None:
    desktop.control.autosuspend(GPU, 400)
    before = desktop.control.stats()["devices"][GPU]["suspended_accesses"]
    desktop.control.resume(GPU)
    for _ in range(12):
        read(desktop, "mem_busy_percent")
        time.sleep(0.1)
    assert state(desktop) == "active"
    assert desktop.control.stats()["devices"][GPU]["suspended_accesses"] == before


def test_told_to_sleep_and_to_wake(server: HostProcess) -> None:
    assert read(server, "power/control") == "on"
    with pytest.raises(OSError, match="Input/output") as raised:
        read(server, "power/autosuspend_delay_ms")
    assert raised.value.errno == errno.EIO
    server.control.suspend(GPU)
    assert state(server) == "suspended"
    active = int(read(server, "power/runtime_active_time"))
    time.sleep(0.05)
    assert int(read(server, "power/runtime_active_time")) == active
    assert int(read(server, "power/runtime_suspended_time")) >= 50
    server.control.resume(GPU)
    assert state(server) == "active"
    assert server.control.stats()["devices"][GPU]["suspended_accesses"] == 0
    with pytest.raises(ControlError, match="no PCI device"):
        server.control.suspend("0000:99:00.0")


@pytest.fixture
def events(server: HostProcess) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(server.uevents)
        receiver.settimeout(5)
        yield receiver


def received(receiver: socket.socket, number: int) -> list[str]:
    return [receiver.recv(4096).split(b"\0", 1)[0].decode() for _ in range(number)]


def names(events: list[str]) -> list[str]:
    return [event.split("@")[0] + " " + event.rsplit("/", 1)[1] for event in events]


def test_a_device_goes_and_comes_back(server: HostProcess, events: socket.socket) -> None:
    device = os.path.realpath(os.path.join(server.sysfs, "class/drm/card0/device"))
    links = [
        os.path.join(server.sysfs, path)
        for path in (
            *("class/drm/card0", "class/drm/renderD128", "class/hwmon/hwmon0", "dev/char/226:0"),
            *(f"bus/pci/devices/{GPU}", f"bus/pci/drivers/amdgpu/{GPU}"),
        )
    ]
    old = os.open(os.path.join(device, "gpu_busy_percent"), os.O_RDONLY)
    directory = os.open(device, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert all(os.path.lexists(path) for path in links)
        assert server.control.remove(GPU) == 5
        assert names(received(events, 5)) == [
            *("remove card0", "remove renderD128", "remove hwmon0"),
            *(f"unbind {GPU}", f"remove {GPU}"),
        ]
        assert not os.path.exists(device)
        assert not any(os.path.lexists(path) for path in links)
        assert os.listdir(os.path.join(server.sysfs, "class/drm")) == ["version", "card1", "renderD129"]
        assert GPU not in os.listdir(os.path.dirname(device))
        with pytest.raises(FileNotFoundError):
            os.open("gpu_busy_percent", os.O_RDONLY, dir_fd=directory)
        with pytest.raises(OSError, match="No such device"):
            os.pread(old, 64, 0)
        assert server.control.stats()["devices"][GPU]["present"] is False

        assert server.control.restore(GPU) == 5
        assert names(received(events, 5)) == [
            f"add {GPU}",
            *("add hwmon0", "add renderD128", "add card0"),
            f"bind {GPU}",
        ]
        assert all(os.path.lexists(path) for path in links)
        assert 0 <= int(read(server, "gpu_busy_percent")) <= 100
        with pytest.raises(OSError, match="No such device"):
            os.pread(old, 64, 0)  # kernfs: the file it was opened on is gone for good
    finally:
        os.close(old)
        os.close(directory)


def test_nobody_listens_to_uevents(server: HostProcess) -> None:
    assert server.control.remove(GPU) == 0
    assert server.control.restore(GPU) == 0


def test_a_wedged_card_says_so(server: HostProcess, events: socket.socket) -> None:
    assert server.control.change(GPU, WEDGED="rebind,bus-reset") == 1
    event = events.recv(4096)
    assert event.startswith(b"change@/devices/pci0000:00/")
    assert b"\0SUBSYSTEM=drm\0WEDGED=rebind,bus-reset\0MAJOR=226\0MINOR=0\0" in event


def test_a_bridge_is_not_removed(server: HostProcess) -> None:
    with pytest.raises(ControlError, match="is a bridge"):
        server.control.remove("0000:02:00.0")
    with pytest.raises(ControlError, match="is present"):
        server.control.restore(GPU)
