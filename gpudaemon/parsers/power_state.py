"""Words of runtime power management and of PCI power states.

Documentation/ABI/testing/sysfs-devices-power (`power/runtime_status`, drivers/base/power/sysfs.c) and
Documentation/ABI/testing/sysfs-bus-pci (`power_state`, drivers/pci/pci.c, pci_power_names).
"""

from gpudaemon.errors import Malformed

__all__ = ["PCI_POWER_STATES", "RUNTIME_STATUSES", "runtime_status"]

RUNTIME_STATUSES = ("active", "suspended", "suspending", "resuming", "error", "unsupported")
"""Every word `power/runtime_status` can hold."""

PCI_POWER_STATES = ("D0", "D1", "D2", "D3hot", "D3cold", "unknown", "error")
"""Every word `power_state` can hold."""

_STATUSES = {word.encode(): word for word in RUNTIME_STATUSES}


def runtime_status(content: bytes) -> str:
    """The word in `power/runtime_status`, one of `RUNTIME_STATUSES`; raises Malformed."""
    word = content[:-1] if content[-1:] == b"\n" else content
    try:
        return _STATUSES[word]
    except KeyError:
        raise Malformed("format" if word else "empty") from None
