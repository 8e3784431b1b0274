"""Does to the mock host and to the daemon what the schedule says, and remembers what may be asked of the daemon
when.

All moments are CLOCK_MONOTONIC. What is excused begins before the command that causes it is sent, and ends so
many seconds after the command that ends it was answered.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gpudaemon.mock import Control, ControlError, HostProcess
from tests.chaos.schedule import HOST, Episode
from tests.live.daemon import RunningDaemon

__all__ = ["DaemonUnderTest", "DeviceLog", "Span", "World", "home", "hurry"]

_LASTING = 1e9
_HELD = 2.0
_RACE = 1.0
"""seconds in which a device may be woken by reads that had begun when it fell asleep"""


@dataclass(slots=True)
class Span:
    """From `begin` until `end`, and what for."""

    begin: float
    end: float
    kind: str

    def meets(self, begin: float, end: float) -> bool:
        return self.begin <= end and begin <= self.end


@dataclass(slots=True)
class DeviceLog:
    """What is known of one device, or of all of them together.

    excused: when not everything has to be there. files: the same for one file: (path, span). resets: when
    counters may fall. absent, asleep: when there may be nothing (begin: when it was so; end: when it ended).
    late: when values may be as old as those of a file with a long period. wraps: when counters of 32 bits wrap.
    """

    excused: list[Span] = field(default_factory=list)
    files: list[tuple[str, Span]] = field(default_factory=list)
    resets: list[Span] = field(default_factory=list)
    absent: list[Span] = field(default_factory=list)
    asleep: list[Span] = field(default_factory=list)
    late: list[Span] = field(default_factory=list)
    wraps: list[Span] = field(default_factory=list)


class DaemonUnderTest:
    """The daemon over its restarts: always the same port, runtime directory and state."""

    def __init__(self, host: HostProcess, home: str, engine: str) -> None:
        self._host = host
        self._home = home
        self._engine = engine
        self.port = 0
        self.pauses: list[str] = []
        self.logs: list[str] = []
        self.running: RunningDaemon | None = None
        self.starts = 0
        self.reader_kills = 0

    def start(self, wait: float = 30.0) -> RunningDaemon:
        """Start it; returns when it is ready."""
        self.starts += 1
        self.pauses.append(f"{self._home}/pauses-{self.starts}")
        flags = ("--engine", self._engine, "--path.state", f"{self._home}/state", "--period.slow", "5")
        self.running = RunningDaemon(
            self._host,
            *flags,
            port=self.port,
            runtime=f"{self._home}/run",
            uevents=f"socket:{self._host.uevents}",
            environment={"GPUDAEMON_CHAOS_PAUSES": self.pauses[-1]},
            module="tests.chaos.probed",
            wait=wait,
        )
        self.running.__enter__()
        self.port = self.running.port
        # It has a session of its own, and the scheduler gives each session its share (CONFIG_SCHED_AUTOGROUP).
        hurry(self.running.launcher, os.getpriority(os.PRIO_PROCESS, 0))
        return self.running

    def stop(self, *, force: bool = False) -> float:
        """End it; returns how long that took."""
        assert self.running is not None
        began = time.monotonic()
        self.running.stop(force=force)
        self.logs.append(self.running.log)
        return time.monotonic() - began

    def kill_reader(self) -> int:
        """SIGKILL the newest reader; returns its process id."""
        assert self.running is not None
        pid = self.running.reader
        os.kill(pid, signal.SIGKILL)
        self.reader_kills += 1
        return pid


class World:
    """See the module. devices: PCI addresses in the order of the schedule's numbers."""

    def __init__(
        self, host: HostProcess, daemon: DaemonUnderTest, devices: list[str], paths: dict[str, str]
    ) -> None:
        self.host = host
        self.daemon = daemon
        self.devices = devices
        self.logs = {device: DeviceLog() for device in devices}
        self.all = DeviceLog()
        self.down: list[Span] = []
        self.rewoken = 0
        self.refused: list[str] = []
        self.restart_seconds: list[float] = []
        self.done: dict[str, int] = {}
        self.start_seconds: list[float] = []
        self._killed = 0.0
        self._restarting = threading.Lock()
        self.events: list[tuple[float, str, str]] = []
        self._paths = paths
        self._lock = threading.Lock()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    def control(self) -> Control:
        """A connection of the caller's own: one serves one thread only."""
        return Control(self.host.control._path)

    # What may be asked

    def is_well(self, device: str, begin: float, end: float) -> bool:
        """Whether everything of the device must be there between two moments."""
        with self._lock:
            return not any(span.meets(begin, end) for span in (*self.logs[device].excused, *self.all.excused))

    def excused_files(self, device: str, begin: float, end: float) -> set[str]:
        """Files of which nothing need be there."""
        with self._lock:
            return {path for path, span in self.logs[device].files if span.meets(begin, end)}

    def may_fall(self, device: str, begin: float, end: float) -> bool:
        """Whether counters of the device may have fallen between two moments."""
        with self._lock:
            spans = [*self.all.resets, *(self.logs[device].resets if device in self.logs else ())]
            return any(span.meets(begin, end) for span in spans)

    def may_wrap(self, device: str, name: str, begin: float, end: float) -> bool:
        """Whether a counter of the firmware's ticks, which has 32 bits, may have begun anew by itself."""
        with self._lock:
            return "_ticks_total{" in name and any(span.meets(begin, end) for span in self.logs[device].wraps)

    def is_down(self, begin: float, end: float) -> bool:
        """Whether the server was being restarted."""
        with self._lock:
            return any(span.meets(begin, end) for span in self.down)

    def inside(self, spans: list[Span], begin: float, end: float, margin: float) -> bool:
        """Whether the time from `margin` before `begin` to `end` lies within one of the spans."""
        with self._lock:
            return any(span.begin + margin <= begin and end <= span.end for span in spans)

    def may_be_late(self, device: str, begin: float, end: float) -> bool:
        """Whether files of the device may have been moved to a longer period."""
        with self._lock:
            return any(span.meets(begin, end) for span in self.logs[device].late)

    # Doing

    def run(self, episodes: list[Episode], began: float) -> None:
        """Do everything at its time; returns when all is over."""
        control = self.control()
        pending = [(began + one.begins, number, one) for number, one in enumerate(episodes)]
        ends: list[tuple[float, Callable[[], None]]] = []
        while pending or ends:
            now = time.monotonic()
            for item in [item for item in ends if item[0] <= now]:
                ends.remove(item)
                item[1]()
            while pending and pending[0][0] <= time.monotonic():
                _, _, episode = pending.pop(0)
                self.done[episode.kind] = self.done.get(episode.kind, 0) + 1
                end = self._begin(control, episode)
                if end is not None:
                    ends.append((time.monotonic() + episode.seconds, end))
            moments = [item[0] for item in ends] + [item[0] for item in pending[:1]]
            if moments:
                time.sleep(max(0.0, min(0.05, min(moments) - time.monotonic())))
        control.close()

    def _begin(self, control: Control, episode: Episode) -> Callable[[], None] | None:
        """Begin an episode; returns what ends it."""
        who = "" if episode.device == HOST else self.devices[episode.device]
        self.events.append((time.monotonic(), who, f"{episode.kind} {episode.file} {episode.arguments}"))
        if episode.device == HOST:
            return self._to_all(control, episode)
        device = self.devices[episode.device]
        log, span = self.logs[device], Span(time.monotonic(), math.inf, episode.kind)
        base = self._paths[device]
        name = episode.kind
        if episode.arguments.get("kind") == "vanish":
            # Names that come and go make another plan; what is known stays, but for a moment.
            self._add(log.excused, Span(span.begin, span.begin + 3.0, name))
            self._add(log.excused, Span(span.begin + episode.seconds, span.begin + episode.seconds + 9.0, name))
        if name == "wrap":
            self._add(log.wraps, Span(span.begin, span.begin + 60.0, name))
        if name in ("workload", "errors", "wrap"):
            getattr(control, name)(device, **episode.arguments)
            return None
        if name in ("content", "errno"):
            self._add(log.files, (episode.file, span))
        elif name == "lasting errno":
            span.end = _LASTING
            self._add(log.files, (episode.file, span))
        else:
            self._add(log.excused, span)
        if name == "latency":
            self._add(log.late, span)
        if name in ("remove", "rebind", "reset"):
            self._add(log.resets, span)
        end = getattr(self, f"_{name.replace(' ', '_')}")(control, device, f"{base}/{episode.file}", episode)

        def finish() -> None:
            if end is not None:
                end()
                self.events.append((time.monotonic(), device, f"end of {name}"))
            # What a former reader is stuck in is read again when that one is gone.
            held = _HELD if name.startswith("hang") and self._killed > span.begin else 0.0
            span.end = max(time.monotonic() + episode.heals + held, span.end if span.end < math.inf else 0.0)

        if episode.seconds == 0 and end is None:
            finish()
            return None
        return finish

    def _add(self, spans: list[object], span: object) -> None:
        with self._lock:
            spans.append(span)

    def _hang_file(self, control: Control, device: str, path: str, _: Episode) -> Callable[[], None]:
        control.fault(path, "hang")
        return lambda: self._release(control, path)

    def _hang_device(self, control: Control, device: str, path: str, _: Episode) -> Callable[[], None]:
        control.fault(f"{self._paths[device]}/*", "hang")
        return lambda: self._release(control, f"{self._paths[device]}/*")

    def _hang_gate(self, control: Control, device: str, path: str, _: Episode) -> Callable[[], None]:
        gate = f"{self._paths[device]}/power/runtime_status"
        control.fault(gate, "hang")
        return lambda: self._release(control, gate)

    def _latency(self, control: Control, device: str, path: str, episode: Episode) -> Callable[[], None]:
        control.fault(f"{self._paths[device]}/*", "latency", **episode.arguments)
        return lambda: self._release(control, f"{self._paths[device]}/*")

    def _jitter(self, control: Control, device: str, path: str, episode: Episode) -> Callable[[], None]:
        control.fault(f"{self._paths[device]}/*", "jitter", **episode.arguments)
        return lambda: self._release(control, f"{self._paths[device]}/*")

    def _errno(self, control: Control, device: str, path: str, episode: Episode) -> Callable[[], None]:
        control.fault(path, "read_errno", **episode.arguments)
        return lambda: self._release(control, path)

    def _lasting_errno(self, control: Control, device: str, path: str, episode: Episode) -> Callable[[], None]:
        control.fault(path, **episode.arguments)
        return lambda: self._release(control, path)

    def _content(self, control: Control, device: str, path: str, episode: Episode) -> Callable[[], None]:
        control.fault(path, **episode.arguments)
        return lambda: self._release(control, path)

    def _suspend(self, control: Control, device: str, path: str, _: Episode) -> Callable[[], None]:
        control.suspend(device)
        asleep = Span(time.monotonic(), math.inf, "suspend")
        before: list[int] = []

        def fast_asleep() -> None:
            """A chain of reads under way goes on, and wakes the device as in the kernel; no later one does."""
            with self.control() as own:
                found = own.stats()["devices"][device]
            if found["runtime_status"] == "suspended" and asleep.end == math.inf:
                before.append(found["suspended_accesses"])
                self._add(self.logs[device].asleep, asleep)
            else:
                self.rewoken += 1

        timer = threading.Timer(_RACE, fast_asleep)
        timer.start()

        def wake() -> None:
            timer.cancel()
            woken_by_host = asleep.end < math.inf
            asleep.end = min(asleep.end, time.monotonic())
            after = control.stats()["devices"][device]["suspended_accesses"]
            if before and after != before[0] and not woken_by_host:
                self.refused.append(f"{device} was woken {after - before[0]} times while it slept")
            control.resume(device)

        return wake

    def _remove(self, control: Control, device: str, path: str, _: Episode) -> Callable[[], None]:
        control.remove(device)
        absent = Span(time.monotonic(), math.inf, "remove")
        self._add(self.logs[device].absent, absent)

        def restore() -> None:
            absent.end = time.monotonic()
            control.restore(device)
            with self._lock:
                # A device that comes is asked for everything anew.
                for _path, span in self.logs[device].files:
                    span.end = min(span.end, time.monotonic() + 3.0)

        return restore

    def _rebind(self, control: Control, device: str, path: str, _: Episode) -> None:
        control.rebind(device)

    def _reset(self, control: Control, device: str, path: str, episode: Episode) -> Callable[[], None]:
        over = control.reset(device, episode.seconds, **episode.arguments)

        def wait() -> None:
            time.sleep(max(0.0, over + 0.05 - time.monotonic()))

        return wait

    def _to_all(self, control: Control, episode: Episode) -> Callable[[], None] | None:
        span = Span(time.monotonic(), math.inf, episode.kind)
        name = episode.kind
        if name == "clock step":
            control.clock_step(**episode.arguments)
            return None
        if name == "kill reader":
            # Values age by the ordinary rule, and the next reader is there before they are old; on a machine
            # that is busy itself it takes as many times longer as any other program does to start.
            self._add(self.all.excused, span)
            self._killed = time.monotonic()
            self.daemon.kill_reader()
            threading.Thread(target=self._compare, args=(span,), daemon=True).start()
            return None
        if name == "host sleep":
            self._add(self.all.excused, span)
            # Every device wakes with the host (drivers/base/power/main.c, dpm_resume).
            with self._lock:
                for log in self.logs.values():
                    for one in log.asleep:
                        one.end = min(one.end, span.begin)
            wakes = control.host_sleep(episode.seconds)

            def awake() -> None:
                time.sleep(max(0.0, wakes - time.monotonic()))
                span.end = time.monotonic() + episode.heals

            return awake
        self._add(self.all.excused, span)
        self._add(self.all.resets, span)
        self._add(self.down, span)
        threading.Thread(target=self._restart, args=(episode, span), daemon=True).start()
        return None

    def _compare(self, span: Span) -> None:
        """End the excuse of a reader's start by what a start takes now: sixteen times that of its modules."""
        began = time.monotonic()
        command = [sys.executable, "-P", "-c", "import gpudaemon.reader.process"]
        packages = str(Path(__file__).resolve().parents[2])
        subprocess.run(command, env={**os.environ, "PYTHONPATH": packages}, check=False)
        self.start_seconds.append(time.monotonic() - began)
        span.end = began + 16 * self.start_seconds[-1]

    def _restart(self, episode: Episode, span: Span) -> None:
        self._restarting.acquire()
        began = self._killed = time.monotonic()
        try:
            self.daemon.stop(force=episode.kind == "kill server")
            self.daemon.start()
        except Exception as error:
            self.refused.append(f"{episode.kind}: {type(error).__name__}: {error}")
        finally:
            self._restarting.release()
        self.restart_seconds.append(time.monotonic() - began)
        span.end = time.monotonic() + episode.heals

    def _release(self, control: Control, path: str) -> None:
        try:
            control.release(path)
        except ControlError as error:
            self.refused.append(str(error))


def hurry(pid: int, nice: int) -> None:
    """Give the session of a process this priority against other sessions (sched(7), The autogroup feature)."""
    with suppress(OSError), open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as stream:
        stream.write(str(nice))


def home() -> "tempfile.TemporaryDirectory[str]":
    """A directory for everything a run leaves."""
    return tempfile.TemporaryDirectory(prefix="gpudaemon-chaos-")
