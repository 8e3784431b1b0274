"""Records a host: which files and links there are, what they say, and what could not be read.

There is no list of files here. Of a device are recorded the files its plan reads (`pipeline.plan`), those that
the plan needs to know first, and what the kernel's cores print from memory (`model.from_memory`); of a device
that sleeps, or that a process is stuck in, only the last. Links and class entries are those of the directories
that hold such a file, so that a scan of the recording finds the same devices.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from gpudaemon.capture.processes import PROCESS_FILES, clients
from gpudaemon.capture.reading import Reader, Reading
from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.model.device import PROC, Device, DeviceKind
from gpudaemon.model.forbidden import is_forbidden
from gpudaemon.model.from_memory import reaches_device
from gpudaemon.parsers.integer import hexadecimal
from gpudaemon.pipeline.finder import survey
from gpudaemon.pipeline.plan import GATE, facts_needed, make_plan
from gpudaemon.pipeline.topology import files_between
from gpudaemon.reader.lanes import READABLE

__all__ = ["Recorder", "Recording", "State", "Unread"]

_FACT_LIMIT = 4096
"""What the daemon takes of a file it must know before it plans (`plan.facts_plan`)."""
_MODULE_FILES = ("version", "srcversion")


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that is there and is not in the recording.

    why: `errno`, `deadline`, `suspended`, `held`, `refused`, or `too large` (the beginning is there).
    error, stage: of `errno`; where it came from, `open` or `read`.
    """

    path: str
    why: str
    error: int = 0
    stage: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """How a device was found. state: `read`, `suspended`, `hung`, `held` (by a process) or `denied`."""

    kind: str
    driver: str
    state: str
    files: int


