"""Rows of fences that threads wait for: time blocked on a GPU, of any driver."""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = ["LOWER_BOUND", "WAITING", "WAITS", "WAIT_TIME"]

_TRACE = "include/trace/events/dma_fence.h: dma_fence_wait_start, dma_fence_wait_end"
_LABELS = ("owner", "driver")

WAITS = Metric(
    name="gpudaemon_dma_fence_waits_total",
    kind=Kind.COUNTER,
    help="Waits of threads for a fence that are over, by whom the thread works for and whose fence it is.",
    labels=_LABELS,
    abi=_TRACE,
)
WAIT_TIME = Metric(
    name="gpudaemon_dma_fence_wait_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time of threads spent waiting for fences; it grows while a wait goes on.",
    labels=_LABELS,
    abi=_TRACE,
)
WAITING = Metric(
    name="gpudaemon_dma_fence_waiting",
    kind=Kind.GAUGE,
    help="Threads that wait for a fence now.",
    labels=_LABELS,
    abi=_TRACE,
)
LOWER_BOUND = Metric(
    name="gpudaemon_dma_fence_lower_bound",
    kind=Kind.GAUGE,
    help="1 after events were overwritten before they were read, or had no room: counts are a lower bound.",
    abi="Documentation/trace/ftrace.rst: per_cpu/cpuN/stats, overrun",
)
