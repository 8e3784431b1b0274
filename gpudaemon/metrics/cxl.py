"""Rows of the CXL bus: memdevs, ports, decoders, regions and the DAX devices regions become.

`memdev`, `port`, `decoder`, `region` are the kernel's names of this boot; a memdev is known again by its serial
number and PCI function (`gpudaemon_cxl_memdev_info`).
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "DAX_INFO",
    "DAX_SIZE",
    "DECODER_INFO",
    "DECODER_SIZE",
    "MEMDEV_CAPACITY",
    "MEMDEV_INFO",
    "MEMDEV_SECURITY",
    "PORT_DECODERS",
    "PORT_INFO",
    "REGION_BANDWIDTH",
    "REGION_COMMITTED",
    "REGION_GRANULARITY",
    "REGION_INFO",
    "REGION_LATENCY",
    "REGION_MEMDEV_INFO",
    "REGION_SIZE",
    "REGION_WAYS",
]

_ABI = "Documentation/ABI/testing/sysfs-bus-cxl"

MEMDEV_INFO = Metric(
    name="gpudaemon_cxl_memdev_info",
    kind=Kind.INFO,
    help="Identity and place of a CXL memory device; endpoint is empty while no driver serves it.",
    labels=("memdev", "device", "serial", "firmware", "numa_node", "host_bridge", "port", "endpoint"),
    abi=f"{_ABI}: memX/serial, firmware_version, numa_node",
)
MEMDEV_CAPACITY = Metric(
    name="gpudaemon_cxl_memdev_capacity_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Capacity of a CXL memory device, volatile or persistent.",
    labels=("memdev", "type"),
    abi=f"{_ABI}: memX/ram/size, memX/pmem/size",
)
MEMDEV_SECURITY = Metric(
    name="gpudaemon_cxl_memdev_security_state",
    kind=Kind.STATESET,
    help="Security state of a CXL memory device; sanitize while its content is being erased.",
    labels=("memdev", "state"),
    abi=f"{_ABI}: memX/security/state",
)
PORT_INFO = Metric(
    name="gpudaemon_cxl_port_info",
    kind=Kind.INFO,
    help="A port of the CXL bus: root, port (of a host bridge or switch), endpoint; uport is the device it is.",
    labels=("port", "type", "parent", "uport", "parent_dport", "depth", "dports"),
    abi=f"{_ABI}: portX/uport, parent_dport, dportY",
)
PORT_DECODERS = Metric(
    name="gpudaemon_cxl_port_decoders_committed",
    kind=Kind.GAUGE,
    help="Decoders of a port that are in use.",
    labels=("port",),
    abi=f"{_ABI}: portX/decoders_committed, endpointX/decoders_committed",
)
DECODER_INFO = Metric(
    name="gpudaemon_cxl_decoder_info",
    kind=Kind.INFO,
    help="A decoder in use, or a root decoder, which is a window of host addresses.",
    labels=("decoder", "port", "mode", "region", "ways", "granularity", "targets", "capable"),
    abi=f"{_ABI}: decoderX.Y/mode, region, interleave_ways, interleave_granularity, target_list, cap_*",
)
DECODER_SIZE = Metric(
    name="gpudaemon_cxl_decoder_size_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Host addresses a decoder passes on.",
    labels=("decoder",),
    abi=f"{_ABI}: decoderX.Y/size",
)
REGION_INFO = Metric(
    name="gpudaemon_cxl_region_info",
    kind=Kind.INFO,
    help="A region: memory made of one or more memdevs; mode is ram or pmem.",
    labels=("region", "decoder", "mode", "uuid"),
    abi=f"{_ABI}: regionZ/mode, uuid",
)
REGION_MEMDEV_INFO = Metric(
    name="gpudaemon_cxl_region_memdev_info",
    kind=Kind.INFO,
    help="Which memdev stands at which position of a region.",
    labels=("region", "position", "memdev", "decoder"),
    abi=f"{_ABI}: regionZ/targetN",
)
REGION_SIZE = Metric(
    name="gpudaemon_cxl_region_size_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of a region.",
    labels=("region",),
    abi=f"{_ABI}: regionZ/size",
)
REGION_COMMITTED = Metric(
    name="gpudaemon_cxl_region_committed",
    kind=Kind.GAUGE,
    help="1 where the decoders of a region are programmed.",
    labels=("region",),
    abi=f"{_ABI}: regionZ/commit",
)
REGION_WAYS = Metric(
    name="gpudaemon_cxl_region_interleave_ways",
    kind=Kind.GAUGE,
    help="Memdevs a region is spread over.",
    labels=("region",),
    abi=f"{_ABI}: regionZ/interleave_ways",
)
REGION_GRANULARITY = Metric(
    name="gpudaemon_cxl_region_interleave_granularity_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Bytes of a region on one memdev before the next one's turn.",
    labels=("region",),
    abi=f"{_ABI}: regionZ/interleave_granularity",
)
_CLASS = "Access class 0 is for CPUs and other initiators, 1 for CPUs only."
REGION_BANDWIDTH = Metric(
    name="gpudaemon_cxl_region_bandwidth_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help=f"Bandwidth of a region as firmware states it. {_CLASS}",
    labels=("region", "direction", "access"),
    abi=f"{_ABI}: regionZ/accessY/read_bandwidth, write_bandwidth",
)
REGION_LATENCY = Metric(
    name="gpudaemon_cxl_region_latency_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help=f"Latency of a region as firmware states it. {_CLASS}",
    labels=("region", "direction", "access"),
    abi=f"{_ABI}: regionZ/accessY/read_latency, write_latency",
)
DAX_INFO = Metric(
    name="gpudaemon_cxl_dax_info",
    kind=Kind.INFO,
    help="A DAX device of a region; with driver kmem it is memory of node target_node.",
    labels=("dax", "region", "driver", "target_node"),
    abi="drivers/dax/bus.c: target_node",
)
DAX_SIZE = Metric(
    name="gpudaemon_cxl_dax_size_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of a DAX device of a region.",
    labels=("dax",),
    abi="drivers/dax/bus.c: size",
)
