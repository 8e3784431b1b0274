"""What the driver of a PCI device brings and takes: which files are its own, and new numbers for its nodes.

What stays of a device without a driver is what the PCI, PM and IOMMU cores print (drivers/pci/pci-sysfs.c). A
driver that is bound again gets the lowest free numbers: of DRM minors (drivers/gpu/drm/drm_drv.c,
drm_minor_alloc), of hwmon (drivers/hwmon/hwmon.c, hwmon_ida). A minor is free only when the last process has
closed the old node, so a card in use comes back as another one.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping

from gpudaemon.mock.tree import File
from gpudaemon.model.from_memory import CORE_FILES

__all__ = ["is_drivers", "lowest_free", "node_names", "renamed", "renamed_content"]

_CORE = CORE_FILES | {
    *("power", "subsystem", "iommu_group", "config", "vpd", "link", "msi_irqs", "reset", "reset_method"),
    *("current_link_speed", "current_link_width", "max_link_speed", "max_link_width", "firmware_node"),
    *("driver_override", "remove", "rescan", "sriov_numvfs", "sriov_totalvfs", "physfn", "index", "label"),
}
_MAJORS = {"card": 226, "renderD": 226, "accel": 261}
_NODE = re.compile(r"(card|renderD|accel|hwmon)(\d+)")


def is_drivers(inside: str) -> bool:
    """True where the file or link `inside` the device's directory goes with its driver."""
    first = inside.split("/", 1)[0]
    return first not in _CORE and re.fullmatch(r"resource\d+(_wc)?|virtfn\d+", first) is None


def node_names(inside: Iterable[str]) -> dict[str, str]:
    """kind (card, renderD, accel, hwmon) -> name of that node, from paths inside a device's directory."""
    found: dict[str, str] = {}
    for path in inside:
        parts = path.split("/")
        if len(parts) > 1 and parts[0] in ("drm", "accel", "hwmon"):
            match = _NODE.fullmatch(parts[1])
            if match is not None:
                found[match.group(1)] = parts[1]
    return found


def lowest_free(kind: str, taken: Iterable[str]) -> int:
    """The number the kernel gives the next node of a kind, of those that are not among the names `taken`."""
    names = set(taken)
    number = 128 if kind == "renderD" else 0
    while f"{kind}{number}" in names:
        number += 1
    return number


def renamed(path: str, names: Mapping[str, str]) -> str:
    """`path` with old node names exchanged for new ones: directories, connectors, links in /sys/dev/char."""
    numbers = {_device_number(old): _device_number(new) for old, new in names.items() if _device_number(old)}
    parts = []
    for part in path.split("/"):
        head, dash, rest = part.partition("-")
        parts.append(numbers.get(part) or names.get(head, head) + dash + rest)
    return "/".join(parts)


def _device_number(name: str) -> str:
    match = _NODE.fullmatch(name)
    if match is None or match.group(1) not in _MAJORS:
        return ""
    return f"{_MAJORS[match.group(1)]}:{match.group(2)}"


def renamed_content(path: str, entry: File, names: Mapping[str, str]) -> File:
    """The file at the new `path` of a node, its numbers in `dev` and `uevent` exchanged."""
    name = posixpath.basename(path)
    if name not in ("dev", "uevent"):
        return entry
    text = entry.content.decode()
    for old, new in names.items():
        old_number, new_number = _device_number(old), _device_number(new)
        if name == "dev" and old_number and text.strip() == old_number:
            return File(f"{new_number}\n".encode(), entry.mode)
        if f"/{old}\n" in text:
            minor = new_number.partition(":")[2]
            text = re.sub(r"MINOR=\d+", f"MINOR={minor}", text.replace(f"/{old}\n", f"/{new}\n"))
    return File(text.encode(), entry.mode)
