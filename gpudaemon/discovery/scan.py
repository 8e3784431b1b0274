"""What sysfs shows of this host's GPUs and sensors, by listing directories and reading links only.

No file is opened: an attribute's show() runs in the driver, and discovery must work when the driver does not.
The class directories (`class/drm`, `class/accel`, `class/hwmon`) hold links into `devices/`; a device is the
directory a node or chip hangs from. A PCI GPU that has no node shows only as a PCI function:
`unclaimed_pci` lists those, for a caller that can read their class.

Documentation/admin-guide/sysfs-rules.rst; drivers/gpu/drm/drm_sysfs.c. Directories come and go while they are
listed: what vanished is left out, and no function here raises for it.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gpudaemon.discovery.cxl import bus_device
from gpudaemon.discovery.gpudirect import buffers_device, gpudirect_device, with_nvidia_fs
from gpudaemon.discovery.kfd import topology_device
from gpudaemon.discovery.memory import memory_device, with_procfs
from gpudaemon.discovery.memory_tiers import tiers_device
from gpudaemon.model.device import PROC, Device, DeviceKind, is_pci_address
from gpudaemon.model.forbidden import is_forbidden

__all__ = ["MOST_NAMES", "bridges", "is_gpu_class", "scan", "unclaimed_pci", "with_proc"]

MOST_NAMES = 4096
"""Names kept of one device; an amdgpu function has about 300, a B580 about 600."""
_DEEPEST = 4

_CLASSES = (
    ("class/drm", re.compile(r"card\d+|renderD\d+", re.ASCII)),
    ("class/accel", re.compile(r"accel\d+", re.ASCII)),
)
_ENDPOINTS = (
    ("class/infiniband", re.compile(r"[^/]+"), DeviceKind.NIC, "infiniband"),
    ("class/nvme", re.compile(r"nvme\d+", re.ASCII), DeviceKind.NVME, "nvme"),
    ("bus/cxl/devices", re.compile(r"mem\d+", re.ASCII), DeviceKind.CXL, ""),
)
"""What GPUs exchange data with: directory of links, their names, kind, directory between device and node."""
_CHIP = re.compile(r"hwmon\d+", re.ASCII)
_FREQUENCY = re.compile(r"[^/]+", re.ASCII)
_COUNTERS = re.compile(r"i915|(?:i915|xe)_[0-9a-f]{4,8}_[0-9a-f]{2}_[0-9a-f]{2}\.[0-7]", re.ASCII)
_CXL_COUNTERS = re.compile(r"cxl_pmu_(mem\d{1,5})\.\d{1,3}", re.ASCII)
_INTEGRATED = "0000:00:02.0"
_NVIDIA = ("information", "numa_status")
"""Files of /proc/driver/nvidia/gpus/* that are read; `registry` and `unbindLock` act when they are written."""
_CONNECTOR = re.compile(r"card\d+-.*", re.ASCII)
_HIVE = "xgmi_hive_info"
_PARTITION = re.compile(r"amdgpu_xcp_\d+", re.ASCII)

_is_hidden = lru_cache(maxsize=8192)(is_forbidden)
"""Cards of one driver have the same names: matching them all against every pattern was most of a scan."""


def is_gpu_class(pci_class: int) -> bool:
    """True for display controllers, 0x03xxxx, and processing accelerators, 0x12xxxx (linux/pci_ids.h)."""
    return pci_class >> 16 in (0x03, 0x12)


@dataclass(slots=True)
class _Found:
    """A device directory and what hangs from it: node names, directories of nodes and chips to list."""

    nodes: set[str] = field(default_factory=set)
    extra: set[str] = field(default_factory=set)


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError:
        return []


def _basename_of_link(path: str) -> str:
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def _holder_of_link(path: str) -> str:
    """The name of the directory that holds what a link leads to."""
    try:
        return os.path.basename(os.path.dirname(os.readlink(path)))
    except OSError:
        return ""


def _members(sysfs: str, directory: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """(name, resolved path below the root) of a class directory's links; sysfs links are relative."""
    base = os.path.join(sysfs, directory)
    for entry in _entries(base):
        if pattern.fullmatch(entry.name) is None:
            continue
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue
        path = os.path.normpath(os.path.join(directory, target))
        if path.startswith("devices/"):
            yield entry.name, path


def _walk(root: str, relative: str, entries: Iterable[os.DirEntry[str]], depth: int, names: set[str]) -> None:
    """Collect the files below a directory whose entries are already listed; child devices are left out."""
    for entry in entries:
        path = relative + entry.name
        try:
            if entry.is_symlink():
                continue
            is_directory = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        if len(names) >= MOST_NAMES:
            return
        if not is_directory:
            if not _is_hidden(path):
                names.add(path)
            continue
        if depth == 0 or _CONNECTOR.fullmatch(entry.name):
            continue
        below = _entries(entry.path)
        if any(child.name == "subsystem" for child in below):
            continue  # a device of its own; nodes and chips of this one are listed by name
        _walk(root, f"{path}/", below, depth - 1, names)


def _parents(path: str) -> tuple[str, ...]:
    """PCI functions above a device, nearest first."""
    above = path.split("/")[:-1]
    return tuple(part for part in reversed(above) if is_pci_address(part))


def _describe(sysfs: str, path: str, kind: DeviceKind, found: _Found) -> Device | None:
    """List a device directory; None where it has gone."""
    root = os.path.join(sysfs, path)
    entries = _entries(root)
    if not entries:
        return None
    links: dict[str, str] = {}
    for entry in entries:
        if entry.is_symlink():
            links[entry.name] = _basename_of_link(entry.path)
    if _HIVE in links:
        # One directory for all members of the hive, below the first of them: whose it is names the hive
        # without a read through another GPU, which may hang.
        links[_HIVE] = _holder_of_link(os.path.join(root, _HIVE))
    names: set[str] = set()
    for extra in sorted(found.extra):
        relative = os.path.relpath(extra, path)
        prefix = "" if relative == "." else f"{relative}/"
        _walk(root, prefix, _entries(os.path.join(sysfs, extra)), _DEEPEST, names)
    _walk(root, "", entries, _DEEPEST, names)
    if kind is DeviceKind.GPU and "physfn" in links:
        kind = DeviceKind.VIRTUAL_FUNCTION
    return Device(
        id=os.path.basename(path),
        kind=kind,
        path=path,
        subsystem=links.get("subsystem", ""),
        driver=links.get("driver", ""),
        nodes=tuple(sorted(found.nodes)),
        names=frozenset(names),
        links=tuple(sorted(links.items())),
        parents=_parents(path),
    )


def _gpus(sysfs: str) -> dict[str, _Found]:
    """Device directories with a DRM or accel node, by path."""
    gpus: dict[str, _Found] = {}
    for directory, pattern in _CLASSES:
        subsystem = os.path.basename(directory)
        for name, node in _members(sysfs, directory, pattern):
            device, middle = os.path.split(os.path.dirname(node))
            if middle != subsystem or device in ("devices", "devices/virtual"):
                device = node  # a node without a device, such as the older vkms
            found = gpus.setdefault(device, _Found())
            found.nodes.add(name)
            found.extra.add(node)
    return gpus


def _endpoints(sysfs: str) -> Iterator[tuple[str, DeviceKind, str]]:
    """(path of the device, kind, path of the node) of RDMA devices, NVMe controllers and CXL memory.

    A node that hangs from no PCI function (rdma_rxe, NVMe over fabrics) is a device by itself.
    """
    for directory, pattern, kind, middle in _ENDPOINTS:
        for _, node in _members(sysfs, directory, pattern):
            above = os.path.dirname(node)
            if middle and os.path.basename(above) == middle:
                above = os.path.dirname(above)
            yield above if is_pci_address(os.path.basename(above)) else node, kind, node


def _owner(chip: str, known: Collection[str]) -> str:
    """Path of the device a hwmon chip belongs to: a known one above it, its PCI function, else its parent.

    A chip is `<parent>/hwmon/hwmonK`, or `<parent>/hwmonK` where the parent is itself of a class (nvme0).
    """
    parent = os.path.dirname(chip)
    if os.path.basename(parent) == "hwmon":
        parent = os.path.dirname(parent)
    path = parent
    while path not in ("devices", ""):
        if path in known or is_pci_address(os.path.basename(path)):
            return path
        path = os.path.dirname(path)
    return chip if parent == "devices/virtual" else parent


def _bridge_paths(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        above = os.path.dirname(path)
        while above not in ("devices", ""):
            if is_pci_address(os.path.basename(above)):
                found.add(above)
            above = os.path.dirname(above)
    return found


def bridges(sysfs: str, devices: Iterable[Device]) -> tuple[Device, ...]:
    """PCI functions above the GPUs among `devices` that are not themselves among them, sorted by id."""
    devices = tuple(devices)
    gpus = [device.path for device in devices if device.kind is DeviceKind.GPU]
    missing = _bridge_paths(gpus) - {device.path for device in devices}
    found = (_describe(sysfs, path, DeviceKind.PCI, _Found()) for path in missing)
    return tuple(sorted((device for device in found if device is not None), key=lambda device: device.id))


def _unique_ids(devices: Iterable[Device]) -> Iterator[Device]:
    """Basenames of directories on different buses may coincide: the second gets its parent's in front."""
    taken: set[str] = set()
    for device in devices:
        name = device.id
        above = os.path.dirname(device.path)
        while name in taken and above:
            name = f"{os.path.basename(above)}/{name}"
            above = os.path.dirname(above)
        taken.add(name)
        yield replace(device, id=name)


def scan(sysfs: str) -> tuple[Device, ...]:
    """Every device with a DRM or accel node or a hwmon chip, what GPUs exchange data with, and the PCI bridges
    above those.

    KFD's topology is a device as well, and so are the CXL bus, the memory tiers, what GPUDirect has of its own
    and the list of buffers that drivers share. A GPU's frequency scaler (`class/devfreq`), a device of its own
    right below it, is listed among its names, and so is what describes perf counters (`bus/event_source`), of
    GPUs and of CXL memory.
    sysfs: its mount point, `/sys`. Sorted by kind, then id. Never raises for what vanishes meanwhile; empty
    where there is no sysfs.
    """
    found = _gpus(sysfs)
    kinds = {
        path: DeviceKind.PARTITION if _PARTITION.fullmatch(os.path.basename(path)) else DeviceKind.GPU
        for path in found
    }
    for path, kind, node in _endpoints(sysfs):
        if kinds.setdefault(path, kind) is kind:
            of = found.setdefault(path, _Found())
            of.nodes.add(os.path.basename(node))
            of.extra.add(node)
    for path in _bridge_paths(tuple(kinds)):
        if path not in kinds:
            kinds[path] = DeviceKind.PCI
            found[path] = _Found()
    for _, chip in sorted(_members(sysfs, "class/hwmon", _CHIP)):
        owner = _owner(chip, kinds)
        kinds.setdefault(owner, DeviceKind.HWMON)
        found.setdefault(owner, _Found()).extra.add(chip)
    for _, scaler in sorted(_members(sysfs, "class/devfreq", _FREQUENCY)):
        owner = os.path.dirname(os.path.dirname(scaler))  # <GPU>/devfreq/<its name>
        if kinds.get(owner) is DeviceKind.GPU:
            found[owner].extra.add(scaler)
    for name, counters in sorted(_members(sysfs, "bus/event_source/devices", _COUNTERS)):
        # `xe_0000_03_00.0`; i915's integrated GPU has no address in the name, it is always this one.
        address = name.partition("_")[2].replace("_", ":") or _INTEGRATED
        for owner in [path for path in found if os.path.basename(path) == address]:
            found[owner].extra.add(counters)
    for name, counters in sorted(_members(sysfs, "bus/event_source/devices", _CXL_COUNTERS)):
        memdev = name.removeprefix("cxl_pmu_").partition(".")[0]
        for owner in [path for path, one in found.items() if memdev in one.nodes]:
            found[owner].extra.add(counters)
    devices = [_describe(sysfs, path, kinds[path], found[path]) for path in kinds]
    devices += [topology_device(sysfs), bus_device(sysfs), tiers_device(sysfs), gpudirect_device(sysfs)]
    devices.append(memory_device(sysfs))
    if DeviceKind.GPU in kinds.values():
        devices.append(buffers_device(sysfs))
    order = list(DeviceKind)
    known = sorted(
        (device for device in devices if device is not None),
        key=lambda device: (order.index(device.kind), device.id, device.path),
    )
    return tuple(_unique_ids(known))


def with_proc(procfs: str, device: Device) -> Device:
    """The device with what its driver shows of it in procfs, which NVIDIA's do, and the memory manager of the
    host's memory; listed, not opened."""
    if device.kind is DeviceKind.MEMORY:
        return with_procfs(procfs, device)
    device = with_nvidia_fs(procfs, device)
    if device.driver != "nvidia":
        return device
    directory = f"driver/nvidia/gpus/{device.id}"
    names = {f"{PROC}{directory}/{name}" for name in _NVIDIA if os.path.exists(f"{procfs}/{directory}/{name}")}
    if names:
        names.add(f"{PROC}driver/nvidia/version")
    return replace(device, names=device.names | names)


def unclaimed_pci(sysfs: str, devices: Iterable[Device]) -> tuple[Device, ...]:
    """PCI functions that are not among `devices`, as GPUs to be: keep those whose `class` says so.

    The caller reads the file `class` of each, keeps those for which `is_gpu_class` holds, and asks `bridges`
    for what is above them. Sorted by id.
    """
    known = {device.path for device in devices}
    members = _members(sysfs, "bus/pci/devices", re.compile(r"[0-9a-f:.]+"))
    found = (
        _describe(sysfs, path, DeviceKind.GPU, _Found())
        for name, path in members
        if path not in known and is_pci_address(name)
    )
    return tuple(sorted((device for device in found if device is not None), key=lambda device: device.id))
