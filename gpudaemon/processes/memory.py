"""Device memory by cgroup, where the kernel has the dmem controller.

Documentation/admin-guide/cgroup-v2.rst (DMEM), kernel/cgroup/dmem.c. Only the cgroups of processes that have a
GPU open are looked at. Reading these files asks page counters and no driver.
"""

from collections.abc import Iterable
from typing import Any

from gpudaemon.errors import Malformed
from gpudaemon.parsers.cgroup import Owner, cgroup_owner
from gpudaemon.parsers.dmem import dmem
from gpudaemon.processes.files import read

__all__ = ["KINDS", "DeviceMemory"]

KINDS = ("current", "peak", "min", "low", "max")
"""Which file of a cgroup a size is from."""
_MOST_CGROUPS = 512


class DeviceMemory:
    """cgroupfs: where version 2 is mounted. Looks when asked."""

    def __init__(self, procfs: str, sysfs: str) -> None:
        self._procfs = procfs
        self._roots = (f"{sysfs}/fs/cgroup", f"{sysfs}/fs/cgroup/unified")

    def root(self) -> str:
        """Where the controller is; empty where the kernel has none."""
        return next((root for root in self._roots if read(f"{root}/dmem.capacity") is not None), "")

    def look(self, pids: Iterable[int]) -> tuple[list[tuple[str, str, int]], list[tuple[Owner, list[Any]]]]:
        """(capacity by device and region, [owner, [[kind, device, region, bytes], ...]] by cgroup)."""
        root = self.root()
        if not root:
            return [], []
        capacity = [
            (device, region, size)
            for device, region, size in _lines(f"{root}/dmem.capacity")
            if size is not None
        ]
        found: dict[str, tuple[Owner, list[Any]]] = {}
        for pid in pids:
            try:
                owner = cgroup_owner(read(f"{self._procfs}/{pid}/cgroup") or b"")
            except Malformed:
                continue
            path = owner.path
            if path in found or "/../" in f"{path}/" or len(found) >= _MOST_CGROUPS:
                continue
            sizes = [
                [kind, device, region, size]
                for kind in KINDS
                for device, region, size in _lines(f"{root}{path}/dmem.{kind}")
                if size is not None and not (kind in ("min", "low") and size == 0)
            ]
            if sizes:
                found[path] = (owner, sizes)
        return capacity, list(found.values())


def _lines(path: str) -> tuple[tuple[str, str, int | None], ...]:
    try:
        return dmem(read(path) or b"")
    except Malformed:
        return ()
