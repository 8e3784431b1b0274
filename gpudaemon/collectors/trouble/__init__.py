"""Trouble of every vendor: resets, hangs, errors that rise, links that lose lanes, GPUs that are missed.

No file of its own: it is made of uevents and of what the other collectors read (`gpudaemon.pipeline.trouble`).
"""

from gpudaemon.collectors import Collector
from gpudaemon.metrics import trouble as rows
from gpudaemon.model.metric import Metric

__all__ = ["COLLECTOR"]

COLLECTOR = Collector(
    name="trouble",
    emits=tuple(value for value in vars(rows).values() if isinstance(value, Metric)),
)
