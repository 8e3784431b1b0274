"""Devices that come and go in a running kernel, as the daemon sees them.

Plugged and unplugged by QEMU (QMP `device_add`, `device_del`), bound and unbound through sysfs. The witness is
the guest's own listing of sysfs, and the kernel's events, taken by a listener of the guest.
"""

import time
from collections.abc import Callable

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest

pytestmark = pytest.mark.guest()

Measured = Callable[[str, float, str], None]

_LATEST = 30.0
"""Seconds for what takes one: the guest is emulated, and this host may be busy."""


def _slot(guest: Guest, port: str) -> str:
    """PCI address of what is, or will be, plugged into a port of the board: function 0 of the bus behind it."""
    for bus in guest.qmp.command("query-pci"):
        for device in bus["devices"]:
            if device["qdev_id"] == port:
                return f"0000:{device['pci_bridge']['bus']['secondary']:02x}:00.0"
    raise LookupError(port)


def _bound(guest: Guest, device: str) -> str:
    """Name of the driver a PCI function is bound to, by the guest's own look; empty without one."""
    link = guest.run("readlink", f"/sys/bus/pci/devices/{device}/driver", check=False).stdout.strip()
    return link.rsplit("/", 1)[-1]


def _nodes(guest: Guest, device: str) -> list[str]:
    """DRM nodes of a PCI function, by the guest's own look; recent kernels have `controlDN` links there too."""
    names = guest.shell(f"ls /sys/bus/pci/devices/{device}/drm").split()
    return sorted(name for name in names if name.startswith(("card", "render")))


def _missing(daemon: GuestDaemon, device: str) -> float | None:
    """The series that says that a GPU is missing; there is none for one that is here."""
    return daemon.metrics().get(f'gpudaemon_device_missing{{device="{device}"}}')


def _plugged(guest: Guest, device: str) -> bool:
    return guest.exists(f"/sys/bus/pci/devices/{device}/vendor")


def _unplug(guest: Guest, id_: str, device: str) -> None:
    """Press the slot's button until the device has left; one that was pressed just before cancels itself."""
    end = time.monotonic() + 60.0
    while _plugged(guest, device):
        assert time.monotonic() < end, f"{id_} does not leave"
        guest.qmp.command("device_del", id=id_)
        try:
            guest.qmp.wait_event("DEVICE_DELETED", 8.0, device=id_)
        except AssertionError:
            continue


@pytest.mark.guest(
    fresh=True
)  # QEMU keeps the memory block of a bochs-display and ends at the second in one place
def test_display_adapter_comes_and_goes(guest: Guest, daemon: GuestDaemon, measured: Measured) -> None:
    guest.modprobe("bochs")
    device = _slot(guest, "hotplug0")
    assert device not in daemon.devices()
    guest.qmp.command("device_add", driver="bochs-display", bus="hotplug0", id="plugged")
    try:
        guest.until(lambda: _bound(guest, device) == "bochs-drm", _LATEST)
        took = daemon.until(lambda: daemon.devices().get(device, {}).get("nodes"), _LATEST)
        measured("bound to listed", took, "s")
        assert daemon.devices()[device]["driver"] == "bochs-drm"
        daemon.until(lambda: daemon.metrics().states(device) == ["ok"], _LATEST)
        page = daemon.metrics()
        assert page.data(device)
        # The node's number is the kernel's own: no other card may be shown for it.
        assert daemon.devices()[device]["nodes"] == _nodes(guest, device)
    finally:
        _unplug(guest, "plugged", device)
    took = daemon.until(lambda: device not in daemon.devices(), _LATEST)
    measured("gone to not listed", took, "s")
    page = daemon.metrics()
    # Who it was stays known: it is missed.
    families = {series.split("{")[0] for series in page.data(device)}
    assert families <= {"gpudaemon_gpu_info", "gpudaemon_pci_info"}
    assert page.states(device) == []
    daemon.until(lambda: _missing(daemon, device) == 1)


