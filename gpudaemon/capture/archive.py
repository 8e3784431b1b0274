"""A capture as a whole: recording and manifest, redacted, as a directory or as one file, and read again.

The manifest (`manifest.json`) says what a tree of files cannot: kernel, drivers, versions, and of every file
that could not be read why, so that a replay can fail as the kernel did. Format 1:

    {"format": 1, "gpudaemon": "…", "at": unix time, "kernel": {"release": …, "version": …},
     "drivers": {"amdgpu": {"version": …}},
     "devices": {"0000:03:00.0": {"kind": …, "driver": …, "state": …, "files": 120}},
     "unread": [{"path": "sys/…", "why": "errno", "errno": 1, "name": "EPERM", "stage": "read"}],
     "redacted": {"unique_id": 8}, "modes": {"sys/…": "0400"}}
"""

import dataclasses
import errno
import io
import json
import os
import re
import tarfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpudaemon import __version__
from gpudaemon.capture.reading import Reader
from gpudaemon.capture.recording import Recorder, Recording, Unread
from gpudaemon.capture.redaction import Redactor
from gpudaemon.errors import GpudaemonError
from gpudaemon.pipeline.holders import Holders

__all__ = ["FORMAT", "Capture", "LeftOver", "load", "pack", "record", "redacted", "summary", "write"]

