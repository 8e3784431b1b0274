"""Rows of requests of i915, which has a scheduler of its own: see `gpudaemon.metrics.drm_sched` for all others.

`card` is the device's primary node, as in `gpudaemon_gpu_info`; `engine` as in its perf counters.
"""

from gpudaemon.model.metric import Kind, Metric, Unit, powers_of_two

__all__ = [
    "ADDED",
    "FIRST_POWER",
    "IN_FLIGHT",
    "LAST_POWER",
    "LOWER_BOUND",
    "RETIRED",
    "RUN_TIME",
    "UNTIL_RETIRED",
    "WAITS",
    "WAIT_TIME",
]

FIRST_POWER, LAST_POWER = 12, 34
_TRACE = "drivers/gpu/drm/i915/i915_trace.h"
_ENGINE = ("card", "engine")
_TIMES = powers_of_two(FIRST_POWER, LAST_POWER)

ADDED = Metric(
    name="gpudaemon_i915_requests_added_total",
    kind=Kind.COUNTER,
    help="Requests given to an engine's scheduler, those of the driver itself included.",
    labels=_ENGINE,
    abi=f"{_TRACE}: i915_request_add",
)
RETIRED = Metric(
    name="gpudaemon_i915_requests_retired_total",
    kind=Kind.COUNTER,
    help="Requests the driver has found to be finished.",
    labels=_ENGINE,
    abi=f"{_TRACE}: i915_request_retire",
)
IN_FLIGHT = Metric(
    name="gpudaemon_i915_requests_in_flight",
    kind=Kind.GAUGE,
    help="Requests that were added and are not retired.",
    labels=_ENGINE,
    abi=_TRACE,
)
UNTIL_RETIRED = Metric(
    name="gpudaemon_i915_request_retired_after_seconds",
    kind=Kind.HISTOGRAM,
    unit=Unit.SECONDS,
    help=(
        "From the adding of a request until it was retired: waiting, running, and until the driver looked, "
        "which may be long after."
    ),
    labels=_ENGINE,
    abi=_TRACE,
    buckets=_TIMES,
)
RUN_TIME = Metric(
    name="gpudaemon_i915_request_run_seconds",
    kind=Kind.HISTOGRAM,
    unit=Unit.SECONDS,
    help=(
        "Time of a request on the hardware, of several turns where it was preempted; only of kernels with "
        "CONFIG_DRM_I915_LOW_LEVEL_TRACEPOINTS."
    ),
    labels=_ENGINE,
    abi=f"{_TRACE}: i915_request_in, i915_request_out",
    buckets=_TIMES,
)
WAITS = Metric(
    name="gpudaemon_i915_request_waits_total",
    kind=Kind.COUNTER,
    help="Waits of threads for a request that are over.",
    labels=_ENGINE,
    abi=f"{_TRACE}: i915_request_wait_begin, i915_request_wait_end",
)
WAIT_TIME = Metric(
    name="gpudaemon_i915_request_wait_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time of threads spent waiting for requests, of waits that are over.",
    labels=_ENGINE,
    abi=f"{_TRACE}: i915_request_wait_begin, i915_request_wait_end",
)
LOWER_BOUND = Metric(
    name="gpudaemon_i915_requests_lower_bound",
    kind=Kind.GAUGE,
    help="1 after events were overwritten before they were read, or had no room: counts are a lower bound.",
    abi="Documentation/trace/ftrace.rst: per_cpu/cpuN/stats, overrun",
)
