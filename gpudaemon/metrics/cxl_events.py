"""Rows of what CXL memory devices and ports report by themselves, as the kernel traces it.

`device` is the PCI function, `memdev` the kernel's name of this boot, empty for a port.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = ["EVENTS", "LAST_SEEN", "LOWER_BOUND", "OVERFLOWED", "PROTOCOL_ERRORS"]

_TRACE = "drivers/cxl/core/trace.h"

EVENTS = Metric(
    name="gpudaemon_cxl_events_total",
    kind=Kind.COUNTER,
    help=(
        "Events of a CXL device. severity is the log it stood in, or corrected and uncorrected of the link's "
        "errors; type and transaction_type are empty for events that have none."
    ),
    labels=("device", "memdev", "event", "severity", "type", "transaction_type"),
    abi=_TRACE,
)
LAST_SEEN = Metric(
    name="gpudaemon_cxl_event_last_seen_timestamp_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="When the last such event was traced.",
    labels=("device", "memdev", "event", "severity"),
    abi=_TRACE,
)
PROTOCOL_ERRORS = Metric(
    name="gpudaemon_cxl_protocol_errors_total",
    kind=Kind.COUNTER,
    help="Errors in the RAS status of CXL.cachemem; an event may hold several.",
    labels=("device", "memdev", "severity", "error"),
    abi=f"{_TRACE}: cxl_aer_correctable_error, cxl_aer_uncorrectable_error, cxl_port_aer_*: status",
)
OVERFLOWED = Metric(
    name="gpudaemon_cxl_events_overflowed_total",
    kind=Kind.COUNTER,
    help="Events a CXL memory device had no room for in its log: the kernel never saw them.",
    labels=("device", "memdev", "severity"),
    abi=f"{_TRACE}: cxl_overflow: count",
)
LOWER_BOUND = Metric(
    name="gpudaemon_cxl_events_lower_bound",
    kind=Kind.GAUGE,
    help="1 after events were overwritten before they were read, or had no room: counts are a lower bound.",
    abi="Documentation/trace/ftrace.rst: per_cpu/cpuN/stats, overrun",
)
