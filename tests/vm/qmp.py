"""QEMU's machine protocol, from outside the guest (docs/interop/qmp-spec.rst of QEMU).

qmp.command("device_add", driver="bochs-display", bus="hotplug0", id="card")
"""

import json
import socket
import time
from pathlib import Path
from typing import Any

__all__ = ["Qmp", "QmpError"]


class QmpError(Exception):
    """QEMU refused a command."""


class Qmp:
    """path: of the monitor's socket. events: what QEMU reported, oldest first."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(30.0)
        self._socket.connect(str(path))
        self._input = b""
        self.events: list[dict[str, Any]] = []
        self._message()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> Any:
        """Execute a command; what it returns. `_` in names of arguments stands for `-`. Raises QmpError."""
        wanted = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": name, "arguments": wanted}).encode() + b"\n")
        while True:
            message = self._message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise QmpError(f"{name}: {message['error']['desc']}")
            self.events.append(message)

    def human(self, line: str) -> str:
        """A command of the human monitor, for what has none of its own (pcie_aer_inject_error)."""
        return str(self.command("human-monitor-command", command_line=line))

    def wait_event(self, name: str, seconds: float = 30.0, **data: Any) -> dict[str, Any]:
        """The next event of a name whose data hold what is given; it is taken out of `events`."""
        end = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event.get("event") == name and data.items() <= event.get("data", {}).items():
                    self.events.remove(event)
                    return event
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {name} {data} within {seconds} s; there were {self.events[-5:]}")
            self._socket.settimeout(left)
            try:
                self.events.append(self._message())
            except TimeoutError:
                continue
            finally:
                self._socket.settimeout(30.0)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _message(self) -> dict[str, Any]:
        while b"\n" not in self._input:
            data = self._socket.recv(1 << 16)
            if not data:
                raise QmpError("QEMU is gone")
            self._input += data
        line, self._input = self._input.split(b"\n", 1)
        return dict(json.loads(line))
