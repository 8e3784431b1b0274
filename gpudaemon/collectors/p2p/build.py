"""From listings and contents of files to the model: one function of a topology. Pure.

Documentation/ABI/testing/sysfs-bus-pci; drivers/pci/pci-sysfs.c (resource_show, one line a region: start, end,
flags); include/linux/ioport.h (IORESOURCE_MEM, IORESOURCE_PREFETCH).
"""

import re
from collections.abc import Mapping
from typing import Any

from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.topology import Bar, Function, Link, Role
from gpudaemon.parsers.integer import hexadecimal, integer
from gpudaemon.parsers.pci_config import Config, config_space
from gpudaemon.parsers.pcie import link_speed, link_width

__all__ = ["CONFIG", "FILES", "KINDS", "bars", "cpu", "cpu_of_modalias", "function_of", "host_bridge"]

CONFIG = "config"
MEMORY = "mem_info_vram_total"
FILES = (
    *("vendor", "device", "class", "numa_node", "resource"),
    *("current_link_speed", "current_link_width", "max_link_speed", "max_link_width", MEMORY),
)
"""Facts about a function, `config` aside, which is read behind the power-state gate only."""

_ROLES = {
    DeviceKind.GPU: Role.GPU,
    DeviceKind.NIC: Role.NIC,
    DeviceKind.NVME: Role.NVME,
    DeviceKind.CXL: Role.CXL,
    DeviceKind.PCI: Role.BRIDGE,
}
KINDS = tuple(_ROLES)
"""Devices that a topology is made of, where they are PCI functions."""
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}", re.ASCII)
_MODALIAS = re.compile(r"cpu:type:(?:x86,ven([0-9A-F]{4})fam([0-9A-F]{4})mod|(?!x86)\w)", re.ASCII)
_VENDORS = {0: "GenuineIntel", 2: "AuthenticAMD"}
_REGION = re.compile(rb"0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})")
_MEM, _PREFETCH = 0x200, 0x2000
_BARS = 6
_NO_CONFIG = Config(vendor=0, device=0, bridge=False)
_SPEEDS = {1: 2.5e9, 2: 5e9, 3: 8e9, 4: 16e9, 5: 32e9, 6: 64e9}
_MOST_NODES = 1024


def function_of(device: Device, facts: Facts, iommu_types: Mapping[str, str]) -> Function:
    """What is known of a PCI function. iommu_types: group -> content of its file `type`. Never raises."""
    config = config_space(facts.get(CONFIG) or b"")
    group = device.link("iommu_group")
    return Function(
        id=device.id,
        role=_ROLES.get(device.kind, Role.OTHER),
        parents=device.parents,
        host_bridge=host_bridge(device.path).rpartition("/")[2],
        driver=device.driver,
        names=device.nodes,
        vendor=_number(facts, "vendor"),
        device=_number(facts, "device"),
        pci_class=_number(facts, "class"),
        link=_link(facts, config),
        bars=bars(facts.get("resource") or b"", config),
        numa_node=_numa_node(facts.get("numa_node")),
        iommu_group=group,
        iommu_type=iommu_types.get(group, ""),
        memory_size=_decimal(facts.get(MEMORY)),
        **_of_config(config),
    )


def host_bridge(path: str) -> str:
    """The directory of the host bridge in a device's path; empty where there is none."""
    parts = path.split("/")
    place = next((place for place, part in enumerate(parts) if _HOST_BRIDGE.fullmatch(part)), None)
    return "" if place is None else "/".join(parts[: place + 1])


def _of_config(config: Config | None) -> dict[str, Any]:
    if config is None:
        return {}
    return {
        "read": config.express is not None,
        "port": config.port,
        "extended": config.extended,
        "acs": config.acs,
        "ats": config.ats,
        "atomics": config.atomic_routing if config.bridge else config.atomic_completer,
        "relaxed_ordering": config.relaxed_ordering,
        "contained": config.contained,
    }


def _number(facts: Facts, name: str) -> int | None:
    content = facts.get(name)
    try:
        return hexadecimal(content) if content else None
    except Malformed:
        return None


def _decimal(content: bytes | None) -> int | None:
    try:
        return integer(content) if content else None
    except Malformed:
        return None


def _numa_node(content: bytes | None) -> int | None:
    """-1 is NUMA_NO_NODE."""
    node = _decimal(content)
    return node if node is not None and node >= 0 else None


def _link(facts: Facts, config: Config | None) -> Link:
    """From the text files; from configuration space where those are absent (before Linux 4.13)."""

    def speed(name: str, code: int | None) -> float | None:
        content = facts.get(name)
        try:
            found = link_speed(content)[0] if content else None
        except Malformed:
            found = None
        return found if found is not None else _SPEEDS.get(code or 0)

    def width(name: str, lanes: int | None) -> int | None:
        content = facts.get(name)
        try:
            found = link_width(content)[0] if content else None
        except Malformed:
            found = None
        return int(found) if found else lanes

    has = config or _NO_CONFIG
    return Link(
        speed("current_link_speed", has.link_speed),
        width("current_link_width", has.link_width),
        speed("max_link_speed", has.link_max_speed),
        width("max_link_width", has.link_max_width),
    )


def bars(resource: bytes, config: Config | None = None) -> tuple[Bar, ...]:
    """Memory regions 0 to 5 of a file `resource`; what is not of that form gives none."""
    sizes = dict(config.bar_sizes) if config is not None else {}
    found = []
    for number, line in enumerate(resource.splitlines()[:_BARS]):
        match = _REGION.fullmatch(line)
        if match is None:
            return ()
        start, end, flags = (int(text, 16) for text in match.groups())
        if flags & _MEM and end > start:
            found.append(Bar(number, end - start + 1, bool(flags & _PREFETCH), sizes.get(number, ())))
    return tuple(found)


def cpu_of_modalias(modalias: str) -> tuple[str, int | None]:
    """The same of /sys/devices/system/cpu/modalias, which is there where ProcSubset=pid hides /proc/cpuinfo.

    `cpu:type:x86,ven0002fam0019mod0011:feature:...`, with the kernel's own numbers of vendors
    (drivers/base/cpu.c, arch/x86/include/asm/cpufeature.h, asm/processor.h: X86_VENDOR_*).
    """
    found = _MODALIAS.match(modalias)
    if found is None:
        return "", None
    if not found[1]:
        return "other", None
    return _VENDORS.get(int(found[1], 16), "other"), int(found[2], 16)


def cpu(cpuinfo: str) -> tuple[str, int | None]:
    """(vendor_id, cpu family) of the first processor in /proc/cpuinfo; ("", None) where it does not say.

    Other architectures have neither line: their name in the kernel's rules is "not AMD", so they give "other".
    """
    if not cpuinfo.strip():
        return "", None
    vendor, family = "other", None
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "vendor_id":
            vendor = value.strip()
        elif name.strip() == "cpu family" and value.strip().isdecimal():
            family = int(value)
    return vendor, family
