"""Rows of what a GPU's firmware counts in ticks of its own: how long clocks were held down, engines busy.

The length of a tick is the firmware's affair: a share is the quotient of two of these counters' increases.
"""

from gpudaemon.model.metric import Kind, Metric

_TABLE = "drivers/gpu/drm/amd/include/kgd_pp_interface.h: gpu_metrics"

THROTTLED_TICKS = Metric(
    name="gpudaemon_gpu_throttled_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks of the firmware in which clocks were held down for this reason.",
    labels=("device", "domain", "cause", "reason"),
    abi=f"{_TABLE}, *_residency_acc, throttle_residency_*",
)
FIRMWARE_TICKS = Metric(
    name="gpudaemon_gpu_firmware_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks of the firmware: what throttled, busy and limited ticks are a share of.",
    labels=("device",),
    abi=f"{_TABLE}, accumulation_counter",
)
BUSY_TICKS = Metric(
    name="gpudaemon_gpu_busy_ticks_total",
    kind=Kind.COUNTER,
    help="Ticks of the firmware weighted with the share of each in which an engine was busy.",
    labels=("device", "engine"),
    abi=f"{_TABLE}, gfx_activity_acc, mem_activity_acc",
)
