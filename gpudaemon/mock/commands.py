"""What the control socket can do to a live host: one JSON object per line each way.

A request is {"command": name, ...arguments}; the answer {"ok": true, "result": ...} or
{"ok": false, "error": text}. Bytes travel as Latin-1 text. The client is `gpudaemon.mock.control.Control`.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gpudaemon.mock.agenda import Agenda
from gpudaemon.mock.clock import LiveClock
from gpudaemon.mock.command_table import error_number
from gpudaemon.mock.live import Fault, LiveTree, Node
from gpudaemon.mock.scenario import Scenario, Step
from gpudaemon.mock.schedule import generate, parse
from gpudaemon.mock.server import Server
from gpudaemon.mock.tree import File

__all__ = ["Commands"]

_log = logging.getLogger(__name__)


class Commands:
    """Carries out requests: those about files itself, and `more`.

    Refusals are LookupError, ValueError and TypeError; they become answers. A request with `after` is carried
    out so many seconds later and answered at once; one that is refused then is counted.
    """

    def __init__(
        self,
        tree: LiveTree,
        server: Server,
        clock: LiveClock,
        agenda: Agenda,
        more: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._tree = tree
        self._server = server
        self._clock = clock
        self._agenda = agenda
        self._started = time.time() - clock()
        self._faulty: set[Node] = set()
        self._refused = 0
        self._commands: dict[str, Callable[..., Any]] = {
            "fault": self.fault,
            "release": self.release,
            "clear": self.clear,
            "drive": self.drive,
            "undrive": self.undrive,
            "stats": self.stats,
            "accesses": self.accesses,
            **more,
        }

    def line(self, line: bytes) -> bytes:
        """Answer one request line, newline included."""
        try:
            request = json.loads(line)
            command = self._commands[request.pop("command")]
            after = float(request.pop("after", 0.0))
            answer: dict[str, Any]
            if after > 0:
                self._agenda.after(after, partial(self._later, command, request))
                answer = {"ok": True, "result": None}
            else:
                answer = {"ok": True, "result": command(**request)}
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode() + b"\n"

    def follow(self, scenario: Scenario) -> None:
        """Have the steps of a scenario come, from now on. Raises KeyError for a command that is not here."""
        for step in scenario.steps:
            command = self._commands[step.command]
            self._agenda.after(step.at, partial(self._step, step, command, step.times))

    def _step(self, step: Step, command: Callable[..., Any], left: int) -> None:
        # The next one first: what a step does may take time.
        if step.every and left != 1:
            self._agenda.after(step.every, partial(self._step, step, command, left - 1 if left else 0))
        self._later(command, dict(step.arguments))

    def _later(self, command: Callable[..., Any], arguments: dict[str, Any]) -> None:
        try:
            command(**arguments)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            self._refused += 1
            _log.warning("%s with %s refused: %s", command.__name__, arguments, error)

    def fault(self, path: str, kind: str, **arguments: Any) -> int:
        """Put a fault on every file that matches; returns how many."""
        nodes = self._tree.match(path)
        for node in nodes:
            node.fault = node.fault or Fault()
            _apply(node.fault, kind, **arguments)
            if kind == "vanish":
                node.generation += 1
            self._faulty.add(node)
        return len(nodes)

    def release(self, path: str) -> int:
        """Take every fault off the files that match and answer waiting reads; returns how many waited."""
        nodes = self._tree.match(path)
        return self._release(nodes)

    def clear(self) -> int:
        """The same for every file."""
        return self._release(list(self._faulty))

    def _release(self, nodes: list[Node]) -> int:
        for node in nodes:
            node.fault = None
            self._faulty.discard(node)
        return self._server.release(nodes)

    def drive(self, path: str, since: float, schedule: dict[str, Any], sensor: dict[str, Any]) -> int:
        """Let every file that matches follow a schedule; since: its moment 0 of CLOCK_MONOTONIC."""
        nodes = self._tree.match(path)
        links = [node.path for node in nodes if not isinstance(node.entry, File)]
        if links:
            raise ValueError(f"{links[0]} is a link")
        content = generate(*parse(schedule, sensor), self._clock.at(float(since)))
        for node in nodes:
            node.driven = content
        return len(nodes)

    def undrive(self, path: str) -> int:
        """Let the files that match follow the profile again; returns how many did not."""
        nodes = [node for node in self._tree.match(path) if node.driven is not None]
        for node in nodes:
            node.driven = None
        return len(nodes)

    def stats(self) -> dict[str, Any]:
        """What was read, what hangs and how each device was used."""
        now = self._clock()
        waiting = [
            {"path": path, "seconds": seconds, "hung": hung} for path, seconds, hung in self._server.waiting()
        ]
        return {
            "pid": os.getpid(),
            "seconds": now,
            "requests": self._server.requests,
            "reads": self._server.reads,
            "waiting": waiting,
            "refused": self._refused,
            "devices": {address: self._device(address, now) for address in self._tree.devices},
        }

    def _device(self, address: str, now: float) -> dict[str, Any]:
        device = self._tree.devices[address]
        power = device.power
        power.advance(now)
        return {
            "present": device.present,
            "bound": device.bound,
            "names": self._tree.names(device),
            "workload": None if device.gpu is None else device.gpu.workload,
            "runtime_status": "active" if power.active else "suspended",
            "accesses": power.accesses,
            "suspended_accesses": power.suspended_accesses,
            "last_access": None if power.last_access is None else self._started + power.last_access,
            "active_seconds": power.active_seconds,
            "suspended_seconds": power.suspended_seconds,
        }

    def accesses(self, path: str) -> dict[str, list[int]]:
        """path -> [opens, reads] of the files that match and were opened."""
        return {node.path: [node.opens, node.reads] for node in self._tree.match(path) if node.opens}


def _apply(fault: Fault, kind: str, **arguments: Any) -> None:
    """Add one kind to a fault. Raises TypeError for a kind or arguments that do not exist."""
    match kind, arguments:
        case "latency", {"seconds": int() | float() as seconds} if seconds > 0 and len(arguments) == 1:
            fault.latency = float(seconds)
        case "jitter", {"seconds": int() | float() as seconds} if seconds > 0 and len(arguments) == 1:
            fault.jitter = float(seconds)
        case "hang", {} if not arguments:
            fault.hang = True
        case "open_errno", {"errno": int() | str() as number} if len(arguments) == 1:
            fault.open_errno = error_number(number)
        case "read_errno", {"errno": int() | str() as number} if len(arguments) == 1:
            fault.read_errno = error_number(number)
        case "content", {"content": str() as text} if len(arguments) == 1:
            fault.content = text.encode("latin-1")
        case "garbage", {} if not arguments:
            fault.garbage = True
        case "ones", {} if not arguments:
            fault.ones = True
        case "truncate", {"bytes": int() as length} if length >= 0 and len(arguments) == 1:
            fault.truncate = length
        case "vanish", {} if not arguments:
            fault.vanish = True
        case _:
            raise TypeError(f"no fault {kind} with {arguments}")
