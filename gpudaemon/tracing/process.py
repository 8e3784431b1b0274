"""The tracer's main loop: `python -m gpudaemon.tracing.process CHANNEL TIER PERIOD`.

CHANNEL is the descriptor of its end of a SOCK_SEQPACKET pair, TIER a key of `model.rights.TIERS`, PERIOD the
seconds between cycles. It keeps CAP_DAC_OVERRIDE, because tracefs belongs to root, and nothing else but what
looking at cgroups of processes takes. It ends when the other end is closed or at SIGTERM, having removed all
it made.

Packets from the server are JSON: {"settings": {"sysfs", "procfs", "period", "subjects", "tracing"}}. Packets
to the server, each cycle:

    {"rows": [[metric, [label, ...], number or [[count, ...], sum]], ...], "subject": name}     parts
    {"notes": [[device, kind, severity, text, pid, count], ...]}                                where there
    are any {"cycle": number, "subjects": {name: [state, recipe, reason, armings, malformed]}, "events",
    "lost", ...}
"""

import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from gpudaemon.collectors import streams
from gpudaemon.errors import Malformed
from gpudaemon.model.metric import Distribution
from gpudaemon.model.rights import TIERS
from gpudaemon.model.tracing import Context
from gpudaemon.parsers.cgroup import NOBODY, cgroup_owner
from gpudaemon.reader.child import begin_child, run_until_left
from gpudaemon.tracing.tracefs import Tracefs
from gpudaemon.tracing.watch import Watch

__all__ = ["CAPABILITIES", "Owners", "Tracer"]

CAPABILITIES = frozenset({"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"})
"""What it keeps of its tier's."""
_PACKET = 1 << 16
_PR_SET_PDEATHSIG = 1
_KNOWN_FOR = 60.0
_MOST_KNOWN = 4096
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""include/linux/proc_ns.h, PROC_PID_INIT_INO: trace events number processes as the first namespace does."""


class Owners:
    """Whom processes work for, and their names. Numbers are reused, so what is known is forgotten after a
    minute."""

    def __init__(self, procfs: str) -> None:
        self._procfs = procfs
        self._known: dict[int, tuple[float, str, str]] = {}
        try:
            self._same = os.readlink(f"{procfs}/self/ns/pid") == _FIRST_PID_NAMESPACE
        except OSError:
            self._same = False

    def owner(self, pid: int) -> str:
        """Key of the cgroup's owner, `unknown` where that is not known."""
        return self._of(pid)[1]

    def comm(self, pid: int) -> str:
        """Name of the process, empty where it is not known."""
        return self._of(pid)[2]

    def _of(self, pid: int) -> tuple[float, str, str]:
        known = self._known.get(pid)
        now = time.monotonic()
        if known is not None and now - known[0] < _KNOWN_FOR:
            return known
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        found = (now, NOBODY.key, "")
        if self._same and pid > 0:
            try:
                owner = cgroup_owner(_read(f"{self._procfs}/{pid}/cgroup")).key
                found = (
                    now,
                    owner,
                    _read(f"{self._procfs}/{pid}/comm").decode("utf-8", "replace").rstrip("\n"),
                )
            except (OSError, Malformed):
                # It ended: what it was stays the best answer.
                found = found if known is None else (now, known[1], known[2])
        self._known[pid] = found
        return found


