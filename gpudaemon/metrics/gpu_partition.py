"""Rows of the partitions of a GPU: parts of one device, never further GPUs.

A partition is told by its number within the device, an engine by its instance within the partition.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

_TABLE = "drivers/gpu/drm/amd/include/kgd_pp_interface.h: amdgpu_xcp_metrics"

PARTITIONS = Metric(
    name="gpudaemon_gpu_partitions",
    kind=Kind.GAUGE,
    help="Compute partitions the GPU is divided into.",
    labels=("device",),
    abi="drivers/gpu/drm/amd/include/kgd_pp_interface.h: gpu_metrics, num_partition",
)
PARTITION_BUSY = Metric(
    name="gpudaemon_gpu_partition_busy_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Share of time an engine of a partition was busy, as the firmware averages it.",
    labels=("device", "partition", "engine", "instance"),
    abi=f"{_TABLE}, gfx_busy_inst, vcn_busy, jpeg_busy",
)
PARTITION_BUSY_TICKS = Metric(
    name="gpudaemon_gpu_partition_busy_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks of the firmware weighted with the share of each in which a die of a partition was busy.",
    labels=("device", "partition", "instance"),
    abi=f"{_TABLE}, gfx_busy_acc",
)
PARTITION_LIMITED_TICKS = Metric(
    name="gpudaemon_gpu_partition_limited_ticks_total",
    kind=Kind.COUNTER,
    help="What the firmware counts while the clock of a die is below the limit the host set, by reason.",
    labels=("device", "partition", "instance", "reason"),
    abi=f"{_TABLE}, gfx_below_host_limit_acc (any), _ppt_acc, _thm_acc, _total_acc, gfx_low_utilization_acc",
)
