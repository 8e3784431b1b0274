"""What is counted of one device: it outlives the device's plans and goes when the device is forgotten."""

import time

from gpudaemon.model.outcome import Outcome
from gpudaemon.pipeline.derived import Integral

__all__ = ["Figures"]


class Figures:
    """reads, malformed: by outcome, by reason. read_seconds, left_suspended: seconds. since: unix time.
    logged: paths of which something was logged, once each. integrals: counters made of readings, by metric
    name and labels."""

    __slots__ = (
        "decoder_failures",
        "hangs",
        "integrals",
        "left_suspended",
        "logged",
        "malformed",
        "read_seconds",
        "reads",
        "rows_dropped",
        "since",
        "ticks_missed",
    )

    def __init__(self) -> None:
        self.reads: dict[Outcome, int] = {}
        self.malformed: dict[str, int] = {}
        self.read_seconds = 0.0
        self.hangs = 0
        self.decoder_failures = 0
        self.rows_dropped = 0
        self.ticks_missed = 0
        self.left_suspended = 0.0
        self.logged: set[str] = set()
        self.integrals: dict[tuple[str, ...], Integral] = {}
        self.since = time.time()

    def count(self, outcome: Outcome, by: int = 1) -> None:
        """Count reads by outcome."""
        self.reads[outcome] = self.reads.get(outcome, 0) + by
