"""Rows that only NVIDIA's driver and its management library fill; what any GPU can have is in `metrics.gpu`.

Sources are files of /proc/driver/nvidia and functions of NVML (nvml.h, docs.nvidia.com/deploy/nvml-api). A MIG
device is a slice of a GPU: it is told apart by labels and is never one more GPU.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

_DEVICE = ("device",)
_MIG = ("device", "gpu_instance", "compute_instance")


def _gauge(name: str, unit: Unit, text: str, labels: tuple[str, ...], function: str) -> Metric:
    return Metric(
        name=f"gpudaemon_gpu_{name}",
        kind=Kind.GAUGE,
        unit=unit,
        help=text,
        labels=labels,
        abi=f"NVML: nvmlDevice{function}",
    )


def _counter(name: str, unit: Unit, text: str, labels: tuple[str, ...], function: str) -> Metric:
    return Metric(
        name=f"gpudaemon_gpu_{name}_total",
        kind=Kind.COUNTER,
        unit=unit,
        help=text,
        labels=labels,
        abi=f"NVML: nvmlDevice{function}",
    )


DRIVER_INFO = Metric(
    name="gpudaemon_gpu_driver_info",
    kind=Kind.INFO,
    help="Version of the driver that serves the GPU, and of the firmware it gave it.",
    labels=("device", "version", "firmware"),
    abi="/proc/driver/nvidia/version, /proc/driver/nvidia/gpus/*/information",
)
MEMORY_NUMA_NODE = Metric(
    name="gpudaemon_gpu_memory_numa_node",
    kind=Kind.GAUGE,
    help="NUMA node that is the GPU's memory, on platforms where that is memory of the system.",
    labels=_DEVICE,
    abi="/proc/driver/nvidia/gpus/*/numa_status",
)
MEMORY_NUMA_STATE = Metric(
    name="gpudaemon_gpu_memory_numa_state",
    kind=Kind.STATESET,
    help="Whether the GPU's memory is online as a NUMA node.",
    labels=("device", "state"),
    abi="/proc/driver/nvidia/gpus/*/numa_status",
)
NVML_INFO = Metric(
    name="gpudaemon_gpu_nvml_info",
    kind=Kind.INFO,
    help="Identity of an NVIDIA GPU as NVML tells it: names, serial numbers and versions.",
    labels=(
        "device",
        "name",
        "uuid",
        "serial_number",
        "part_number",
        "vbios_version",
        "driver_version",
        "nvml_version",
    ),
    abi="NVML: nvmlDeviceGetName, GetUUID, GetSerial, GetBoardPartNumber, GetVbiosVersion",
)
MEMORY_RESERVED = _gauge(
    "memory_reserved_bytes",
    Unit.BYTES,
    "Memory that the driver and the firmware keep for themselves; no part of what is used.",
    ("device", "pool"),
    "GetMemoryInfo_v2",
)
PERFORMANCE_STATE = _gauge(
    "performance_state", Unit.NONE, "0 is the fastest, 15 the slowest.", _DEVICE, "GetPerformanceState"
)
PERSISTENCE_MODE = _gauge(
    "persistence_mode",
    Unit.NONE,
    "1 where the driver keeps the GPU initialised while nobody uses it.",
    _DEVICE,
    "GetPersistenceMode",
)
ECC_ENABLED = _gauge("ecc_enabled", Unit.NONE, "1 while memory errors are corrected.", _DEVICE, "GetEccMode")
LIFETIME_ERRORS = _counter(
    "lifetime_errors",
    Unit.NONE,
    "Memory errors in the life of the GPU, kept on the board.",
    ("device", "severity"),
    "GetTotalEccErrors, NVML_AGGREGATE_ECC",
)
REMAPPED_ROWS = _gauge(
    "remapped_rows",
    Unit.NONE,
    "Rows of memory replaced by spare ones after errors that were corrected or not.",
    ("device", "severity"),
    "GetRemappedRows",
)
RETIRED_PAGES = _gauge(
    "retired_pages",
    Unit.NONE,
    "Pages of memory taken out of use, by cause: single_bit (several corrected errors), double_bit.",
    ("device", "cause"),
    "GetRetiredPages",
)
PCIE_BYTES = _counter(
    "pcie_bytes",
    Unit.BYTES,
    "Bytes over PCIe, as the GPU counts them.",
    ("device", "direction"),
    "GetFieldValues, NVML_FI_DEV_PCIE_COUNT_TX_BYTES, _RX_BYTES",
)
PCIE_THROUGHPUT = _gauge(
    "pcie_bytes_per_second",
    Unit.BYTES_PER_SECOND,
    "Bytes a second over PCIe in the last 20 ms, for GPUs that do not count them.",
    ("device", "direction"),
    "GetPcieThroughput",
)
NVLINK_BYTES = _counter(
    "nvlink_bytes",
    Unit.BYTES,
    "Data over all NVLinks of the GPU, without protocol.",
    ("device", "direction"),
    "GetFieldValues, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _RX",
)
NVLINK_UP = _gauge("nvlink_up", Unit.NONE, "1 while the link is up.", ("device", "link"), "GetNvLinkState")
NVLINK_ERRORS = _counter(
    "nvlink_errors",
    Unit.NONE,
    "Errors of an NVLink: replay, recovery, crc_flit, crc_data, ecc_data.",
    ("device", "link", "error"),
    "GetNvLinkErrorCounter",
)
MIG_ENABLED = _gauge("mig_enabled", Unit.NONE, "1 where the GPU is divided by MIG.", _DEVICE, "GetMigMode")
MIG_INFO = Metric(
    name="gpudaemon_gpu_mig_info",
    kind=Kind.INFO,
    help="A MIG device: a slice of the GPU in `device`, not one more GPU.",
    labels=(*_MIG, "uuid", "name"),
    abi="NVML: nvmlDeviceGetMigDeviceHandleByIndex",
)
MIG_MULTIPROCESSORS = _gauge(
    "mig_multiprocessors", Unit.NONE, "Streaming multiprocessors of a MIG device.", _MIG, "GetAttributes_v2"
)
MIG_MEMORY_USED = _gauge(
    "mig_memory_used_bytes", Unit.BYTES, "Memory in use in a MIG device.", _MIG, "GetMemoryInfo"
)
MIG_MEMORY_TOTAL = _gauge(
    "mig_memory_total_bytes", Unit.BYTES, "Memory of a MIG device.", _MIG, "GetMemoryInfo"
)
