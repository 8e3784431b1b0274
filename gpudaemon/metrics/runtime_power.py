"""Rows of runtime power management: whether a device sleeps, and for how long it has."""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = ["ACTIVE_SECONDS", "AUTOSUSPEND_DELAY", "CONTROL", "POWER_STATE", "SUSPENDED_SECONDS"]

_ABI = "Documentation/ABI/testing/sysfs-devices-power"

POWER_STATE = Metric(
    name="gpudaemon_device_runtime_power_state",
    kind=Kind.STATESET,
    help="Runtime power state of the device; 'unsupported' is the kernel's word for management switched off.",
    labels=("device", "state"),
    abi=f"{_ABI}: power/runtime_status",
)
CONTROL = Metric(
    name="gpudaemon_device_runtime_power_control",
    kind=Kind.STATESET,
    help="Whether the kernel may suspend the device when idle (auto) or must keep it on.",
    labels=("device", "state"),
    abi=f"{_ABI}: power/control",
)
AUTOSUSPEND_DELAY = Metric(
    name="gpudaemon_device_autosuspend_delay_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="Idle time after which the kernel suspends the device; negative: never.",
    labels=("device",),
    abi=f"{_ABI}: power/autosuspend_delay_ms",
)
ACTIVE_SECONDS = Metric(
    name="gpudaemon_device_runtime_active_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time the device was runtime active since its driver was bound.",
    labels=("device",),
    abi=f"{_ABI}: power/runtime_active_time",
)
SUSPENDED_SECONDS = Metric(
    name="gpudaemon_device_runtime_suspended_seconds_total",
    kind=Kind.COUNTER,
    unit=Unit.SECONDS,
    help="Time the device was runtime suspended since its driver was bound, as of its last waking.",
    labels=("device",),
    abi=f"{_ABI}: power/runtime_suspended_time",
)
