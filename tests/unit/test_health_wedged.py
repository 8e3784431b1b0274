"""The WEDGED uevent: which device, which methods, until when."""

import pytest

from gpudaemon.discovery.wedged import Wedged
from gpudaemon.model.device import Device, DeviceKind

ROOT = "devices/pci0000:00/0000:00:01.1"
PORT = Device(id="0000:00:01.1", kind=DeviceKind.PCI, path=ROOT, driver="pcieport")
GPU = Device(id="0000:03:00.0", kind=DeviceKind.GPU, path=f"{ROOT}/0000:03:00.0", driver="xe")
DEVICES = {PORT.id: PORT, GPU.id: GPU}
CARD = f"/{GPU.path}/drm/card0"


def wedged(methods: str, devpath: str = CARD) -> dict[str, str]:
    found = Wedged()
    found.event("change", devpath, {"SUBSYSTEM": "drm", "WEDGED": methods}, DEVICES)
    return found.by_device


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("rebind,bus-reset", "rebind,bus-reset"),
        ("vendor-specific", "vendor-specific"),
        ("unknown", "unknown"),
        ("rebind,bus-reset,vendor-sp", "rebind,bus-reset"),  # the kernel's buffer was full
        ("none", ""),  # a reset that worked
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_methods(given: str, kept: str) -> None:
    assert wedged(given) == ({GPU.id: kept} if kept else {})


def test_the_gpu_and_not_its_port_is_meant() -> None:
    assert set(wedged("rebind")) == {GPU.id}
    assert wedged("rebind", f"/{GPU.path}0/drm/card1") == {PORT.id: "rebind"}
    assert wedged("rebind", "/devices/platform/other/drm/card1") == {}


@pytest.mark.parametrize(
    ("action", "devpath", "over"),
    [
        ("bind", f"/{GPU.path}", True),
        ("unbind", f"/{GPU.path}", True),
        ("remove", f"/{ROOT}", True),
        ("add", f"/{GPU.path}", False),
        ("change", f"/{GPU.path}", False),
        ("remove", CARD, False),
        ("unbind", "/devices/pci0000:00/0000:04:00.0", False),
    ],
)
def test_until_it_is_bound_anew(action: str, devpath: str, over: bool) -> None:
    found = Wedged()
    found.event("change", CARD, {"WEDGED": "rebind"}, DEVICES)
    assert found.event(action, devpath, {}, DEVICES) is over
    assert (found.by_device == {}) is over


def test_what_is_no_device_any_more_is_forgotten() -> None:
    found = Wedged()
    found.event("change", CARD, {"WEDGED": "rebind"}, DEVICES)
    assert found.event("remove", "/devices/elsewhere", {}, {})
    assert found.by_device == {}
