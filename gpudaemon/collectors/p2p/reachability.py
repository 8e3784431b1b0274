"""Whether one PCI function may reach the memory of another without the CPU: the kernel's own rules.

`verdict` repeats calc_map_type_and_dist() and host_bridge_whitelist() of drivers/pci/p2pdma.c over a model:

1. The first bridge above both is looked for, from the provider up. If no function on the way there, the bridge
   and both ends included, redirects requests between peers upwards (ACS), they meet in the switch: BUS_ADDR.
2. Else the transaction goes through the host bridge. It may where the processor is an AMD Zen or later, or
   where the host bridge (both, where there are two) is on the kernel's list: THRU_HOST_BRIDGE. Else
   NOT_SUPPORTED.

That is what the kernel grants to drivers that ask. A driver may refuse all the same, and NVIDIA's own decides
by itself. Where a bit could not be read the verdict says so: it is not known, not "no".
"""

import enum
from dataclasses import dataclass, replace

from gpudaemon.model.topology import Function, Port, Topology

__all__ = ["REASONS", "Mapping", "Reason", "Verdict", "root_device", "verdict"]


class Mapping(enum.Enum):
    """enum pci_p2pdma_map_type, and what cannot be told."""

    BUS_ADDR = "bus_addr"
    THRU_HOST_BRIDGE = "thru_host_bridge"
    NOT_SUPPORTED = "not_supported"
    UNKNOWN = "unknown"


class Reason(enum.Enum):
    """Why; the set is fixed, so that it can be a label."""

    SAME_FUNCTION = "same_function"
    SAME_SWITCH = "same_switch"
    AMD_HOST_BRIDGE = "amd_host_bridge"
    LISTED_HOST_BRIDGE = "listed_host_bridge"
    NEWER_KERNELS_LIST = "newer_kernels_list"
    ACS_REDIRECT = "acs_redirect"
    HOST_BRIDGE_NOT_LISTED = "host_bridge_not_listed"
    HOST_BRIDGES_DIFFER = "host_bridges_differ"
    NO_ROOT_DEVICE = "no_root_device"
    ACS_UNREADABLE = "acs_unreadable"
    CPU_UNKNOWN = "cpu_unknown"
    ROOT_DEVICE_UNKNOWN = "root_device_unknown"


REASONS: dict[Reason, str] = {
    Reason.SAME_FUNCTION: "it is the same function",
    Reason.SAME_SWITCH: "both are below one switch and nothing on the way redirects requests upwards",
    Reason.AMD_HOST_BRIDGE: "through the root complex, which the kernel trusts on AMD processors since Zen",
    Reason.LISTED_HOST_BRIDGE: "through the root complex, which is on the kernel's list",
    Reason.NEWER_KERNELS_LIST: "through the root complex, which only newer kernels have on their list",
    Reason.ACS_REDIRECT: (
        "ACS redirects requests between peers to the root complex, and that is not on the kernel's list"
    ),
    Reason.HOST_BRIDGE_NOT_LISTED: "only the root complex joins them, and that is not on the kernel's list",
    Reason.HOST_BRIDGES_DIFFER: (
        "they are below different root complexes, and the kernel trusts this kind within one only"
    ),
    Reason.NO_ROOT_DEVICE: "the kernel finds no device by which to know the root complex",
    Reason.ACS_UNREADABLE: "whether ACS redirects requests could not be read: it takes CAP_SYS_ADMIN",
    Reason.CPU_UNKNOWN: "the processor is not known",
    Reason.ROOT_DEVICE_UNKNOWN: "the device that stands for the root complex could not be read",
}
"""Each in words, for a person."""

_GRANTED = (Mapping.BUS_ADDR, Mapping.THRU_HOST_BRIDGE)
_ZEN = 0x17
_INTEL, _GOOGLE, _NVIDIA = 0x8086, 0x1AE0, 0x10DE
_SAME_ONLY = frozenset({0x3C00, 0x3C01, 0x2F00, 0x2F01})
"""Intel, REQ_SAME_HOST_BRIDGE: both ends must be below the same one."""
_LISTED = frozenset({0x2030, 0x2031, 0x2032, 0x2033, 0x2020, 0x09A2})
"""Intel, in every kernel since 6.1."""
_LATER_INTEL = frozenset(
    {0x0B25, 0x0CFE, 0x11FB, 0x1212, 0x1216, 0x4940, 0x4942, 0x4944, 0x4946, 0x4948},
)
_LATER_NVIDIA = frozenset({0x2F95, 0x2F96, 0x2F97, 0x2F98})
"""These, and whatever Google makes, are in 7.3's list and not in 6.12's. No version is compared: the verdict
says that it depends on the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the kernel would say of a provider of memory and a client that wants to reach it.

    distance: edges between them; where only host bridges join them, as many as lead up to both roots
        (pci_p2pdma_distance). common: the first bridge above both, empty for none.
    redirecting: functions on the way that redirect; unread: those of which that is not known.
    """

    mapping: Mapping
    reason: Reason
    distance: int
    common: str = ""
    redirecting: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def reachable(self) -> bool | None:
        """None where it is not known, or depends on the kernel."""
        if self.mapping is Mapping.UNKNOWN or self.reason is Reason.NEWER_KERNELS_LIST:
            return None
        return self.mapping in _GRANTED


