"""Processes: the scout, the accounts of each GPU's clients, the rings of io_uring and the kernel's log, put
together."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from gpudaemon.model.snapshot import Samples
from gpudaemon.pipeline.cgroup_memory import CgroupMemory
from gpudaemon.pipeline.clients import Clients, Wanted
from gpudaemon.pipeline.kernel_log import KernelLog
from gpudaemon.pipeline.pods import Pods
from gpudaemon.pipeline.rings import Rings
from gpudaemon.pipeline.scout import ScoutLink

__all__ = ["Processes", "assembled"]

_KMSG = "/dev/kmsg"


class Processes:
    """link: the scout's. told: what the scout said of its last cycle, empty before one."""

    def __init__(
        self,
        link: ScoutLink,
        clients: Clients,
        rings: Rings,
        pods: Pods,
        *,
        log: KernelLog,
        cgroups: CgroupMemory,
        wanted: Wanted,
        procfs: str,
        sysfs: str,
    ) -> None:
        self.link = link
        self.log = log
        self.told: dict[str, Any] = {}
        self._clients = clients
        self._rings = rings
        self._pods = pods
        self._cgroups = cgroups
        self._wanted = wanted
        self._procfs = procfs
        self._sysfs = sysfs
        self._drivers: tuple[str, ...] = ()
        link.on_message = self._message
        link.on_start = self._started

    def begin(self, loop: asyncio.AbstractEventLoop, drivers: tuple[str, ...]) -> None:
        """Have the scout look from now on. drivers: kernel drivers of this host's GPUs."""
        self._settle(drivers)
        self.link.start(loop)

    def devices_changed(self, drivers: tuple[str, ...]) -> None:
        """GPUs came or went."""
        if drivers != self._drivers:
            self._settle(drivers)
        self._clients.settle()

    def reconfigure(self, wanted: Wanted) -> None:
        """Go over to other options."""
        self._wanted = wanted
        self._clients.reconfigure(wanted)
        self._rings.reconfigure(wanted.owners, wanted.served)
        self._pods.reconfigure(wanted.served)
        self._cgroups.reconfigure(wanted.owners, wanted.served)
        self._settle(self._drivers)

    def attend(self, now: float) -> None:
        """Now and then: a silent scout is replaced."""
        self.link.watch(now)

    def owner_of(self, device: str, pid: int) -> str:
        """Who a process that has the device open belongs to; empty where that is not known."""
        return self._clients.owner_of(device, pid)

    def series_dropped(self, device: str) -> int:
        """Series of a device's clients beyond `metric.limit`, which are not served."""
        return self._clients.series_dropped(device)

    def close(self) -> None:
        """End the scout."""
        self.link.close()
        self._clients.close()

    def _settle(self, drivers: tuple[str, ...]) -> None:
        self._drivers = drivers
        self.link.settle(
            {
                "procfs": self._procfs,
                "sysfs": self._sysfs,
                "period": self._wanted.period,
                "walk": self._wanted.clients or self._wanted.rings,
                "drivers": list(drivers) if self._wanted.clients else [],
                "rings": self._wanted.rings,
                "cgroups": self._wanted.cgroups and self._wanted.clients,
                "events": self._wanted.events,
                "kubelet": self._wanted.kubelet,
                "log": _KMSG if self._wanted.log else "",
            }
        )

    def _started(self) -> dict[str, Any]:
        self.log.restarted()
        return {"after": self.log.sequence}

    def _message(self, message: dict[str, Any]) -> None:
        if "cycle" in message:
            self.told = message
        self.log.message(message)
        self._clients.message(message)
        self._rings.message(message)
        self._pods.message(message)
        self._cgroups.message(message)

    def samples(self, now: float) -> list[Samples]:
        """Parts of a snapshot."""
        rings, cgroups = self._rings.samples(now), self._cgroups.samples(now)
        owners = list(self._rings.owners.values()) if rings is not None else []
        owners += self._cgroups.owners() if cgroups is not None else ()
        parts = self._clients.samples(now, owners)
        parts += [part for part in (rings, cgroups, self._pods.samples(now)) if part is not None]
        return parts


def assembled(
    sampler: Any,
    reader: Any,
    launch: Callable[[], Any],
    kill: Callable[[int], None],
    *,
    log: KernelLog,
    procfs: str,
    sysfs: str,
    wanted: Wanted,
) -> Processes:
    """All parts, joined up."""
    link = ScoutLink(launch, kill, wanted.period)
    clients = Clients(
        sampler,
        reader,
        procfs=procfs,
        sysfs=sysfs,
        wanted=wanted,
        ask=lambda pids: link.tell({"ask": pids}),
    )
    rings = Rings(owners_most=wanted.owners, served=wanted.served, clock=time.monotonic)
    pods = Pods(sampler.entries, served=wanted.served)
    cgroups = CgroupMemory(owners_most=wanted.owners, served=wanted.served, clock=time.monotonic)
    return Processes(
        link, clients, rings, pods, log=log, cgroups=cgroups, wanted=wanted, procfs=procfs, sysfs=sysfs
    )
