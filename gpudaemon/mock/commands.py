"""What the control socket can do to a live host: one JSON object per line each way.

A request is {"command": name, ...arguments}; the answer {"ok": true, "result": ...} or
{"ok": false, "error": text}. Bytes travel as Latin-1 text. The client is `gpudaemon.mock.control.Control`.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from gpudaemon.mock.live import Fault, LiveTree, Node
from gpudaemon.mock.schedule import generate, parse
from gpudaemon.mock.server import Server
from gpudaemon.mock.tree import File
from gpudaemon.mock.uevent import Uevents

__all__ = ["Commands"]

_log = logging.getLogger(__name__)


class Commands:
    """Carries out requests. Refusals are LookupError, ValueError and TypeError; they become answers."""

    def __init__(self, tree: LiveTree, server: Server, clock: Callable[[], float], uevents: str | None) -> None:
        self._tree = tree
        self._server = server
        self._clock = clock
        self._started = time.time() - clock()
        self._uevents = Uevents(tree)
        self._listener = uevents
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._faulty: set[Node] = set()
        self._commands: dict[str, Callable[..., Any]] = {
            "fault": self.fault,
            "release": self.release,
            "clear": self.clear,
            "drive": self.drive,
            "undrive": self.undrive,
            "suspend": self.suspend,
            "resume": self.resume,
            "autosuspend": self.autosuspend,
            "remove": self.remove,
            "restore": self.restore,
            "change": self.change,
            "stats": self.stats,
            "accesses": self.accesses,
        }

    def line(self, line: bytes) -> bytes:
        """Answer one request line, newline included."""
        try:
            request = json.loads(line)
            command = self._commands[request.pop("command")]
            answer = {"ok": True, "result": command(**request)}
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode() + b"\n"

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
        content = generate(*parse(schedule, sensor), float(since) - time.monotonic() + self._clock())
        for node in nodes:
            node.driven = content
        return len(nodes)

    def undrive(self, path: str) -> int:
        """Let the files that match follow the profile again; returns how many did not."""
        nodes = [node for node in self._tree.match(path) if node.driven is not None]
        for node in nodes:
            node.driven = None
        return len(nodes)

    def suspend(self, device: str) -> None:
        """Put a device to sleep until the next access."""
        self._tree.device(device).power.suspend(self._clock())

    def resume(self, device: str) -> None:
        """Wake a device."""
        self._tree.device(device).power.resume(self._clock())

    def autosuspend(self, device: str, delay: int | None) -> None:
        """Set autosuspend_delay_ms and `auto`; None sets `on`."""
        self._tree.device(device).power.autosuspend(self._clock(), delay)

    def remove(self, device: str) -> int:
        """Take a device away; returns how many uevents somebody received."""
        found = self._tree.device(device)
        self._tree.remove(found)
        return self._send(self._uevents.removed(found))

    def restore(self, device: str) -> int:
        """Bring it back; returns how many uevents somebody received."""
        found = self._tree.device(device)
        self._tree.restore(found)
        found.power.resume(self._clock())
        return self._send(self._uevents.restored(found))

    def change(self, device: str, keys: dict[str, str]) -> int:
        """Send a `change` uevent of the device's DRM card with these keys (WEDGED=…); returns 1 if received."""
        card = self._uevents.card(self._tree.device(device))
        return self._send([self._uevents.event("change", card, "drm", **keys)])

    def _send(self, events: list[bytes]) -> int:
        if self._listener is None:
            return 0
        sent = 0
        for event in events:
            try:
                self._socket.sendto(event, self._listener)
                sent += 1
            except OSError as error:
                # Like netlink: nobody bound, or a listener that does not keep up, loses them.
                _log.debug("uevent for %s not sent: %s", self._listener, error)
        return sent

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
            "devices": {address: self._device(address, now) for address in self._tree.devices},
        }

    def _device(self, address: str, now: float) -> dict[str, Any]:
        device = self._tree.devices[address]
        power = device.power
        power.advance(now)
        return {
            "present": device.present,
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
        case "open_errno", {"errno": int() as number} if 0 < number < 4096 and len(arguments) == 1:
            fault.open_errno = number
        case "read_errno", {"errno": int() as number} if 0 < number < 4096 and len(arguments) == 1:
            fault.read_errno = number
        case "content", {"content": str() as text} if len(arguments) == 1:
            fault.content = text.encode("latin-1")
        case "vanish", {} if not arguments:
            fault.vanish = True
        case _:
            raise TypeError(f"no fault {kind} with {arguments}")
