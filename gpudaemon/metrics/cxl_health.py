"""Rows of the health of CXL memory devices, as they tell it themselves through their mailboxes.

`memdev` is the kernel's name of this boot, as in `gpudaemon.metrics.cxl`.
"""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "ALERT",
    "CORRECTED_ERRORS",
    "CORRECTED_ERRORS_THRESHOLD",
    "DIRTY_SHUTDOWNS",
    "FIRMWARE_INFO",
    "HEALTH_STATUS",
    "LIFE_USED",
    "LIFE_USED_THRESHOLD",
    "MEDIA_STATUS",
    "SHUTDOWN_DIRTY",
    "TEMPERATURE",
    "TEMPERATURE_THRESHOLD",
]

_HEALTH = "CXL 3.1, 8.2.9.9.3.1, Get Health Info"
_ALERTS = "CXL 3.1, 8.2.9.9.3.2, Get Alert Configuration"

HEALTH_STATUS = Metric(
    name="gpudaemon_cxl_memdev_health_status",
    kind=Kind.STATESET,
    help="What a CXL memory device says of its health; several may hold. No 1 is good.",
    labels=("memdev", "status"),
    abi=f"{_HEALTH}: Health Status",
)
MEDIA_STATUS = Metric(
    name="gpudaemon_cxl_memdev_media_status",
    kind=Kind.STATESET,
    help="Whether the content of a CXL memory device is and will be kept.",
    labels=("memdev", "state"),
    abi=f"{_HEALTH}: Media Status",
)
ALERT = Metric(
    name="gpudaemon_cxl_memdev_alert_level",
    kind=Kind.STATESET,
    help="Level of each alert of a CXL memory device: normal, warning, critical.",
    labels=("memdev", "alert", "level"),
    abi=f"{_HEALTH}: Additional Status",
)
LIFE_USED = Metric(
    name="gpudaemon_cxl_memdev_life_used_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Share of its life that a CXL memory device has used.",
    labels=("memdev",),
    abi=f"{_HEALTH}: Life Used",
)
TEMPERATURE = Metric(
    name="gpudaemon_cxl_memdev_temperature_celsius",
    kind=Kind.GAUGE,
    unit=Unit.CELSIUS,
    help="Temperature of a CXL memory device.",
    labels=("memdev",),
    abi=f"{_HEALTH}: Device Temperature",
)
DIRTY_SHUTDOWNS = Metric(
    name="gpudaemon_cxl_memdev_dirty_shutdowns_total",
    kind=Kind.COUNTER,
    help="Shutdowns in a CXL memory device's life by which content may have been lost.",
    labels=("memdev",),
    abi=f"{_HEALTH}: Dirty Shutdown Count",
)
CORRECTED_ERRORS = Metric(
    name="gpudaemon_cxl_memdev_corrected_errors_total",
    kind=Kind.COUNTER,
    help="Memory errors that a CXL memory device has corrected, volatile or persistent memory.",
    labels=("memdev", "type"),
    abi=f"{_HEALTH}: Corrected Volatile Error Count, Corrected Persistent Error Count",
)
LIFE_USED_THRESHOLD = Metric(
    name="gpudaemon_cxl_memdev_life_used_threshold_ratio",
    kind=Kind.GAUGE,
    unit=Unit.RATIO,
    help="Used share of its life from which a CXL memory device warns, or is critical.",
    labels=("memdev", "level"),
    abi=_ALERTS,
)
TEMPERATURE_THRESHOLD = Metric(
    name="gpudaemon_cxl_memdev_temperature_threshold_celsius",
    kind=Kind.GAUGE,
    unit=Unit.CELSIUS,
    help="Temperature above (direction over) or below which a CXL memory device warns, or is critical.",
    labels=("memdev", "direction", "level"),
    abi=_ALERTS,
)
CORRECTED_ERRORS_THRESHOLD = Metric(
    name="gpudaemon_cxl_memdev_corrected_errors_threshold",
    kind=Kind.GAUGE,
    help="Corrected errors from which a CXL memory device warns.",
    labels=("memdev", "type"),
    abi=_ALERTS,
)
SHUTDOWN_DIRTY = Metric(
    name="gpudaemon_cxl_memdev_shutdown_state_dirty",
    kind=Kind.GAUGE,
    help="1 while a power loss would count as a dirty shutdown, which is so while persistent memory is in use.",
    labels=("memdev",),
    abi="CXL 3.1, 8.2.9.9.3.4, Get Shutdown State",
)
FIRMWARE_INFO = Metric(
    name="gpudaemon_cxl_memdev_firmware_info",
    kind=Kind.INFO,
    help="Firmware in each slot of a CXL memory device; staged is what runs after the next reset.",
    labels=("memdev", "slot", "version", "active", "staged"),
    abi="CXL 3.1, 8.2.9.3.1, Get FW Info",
)
