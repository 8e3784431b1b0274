"""A reader process as the server sees it: started, heard, and replaced when it dies or falls silent.

A process that makes calls (`gpudaemon.calls`) is one as well; all come from one launcher.
"""

import array
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from gpudaemon.reader import launcher
from gpudaemon.reader.channel import RECORD, RecordKind

__all__ = ["SILENCE", "Launcher", "ReaderLink", "Record"]

_log = logging.getLogger(__name__)

SILENCE = 2.5
"""Heartbeats missed after which a reader is taken for dead."""
_START_GRACE = 20.0
_PACKET = 1 << 16
_RESTART_DELAYS = (0.0, 0.2, 1.0, 2.0, 5.0)
_LONG_LIFE = 60.0

Record = tuple[int, int, int, int, int, int, int, float, float]
"""See `gpudaemon.reader.channel.RECORD`."""


class Launcher:
    """The launcher, asked by every link, from whatever thread, for one process at a time."""

    def __init__(self, tier: str) -> None:
        """Start it. Raises OSError."""
        self._tier = tier
        self._asking = threading.Lock()
        self._control, self._process = launcher.start(tier)

    @property
    def pid(self) -> int:
        """Process id of the launcher."""
        return self._process.pid

    def request(self, program: str, engine: str, heartbeat: float) -> tuple[socket.socket, int]:
        """See `gpudaemon.reader.launcher.request`. Blocks for some milliseconds. Raises OSError."""
        with self._asking:
            if self._process.poll() is not None:
                # A new launcher has no more rights than this server, which is to say none; better than none.
                _log.error("launcher is gone, readers have no capability from now on")
                self._control.close()
                self._control, self._process = launcher.start(self._tier)
            return launcher.request(self._control, engine, heartbeat, program=program)

    def kill(self, pid: int) -> None:
        """Have a process ended; one that is stuck in a driver ends when its call returns."""
        with contextlib.suppress(OSError):
            self._control.send(f"kill {pid}".encode())

    async def close(self) -> None:
        """End the launcher and all it started."""
        self._control.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.to_thread(self._process.wait), 1.0)


_FLAGS, _PENDING = 6, 28
"""Places behind the name of the program in /proc/PID/stat (proc_pid_stat(5)): flags, pending signals."""
_PF_EXITING, _PF_SIGNALED = 0x4, 0x400
_WAITS, _WAIT = 4, 0.1
"""Looks in a row at a reader that waits in the kernel, and seconds between them."""
_KILLED = 1 << (signal.SIGKILL - 1)
_PIDFD_THREAD = os.O_EXCL
"""include/uapi/linux/pidfd.h, pidfd_open(2): tell of a thread's end, not of its whole process's."""