FORMAT = 1
_MANIFEST = "manifest.json"
_LARGEST = 256 << 20
_USUAL_MODE = 0o444
_ADDRESS = re.compile(r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")


class LeftOver(GpudaemonError):
    """An identifier would have been left in a capture."""


@dataclass(slots=True)
class Capture:
    """Files and links below `sys/` and `proc/`, further texts beside them, and the manifest."""

    files: dict[str, bytes]
    links: dict[str, str]
    manifest: dict[str, Any]
    directories: set[str] = field(default_factory=set)

    @property
    def unread(self) -> list[Unread]:
        """What the manifest says could not be read."""
        return [
            Unread(one["path"], one["why"], one.get("errno", 0), one.get("stage", ""))
            for one in self.manifest["unread"]
        ]

    def mode(self, path: str) -> int:
        """Permission bits the file had."""
        return int(self.manifest["modes"].get(path, f"{_USUAL_MODE:o}"), 8)


def record(*, sysfs: str, procfs: str, deadline: float, runtime: str) -> Recording:
    """Record a host. deadline: seconds for one read. runtime: where notes about stuck devices are kept.

    Raises OSError where no process can be started.
    """
    holders = Holders(runtime, sysfs)
    held = {device: path for device, (_, path) in holders.held(0).items()}
    with Reader(deadline, lambda pid, path: holders.note(pid, {recorder.current: path})) as reader:
        recorder = Recorder(reader, sysfs=sysfs, procfs=procfs, held=held)
        return recorder.record()


def redacted(recording: Recording, key: bytes, texts: Mapping[str, str] | None = None) -> Capture:
    """What a recording and further texts are without anything that names a specimen.

    key: secret of the hash. texts: name -> text, such as a log. Raises LeftOver where one was left.
    """
    texts = texts or {}
    redactor = Redactor(key)
    for path, content in recording.files.items():
        redactor.learn_file(path, content)
        redactor.learn_text(path)
    for path, target in recording.links.items():
        redactor.learn_text(f"{path}\n{target}")
    for text in texts.values():
        redactor.learn_text(text)
        for match in _ADDRESS.finditer(text):
            redactor.learn_word(match[0], "ip address")
    for name in dict.fromkeys((os.uname().nodename, os.uname().nodename.partition(".")[0])):
        redactor.learn_word(name, "host name")
    capture = Capture(
        {redactor.text(path): redactor.file(path, content) for path, content in recording.files.items()},
        {redactor.text(path): redactor.text(target) for path, target in recording.links.items()},
        _manifest(recording, redactor),
        {redactor.text(path) for path in recording.directories},
    )
    capture.files |= {
        name: redactor.log(text).encode("utf-8", "surrogateescape") for name, text in texts.items()
    }
    _search(capture, redactor)
    return capture


def summary(capture: Capture) -> str:
    """What is in it and what is not, in a few lines for who made it."""
    manifest = capture.manifest
    states = Counter(one["state"] for one in manifest["devices"].values())
    unread = Counter(one.why for one in capture.unread)
    lines = [
        f"{sum(states.values())} devices: " + ", ".join(f"{count} {state}" for state, count in states.items()),
        f"{len(capture.files)} files, {len(capture.links)} links",
    ]
    if unread:
        lines.append("not read: " + ", ".join(f"{count} {why}" for why, count in unread.items()))
    if manifest["redacted"]:
        lines.append(
            "replaced: " + ", ".join(f"{count} {kind}" for kind, count in manifest["redacted"].items())
        )
    return "\n".join(lines)


def _manifest(recording: Recording, redactor: Redactor) -> dict[str, Any]:
    devices = {redactor.text(id_): dataclasses.asdict(state) for id_, state in recording.devices.items()}
    return {
        "format": FORMAT,
        "gpudaemon": __version__,
        "at": int(time.time()),
        "kernel": recording.kernel,
        "drivers": recording.drivers,
        "devices": devices,
        "unread": [_reason(one, redactor) for one in recording.unread],
        "redacted": dict(sorted(redactor.counts.items())),
        "modes": {
            redactor.text(path): f"{mode:04o}"
            for path, mode in sorted(recording.modes.items())
            if mode != _USUAL_MODE
        },
    }


def _reason(one: Unread, redactor: Redactor) -> dict[str, Any]:
    reason: dict[str, Any] = {"path": redactor.text(one.path), "why": one.why}
    if one.error:
        reason |= {"errno": one.error, "name": errno.errorcode.get(one.error, "?"), "stage": one.stage}
    return reason


def _search(capture: Capture, redactor: Redactor) -> None:
    """Look for everything that was replaced, once more, in everything there is."""
    texts = [*capture.files, *capture.links, *capture.links.values(), json.dumps(capture.manifest)]
    texts += [content.decode("utf-8", "surrogateescape") for content in capture.files.values()]
    found = sum(len(redactor.leftovers(text)) for text in texts)
    if found:
        raise LeftOver(f"{found} identifiers would be left in the capture: nothing is written. This is a bug.")


# On disk


def write(capture: Capture, directory: str) -> None:
    """Lay a capture down as ordinary files and links. Raises OSError; FileExistsError where anything is
    there."""
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise FileExistsError(errno.EEXIST, "not empty", directory)
    # Files first: no path leads through a link that came from the capture itself.
    for path in (*sorted(capture.directories), "sys", "proc"):
        os.makedirs(os.path.join(directory, _inside(path)), exist_ok=True)
    for path, content in {**capture.files, _MANIFEST: _text(capture.manifest)}.items():
        place = os.path.join(directory, _inside(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "xb") as stream:
            stream.write(content)
        os.chmod(place, capture.mode(path) | 0o400 if path != _MANIFEST else 0o644)
    for path, target in capture.links.items():
        place = os.path.join(directory, _inside(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(target, place)


def pack(capture: Capture, archive: str) -> None:
    """Lay a capture down as one file, `.tar.gz`. Raises OSError; FileExistsError where it is there."""
    with open(archive, "xb") as stream, tarfile.open(fileobj=stream, mode="w:gz", compresslevel=9) as tar:
        for path, content in {_MANIFEST: _text(capture.manifest), **capture.files}.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
        for path in sorted(capture.directories):
            member = tarfile.TarInfo(path)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for path, target in capture.links.items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)


def load(place: str) -> Capture:
    """Read a capture, a directory or one file. Raises GpudaemonError for what is none, OSError."""
    capture = _from_archive(place) if os.path.isfile(place) else _from_directory(place)
    try:
        manifest = json.loads(capture.files.pop(_MANIFEST))
        if manifest["format"] != FORMAT:
            raise GpudaemonError(
                f"{place}: a capture of format {manifest['format']}, this program reads {FORMAT}"
            )
        capture.manifest = manifest
        _ = capture.unread, capture.mode("")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise GpudaemonError(f"{place}: no capture, its {_MANIFEST} is missing or damaged") from None
    return capture


def _from_archive(place: str) -> Capture:
    capture = Capture({}, {}, {})
    size = 0
    try:
        with tarfile.open(place, mode="r:*") as tar:
            for member in tar:
                path = _inside(member.name)
                size += member.size
                if size > _LARGEST:
                    raise GpudaemonError(f"{place}: too large for a capture")
                if member.issym():
                    capture.links[path] = member.linkname
                elif member.isdir():
                    capture.directories.add(path)
                elif member.isfile():
                    stream = tar.extractfile(member)
                    capture.files[path] = stream.read() if stream is not None else b""
    except (tarfile.TarError, EOFError) as error:
        raise GpudaemonError(f"{place}: no capture: {error}") from None
    return capture


def _from_directory(place: str) -> Capture:
    capture = Capture({}, {}, {})
    for directory, below, names in os.walk(place):
        relative = os.path.relpath(directory, place)
        capture.directories.add(relative)
        for name in (*below, *names):
            path = os.path.normpath(os.path.join(relative, name))
            whole = os.path.join(directory, name)
            if os.path.islink(whole):
                capture.links[path] = os.readlink(whole)
            elif name in names:
                with open(whole, "rb") as stream:
                    capture.files[path] = stream.read()
    capture.directories.discard(".")
    return capture


def _inside(path: str) -> str:
    """A path that stays below the directory it is meant for; raises GpudaemonError."""
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise GpudaemonError(f"{path!r}: no path of a capture")
    return path


def _text(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode() + b"\n"