def verdict(topology: Topology, provider: str, client: str) -> Verdict:
    """The kernel's answer for `client` reaching memory of `provider`. Raises KeyError for unknown functions."""
    common = topology.common(provider, client)
    if provider == client:
        return Verdict(mapping=Mapping.BUS_ADDR, reason=Reason.SAME_FUNCTION, distance=0, common=provider)
    distance = len(common.up) + len(common.down)
    met = Verdict(mapping=Mapping.BUS_ADDR, reason=Reason.SAME_SWITCH, distance=distance)
    if not common.at:
        return _through_host_bridge(topology, provider, client, met)
    way = {one: topology.functions.get(one) for one in (*common.up, common.at, *common.down)}
    met = replace(
        met,
        common=common.at,
        redirecting=tuple(id_ for id_, one in way.items() if one is not None and one.acs and one.acs.redirects),
        unread=tuple(id_ for id_, one in way.items() if one is None or (one.acs is None and not one.extended)),
    )
    if not met.redirecting and not met.unread:
        return met
    through = _through_host_bridge(topology, provider, client, met)
    if met.redirecting or through.mapping is Mapping.THRU_HOST_BRIDGE:
        # With or without redirection it is granted: only the way it takes is not known.
        return through
    return replace(met, mapping=Mapping.UNKNOWN, reason=Reason.ACS_UNREADABLE)


def root_device(topology: Topology, host_bridge: str) -> Function | None:
    """The device by which the kernel knows a root complex (pci_host_bridge_dev).

    It is the first on the root bus, if that is function 00.0 or a root port.
    """
    on_root = [one for one in topology.functions.values() if one.host_bridge == host_bridge and not one.parents]
    first = min(on_root, key=lambda one: one.slot, default=None)
    if first is None or first.slot == (0, 0) or first.port is Port.ROOT_PORT:
        return first
    # One whose configuration space was not read may be a root port.
    return None if first.read else first


def _through_host_bridge(topology: Topology, provider: str, client: str, met: Verdict) -> Verdict:
    """`met`, with what the kernel makes of a way that leads through the root complex."""
    mapping, reason = _trusted(topology, {topology.functions[one].host_bridge for one in (provider, client)})
    if met.redirecting and reason in (Reason.HOST_BRIDGE_NOT_LISTED, Reason.HOST_BRIDGES_DIFFER):
        reason = Reason.ACS_REDIRECT
    return replace(met, mapping=mapping, reason=reason)


def _trusted(topology: Topology, bridges: set[str]) -> tuple[Mapping, Reason]:
    """Whether the kernel lets peers talk through these host bridges (host_bridge_whitelist)."""
    if not topology.cpu_vendor:
        return Mapping.UNKNOWN, Reason.CPU_UNKNOWN
    if topology.cpu_vendor == "AuthenticAMD" and (topology.cpu_family or 0) >= _ZEN:
        return Mapping.THRU_HOST_BRIDGE, Reason.AMD_HOST_BRIDGE
    roots = [root_device(topology, one) for one in sorted(bridges)]
    if None in roots:
        return Mapping.NOT_SUPPORTED, Reason.NO_ROOT_DEVICE
    listed = {_listed(one, same=len(bridges) == 1) for one in roots if one is not None}
    for reason, mapping in (
        (Reason.HOST_BRIDGE_NOT_LISTED, Mapping.NOT_SUPPORTED),
        (Reason.HOST_BRIDGES_DIFFER, Mapping.NOT_SUPPORTED),
        (Reason.ROOT_DEVICE_UNKNOWN, Mapping.UNKNOWN),
        (Reason.NEWER_KERNELS_LIST, Mapping.THRU_HOST_BRIDGE),
    ):
        if reason in listed:
            return mapping, reason
    return Mapping.THRU_HOST_BRIDGE, Reason.LISTED_HOST_BRIDGE


def _listed(root: Function, *, same: bool) -> Reason:
    vendor, device = root.vendor, root.device
    if vendor is None or device is None:
        return Reason.ROOT_DEVICE_UNKNOWN
    if vendor == _INTEL:
        if device in _LISTED or (same and device in _SAME_ONLY):
            return Reason.LISTED_HOST_BRIDGE
        if device in _SAME_ONLY:
            return Reason.HOST_BRIDGES_DIFFER
    if (
        vendor == _GOOGLE
        or (vendor == _INTEL and device in _LATER_INTEL)
        or (vendor == _NVIDIA and device in _LATER_NVIDIA)
    ):
        return Reason.NEWER_KERNELS_LIST
    return Reason.HOST_BRIDGE_NOT_LISTED
