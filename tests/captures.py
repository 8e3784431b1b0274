"""Real captures as sysfs trees, and what this project makes of a tree, without the daemon around it.

Captures are other projects' test data and lie outside this repository: `GPUDAEMON_CAPTURES` names their folder
(docs/testing.md says what is in it). Most were made by copying files, which loses symbolic links and pads files
to the size stat() gives; the adapters here put both right: a device goes where its `uevent` says it was,
`class/` and `bus/` link to it, trailing NULs are dropped.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from prometheus_client.samples import Sample

from gpudaemon.discovery.scan import bridges, is_gpu_class, scan, unclaimed_pci
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu
from gpudaemon.model.device import Device
from gpudaemon.parsers.integer import hexadecimal
from gpudaemon.pipeline.plan import facts_needed, make_plan

VARIABLE = "GPUDAEMON_CAPTURES"


def capture(*parts: str) -> str:
    """Path of a capture; skips the test where there are none, fails where this one is missing."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set: no captures")
    path = os.path.join(root, *parts)
    assert os.path.exists(path), f"{VARIABLE} is set but {'/'.join(parts)} is missing"
    return path


def names(*parts: str) -> list[str]:
    """Sub-directories of a folder of captures, for parametrisation; one made-up name where there are none."""
    root = os.environ.get(VARIABLE)
    path = os.path.join(root, *parts) if root else ""
    if not os.path.isdir(path):
        return ["none"]
    return sorted(name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name)))


def files(*parts: str, suffix: str = "") -> list[str]:
    """Files of a folder of captures, for parametrisation; one made-up name where there are none."""
    root = os.environ.get(VARIABLE)
    path = os.path.join(root, *parts) if root else ""
    if not os.path.isdir(path):
        return ["none"]
    about = ("SOURCE", "LICENSE.upstream", "NOTICE", "README.upstream")
    found = (name for name in os.listdir(path) if os.path.isfile(os.path.join(path, name)))
    return sorted(name for name in found if name.endswith(suffix) and name not in about)


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def _link(path: str, target: str) -> None:
    """A relative link as sysfs has them; both paths are absolute."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.lexists(path):
        os.symlink(os.path.relpath(target, os.path.dirname(path)), path)


def _copy_file(source: str, target: str) -> None:
    with open(source, "rb") as file:
        content = file.read()
    name = os.path.basename(source)
    if name == "gpu_metrics":
        content = content[: int.from_bytes(content[:2], "little")]  # its header says how long it is
    elif len(content) >= 4096 and name != "config":
        content = content.rstrip(b"\0")
    _write(target, content)


def _copy(source: str, target: str) -> None:
    for directory, _, files in os.walk(source):
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                _copy_file(path, os.path.join(target, os.path.relpath(path, source)))


def _uevent(directory: str) -> dict[str, str]:
    with open(os.path.join(directory, "uevent"), "rb") as file:
        text = file.read().rstrip(b"\0").decode()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def add_pci(sysfs: str, address: str, driver: str = "", above: str = "") -> str:
    """A PCI function's directory with its links; above: path of the bridge, else the host bridge."""
    path = os.path.join(sysfs, above or f"devices/pci{address[:7]}", address)
    os.makedirs(path, exist_ok=True)
    os.makedirs(os.path.join(sysfs, "bus/pci/drivers"), exist_ok=True)
    _link(os.path.join(path, "subsystem"), os.path.join(sysfs, "bus/pci"))
    _link(os.path.join(sysfs, "bus/pci/devices", address), path)
    if driver:
        os.makedirs(os.path.join(sysfs, "bus/pci/drivers", driver), exist_ok=True)
        _link(os.path.join(path, "driver"), os.path.join(sysfs, "bus/pci/drivers", driver))
    return path


def link_classes(sysfs: str, device: str) -> None:
    """Give the nodes and chips below `device` (absolute) their `class/` and `subsystem` links."""
    for directory, subdirectories, _ in os.walk(device):
        for name in subdirectories:
            path = os.path.join(directory, name)
            kind = ""
            if re.fullmatch(r"hwmon\d+", name):
                kind = "hwmon"
            elif os.path.basename(directory) == "drm" and re.fullmatch(r"(card|renderD)\d+", name):
                kind = "drm"
            if kind and not os.path.islink(path):
                _link(os.path.join(sysfs, "class", kind, name), path)
                _link(os.path.join(path, "subsystem"), os.path.join(sysfs, "class", kind))


def add_card(sysfs: str, source: str, card: str) -> str:
    """A PCI device directory somebody copied (with its `uevent`) as the device of node `card`; its address."""
    uevent = _uevent(source)
    address = uevent.get("PCI_SLOT_NAME", "0000:01:00.0")
    path = add_pci(sysfs, address, uevent.get("DRIVER", ""))
    _copy(source, path)
    os.makedirs(os.path.join(path, "drm", card), exist_ok=True)
    link_classes(sysfs, path)
    return address


