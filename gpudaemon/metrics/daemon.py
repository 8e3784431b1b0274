"""Rows of the daemon about itself and about how it stands with each device.

Sources here are this program's own counters; where a kernel limit is meant, `abi` names it.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "ATTRIBUTE_PERIOD",
    "ATTRIBUTE_READ_SECONDS",
    "BUILD_INFO",
    "CALLS",
    "CALL_CPU",
    "CALL_HANGS",
    "CALL_INFO",
    "CALL_RESTARTS",
    "CALL_SECONDS",
    "CALL_STATE",
    "CALL_UP",
    "CONFIG_RELOAD_SUCCESS",
    "CONFIG_RELOAD_TIMESTAMP",
    "DATA_AGE",
    "DECODER_FAILURES",
    "DEVICES",
    "DEVICE_HEALTH",
    "DEVICE_MISSING",
    "DEVICE_STATE",
    "ENGINE_INFO",
    "HANGS",
    "HTTP_HANDSHAKES_FAILED",
    "HTTP_REQUESTS",
    "KERNEL_LOG_LOST",
    "KERNEL_LOG_RECORDS",
    "KERNEL_LOG_UP",
    "MALFORMED",
    "OVERFLOW",
    "PAUSED",
    "PROCESS_CPU",
    "PROCESS_DESCRIPTORS",
    "PROCESS_RESIDENT",
    "PROCESS_THREADS",
    "READER_CPU",
    "READER_RESTARTS",
    "READER_UP",
    "READS",
    "READS_IN_FLIGHT",
    "READ_SECONDS",
    "RECORDS_DROPPED",
    "RESCANS",
    "ROWS_DROPPED",
    "SCOUT_CPU",
    "SCOUT_DENIED",
    "SCOUT_EVENTS",
    "SCOUT_PROCESSES",
    "SCOUT_RESTARTS",
    "SCOUT_UP",
    "SCOUT_WORK",
    "SCRAPES_IN_FLIGHT",
    "SCRAPE_SECONDS",
    "SERIES_DROPPED",
    "STUCK_LANES",
    "STUCK_READER_PROCESSES",
    "STUCK_READ_AGE",
    "SUSPENDED_SEEN",
    "TASK_RESTARTS",
    "TICKS_MISSED",
    "TRACER_CPU",
    "TRACER_EVENTS",
    "TRACER_INFO",
    "TRACER_LOST",
    "TRACER_MALFORMED",
    "TRACER_RESTARTS",
    "TRACER_SERIES_DROPPED",
    "TRACER_STATE",
    "TRACER_UP",
    "UEVENTS",
    "UEVENTS_LOST",
    "WORKERS",
    "WORKER_LIMIT",
]

_OWN = "the daemon itself"


def _counter(name: str, text: str, labels: tuple[str, ...] = (), unit: Unit = Unit.NONE) -> Metric:
    return Metric(
        name=f"gpudaemon_{name}_total", kind=Kind.COUNTER, unit=unit, help=text, labels=labels, abi=_OWN
    )


def _gauge(
    name: str, text: str, labels: tuple[str, ...] = (), unit: Unit = Unit.NONE, abi: str = _OWN
) -> Metric:
    return Metric(name=f"gpudaemon_{name}", kind=Kind.GAUGE, unit=unit, help=text, labels=labels, abi=abi)


DEVICE_STATE = Metric(
    name="gpudaemon_device_state",
    kind=Kind.STATESET,
    help="How the daemon stands with the device: ok, suspended or resting (left asleep), hung, gone, denied, "
    "stale (no fresh data for another reason).",
    labels=("device", "state"),
    abi=_OWN,
)
DEVICE_HEALTH = Metric(
    name="gpudaemon_device_health",
    kind=Kind.STATESET,
    help="Verdict about a GPU, missing ones included: ok, degraded (works, but not as it should), "
    "failed (not to be used), unknown (no fresh data to judge by). `gpudaemon health` says why.",
    labels=("device", "state"),
    abi=_OWN,
    otel="hw.status",
)
DEVICE_MISSING = _gauge("device_missing", "1 for a device that was here and is not any more.", ("device",))
DATA_AGE = _gauge("device_data_age_seconds", "Age of the newest reading.", ("device",), Unit.SECONDS)
DEVICES = _gauge("daemon_devices", "Devices in the inventory.", ("kind",))
SUSPENDED_SEEN = _counter(
    "device_left_suspended_seconds",
    "Time during which the daemon saw the device asleep and left it alone.",
    ("device",),
    Unit.SECONDS,
)

READS = _counter("daemon_reads", "Reads of kernel files by outcome.", ("device", "outcome"))
READ_SECONDS = _counter("daemon_read_seconds", "Time spent in reads.", ("device",), Unit.SECONDS)
HANGS = _counter("daemon_hangs", "Reads that passed their deadline.", ("device",))
STUCK_READ_AGE = _gauge(
    "daemon_stuck_read_age_seconds",
    "Age of a read that the kernel has not given back, by file.",
    ("device", "attribute"),
    Unit.SECONDS,
)
ATTRIBUTE_PERIOD = _gauge(
    "daemon_attribute_period_seconds",
    "Period of a file that was moved to a slower cadence of its own because its reads are slow.",
    ("device", "attribute"),
    Unit.SECONDS,
)
ATTRIBUTE_READ_SECONDS = _gauge(
    "daemon_attribute_read_seconds",
    "Time the last read of a slow file took.",
    ("device", "attribute"),
    Unit.SECONDS,
)
MALFORMED = _counter(
    "daemon_malformed", "Readings whose content does not have the documented format.", ("device", "reason")
)
DECODER_FAILURES = _counter("daemon_decoder_failures", "Failed decoders: a bug, please report.", ("device",))
ROWS_DROPPED = _counter("daemon_rows_dropped", "Rows beyond the bound of one file.", ("device",))
TICKS_MISSED = _counter(
    "daemon_ticks_missed", "Readings lost because the server was late to take them.", ("device",)
)

CALL_STATE = Metric(
    name="gpudaemon_daemon_call_state",
    kind=Kind.STATESET,
    help="How calls of a kind stand with the device; the words are those of gpudaemon_device_state, which is "
    "hung as well where a call is.",
    labels=("device", "call", "state"),
    abi=_OWN,
)
CALLS = _counter(
    "daemon_calls",
    "Calls by outcome: ioctls, library functions, counters, netlink requests.",
    ("device", "call", "outcome"),
)
CALL_SECONDS = _counter("daemon_call_seconds", "Time spent in calls.", ("device", "call"), Unit.SECONDS)
CALL_HANGS = _counter("daemon_call_hangs", "Calls that passed their deadline.", ("device", "call"))
CALL_INFO = Metric(
    name="gpudaemon_daemon_call_info",
    kind=Kind.INFO,
    help="What calls of a kind are made with.",
    labels=("call", "library"),
    abi=_OWN,
)
CALL_UP = _gauge("daemon_call_up", "1 while the process that makes calls of a kind answers.", ("call",))
CALL_RESTARTS = _counter(
    "daemon_call_restarts",
    "Processes of calls replaced: hung (a call did not come back), died (the library ended it), silent.",
    ("call", "reason"),
)
CALL_CPU = _counter(
    "daemon_call_cpu_seconds", "CPU time of the process that makes calls of a kind.", ("call",), Unit.SECONDS
)

ENGINE_INFO = Metric(
    name="gpudaemon_daemon_engine_info",
    kind=Kind.INFO,
    help="The engine that reads, and why it was chosen.",
    labels=("engine", "reason"),
    abi=_OWN,
)
BUILD_INFO = Metric(
    name="gpudaemon_build_info",
    kind=Kind.INFO,
    help="Version of the daemon and of its interpreter.",
    labels=("version", "python"),
    abi=_OWN,
)
READER_UP = _gauge("daemon_reader_up", "1 while the reader process answers.")
READER_RESTARTS = _counter("daemon_reader_restarts", "Readers replaced, by reason.", ("reason",))
READER_CPU = _counter(
    "daemon_reader_cpu_seconds",
    "CPU time of the reader, its kernel workers included.",
    (),
    Unit.SECONDS,
)
READS_IN_FLIGHT = _gauge("daemon_reads_in_flight", "Reads begun and not yet returned.")
WORKERS = _gauge("daemon_reader_workers", "Workers in use: kernel workers of io_uring, or threads.")
WORKER_LIMIT = _gauge(
    "daemon_reader_worker_limit",
    "Most io_uring kernel workers there can be, as read back from the kernel.",
    ("class",),
    abi="io_uring_register(2), IORING_REGISTER_IOWQ_MAX_WORKERS",
)
STUCK_LANES = _gauge("daemon_stuck_lanes", "Devices quarantined because a read has not returned.")
STUCK_READER_PROCESSES = _gauge(
    "daemon_stuck_reader_processes", "Former readers that cannot end because a driver holds one of their reads."
)
OVERFLOW = _gauge("daemon_completion_overflow", "1 if io_uring completions ever found no room.")
RECORDS_DROPPED = _counter("daemon_records_dropped", "Records the reader could not send to a late server.")

SCOUT_UP = _gauge("daemon_scout_up", "1 while the process that looks at processes is there.")
SCOUT_RESTARTS = _counter("daemon_scout_restarts", "Scouts replaced, by reason.", ("reason",))
SCOUT_CPU = _counter("daemon_scout_cpu_seconds", "CPU time of the present scout.", (), Unit.SECONDS)
SCOUT_PROCESSES = _gauge("daemon_scout_processes", "Processes of the host that the scout knows.")
SCOUT_DENIED = _gauge(
    "daemon_scout_processes_denied",
    "Processes whose descriptors may not be looked at: other users' in tier base.",
)
SCOUT_EVENTS = _gauge(
    "daemon_scout_process_events",
    "1 where the kernel tells of new processes, 0 where names in /proc are compared.",
)
SCOUT_WORK = _counter(
    "daemon_scout_work",
    "What the scout did: listed /proc, asked all processes for their number of descriptors, looked at one's.",
    ("kind",),
)

TRACER_UP = _gauge("daemon_tracer_up", "1 while the process that traces is there.")
TRACER_RESTARTS = _counter("daemon_tracer_restarts", "Tracers replaced, by reason.", ("reason",))
TRACER_CPU = _counter("daemon_tracer_cpu_seconds", "CPU time of all tracers there were.", (), Unit.SECONDS)
TRACER_STATE = Metric(
    name="gpudaemon_daemon_tracer_state",
    kind=Kind.STATESET,
    help="How a subject of tracing stands: armed, denied (no right), absent (no such events now), refused (by "
    "the kernel), off. `gpudaemon check` says what a host lacks.",
    labels=("subject", "state"),
    abi=_OWN,
)
TRACER_INFO = Metric(
    name="gpudaemon_daemon_tracer_info",
    kind=Kind.INFO,
    help="How a subject is watched, and why not in a better way.",
    labels=("subject", "recipe", "reason"),
    abi=_OWN,
)
TRACER_EVENTS = _counter("daemon_tracer_events", "Trace events read from the ring buffers.")
TRACER_LOST = _counter(
    "daemon_tracer_events_lost",
    "Trace events overwritten before they were read; at least so many where the kernel gives no number.",
)
TRACER_MALFORMED = _counter(
    "daemon_tracer_malformed", "Pages, records and histograms without the documented format."
)
TRACER_SERIES_DROPPED = _gauge(
    "daemon_tracer_series_dropped",
    "Series of a subject beyond metric.limit, which are not served.",
    ("subject",),
)

KERNEL_LOG_UP = _gauge(
    "daemon_kernel_log_up",
    "1 while the kernel's log is read for trouble.",
    abi="Documentation/ABI/testing/dev-kmsg",
)
KERNEL_LOG_RECORDS = _counter("daemon_kernel_log_records", "Records of the kernel's log that were read.")
KERNEL_LOG_LOST = _counter(
    "daemon_kernel_log_lost", "Records of the kernel's log that were overwritten before they were read."
)

UEVENTS = _counter("daemon_uevents", "Kernel events received, by subsystem.", ("subsystem",))
UEVENTS_LOST = _counter("daemon_uevents_lost", "Times the kernel dropped events; each causes a rescan.")
RESCANS = _counter("daemon_rescans", "Scans of sysfs, by reason.", ("reason",))
TASK_RESTARTS = _counter("daemon_task_restarts", "Tasks that failed and were started again.", ("task",))

CONFIG_RELOAD_SUCCESS = _gauge(
    "daemon_config_reload_success", "1 if the configuration could be used when it was last read."
)
CONFIG_RELOAD_TIMESTAMP = _gauge(
    "daemon_config_reload_timestamp_seconds",
    "Unix time at which the configuration was last used.",
    (),
    Unit.SECONDS,
)
PAUSED = _gauge("daemon_paused", "1 while reading is paused by `gpudaemon pause`.")
SERIES_DROPPED = _gauge(
    "daemon_series_dropped", "Series of the device beyond metric.limit, which are not served.", ("device",)
)

PROCESS_CPU = _counter(
    "daemon_process_cpu_seconds", "CPU time of each process of the daemon.", ("process",), Unit.SECONDS
)
PROCESS_RESIDENT = _gauge(
    "daemon_process_resident_bytes", "Resident memory of each process.", ("process",), Unit.BYTES
)
PROCESS_THREADS = _gauge(
    "daemon_process_threads", "Threads of each process, kernel workers included.", ("process",)
)
PROCESS_DESCRIPTORS = _gauge(
    "daemon_process_open_descriptors", "Open descriptors of each process that may be looked at.", ("process",)
)
HTTP_REQUESTS = _counter("daemon_http_requests", "HTTP requests answered, by status code.", ("code",))
HTTP_HANDSHAKES_FAILED = _counter(
    "daemon_http_handshakes_failed", "Connections that ended before they were one, where TLS is spoken."
)
SCRAPES_IN_FLIGHT = _gauge("daemon_scrapes_in_flight", "Scrapes being answered.")
SCRAPE_SECONDS = _counter("daemon_scrape_seconds", "Time spent rendering pages.", (), Unit.SECONDS)
