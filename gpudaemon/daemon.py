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
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gpudaemon import service, settings
from gpudaemon.affinity import processors, run_on
from gpudaemon.config import Config
from gpudaemon.errors import ConfigError, GpudaemonError
from gpudaemon.pipeline.link import ReaderLink
from gpudaemon.reader.rights import keep_only
from gpudaemon.remote import routes
from gpudaemon.supervisor import Supervisor

if TYPE_CHECKING:
    import socket

    from gpudaemon.collectors.p2p.pairs import Pair
    from gpudaemon.export.control import Control
    from gpudaemon.export.http import Exposition
    from gpudaemon.export.serve import Serving
    from gpudaemon.model.cxl import Bus
    from gpudaemon.model.health import Report
    from gpudaemon.model.metric import Metric
    from gpudaemon.model.snapshot import Snapshot
    from gpudaemon.model.topology import Topology
    from gpudaemon.parsers.uevent import Uevent
    from gpudaemon.pipeline.processes import Processes
    from gpudaemon.pipeline.sampler import Entry
    from gpudaemon.pipeline.streams import Streams
    from gpudaemon.sources.own_processes import ProcessCost

__all__ = ["Daemon", "look", "look_at_cxl", "look_between", "run"]

_log = logging.getLogger(__name__)

_SWITCH = 0.001
_LOOK_GRACE = 3.0
_LONG_GRACE = 30.0
"""For what is of no use in parts: a tree without some of its branches."""
_FIRST_WEIGHING = 5.0
_WEIGH_EVERY = 60.0
_HEARTBEATS = (2.0, 5.0)
"""Shortest and longest time between heartbeats of the reader, in seconds."""
_FALLBACK = 1.25
"""Heartbeats after which things are looked after without one."""
_ATTENTIVE = 1.0
_CALL_DELAYS = (0.0, 0.2, 1.0, 5.0, 15.0, 60.0)
"""Seconds before each replacement of a process of calls that did not live for a minute."""
_LONGEST_RELOAD = 3.0


