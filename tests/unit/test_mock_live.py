"""The live tree without FUSE: what belongs to a device, what matches, and the uevents of coming and going."""

import pytest

from gpudaemon.mock.live import LiveTree, Node
from gpudaemon.mock.profiles import profiles
from gpudaemon.mock.uevent import Uevents

BUS = "/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0"
GPU = f"{BUS}/0000:03:00.0"


@pytest.fixture
def live() -> LiveTree:
    return LiveTree(profiles()["mi300x8"].tree(2))


def heads(events: list[bytes]) -> list[str]:
    return [event.split(b"\0", 1)[0].decode() for event in events]


def keys(event: bytes) -> dict[str, str]:
    assert event.endswith(b"\0")
    return dict(line.split("=", 1) for line in event.decode()[:-1].split("\0")[1:])


def test_devices_are_found(live: LiveTree) -> None:
    assert len(live.devices) == 8  # two GPUs, each with a root port, an upstream and a downstream port
    assert {address for address, device in live.devices.items() if not device.bridge} == {
        "0000:03:00.0",
        "0000:23:00.0",
    }


def test_what_goes_with_a_device(live: LiveTree) -> None:
    device = live.device("0000:03:00.0")
    owned = {node.path for node in device.nodes}
    assert owned >= {
        f"sys{GPU}/gpu_busy_percent",
        "sys/class/drm/card0",
        "sys/class/hwmon/hwmon0",
        "sys/dev/char/226:0",
        "sys/bus/pci/devices/0000:03:00.0",
        "sys/bus/pci/drivers/amdgpu/0000:03:00.0",
        f"sys{GPU}/drm/renderD128",
    }
    assert "sys/class/drm/card1" not in owned
    assert f"sys{BUS}/vendor" not in owned


def test_removed_and_restored(live: LiveTree) -> None:
    device = live.device("0000:03:00.0")
    node = live.paths[f"sys{GPU}/gpu_busy_percent"]
    live.remove(device)
    assert not node.alive
    with pytest.raises(ValueError, match="removed already"):
        live.remove(device)
    live.restore(device)
    assert node.alive
    assert node.generation == 1  # descriptors from before are stale for ever
    with pytest.raises(ValueError, match="is present"):
        live.restore(device)
    with pytest.raises(ValueError, match="is a bridge"):
        live.remove(live.device("0000:02:00.0"))
    with pytest.raises(LookupError):
        live.device("0000:99:00.0")


def paths(nodes: list[Node]) -> set[str]:
    return {node.path for node in nodes}


def test_patterns_follow_links_up_to_the_first_wildcard(live: LiveTree) -> None:
    busy = f"sys{GPU}/gpu_busy_percent"
    assert paths(live.match("sys/class/drm/card0/device/gpu_busy_percent")) == {busy}
    assert paths(live.match("sys/class/drm/card0/device/gpu_b*")) == {busy}
    assert paths(live.match(busy)) == {busy}
    assert len(live.match("*/gpu_busy_percent")) == 2
    assert paths(live.match("sys/class/drm/card[01]")) == {"sys/class/drm/card0", "sys/class/drm/card1"}
    assert paths(live.match("sys/class/drm/card1")) == {"sys/class/drm/card1"}  # the link, not its target
    with pytest.raises(LookupError):
        live.match("sys/class/drm/card9/device/gpu_busy_percent")


def test_uevents_of_removal_come_in_the_kernels_order(live: LiveTree) -> None:
    events = Uevents(live).removed(live.device("0000:03:00.0"))
    assert heads(events) == [
        f"remove@{GPU}/drm/card0",
        f"remove@{GPU}/drm/renderD128",
        f"remove@{GPU}/hwmon/hwmon0",
        f"unbind@{GPU}",
        f"remove@{GPU}",
    ]
    assert (
        events[0]
        == (
            f"remove@{GPU}/drm/card0\0ACTION=remove\0DEVPATH={GPU}/drm/card0\0SUBSYSTEM=drm\0MAJOR=226\0MINOR=0\0"
            "DEVNAME=dri/card0\0DEVTYPE=drm_minor\0SEQNUM=4801\0"
        ).encode()
    )
    last = keys(events[-1])
    assert (last["SUBSYSTEM"], last["PCI_ID"], last["PCI_SLOT_NAME"]) == ("pci", "1002:74A1", "0000:03:00.0")
    assert "DRIVER" not in last  # the driver has let go by then
    assert [int(keys(event)["SEQNUM"]) for event in events] == list(range(4801, 4806))


def test_uevents_of_return_come_in_the_kernels_order(live: LiveTree) -> None:
    events = Uevents(live).restored(live.device("0000:03:00.0"))
    assert heads(events) == [
        f"add@{GPU}",
        f"add@{GPU}/hwmon/hwmon0",
        f"add@{GPU}/drm/renderD128",
        f"add@{GPU}/drm/card0",
        f"bind@{GPU}",
    ]
    assert "DRIVER" not in keys(events[0])
    assert keys(events[-1])["DRIVER"] == "amdgpu"


def test_other_drivers_register_their_hwmon_last() -> None:
    live = LiveTree(profiles()["mixed"].tree())
    uevents = Uevents(live)
    arc = heads(uevents.restored(live.device("0000:03:00.0")))
    assert [head.rsplit("/", 1)[1] for head in arc] == [
        *("0000:03:00.0", "renderD128", "card0", "hwmon1"),
        "0000:03:00.0",
    ]
    gaudi = uevents.removed(live.device("0000:81:00.0"))
    assert [keys(event)["SUBSYSTEM"] for event in gaudi] == ["hwmon", "accel", "pci", "pci"]
    assert keys(gaudi[1])["DEVNAME"] == "accel/accel0"


def test_a_change_event_carries_its_keys(live: LiveTree) -> None:
    uevents = Uevents(live)
    card = uevents.card(live.device("0000:23:00.0"))
    event = keys(uevents.event("change", card, "drm", WEDGED="none", PID="4242", TASK="python3"))
    assert (event["ACTION"], event["WEDGED"], event["PID"], event["MINOR"]) == ("change", "none", "4242", "1")
