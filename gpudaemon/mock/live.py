"""The tree of a live mock host: nodes that can be looked up, with faults on files and devices that come and go.

What a reader meets follows kernfs: a file that was removed is not found any more, and a descriptor opened
before gives ENODEV, also after the file came back (fs/kernfs/file.c, kernfs_get_active).
"""

import errno
import posixpath
import re
from dataclasses import dataclass, field
from fnmatch import translate

from gpudaemon.mock.power import RuntimePower, touches
from gpudaemon.mock.tree import File, Generate, Link, Tree
from gpudaemon.model.device import is_pci_address

__all__ = ["Fault", "LiveDevice", "LiveTree", "Node"]

_POWER_FILES = (
    *("power/runtime_status", "power/runtime_active_time", "power/runtime_suspended_time"),
    *("power/control", "power/autosuspend_delay_ms", "power_state"),
)


@dataclass(slots=True)
class Fault:
    """What is wrong with a file; kinds add up.

    latency: seconds before each answer; jitter: up to so many more, evenly spread. hang: no answer until
    released. open_errno, read_errno: 0 for none. content: served instead of the real one. vanish: unlinked.
    """

    latency: float = 0.0
    jitter: float = 0.0
    hang: bool = False
    open_errno: int = 0
    read_errno: int = 0
    content: bytes | None = None
    vanish: bool = False


@dataclass(slots=True, eq=False)
class Node:
    """A directory (entry None), file or link.

    number: of the inode; 1 is the root. owner: the PCI device that takes it along when it goes.
    device: the PCI device whose file it is; touching: reading it reaches that device.
    generation: counts removals, so that descriptors opened before one are known to be stale.
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
    generation: int = 0
    fault: Fault | None = None
    driven: Generate | None = None
    opens: int = 0
    reads: int = 0

    @property
    def alive(self) -> bool:
        """Can be looked up."""
        if self.owner is not None and not self.owner.present:
            return False
        return self.fault is None or not self.fault.vanish

    def content(self, seconds: float) -> bytes:
        """What a read gives now, faults left aside. Raises OSError with the errno the read fails with."""
        if self.power_file and self.device is not None:
            data = self.device.power.read(self.power_file, seconds)
            if data is not None:
                return data
        if not isinstance(self.entry, File):
            raise IsADirectoryError(errno.EISDIR, "not a file")
        if self.entry.error:
            raise OSError(self.entry.error, "fails in the kernel too")
        if self.driven is not None:
            return self.driven(seconds)
        return self.entry.at(seconds)


@dataclass(slots=True, eq=False)
class LiveDevice:
    """A PCI function of the live tree.

    nodes: everything that goes away with it, the links to it from elsewhere included.
    bridge: has functions below it and cannot be removed here.
    """

    address: str
    path: str
    power: RuntimePower
    nodes: list[Node] = field(default_factory=list)
    present: bool = True
    bridge: bool = False


class LiveTree:
    """Nodes by number and by path, devices by PCI address."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.root = Node(1, "", None)
        self.nodes: dict[int, Node] = {1: self.root}
        self.paths: dict[str, Node] = {"": self.root}
        self.devices: dict[str, LiveDevice] = {}
        for path, entry in tree.entries.items():
            self._add(path, entry)
        self._find_devices()
        self._assign()

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
                self.devices[name] = LiveDevice(name, path, RuntimePower(idle, active), bridge=bridge)
        for device in self.devices.values():
            above = self.devices.get(posixpath.basename(posixpath.dirname(device.path)))
            if above is not None:
                above.power.below.append(device.power)

    def _assign(self) -> None:
        by_path = {device.path: device for device in self.devices.values()}
        for path, node in self.paths.items():
            device = self._nearest(path, by_path)
            if device is not None:
                inside = path[len(device.path) + 1 :]
                node.device = device
                node.touching = isinstance(node.entry, File) and touches(inside)
                node.power_file = inside if inside in _POWER_FILES else ""
            elif isinstance(node.entry, Link) and not node.entry.target.startswith("/"):
                device = self._nearest(self._tree.resolve(path), by_path)
            if device is not None and not device.bridge:
                node.owner = device
                device.nodes.append(node)

    @staticmethod
    def _nearest(path: str, by_path: dict[str, LiveDevice]) -> LiveDevice | None:
        while path:
            if path in by_path:
                return by_path[path]
            path = posixpath.dirname(path)
        return None

    def match(self, pattern: str) -> list[Node]:
        """Files and links that match; fnmatch wildcards, `*` also across `/`.

        Links on the way to the first wildcard or the last part are followed, so class paths work. Raises
        LookupError where nothing matches: a fault on nothing would make a test that cannot fail.
        """
        parts = pattern.strip("/").split("/")
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

    def device(self, address: str) -> LiveDevice:
        """The device at a PCI address; raises LookupError."""
        try:
            return self.devices[address]
        except KeyError:
            raise LookupError(f"no PCI device {address}") from None

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
        """Bring a removed device back under the same names. Raises ValueError where it is present."""
        if device.present:
            raise ValueError(f"{device.address} is present")
        device.present = True
