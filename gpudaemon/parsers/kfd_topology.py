"""KFD's topology: nodes (CPUs, GPUs, partitions of GPUs), their memory banks and the links between them.

A GPU that is divided has a node for each partition. They share `domain` and `unique_id`; `location_id` has the
partition's number either in the function bits of the PCI address or in bits 31 to 28, as kernels came and went.

drivers/gpu/drm/amd/amdkfd/kfd_topology.c (node_show, mem_show, iolink_show), kfd_crat.c (weights, types),
include/uapi/linux/kfd_sysfs.h (heap types).
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["HEAPS", "LINKS", "Node", "topology"]

HEAPS = {0: "system", 1: "public", 2: "private", 3: "gds", 4: "lds", 5: "scratch"}
"""heap_type -> name: HSA_MEM_HEAP_TYPE_*; public and private are VRAM the CPU can see or cannot."""

LINKS = {1: "hypertransport", 2: "pcie", 3: "amba", 5: "qpi", 9: "infiniband", 11: "xgmi", 14: "ethernet_rdma"}
"""type -> name: CRAT_IOLINK_TYPE_*."""

_ADDRESS = 0xFFFF
_NODE_SHIFT = 28


@dataclass(frozen=True, slots=True)
class Node:
    """A node.

    device: PCI address of the GPU it is, or is a part of; empty for CPUs. partition: its number within that
    GPU, 0 for a GPU that is whole. render: its render node (`renderD128`), empty where it has none.
    """

    number: int
    device: str
    partition: int
    render: str
    properties: Mapping[str, int]


def topology(nodes: Mapping[int, Mapping[str, int]]) -> dict[int, Node]:
    """Properties of each node by its number -> the nodes, by number."""
    first: dict[tuple[int, int], int] = {}
    for number, properties in nodes.items():
        if _is_gpu(properties):
            group, location = _group(number, properties), properties["location_id"] & _ADDRESS
            first[group] = min(first.get(group, location), location)
    found = {}
    for number, properties in sorted(nodes.items()):
        if not _is_gpu(properties):
            found[number] = Node(number, "", 0, "", properties)
            continue
        location, base = properties["location_id"], first[_group(number, properties)]
        minor = properties.get("drm_render_minor", 0)
        found[number] = Node(
            number,
            f"{properties.get('domain', 0):04x}:{base >> 8:02x}:{base >> 3 & 0x1F:02x}.{base & 7}",
            (location >> _NODE_SHIFT) or (location & _ADDRESS) - base,
            f"renderD{minor}" if minor else "",
            properties,
        )
    return found


def _is_gpu(properties: Mapping[str, int]) -> bool:
    known = properties.get("simd_count", 0) > 0 and 0 <= properties.get("domain", 0) <= 0xFFFFFFFF
    return known and 0 < properties.get("location_id", 0) <= 0xFFFFFFFF


def _group(number: int, properties: Mapping[str, int]) -> tuple[int, int]:
    """What the partitions of one GPU have in common; without an identity a node stands for itself."""
    unique = properties.get("unique_id", 0)
    return (properties.get("domain", 0), unique) if unique > 0 else (-1, number)
