"""The reader process as the server sees it: started, heard, and replaced when it dies or falls silent."""

import array
import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping

from gpudaemon.reader import launcher
from gpudaemon.reader.channel import RECORD, RecordKind

__all__ = ["SILENCE", "ReaderLink", "Record"]

_log = logging.getLogger(__name__)

SILENCE = 2.5
"""Heartbeats missed after which a reader is taken for dead."""
_START_GRACE = 20.0
_PACKET = 1 << 16
_RESTART_DELAYS = (0.0, 0.2, 1.0, 2.0, 5.0)

Record = tuple[int, int, int, int, int, int, int, float, float]
"""See `gpudaemon.reader.channel.RECORD`."""


class ReaderLink:
    """One reader at a time.

    on_record: takes each record of a lane. on_start: the channel of a new reader takes plans.
    on_lost: the reader with this pid is gone or given up; its lanes are nobody's now.
    on_beat: a heartbeat came: the moment to look after things.
    on_clients: open descriptors by DRM or accel node, in answer to `ask_clients`.
    """

    def __init__(self, *, tier: str, engine: str, heartbeat: float = 2.0) -> None:
        """Start the launcher and ask it for a reader, before anything else of the server is imported."""
        self.heartbeat_seconds = heartbeat
        self._tier = tier
        self._wanted = engine
        self._control, self._launcher = launcher.start(tier)
        self._channel, self.pid = launcher.request(self._control, engine, heartbeat)
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
        self.up = True
        self.engine = ""
        self.reason = ""
        self.restarts: dict[str, int] = {}
        self.heartbeat: Record = (RecordKind.HEARTBEAT, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
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

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear the reader on this loop from now on."""
        self._loop = loop
        loop.add_reader(self._channel.fileno(), self._readable)
        self._greet()

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
        return self._launcher.pid

    def watch(self, now: float) -> None:
        """Replace a reader that has not been heard for too long."""
        if self.up and now - self._heard > SILENCE * self.heartbeat_seconds:
            self._lost("silent")

    async def close(self) -> None:
        """End reader and launcher; a stuck reader stays behind until its read returns."""
        if self._replacing is not None:
            self._replacing.cancel()
        self.up = False
        if self._loop is not None:
            self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._control.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.to_thread(self._launcher.wait), 1.0)

    def _flush(self) -> None:
        while self._unsent and self.up:
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
        self.up = False
        self.restarts[reason] = self.restarts.get(reason, 0) + 1
        self._cpu_before = self.cpu_seconds
        self._dropped_before = self.records_dropped
        self.heartbeat = (RecordKind.HEARTBEAT, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        _log.error("reader lost", extra={"pid": self.pid, "reason": reason})
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        for _, descriptor in self._unsent:
            if descriptor >= 0:
                os.close(descriptor)
        self._unsent.clear()
        with contextlib.suppress(OSError):
            self._control.send(f"kill {self.pid}".encode())
        self.on_lost(self.pid)
        self._replacing = self._loop.create_task(self._replace())

    async def _replace(self) -> None:
        assert self._loop is not None
        while not self.up:
            lived = time.monotonic() - self._last_start
            self._failures = 0 if lived > 60 else self._failures + 1
            await asyncio.sleep(_RESTART_DELAYS[min(self._failures, len(_RESTART_DELAYS) - 1)])
            self._last_start = time.monotonic()
            try:
                self._channel, self.pid = await asyncio.to_thread(self._request)
            except OSError as error:
                _log.error("reader could not be started", extra={"error": str(error)})
                continue
            self._heard = time.monotonic() + _START_GRACE
            self.up = True
            self._loop.add_reader(self._channel.fileno(), self._readable)
            self._greet()

    def _request(self) -> tuple[socket.socket, int]:
        if self._launcher.poll() is not None:
            # A new launcher has no more rights than this server, which is to say none; better than no reader.
            _log.error("launcher is gone, readers have no capability from now on")
            self._control.close()
            self._control, self._launcher = launcher.start(self._tier)
        return launcher.request(self._control, self._wanted, self.heartbeat_seconds)
