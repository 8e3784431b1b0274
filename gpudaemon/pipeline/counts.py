"""What the daemon's parts count about themselves, and where it stands; all of it goes with the process."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpudaemon.sources.own_processes import ProcessCost

__all__ = ["Counts"]


class Counts:
    """uevents, rescans, task_restarts: by subsystem, reason, task. processes: what each process costs.

    reload_ok, reloaded: whether the last reading of the configuration could be used, and its unix time.
    """

    def __init__(self, started: float) -> None:
        self.uevents: dict[str, int] = {}
        self.uevents_lost = 0
        self.rescans: dict[str, int] = {}
        self.task_restarts: dict[str, int] = {}
        self.processes: dict[str, ProcessCost] = {}
        self.reload_ok = True
        self.reloaded = started
