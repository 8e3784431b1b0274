"""/proc/PID/stat: a process's name, and the moment it started, which tells it from a later one of its number.

proc_pid_stat(5), fs/proc/array.c (do_task_stat). The name stands between parentheses and may hold any byte but
NUL, parentheses and line feeds included: everything is split after the last closing one.
"""

from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["ProcessStat", "process_stat"]

_START = 22 - 3
"""Field 22, counted from field 3, the first behind the name."""
_LONGEST_NUMBER = 20


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """pid. name: comm, at most 64 characters, bad UTF-8 replaced. state: a letter. started: clock ticks after
    boot."""

    pid: int
    name: str
    state: str
    started: int


def process_stat(content: bytes) -> ProcessStat:
    """Raises Malformed."""
    head, opening, rest = content.partition(b" (")
    name, closing, tail = rest.rpartition(b") ")
    fields = tail.split()
    if not opening or not closing or not head.isdigit() or len(fields) <= _START:
        raise Malformed("empty" if not content.strip() else "format")
    started = fields[_START]
    if not started.isdigit() or max(len(started), len(head)) > _LONGEST_NUMBER:
        raise Malformed("not_a_number")
    return ProcessStat(
        int(head),
        name[:256].decode("utf-8", "replace")[:64],
        fields[0].decode("ascii", "replace")[:1],
        int(started),
    )
