"""The tree of a live mock host: nodes that can be looked up, with faults on files and devices that come and go.

What a reader meets follows kernfs: a file that was removed is not found any more, and a descriptor opened
before gives ENODEV, also after the file came back (fs/kernfs/file.c, kernfs_get_active).
"""

import errno
import posixpath
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate

from gpudaemon.mock.binding import is_drivers, node_names, renamed, renamed_content
from gpudaemon.mock.model import Gpu
from gpudaemon.mock.power import RuntimePower
from gpudaemon.mock.tree import File, Generate, Link, Tree, kernfs_target
from gpudaemon.model.device import is_pci_address
from gpudaemon.model.from_memory import reaches_device

__all__ = ["Fault", "LiveDevice", "LiveTree", "Node"]

_STEPS, _LEAST_STEPS = 9600, 60  # states of all models together, of about a kilobyte; the least of one

_POWER_FILES = (
    *("power/runtime_status", "power/runtime_active_time", "power/runtime_suspended_time"),
    *("power/control", "power/autosuspend_delay_ms", "power_state"),
)


@dataclass(slots=True)
class Fault:
    """What is wrong with a file; kinds add up.

    latency: seconds before each answer; jitter: up to so many more, evenly spread. hang: no answer until
    released. open_errno, read_errno: 0 for none. content: served instead of the real one. garbage: random bytes
    instead, as many. truncate: bytes after which the real content ends. ones: every number is all ones, as from
    a device that fell off its bus. vanish: unlinked.
    """

    latency: float = 0.0
    jitter: float = 0.0
    hang: bool = False
    open_errno: int = 0
    read_errno: int = 0
    content: bytes | None = None
    garbage: bool = False
    truncate: int | None = None
    ones: bool = False
    vanish: bool = False

    def spoil(self, real: Callable[[], bytes], salt: int) -> bytes:
        """What is served in place of the real content; salt: makes garbage differ from file to file."""
        content = real() if self.content is None else self.content
        if self.garbage:
            content = random.Random(f"{salt}{content!r}").randbytes(max(1, len(content)))
        if self.ones:
            content = _all_ones(content)
        return content if self.truncate is None else content[: self.truncate]


def _all_ones(content: bytes) -> bytes:
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        # A table keeps the header that the driver writes.
        return content[:4] + b"\xff" * (len(content) - 4)
    return re.sub(r"\b\d+(\.\d+)?\b", "4294967295", text).encode()


@dataclass(slots=True, eq=False)
class Node:
    """A directory (entry None), file or link.

    number: of the inode; 1 is the root. owner: the PCI device that takes it along when it goes.
    device: the PCI device whose file it is; touching: reading it reaches that device.
    drivers: goes with the device's driver. generation: counts removals, so that descriptors opened before one
    are known to be stale.
    driven: what its content follows instead of the profile's.
    """

    number: int
    path: str
    entry: File | Link | None
    children: dict[bytes, "Node"] = field(default_factory=dict)
    owner: "LiveDevice | None" = None
    device: "LiveDevice | None" = None
    power_file: str = ""
    touching: bool = False
    drivers: bool = False
    generation: int = 0
    fault: Fault | None = None
    driven: Generate | None = None
    opens: int = 0
    reads: int = 0

    @property
    def alive(self) -> bool:
        """Can be looked up."""
        owner = self.owner
        if owner is not None and not (owner.present and (owner.bound or not self.drivers)):
            return False
        return self.fault is None or not self.fault.vanish

    def content(self, seconds: float) -> bytes:
        """What a read gives now, faults left aside. Raises OSError with the errno the read fails with."""
        if self.power_file and self.device is not None:
            data = self.device.power.read(self.power_file, seconds)
            if data is not None:
                return data
        if self.touching and self.device is not None and self.device.refuses:
            if isinstance(self.entry, File) and self.entry.in_reset is not None:
                return self.entry.in_reset
            raise OSError(self.device.refuses, "the driver is busy with a reset")
        if not isinstance(self.entry, File):
            raise IsADirectoryError(errno.EISDIR, "not a file")
        if self.entry.error:
            raise OSError(self.entry.error, "fails in the kernel too")
        if self.driven is not None:
            return self.driven(seconds)
        content = self.entry.at(seconds)
        if self.device is not None and not self.device.bound and self.path == f"{self.device.path}/uevent":
            return re.sub(rb"DRIVER=.*\n", b"", content)
        return content


@dataclass(slots=True, eq=False)
class LiveDevice:
    """A PCI function of the live tree.

    nodes: everything that goes away with it, the links to it from elsewhere included. parked: what its driver
    took along when it was taken off.
    bridge: has functions below it and cannot be removed here. bound: has its driver. refuses: errno that reads
    of its driver's files give during a reset, 0 for none. gpu: the model its values follow, if it is one.
    """

    address: str
    path: str
    power: RuntimePower
    nodes: list[Node] = field(default_factory=list)
    parked: list[Node] = field(default_factory=list)
    present: bool = True
    bridge: bool = False
    bound: bool = True
    refuses: int = 0
    gpu: Gpu | None = None

    @property
    def driver(self) -> str:
        """Name of its driver, empty where it has none at all."""
        for node in (*self.nodes, *self.parked):
            if node.path == f"{self.path}/driver" and isinstance(node.entry, Link):
                return posixpath.basename(node.entry.target)
        return ""


