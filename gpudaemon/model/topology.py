"""PCI functions of this host and how they hang together: what decides whether two of them reach each other.

A function stands for one directory of /sys/bus/pci/devices with what its files say. What could not be read is
None or empty, which is never the same as "no".
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ENDS", "Acs", "Bar", "Common", "Function", "Link", "Port", "Role", "Topology"]


class Role(enum.Enum):
    """What a function is to peer-to-peer DMA, in the order a person is shown them."""

    GPU = "gpu"
    NIC = "nic"
    """has RDMA devices"""
    NVME = "nvme"
    CXL = "cxl"
    """a CXL memory device, class 0x0502"""
    BRIDGE = "bridge"
    OTHER = "other"


ENDS = (Role.GPU, Role.NIC, Role.NVME, Role.CXL)
"""What data is exchanged between."""


class Port(enum.Enum):
    """What a function is to PCI Express (PCI_EXP_FLAGS_TYPE, include/uapi/linux/pci_regs.h)."""

    ENDPOINT = 0x0
    LEGACY_ENDPOINT = 0x1
    ROOT_PORT = 0x4
    UPSTREAM = 0x5
    DOWNSTREAM = 0x6
    PCI_BRIDGE = 0x7
    PCIE_BRIDGE = 0x8
    INTEGRATED_ENDPOINT = 0x9
    EVENT_COLLECTOR = 0xA


_REDIRECT = 0x04 | 0x08 | 0x20


@dataclass(frozen=True, slots=True)
class Acs:
    """Access Control Services: what a function can do (PCI_ACS_CAP) and what is switched on (PCI_ACS_CTRL)."""

    capability: int
    control: int

    @property
    def redirects(self) -> bool:
        """Requests between peers go up to the root complex: request or completion redirect, egress control."""
        return self.control & _REDIRECT != 0


@dataclass(frozen=True, slots=True)
class Link:
    """A PCI Express link as one end sees it: transfers per second and lane, lanes; None where not known."""

    speed: float | None = None
    width: int | None = None
    max_speed: float | None = None
    max_width: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A base address register: number, bytes, and the sizes it could have where it can be resized."""

    number: int
    size: int
    prefetchable: bool = False
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One PCI function.

    parents: functions above, nearest first. host_bridge: name of the host bridge's directory (`pci0000:00`).
    names: of what hangs from it (`card0`, `nvme0`, `mlx5_0`, `mem0`). bus, slot: of its address.
    port: None for a conventional function and where configuration space was not read. read: whether it was.
    extended: whether extended capabilities were, so that `acs` None means it has none.
    numa_node: None for unknown. iommu_group: empty for none; iommu_type: of the group.
    memory_size: bytes of its memory, where the driver says so: what the BAR should reach.
    """

    id: str
    role: Role
    parents: tuple[str, ...] = ()
    host_bridge: str = ""
    driver: str = ""
    names: tuple[str, ...] = ()
    vendor: int | None = None
    device: int | None = None
    pci_class: int | None = None
    port: Port | None = None
    read: bool = False
    extended: bool = False
    acs: Acs | None = None
    ats: bool | None = None
    atomics: bool | None = None
    relaxed_ordering: bool | None = None
    contained: bool | None = None
    link: Link = field(default_factory=Link)
    bars: tuple[Bar, ...] = ()
    numa_node: int | None = None
    iommu_group: str = ""
    iommu_type: str = ""
    memory_size: int | None = None

    @property
    def bus(self) -> str:
        """`dddd:bb`."""
        return self.id.rpartition(":")[0]

    @property
    def slot(self) -> tuple[int, int]:
        """Device and function number."""
        slot, _, number = self.id.rpartition(":")[2].partition(".")
        return int(slot, 16), int(number, 16)


@dataclass(frozen=True, slots=True)
class Common:
    """Where two ways up meet.

    at: the first function that is above both, or one of them where the other is below it; empty for none.
    up, down: functions below it on either way, nearest to the end first; all up to the root bus where none is.
    """

    at: str
    up: tuple[str, ...]
    down: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The functions of a host, by id, and what else the kernel's decision rests on.

    cpu_vendor, cpu_family: of /proc/cpuinfo; empty and None where not known. nodes: number of NUMA nodes.
    fabric: (function, function), in either order -> links of GPUs that are not PCI Express (`XGMI`, `NV4`).
    """

    functions: Mapping[str, Function]
    cpu_vendor: str = ""
    cpu_family: int | None = None
    nodes: int = 1
    fabric: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def joined(self, one: str, other: str) -> str:
        """What joins two functions besides PCI Express, empty for nothing."""
        return self.fabric.get((one, other)) or self.fabric.get((other, one)) or ""

    def chain(self, id_: str) -> tuple[str, ...]:
        """The function and the bridges above it, up to the root bus."""
        return (id_, *self.functions[id_].parents)

    def common(self, one: str, other: str) -> Common:
        """Where the ways up from two functions meet. Raises KeyError for unknown functions."""
        up, down = self.chain(one), self.chain(other)
        at = next((bridge for bridge in up if bridge in down), "")
        if not at:
            return Common("", up, down)
        return Common(at, up[: up.index(at)], down[: down.index(at)])

    def of(self, *roles: Role) -> tuple[Function, ...]:
        """Functions of these roles, in the order of the roles, then by id."""
        order = {role: place for place, role in enumerate(roles)}
        found = [one for one in self.functions.values() if one.role in order]
        return tuple(sorted(found, key=lambda one: (order[one.role], one.id)))
