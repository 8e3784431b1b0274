"""The composition root: builds every part from a Config, supervises the tasks, obeys signals.

The reader is started before anything heavy is imported, the sockets are bound, and then this process gives up
every capability it has: it owns the HTTP socket and needs none.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gpudaemon.config import Config, preset_periods
from gpudaemon.errors import ConfigError
from gpudaemon.pipeline.link import ReaderLink
from gpudaemon.reader.rights import keep_only

if TYPE_CHECKING:
    from gpudaemon.drivers import Facts
    from gpudaemon.export.serve import Serving
    from gpudaemon.model.device import Device
    from gpudaemon.model.snapshot import DeviceView, Snapshot
    from gpudaemon.parsers.uevent import Uevent
    from gpudaemon.sources.own_processes import ProcessCost
    from gpudaemon.sources.uevents import UeventSource

__all__ = ["Daemon", "look", "run"]

_log = logging.getLogger(__name__)

_SETTLE = 0.05
"""Seconds to wait for the rest of a burst of events before looking at sysfs."""
_RESCANS = (5.0, 30.0, 120.0)
_RESCAN_EVERY = 600.0
_SWITCH = 0.001
_LOOK_GRACE = 3.0
_FIRST_WEIGHING = 5.0
_WEIGH_EVERY = 60.0
_HEARTBEATS = (2.0, 5.0)
"""Shortest and longest time between heartbeats of the reader, in seconds."""
_FALLBACK = 1.25
"""Heartbeats after which things are looked after without one."""


class Daemon:
    """One running daemon; `serve` lasts until `stop`."""

    def __init__(self, config: Config) -> None:
        """Start the reader. Raises OSError where no process can be started."""
        self._config = config
        # Between two rounds of reading a heartbeat is the only thing that wakes anybody.
        fastest = min(preset_periods(config.preset))
        heartbeat = min(max(fastest, _HEARTBEATS[0]), _HEARTBEATS[1])
        self._link = ReaderLink(tier=config.tier, engine=config.engine, heartbeat=heartbeat)
        self._stopping = asyncio.Event()
        self._wanted = asyncio.Event()
        self._reasons: set[str] = {"start"}
        self._classes: dict[str, int | None] = {}
        self._changed_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._events: UeventSource | None = None
        self._scanned = False
        self._frozen = False
        self._logged_failures: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """End `serve`; safe from a signal handler."""
        self._stopping.set()

    async def serve(self, *, announce: Callable[[str], None] = lambda _: None) -> None:
        """Run until stopped. Raises ConfigError where an address cannot be bound."""
        # Imported here, after the reader was started: together they take longer than the reader's own start.
        from gpudaemon.export.http import Exposition, HttpInstruments, Limits
        from gpudaemon.export.own import private_registry
        from gpudaemon.export.serve import serve
        from gpudaemon.metrics import daemon as rows

        self._assemble()
        registry = private_registry()
        exposition = Exposition(
            snapshot=lambda: self._publisher.snapshot(devices=False),
            with_devices=self._publisher.snapshot,
            ready=self._ready,
            registry=registry,
            instruments=HttpInstruments.registered(
                registry,
                requests=rows.HTTP_REQUESTS,
                scrapes_in_flight=rows.SCRAPES_IN_FLIGHT,
                render_seconds=rows.SCRAPE_SECONDS,
            ),
            limits=Limits(scrapes=self._config.scrapes),
        )
        serving = None
        try:
            serving = await self._bound(serve(exposition, self._config.listen))
            self._begin()
            for address in serving.addresses:
                announce(str(address))
            await self._stopping.wait()
        finally:
            if serving is not None:
                await serving.close()
            await self._end()

    @staticmethod
    async def _bound(binding: "Awaitable[Serving]") -> "Serving":
        """Bind, then give up every capability. A thread keeps those it was started with (capabilities(7)), so
        the one that looked names up ends first, and no other is started before."""
        loop = asyncio.get_running_loop()
        names = ThreadPoolExecutor(1)
        loop.set_default_executor(names)
        try:
            serving = await binding
        finally:
            names.shutdown()
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="worker"))
        keep_only(())
        return serving

    async def look(self) -> "Snapshot":
        """Read every device once and return what is known then; a hung one costs the deadline, no more."""
        self._assemble()
        try:
            self._begin()
            end = time.monotonic() + _LOOK_GRACE + 2 * self._config.deadline
            while not self._ready()[0] and time.monotonic() < end:
                await asyncio.sleep(0.02)
            return self._publisher.snapshot()
        finally:
            await self._end()

    def _assemble(self) -> None:
        """Build the parts between reader and snapshot. Raises ConfigError."""
        from gpudaemon.collectors import collectors
        from gpudaemon.discovery.inventory import Inventory
        from gpudaemon.pipeline.holders import Holders
        from gpudaemon.pipeline.publish import Counts, Publisher
        from gpudaemon.pipeline.sampler import Periods, Sampler

        config = self._config
        unknown = sorted(set(config.collectors or ()) - set(collectors()))
        if unknown:
            raise ConfigError(f"--collector {unknown[0]!r}: allowed are {', '.join(collectors())}")
        static, slow, normal, fast = preset_periods(config.preset)
        self._counts = Counts()
        self._inventory = Inventory()
        self._sampler = Sampler(
            self._link,
            Holders(config.runtime_directory, config.sysfs),
            sysfs=config.sysfs,
            procfs=config.procfs,
            periods=Periods(static=static, slow=slow, normal=normal, fast=fast, deadline=config.deadline),
            collectors=config.collectors,
            resting=config.resting,
            gone=lambda: self._look_again("read"),
            later=asyncio.get_running_loop().call_soon,
        )
        self._publisher = Publisher(self._sampler, self._inventory, self._link, self._counts)

    def _begin(self) -> None:
        """Start the tasks and the stream of events. Raises ConfigError."""
        from gpudaemon.sources.uevents import UeventSource, choose

        loop = asyncio.get_running_loop()
        # Events before the first look at sysfs: what changes in between is not missed.
        kind = choose(self._config.uevents)
        if kind != "none":
            self._events = UeventSource(
                kind,
                lambda event: _call(loop, self._event, event),
                lambda: _call(loop, self._events_lost),
            )
        self._link.attach(loop)
        self._supervise("scan", self._scan_when_wanted)
        self._link.on_beat = self._look_after
        self._look_after()
        self._supervise("costs", self._weigh_processes)
        self._wanted.set()

    async def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._events is not None:
            await asyncio.to_thread(self._events.stop)
        await self._link.close()

    def _ready(self) -> tuple[bool, str]:
        if not self._scanned:
            return False, "looking at sysfs"
        return self._publisher.ready()

    # Tasks

    def _supervise(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` for ever: when it fails it is counted, logged once and started again with back-off."""

        async def forever() -> None:
            delay = 1.0
            while True:
                try:
                    await work()
                except Exception as error:
                    self._failed(name, error)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, 60.0)

        self._tasks.append(asyncio.get_running_loop().create_task(forever(), name=name))

    def _failed(self, name: str, error: Exception) -> None:
        """Count a failure of the task `name`, and log it unless it was logged before."""
        counts = self._counts.task_restarts
        counts[name] = counts.get(name, 0) + 1
        key = f"{name} {error!r}"
        if key not in self._logged_failures and len(self._logged_failures) < 100:
            self._logged_failures.add(key)
            _log.error("task failed", extra={"task": name}, exc_info=error)

    def _look_after(self) -> None:
        """At each heartbeat of the reader, and without one soon after: what is not anybody's event.

        One wake-up serves both: between two rounds of reading it is the only one.
        """
        if self._timer is not None:
            self._timer.cancel()
        soon = True
        try:
            soon = self._attend(time.monotonic())
        except Exception as error:
            self._failed("clock", error)
        loop = asyncio.get_running_loop()
        later = _FALLBACK * self._link.heartbeat_seconds
        self._timer = loop.call_later(1.0 if soon or not self._frozen else later, self._look_after)

    def _attend(self, now: float) -> bool:
        soon = self._sampler.tick(now)
        if not self._frozen and self._ready()[0]:
            # What is here now mostly stays: the collector need not walk it again, which takes longer than
            # the loop should ever stand still. A collection before would take as long once more.
            gc.freeze()
            self._frozen = True
        if self._rescans_due(now - self._changed_at):
            self._look_again("schedule")
        return soon

    async def _weigh_processes(self) -> None:
        """What the daemon itself costs, now and then."""
        while True:
            await asyncio.sleep(_FIRST_WEIGHING if not self._counts.processes else _WEIGH_EVERY)
            pids = {"server": os.getpid(), "reader": self._link.pid, "launcher": self._link.launcher_pid}
            self._counts.processes = await asyncio.to_thread(_costs, pids)

    def _rescans_due(self, age: float) -> bool:
        """Names that appear late (a hwmon chip, an attribute of another module) are looked for like files."""
        done = self._rescans_done
        due = sum(age >= moment for moment in _RESCANS) + int(max(0.0, age - _RESCANS[-1]) // _RESCAN_EVERY)
        self._rescans_done = max(done, due)
        return due > done

    _rescans_done = 0

    async def _scan_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_SETTLE if self._scanned else 0)
            self._wanted.clear()
            reasons, self._reasons = self._reasons, set()
            for reason in reasons:
                self._counts.rescans[reason] = self._counts.rescans.get(reason, 0) + 1
            missing = tuple(self._inventory.missing.values())
            devices, unclaimed = await asyncio.to_thread(_scan, self._config.sysfs, self._classes, missing)
            self._take(devices, unclaimed)

    # Inventory

    def _look_again(self, reason: str) -> None:
        self._reasons.add(reason)
        self._wanted.set()

    def _take(self, devices: "tuple[Device, ...]", unclaimed: "tuple[Device, ...]") -> None:
        """Take over what a scan found, and have the class read of PCI functions that may be GPUs."""
        ids = {device.id for device in unclaimed}
        self._classes = {id_: value for id_, value in self._classes.items() if id_ in ids}
        unknown = tuple(device for device in unclaimed if device.id not in self._classes)
        if self._inventory.update(devices):
            self._changed_at, self._rescans_done = time.monotonic(), 0
            self._log_changes()
            if self._frozen:
                # What went is given back now; with what was here at first set aside this takes a moment only.
                gc.collect()
        self._sampler.set_devices(self._inventory.devices.values())
        if unknown:
            self._ask_classes(unknown)
        else:
            self._scanned = True

    _logged: frozenset[str] = frozenset()

    def _log_changes(self) -> None:
        now = frozenset(self._inventory.devices)
        for id_ in sorted(now - self._logged):
            device = self._inventory.devices[id_]
            _log.info("device", extra={"device": id_, "kind": device.kind.value, "driver": device.driver})
        for id_ in sorted(self._logged - now):
            _log.warning("device gone", extra={"device": id_})
        self._logged = now

    def _ask_classes(self, unknown: "tuple[Device, ...]") -> None:
        """Have the reader read the class of PCI functions that have no DRM or accel node."""
        from gpudaemon.errors import Malformed
        from gpudaemon.model.device import Device, DeviceKind
        from gpudaemon.parsers.integer import hexadecimal

        paths = {f"{device.path}/class": device.id for device in unknown}

        def done(facts: "Facts") -> None:
            known = dict(self._classes)
            for path, id_ in paths.items():
                try:
                    known[id_] = hexadecimal(facts.get(path) or b"")
                except Malformed:
                    known[id_] = None
            self._classes = known
            self._look_again("class")

        host = Device(id="pci classes", kind=DeviceKind.PCI, path=".", names=frozenset(paths))
        self._sampler.read_once(host, tuple(paths), done)

    # Events

    def _event(self, event: "Uevent") -> None:
        from gpudaemon.discovery.inventory import concerns

        subsystem = event.properties.get("SUBSYSTEM", "")
        if subsystem in _COUNTED:
            self._counts.uevents[subsystem] = self._counts.uevents.get(subsystem, 0) + 1
        if not concerns(event.action, subsystem, event.properties.get("DEVTYPE", "")):
            return
        if event.action == "remove" and subsystem == "pci":
            for id_ in self._inventory.removed(event.devpath):
                self._sampler.remove(id_)
            self._log_changes()
        self._look_again("uevent")

    def _events_lost(self) -> None:
        self._counts.uevents_lost += 1
        self._look_again("lost")


