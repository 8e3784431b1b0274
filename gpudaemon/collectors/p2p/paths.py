"""The way between two PCI functions as the field names it, and how fast its narrowest link is.

The names are those of `nvidia-smi topo -m` and NCCL: PIX over at most one PCIe switch, PXB over several, PHB
through a host bridge, NODE between host bridges of one NUMA node, SYS between NUMA nodes.

Bytes per second follow the kernel's accounting of a link, PCIE_SPEED2MBS_ENC of drivers/pci/pci.h: 8b/10b up to
5 GT/s, 128b/130b up to 32 GT/s, nothing taken off at 64 GT/s. What headers of packets cost is not taken off.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from gpudaemon.model.topology import Function, Link, Port, Role, Topology

__all__ = ["Ceiling", "PathClass", "ceiling", "downgraded", "link_between", "link_bytes", "path_class"]


class PathClass(enum.Enum):
    """How far apart two functions are, the nearest first."""

    SELF = "X"
    PIX = "PIX"
    PXB = "PXB"
    PHB = "PHB"
    NODE = "NODE"
    SYS = "SYS"


_Number = TypeVar("_Number", int, float)
_INTEL = 0x8086
_STUB = (2.5e9, 1)
_NOT_SWITCHES = (Port.ROOT_PORT, Port.DOWNSTREAM)
_ENCODED = ((5e9, 0.8), (32e9, 128 / 130))


def path_class(topology: Topology, one: str, other: str) -> PathClass:
    """What lies between two functions. Raises KeyError for unknown ones."""
    if one == other:
        return PathClass.SELF
    met = topology.common(one, other)
    if met.at:
        between = {*met.up, *met.down, met.at} - {one, other}
        return PathClass.PIX if sum(_is_switch(topology, bridge) for bridge in between) <= 1 else PathClass.PXB
    first, second = topology.functions[one], topology.functions[other]
    if first.host_bridge == second.host_bridge:
        return PathClass.PHB
    if topology.nodes <= 1 or (first.numa_node is not None and first.numa_node == second.numa_node):
        return PathClass.NODE
    return PathClass.SYS


def _is_switch(topology: Topology, bridge: str) -> bool:
    """Whether a bridge counts: a switch is one upstream port, whatever ports it has below.

    A bridge whose kind is not known counts where another bridge is between it and the root bus, and not where
    what is directly above is one that counts already: ports of switches come in pairs.
    """
    function = topology.functions.get(bridge)
    if function is not None and function.port is not None:
        return function.port not in _NOT_SWITCHES
    above = topology.chain(bridge)[1:] if function is not None else ()
    # root port, upstream, downstream, upstream, downstream: every second one is a switch's upstream port.
    return len(above) % 2 == 1


def link_bytes(link: Link) -> float | None:
    """Bytes per second one way of a link at its best speed, over the lanes it uses now."""
    speed = link.max_speed or link.speed
    width = link.width or link.max_width
    if not speed or not width:
        return None
    encoding = next((share for limit, share in _ENCODED if speed <= limit), 1.0)
    return speed * width * encoding / 8


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The narrowest link on a way. at: the function at its lower end; bytes_per_second: one way."""

    at: str
    bytes_per_second: float


def ceiling(topology: Topology, one: str, other: str) -> Ceiling | None:
    """The narrowest PCI Express link between two functions; None where one of them is not known.

    Of each link the speed is the best that both of its ends can do, because an idle GPU lowers its speed until
    there is work, and the width is the one in use. What joins two root complexes is not a link of PCI Express.
    """
    met = topology.common(one, other)
    found = []
    for end in (*met.up, *met.down):
        link = link_between(topology, end)
        if link is None:
            continue
        rate = link_bytes(link)
        if rate is None:
            return None
        found.append(Ceiling(end, rate))
    return min(found, key=lambda one: one.bytes_per_second, default=None)


def link_between(topology: Topology, lower: str) -> Link | None:
    """The link above a function as both ends see it; None where there is none.

    On the root bus there is none, nor between the ports within a switch or from a card's own switch to its GPU.
    """
    function = topology.functions.get(lower)
    if function is None:
        return Link()
    if not function.parents or function.port is Port.DOWNSTREAM or _is_within_a_card(function):
        return None
    above = topology.functions.get(function.parents[0])
    links = [function.link] if above is None else [function.link, above.link]
    return Link(
        _least(one.speed for one in links),
        _least(one.width for one in links),
        _least(one.max_speed for one in links),
        _least(one.max_width for one in links),
    )


def _is_within_a_card(function: Function) -> bool:
    """An Intel GPU on a card hangs from a switch of that card; its link to it reads 2.5 GT/s and one lane.

    So it does with an Arc A380 and an Arc B580, whatever the card itself is plugged into.
    """
    link = function.link
    return function.role is Role.GPU and function.vendor == _INTEL and (link.max_speed, link.max_width) == _STUB


def _least(values: "Iterable[_Number | None]") -> "_Number | None":
    return min((value for value in values if value), default=None)


def downgraded(topology: Topology, id_: str) -> tuple[bool, bool] | None:
    """(fewer lanes, lower speed) than both ends of the link above a function can do; None where not known.

    Fewer lanes is a fault. A lower speed may be the power management of an idle device.
    """
    function: Function | None = topology.functions.get(id_)
    link = link_between(topology, id_)
    if function is None or link is None or not link.width or not link.max_width:
        return None
    slower = bool(link.speed and link.max_speed and link.speed < link.max_speed)
    return link.width < link.max_width, slower
