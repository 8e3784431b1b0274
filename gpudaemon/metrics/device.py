"""Rows that any device can have, whatever its bus."""

from gpudaemon.model.metric import Kind, Metric

__all__ = ["NUMA_NODE"]

NUMA_NODE = Metric(
    name="gpudaemon_device_numa_node",
    kind=Kind.GAUGE,
    help="NUMA node the device is attached to; no sample where the platform does not say.",
    labels=("device",),
    abi="Documentation/ABI/testing/sysfs-bus-pci: numa_node",
)