@dataclass(slots=True)
class Recording:
    """Paths are relative to a directory with `sys/` and `proc/` below it.

    modes: permission bits of the files. drivers: versions of kernel modules, by name and file. kernel: what the
    host says it runs, `release` and `version`.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    unread: list[Unread] = field(default_factory=list)
    devices: dict[str, State] = field(default_factory=dict)
    drivers: dict[str, dict[str, str]] = field(default_factory=dict)
    kernel: dict[str, str] = field(default_factory=dict)


class Recorder:
    """Records into `recording`. sysfs, procfs: mount points. held: devices that a process is stuck in -> the
    file.

    current: the device being recorded.
    """

    def __init__(self, reader: Reader, *, sysfs: str, procfs: str, held: Mapping[str, str]) -> None:
        self._reader = reader
        self._sysfs = sysfs
        self._procfs = procfs
        self._held = held
        self._stuck: set[str] = set()
        self._asked: set[str] = set()
        self._real_directories: dict[str, str] = {}
        self.recording = Recording()
        self.current = ""

    def record(self) -> Recording:
        """Everything, once."""
        devices, others = self._devices()
        for device in devices:
            self.current = device.id
            self._device(device)
        for function in others:
            # Nothing is planned for these, but what they are decides what the others are.
            self.current = function.id
            self._device(function, planned=False)
        self.current = ""
        self._between(devices)
        self._processes(devices)
        self._classes()
        self._modules({device.driver for device in devices} - {""})
        self._kernel()
        return self.recording

    # Devices

    def _devices(self) -> tuple[list[Device], list[Device]]:
        """What the daemon finds, and the PCI functions it looks at and leaves out."""
        _, unclaimed = survey(self._sysfs, {}, ())
        classes: dict[str, int | None] = {}
        for function in unclaimed:
            content = self._reader.read(f"{self._sysfs}/{function.path}/class").content
            try:
                classes[function.id] = hexadecimal(content or b"")
            except Malformed:
                classes[function.id] = None
        found, unclaimed = survey(self._sysfs, classes, (), self._procfs)
        known = {device.path for device in found}
        others = [replace(one, kind=DeviceKind.PCI) for one in unclaimed if one.path not in known]
        return list(found), others

    def _device(self, device: Device, *, planned: bool = True) -> None:
        before = len(self.recording.files)
        self._links(device)
        state = self._gate(device)
        memory = sorted(name for name in device.names if not reaches_device(name) and name != GATE)
        for name in memory:
            self._file(_path(device, name), device.id)
        if state == "read" and planned:
            facts = {name: self._fact(device, name) for name in facts_needed(device)}
            first = self._planned(device, facts)
            # What one file gives, another is not asked for; its name still decides how the first is read.
            spare = self._planned(replace(device, names=device.names - set(first)), {})
            for name in dict.fromkeys([*first, *spare]):
                self._file(_path(device, name), device.id)
        elif planned:
            why = "held" if state == "hung" else state
            self.recording.unread += [
                Unread(_path(device, name), why)
                for name in dict.fromkeys([*facts_needed(device), *self._planned(device, {})])
                if _path(device, name) not in self.recording.files
            ]
        if device.id in self._stuck:
            state = "hung"
        files = len(self.recording.files) - before
        self.recording.devices[device.id] = State(device.kind.value, device.driver, state, files)

    def _gate(self, device: Device) -> str:
        """Whether the device may be asked for more than what the cores print from memory."""
        if device.id in self._held:
            return "held"
        if GATE not in device.names:
            return "read"
        reading = self._file(_path(device, GATE), device.id)
        if reading is None or reading.content is None:
            return "hung" if device.id in self._stuck else "denied"
        return "read" if reading.content in READABLE else "suspended"

    def _between(self, devices: Iterable[Device]) -> None:
        """What paths between devices rest on and belongs to none of them: NUMA, IOMMU groups, processor."""
        base = "sys/devices/system/node"
        for name in sorted(_names(self._place(base))):
            if re.fullmatch(r"node\d+", name):
                self._file(f"{base}/{name}/distance")
        for path in files_between(self._place("sys"), devices):
            self._file(f"sys/{path}")

    @staticmethod
    def _planned(device: Device, facts: Facts) -> list[str]:
        return [file.path for file in make_plan(device, facts).files if file.path != GATE]

    def _fact(self, device: Device, name: str) -> bytes | None:
        path = self._real(_path(device, name))
        self._file(path, device.id)
        content = self.recording.files.get(path)
        return content[:_FACT_LIMIT] if content else None

    def _processes(self, devices: Iterable[Device]) -> None:
        """Clients of the devices, and what the driver says of each (fdinfo enters it)."""
        owners = {node: device for device in devices for node in device.nodes}
        seen: set[str] = set()
        for client in clients(self._procfs):
            base = f"proc/{client.pid}"
            if client.pid not in seen:
                seen.add(client.pid)
                for name in PROCESS_FILES:
                    self._file(f"{base}/{name}")
            self.recording.links[f"{base}/fd/{client.descriptor}"] = client.target
            device = owners.get(client.node)
            if device is None:
                continue
            path, state = f"{base}/fdinfo/{client.descriptor}", self.recording.devices[device.id].state
            if state == "read":
                self.current = device.id
                self._file(path, device.id)
            else:
                self.recording.unread.append(Unread(path, "held" if state == "hung" else state))

    # Files and links

    def _place(self, path: str) -> str:
        root, _, below = path.partition("/")
        return f"{self._sysfs if root == 'sys' else self._procfs}/{below}"

    def _real(self, path: str) -> str:
        """The path without links: a bus names devices by links, and the tree holds each file once."""
        directory, name = os.path.split(path)
        if not directory.startswith("sys/"):
            return path
        if directory not in self._real_directories:
            below = os.path.relpath(os.path.realpath(self._place(directory)), os.path.realpath(self._sysfs))
            real = directory if below.startswith("..") else f"sys/{below}"
            self._real_directories[directory] = real
            if real != directory:
                self.recording.directories.add(real)
        return f"{self._real_directories[directory]}/{name}"

    def _file(self, path: str, device: str = "") -> Reading | None:
        """Record one file; None where it is here already, or a read of its device does not come back."""
        recording = self.recording
        path = self._real(path)
        if path in self._asked or is_forbidden(path):
            return None
        self._asked.add(path)
        if device and device in self._stuck:
            recording.unread.append(Unread(path, "held"))
            return None
        reading = self._reader.read(self._place(path))
        if reading.why == "deadline" and device:
            self._stuck.add(device)
        if reading.why and not (reading.why == "errno" and reading.stage == "open" and reading.error == 2):
            recording.unread.append(Unread(path, reading.why, reading.error, reading.stage))
        if reading.content is not None:
            recording.files[path] = reading.content
            try:
                recording.modes[path] = os.lstat(self._place(path)).st_mode & 0o777
            except OSError:
                recording.modes[path] = 0o444
        return reading

    def _links(self, device: Device) -> None:
        """The links of every directory that holds a name of the device."""
        inside = {""}
        for name in device.names:
            if name.startswith(PROC):
                continue
            parent = os.path.dirname(name)
            while parent not in inside:
                inside.add(parent)
                parent = os.path.dirname(parent)
        for directory in sorted(inside):
            # A hwmon chip of a class device (nvme0) lies outside the directory of its own device: `../..`.
            path = os.path.normpath(os.path.join("sys", device.path, directory))
            path = os.path.dirname(self._real(f"{path}/."))
            self.recording.directories.add(path)
            self._links_of(path)

    def _links_of(self, directory: str) -> None:
        for name, target in _links(self._place(directory)):
            self.recording.links[f"{directory}/{name}"] = target

    def _classes(self) -> None:
        """Entries of classes and buses that lead to what is recorded."""
        kinds = [f"sys/class/{name}" for name in _names(f"{self._sysfs}/class")]
        kinds += [f"sys/bus/{name}/devices" for name in _names(f"{self._sysfs}/bus")]
        for kind in kinds:
            for name, target in _links(self._place(kind)):
                if os.path.normpath(f"{kind}/{target}") in self.recording.directories:
                    self.recording.links[f"{kind}/{name}"] = target

    def _modules(self, drivers: Iterable[str]) -> None:
        """Versions of the modules behind the drivers."""
        for driver in sorted(drivers):
            module = driver.replace("-", "_")
            found = {}
            for name in _MODULE_FILES:
                content = self._reader.read(f"{self._sysfs}/module/{module}/{name}").content
                if content is not None:
                    found[name] = content.decode(errors="replace").strip()
            self.recording.drivers[driver] = found

    def _kernel(self) -> None:
        """The words of uname(2), from the recorded procfs: it need not be this machine's."""
        version = self._text("version").split()
        self.recording.kernel = {
            "release": self._text("sys/kernel/osrelease") or (version[2] if len(version) > 2 else ""),
            "version": self._text("sys/kernel/version"),
        }

    def _text(self, name: str) -> str:
        content = self._reader.read(f"{self._procfs}/{name}").content or b""
        return content.decode(errors="replace").strip()


def _path(device: Device, name: str) -> str:
    """Where a name of a device stands in a recording."""
    return f"proc/{name.removeprefix(PROC)}" if name.startswith(PROC) else f"sys/{device.path}/{name}"


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _links(directory: str) -> Iterator[tuple[str, str]]:
    for name in _names(directory):
        try:
            yield name, os.readlink(f"{directory}/{name}")
        except OSError:
            continue