class Daemon:
    """One running daemon; `serve` lasts until `stop`.

    sockets: listening ones that the service manager opened. load: reads the configuration again, for `reload`.
    """

    def __init__(
        self,
        config: Config,
        *,
        sockets: "list[socket.socket] | None" = None,
        load: Callable[[], Config] | None = None,
    ) -> None:
        """Start the reader. Raises OSError where no process can be started."""
        self._config = config
        self._sockets = sockets or []
        self._load = load
        # Before any child: it inherits where it may run. The reader gets its own processors by message.
        if config.cpu.server:
            try:
                run_on(config.cpu.server)
            except ConfigError as error:
                # A service that runs elsewhere is better than none.
                _log.error("%s", error)
        # Between two rounds of reading a heartbeat is the only thing that wakes anybody.
        heartbeat = min(max(min(config.periods), _HEARTBEATS[0]), _HEARTBEATS[1])
        self._link = ReaderLink(tier=config.tier, engine=config.engine, heartbeat=heartbeat)
        if config.cpu.server or config.cpu.reader:
            self._link.run_on(processors(config.cpu.reader))
        self._stopping = asyncio.Event()
        self._reloads = asyncio.Lock()
        self._serving: Serving | None = None
        self._exposition: Exposition | None = None
        self._frozen = False
        self._timer: asyncio.TimerHandle | None = None
        self._resumes: asyncio.TimerHandle | None = None
        self._watchdog = service.watchdog_seconds()

    def stop(self) -> None:
        """End `serve`; safe from a signal handler."""
        self._stopping.set()

    async def serve(self, *, announce: Callable[[str], None] = lambda _: None) -> None:
        """Run until stopped. Raises ConfigError where an address cannot be bound."""
        # Imported here, after the reader was started: together they take longer than the reader's own start.
        from gpudaemon.collectors import subjects
        from gpudaemon.export.http import Exposition, HttpInstruments, Limits
        from gpudaemon.export.own import private_registry
        from gpudaemon.export.serve import serve
        from gpudaemon.metrics import daemon as rows

        self._assemble()
        registry = private_registry()
        self._exposition = exposition = Exposition(
            snapshot=lambda: self._publisher.snapshot(devices=False),
            with_devices=self._publisher.snapshot,
            ready=self._serves,
            registry=registry,
            instruments=HttpInstruments.registered(
                registry,
                requests=rows.HTTP_REQUESTS,
                scrapes_in_flight=rows.SCRAPES_IN_FLIGHT,
                render_seconds=rows.SCRAPE_SECONDS,
                handshakes_failed=rows.HTTP_HANDSHAKES_FAILED,
            ),
            limits=Limits(scrapes=self._config.web.max_requests),
            subjects=subjects(),
            status=self._status,
            events=lambda: self.troubles.events,
        )
        web = self._config.web
        control = None
        try:
            self._serving = await self._bound(
                serve(
                    exposition,
                    () if self._sockets else web.listen_address,
                    sockets=self._sockets,
                    web_config=web.config_file,
                    start=False,
                )
            )
            self._begin()
            self._tasks.at_beats("inventory", lambda: self._memory.attend(scanned=self._finder.scanned))
            self._sampler.planned = self._tasks.at_beats("topology", self.topologist.attend)
            self._tasks.at_beats("trouble", self._look_for_trouble)
            self._serving.start()
            control = await self._controlled()
            if web.config_file:
                self._tasks.at_beats("web", self._follow_web)
            for address in self._serving.addresses:
                announce(str(address))
            service.notify(READY=1, STATUS=self._ready()[1])
            await self._stopping.wait()
            service.notify(STOPPING=1)
        finally:
            if control is not None:
                await control.close()
            if self._serving is not None:
                await self._serving.close()
            await self._end()

    async def _controlled(self) -> "Control | None":
        """The control socket; without one the daemon does all but obey."""
        from gpudaemon.export.control import open_control

        directory = self._config.path.runtime
        try:
            os.makedirs(directory, 0o755, exist_ok=True)
            return await open_control(settings.control_socket(self._config), routes(self))
        except (ConfigError, OSError) as error:
            _log.warning("no control socket: %s", error)
            return None

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

    async def look(self, grace: float = _LOOK_GRACE) -> "tuple[Snapshot, Report]":
        """Read every device once and return what is known then; a hung one costs the deadline, no more.

        grace: seconds for what neither answers nor hangs, as on a machine that is busy with other things.
        """
        self._assemble(keep=False)
        try:
            await self._memory.attend(scanned=False)
            self._begin()
            await self._answered(grace + 2 * self._config.read.deadline)
            await self.topologist.attend()
            await self._memory.attend(scanned=True)
            return self._publisher.snapshot(), self._publisher.report()
        finally:
            await self._end()

    async def reload(self) -> str:
        """Read the configuration again and go over to it; counters and connections stay.

        One that cannot be used changes nothing: it is logged and shown in a metric. Returns what is wrong.
        """
        if self._load is None:
            return ""
        wrong = ""
        async with self._reloads:
            service.notify(RELOADING=1)
            try:
                wanted = await asyncio.to_thread(self._load)
                await self._change_to(wanted)
            except (GpudaemonError, OSError) as error:
                wrong = str(error)
                _log.error("configuration is not used: %s", error)
            else:
                self._counts.reloaded = time.time()
                _log.info("configuration read again")
            self._counts.reload_ok = not wrong
            # One after the other: a device planned anew again and again would never be read.
            await self._answered(_LONGEST_RELOAD)
            service.notify(READY=1)
        return wrong

    def entry(self, id_: str) -> "Entry | None":
        """What is kept for a device; None where it is not here."""
        return self._sampler.entries.get(id_)

    def report(self) -> "Report":
        """What is thought of each GPU."""
        from gpudaemon.view.health import no_answer

        if not (self._finder.scanned and self._memory.compared):
            return no_answer("the daemon has just started")
        return self._publisher.report()

    async def page(self) -> str:
        """What a scrape would be answered now."""
        return "" if self._exposition is None else (await self._exposition.page()).decode()

    async def forget(self, device: str) -> bool:
        """A GPU was taken out; False where it is not missing."""
        return await self._memory.forget(device)

    def pause(self, seconds: float) -> None:
        """Read nothing for so long, unless `resume` comes before."""
        self.resume()
        self._sampler.pause(True)
        self._resumes = asyncio.get_running_loop().call_later(seconds, self.resume)
        _log.warning("reading is paused", extra={"seconds": seconds})

    def resume(self) -> None:
        """Read again, at once."""
        if self._resumes is not None:
            self._resumes.cancel()
            self._resumes = None
        if self._sampler.paused:
            self._sampler.pause(False)
            _log.info("reading goes on")

    async def _change_to(self, config: Config) -> None:
        """Go over to `config`. Raises GpudaemonError, having changed nothing, where it cannot be used."""
        from gpudaemon.log import set_up

        old = self._config
        # What can fail comes first, so that nothing else is changed where it does.
        if self._serving is not None:
            await self._serving.refresh()
            if self._serving.web_error:
                raise ConfigError(self._serving.web_error)
        if config.cpu != old.cpu:
            run_on(config.cpu.server, self._link.launcher_pid)
        moved = config.web.listen_address != old.web.listen_address
        if self._serving is not None and not self._sockets and moved:
            try:
                await self._serving.rebind(config.web.listen_address)
            except ConfigError:
                if config.cpu != old.cpu:
                    run_on(old.cpu.server, self._link.launcher_pid)
                raise
        for key in settings.wait_for_restart(old, config):
            _log.warning("takes effect at the next start", extra={"option": key})
        self._config = config
        set_up(config.log.level, config.log.format)
        if config.cpu != old.cpu:
            self._link.run_on(processors(config.cpu.reader))
            self._calls.run_on(processors(config.cpu.reader))
        self._sampler.reconfigure(
            periods=settings.periods(config), selection=settings.selection(config), resting=config.resting
        )
        self._reconfigure_processes(config)
        self._inventory.expected.configure(config.inventory.expect, learn=config.inventory.learn)
        self.topologist.select(settings.of_host(config, "p2p"))
        self._sampler.planned()
        self._finder.select(settings.devices(config))
        self._finder.look_again("reload")

    def _reconfigure_processes(self, config: Config) -> None:
        wanted = settings.processes(config)
        if self._processes is not None and wanted is not None:
            self._processes.reconfigure(wanted)
        elif (self._processes is None) != (wanted is None):
            _log.warning("takes effect at the next start", extra={"option": "collector.drm_client"})
        traced = settings.streams(config)
        if self._streams is not None and traced is not None:
            self._streams.reconfigure(traced)
        elif (self._streams is None) != (traced is None):
            _log.warning("takes effect at the next start", extra={"option": "collector.drm_sched"})

    def _assemble(self, *, keep: bool = True) -> None:
        """Build the parts between reader and snapshot. keep: write down what is learnt."""
        from gpudaemon.discovery.expected import Expected
        from gpudaemon.discovery.inventory import Inventory
        from gpudaemon.discovery.inventory_file import InventoryFile, machine
        from gpudaemon.pipeline.calls import Calls
        from gpudaemon.pipeline.counts import Counts
        from gpudaemon.pipeline.finder import Finder
        from gpudaemon.pipeline.holders import Holders
        from gpudaemon.pipeline.kernel_log import KernelLog
        from gpudaemon.pipeline.memory import Memory
        from gpudaemon.pipeline.publish import Publisher
        from gpudaemon.pipeline.sampler import Sampler
        from gpudaemon.pipeline.topology import Topologist
        from gpudaemon.pipeline.trouble import Troubles

        config = self._config
        self._counts = Counts(time.time())
        self._tasks = Supervisor(self._counts.task_restarts)
        self._inventory = Inventory(Expected(expect=config.inventory.expect, learn=config.inventory.learn))
        self._calls = Calls(
            self._link_of_calls,
            Holders(config.path.runtime, config.path.sysfs, name="stuck-caller-"),
            sysfs=config.path.sysfs,
            periods=settings.periods(config).by_group(),
            deadline=config.call.deadline,
            gone=lambda: self._finder.look_again("call"),
        )
        if config.cpu.server or config.cpu.reader:
            self._calls.run_on(processors(config.cpu.reader))
        self._sampler = Sampler(
            self._link,
            Holders(config.path.runtime, config.path.sysfs),
            sysfs=config.path.sysfs,
            procfs=config.path.procfs,
            periods=settings.periods(config),
            selection=settings.selection(config),
            resting=config.resting,
            gone=lambda: self._finder.look_again("read"),
            later=asyncio.get_running_loop().call_soon,
            calls=self._calls,
        )
        self.troubles = Troubles(owner=self._owner_of)
        self._kernel_log = KernelLog(self.troubles, lambda: self._inventory.devices, time.time)
        # One look at the host is over before a second one at its processes could tell anything.
        self._processes = self._assembled_processes() if keep else None
        self._memory = Memory(
            self._inventory,
            InventoryFile(config.path.state, machine(), sysfs=config.path.sysfs),
            self._sampler.entries,
            keep=keep and bool(config.path.state),
        )
        self._streams = self._assembled_streams() if keep else None
        self._finder = Finder(
            self._sampler,
            self._inventory,
            self._counts,
            sysfs=config.path.sysfs,
            procfs=config.path.procfs,
            wanted=settings.devices(config),
            changed=self._devices_changed,
            complete=self._tasks.beat,
            notice=self._notice,
        )
        self._publisher = Publisher(
            self._sampler,
            self._inventory,
            self._link,
            self._counts,
            wedged=lambda: self._finder.wedged.by_device,
            not_kept=lambda: self._memory.problem if self._config.inventory.learn else "",
            of_host=self._of_host,
            processes=self._processes,
            streams=self._streams,
        )
        self.topologist = Topologist(
            self._sampler,
            sysfs=config.path.sysfs,
            procfs=config.path.procfs,
        )
        self.topologist.select(settings.of_host(config, "p2p"))

    def _assembled_processes(self) -> "Processes | None":
        """Who uses the GPUs, where that is wanted."""
        wanted = settings.processes(self._config)
        if wanted is None:
            return None
        from gpudaemon.pipeline.processes import assembled

        return assembled(
            self._sampler,
            self._link,
            lambda: self._link.launch("scout", "-", wanted.period),
            self._link.end,
            log=self._kernel_log,
            procfs=self._config.path.procfs,
            sysfs=self._config.path.sysfs,
            wanted=wanted,
        )

    def _assembled_streams(self) -> "Streams | None":
        """What is traced, where that is wanted."""
        wanted = settings.streams(self._config)
        if wanted is None:
            return None
        from gpudaemon.pipeline.scout import ScoutLink
        from gpudaemon.pipeline.streams import Streams

        link = ScoutLink(
            lambda: self._link.launch("tracer", "-", wanted.period),
            self._link.end,
            wanted.period,
            name="tracer",
        )
        return Streams(
            link,
            wanted,
            procfs=self._config.path.procfs,
            sysfs=self._config.path.sysfs,
            known=lambda device: device in self._inventory.devices,
            trouble=self.troubles.note,
        )

    def _gpu_drivers(self) -> tuple[str, ...]:
        devices = self._inventory.devices.values()
        return tuple(sorted({device.driver for device in devices if device.nodes and device.driver}))

    def _link_of_calls(self, kind: str) -> ReaderLink:
        """The link to the process that makes calls of a kind; it is not started here."""
        heartbeat = self._link.heartbeat_seconds
        return ReaderLink(
            engine=kind,
            heartbeat=heartbeat,
            program="calls",
            launched_by=self._link.launcher,
            delays=_CALL_DELAYS,
        )

    def _owner_of(self, device: str, pid: int) -> str:
        return self._processes.owner_of(device, pid) if self._processes is not None else ""

    def _notice(self, event: "Uevent") -> None:
        """A uevent may be trouble."""
        from gpudaemon.discovery.trouble import trouble_of

        sysfs = self._config.path.sysfs
        found = trouble_of(event, self._inventory.devices, sysfs=sysfs, at=time.time())
        if found is not None:
            self.troubles.note(found)

    async def _look_for_trouble(self) -> None:
        """Counters that rose, links that lost lanes, GPUs that are missed."""
        self.troubles.missing(self._inventory.missing)
        self.troubles.look(self._sampler.entries, self.topologist.rows)

    def _of_host(self) -> "Mapping[Metric, tuple[tuple[str, float], ...]]":
        """Series that belong to no lane."""
        wanted = settings.of_host(self._config, "trouble")
        return {**self.topologist.rows, **self.troubles.rows(wanted), **self._kernel_log.rows(wanted)}

    def _begin(self) -> None:
        """Start the tasks and the stream of events. Raises ConfigError."""
        # Events before the first look at sysfs: what changes in between is not missed.
        self._finder.listen(self._config.uevent.source)
        self._link.attach(asyncio.get_running_loop())
        self._tasks.run("scan", self._finder.run)
        if self._processes is not None:
            self._processes.begin(asyncio.get_running_loop(), self._gpu_drivers())
        if self._streams is not None:
            self._streams.begin(asyncio.get_running_loop())
        self._link.on_beat = self._look_after
        self._look_after()
        self._tasks.run("costs", self._weigh_processes)

    async def _end(self) -> None:
        for timer in (self._timer, self._resumes):
            if timer is not None:
                timer.cancel()
        await self._tasks.end()
        if self._processes is not None:
            self._processes.close()
        if self._streams is not None:
            self._streams.close()
        await self._finder.close()
        await self._calls.close()
        await self._link.close()

    async def _answered(self, seconds: float) -> None:
        """Return when every device has answered, or after so long."""
        end = time.monotonic() + seconds
        while not self._ready()[0] and time.monotonic() < end:
            await asyncio.sleep(0.02)

    def _ready(self) -> tuple[bool, str]:
        if not self._finder.scanned:
            return False, "looking at sysfs"
        return self._publisher.ready()

    def _serves(self) -> tuple[bool, str]:
        """Ready, and whoever should be here is known, and what lies between devices."""
        ready, why = self._ready()
        if ready and not self._memory.compared:
            return False, "comparing with the inventory"
        if ready and not self.topologist.ready:
            return False, "looking at what lies between devices"
        return ready, why

    def _status(self) -> dict[str, str]:
        """Lines of the landing page."""
        counts = self._counts
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(counts.reloaded))
        used = counts.reload_ok and counts.web_ok
        return {
            "engine": f"{self._link.engine}: {self._link.reason}",
            "preset": self._config.preset,
            "configuration": f"in use since {moment}" + ("" if used else ", a newer one cannot be used"),
            "reading": "paused" if self._sampler.paused else "on",
        }

    def _devices_changed(self) -> None:
        self.troubles.missing(self._inventory.missing)
        if self._processes is not None:
            self._processes.devices_changed(self._gpu_drivers())
        if self._frozen:
            # What went is given back now; with what was here at first set aside this takes a moment only.
            gc.collect()

    # Tasks

    def _look_after(self) -> None:
        """At each heartbeat of the reader, and without one soon after: what is not anybody's event.

        One wake-up serves both: between two rounds of reading it is the only one.
        """
        if self._timer is not None:
            self._timer.cancel()
        soon = True
        now = time.monotonic()
        try:
            soon = self._attend(now)
        except Exception as error:
            self._tasks.failed("clock", error)
        later = _ATTENTIVE if soon or not self._frozen else _FALLBACK * self._link.heartbeat_seconds
        if self._watchdog is not None:
            # The service manager hears of it here because this is the loop that serves.
            service.notify(WATCHDOG=1)
            later = min(later, self._watchdog / 3)
        self._timer = asyncio.get_running_loop().call_later(later, self._look_after)

    def _attend(self, now: float) -> bool:
        soon = self._sampler.tick(now)
        if self._processes is not None:
            self._processes.attend(now)
        if self._streams is not None:
            self._streams.attend(now)
        self._tasks.beat()
        if not self._frozen and self._ready()[0]:
            # What is here now mostly stays: the collector need not walk it again, which takes longer than
            # the loop should ever stand still. A collection before would take as long once more.
            gc.freeze()
            self._frozen = True
            service.notify(STATUS=self._ready()[1])
        if not self._sampler.paused:
            self._finder.attend(now)
        return soon

    async def _follow_web(self) -> None:
        """Certificates and users change without a word: look at their files."""
        if self._serving is not None:
            await self._serving.refresh()
            self._counts.web_ok = not self._serving.web_error

    async def _weigh_processes(self) -> None:
        """What the daemon itself costs, now and then."""
        while True:
            await asyncio.sleep(_FIRST_WEIGHING if not self._counts.processes else _WEIGH_EVERY)
            pids = {"server": os.getpid(), "reader": self._link.pid, "launcher": self._link.launcher_pid}
            if self._processes is not None and self._processes.link.up:
                pids["scout"] = self._processes.link.pid
            if self._streams is not None and self._streams.link.up:
                pids["tracer"] = self._streams.link.pid
            pids |= {kind: link.pid for kind, link in self._calls.links.items() if link.up}
            self._counts.processes = await asyncio.to_thread(_costs, pids)


