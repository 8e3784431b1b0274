"""Something went wrong with a device, as a record for people and as what is counted."""

import enum
from dataclasses import dataclass

__all__ = ["KINDS", "Severity", "Trouble"]


class Severity(enum.Enum):
    """How bad it is. RECOVERED: work was lost, the device goes on. CORRECTED: nothing was lost."""

    CORRECTED = "corrected"
    RECOVERED = "recovered"
    UNCORRECTED = "uncorrected"
    FATAL = "fatal"


KINDS = {
    "reset": "the driver reset the device (WEDGED=none, i915 RESET=1, amdgpu's line)",
    "wedged": "the driver gave the device up (WEDGED with a way to recover, a reset of amdgpu that failed)",
    "hang": "the driver found a hang (i915 ERROR=1, a ring of amdgpu that timed out)",
    "job_hang": "a job on a GPU made no progress for as long as tracing.hang, whatever its driver says",
    "core_dump": "the driver left a device core dump",
    "unbound": "the driver was unbound from a GPU",
    "missing": "a GPU that was here is not",
    "pci_recovery": "the kernel recovers a PCI function from errors",
    "aer": "PCI Express errors (Advanced Error Reporting)",
    "cxl": "a CXL device or port reported an error: media, module, poison, link",
    "ras": "errors the GPU's RAS counted",
    "link_downgraded": "a PCI Express link lost lanes",
    "xid": "an error that NVIDIA's driver logged by number",
    "sxid": "an error of an NVSwitch, logged by number",
    "retired": "bad memory was taken out of use, or could not be",
    "throttled": "clocks began to be held down because it is too hot",
}
"""Every kind there is, and what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """at: unix time. kind: one of KINDS. text: what is known, for people. count: how many at once.

    pid, task: of the process the kernel names, 0 and empty for none. owner: of that process, where it is known.
    """

    at: float
    device: str
    kind: str
    severity: Severity
    text: str = ""
    count: int = 1
    pid: int = 0
    task: str = ""
    owner: str = ""
