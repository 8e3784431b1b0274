"""What the daemon's parts count about themselves, and where it stands; all of it goes with the process."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpudaemon.sources.own_processes import ProcessCost

__all__ = ["Counts"]


class Counts:
    """uevents, rescans, task_restarts: by subsystem, reason, task. processes: what each process costs.

    reload_ok, web_ok: whether configuration and web configuration could be used when they were last read.
    reloaded: unix time at which the configuration in use was read.
    """

    def __init__(self, started: float) -> None:
        self.uevents: dict[str, int] = {}
        self.uevents_lost = 0
        self.rescans: dict[str, int] = {}
        self.task_restarts: dict[str, int] = {}
        self.processes: dict[str, ProcessCost] = {}
        self.reload_ok = True
        self.web_ok = True
        self.reloaded = started