def _costs(pids: dict[str, int]) -> "dict[str, ProcessCost]":
    # Imported in the thread that asks: importing psutil takes longer than the loop should stand still.
    from gpudaemon.sources.own_processes import own_processes

    return own_processes(pids)


def look(config: Config) -> "tuple[Snapshot, Report]":
    """Read this host once; returns what is known of it and what is thought of its GPUs."""

    async def main() -> "tuple[Snapshot, Report]":
        return await Daemon(config).look()

    return asyncio.run(main())


def look_at_cxl(config: Config) -> "Bus":
    """Read this host once; returns its CXL bus, empty where there is none."""
    from gpudaemon.collectors.cxl.build import build
    from gpudaemon.model.device import Device, DeviceKind

    async def main() -> "Bus":
        daemon = Daemon(config)
        await daemon.look(_LONG_GRACE)
        entry = daemon.entry("cxl")
        if entry is None or entry.facts is None:
            return build(Device(id="cxl", kind=DeviceKind.CXL_BUS, path="bus"), {})
        return build(entry.device, entry.facts)

    return asyncio.run(main())


def look_between(config: Config) -> "tuple[Topology, tuple[Pair, ...]]":
    """Read this host once; returns its PCI functions and what lies between them."""

    async def main() -> "tuple[Topology, tuple[Pair, ...]]":
        daemon = Daemon(config)
        await daemon.look(_LONG_GRACE)
        return daemon.topologist.made.topology, daemon.topologist.made.pairs

    return asyncio.run(main())


def run(
    config: Config,
    *,
    load: Callable[[], Config] | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Run a daemon until SIGTERM or SIGINT; returns within two seconds, whatever hangs.

    load: reads the configuration again at SIGHUP. A thread may be left in a slow system call: the caller ends
    the process by `os._exit`.
    """
    # Threads that parse sysfs or compress a page must not keep the loop from the interpreter for long.
    sys.setswitchinterval(_SWITCH)
    sockets = service.listening_sockets()
    if config.web.systemd_socket and not sockets:
        raise ConfigError("web.systemd_socket: systemd handed over no socket (LISTEN_FDS)")

    async def main() -> None:
        daemon = Daemon(config, sockets=sockets, load=load)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        reloads: set[asyncio.Task[str]] = set()

        def reload() -> None:
            task = loop.create_task(daemon.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        await daemon.serve(announce=announce)

    # Not asyncio.run: it waits for threads, and one of them may be in a listing that does not end.
    asyncio.new_event_loop().run_until_complete(main())
