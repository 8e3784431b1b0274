"""Which devices there are: scans of sysfs, the kernel's events, and the class of functions without a driver.

What it finds goes to the sampler. Scans list names and follow links in a thread; files are read by the reader.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from gpudaemon.collectors.kfd import is_node, nodes_of
from gpudaemon.discovery import scan as sysfs_scan
from gpudaemon.discovery.inventory import Inventory, concerns
from gpudaemon.discovery.wedged import Wedged
from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.integer import hexadecimal
from gpudaemon.parsers.uevent import Uevent
from gpudaemon.pipeline.counts import Counts
from gpudaemon.pipeline.sampler import Sampler
from gpudaemon.sources.uevents import UeventSource, choose

__all__ = ["Finder", "survey"]

_log = logging.getLogger(__name__)

_SETTLE = 0.05
"""Seconds to wait for the rest of a burst of events before looking at sysfs."""
_RESCANS = (5.0, 30.0, 120.0)
_RESCAN_EVERY = 600.0
_COUNTED = ("accel", "drm", "hwmon", "pci")

_Found = tuple[tuple[Device, ...], tuple[Device, ...]]


class Finder:
    """See the module.

    wanted: whether a device with this id is to be looked at at all. changed: called when devices came or went.
    complete: called when all that is here is in the inventory. notice: called with each event, first of all.
    """

    def __init__(
        self,
        sampler: Sampler,
        inventory: Inventory,
        counts: Counts,
        *,
        sysfs: str,
        procfs: str = "",
        wanted: Callable[[str], bool],
        changed: Callable[[], None] = lambda: None,
        complete: Callable[[], None] = lambda: None,
        notice: Callable[[Uevent], None] = lambda _: None,
    ) -> None:
        self._sampler = sampler
        self._inventory = inventory
        self._counts = counts
        self._sysfs = sysfs
        self._procfs = procfs
        self._changed = changed
        self._complete = complete
        self._notice = notice
        self._events: UeventSource | None = None
        self._wanted = asyncio.Event()
        self._reasons: set[str] = {"start"}
        self._classes: dict[str, int | None] = {}
        self._owners: dict[str, str] = {}
        self._asked: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self._changed_at = time.monotonic()
        self._rescans_done = 0
        self._logged: frozenset[str] = frozenset()
        self._left: set[str] = set()
        """directories that went while a scan is under way: it may have seen them before"""
        self.wedged = Wedged()
        self.select(wanted)
        self.scanned = False
        """whether every device that is here has been handed to the sampler once"""
        self._wanted.set()

    def select(self, wanted: Callable[[str], bool]) -> None:
        """Look at these devices only, from the next scan on."""
        self._inventory.wanted = wanted

    def listen(self, source: str) -> None:
        """Take events from `source` from now on. Raises ConfigError."""
        kind = choose(source)
        loop = asyncio.get_running_loop()
        if kind != "none":
            self._events = UeventSource(
                kind,
                lambda event: _call(loop, self._event, event),
                lambda: _call(loop, self._events_lost),
            )

    async def close(self) -> None:
        """Take no more events."""
        if self._events is not None:
            await asyncio.to_thread(self._events.stop)

    async def run(self) -> None:
        """Scan whenever it is wanted, for ever."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_SETTLE if self.scanned else 0)
            self._wanted.clear()
            reasons, self._reasons = self._reasons, set()
            for reason in reasons:
                self._counts.rescans[reason] = self._counts.rescans.get(reason, 0) + 1
            missing = tuple(self._inventory.missing.values())
            self._left.clear()
            devices, unclaimed = await asyncio.to_thread(
                survey, self._sysfs, self._classes, missing, self._procfs
            )
            self._take(self._still_here(devices), self._still_here(unclaimed))

    def look_again(self, reason: str) -> None:
        """Scan soon; the reason is counted."""
        self._reasons.add(reason)
        self._wanted.set()

    def attend(self, now: float) -> None:
        """Names that appear late (a hwmon chip, an attribute of another module) are looked for like files."""
        age, done = now - self._changed_at, self._rescans_done
        due = sum(age >= moment for moment in _RESCANS) + int(max(0.0, age - _RESCANS[-1]) // _RESCAN_EVERY)
        self._rescans_done = max(done, due)
        if due > done:
            self.look_again("schedule")

    def _still_here(self, devices: tuple[Device, ...]) -> tuple[Device, ...]:
        """What a scan found, without what left while it went on; the event has asked for another scan."""
        return tuple(
            device
            for device in devices
            if not any(device.path == path or device.path.startswith(f"{path}/") for path in self._left)
        )

    def _take(self, devices: tuple[Device, ...], unclaimed: tuple[Device, ...]) -> None:
        """Take over what a scan found, and have the class read of PCI functions that may be GPUs."""
        wanted = self._inventory.wanted
        devices = tuple(self._with_owner(device) for device in devices if wanted(device.id))
        self._ask_owners(devices)
        unclaimed = tuple(device for device in unclaimed if wanted(device.id))
        ids = {device.id for device in unclaimed}
        self._classes = {id_: value for id_, value in self._classes.items() if id_ in ids}
        unknown = tuple(device for device in unclaimed if device.id not in self._classes)
        if self._inventory.update((*devices, *self._between_drivers(unknown))):
            self._changed_at, self._rescans_done = time.monotonic(), 0
            self._log_changes()
            self._changed()
        self._sampler.set_devices(self._inventory.devices.values())
        if unknown:
            self._ask_classes(unknown)
        else:
            self.scanned = True
            self._complete()

    def _between_drivers(self, unknown: tuple[Device, ...]) -> Iterator[Device]:
        """GPUs that lost their nodes, as while a driver is bound anew: not gone before their class is known."""
        for device in unknown:
            known = self._inventory.devices.get(device.id)
            if known is not None and known.kind is DeviceKind.GPU and known.path == device.path:
                yield replace(device, kind=DeviceKind.GPU, pci_class=known.pci_class)

    def _with_owner(self, device: Device) -> Device:
        """A partition is a platform device of its own: KFD says which GPU its render node is a part of."""
        if device.kind is not DeviceKind.PARTITION:
            return device
        owner = next((self._owners[node] for node in device.nodes if node in self._owners), "")
        return replace(device, parents=(owner,)) if owner else device

    def _ask_owners(self, devices: tuple[Device, ...]) -> None:
        """Have the reader read KFD's nodes where there are partitions nobody has told the GPU of."""
        topology = next((device for device in devices if device.kind is DeviceKind.KFD), None)
        partitions = [device for device in devices if device.kind is DeviceKind.PARTITION]
        orphans = frozenset(node for device in partitions if not device.parents for node in device.nodes)
        if topology is None or not orphans or self._asked == (orphans, topology.names):
            return
        self._asked = (orphans, topology.names)

        def done(facts: Facts) -> None:
            self._owners = {node.render: node.device for node in nodes_of(facts).values() if node.render}
            self.look_again("partitions")

        paths = [path for path in topology.names if is_node(path)]
        self._sampler.read_once(replace(topology, id="kfd nodes", names=frozenset(paths)), paths, done)

    def _log_changes(self) -> None:
        now = frozenset(self._inventory.devices)
        for id_ in sorted(now - self._logged):
            device = self._inventory.devices[id_]
            _log.info("device", extra={"device": id_, "kind": device.kind.value, "driver": device.driver})
        for id_ in sorted(self._logged - now):
            _log.warning("device gone", extra={"device": id_})
        self._logged = now

    def _ask_classes(self, unknown: tuple[Device, ...]) -> None:
        """Have the reader read the class of PCI functions that have no DRM or accel node."""
        paths = {f"{device.path}/class": device.id for device in unknown}

        def done(facts: Facts) -> None:
            known = dict(self._classes)
            for path, id_ in paths.items():
                try:
                    known[id_] = hexadecimal(facts.get(path) or b"")
                except Malformed:
                    known[id_] = None
            self._classes = known
            self.look_again("class")

        host = Device(id="pci classes", kind=DeviceKind.PCI, path=".", names=frozenset(paths))
        self._sampler.read_once(host, tuple(paths), done)

    def _event(self, event: Uevent) -> None:
        subsystem = event.properties.get("SUBSYSTEM", "")
        if subsystem in _COUNTED:
            self._counts.uevents[subsystem] = self._counts.uevents.get(subsystem, 0) + 1
        self._notice(event)
        if self.wedged.event(event.action, event.devpath, event.properties, self._inventory.devices):
            # xe then has files more (xe_survivability_mode.c), and one that was bound again has others
            self.look_again("uevent")
        if not concerns(event.action, subsystem, event.properties.get("DEVTYPE", "")):
            return
        if event.action == "remove" and subsystem == "pci":
            self._left.add(event.devpath.lstrip("/"))
            for id_ in self._inventory.removed(event.devpath):
                self._sampler.remove(id_)
            self._log_changes()
        self.look_again("uevent")

    def _events_lost(self) -> None:
        self._counts.uevents_lost += 1
        self.look_again("lost")


def survey(sysfs: str, classes: dict[str, int | None], missing: tuple[Device, ...], procfs: str = "") -> _Found:
    """(devices, PCI functions without a DRM or accel node). procfs: look there too for what drivers show.

    A PCI function without a DRM or accel node is a GPU if its class says so. The bridges above a missing GPU
    are looked at as long as they are there: its link is where the trouble shows.
    """
    devices = sysfs_scan.scan(sysfs)
    unclaimed = sysfs_scan.unclaimed_pci(sysfs, devices)
    gpus = [
        replace(device, pci_class=value)
        for device in unclaimed
        if (value := classes.get(device.id)) is not None and sysfs_scan.is_gpu_class(value)
    ]
    if procfs:
        devices = tuple(sysfs_scan.with_proc(procfs, device) for device in devices)
        gpus = [sysfs_scan.with_proc(procfs, device) for device in gpus]
    found = {device.id for device in (*devices, *gpus)}
    above = [bridge for bridge in sysfs_scan.bridges(sysfs, [*gpus, *missing]) if bridge.id not in found]
    return (*devices, *gpus, *above), unclaimed


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., None], *values: object) -> None:
    """Call on the loop from another thread; a loop that is closing takes no more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(what, *values)
