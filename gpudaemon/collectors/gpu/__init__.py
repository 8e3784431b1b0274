"""GPUs: what their driver knows to read, and who they are.

`gpudaemon_gpu_info` is made of the identity files the driver names and of the device's nodes. A label is empty
where its file is absent. Partitions and virtual functions get an info of their own: they are no further GPU. A
GPU that is shared out names the addresses of its functions.

Documentation/ABI/testing/sysfs-bus-pci: physfn, virtfn<N>
"""

import re
from collections.abc import Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts, driver_for, drivers
from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series

__all__ = ["COLLECTOR"]


_VIRTUAL = re.compile(r"virtfn(\d{1,5})", re.ASCII)
_FUNCTIONS = (gpu_parts.VIRTUAL_FUNCTION_INFO, gpu_parts.SRIOV_FUNCTION_INFO)


def _wants(device: Device) -> bool:
    return device.kind in (DeviceKind.GPU, DeviceKind.PARTITION, DeviceKind.VIRTUAL_FUNCTION)


def _needs(device: Device) -> Sequence[str]:
    if device.kind is DeviceKind.PARTITION:
        return ()
    driver = driver_for(device)
    identity = [path for path in driver.identity.values() if path in device.names]
    return [*(identity if device.kind is DeviceKind.GPU else ()), *driver.needs(device)]


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    if device.kind is DeviceKind.PARTITION:
        return ()
    return driver_for(device).attributes(device, facts)


def _nodes(device: Device, prefix: str) -> str:
    return ",".join(node for node in device.nodes if node.startswith(prefix))


def _functions(device: Device) -> Sequence[Constant]:
    """Addresses of the functions of a GPU that has virtual ones; SR-IOV calls `virtfn0` number 1."""
    virtual = ((_VIRTUAL.fullmatch(name), target) for name, target in device.links)
    found = sorted((int(match.group(1)) + 1, target) for match, target in virtual if match)
    named = [("pf", device.id), *((f"vf{number}", target) for number, target in found)]
    return [(Series(gpu_parts.SRIOV_FUNCTION_INFO, (device.id, *one)), 1.0) for one in named] if found else []


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    labels = {
        "device": device.id,
        "card": _nodes(device, "card"),
        "render": _nodes(device, "renderD"),
        "accel": _nodes(device, "accel"),
        "parent": device.parents[0] if device.parents else "",
    }
    metric = gpu.PARTITION_INFO
    own: Sequence[Constant] = ()
    if device.kind is not DeviceKind.PARTITION:
        driver = driver_for(device)
        labels |= {"driver": device.driver, "vendor": driver.vendor, "parent": device.link("physfn")}
        own = driver.constants(device, facts)
        metric = gpu_parts.VIRTUAL_FUNCTION_INFO
    if device.kind is DeviceKind.GPU:
        labels |= driver.identified(facts)
        own = (*own, *_functions(device))
        metric = gpu.INFO
    return [(Series(metric, tuple(labels.get(label, "") for label in metric.labels)), 1.0), *own]


def _emits() -> tuple[Metric, ...]:
    """What any driver can fill, each once."""
    found = dict.fromkeys((gpu.INFO, gpu.PARTITION_INFO, *_FUNCTIONS))
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
