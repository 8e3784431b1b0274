"""Rows of KFD's topology: what ROCm sees of a host's processors, their memory and the links between them.

`device` is the PCI address of the GPU a node is or belongs to, empty for a CPU. The numbers of nodes change
when a GPU comes, goes or is divided another way; the addresses do not.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

_TOPOLOGY = "drivers/gpu/drm/amd/amdkfd/kfd_topology.c: /sys/class/kfd/kfd/topology"
_NODE = ("device", "node")
_LINK = ("device", "peer", "node", "peer_node", "type", "path")

GENERATION = Metric(
    name="gpudaemon_kfd_topology_generation",
    kind=Kind.GAUGE,
    help="Goes up by one each time KFD's topology changes.",
    abi=f"{_TOPOLOGY}/generation_id",
)
NODE_INFO = Metric(
    name="gpudaemon_kfd_node_info",
    kind=Kind.INFO,
    help="A node of KFD's topology; several nodes of one device are its partitions.",
    labels=("device", "node", "gpu_id", "partition", "render", "gfx_target", "hive", "unique_id"),
    abi=f"{_TOPOLOGY}/nodes/*/{{gpu_id,properties}}",
)
COMPUTE_UNITS = Metric(
    name="gpudaemon_kfd_compute_units",
    kind=Kind.GAUGE,
    help="Compute units of a node: SIMDs over SIMDs a unit.",
    labels=_NODE,
    abi=f"{_TOPOLOGY}/nodes/*/properties: simd_count, simd_per_cu",
)
DIES = Metric(
    name="gpudaemon_kfd_accelerator_dies",
    kind=Kind.GAUGE,
    help="Accelerator dies (XCC) of a node.",
    labels=_NODE,
    abi=f"{_TOPOLOGY}/nodes/*/properties: num_xcc",
)
MEMORY_BANK = Metric(
    name="gpudaemon_kfd_memory_bank_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of a memory bank of a node; public and private are VRAM the CPU can see or cannot.",
    labels=("device", "node", "bank", "heap"),
    abi=f"{_TOPOLOGY}/nodes/*/mem_banks/*/properties: heap_type, size_in_bytes",
)
LINK_WEIGHT = Metric(
    name="gpudaemon_kfd_link_weight",
    kind=Kind.GAUGE,
    help="How far a peer is over a link, as KFD weighs it: 15 a hop of xGMI, 20 for PCIe, 13 within a socket. "
    "path is io for a link as such, p2p for a way through others that KFD allows.",
    labels=_LINK,
    abi=f"{_TOPOLOGY}/nodes/*/{{io_links,p2p_links}}/*/properties: weight",
)
LINK_MINIMUM_BANDWIDTH = Metric(
    name="gpudaemon_kfd_link_minimum_bandwidth_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help="Least bandwidth of a link; no sample where KFD does not know it.",
    labels=_LINK,
    abi=f"{_TOPOLOGY}/nodes/*/{{io_links,p2p_links}}/*/properties: min_bandwidth, MB/s",
)
LINK_MAXIMUM_BANDWIDTH = Metric(
    name="gpudaemon_kfd_link_maximum_bandwidth_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help="Highest bandwidth of a link; no sample where KFD does not know it.",
    labels=_LINK,
    abi=f"{_TOPOLOGY}/nodes/*/{{io_links,p2p_links}}/*/properties: max_bandwidth, MB/s",
)
