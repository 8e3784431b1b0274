"""Rows of the performance counters of CXL memory devices (CPMU). They count while the daemon has them open."""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = ["EVENTS", "TRAFFIC"]

_PMU = "Documentation/admin-guide/perf/cxl.rst"

EVENTS = Metric(
    name="gpudaemon_cxl_pmu_events_total",
    kind=Kind.COUNTER,
    help="What a performance monitoring unit of a CXL memory device counted: clocks and messages of CXL.mem.",
    labels=("memdev", "pmu", "event"),
    abi=f"{_PMU}: cxl_pmu_memX.Y/events",
)
TRAFFIC = Metric(
    name="gpudaemon_cxl_memdev_traffic_bytes_total",
    kind=Kind.COUNTER,
    unit=Unit.BYTES,
    help="Data over CXL.mem, 64 bytes a message: read is sent to the host, write comes from it.",
    labels=("memdev", "pmu", "direction"),
    abi=f"{_PMU}: s2m_drs_memdata, m2s_rwd_memwr",
)
