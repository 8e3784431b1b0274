"""Who has a DRM or accel node open, by links below /proc/PID/fd only: that enters no driver."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["PROCESS_FILES", "Client", "clients"]

_PREFIXES = ("/dev/dri/", "/dev/accel/")

PROCESS_FILES = ("comm", "cgroup", "stat")
"""What is recorded of a process that has a node open: its name, its place, its start time. Never its arguments
or its environment."""


@dataclass(frozen=True, slots=True)
class Client:
    """An open node. node: basename of the device node (`renderD128`); target: the link's text."""

    pid: str
    descriptor: str
    node: str
    target: str


def clients(procfs: str) -> Iterator[Client]:
    """Every open node that may be seen, in order; races and oddities give nothing."""
    for pid in sorted(filter(str.isdigit, _names(procfs)), key=int):
        directory = f"{procfs}/{pid}/fd"
        for descriptor in sorted(filter(str.isdigit, _names(directory)), key=int):
            try:
                target = os.readlink(f"{directory}/{descriptor}")
            except OSError:
                continue
            if target.startswith(_PREFIXES):
                yield Client(pid, descriptor, target.rsplit("/", 1)[1], target)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
