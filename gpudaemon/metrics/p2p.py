"""Rows of peer-to-peer DMA: who can reach whom without the CPU, over what, how fast, and memory to share."""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "ACS_REDIRECT",
    "BAR_SIZE",
    "CEILING",
    "DISTANCE",
    "LINK_CEILING",
    "LINK_DOWNGRADED",
    "MEMORY_AVAILABLE",
    "MEMORY_PUBLISHED",
    "MEMORY_SIZE",
    "PAIRS_LEFT_OUT",
    "PATH_INFO",
    "REACHABLE",
    "WHOLE_MEMORY_REACHABLE",
]

_RULES = "drivers/pci/p2pdma.c"
_P2PMEM = "Documentation/ABI/testing/sysfs-bus-pci: p2pmem"
_CONFIG = "Documentation/ABI/testing/sysfs-bus-pci: config"
_RESOURCE = "Documentation/ABI/testing/sysfs-bus-pci: resource"
_LINK = "Documentation/ABI/testing/sysfs-bus-pci: current_link_width, max_link_width, max_link_speed"

REACHABLE = Metric(
    name="gpudaemon_p2p_reachable",
    kind=Kind.GAUGE,
    help=(
        "1 where the kernel's rules let the two functions reach each other's memory without the CPU, 0 where "
        "they do not; no sample where that is not known. A driver may still refuse."
    ),
    labels=("src", "dst"),
    abi=f"{_RULES}: calc_map_type_and_dist",
)
PATH_INFO = Metric(
    name="gpudaemon_p2p_path_info",
    kind=Kind.INFO,
    help=(
        "The way between two functions: path as nvidia-smi topo names it (PIX, PXB, PHB, NODE, SYS), mapping "
        "as the kernel does (bus_addr, thru_host_bridge, not_supported, unknown), and why that mapping."
    ),
    labels=("src", "dst", "path", "mapping", "reason"),
    abi=f"{_RULES}: enum pci_p2pdma_map_type",
)
DISTANCE = Metric(
    name="gpudaemon_p2p_distance",
    kind=Kind.GAUGE,
    help="Steps between two functions in the tree of bridges, as the kernel counts them.",
    labels=("src", "dst"),
    abi=f"{_RULES}: pci_p2pdma_distance_many",
)
CEILING = Metric(
    name="gpudaemon_p2p_ceiling_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help=(
        "What the narrowest PCI Express link between two functions carries one way, line encoding taken off: "
        "its best speed over the lanes it uses."
    ),
    labels=("src", "dst"),
    abi=_LINK,
)
PAIRS_LEFT_OUT = Metric(
    name="gpudaemon_p2p_pairs_left_out",
    kind=Kind.GAUGE,
    help="Pairs of functions that are not shown because there are too many.",
    abi=_RULES,
)

LINK_CEILING = Metric(
    name="gpudaemon_pcie_link_ceiling_bytes_per_second",
    kind=Kind.GAUGE,
    unit=Unit.BYTES_PER_SECOND,
    help="What the link above a function carries one way: the best speed of both ends over the lanes in use.",
    labels=("device",),
    abi=_LINK,
)
LINK_DOWNGRADED = Metric(
    name="gpudaemon_pcie_link_downgraded",
    kind=Kind.GAUGE,
    help="1 where the link above a function uses fewer lanes than both of its ends have.",
    labels=("device",),
    abi=_LINK,
)
ACS_REDIRECT = Metric(
    name="gpudaemon_pci_acs_redirect",
    kind=Kind.GAUGE,
    help=(
        "1 where Access Control Services of the function send requests between peers up to the root complex; "
        "no sample where the function has none or it could not be read (CAP_SYS_ADMIN)."
    ),
    labels=("device",),
    abi=f"{_CONFIG}; include/uapi/linux/pci_regs.h: PCI_ACS_CTRL",
)
BAR_SIZE = Metric(
    name="gpudaemon_pci_bar_size_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Size of a memory region of the function.",
    labels=("device", "bar"),
    abi=_RESOURCE,
)
WHOLE_MEMORY_REACHABLE = Metric(
    name="gpudaemon_gpu_memory_whole_in_bar",
    kind=Kind.GAUGE,
    help="1 where a region of the GPU is as large as its memory, so that peers can reach all of it; else 0.",
    labels=("device",),
    abi=_RESOURCE,
)

MEMORY_SIZE = Metric(
    name="gpudaemon_p2p_memory_size_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="Memory of the function that drivers may hand to peers, such as the CMB of an NVMe drive.",
    labels=("device",),
    abi=f"{_P2PMEM}/size",
)
MEMORY_AVAILABLE = Metric(
    name="gpudaemon_p2p_memory_available_bytes",
    kind=Kind.GAUGE,
    unit=Unit.BYTES,
    help="What of that memory is not allocated.",
    labels=("device",),
    abi=f"{_P2PMEM}/available",
)
MEMORY_PUBLISHED = Metric(
    name="gpudaemon_p2p_memory_published",
    kind=Kind.GAUGE,
    help="1 where others than the driver of the function may allocate it.",
    labels=("device",),
    abi=f"{_P2PMEM}/published",
)
