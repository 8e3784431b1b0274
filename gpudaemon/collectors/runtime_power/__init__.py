"""Runtime power management: the PM core's own figures of a device.

None of these files enters the driver: drivers/base/power/sysfs.c prints them from memory, so reading them
neither wakes a device nor restarts its autosuspend timer. `power/runtime_status` itself is the gate that the
reader looks at before anything else and is published by the daemon.

Documentation/ABI/testing/sysfs-devices-power
"""

from collections.abc import Sequence

from gpudaemon.collectors import Collector
from gpudaemon.drivers import Facts
from gpudaemon.metrics import runtime_power as rows
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.integer import quotient, words

__all__ = ["COLLECTOR", "CONTROLS"]

CONTROLS = ("auto", "on")
_MILLISECONDS = 1000


def _wants(device: Device) -> bool:
    return "power/runtime_status" in device.names


def _attributes(device: Device, _: Facts) -> Sequence[Attribute | Rows]:
    found: list[Attribute] = []

    def add(file: str, cadence: Cadence, metric: Metric, decode: Decode, states: Sequence[str] = ()) -> None:
        path = f"power/{file}"
        if path in device.names:
            labels: list[tuple[str, ...]] = (
                [(device.id, state) for state in states] if states else [(device.id,)]
            )
            found.append(Attribute(path, cadence, tuple(Series(metric, one) for one in labels), decode))

    seconds = quotient(_MILLISECONDS)
    add("control", Cadence.SLOW, rows.CONTROL, words(CONTROLS), CONTROLS)
    # Asking a device without autosuspend for its delay gives EIO (drivers/base/power/sysfs.c).
    add("autosuspend_delay_ms", Cadence.SLOW, rows.AUTOSUSPEND_DELAY, seconds)
    add("runtime_active_time", Cadence.SLOW, rows.ACTIVE_SECONDS, seconds)
    add("runtime_suspended_time", Cadence.SLOW, rows.SUSPENDED_SECONDS, seconds)
    return found


COLLECTOR = Collector(
    name="runtime_power",
    emits=(
        rows.POWER_STATE,  # said by the gate: there as long as the device is read at all
        rows.CONTROL,
        rows.AUTOSUSPEND_DELAY,
        rows.ACTIVE_SECONDS,
        rows.SUSPENDED_SECONDS,
    ),
    wants=_wants,
    attributes=_attributes,
)
