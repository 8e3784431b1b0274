"""Who still holds a stuck device, across restarts of the daemon.

A reader whose read is stuck in a driver outlives its server. What it holds is noted in a file of the runtime
directory, one per reader: a new server finds there which devices must start quarantined, instead of sending a
second reader into the same driver. A note is good as long as that very process (pid and start time) exists.
"""

import contextlib
import json
import os
from collections.abc import Mapping

__all__ = ["Holders", "is_alive", "start_time"]

_NAME = "stuck-reader-"
_UNKNOWN = 0
"""Start time of a process of this user that exists but may not be looked into."""


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks (field 22 of /proc/PID/stat), None where it is gone or a corpse.

    A process whose main thread has ended but one of whose threads is stuck still counts: it shows as Z with
    more than one thread (field 20).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rsplit(b")", 1)[1].split()
    except PermissionError:
        # A reader with capabilities where /proc is closed (ProtectProc=noaccess): that it exists can be seen.
        return _UNKNOWN if _is_own(pid) else None
    except (OSError, IndexError):
        return None
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
        return None
    return int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether that very process still exists."""
    found = start_time(pid)
    return found is not None and (found == started or _UNKNOWN in (found, started))


def _is_own(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False


class Holders:
    """The notes. `directory` may not exist or not be writable: then nothing outlives this server.

    name: with which the files of these notes begin.
    """

    def __init__(self, directory: str, sysfs: str, name: str = _NAME) -> None:
        self._directory = directory
        self._name = name
        self._sysfs = os.path.realpath(sysfs)
        self._held: dict[tuple[int, int], dict[str, str]] = {}
        self._since: dict[str, float] = {}
        self._read()

    def note(self, pid: int, stuck: Mapping[str, str], since: Mapping[str, float] | None = None) -> None:
        """Reader `pid` holds these devices (id -> file); an empty mapping removes its note.

        since: CLOCK_MONOTONIC by id, which is the same clock for every process of one boot.
        """
        started = start_time(pid)
        path = f"{self._directory}/{self._name}{pid}"
        if not stuck or started is None:
            self._held = {key: held for key, held in self._held.items() if key[0] != pid}
            with contextlib.suppress(OSError):
                os.unlink(path)
            return
        self._held[pid, started] = dict(stuck)
        self._since |= since or {}
        note = {
            "pid": pid,
            "started": started,
            "sysfs": self._sysfs,
            "stuck": dict(stuck),
            "since": dict(since or {}),
        }
        text = json.dumps(note)
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            if not self._ours():
                return
            with open(f"{path}.new", "w", encoding="ascii") as new:
                new.write(text)
            os.replace(f"{path}.new", path)

    def held(self, but: int) -> dict[str, tuple[int, str]]:
        """Devices held by readers other than `but` that still exist: id -> (pid, file)."""
        found: dict[str, tuple[int, str]] = {}
        for (pid, started), stuck in list(self._held.items()):
            if pid == but:
                continue
            if is_alive(pid, started):
                found |= {device: (pid, path) for device, path in stuck.items()}
            else:
                self.note(pid, {})
        return found

    def since(self, device: str) -> float | None:
        """CLOCK_MONOTONIC since which a device is held, None where the note does not say."""
        return self._since.get(device)

    def _ours(self) -> bool:
        """Whether nobody else can have put a note there: a directory below /tmp may be anybody's.

        Links are followed: systemd makes one of a RuntimeDirectory with DynamicUser. Root believes the service.
        """
        status = os.stat(self._directory)
        user = os.geteuid()
        return (user == 0 or status.st_uid in (user, 0)) and not status.st_mode & 0o022

    def processes(self, but: int) -> int:
        """How many former readers cannot end."""
        return len({pid for pid, _ in self.held(but).values()})

    def _read(self) -> None:
        try:
            names = [name for name in os.listdir(self._directory) if name.startswith(self._name)]
            if names and not self._ours():
                return
        except OSError:
            return
        for name in names:
            try:
                with open(f"{self._directory}/{name}", encoding="ascii") as note:
                    content = json.loads(note.read(65536))
                pid, started = int(content["pid"]), int(content["started"])
                stuck = {str(device): str(path) for device, path in content["stuck"].items()}
                sysfs = content["sysfs"]
                since = {str(device): float(moment) for device, moment in content.get("since", {}).items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                continue
            if not is_alive(pid, started):
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._directory}/{name}")
            elif sysfs == self._sysfs:
                self._held[pid, started] = stuck
                self._since |= since