def test_nvme_comes_and_goes(guest: Guest, daemon: GuestDaemon, measured: Measured) -> None:
    guest.modprobe("nvme")
    device = _slot(guest, "hotplug1")
    guest.qmp.command(
        "device_add", driver="nvme", bus="hotplug1", id="plugged", serial="plugged", drive="spare"
    )
    try:
        guest.until(lambda: guest.glob(f"/sys/bus/pci/devices/{device}/nvme/nvme*/hwmon*/temp1_input"), _LATEST)
        took = daemon.until(lambda: daemon.metrics().states(device) == ["ok"], _LATEST)
        measured("sensor to page", took, "s")
        (chip,) = guest.glob(f"/sys/bus/pci/devices/{device}/nvme/nvme*/hwmon*/temp1_input")
        daemon.until(lambda: any("celsius" in series for series in daemon.metrics().data(device)), _LATEST)
        shown = {
            value for series, value in daemon.metrics().data(device).items() if "temperature_celsius" in series
        }
        assert int(guest.read(chip)) / 1000 in shown
    finally:
        _unplug(guest, "plugged", device)
    took = daemon.until(lambda: device not in daemon.devices(), _LATEST)
    measured("gone to not listed", took, "s")
    assert not daemon.metrics().of_device(device)


def test_unbound_and_bound(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe("bochs")
    (link,) = guest.glob("/sys/bus/pci/drivers/bochs-drm/0000:*")
    device = link.rsplit("/", 1)[-1]
    daemon.until(lambda: daemon.devices().get(device, {}).get("driver") == "bochs-drm", _LATEST)
    guest.write("/sys/bus/pci/drivers/bochs-drm/unbind", device)
    try:
        # A display adapter without a driver is still one of this host's GPUs: its class says so.
        daemon.until(lambda: daemon.devices().get(device, {}).get("driver") == "", _LATEST)
        assert daemon.devices()[device]["nodes"] == []
        assert daemon.devices()[device]["kind"] == "gpu"
    finally:
        guest.write("/sys/bus/pci/drivers/bochs-drm/bind", device)
    daemon.until(lambda: daemon.devices()[device]["driver"] == "bochs-drm", _LATEST)
    daemon.until(lambda: daemon.devices()[device]["nodes"], _LATEST)
    daemon.until(lambda: daemon.metrics().states(device) == ["ok"], _LATEST)


def test_module_removed_and_loaded(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe("nvme")
    drives = [link.rsplit("/", 1)[-1] for link in guest.glob("/sys/bus/pci/drivers/nvme/0000:*")]
    assert drives
    daemon.until(lambda: set(drives) <= daemon.devices().keys(), _LATEST)
    guest.run("modprobe", "-r", "nvme")
    try:
        daemon.until(lambda: not set(drives) & daemon.devices().keys(), _LATEST)
        assert not [series for drive in drives for series in daemon.metrics().of_device(drive)]
    finally:
        guest.modprobe("nvme")
    daemon.until(lambda: set(drives) <= daemon.devices().keys(), _LATEST)


def test_removed_and_rescanned(guest: Guest, daemon: GuestDaemon) -> None:
    guest.modprobe("bochs")
    (link,) = guest.glob("/sys/bus/pci/drivers/bochs-drm/0000:*")
    device = link.rsplit("/", 1)[-1]
    daemon.until(lambda: device in daemon.devices(), _LATEST)
    guest.write(f"/sys/bus/pci/devices/{device}/remove", "1")
    try:
        daemon.until(lambda: device not in daemon.devices(), _LATEST)
        daemon.until(lambda: _missing(daemon, device) == 1)
    finally:
        guest.write("/sys/bus/pci/rescan", "1")
    daemon.until(lambda: daemon.metrics().states(device) == ["ok"], _LATEST)
    assert _missing(daemon, device) is None


def test_burst_of_events_is_not_lost(guest: Guest, daemon: GuestDaemon) -> None:
    """What stays behind after many changes in a row is what is there."""
    guest.modprobe("bochs")
    (link,) = guest.glob("/sys/bus/pci/drivers/bochs-drm/0000:*")
    device = link.rsplit("/", 1)[-1]

    def turn(device: str, times: int) -> None:
        for _ in range(times):
            for name in ("unbind", "bind"):
                with open(f"/sys/bus/pci/drivers/bochs-drm/{name}", "w") as file:
                    file.write(device)

    guest.call(turn, device, 20, seconds=120.0)
    daemon.until(lambda: daemon.devices().get(device, {}).get("driver") == "bochs-drm", _LATEST)
    nodes = _nodes(guest, device)
    daemon.until(lambda: daemon.devices()[device]["nodes"] == nodes, _LATEST)
    assert daemon.metrics()["gpudaemon_daemon_uevents_lost_total"] == 0