class Tracer:
    """Owns what is watched and tells the server of it."""

    def __init__(self, channel: socket.socket, period: float) -> None:
        self._channel = channel
        self._period = period
        self._cycle = 0
        self._watch: Watch | None = None
        self._settings: dict[str, Any] = {}
        self._ended = False
        self._totals = [0, 0, 0]
        signal.signal(signal.SIGTERM, self._end)

    def run(self) -> None:
        """Watch until the server closes its end."""
        try:
            while not self._ended:
                due = (time.monotonic() // self._period + 1) * self._period
                if self._listen(due):
                    break
                if self._watch is not None and time.monotonic() >= due:
                    self._look()
        finally:
            self._ended = True
            if self._watch is not None:
                self._watch.close()

    def _end(self, *_: object) -> None:
        if not self._ended:
            self._ended = True
            raise SystemExit(0)

    def _listen(self, due: float) -> bool:
        """Take messages until the next cycle is due; whether the server has gone."""
        while not self._ended:
            left = due - time.monotonic()
            if self._watch is not None:
                if left <= 0:
                    return False
                if self._watch.buffers is not None:
                    if not self._watch.wait(self._channel.fileno(), left):
                        return False
                    left = 0.0001
            self._channel.settimeout(left if self._watch is not None else None)
            try:
                packet = self._channel.recv(_PACKET)
            except (TimeoutError, BlockingIOError):
                continue
            except ConnectionResetError:
                return True
            if not packet:
                return True
            message = json.loads(packet)
            if "settings" in message:
                self._settle(message["settings"])
                self._look()
                return False
        return True

    def _settle(self, settings: dict[str, Any]) -> None:
        if settings == self._settings:
            return
        before, self._settings = self._settings, settings
        self._period = settings["period"]
        if self._watch is not None:
            same = {key: value for key, value in before.items() if key != "period"}
            if same == {key: value for key, value in settings.items() if key != "period"}:
                return
            self._watch.close()
        owners = Owners(settings["procfs"])
        context = Context(owner=owners.owner, comm=owners.comm, unix=self._unix, settings=settings["tracing"])
        wanted = [one for name, one in streams().items() if name in settings["subjects"]]
        self._watch = Watch(
            Tracefs(f"{settings['sysfs']}/kernel/tracing"),
            wanted,
            context,
            sysfs=settings["sysfs"],
            buffer=settings["tracing"]["buffer"],
        )
        self._cycle = 0

    def _unix(self, at: int) -> float:
        assert self._watch is not None
        return time.time() - (self._watch.now() - at) / 1e9

    def _look(self) -> None:
        watch = self._watch
        assert watch is not None
        self._cycle += 1
        watch.attend()
        watch.collect()
        now = watch.now()
        notes: list[Any] = []
        for one in watch.subjects:
            lines = (
                [metric.name, labels, [value.counts, value.sum] if isinstance(value, Distribution) else value]
                for metric, labels, value in one.accumulator.rows(now)
            )
            self._tell_parts("rows", lines, subject=one.subject.name)
            notes += [[n.device, n.kind, n.severity, n.text, n.pid, n.count] for n in one.accumulator.notes()]
        if notes:
            self._tell_parts("notes", notes)
        buffers = watch.buffers
        self._send(
            {
                "cycle": self._cycle,
                "subjects": {
                    one.subject.name: [
                        one.state,
                        one.recipe.name if one.recipe is not None else "",
                        one.reason,
                        one.armings,
                        one.malformed,
                    ]
                    for one in watch.subjects
                },
                "events": buffers.events if buffers is not None else 0,
                "lost": buffers.lost if buffers is not None else 0,
                "malformed": (buffers.malformed if buffers is not None else 0)
                + sum(one.malformed for one in watch.subjects),
                "cpu": time.process_time(),
            }
        )

    def _tell_parts(self, key: str, lines: Iterable[Any], **more: str) -> None:
        size = 0
        part: list[Any] = []
        for line in lines:
            text = len(json.dumps(line))
            if size + text > _PACKET // 2 and part:
                self._send({key: part, **more})
                size, part = 0, []
            part.append(line)
            size += text
        if part:
            self._send({key: part, **more})

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.settimeout(None)
        self._channel.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    begin_child(CAPABILITIES & set(TIERS[sys.argv[2]]))
    # A launcher that is killed takes its children along: this one has something to undo first.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    run_until_left(lambda: Tracer(channel, float(sys.argv[-1])))


if __name__ == "__main__":
    _main()