def from_card_folder(source: str, sysfs: str) -> str:
    """`cardN/device/…` as LACT keeps it."""
    card = next(name for name in sorted(os.listdir(source)) if re.fullmatch(r"card\d+", name))
    address = add_card(sysfs, os.path.join(source, card, "device"), card)
    node = os.path.join(sysfs, "class/drm", card)
    for name in os.listdir(os.path.join(source, card)):
        path = os.path.join(source, card, name)
        if os.path.isdir(path) and name != "device":
            _copy(path, os.path.join(node, name))
        elif os.path.isfile(path):
            _copy_file(path, os.path.join(node, name))
    return address


def add_kfd(sysfs: str, source: str) -> None:
    """A copied `topology/` as sysfs has it."""
    home = os.path.join(sysfs, "devices/virtual/kfd/kfd")
    shutil.copytree(source, os.path.join(home, "topology"))
    for directory, _, _ in os.walk(home):
        os.chmod(directory, 0o755)  # captures may be read-only, and this is removed again
    os.makedirs(os.path.join(sysfs, "class/kfd"), exist_ok=True)
    os.symlink("../../devices/virtual/kfd/kfd", os.path.join(sysfs, "class/kfd/kfd"))


def unpack_ttar(archive: str, directory: str) -> None:
    """Unpack Prometheus' text archive (https://github.com/ideaship/ttar): Path, then Lines or SymlinkTo."""
    with open(archive, "rb") as file:
        lines = iter(file.read().split(b"\n"))
    path = ""
    for line in lines:
        key, _, value = line.partition(b": ")
        if key == b"Path":
            path = os.path.join(directory, value.decode())
        elif key == b"Directory":
            os.makedirs(os.path.join(directory, value.decode()), exist_ok=True)
        elif key == b"SymlinkTo":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(value.decode(), path)
        elif key == b"Lines":
            body = b"".join(next(lines) + b"\n" for _ in range(int(value))).replace(b"NULLBYTE", b"\0")
            _write(path, body.removesuffix(b"EOF\n"))


def straighten(sysfs: str) -> None:
    """Make a tree that upstream edited look like sysfs: real directories in `class/` move below `devices/`."""
    for name in sorted(
        os.listdir(os.path.join(sysfs, "class/drm")) if os.path.isdir(f"{sysfs}/class/drm") else ()
    ):
        card = os.path.join(sysfs, "class/drm", name)
        if os.path.isdir(card) and not os.path.islink(card):
            shutil.move(card, os.path.join(sysfs, "moved", name))
            add_card(sysfs, os.path.join(sysfs, "moved", name, "device"), name)
    chips = os.path.join(sysfs, "class/hwmon")
    for name in sorted(os.listdir(chips)) if os.path.isdir(chips) else ():
        chip = os.path.join(chips, name)
        if not os.path.islink(chip):
            path = os.path.join(sysfs, "devices/virtual/hwmon", name)
            shutil.move(chip, path)
            _link(chip, path)
    functions = os.path.join(sysfs, "bus/pci/devices")
    for name in os.listdir(functions) if os.path.isdir(functions) else ():
        _link(os.path.join(functions, name, "subsystem"), os.path.join(sysfs, "bus/pci"))
    for bus, home in (("node", "system/node"), ("memory_tiering", "virtual/memory_tiering")):
        directory = os.path.join(sysfs, "devices", home)
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            if re.fullmatch(r"(node|memory_tier)\d+", name):
                _link(os.path.join(sysfs, "bus", bus, "devices", name), os.path.join(directory, name))
    link_classes(sysfs, os.path.join(sysfs, "devices"))


def from_lspci(listing: str, sysfs: str) -> dict[str, int]:
    """`lspci -vmmnD` text as PCI functions with their identity files; address -> class code."""
    classes = {}
    with open(listing, encoding="utf-8") as file:
        records = file.read().split("\n\n")
    for record in records:
        fields = dict(line.split(":\t", 1) for line in record.splitlines() if ":\t" in line)
        if "Slot" not in fields:
            continue
        path = add_pci(sysfs, fields["Slot"], fields.get("Driver", ""))
        code = int(fields["Class"] + fields.get("ProgIf", "00"), 16)
        classes[fields["Slot"]] = code
        _write(f"{path}/class", b"0x%06x\n" % code)
        for name, key in (("vendor", "Vendor"), ("device", "Device"), ("revision", "Rev")):
            if key in fields:
                _write(f"{path}/{name}", f"0x{fields[key]}\n".encode())
        if "IOMMUGroup" in fields:
            os.makedirs(f"{sysfs}/kernel/iommu_groups/{fields['IOMMUGroup']}", exist_ok=True)
            _link(f"{path}/iommu_group", f"{sysfs}/kernel/iommu_groups/{fields['IOMMUGroup']}")
    return classes


def from_tarball(archive: str, directory: str) -> str:
    """A tarball of a whole /sys (links kept), with the `subsystem` links its maker left out."""
    with tarfile.open(archive) as tar:
        unpack(tar, directory)
    sysfs = os.path.join(directory, "sys")
    straighten(sysfs)
    return sysfs