class ReaderLink:
    """One reader at a time.

    on_record: takes each record of a lane. on_start: the channel of a new reader takes plans.
    on_lost: the reader with this pid is gone or given up; its lanes are nobody's now.
    on_beat: a heartbeat came: the moment to look after things.
    on_clients: open descriptors by DRM or accel node, in answer to `ask_clients`.
    """

    def __init__(
        self,
        *,
        tier: str = "base",
        engine: str,
        heartbeat: float = 2.0,
        program: str = "reader",
        launched_by: Launcher | None = None,
        delays: Sequence[float] = _RESTART_DELAYS,
    ) -> None:
        """Start the launcher and ask it for a reader, before anything else of the server is imported.

        launched_by: ask this launcher instead, and not before `start`. program: what to start there.
        delays: seconds before each replacement of one that did not live for a minute, the last for all others.
        """
        self.heartbeat_seconds = heartbeat
        self._wanted = engine
        self._program = program
        self._delays = delays
        self._owner = launched_by is None
        self.launcher = launched_by or Launcher(tier)
        self._channel: socket.socket | None = None
        self.pid = 0
        self.up = False
        if self._owner:
            self._channel, self.pid = self.launcher.request(program, engine, heartbeat)
            self.up = True
        self._heard = time.monotonic() + _START_GRACE
        self._failures = 0
        self._last_start = time.monotonic()
        self._unsent: list[tuple[bytes, int]] = []
        self._paused = False
        self._processors: list[int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replacing: asyncio.Task[None] | None = None
        self.on_record: Callable[[Record], None] = lambda _: None
        self.on_start: Callable[[], None] = lambda: None
        self.on_lost: Callable[[int], None] = lambda _: None
        self.on_beat: Callable[[], None] = lambda: None
        self.on_clients: Callable[[Mapping[str, int]], None] = lambda _: None
        self.engine = ""
        self.reason = ""
        self.restarts: dict[str, int] = {}
        self.heartbeat: Record = (RecordKind.HEARTBEAT, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        self._waits = 0
        self._thread = -1
        self._cpu_before = 0.0
        self._dropped_before = 0

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this and all former readers."""
        return self._cpu_before + self.heartbeat[8]

    @property
    def records_dropped(self) -> int:
        """Records that this and all former readers could not send."""
        return self._dropped_before + self.heartbeat[5]

    def launch(self, program: str, argument: str, period: float) -> tuple[socket.socket, int]:
        """Have the launcher start something else; see `launcher.request`. Raises OSError."""
        return self.launcher.request(program, argument, period)

    def end(self, pid: int) -> None:
        """Have something the launcher started ended."""
        self.launcher.kill(pid)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear the reader on this loop from now on."""
        self._loop = loop
        if self._channel is not None:
            loop.add_reader(self._channel.fileno(), self._readable)
            self._greet()

    def start(self) -> None:
        """Have a reader started on a loop that was attached, if there is none."""
        if not self.up and self._replacing is None:
            assert self._loop is not None
            self._failures = -1
            self._replacing = self._loop.create_task(self._replace())

    def stop(self) -> None:
        """Let the reader go: nothing is left for it to do. `start` starts another."""
        if self._replacing is not None:
            self._replacing.cancel()
            self._replacing = None
        if self.up:
            self._part()
            self.launcher.kill(self.pid)

    def replace(self, reason: str) -> None:
        """Give this reader up and start another; the reason is counted."""
        if self.up:
            self._lost(reason)

    def _greet(self) -> None:
        """A reader takes messages: first what holds for all of it."""
        if self._processors is not None:
            self._tell({"processors": self._processors})
        if self._paused:
            self._tell({"pause": True})
        self.on_start()

    def send_lane(self, descriptor: int) -> None:
        """Hand a lane's memory to the reader; the descriptor is closed here."""
        self._unsent.append((b'{"lane": true}', descriptor))
        self._flush()

    def drop_lane(self, number: int) -> None:
        """Tell the reader that a lane is not wanted any more."""
        self._tell({"drop": number})

    def ask_clients(self, procfs: str) -> None:
        """Ask the reader who has a GPU open."""
        self._tell({"clients": procfs})

    def pause(self, paused: bool) -> None:
        """Have this and later readers begin nothing, or read again."""
        self._paused = paused
        if self._loop is not None:
            self._tell({"pause": paused})

    def run_on(self, processors: Collection[int]) -> None:
        """Keep readers, and what works for them in the kernel, to `processors`; empty: to all."""
        self._processors = sorted(processors)
        if self._loop is not None:
            self._tell({"processors": self._processors})

    def _tell(self, message: Mapping[str, object]) -> None:
        self._unsent.append((json.dumps(message).encode(), -1))
        self._flush()

    @property
    def launcher_pid(self) -> int:
        """Process id of the launcher."""
        return self.launcher.pid

    def watch(self, now: float) -> None:
        """Replace a reader that has not been heard for too long, or that is ending.

        One that was killed while a read of it is stuck cannot end: its end of the channel stays open, so that
        nothing tells but its state.
        """
        if self.up and now - self._heard > SILENCE * self.heartbeat_seconds:
            self._lost("silent")
        elif self.up:
            self._look_at_state()

    def _look_at_state(self) -> None:
        state, ending = _stat(self.pid)
        # A ring waits for its requests before anything shows that its owner ends (kernel/exit.c, do_exit), and
        # else its owner is never in a driver: IOSQE_ASYNC. It may wait for memory, but not for that long.
        self._waits = self._waits + 1 if state == b"D" and self.engine == "io_uring" else 0
        if ending or self._waits >= _WAITS:
            self._lost("died")
        elif self._waits and self._loop is not None:
            self._loop.call_later(_WAIT, self.watch, time.monotonic() + _WAIT)

    def _follow(self, thread: int) -> None:
        """Hear at once that the reader ends, by a thread of it that nothing can be stuck in.

        Kernels that cannot tell (commit 64bef697d33b, 6.9, was first) leave it to `watch`.
        """
        assert self._loop is not None
        with contextlib.suppress(OSError):
            self._thread = os.pidfd_open(thread, _PIDFD_THREAD)
            self._loop.add_reader(self._thread, self._thread_ended)

    def _thread_ended(self) -> None:
        if self.up:
            self._lost("died")

    async def close(self) -> None:
        """End the reader, and this link's launcher; a stuck reader stays until its read returns."""
        if self._replacing is not None:
            self._replacing.cancel()
        if self.up:
            self._part()
        if self._owner:
            await self.launcher.close()

    def _flush(self) -> None:
        while self._unsent and self.up:
            assert self._channel is not None
            message, descriptor = self._unsent[0]
            rights = array.array("i", [descriptor])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptor >= 0 else []
            try:
                self._channel.sendmsg([message], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                assert self._loop is not None
                self._loop.call_later(0.01, self._flush)
                return
            except OSError:
                return
            self._unsent.pop(0)
            if descriptor >= 0:
                os.close(descriptor)

    def _readable(self) -> None:
        for _ in range(64):
            if self._channel is None:
                return  # given up over the last packet
            try:
                packet = self._channel.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost("died")
                return
            self._take(packet)

    def _take(self, packet: bytes) -> None:
        self._heard = time.monotonic()
        if packet[:1] == b"{":
            hello = json.loads(packet)
            if "clients" in hello:
                self.on_clients(hello["clients"])
                return
            if self._thread < 0:
                self._follow(hello["thread"])
            if (hello["engine"], hello["reason"]) != (self.engine, self.reason):
                self.engine, self.reason = hello["engine"], hello["reason"]
                _log.info("engine", extra={"engine": self.engine, "reason": self.reason})
            return
        for record in RECORD.iter_unpack(packet):
            if record[0] == RecordKind.HEARTBEAT:
                self.heartbeat = record
                self.on_beat()
            else:
                self.on_record(record)

    def _lost(self, reason: str) -> None:
        """This reader is no longer ours, whatever becomes of it."""
        assert self._loop is not None
        self.restarts[reason] = self.restarts.get(reason, 0) + 1
        _log.error(
            "reader lost",
            extra={"pid": self.pid, "reason": reason, "program": self._program, "of": self._wanted},
        )
        self._part()
        self.launcher.kill(self.pid)
        self.on_lost(self.pid)
        self._replacing = self._loop.create_task(self._replace())

    def _part(self) -> None:
        """Neither hear this reader nor tell it anything any more."""
        self.up = False
        self._cpu_before = self.cpu_seconds
        self._dropped_before = self.records_dropped
        self.heartbeat = (RecordKind.HEARTBEAT, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        if self._channel is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._thread >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._thread)
            os.close(self._thread)
            self._thread = -1
        for _, descriptor in self._unsent:
            if descriptor >= 0:
                os.close(descriptor)
        self._unsent.clear()

    async def _replace(self) -> None:
        assert self._loop is not None
        while not self.up:
            lived = time.monotonic() - self._last_start
            self._failures = 0 if lived > _LONG_LIFE else self._failures + 1
            await asyncio.sleep(self._delays[min(self._failures, len(self._delays) - 1)])
            self._last_start = time.monotonic()
            try:
                channel, self.pid = await asyncio.to_thread(
                    self.launcher.request, self._program, self._wanted, self.heartbeat_seconds
                )
            except OSError as error:
                _log.error("reader could not be started", extra={"error": str(error)})
                continue
            self._channel = channel
            self._heard = time.monotonic() + _START_GRACE
            self.up = True
            self._replacing = None
            self._loop.add_reader(channel.fileno(), self._readable)
            self._greet()


def _stat(pid: int) -> tuple[bytes, bool]:
    """(state of a process's first thread, whether it is on its way out), from /proc/PID/stat.

    It is on its way out when it ends (PF_EXITING, include/linux/sched.h), when a signal ends it (PF_SIGNALED,
    which shows while a ring still waits for its requests), or was killed and does not notice in a driver
    (SIGKILL is pending).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read(1024).rpartition(b")")[2].split()
    except OSError:
        return b"", False
    if len(fields) <= _PENDING or not fields[_FLAGS].isdigit() or not fields[_PENDING].isdigit():
        return b"", False
    ending = int(fields[_FLAGS]) & (_PF_EXITING | _PF_SIGNALED) or int(fields[_PENDING]) & _KILLED
    return fields[0], bool(ending)
