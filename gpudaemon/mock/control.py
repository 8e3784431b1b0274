"""Client of a live mock host's control socket: faults, sleep, removal, counters.

Paths are relative to the mount (`sys/class/drm/card0/device/gpu_busy_percent`); links on the way to the
first wildcard are followed, wildcards are those of fnmatch and `*` matches `/` too. Devices are PCI addresses.
Every method returns when the host has done it, and raises `ControlError` where it refuses.
"""

import json
import socket
import time
from types import TracebackType
from typing import Any

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock.schedule import Schedule, Sensor

__all__ = ["Control", "ControlError"]


class ControlError(GpudaemonError):
    """The host refused, or it is not there any more."""


class Control:
    """One connection, made at the first request. Not for use by several threads at once."""

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> "Control":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._buffer = b""

    def request(self, command: str, **arguments: Any) -> Any:
        """Send one request and return its result. Raises ControlError."""
        try:
            line = self._exchange(json.dumps({"command": command, **arguments}).encode() + b"\n")
        except OSError as error:
            self.close()
            raise ControlError(f"{self._path}: {error}") from error
        answer = json.loads(line)
        if not answer["ok"]:
            raise ControlError(f"{command}: {answer['error']}")
        return answer["result"]

    def _exchange(self, line: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(self._timeout)
            self._socket.connect(self._path)
        self._socket.sendall(line)
        while b"\n" not in self._buffer:
            part = self._socket.recv(1 << 16)
            if not part:
                raise ConnectionResetError("the mock host has ended")
            self._buffer += part
        answer, _, self._buffer = self._buffer.partition(b"\n")
        return answer

    def fault(self, path: str, kind: str, **arguments: Any) -> int:
        """Put a fault on every file that matches; returns how many. Kinds add up until released.

        path: a pattern, or a PCI address for every file that reaches that device.
        kind and its argument: "latency" seconds=float, "jitter" seconds=float (up to so many more), "hang",
        "open_errno" errno=int, "read_errno" errno=int, "content" content=bytes, "garbage", "truncate"
        bytes=int, "ones", "vanish". With after=float it comes so many seconds later.
        """
        content = arguments.get("content")
        if isinstance(content, bytes):
            arguments["content"] = content.decode("latin-1")
        return int(self.request("fault", path=path, kind=kind, **arguments) or 0)

    def release(self, path: str) -> int:
        """Take every fault off the files that match and answer waiting reads; returns how many reads waited."""
        return int(self.request("release", path=path))

    def clear(self) -> int:
        """Take every fault off every file; returns how many reads waited."""
        return int(self.request("clear"))

    def drive(
        self, path: str, schedule: Schedule, sensor: Sensor | None = None, *, since: float | None = None
    ) -> int:
        """Let every file that matches follow `schedule` as `sensor` shows it; returns how many.

        since: the schedule's moment 0, as time.monotonic() counts; None for now. Each read gives the value of
        its own moment. A second call replaces the first; faults act as ever.
        """
        sensor = sensor or Sensor()
        moment = time.monotonic() if since is None else since
        return int(
            self.request(
                "drive",
                path=path,
                since=moment,
                schedule={"idle": schedule.idle, "pulses": list(schedule.pulses)},
                sensor={name: getattr(sensor, name) for name in Sensor.__slots__},
            )
        )

    def undrive(self, path: str) -> int:
        """Let the files that match follow the profile again; returns how many did not."""
        return int(self.request("undrive", path=path))

    def suspend(self, device: str) -> None:
        """Put the device to sleep until its next access."""
        self.request("suspend", device=device)

    def resume(self, device: str) -> None:
        """Wake the device; its autosuspend delay starts again."""
        self.request("resume", device=device)

    def autosuspend(self, device: str, delay: int | None) -> None:
        """Let the device fall asleep after `delay` ms without access; None keeps it awake."""
        self.request("autosuspend", device=device, delay=delay)

    def remove(self, device: str) -> int:
        """Take the device away with links, nodes and hwmon, then send uevents; returns how many arrived."""
        return int(self.request("remove", device=device))

    def restore(self, device: str) -> int:
        """Bring it back under the same names, then send uevents; returns how many arrived."""
        return int(self.request("restore", device=device))

    def change(self, device: str, **keys: str) -> int:
        """Send a `change` uevent of the device's DRM card with these keys (`WEDGED="none"`)."""
        return int(self.request("change", device=device, keys=keys))

    def unbind(self, device: str) -> int:
        """Take the driver off, its files, nodes and hwmon with it; returns how many uevents arrived."""
        return int(self.request("unbind", device=device))

    def bind(self, device: str, **names: str) -> int:
        """Give it its driver again; names: `card="card9"`, else the lowest free; returns as unbind."""
        return int(self.request("bind", device=device, names=names))

    def rebind(self, device: str, **names: str) -> dict[str, str]:
        """Unbind and bind while the old nodes are held: other numbers. Returns kind -> name (card, hwmon)."""
        result: dict[str, str] = self.request("rebind", device=device, names=names)
        return result

    def reset(self, device: str, seconds: float = 0.0, *, wedged: str = "none", **keys: str) -> float:
        """Reset a GPU; for `seconds` its driver refuses, then firmware counters start anew.

        wedged: methods of the WEDGED event at the end, empty for none; keys: PID and TASK. Returns when it is
        over, as time.monotonic() counts.
        """
        return float(self.request("reset", device=device, seconds=seconds, wedged=wedged, keys=keys))

    def workload(self, device: str, name: str) -> float:
        """Let a GPU do something else (gpudaemon.mock.workload); returns from when on, as time.monotonic()."""
        return float(self.request("workload", device=device, name=name))

    def errors(self, device: str, counter: str, count: int = 1) -> float:
        """Have errors happen; returns from when on they are counted.

        counter: corrected, uncorrected, deferred (memory), replays, recoveries (link), aer_corrected,
        aer_nonfatal, aer_fatal.
        """
        return float(self.request("errors", device=device, counter=counter, count=count))

    def wrap(self, device: str, lead: float = 5.0) -> float:
        """Bring 32-bit counters of the firmware to where they wrap in about `lead` seconds at half load."""
        return float(self.request("wrap", device=device, lead=lead))

    def truth(self, device: str, since: float | None = None, until: float | None = None) -> dict[str, Any]:
        """What is true of a GPU at `until` (now), and what was since `since`, as time.monotonic() counts.

        values: name -> value in base units (gpudaemon.mock.truth). ranges: name -> (lowest, highest) between
        both moments; the last minute is known. Besides: monotonic (of the step these values began to be true),
        workload, present, bound, in_reset, runtime_status, names (kind -> node).
        """
        result: dict[str, Any] = self.request("truth", device=device, since=since, until=until)
        return result

    def contents(self, path: str, since: float, until: float | None = None) -> dict[str, list[bytes]]:
        """path -> every content each matching file had from `since` to `until` (now), faults left aside.

        What a reader was given in that time is one of these, byte for byte.
        """
        until = time.monotonic() if until is None else until
        found = self.request("contents", path=path, since=since, until=until)
        return {name: [text.encode("latin-1") for text in texts] for name, texts in found.items()}

    def host_sleep(self, seconds: float, passed: float | None = None) -> float:
        """System sleep: for `seconds` nothing answers, uevents are lost; then clocks are later by `passed`.

        GPUs cool, their counters stand still. Returns when the host wakes, as time.monotonic() counts.
        """
        return float(self.request("host_sleep", seconds=seconds, passed=passed))

    def clock_step(self, seconds: float) -> None:
        """Set the host's wall clock forward or back: `btime` in /proc/stat moves with it."""
        self.request("clock_step", seconds=seconds)

    def stats(self) -> dict[str, Any]:
        """Counters: pid, seconds since start, requests, reads, waiting, devices.

        waiting: reads without an answer, oldest first, {path, seconds, hung}. devices: PCI address -> {present,
        bound, names, workload, runtime_status, accesses, suspended_accesses, last_access (unix time or None),
        active_seconds, suspended_seconds}; a suspended access is one that woke the device.
        """
        result: dict[str, Any] = self.request("stats")
        return result

    def accesses(self, path: str) -> dict[str, tuple[int, int]]:
        """path -> (opens, reads) of the files that match and were ever opened."""
        result: dict[str, list[int]] = self.request("accesses", path=path)
        return {name: (opens, reads) for name, (opens, reads) in result.items()}
