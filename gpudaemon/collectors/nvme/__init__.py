"""NVMe controllers: who they are and whether they work. Their sensors are those of the chip they register.

drivers/nvme/host/sysfs.c: every file here is printed from memory, none asks the drive.
"""

import re
from collections.abc import Iterator, Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts
from gpudaemon.metrics import nvme
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Series
from gpudaemon.parsers.integer import words
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR", "STATES"]

STATES = ("new", "live", "resetting", "connecting", "deleting", "deleting (no IO)", "dead")
"""nvme_sysfs_show_state()."""
_UNKNOWN = ("unknown state",)
_IDENTITY = ("model", "firmware_rev", "serial", "transport")
_CONTROLLER = re.compile(r"(?:nvme/)?(nvme\d{1,6})", re.ASCII)


def _controllers(device: Device) -> Iterator[tuple[str, str]]:
    """(name of a controller, its directory below the device with a slash at the end)."""
    if _CONTROLLER.fullmatch(device.id):
        yield device.id, ""
    for node in device.nodes:
        if f"nvme/{node}/state" in device.names:
            yield node, f"nvme/{node}/"


def _wants(device: Device) -> bool:
    return device.kind is DeviceKind.NVME


def _needs(device: Device) -> Sequence[str]:
    return [
        f"{directory}{name}"
        for _, directory in _controllers(device)
        for name in _IDENTITY
        if f"{directory}{name}" in device.names
    ]


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    return [
        (
            Series(
                nvme.INFO,
                (device.id, name, *(text_or_empty(facts.get(f"{directory}{file}")) for file in _IDENTITY)),
            ),
            1.0,
        )
        for name, directory in _controllers(device)
    ]


def _attributes(device: Device, _: Facts) -> Sequence[Attribute | Rows]:
    return [
        Attribute(
            f"{directory}state",
            Cadence.NORMAL,
            tuple(Series(nvme.STATE, (device.id, name, state)) for state in STATES),
            words(STATES, unknown=_UNKNOWN),
        )
        for name, directory in _controllers(device)
        if f"{directory}state" in device.names
    ]


COLLECTOR = Collector(
    name="nvme",
    emits=(nvme.INFO, nvme.STATE),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
