"""Counters of which an open one keeps its device awake; otherwise `gpudaemon.calls.pmu`."""

from gpudaemon.calls.pmu import Pmu

__all__ = ["caller"]


def caller() -> Pmu:
    """The caller of this kind."""
    return Pmu()
