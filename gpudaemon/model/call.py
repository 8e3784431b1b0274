"""Kinds of calls: what is asked of a device that is not a file.

A call is an ioctl, a library function, a perf counter or a netlink request. It can hang, crash its process or
hold a device awake, so no process that does anything else makes one: each kind has a process of its own
(`gpudaemon.calls`), which the launcher starts and anybody may kill.
"""

from dataclasses import dataclass

__all__ = ["KINDS", "CallKind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKind:
    """One kind.

    capabilities: what its process keeps, of those the tier has. library: module without which nothing of it
    works, empty for none. extra: the extra of this package that brings it, empty where it comes anyway.
    on_request: made only where the configuration asks for it, because it costs the device something.
    """

    what: str
    capabilities: tuple[str, ...] = ()
    library: str = ""
    extra: str = ""
    on_request: bool = False


KINDS: dict[str, CallKind] = {
    "nvml": CallKind(what="NVIDIA's management library", library="pynvml", extra="nvml"),
    "drm_ras": CallKind(
        what="error counters by generic netlink", capabilities=("CAP_NET_ADMIN",), library="pyroute2"
    ),
    "cxl_mailbox": CallKind(what="mailboxes of CXL memory", capabilities=("CAP_DAC_READ_SEARCH",)),
    "rdma": CallKind(
        what="objects of RDMA devices by netlink", capabilities=("CAP_SYS_PTRACE",), library="pyroute2"
    ),
    "pmu": CallKind(what="perf counters", capabilities=("CAP_PERFMON",)),
    "pmu_held": CallKind(
        what="perf counters that keep the device awake", capabilities=("CAP_PERFMON",), on_request=True
    ),
}
"""Every kind by name, which is also that of its module in `gpudaemon.calls`."""
