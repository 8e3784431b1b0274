"""GPUs whose driver gave them up: DRM's WEDGED uevent, remembered until the driver is bound anew. Pure.

`WEDGED=<method>[,<method>…]` names ways to recover, mildest first: rebind, bus-reset, vendor-specific, unknown.
`none` is a reset that worked and no reason for concern. The kernel writes the list into 32 bytes: a last word
that is not known was cut off. Documentation/gpu/drm-uapi.rst (Device Wedging), drivers/gpu/drm/drm_drv.c
(drm_dev_wedged_event). Events from before this program started are not seen.
"""

from collections.abc import Mapping

from gpudaemon.model.device import Device

__all__ = ["Wedged"]

_METHODS = frozenset({"rebind", "bus-reset", "vendor-specific", "unknown"})
_OVER = frozenset({"bind", "unbind", "remove"})


class Wedged:
    """by_device: id -> recovery methods its driver asks for, as the kernel names them."""

    def __init__(self) -> None:
        self.by_device: dict[str, str] = {}

    def event(
        self, action: str, devpath: str, properties: Mapping[str, str], devices: Mapping[str, Device]
    ) -> bool:
        """Take one uevent, of whatever subsystem; True where it changed anything.

        devpath: as in the event, from the sysfs root. devices: those of the inventory, by id.
        """
        path = devpath.lstrip("/")
        if action == "change" and "WEDGED" in properties:
            methods = [word for word in properties["WEDGED"].split(",") if word in _METHODS]
            owner = _owner(path, devices)
            if not methods or not owner:
                return False
            self.by_device[owner] = ",".join(methods)
            return True
        if action not in _OVER:
            return False
        over = [id_ for id_ in self.by_device if id_ not in devices or _is_above(path, devices[id_].path)]
        for id_ in over:
            del self.by_device[id_]
        return bool(over)


def _owner(path: str, devices: Mapping[str, Device]) -> str:
    """The device that a node hangs from, the nearest one above it; empty where there is none."""
    above = [device for device in devices.values() if path == device.path or path.startswith(f"{device.path}/")]
    return max(above, key=lambda device: len(device.path)).id if above else ""


def _is_above(path: str, device: str) -> bool:
    return device == path or device.startswith(f"{path}/")
