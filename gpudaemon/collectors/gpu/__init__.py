"""GPUs: what their driver knows to read, and who they are.

`gpudaemon_gpu_info` is made of the identity files the driver names and of the device's nodes. A label is empty
where its file is absent. Partitions get an info of their own and nothing else: they are no further GPU.
"""

from collections.abc import Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts, driver_for, drivers
from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR"]


def _wants(device: Device) -> bool:
    return device.kind in (DeviceKind.GPU, DeviceKind.PARTITION)


def _needs(device: Device) -> Sequence[str]:
    if device.kind is DeviceKind.PARTITION:
        return ()
    driver = driver_for(device)
    identity = [path for path in driver.identity.values() if path in device.names]
    return [*identity, *driver.needs(device)]


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    if device.kind is DeviceKind.PARTITION:
        return ()
    return driver_for(device).attributes(device, facts)


def _nodes(device: Device, prefix: str) -> str:
    return ",".join(node for node in device.nodes if node.startswith(prefix))


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    labels = {
        "device": device.id,
        "card": _nodes(device, "card"),
        "render": _nodes(device, "renderD"),
        "accel": _nodes(device, "accel"),
    }
    metric = gpu.PARTITION_INFO
    if device.kind is DeviceKind.GPU:
        driver = driver_for(device)
        labels |= {"driver": device.driver, "vendor": driver.vendor}
        labels |= {label: text_or_empty(facts.get(path)) for label, path in driver.identity.items()}
        metric = gpu.INFO
    return [(Series(metric, tuple(labels.get(label, "") for label in metric.labels)), 1.0)]


def _emits() -> tuple[Metric, ...]:
    """What any driver can fill, each once."""
    found: dict[Metric, None] = {gpu.INFO: None, gpu.PARTITION_INFO: None}
    for driver in drivers().values():
        found |= dict.fromkeys(driver.emits)
    return tuple(found)


COLLECTOR = Collector(
    name="gpu",
    emits=_emits(),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
