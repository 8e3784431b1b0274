"""RDMA devices: what moves data between hosts past the CPU, and what stands in its way.

A counter may cost a management datagram to the firmware: data and packets are read with the loads, errors and
the driver's own counters seldom. What a device has in use and who holds it is asked by netlink, as seldom
(`gpudaemon.calls.rdma`).

Documentation/ABI/stable/sysfs-class-infiniband, drivers/infiniband/core/sysfs.c.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpudaemon.collectors import Collector, Constant
from gpudaemon.collectors.rdma.objects import HOLDERS, OBJECTS, calls
from gpudaemon.drivers import Facts
from gpudaemon.metrics import rdma
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Series
from gpudaemon.parsers.rdma import PHYSICAL_STATES, STATES, counter, numbered, rate
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR"]

_FILE = re.compile(r"(?:infiniband/([^/]{1,64})/)?(?:ports/(\d{1,3})/)?(?:(counters|hw_counters)/)?(\w{1,64})")
_WORD = 4
_DATA = {"port_rcv_data": "receive", "port_xmit_data": "transmit"}
_PACKETS = {
    "port_rcv_packets": ("receive", "all"),
    "port_xmit_packets": ("transmit", "all"),
    "unicast_rcv_packets": ("receive", "unicast"),
    "unicast_xmit_packets": ("transmit", "unicast"),
    "multicast_rcv_packets": ("receive", "multicast"),
    "multicast_xmit_packets": ("transmit", "multicast"),
}
_WAIT = "port_xmit_wait"
_NOT_COUNTERS = frozenset({"lifespan"})
"""How long the kernel keeps what firmware answered, in milliseconds."""
_MOST_HARDWARE = 128
_IDENTITY = {"node_guid": "node_guid", "firmware": "fw_ver", "board": "board_id", "node_type": "node_type"}


@dataclass(frozen=True, slots=True)
class _Place:
    """A file of an RDMA device. port: empty for the device's own; group: `counters`, `hw_counters` or empty."""

    path: str
    rdma: str
    port: str
    group: str
    name: str


def _places(device: Device) -> Iterator[_Place]:
    for path in sorted(device.names):
        found = _FILE.fullmatch(path)
        if found is None:
            continue
        name, port, group, file = found.groups()
        if name is None and device.subsystem == "pci":
            continue
        yield _Place(path, name or device.id, port or "", group or "", file)


def _wants(device: Device) -> bool:
    return device.kind is DeviceKind.NIC


def _needs(device: Device) -> Sequence[str]:
    return [
        one.path for one in _places(device) if not one.port and not one.group and one.name in _IDENTITY.values()
    ]


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    known: dict[str, dict[str, str]] = {}
    for one in _places(device):
        if one.path in facts and not one.port and not one.group:
            known.setdefault(one.rdma, {})[one.name] = text_or_empty(facts.get(one.path))
    return [
        (Series(rdma.INFO, (device.id, name, *(texts.get(file, "") for file in _IDENTITY.values()))), 1.0)
        for name, texts in known.items()
    ]


def _attributes(device: Device, _: Facts) -> Sequence[Attribute | Rows]:
    found: list[Attribute | Rows] = []
    hardware = 0
    for one in _places(device):
        labels = (device.id, one.rdma, one.port)
        if one.port and not one.group:
            found += _of_port(one, labels)
        elif one.group == "counters":
            found.append(_counter(one, labels))
        elif one.group == "hw_counters" and one.name not in _NOT_COUNTERS and hardware < _MOST_HARDWARE:
            hardware += 1
            series = Series(rdma.HARDWARE, (*labels, one.name))
            found.append(Attribute(one.path, Cadence.SLOW, (series,), counter()))
    for name in device.nodes:
        found += calls(device.id, name)
    return found


def _of_port(one: _Place, labels: tuple[str, str, str]) -> Iterator[Attribute]:
    for name, metric, states in (
        ("state", rdma.STATE, STATES),
        ("phys_state", rdma.PHYSICAL_STATE, PHYSICAL_STATES),
    ):
        if one.name == name:
            series = tuple(Series(metric, (*labels, state)) for state in states.values())
            yield Attribute(one.path, Cadence.NORMAL, series, numbered(states))
    if one.name == "rate":
        yield Attribute(one.path, Cadence.SLOW, (Series(rdma.RATE, labels),), rate)


def _counter(one: _Place, labels: tuple[str, str, str]) -> Attribute:
    if one.name in _DATA:
        series = Series(rdma.BYTES, (*labels, _DATA[one.name]))
        return Attribute(one.path, Cadence.NORMAL, (series,), counter(_WORD))
    if one.name in _PACKETS:
        series = Series(rdma.PACKETS, (*labels, *_PACKETS[one.name]))
        return Attribute(one.path, Cadence.NORMAL, (series,), counter())
    wait = one.name == _WAIT
    series = Series(rdma.TRANSMIT_WAIT, labels) if wait else Series(rdma.ERRORS, (*labels, one.name))
    return Attribute(one.path, Cadence.SLOW, (series,), counter())


COLLECTOR = Collector(
    name="rdma",
    emits=(
        rdma.INFO,
        rdma.STATE,
        rdma.PHYSICAL_STATE,
        rdma.RATE,
        rdma.BYTES,
        rdma.PACKETS,
        rdma.ERRORS,
        rdma.TRANSMIT_WAIT,
        rdma.HARDWARE,
        *OBJECTS,
        *HOLDERS,
    ),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
