"""The io_uring rings of this host. Belongs to no device: see `gpudaemon.pipeline.rings`."""

from gpudaemon.collectors import Collector
from gpudaemon.metrics import io_uring as rows
from gpudaemon.model.metric import Metric

__all__ = ["COLLECTOR"]

COLLECTOR = Collector(
    name="io_uring",
    emits=tuple(value for value in vars(rows).values() if isinstance(value, Metric)),
)
