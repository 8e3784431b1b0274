"""The CXL bus of a host: what hangs from what, how large it is and who uses it. None is always "not known"."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Bus", "Dax", "Decoder", "Memdev", "Port", "Region"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memdev:
    """A memory device. device: its PCI function. volatile, persistent: bytes. security: the kernel's word."""

    name: str
    device: str = ""
    serial: int | None = None
    firmware: str = ""
    numa_node: int | None = None
    volatile: int | None = None
    persistent: int | None = None
    volatile_qos: int | None = None
    persistent_qos: int | None = None
    security: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A root, a port of a host bridge or switch, or an endpoint.

    kind: `root`, `port` or `endpoint`. above: the port it hangs from. depth: below the root. uport: the device
    that is the port: a host bridge, a PCI function, a memdev. parent_dport: of the port above, where it hangs.
    dports: id -> device. committed: decoders in use.
    """

    name: str
    kind: str
    above: str = ""
    depth: int = 0
    uport: str = ""
    parent_dport: str = ""
    dports: Mapping[int, str] = field(default_factory=dict)
    committed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Which addresses a port passes on, and to whom.

    start, size: of host addresses, None for start where the reader has not the right. targets: ids of dports.
    mode: `ram`, `pmem` or `none` of an endpoint's. dpa_start, dpa_size: of device addresses. region: its name.
    capable: of a root's: `pmem`, `ram`, `type2`, `type3`.
    """

    name: str
    port: str
    start: int | None = None
    size: int | None = None
    ways: int | None = None
    granularity: int | None = None
    targets: tuple[int, ...] = ()
    mode: str = ""
    dpa_start: int | None = None
    dpa_size: int | None = None
    region: str = ""
    locked: bool | None = None
    capable: tuple[str, ...] = ()
    qos: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Memory made of memdevs. decoder: the root's it lies in. targets: endpoint decoders by position.

    speeds: (`read` or `write`, `bandwidth` or `latency`, access class) -> bytes per second or seconds.
    """

    name: str
    decoder: str
    mode: str = ""
    size: int | None = None
    start: int | None = None
    ways: int | None = None
    granularity: int | None = None
    committed: bool | None = None
    uuid: str = ""
    targets: tuple[str, ...] = ()
    speeds: Mapping[tuple[str, str, int], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dax:
    """A DAX device of a region. driver: `kmem` makes it memory of node target_node, `device_dax` a device."""

    name: str
    region: str
    size: int | None = None
    target_node: int | None = None
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """Everything, by name."""

    memdevs: Mapping[str, Memdev]
    ports: Mapping[str, Port]
    decoders: Mapping[str, Decoder]
    regions: Mapping[str, Region]
    dax: Mapping[str, Dax]

    def memdev_of(self, decoder: str) -> str:
        """The memdev whose endpoint a decoder belongs to; empty where it is not known."""
        found = self.decoders.get(decoder)
        port = self.ports.get(found.port) if found is not None else None
        return port.uport if port is not None and port.kind == "endpoint" else ""

    def endpoint_of(self, memdev: str) -> Port | None:
        """The endpoint of a memdev; None while it has none (its driver is not bound)."""
        return next(
            (one for one in self.ports.values() if one.kind == "endpoint" and one.uport == memdev), None
        )

    def host_bridge_of(self, port: Port) -> str:
        """The host bridge above a port: what the port below the root stands for."""
        while port.above in self.ports and self.ports[port.above].kind != "root":
            port = self.ports[port.above]
        return port.uport