def unpack_host(archive: str, directory: str) -> str:
    """A tarball of one folder that holds sys and proc (hwloc's form); its path."""
    with tarfile.open(archive) as tar:
        unpack(tar, directory)
    (host,) = os.listdir(directory)
    straighten(os.path.join(directory, host, "sys"))
    return os.path.join(directory, host)


def unpack(tar: tarfile.TarFile, directory: str) -> None:
    """Members as they are, writable; those and links that lead out of the tree are left out.

    What `filter="data"` of newer versions of Python does, which 3.11 has from 3.11.4 on only.
    """
    top = os.path.realpath(directory)
    members = []
    for member in tar:
        place = os.path.join(top, member.name)
        target = place
        if member.issym():
            target = os.path.join(os.path.dirname(place), member.linkname)
        elif member.islnk():
            target = os.path.join(top, member.linkname)
        elif not (member.isreg() or member.isdir()):
            continue
        if all(os.path.commonpath((top, os.path.normpath(one))) == top for one in (place, target)):
            member.mode = 0o755
            members.append(member)
    tar.extractall(directory, members)


def devices(sysfs: str, every_function: bool = False) -> list[Device]:
    """What discovery finds, PCI GPUs without a node included; every_function: all other PCI functions too."""
    found = list(scan(sysfs))
    for function in unclaimed_pci(sysfs, found):
        content = read(sysfs, function, "class")
        if every_function or (content is not None and is_gpu_class(hexadecimal(content))):
            found.append(function)
    return found + list(bridges(sysfs, found))


def read(sysfs: str, device: Device, path: str) -> bytes | None:
    """A file of a device, None where it cannot be read.

    An empty file of a capture is what a failed read left behind: `power/autosuspend_delay_ms` answers EIO where
    autosuspend is not in use, a firmware that is silent ENODATA.
    """
    try:
        with open(os.path.join(sysfs, device.path, path), "rb") as file:
            return file.read(65536) or None
    except OSError:
        return None


@dataclass
class Page:
    """samples: (name, labels, value). malformed: (device, path, reason). unknown: series without a value."""

    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)
    malformed: list[tuple[str, str, str]] = field(default_factory=list)
    unknown: int = 0

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one series with these labels (others may be there too), None where there is none."""
        found = [
            value
            for sample, pairs, value in self.samples
            if sample == name and all(pairs.get(key) == text for key, text in labels.items())
        ]
        assert len(found) <= 1, (name, labels, found)
        return found[0] if found else None

    def info(self, name: str, **labels: str) -> Mapping[str, str]:
        """Labels of the first such info, empty where there is none."""
        for sample, pairs, _ in self.samples:
            if sample == name and all(pairs.get(key) == text for key, text in labels.items()):
                return pairs
        return {}


def _rows(sysfs: str, device: Device, page: Page) -> Iterator[tuple[str, tuple[tuple[str, str], ...], float]]:
    """What a device's plan gives of one reading of each of its files."""
    plan = make_plan(device, {path: read(sysfs, device, path) for path in facts_needed(device)})
    values = list(plan.initial)
    for file in plan.files:
        content = read(sysfs, device, file.path)
        if content is None or (file.decode is None and file.rows is None):
            continue
        try:
            if file.decode is not None:
                values[file.first : file.first + file.count] = file.decode(content)
            elif file.rows is not None:
                for metric, labels, value in file.rows(content):
                    yield metric.name, tuple(zip(metric.labels, labels, strict=True)), value
        except Malformed as error:
            page.malformed.append((device.id, file.path, error.reason))
    for metric, block in plan.blocks.items():
        for prefix, index in zip(block.prefixes, block.indexes, strict=True):
            value = values[index]
            if value is None:
                page.unknown += 1
            else:
                yield metric.name, _labels(prefix), value


_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _labels(prefix: str) -> tuple[tuple[str, str], ...]:
    """The labels of a rendered series."""
    return tuple(
        (name, re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text))
        for name, text in _LABEL.findall(prefix)
    )


def without_rates(samples: Sequence[Sample]) -> list[Sample]:
    """Samples but for power that is made of a hardware counter of energy.

    That takes two readings of the counter, and of one look there may be one: it is no part of what a tree says.
    """
    rates = {
        (sample.labels["device"], sample.labels["sensor"].replace("energy", "power"))
        for sample in samples
        if sample.name == gpu.ENERGY.name and sample.labels["source"] == "hardware"
    }
    return [
        sample
        for sample in samples
        if sample.name != gpu.POWER.name or (sample.labels["device"], sample.labels["sensor"]) not in rates
    ]


def page_of(sysfs: str, every_function: bool = False) -> Page:
    """Scan, plan, read and decode a tree once; asserts that no series occurs twice."""
    page = Page()
    seen = set()
    for device in devices(sysfs, every_function):
        for name, labels, value in _rows(sysfs, device, page):
            assert (name, labels) not in seen, f"{name}{dict(labels)} twice"
            seen.add((name, labels))
            page.samples.append((name, dict(labels), value))
    return page