_COUNTED = ("accel", "drm", "hwmon", "pci")


def _scan(
    sysfs: str, classes: "dict[str, int | None]", missing: "tuple[Device, ...]"
) -> "tuple[tuple[Device, ...], tuple[Device, ...]]":
    """(devices, PCI functions without a DRM or accel node).

    A PCI function without a DRM or accel node is a GPU if its class says so. The bridges above a missing GPU
    are looked at as long as they are there: its link is where the trouble shows.
    """
    from dataclasses import replace

    from gpudaemon.discovery.scan import bridges, is_gpu_class, scan, unclaimed_pci

    devices = scan(sysfs)
    unclaimed = unclaimed_pci(sysfs, devices)
    gpus = [
        replace(device, pci_class=value)
        for device in unclaimed
        if (value := classes.get(device.id)) is not None and is_gpu_class(value)
    ]
    found = {device.id for device in (*devices, *gpus)}
    above = [bridge for bridge in bridges(sysfs, [*gpus, *missing]) if bridge.id not in found]
    return (*devices, *gpus, *above), unclaimed


def _costs(pids: dict[str, int]) -> "dict[str, ProcessCost]":
    # Imported in the thread that asks: importing psutil takes longer than the loop should stand still.
    from gpudaemon.sources.own_processes import own_processes

    return own_processes(pids)


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., None], *values: object) -> None:
    """Call on the loop from another thread; a loop that is closing takes no more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(what, *values)


def look(config: Config) -> "tuple[DeviceView, ...]":
    """Read this host once; returns its devices."""

    async def main() -> "Snapshot":
        return await Daemon(config).look()

    return asyncio.run(main()).devices


def run(config: Config, *, announce: Callable[[str], None] = lambda _: None) -> None:
    """Run a daemon until SIGTERM or SIGINT; returns within two seconds, whatever hangs.

    A thread may be left in a slow system call: the caller ends the process by `os._exit`.
    """
    # Threads that parse sysfs or compress a page must not keep the loop from the interpreter for long.
    sys.setswitchinterval(_SWITCH)

    async def main() -> None:
        daemon = Daemon(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        await daemon.serve(announce=announce)

    # Not asyncio.run: it waits for threads, and one of them may be in a listing that does not end.
    asyncio.new_event_loop().run_until_complete(main())
