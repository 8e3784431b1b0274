"""Rows of the DRM scheduler: jobs of GPUs' rings, how long they wait and run, what hangs."""

from gpudaemon.model.metric import Kind, Metric, Unit, powers_of_two

__all__ = [
    "DEPENDENCY_WAIT",
    "FIRST_POWER",
    "HANGS",
    "HUNG",
    "JOBS_DONE",
    "JOBS_FAILED",
    "JOBS_QUEUED",
    "JOBS_RUN",
    "JOBS_UNMATCHED",
    "LAST_POWER",
    "LOWER_BOUND",
    "NO_PROGRESS",
    "ON_HARDWARE",
    "OWNER_JOBS",
    "OWNER_RUN",
    "OWNER_WAIT",
    "QUEUE_WAIT",
    "RING_BUSY",
    "RUN_TIME",
    "WAITING",
]

FIRST_POWER, LAST_POWER = 12, 34
"""Buckets: 2^12 ns (4 us) to 2^34 ns (17 s)."""

_TRACE = "drivers/gpu/drm/scheduler/gpu_scheduler_trace.h"
_CLEANUP = "drivers/gpu/drm/scheduler/sched_main.c: drm_sched_job_cleanup"
_RING = ("device", "ring")
_OWNER = ("device", "ring", "owner")
_TIMES = powers_of_two(FIRST_POWER, LAST_POWER)


def _counter(name: str, text: str, labels: tuple[str, ...], abi: str, unit: Unit = Unit.NONE) -> Metric:
    return Metric(
        name=f"gpudaemon_drm_sched_{name}_total",
        kind=Kind.COUNTER,
        unit=unit,
        help=text,
        labels=labels,
        abi=abi,
    )


def _gauge(name: str, text: str, labels: tuple[str, ...] = _RING, unit: Unit = Unit.NONE) -> Metric:
    return Metric(
        name=f"gpudaemon_drm_sched_{name}", kind=Kind.GAUGE, unit=unit, help=text, labels=labels, abi=_TRACE
    )


def _histogram(name: str, text: str) -> Metric:
    return Metric(
        name=f"gpudaemon_drm_sched_{name}_seconds",
        kind=Kind.HISTOGRAM,
        unit=Unit.SECONDS,
        help=text,
        labels=_RING,
        abi=f"{_CLEANUP}; {_TRACE}",
        buckets=_TIMES,
    )


JOBS_QUEUED = _counter("jobs_queued", "Jobs that were given to the scheduler, by ring.", _RING, _TRACE)
JOBS_RUN = _counter("jobs_run", "Jobs that were given to the hardware.", _RING, _TRACE)
JOBS_DONE = _counter("jobs_done", "Jobs that ended, failed ones included.", _RING, f"{_CLEANUP}; {_TRACE}")
JOBS_FAILED = _counter(
    "jobs_failed",
    "Jobs whose fence ended with an error: ETIME or ECANCELED (timeout), ESRCH (their process was killed). Not "
    "known where events are read.",
    ("device", "ring", "error"),
    f"{_CLEANUP}: s_fence->finished.error",
)
JOBS_UNMATCHED = _counter(
    "jobs_unmatched",
    "Jobs of which only a part was seen: begun before tracing, events lost, or dropped with their process.",
    (),
    _TRACE,
)
QUEUE_WAIT = _histogram(
    "queue_wait", "Time from submission until the hardware began the job, dependencies included."
)
RUN_TIME = _histogram("run", "Time the hardware took for a job, without the jobs before it on its ring.")
DEPENDENCY_WAIT = _histogram(
    "dependency_wait",
    "Time from when a job was next on its queue but had to wait for another's fence until it ran; only where "
    "events are read.",
)
WAITING = _gauge("jobs_waiting", "Jobs that are queued and not on the hardware.")
ON_HARDWARE = _gauge("jobs_on_hardware", "Jobs that the hardware has been given and has not finished.")
RING_BUSY = _counter(
    "ring_busy_seconds",
    "Time during which the ring had a job; where the kernel adds up, the sum of run times.",
    _RING,
    f"{_CLEANUP}; {_TRACE}",
    Unit.SECONDS,
)
HUNG = _gauge("hung", "1 while a job is on the hardware and none has ended for as long as tracing.hang.")
NO_PROGRESS = _gauge(
    "no_progress_seconds",
    "Time since a job last began or ended on a ring that has one on the hardware.",
    _RING,
    Unit.SECONDS,
)
HANGS = _counter("hangs", "Times a ring was found hung, whatever its driver did later.", _RING, _TRACE)
OWNER_JOBS = _counter(
    "owner_jobs_done", "Jobs that ended, by cgroup; only where events are read.", _OWNER, _TRACE
)
OWNER_RUN = _counter(
    "owner_run_seconds",
    "Run time of jobs, by cgroup; only where events are read.",
    _OWNER,
    _TRACE,
    Unit.SECONDS,
)
OWNER_WAIT = _counter(
    "owner_queue_wait_seconds",
    "Queue wait of jobs, by cgroup; only where events are read.",
    _OWNER,
    _TRACE,
    Unit.SECONDS,
)
LOWER_BOUND = _gauge(
    "lower_bound",
    "1 since events were lost or a map in the kernel was full: counts and times are at least what is shown.",
    (),
)
