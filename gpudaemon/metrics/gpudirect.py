"""Rows of GPUDirect: what lets NICs and drives reach the memory of GPUs, and what went that way.

Of nvidia-fs (GPUDirect Storage), of peer memory clients (GPUDirect RDMA before dma-buf) and of buffers that
drivers share (dma-buf).
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "BUFFERS",
    "BUFFER_ATTACHED_BYTES",
    "BUFFER_ATTACHMENTS",
    "BUFFER_BYTES",
    "CLIENT_BYTES",
    "GDS_ACTIVE",
    "GDS_BYTES",
    "GDS_COUNTED",
    "GDS_CROSSED",
    "GDS_DISTANCE",
    "GDS_ERRORS",
    "GDS_OPERATIONS",
    "GDS_PEAK",
    "GDS_PROCESSES",
    "GDS_REGISTERED",
    "GDS_SHADOW",
    "GDS_TRANSFERS",
    "MODULE_INFO",
]

_STATS = "/proc/driver/nvidia-fs/stats"
_PEERS = "/proc/driver/nvidia-fs/peer_distance"
_CLIENTS = "/sys/kernel/mm/memory_peers/<client>"
_BUFINFO = "/sys/kernel/debug/dma_buf/bufinfo (drivers/dma-buf/dma-buf.c)"

MODULE_INFO = Metric(
    name="gpudaemon_gpudirect_module_info",
    kind=Kind.INFO,
    help="A module that lets other devices reach the memory of GPUs, and its version, is loaded.",
    labels=("module", "version"),
    abi="Documentation/ABI/stable/sysfs-module: version",
)
CLIENT_BYTES = Metric(
    name="gpudaemon_gpudirect_peer_registered_bytes_total",
    kind=Kind.COUNTER,
    unit=Unit.BYTES,
    help="Memory of a peer memory client, that is of GPUs, that was registered with RDMA devices, or released.",
    labels=("client", "direction"),
    abi=f"{_CLIENTS}/num_reg_bytes, num_dereg_bytes (MLNX_OFED)",
)

GDS_COUNTED = Metric(
    name="gpudaemon_gds_statistics_enabled",
    kind=Kind.GAUGE,
    help=(
        "1 where nvidia-fs counts: operations (parameter rw_stats_enabled), or those by peer "
        "(peer_stats_enabled). Where it does not, what it would count has no sample."
    ),
    labels=("kind",),
    abi=f"{_STATS}: IO stats, peer IO stats",
)
GDS_OPERATIONS = Metric(
    name="gpudaemon_gds_operations_total",
    kind=Kind.COUNTER,
    help="Operations of GPUDirect Storage that were begun.",
    labels=("operation",),
    abi=f"{_STATS}: Reads, Writes, Batches: n",
)
GDS_BYTES = Metric(
    name="gpudaemon_gds_bytes_total",
    kind=Kind.COUNTER,
    unit=Unit.BYTES,
    help="Data GPUDirect Storage moved; nvidia-fs says whole mebibytes.",
    labels=("operation",),
    abi=f"{_STATS}: readMiB, writeMiB",
)
GDS_ERRORS = Metric(
    name="gpudaemon_gds_errors_total",
    kind=Kind.COUNTER,
    help="Errors of GPUDirect Storage, by nvidia-fs' own names.",
    labels=("kind",),
    abi=f"{_STATS}: err, io_state_err, pg-cache-fail, pg-cache-eio, Error",
)
GDS_ACTIVE = Metric(
    name="gpudaemon_gds_operations_active",
    kind=Kind.GAUGE,
    help="Operations of GPUDirect Storage under way.",
    labels=("operation",),
    abi=f"{_STATS}: Ops",
)
GDS_PROCESSES = Metric(
    name="gpudaemon_gds_processes",
    kind=Kind.GAUGE,
    help="Processes that use GPUDirect Storage.",
    labels=(),
    abi=f"{_STATS}: Active Process",
)
GDS_SHADOW = Metric(
    name="gpudaemon_gds_shadow_buffer_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory of the host that stands for memory of GPUs in operations of GPUDirect Storage.",
    labels=(),
    abi=f"{_STATS}: Active Shadow-Buffer",
)
GDS_REGISTERED = Metric(
    name="gpudaemon_gds_gpu_memory_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory of a GPU that is pinned in its BAR: kind is registered, by programs, or cache, by nvidia-fs.",
    labels=("device", "kind"),
    abi=f"{_STATS}: GPU: Registered_MiB, Cache_MiB",
)
GDS_PEAK = Metric(
    name="gpudaemon_gds_gpu_memory_peak_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="The most memory of a GPU that programs had registered.",
    labels=("device",),
    abi=f"{_STATS}: GPU: max_pinned_MiB",
)
GDS_CROSSED = Metric(
    name="gpudaemon_gds_gpu_cross_root_port_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Share of a GPU's DMA operations that went to another root port; whole hundredths.",
    labels=("device",),
    abi=f"{_STATS}: GPU: cross_root_port(%)",
)
GDS_DISTANCE = Metric(
    name="gpudaemon_gds_peer_distance",
    kind=Kind.GAUGE,
    help="Distance by nvidia-fs' own count; 127 and more: not below one root port.",
    labels=("src", "dst"),
    abi=f"{_PEERS}: p2pdist",
)
GDS_TRANSFERS = Metric(
    name="gpudaemon_gds_peer_operations_total",
    kind=Kind.COUNTER,
    help="DMA mappings nvidia-fs made for a GPU and a peer; no sample where there was none or none is counted.",
    labels=("src", "dst"),
    abi=f"{_PEERS}: np2p",
)

BUFFERS = Metric(
    name="gpudaemon_dma_buf_buffers",
    kind=Kind.GAUGE,
    help="Buffers that drivers share, by who exports them; for many that is the name of the driver.",
    labels=("exporter",),
    abi=_BUFINFO,
)
BUFFER_BYTES = Metric(
    name="gpudaemon_dma_buf_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of the buffers that drivers share.",
    labels=("exporter",),
    abi=_BUFINFO,
)
BUFFER_ATTACHMENTS = Metric(
    name="gpudaemon_dma_buf_attachments",
    kind=Kind.GAUGE,
    help=(
        "Buffers a device is attached to: a NIC or drive attached to what a GPU's driver exports is evidence "
        "of peer-to-peer DMA."
    ),
    labels=("exporter", "importer"),
    abi=_BUFINFO,
)
BUFFER_ATTACHED_BYTES = Metric(
    name="gpudaemon_dma_buf_attached_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of the buffers a device is attached to.",
    labels=("exporter", "importer"),
    abi=_BUFINFO,
)
