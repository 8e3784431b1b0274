"""Which uevents tell of trouble, and with which device. Pure but for one link that is read.

Documentation/gpu/drm-uapi.rst (WEDGED, PID, TASK), drivers/gpu/drm/i915/gt/intel_reset.c (ERROR, RESET),
drivers/base/devcoredump.c, drivers/pci/pcie/err.c with lib/kobject_uevent.c (ERROR_EVENT).
"""

import os
from collections.abc import Iterable, Mapping

from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.trouble import Severity, Trouble
from gpudaemon.parsers.uevent import Uevent

__all__ = ["owner_of", "trouble_of"]

_RECOVERY = {
    "BEGIN_RECOVERY": Severity.UNCORRECTED,
    "SUCCESSFUL_RECOVERY": Severity.RECOVERED,
    "FAILED_RECOVERY": Severity.FATAL,
}
_LONGEST = 64


def owner_of(path: str, devices: Iterable[Device]) -> str:
    """The device that a path below the sysfs root belongs to, the nearest one above it; empty for none."""
    above = [device for device in devices if path == device.path or path.startswith(f"{device.path}/")]
    return max(above, key=lambda device: len(device.path)).id if above else ""


def trouble_of(event: Uevent, devices: Mapping[str, Device], *, sysfs: str, at: float) -> Trouble | None:
    """What a uevent tells; None for most. at: unix time it was received."""
    said, path = event.properties, event.devpath.lstrip("/")
    subsystem = said.get("SUBSYSTEM", "")
    if subsystem == "devcoredump" and event.action == "add":
        return _dump(path, devices, sysfs, at)
    device = owner_of(path, devices.values())
    if not device:
        return None
    if subsystem == "drm" and event.action == "change":
        return _drm(device, said, at)
    if subsystem == "pci" and "ERROR_EVENT" in said:
        severity = _RECOVERY.get(said["ERROR_EVENT"])
        text = said["ERROR_EVENT"].lower()
        return severity and Trouble(at=at, device=device, kind="pci_recovery", severity=severity, text=text)
    if event.action == "unbind" and devices[device].kind is DeviceKind.GPU and path == devices[device].path:
        text = f"driver {devices[device].driver or 'unknown'}"
        return Trouble(at=at, device=device, kind="unbound", severity=Severity.UNCORRECTED, text=text)
    return None


def _drm(device: str, said: Mapping[str, str], at: float) -> Trouble | None:
    if "WEDGED" in said:
        # `none` is a reset that worked. PID and TASK come together or not at all; TASK may be anything.
        recovered = said["WEDGED"] == "none"
        pid = said.get("PID", "")
        return Trouble(
            at=at,
            device=device,
            kind="reset" if recovered else "wedged",
            severity=Severity.RECOVERED if recovered else Severity.FATAL,
            text=f"recovery: {said['WEDGED'][:_LONGEST]}",
            pid=int(pid) if pid.isascii() and pid.isdecimal() and len(pid) <= 10 else 0,
            task=said.get("TASK", "")[:_LONGEST],
        )
    if said.get("RESET") == "1":
        return Trouble(at=at, device=device, kind="reset", severity=Severity.RECOVERED, text="i915 resets")
    if said.get("ERROR") == "1":
        return Trouble(at=at, device=device, kind="hang", severity=Severity.RECOVERED, text="i915 found a hang")
    return None


def _dump(path: str, devices: Mapping[str, Device], sysfs: str, at: float) -> Trouble | None:
    """`failing_device` is a link to the device; the dump itself is never opened."""
    try:
        target = os.readlink(os.path.join(sysfs, path, "failing_device"))
    except OSError:
        return None
    failing = os.path.relpath(os.path.normpath(os.path.join(sysfs, path, target)), sysfs)
    device = owner_of(failing, devices.values())
    if not device:
        return None
    text = f"/sys/class/devcoredump/{os.path.basename(path)}, kept for minutes only"
    return Trouble(at=at, device=device, kind="core_dump", severity=Severity.RECOVERED, text=text)
