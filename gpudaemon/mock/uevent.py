"""Kernel uevents of a device that goes or comes, as datagrams look on NETLINK_KOBJECT_UEVENT group 1.

Format: lib/kobject_uevent.c (`action@devpath`, then NUL-terminated KEY=value, SEQNUM last). Order: a PCI device
with amdgpu goes as drm card, render node, hwmon (drm_dev_unplug, then amdgpu_pm_sysfs_fini), unbind and remove
of the PCI device; it comes as add of the PCI device, hwmon, render node, card (amdgpu_driver_load_kms, then
drm_dev_register), bind. Other drivers register their hwmon after the nodes and take it away before them.
"""

import itertools
from collections.abc import Iterator

from gpudaemon.mock.live import LiveDevice, LiveTree
from gpudaemon.mock.tree import File

__all__ = ["Uevents"]


class Uevents:
    """Makes uevents of the devices of one tree; SEQNUM counts through its life."""

    def __init__(self, tree: LiveTree) -> None:
        self._tree = tree
        self._numbers = itertools.count(4801)

    def removed(self, device: LiveDevice) -> list[bytes]:
        """The uevents of the device going away."""
        events = self.unbound(device) if device.bound else []
        return [*events, self.event("remove", device.path, "pci", without="DRIVER")]

    def unbound(self, device: LiveDevice) -> list[bytes]:
        """The uevents of its driver letting go."""
        classes = self._class_devices(device)
        order = (
            ("hwmon", "accel", "card", "render")
            if self._hwmon_last(device)
            else ("accel", "card", "render", "hwmon")
        )
        events = [self.event("remove", path, subsystem) for path, subsystem in _in_order(classes, order)]
        return [*events, self.event("unbind", device.path, "pci", without="DRIVER")]

    def restored(self, device: LiveDevice) -> list[bytes]:
        """The uevents of the device coming back."""
        driven = self.bound(device) if device.bound else []
        return [self.event("add", device.path, "pci", without="DRIVER"), *driven]

    def bound(self, device: LiveDevice) -> list[bytes]:
        """The uevents of its driver taking it."""
        classes = self._class_devices(device)
        order = (
            ("render", "card", "accel", "hwmon")
            if self._hwmon_last(device)
            else ("hwmon", "render", "card", "accel")
        )
        events = [self.event("add", path, subsystem) for path, subsystem in _in_order(classes, order)]
        events.append(self.event("bind", device.path, "pci"))
        return events

    def event(self, action: str, path: str, subsystem: str, *, without: str = "", **keys: str) -> bytes:
        """One uevent of the device at `path` below the mount; `without` names a key of its file to omit."""
        devpath = "/" + path.removeprefix("sys/")
        node = self._tree.paths[f"{path}/uevent"]
        own = node.entry.content.decode().splitlines() if isinstance(node.entry, File) else []
        lines = [f"{action}@{devpath}", f"ACTION={action}", f"DEVPATH={devpath}", f"SUBSYSTEM={subsystem}"]
        lines += [f"{key}={value}" for key, value in keys.items()]
        lines += [line for line in own if not without or not line.startswith(f"{without}=")]
        lines.append(f"SEQNUM={next(self._numbers)}")
        return b"".join(line.encode() + b"\0" for line in lines)

    def card(self, device: LiveDevice) -> str:
        """Path of the device's DRM card; raises LookupError where it has none."""
        for path, subsystem in self._class_devices(device):
            if subsystem == "drm" and "/card" in path:
                return path
        raise LookupError(f"{device.address} has no DRM card")

    def _hwmon_last(self, device: LiveDevice) -> bool:
        return f"sys/bus/pci/drivers/amdgpu/{device.address}" not in self._tree.paths

    def _class_devices(self, device: LiveDevice) -> list[tuple[str, str]]:
        """(path, class) of the nodes and hwmon chips directly below the device."""
        found = []
        directory = self._tree.paths[device.path]
        for subsystem in ("drm", "accel", "hwmon"):
            below = directory.children.get(subsystem.encode())
            found += [(child.path, subsystem) for child in below.children.values()] if below else []
        return found


def _in_order(classes: list[tuple[str, str]], order: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for kind in order:
        for path, subsystem in classes:
            name = path.rsplit("/", 1)[1]
            if name.startswith(kind):
                yield path, subsystem
