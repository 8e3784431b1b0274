"""Rows of memory by what it is made of: system memory, CXL memory and memory of GPUs in the same families.

`pool` is a NUMA node (`node0`) or the PCI address of a GPU. `kind`: `dram` is a node with processors, `cxl` a
node made of a CXL region, `cpuless` any other node without processors (the kernel does not say of what), `vram`
memory of a GPU.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "BANDWIDTH",
    "CAPACITY",
    "DEMOTION",
    "INFO",
    "INTERLEAVE_AUTO",
    "INTERLEAVE_WEIGHT",
    "LATENCY",
    "USED",
]

_NODE = "Documentation/ABI/stable/sysfs-devices-node"
_ACCESS = "Access class 0: from the nearest initiator of any kind, 1: from the nearest CPU."

INFO = Metric(
    name="gpudaemon_memory_pool_info",
    kind=Kind.INFO,
    help="The kernel's memory tier of a NUMA node: pages are demoted to nodes of a higher number.",
    labels=("pool", "kind", "tier"),
    abi="Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers: memory_tierN/nodelist",
)
CAPACITY = Metric(
    name="gpudaemon_memory_pool_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory of a NUMA node or GPU.",
    labels=("pool", "kind"),
    abi=f"{_NODE}: nodeX/meminfo, MemTotal; of a GPU as gpudaemon_gpu_memory_total_bytes",
)
USED = Metric(
    name="gpudaemon_memory_pool_used_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory of a NUMA node or GPU that is not free. Of a node that counts caches, which can be dropped.",
    labels=("pool", "kind"),
    abi=f"{_NODE}: nodeX/meminfo, MemUsed; of a GPU as gpudaemon_gpu_memory_used_bytes",
)
BANDWIDTH = Metric(
    name="gpudaemon_memory_pool_bandwidth_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help=f"Bandwidth of a NUMA node's memory as firmware or its CXL devices state it. {_ACCESS}",
    labels=("pool", "kind", "direction", "access"),
    abi=f"{_NODE}: nodeX/accessY/initiators/read_bandwidth, write_bandwidth",
)
LATENCY = Metric(
    name="gpudaemon_memory_pool_latency_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help=f"Latency of a NUMA node's memory as firmware or its CXL devices state it. {_ACCESS}",
    labels=("pool", "kind", "direction", "access"),
    abi=f"{_NODE}: nodeX/accessY/initiators/read_latency, write_latency",
)
INTERLEAVE_WEIGHT = Metric(
    name="gpudaemon_memory_pool_interleave_weight",
    kind=Kind.GAUGE,
    help="Pages a NUMA node gets in its turn under weighted interleaving.",
    labels=("pool",),
    abi="Documentation/ABI/testing/sysfs-kernel-mm-mempolicy-weighted-interleave: nodeN",
)
INTERLEAVE_AUTO = Metric(
    name="gpudaemon_memory_interleave_auto",
    kind=Kind.GAUGE,
    help="1 where the kernel sets those weights itself, by bandwidth.",
    abi="Documentation/ABI/testing/sysfs-kernel-mm-mempolicy-weighted-interleave: auto",
)
DEMOTION = Metric(
    name="gpudaemon_memory_demotion_enabled",
    kind=Kind.GAUGE,
    help="1 where reclaim may move pages to a lower tier.",
    abi="Documentation/ABI/testing/sysfs-kernel-mm-numa: demotion_enabled",
)
