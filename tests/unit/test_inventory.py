"""The inventory: what is here, what is missed, and which events make us look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.discovery.inventory import Inventory, concerns
from gpudaemon.model.device import Device, DeviceKind

ROOT = "devices/pci0000:00/0000:00:01.1"


def device(id_: str, kind: DeviceKind = DeviceKind.GPU, path: str = "", driver: str = "amdgpu") -> Device:
    return Device(id=id_, kind=kind, path=path or f"{ROOT}/{id_}", driver=driver)


PORT = device("0000:00:01.1", DeviceKind.PCI, ROOT)
GPU = device("0000:03:00.0")
OTHER = device("0000:23:00.0", path="devices/pci0000:20/0000:23:00.0")
CHIP = device("coretemp.0", DeviceKind.HWMON, "devices/platform/coretemp.0")
PARTITION = device("amdgpu_xcp_1", DeviceKind.PARTITION, "devices/platform/amdgpu_xcp_1")


def test_nothing_changed_is_said() -> None:
    inventory = Inventory()
    assert inventory.update([GPU, OTHER])
    assert not inventory.update([OTHER, GPU])
    assert inventory.update([GPU, device("0000:23:00.0", driver="")])
    assert inventory.missing == {}


def test_a_gpu_that_left_is_missed_until_it_returns() -> None:
    inventory = Inventory()
    inventory.update([PORT, GPU, OTHER, CHIP, PARTITION])
    assert inventory.update([PORT])
    assert set(inventory.missing) == {GPU.id, OTHER.id}
    assert inventory.update([PORT, GPU])
    assert set(inventory.missing) == {OTHER.id}


def test_removal_of_a_port_takes_all_below_it() -> None:
    inventory = Inventory()
    neighbour = device("0000:00:01.10", path="devices/pci0000:00/0000:00:01.10")
    inventory.update([PORT, GPU, OTHER, neighbour])
    assert sorted(inventory.removed(f"/{ROOT}")) == [PORT.id, GPU.id]
    assert set(inventory.devices) == {OTHER.id, neighbour.id}
    assert set(inventory.missing) == {GPU.id}  # a port that goes is seen by the GPUs it takes along
    assert inventory.removed(f"/{ROOT}") == []


def test_removal_of_something_else_takes_nothing() -> None:
    inventory = Inventory()
    inventory.update([GPU])
    assert inventory.removed(f"/{ROOT}/{GPU.id}/drm/card0") == []
    assert inventory.removed("/") == []
    assert set(inventory.devices) == {GPU.id}


def test_the_missing_are_bounded() -> None:
    inventory = Inventory()
    for start in range(0, 4000, 500):
        inventory.update([device(f"{number:04x}:03:00.0") for number in range(start, start + 500)])
    assert len(inventory.missing) <= 1024


@given(st.lists(st.sets(st.sampled_from([PORT, GPU, OTHER, CHIP, PARTITION]))))
def test_present_and_missing_exclude_each_other(steps: list[set[Device]]) -> None:
    inventory, seen = Inventory(), set()
    for step in steps:
        inventory.update(step)
        seen |= {one.id for one in step if one.kind is DeviceKind.GPU}
        here = {one.id for one in step}
        assert set(inventory.devices) == here
        assert set(inventory.missing) == seen - here


@pytest.mark.parametrize("subsystem", ["drm", "accel", "pci", "hwmon"])
@pytest.mark.parametrize("action", ["add", "remove", "bind", "unbind", "move"])
def test_what_comes_and_goes_concerns_us(action: str, subsystem: str) -> None:
    assert concerns(action, subsystem, "")


@pytest.mark.parametrize(
    ("action", "subsystem", "devtype"),
    [
        ("change", "drm", "drm_minor"),  # a plugged display: HOTPLUG=1
        ("add", "drm", "drm_connector"),
        ("add", "usb", "usb_device"),
        ("online", "pci", ""),
        ("add", "", ""),
    ],
)
def test_the_rest_does_not(action: str, subsystem: str, devtype: str) -> None:
    assert not concerns(action, subsystem, devtype)
