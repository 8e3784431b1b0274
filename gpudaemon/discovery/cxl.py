"""The CXL bus as a device: the files of its ports, decoders, regions and memdevs, listed without opening one.

`/sys/bus/cxl/devices` and `/sys/bus/dax/devices` hold links. What hangs from what stands in the path a link
leads to and in the links of each (`uport`, `dport0`, `parent_dport`): both become links of the device.
Files that are not for reading (`security/erase`, `trigger_poison_list`, `CDAT`) are never listed.

Documentation/ABI/testing/sysfs-bus-cxl, drivers/dax/bus.c.
"""

import os
import re

from gpudaemon.model.device import Device, DeviceKind

__all__ = ["bus_device", "is_cxl_dax"]

_MOST_DEVICES = 4096
_CXL = re.compile(r"(root|port|endpoint|decoder|region|mem|dax_region|pmem_region)\d+(?:\.\d+)?", re.ASCII)
_DAX = re.compile(r"dax\d+\.\d+", re.ASCII)
_LINK = re.compile(r"uport|parent_dport|dport\d+|driver", re.ASCII)
_FILES = {
    "root": re.compile(r"decoders_committed"),
    "port": re.compile(r"decoders_committed"),
    "endpoint": re.compile(r"decoders_committed"),
    "decoder": re.compile(
        r"start|size|locked|interleave_ways|interleave_granularity|target_type|target_list|mode|region"
        r"|dpa_size|dpa_resource|cap_(pmem|ram|type2|type3)|qos_class"
    ),
    "region": re.compile(
        r"uuid|size|resource|mode|interleave_ways|interleave_granularity|commit|target\d+"
        r"|extended_linear_cache_size|access[01]/(read|write)_(bandwidth|latency)"
    ),
    "mem": re.compile(
        r"serial|firmware_version|numa_node|label_storage_size|(ram|pmem)/(size|qos_class)|security/state"
    ),
    "dax": re.compile(r"size|align|target_node|numa_node|state"),
}
_BELOW = ("ram", "pmem", "security", "access0", "access1")


def bus_device(sysfs: str) -> Device | None:
    """The device with names `cxl/devices/<name>/<file>` and `dax/devices/<name>/<file>`; None without a bus.

    links: `<name>/..` -> what it hangs from, `<name>/<link>` -> where that leads, by their last parts.
    """
    names: set[str] = set()
    links: dict[str, str] = {}
    for bus, pattern in (("cxl", _CXL), ("dax", _DAX)):
        base = os.path.join(sysfs, "bus", bus, "devices")
        for name in sorted(_list(base))[:_MOST_DEVICES]:
            found = pattern.fullmatch(name)
            if found is None or (bus == "dax" and not is_cxl_dax(base, name)):
                continue
            kind = found.group(1) if bus == "cxl" else "dax"
            links[f"{name}/.."] = os.path.basename(os.path.dirname(_target(base, name)))
            directory = os.path.join(base, name)
            for entry in _list(directory):
                if _LINK.fullmatch(entry):
                    links[f"{name}/{entry}"] = os.path.basename(_target(directory, entry))
                elif entry in _BELOW:
                    inside = (f"{entry}/{file}" for file in _list(os.path.join(directory, entry)))
                    names.update(f"{bus}/devices/{name}/{file}" for file in inside if _reads(kind, file))
                elif _reads(kind, entry):
                    names.add(f"{bus}/devices/{name}/{entry}")
    if not links:
        return None
    return Device(
        id="cxl",
        kind=DeviceKind.CXL_BUS,
        path="bus",
        subsystem="cxl",
        names=frozenset(names),
        links=tuple(sorted(links.items())),
    )


def _reads(kind: str, file: str) -> bool:
    pattern = _FILES.get(kind)
    return pattern is not None and pattern.fullmatch(file) is not None


def is_cxl_dax(base: str, name: str) -> bool:
    """Whether a DAX device is of a CXL region: they come from other memory as well."""
    return "/dax_region" in _target(base, name) and "/region" in _target(base, name)


def _target(directory: str, name: str) -> str:
    try:
        return os.readlink(os.path.join(directory, name))
    except OSError:
        return ""


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
