"""The devices of this host over time: what is here, and what was here and is not any more. Pure."""

from collections.abc import Iterable, Mapping

from gpudaemon.model.device import Device, DeviceKind

__all__ = ["Inventory", "concerns"]

_MOST_MISSING = 1024
_SUBSYSTEMS = frozenset({"drm", "accel", "pci", "hwmon"})
_ACTIONS = frozenset({"add", "remove", "bind", "unbind", "move"})


def concerns(action: str, subsystem: str, devtype: str) -> bool:
    """Whether a uevent may change the inventory. Display connectors and hot-plug changes do not."""
    return subsystem in _SUBSYSTEMS and action in _ACTIONS and devtype != "drm_connector"


class Inventory:
    """Devices by id, and the missing ones: GPUs that left and have not come back.

    A partition or a hwmon chip that goes is a change of configuration, not a loss; a bridge that goes takes
    its GPUs along.
    """

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.missing: dict[str, Device] = {}

    def update(self, devices: Iterable[Device]) -> bool:
        """Take over what a scan found; True where anything changed."""
        found: Mapping[str, Device] = {device.id: device for device in devices}
        if found == self.devices:
            return False
        for id_, device in self.devices.items():
            if id_ not in found and device.kind is DeviceKind.GPU and len(self.missing) < _MOST_MISSING:
                self.missing[id_] = device
        for id_ in found:
            self.missing.pop(id_, None)
        self.devices = dict(found)
        return True

    def removed(self, devpath: str) -> list[str]:
        """The kernel says that the directory `devpath` (from the sysfs root) goes: ids gone with it."""
        path = devpath.lstrip("/")
        gone = [id_ for id_, d in self.devices.items() if d.path == path or d.path.startswith(path + "/")]
        if gone:
            self.update([device for id_, device in self.devices.items() if id_ not in gone])
        return gone
