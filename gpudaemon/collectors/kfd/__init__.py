"""KFD's topology: nodes, memory banks and links, each GPU under its PCI address, a partition under its GPU's.

What a node is stands in static files and is settled when the topology is planned; banks and links are read as
seldom as files that never change. `generation_id` says when all that is another topology. Links between
partitions repeat those between their GPUs: only the first partition's are taken, so that a host of eight GPUs
has as many series however they are divided.

Reading is from the driver's memory and wakes nothing; a node whose render node the reader may not use answers
EPERM. drivers/gpu/drm/amd/amdkfd/kfd_topology.c.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.metrics import kfd
from gpudaemon.model.attribute import Attribute, Cadence, Row, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Series
from gpudaemon.parsers.integer import quotient
from gpudaemon.parsers.kfd import properties
from gpudaemon.parsers.kfd_topology import HEAPS, LINKS, Node, topology
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR", "is_node", "nodes_of"]

_GENERATION = "topology/generation_id"
_NODE = re.compile(r"topology/nodes/(\d{1,5})/properties", re.ASCII)
_PART = re.compile(r"topology/nodes/(\d{1,5})/(mem_banks|io_links|p2p_links)/(\d{1,5})/properties", re.ASCII)
_LIMIT = 1024
_MEGABYTE = 1_000_000
_LINK_METRICS = (kfd.LINK_WEIGHT, kfd.LINK_MINIMUM_BANDWIDTH, kfd.LINK_MAXIMUM_BANDWIDTH)

_generation = quotient(signed=False)


def _wants(device: Device) -> bool:
    return device.kind is DeviceKind.KFD


def _needs(device: Device) -> Sequence[str]:
    needed = [_GENERATION] if _GENERATION in device.names else []
    for path in sorted(device.names):
        found = _NODE.fullmatch(path)
        if found is not None:
            needed += [path, f"topology/nodes/{found[1]}/gpu_id"]
    return [path for path in needed if path in device.names]


def is_node(path: str) -> bool:
    """Whether a file holds the properties of a node."""
    return _NODE.fullmatch(path) is not None


def nodes_of(facts: Facts) -> Mapping[int, Node]:
    """The nodes, by number; one whose properties nobody may read, or can, is left out."""
    known = {}
    for path, content in facts.items():
        found = _NODE.fullmatch(path)
        if found is None or content is None:
            continue
        try:
            known[int(found[1])] = properties(content)
        except Malformed:
            continue
    return topology(known)


def _constants(_: Device, facts: Facts) -> Sequence[Constant]:
    found: list[Constant] = []
    for number, node in nodes_of(facts).items():
        labels = (node.device, str(number))
        known = node.properties
        info = {
            "device": node.device,
            "node": str(number),
            "gpu_id": text_or_empty(facts.get(f"topology/nodes/{number}/gpu_id")),
            "partition": str(node.partition) if node.device else "",
            "render": node.render,
            "gfx_target": _number(known.get("gfx_target_version", 0)),
            "hive": _number(known.get("hive_id", 0)),
            "unique_id": f"{known['unique_id']:016x}" if known.get("unique_id") else "",
        }
        found.append((Series(kfd.NODE_INFO, tuple(info[label] for label in kfd.NODE_INFO.labels)), 1.0))
        if node.device and known.get("simd_per_cu"):
            units = known["simd_count"] / known["simd_per_cu"]
            found.append((Series(kfd.COMPUTE_UNITS, labels), units))
        if node.device and known.get("num_xcc"):
            found.append((Series(kfd.DIES, labels), float(known["num_xcc"])))
    return found


def _number(value: int) -> str:
    return str(value) if value > 0 else ""


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    planned: list[Attribute | Rows] = []
    if _GENERATION in device.names:
        series = (Series(kfd.GENERATION),)
        planned.append(Attribute(_GENERATION, Cadence.SLOW, series, _generation, settles=True))
    nodes = nodes_of(facts)
    for path in sorted(device.names):
        found = _PART.fullmatch(path)
        node = nodes.get(int(found[1])) if found is not None else None
        if found is None or node is None or node.partition:
            continue
        if found[2] == "mem_banks":
            decode, metrics = _bank(node, found[3]), (kfd.MEMORY_BANK,)
            planned.append(Rows(path, Cadence.STATIC, decode, metrics, _LIMIT, bound=1))
        else:
            way = found[2].removesuffix("_links")
            planned.append(
                Rows(
                    path,
                    Cadence.STATIC,
                    _link(node, nodes, way),
                    _LINK_METRICS,
                    _LIMIT,
                    bound=len(_LINK_METRICS),
                )
            )
    return planned


def _bank(node: Node, bank: str) -> Callable[[bytes], Iterator[Row]]:
    def decode(content: bytes) -> Iterator[Row]:
        known = properties(content)
        if not {"heap_type", "size_in_bytes"} <= known.keys():
            raise Malformed("format")
        if known["size_in_bytes"] < 0:
            raise Malformed("out_of_range")
        heap = HEAPS.get(known["heap_type"], str(known["heap_type"]))
        yield kfd.MEMORY_BANK, (node.device, str(node.number), bank, heap), float(known["size_in_bytes"])

    return decode


def _link(node: Node, nodes: Mapping[int, Node], way: str) -> Callable[[bytes], Iterator[Row]]:
    """A decoder of a link of `node`; one to a further partition, or to nowhere known, gives nothing."""

    def decode(content: bytes) -> Iterator[Row]:
        known = properties(content)
        if not {"type", "node_from", "node_to", "weight"} <= known.keys():
            raise Malformed("format")
        peer = nodes.get(known["node_to"])
        if known["node_from"] != node.number or peer is None or peer.partition:
            return
        kind = LINKS.get(known["type"], str(known["type"]))
        labels = (node.device, peer.device, str(node.number), str(peer.number), kind, way)
        yield kfd.LINK_WEIGHT, labels, float(known["weight"])
        for metric, key in (
            (kfd.LINK_MINIMUM_BANDWIDTH, "min_bandwidth"),
            (kfd.LINK_MAXIMUM_BANDWIDTH, "max_bandwidth"),
        ):
            if known.get(key, 0) > 0:
                yield metric, labels, float(known[key] * _MEGABYTE)

    return decode


COLLECTOR = Collector(
    name="kfd",
    emits=(
        kfd.GENERATION,
        kfd.NODE_INFO,
        kfd.COMPUTE_UNITS,
        kfd.DIES,
        kfd.MEMORY_BANK,
        *_LINK_METRICS,
    ),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
