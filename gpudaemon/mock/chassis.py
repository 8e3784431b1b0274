"""A server with slots for accelerators: two sockets, each slot behind a root port and a PCIe switch of its own.

`root port - upstream port - downstream port - device`, half of the slots on each NUMA node, eight to a PCI
domain; device ids of AMD's root ports and Broadcom's PEX890xx switches. Formats: gpudaemon.mock.pci.
"""

from dataclasses import dataclass

from gpudaemon.mock.machine import node_cpus
from gpudaemon.mock.pci import BRIDGE_CLASS, Bar, Function, add_function, add_host_bridge, devices_path
from gpudaemon.mock.tree import Tree

__all__ = ["CPUS_PER_NODE", "Slot", "add_slot", "no_bars", "nodes_for"]

CPUS_PER_NODE = 96


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a device goes. path: its directory. node, cpus: of its socket; total: CPUs of the host.

    group: of the IOMMU. window: where its address space begins.
    """

    path: str
    node: int
    cpus: tuple[int, int]
    total: int
    group: int
    window: int


def nodes_for(count: int) -> int:
    """Sockets of a host with so many slots in use."""
    return 2 if count > 1 else 1


def add_slot(tree: Tree, index: int, count: int, link: tuple[str, int] = ("32.0", 16)) -> Slot:
    """The ports above slot `index` of `count`; link: GT/s and lanes."""
    nodes = nodes_for(count)
    node = min(index * nodes // count, nodes - 1)
    domain, root = f"{index // 8:04x}", index % 8 * 0x20
    bridge = f"pci{domain}:{root:02x}"
    add_host_bridge(tree, bridge)
    path = devices_path(bridge)
    cpus, total = node_cpus(node, CPUS_PER_NODE), nodes * CPUS_PER_NODE
    for step, (slot, vendor, device) in enumerate(
        (
            (f"{root:02x}:01.1", 0x1022, 0x14AB),
            (f"{root + 1:02x}:00.0", 0x1000, 0xC030),
            (f"{root + 2:02x}:00.0", 0x1000, 0xC030),
        )
    ):
        path = f"{path}/{domain}:{slot}"
        port = Function(
            path=path, vendor=vendor, device=device, pci_class=BRIDGE_CLASS, revision=1, driver="pcieport",
            link=link, best=link, node=node, cpus=cpus, group=4 * index + step, root=step == 0,
        )  # fmt: skip
        add_function(tree, port, total)
    window = 0x2000_0000_0000 + index * 2**39
    return Slot(f"{path}/{domain}:{root + 3:02x}:00.0", node, cpus, total, 4 * index + 3, window)


def no_bars(count: int) -> tuple[Bar, ...]:
    """So many lines of zeros: the upper half of a 64-bit BAR, and one that is not implemented."""
    return (Bar(0, 1, 0),) * count
