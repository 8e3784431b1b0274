"""A made-up topology for the rules, and those of real hosts: from trees of sysfs, from
hwloc's XML, from the files NCCL and RCCL read.

Each reader of an XML also says how far apart two functions are by that file's own structure, which is compared
with what the project makes of the same functions.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

from gpudaemon.collectors.p2p import COLLECTOR
from gpudaemon.collectors.p2p.build import cpu, function_of
from gpudaemon.model.topology import Acs, Function, Link, Port, Role, Topology
from tests import captures

_HOST_TO_PCI = "0-1"


OFF, REDIRECT = Acs(0x7F, 0), Acs(0x7F, 0x1D)
GEN4 = Link(16e9, 16, 16e9, 16)


def function(id_: str, role: Role, *parents: str, host: str = "pci0000:00", **more: object) -> Function:
    known = {"read": True, "extended": True, "vendor": 0x8086, "device": 0x1234, "link": GEN4, **more}
    return Function(id=id_, role=role, parents=parents, host_bridge=host, **known)  # type: ignore[arg-type]


def host(*, cpu: str = "GenuineIntel", family: int = 6, root: int = 0x1234, nodes: int = 2) -> Topology:
    """Two host bridges. Below the first a switch with a GPU and a NIC, a second switch below that with a drive,
    and another GPU at a root port of its own; a GPU below the second host bridge."""
    up, down = "0000:02:00.0", ("0000:03:00.0", "0000:03:01.0", "0000:03:02.0")
    below = ("0000:06:00.0", "0000:07:00.0")
    port, switch = "0000:00:01.0", ("0000:02:00.0", "0000:00:01.0")
    found = [
        function("0000:00:00.0", Role.OTHER, device=root),
        function(port, Role.BRIDGE, port=Port.ROOT_PORT),
        function("0000:00:02.0", Role.BRIDGE, port=Port.ROOT_PORT, acs=REDIRECT),
        function(up, Role.BRIDGE, port, port=Port.UPSTREAM),
        *(function(id_, Role.BRIDGE, *switch, port=Port.DOWNSTREAM, acs=OFF) for id_ in down),
        function("0000:04:00.0", Role.GPU, down[0], *switch, numa_node=0),
        function("0000:05:00.0", Role.NIC, down[1], *switch, numa_node=0),
        function(below[0], Role.BRIDGE, down[2], *switch, port=Port.UPSTREAM),
        function(below[1], Role.BRIDGE, below[0], down[2], *switch, port=Port.DOWNSTREAM, acs=OFF),
        function("0000:08:00.0", Role.NVME, below[1], below[0], down[2], *switch, link=Link(8e9, 4, 8e9, 4)),
        function("0000:09:00.0", Role.GPU, "0000:00:02.0", numa_node=0),
        function("0000:80:00.0", Role.OTHER, host="pci0000:80", device=root),
        function("0000:80:01.0", Role.BRIDGE, host="pci0000:80", port=Port.ROOT_PORT),
        function("0000:81:00.0", Role.GPU, "0000:80:01.0", host="pci0000:80", numa_node=1),
    ]
    return Topology(functions={one.id: one for one in found}, cpu_vendor=cpu, cpu_family=family, nodes=nodes)


def with_function(topology: Topology, id_: str, **changes: object) -> Topology:
    changed = replace(topology.functions[id_], **changes)  # type: ignore[arg-type]
    return replace(topology, functions={**topology.functions, id_: changed})


def of_tree(sysfs: str, cpuinfo: str = "") -> Topology:
    """Every PCI function of a tree, read and modelled as the daemon does it."""
    found = {}
    for device in captures.devices(sysfs, every_function=True):
        facts = {path: captures.read(sysfs, device, path) for path in COLLECTOR.needs(device)}
        found[device.id] = function_of(device, facts, {})
    nodes = os.path.join(sysfs, "devices/system/node")
    count = sum(name.startswith("node") for name in os.listdir(nodes)) if os.path.isdir(nodes) else 1
    vendor, family = cpu(cpuinfo)
    return Topology(functions=found, cpu_vendor=vendor, cpu_family=family, nodes=count)


@dataclass
class Described:
    """A host as an XML file describes it.

    topology: for the project's rules. apart: pair of functions -> classes that the file's structure allows.
    """

    topology: Topology
    apart: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)


def _role(code: int) -> Role:
    base = code >> 8
    if base == 0x03 or code >> 8 == 0x12:
        return Role.GPU
    return {0x02: Role.NIC, 0x06: Role.BRIDGE}.get(base, Role.NVME if code == 0x0108 else Role.OTHER)


def of_hwloc(path: str) -> Described:
    """hwloc's XML: bridges and functions nested as they hang together, below the NUMA node they are at."""
    root = ElementTree.parse(path).getroot()
    functions: dict[str, Function] = {}
    places: dict[str, tuple[ElementTree.Element, ...]] = {}
    numa = 0

    def walk(element: ElementTree.Element, above: tuple[ElementTree.Element, ...], node: int | None) -> None:
        nonlocal numa
        kind = element.get("type")
        for child in element:
            if child.get("type") == "NUMANode" and child.get("os_index"):
                node = int(child.get("os_index", "0"))
                numa += 1
        address = element.get("pci_busid")
        if kind in ("PCIDev", "Bridge") and address:
            parents = tuple(
                one.get("pci_busid", "")
                for one in reversed(above)
                if one.get("type") == "Bridge" and one.get("pci_busid")
            )
            bridges = [one for one in above if one.get("bridge_type") == _HOST_TO_PCI]
            host = bridges[-1].get("bridge_pci", "") if bridges else ""
            code = int(element.get("pci_type", "0000")[:4], 16)
            functions[address] = Function(
                id=address, role=_role(code), parents=parents, host_bridge=host, numa_node=node
            )
            places[address] = (*above, element)
        for child in element:
            if child.tag == "object":
                walk(child, (*above, element), node)

    walk(root, (), None)
    described = Described(Topology(functions=functions, nodes=max(numa, 1)))
    ends = sorted(id_ for id_, one in functions.items() if one.role in (Role.GPU, Role.NIC, Role.NVME))
    for one, other in itertools.combinations(ends, 2):
        shared = [a for a, b in zip(places[one], places[other], strict=False) if a is b]
        described.apart[one, other] = _hwloc_class(shared[-1], functions[one], functions[other])
    return described


