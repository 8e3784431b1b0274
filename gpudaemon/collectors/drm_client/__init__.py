"""Whose work a GPU does: fdinfo of its clients, KFD's processes, device memory by cgroup, names of pods.

Not planned like other subjects: which files there are changes with every process that begins or ends. What is
read is settled by `gpudaemon.pipeline.clients`, what it comes to by `accounts` and `compute`.
"""

from gpudaemon.collectors import Collector
from gpudaemon.metrics import drm_client as rows
from gpudaemon.metrics import kubernetes
from gpudaemon.model.metric import Metric

__all__ = ["COLLECTOR"]

COLLECTOR = Collector(
    name="drm_client",
    emits=(
        *(value for value in vars(rows).values() if isinstance(value, Metric)),
        kubernetes.DEVICE_INFO,
        kubernetes.KUBELET_UP,
    ),
)
