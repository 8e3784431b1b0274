"""The file in which learnt GPUs survive a reboot: `{state directory}/inventory.json`.

    {"schema": 1, "machine": "…", "sysfs": "/sys", "devices": [
     {"id": "0000:03:00.0", "driver": "amdgpu", "path": "devices/pci0000:00/…", "first_seen": 1790000000,
      "last_seen": 1790000600, "info": {"serial_number": "…", …}}]}

Everything here blocks and belongs in a thread. Nothing raises for what a disk or an administrator can do: a
file that cannot be used is a `problem`, logged once, and the daemon goes on with what it learns in this run.
One that makes no sense is set aside as `inventory.json.damaged`, one of a newer schema is left alone.

machine: a keyed hash of /etc/machine-id, which machine-id(5) asks not to be shown. A file that came here with
an image of another machine is not believed. Where there is no machine id, it is not compared.
sysfs: the root the GPUs were seen below. A daemon that looks at a mock host neither believes nor replaces the
file of the real one.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import os
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from gpudaemon.discovery.expected import MOST, Known

__all__ = ["InventoryFile", "machine"]

_log = logging.getLogger(__name__)

_SCHEMA = 1
_NAME = "inventory.json"
_LARGEST = 4 << 20
_LONGEST = 4096
_MOST_LABELS = 64
_KEY = b"gpudaemon inventory 1"


def machine(path: str = "/etc/machine-id") -> str:
    """Which machine this is, as a keyed hash; empty where the machine id is not there or not yet made."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            text = stream.read(64).strip()
    except OSError:
        return ""
    if len(text) != 32:
        return ""
    return hmac.new(_KEY, text, hashlib.sha256).hexdigest()[:32]


class InventoryFile:
    """See the module.

    directory: `path.state`; empty: nothing is kept. identity: as `machine` gives it. sysfs: root of what is
    seen.
    problem: why learnt GPUs do not survive a restart, empty where they do.
    """

    def __init__(self, directory: str, identity: str = "", *, sysfs: str = "/sys") -> None:
        self._directory = directory
        self._path = os.path.join(directory, _NAME)
        self._identity = identity
        self._sysfs = os.path.realpath(sysfs)
        self._writable = bool(directory)
        self._logged: set[str] = set()
        self.problem = ""

    def load(self) -> tuple[Known, ...]:
        """What the file holds; empty where there is none or it is of no use."""
        try:
            content = self._read()
        except FileNotFoundError:
            return ()
        except OSError as error:
            self._trouble(f"{self._path} cannot be read: {error.strerror or error}")
            return ()
        try:
            return self._believed(json.loads(content))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            self._set_aside()
            return ()

    def _believed(self, found: Mapping[str, Any]) -> tuple[Known, ...]:
        """What of the file concerns this host; raises for what makes no sense."""
        schema = found["schema"]
        if isinstance(schema, int) and schema > _SCHEMA:
            self._writable = False
            self._trouble(f"{self._path} was written by a newer version (schema {schema})")
            return ()
        if schema != _SCHEMA:
            raise ValueError("schema")
        if found["sysfs"] != self._sysfs:
            self._writable = self._writable and self._sysfs == "/sys"
            return ()
        if self._identity and found["machine"] and found["machine"] != self._identity:
            _log.info("inventory is another machine's, learning anew", extra={"file": self._path})
            return ()
        return tuple(_known(entry) for entry in found["devices"][:MOST])

    def render(self, known: Iterable[Known]) -> bytes:
        """The content for `store`; to be made where `known` does not change meanwhile."""
        devices = [
            {
                "id": one.id,
                "driver": one.driver,
                "path": one.path,
                "first_seen": round(one.first_seen),
                "last_seen": round(one.last_seen),
                "info": dict(one.info),
            }
            for one in known
        ]
        found = {"schema": _SCHEMA, "machine": self._identity, "sysfs": self._sysfs, "devices": devices}
        return json.dumps(found, indent=1).encode("ascii") + b"\n"

    def store(self, content: bytes) -> bool:
        """Replace the file: after a crash there is the old one or the new one. False where it was not done."""
        if not self._writable:
            return False
        new = f"{self._path}.new"
        try:
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(new, flags, 0o644), "wb") as stream:
                stream.write(content)
                stream.flush()
                if os.geteuid() == 0:
                    # The administrator's `forget` must leave a file that the service's user can read.
                    owner = os.stat(self._directory)
                    os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
                os.fsync(stream.fileno())
            os.replace(new, self._path)
            self._sync_directory()
        except OSError as error:
            self._trouble(f"{self._path} cannot be written: {error.strerror or error}")
            return False
        self.problem = ""
        return True

    def forget(self, id_: str) -> bool:
        """Take one GPU out of the file, for when no daemon runs; False where it is not in it or cannot be."""
        known = self.load()
        left = [one for one in known if one.id != id_]
        return len(left) != len(known) and self.store(self.render(left))

    def _read(self) -> bytes:
        # Not blocking: what has this name may be a pipe.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as stream:
            return (stream.read(_LARGEST) or b"")[:_LARGEST]

    def _set_aside(self) -> None:
        text = f"{self._path} is damaged, learning anew"
        with contextlib.suppress(OSError):
            os.replace(self._path, f"{self._path}.damaged")
            text += f"; it is now {_NAME}.damaged"
        self._trouble(text)

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _trouble(self, text: str) -> None:
        self.problem = text
        if text not in self._logged and len(self._logged) < 100:
            self._logged.add(text)
            _log.warning("inventory is not kept", extra={"reason": text})


def _known(entry: Mapping[str, Any]) -> Known:
    """One device of the file; raises ValueError, TypeError or KeyError for what cannot have been written."""
    id_, path, driver = (_text(entry[key]) for key in ("id", "path", "driver"))
    if not id_ or (path and not path.startswith("devices/")) or ".." in path.split("/") or "\0" in path:
        raise ValueError("device")
    first_seen, last_seen = float(entry["first_seen"]), float(entry["last_seen"])
    if not (isfinite(first_seen) and isfinite(last_seen)):
        raise ValueError("time")
    labels = list(entry["info"].items())[:_MOST_LABELS]
    info = {_text(label): _text(value) for label, value in labels}
    return Known(
        id=id_, driver=driver, path=path, info=info, first_seen=first_seen, last_seen=last_seen, learnt=True
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise TypeError("text")
    value.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return value