def _hwloc_class(common: ElementTree.Element, one: Function, other: Function) -> frozenset[str]:
    if common.get("type") == "Bridge":
        return frozenset({"PHB"} if common.get("bridge_type") == _HOST_TO_PCI else {"PIX", "PXB"})
    if one.numa_node is not None and one.numa_node == other.numa_node:
        return frozenset({"NODE"})
    return frozenset({"SYS", "NODE"} if common.get("type") != "Machine" else {"SYS"})


def of_nccl(path: str) -> Described:
    """A topology file of NCCL or RCCL: PCI switches nested below the NUMA node they are at.

    A switch is one element, not two ports, and a file does not name host bridges: functions of one NUMA node
    that share no switch may be PHB or NODE.
    """
    root = ElementTree.parse(path).getroot()
    functions: dict[str, Function] = {}
    places: dict[str, tuple[int, tuple[str, ...]]] = {}
    cpus = root.findall("cpu")
    for number, element in enumerate(cpus):
        for address, code, link, switches in _nccl_functions(element, ()):
            ports = _ports(switches, functions, number)
            functions[address] = Function(
                id=address,
                role=_role(code >> 8),
                parents=ports,
                host_bridge=f"pci{number:04x}:{ports[-1] if ports else address}",
                numa_node=number,
                link=link,
            )
            places[address] = (number, switches)
    described = Described(Topology(functions=functions, nodes=max(len(cpus), 1)))
    for one, other in itertools.combinations(sorted(places), 2):
        (first, ours), (second, theirs) = places[one], places[other]
        common = [a for a, b in zip(ours, theirs, strict=False) if a == b]
        if first != second:
            described.apart[one, other] = frozenset({"SYS"})
        elif common:
            one_switch = len(ours) == len(theirs) == len(common)
            described.apart[one, other] = frozenset({"PIX" if one_switch else "PXB"})
        else:
            described.apart[one, other] = frozenset({"PHB", "NODE"})
    return described


def _nccl_functions(
    element: ElementTree.Element, switches: tuple[str, ...]
) -> Iterator[tuple[str, int, Link, tuple[str, ...]]]:
    for pci in element.findall("pci"):
        address = pci.get("busid", "")
        code = int(pci.get("class", "0x0"), 16)
        if code >> 16 == 0x06:
            yield from _nccl_functions(pci, (*switches, address))
        else:
            speed = float(pci.get("link_speed", "0").split()[0] or 0) * 1e9 if pci.get("link_speed") else None
            yield address, code, Link(speed, int(pci.get("link_width", "0")) or None), switches


def _ports(switches: tuple[str, ...], functions: dict[str, Function], number: int) -> tuple[str, ...]:
    """The ports of these switches as PCI has them, nearest first: a root port, then two for each switch."""
    if not switches:
        return ()
    chain: list[tuple[str, Port]] = [(f"root above {switches[0]}", Port.ROOT_PORT)]
    for switch in switches:
        chain += [(switch, Port.UPSTREAM), (f"{switch} downstream", Port.DOWNSTREAM)]
    # Each function hangs from a downstream port of its own; what is shared is the upstream port.
    chain[-1] = (f"{switches[-1]} downstream {len(functions)}", Port.DOWNSTREAM)
    names = [name for name, _ in chain]
    for place, (name, port) in enumerate(chain):
        functions.setdefault(
            name,
            Function(
                id=name,
                role=Role.BRIDGE,
                port=port,
                parents=tuple(reversed(names[:place])),
                host_bridge=f"pci{number:04x}:{names[0]}",
                numa_node=number,
            ),
        )
    return tuple(reversed(names))