class LiveTree:
    """Nodes by number and by path, devices by PCI address."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.clock = tree.clock
        self.root = Node(1, "", None)
        self.nodes: dict[int, Node] = {1: self.root}
        self.paths: dict[str, Node] = {"": self.root}
        self.devices: dict[str, LiveDevice] = {}
        for path, entry in tree.entries.items():
            self._add(path, entry)
        self._find_devices()
        self._assign()
        for gpu in tree.gpus.values():
            gpu.remember(max(_LEAST_STEPS, _STEPS // len(tree.gpus)))

    def _add(self, path: str, entry: File | Link | None) -> Node:
        found = self.paths.get(path)
        if found is not None:
            return found
        parent_path, name = posixpath.split(path)
        parent = self._add(parent_path, None)
        node = Node(len(self.nodes) + 1, path, entry)
        parent.children[name.encode()] = node
        self.nodes[node.number] = self.paths[path] = node
        return node

    def _find_devices(self) -> None:
        for path, node in self.paths.items():
            name = posixpath.basename(path)
            if node.entry is None and path.startswith("sys/devices/") and is_pci_address(name):
                power = node.children[b"power"].children
                delay, status = power[b"autosuspend_delay_ms"].entry, power[b"runtime_status"].entry
                idle = int(delay.content) if isinstance(delay, File) and not delay.error else None
                active = isinstance(status, File) and status.content == b"active\n"
                bridge = any(
                    is_pci_address(child.decode()) and below.entry is None
                    for child, below in node.children.items()
                )
                self.devices[name] = LiveDevice(
                    name, path, RuntimePower(idle, active), bridge=bridge, gpu=self._tree.gpus.get(name)
                )
        for device in self.devices.values():
            above = self.devices.get(posixpath.basename(posixpath.dirname(device.path)))
            if above is not None:
                above.power.below.append(device.power)
            if device.gpu is not None:
                _follow(device.gpu, device.power)

    def _assign(self) -> None:
        by_path = {device.path: device for device in self.devices.values()}
        for node in self.paths.values():
            self._own(node, by_path)
        for directory, address in self._tree.reaches.items():
            self._belong(self.paths[directory], self.devices[address])

    def _belong(self, node: Node, device: LiveDevice) -> None:
        """Make a directory elsewhere, and all below it, part of what a device's driver shows."""
        node.owner = node.device = device
        node.drivers, node.touching = True, isinstance(node.entry, File)
        device.nodes.append(node)
        for child in node.children.values():
            self._belong(child, device)

    def _own(self, node: Node, by_path: dict[str, LiveDevice]) -> None:
        """Say whose file, directory or link a node is."""
        path = node.path
        device = self._nearest(path, by_path)
        inside = ""
        if device is not None:
            inside = path[len(device.path) + 1 :]
            node.device = device
            node.touching = isinstance(node.entry, File) and reaches_device(inside)
            node.power_file = inside if inside in _POWER_FILES else ""
        elif isinstance(node.entry, Link) and not node.entry.target.startswith("/"):
            goal = self._tree.resolve(path)
            device = self._nearest(goal, by_path)
            if device is not None:
                # /sys/bus/pci/drivers/<driver>/<address> leads to the device itself.
                inside = "driver" if path.startswith("sys/bus/pci/drivers/") else goal[len(device.path) + 1 :]
        if device is not None and not device.bridge:
            node.owner = device
            node.drivers = bool(inside) and is_drivers(inside)
            device.nodes.append(node)

    @staticmethod
    def _nearest(path: str, by_path: dict[str, LiveDevice]) -> LiveDevice | None:
        while path:
            if path in by_path:
                return by_path[path]
            path = posixpath.dirname(path)
        return None

    def match(self, pattern: str) -> list[Node]:
        """Files and links that match; fnmatch wildcards, `*` also across `/`; of a PCI address what reaches it.

        Links on the way to the first wildcard or the last part are followed, so class paths work. Raises
        LookupError where nothing matches: a fault on nothing would make a test that cannot fail.
        """
        parts = pattern.strip("/").split("/")
        if "/" not in pattern and not set(pattern) & set("*?["):
            return self._reached(self.device(pattern))
        plain = next((i for i, part in enumerate(parts[:-1]) if set(part) & set("*?[")), len(parts) - 1)
        try:
            prefix = self._tree.resolve("/".join(parts[:plain]))
        except KeyError:
            prefix = "/".join(parts[:plain])
        matches = re.compile(translate("/".join([prefix, *parts[plain:]]).lstrip("/"))).match
        found = [node for path, node in self.paths.items() if node.entry is not None and matches(path)]
        if not found:
            raise LookupError(f"no file matches {pattern}")
        return found

    @staticmethod
    def _reached(device: LiveDevice) -> list[Node]:
        found = [node for node in device.nodes if node.touching and node.alive]
        if not found:
            raise LookupError(f"{device.address} has no files that reach it now")
        return found

    def device(self, address: str) -> LiveDevice:
        """The device at a PCI address, or with the node `cardN` or `renderDN` now; raises LookupError."""
        if address in self.devices:
            return self.devices[address]
        for subsystem in ("drm", "accel"):
            node = self.paths.get(f"sys/class/{subsystem}/{address}")
            if node is not None and node.owner is not None and node.alive:
                return node.owner
        raise LookupError(f"no PCI device {address}")

    def remove(self, device: LiveDevice) -> None:
        """Take the device away with its links, nodes and hwmon. Raises ValueError for a bridge and twice."""
        if device.bridge:
            raise ValueError(f"{device.address} is a bridge; remove what is below it")
        if not device.present:
            raise ValueError(f"{device.address} is removed already")
        device.present = False
        for node in device.nodes:
            node.generation += 1

    def restore(self, device: LiveDevice) -> None:
        """Bring a removed device back under the same names; if it had no driver, still without.

        Raises ValueError where it is present.
        """
        if device.present:
            raise ValueError(f"{device.address} is present")
        device.present = True

    def unbind(self, device: LiveDevice) -> None:
        """Take the driver off a device: its files, nodes and hwmon go. Raises ValueError where it has none."""
        if device.bridge or not device.present or not device.bound:
            raise ValueError(f"{device.address} has no driver that could be taken off")
        device.bound = False
        device.refuses = 0
        device.parked = [node for node in device.nodes if node.drivers]
        device.nodes = [node for node in device.nodes if not node.drivers]
        for node in device.parked:
            node.generation += 1
            del self.paths[node.path]
            self._tree.entries.pop(node.path, None)
        for node in device.parked:
            parent = self.paths.get(posixpath.dirname(node.path))
            if parent is not None:
                del parent.children[posixpath.basename(node.path).encode()]

    def names(self, device: LiveDevice) -> dict[str, str]:
        """kind -> name of the device's nodes and hwmon, also while it has no driver."""
        below = len(device.path) + 1
        return node_names(
            node.path[below:]
            for node in (*device.nodes, *device.parked)
            if node.entry is None and node.device is device
        )

    def taken(self, device: LiveDevice) -> set[str]:
        """Names of nodes and chips that other devices have, those included that were removed."""
        names: set[str] = set()
        for subsystem in ("drm", "accel", "hwmon"):
            class_node = self.paths.get(f"sys/class/{subsystem}")
            for name, node in class_node.children.items() if class_node is not None else ():
                if node.owner is not device:
                    names.add(name.decode())
        return names

    def bind(self, device: LiveDevice, names: Mapping[str, str]) -> None:
        """Give it its driver again; names: old node name -> new one. Raises ValueError where it has one."""
        if device.bound or not device.present:
            raise ValueError(f"{device.address} has its driver, or is not there")
        if set(names.values()) & self.taken(device):
            raise ValueError(f"{', '.join(names.values())}: one of these is taken")
        device.bound = True
        changes = {old: new for old, new in names.items() if old != new}
        nodes = sorted((self._renamed(node, changes) for node in device.parked), key=lambda node: node.path)
        device.parked = []
        for node in nodes:
            self.paths[node.path] = node
            if node.entry is not None:
                self._tree.entries[node.path] = node.entry
        by_path = {device.path: device}
        for node in nodes:
            parent = self.paths[posixpath.dirname(node.path)]
            parent.children[posixpath.basename(node.path).encode()] = node
            if node.path.startswith("proc/"):
                node.owner = node.device = device
                device.nodes.append(node)
            else:
                self._own(node, by_path)

    def _renamed(self, node: Node, changes: Mapping[str, str]) -> Node:
        """The node as it is, or another one where its name or what it says changes."""
        path, entry = renamed(node.path, changes), self._moved_entry(node, changes)
        if path == node.path and entry == node.entry:
            # Children that got another name are put in anew.
            node.children.clear()
            return node
        made = Node(len(self.nodes) + 1, path, entry)
        self.nodes[made.number] = made
        return made

    @staticmethod
    def _moved_entry(node: Node, changes: Mapping[str, str]) -> File | Link | None:
        path = renamed(node.path, changes)
        if isinstance(node.entry, File):
            return renamed_content(path, node.entry, changes)
        if isinstance(node.entry, Link) and not node.entry.target.startswith("/"):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(node.path), node.entry.target))
            return Link(kernfs_target(path, renamed(target, changes)))
        return node.entry


def _follow(gpu: Gpu, power: RuntimePower) -> None:
    """Let a model sleep and wake with its device."""
    gpu.prepare = power.advance
    power.changed = lambda moment, active: gpu.sleep(moment, not active)
    if not power.active:
        gpu.sleep(0.0, True)
