"""The reader's main loop: `python -m gpudaemon.reader.process CHANNEL TIER ENGINE HEARTBEAT`.

CHANNEL is the descriptor of its end of the socket pair, TIER a key of `model.rights.TIERS`, ENGINE one of auto,
io_uring, threads, HEARTBEAT the seconds between heartbeats. The process ends when the other end is closed: by
`os._exit`, and where a read is stuck in a driver not even that ends it, which is why nothing else lives here.

Packets from the server are JSON objects: {"lane": true} with the lane's memory as a descriptor, {"drop": n},
{"clients": procfs}, {"pause": whether}, {"processors": numbers, none for all}. Packets to the server are
records (see `channel`) or JSON objects: {"engine": name, "reason": why, "thread": number of one that ends with
the process} at the start, {"clients": {node: descriptors}, "denied": processes} in answer.
"""

import array
import contextlib
import gc
import json
import os
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from gpudaemon.model.rights import TIERS
from gpudaemon.reader.channel import RECORD, LaneMemory, RecordKind
from gpudaemon.reader.child import begin_child, run_until_left
from gpudaemon.reader.clients import scan_clients
from gpudaemon.reader.engine import Engine
from gpudaemon.reader.lanes import Lanes
from gpudaemon.reader.threads import ThreadEngine

__all__ = ["Reader", "choose_engine", "prepare"]

_PACKET = 65536
_SWITCH = 0.001
_SMALL_STACK = 1 << 18


def choose_engine(wanted: str, lanes: Lanes, lock: threading.RLock) -> tuple[Engine, str]:
    """The engine to use and why. `auto` takes io_uring where the probe in a child says it works."""
    if wanted != "threads":
        from gpudaemon.reader.probe import probe

        usable, reason = probe()
        if usable:
            from gpudaemon.reader.uring import UringEngine

            try:
                return UringEngine(lanes.finished, lanes.flush, lock), reason
            except OSError as error:
                # The probe's ring was smaller: locked memory may be short for this one.
                reason = f"io_uring_queue_init: {error.strerror}"
        if wanted == "io_uring":
            reason = f"io_uring was asked for but is not to be had: {reason}"
    else:
        reason = "asked for by configuration"
    return ThreadEngine(lanes.finished, lanes.flush, lock), reason


class Reader:
    """Owns every open kernel file, the lanes and the engine.

    engine: makes the engine and says why that one. release, let_go: see `Lanes`.
    """

    def __init__(
        self,
        channel: socket.socket,
        engine: Callable[[Lanes, threading.RLock], tuple[Engine, str]],
        heartbeat: float,
        *,
        release: Callable[[int], None] = os.close,
        let_go: bool = False,
    ) -> None:
        self._channel = channel
        self._dropped = 0
        self._period = heartbeat
        self._heartbeat = 0.0
        self._scanning: threading.Thread | None = None
        self._dropped_lane = False
        self._lock = threading.RLock()
        self._lanes = Lanes(self._send, self._wake, release=release, let_go=let_go)
        self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.engine, reason = engine(self._lanes, self._lock)
        self._lanes.engine = self.engine
        self._poll = select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._poll.register(self._woken, select.EPOLLIN)
        if self.engine.descriptor() >= 0:
            self._poll.register(self.engine.descriptor(), select.EPOLLIN)
        hello = {"engine": self.engine.name, "reason": reason, "thread": _witness()}
        channel.send(json.dumps(hello).encode())

    def run(self) -> None:
        """Read until the server closes its end, then end this process.

        The loop may pass to another thread (see `threads`): the main thread then waits for the process to end.
        """
        self.engine.take_over = self._lead
        self._lead()
        threading.Event().wait()

    def _lead(self) -> None:
        if self._loop():
            os._exit(0)

    def _loop(self) -> bool:
        """True when the server is gone, False when another thread runs this loop now."""
        while True:
            now = time.monotonic()
            with self._lock:
                self._lanes.tick(now)
                if now >= self._heartbeat:
                    self._heartbeat = (now // self._period + 1) * self._period
                    self._beat(now)
                moment = min(self._lanes.next_moment(), self._heartbeat)
            self.engine.run()
            if not self.engine.leads():
                return False
            patience = self.engine.patience()
            if patience is not None:
                moment = min(moment, now + patience)
            if self._dropped_lane:
                # Memory of lanes that went is given back now, not when the collector happens to come round.
                self._dropped_lane = False
                gc.collect()
            for descriptor, _ in self._poll.poll(max(0.0, moment - time.monotonic())):
                if descriptor == self._woken:
                    os.eventfd_read(self._woken)
                elif descriptor == self._channel.fileno() and not self._receive():
                    return True

    def _wake(self) -> None:
        os.eventfd_write(self._woken, 1)

    def _beat(self, now: float) -> None:
        in_flight, workers = self.engine.figures()
        record = RECORD.pack(
            RecordKind.HEARTBEAT,
            int(self.engine.overflowed()),
            min(self._lanes.quarantined, 0xFFFF),
            in_flight,
            workers,
            self._dropped,
            self.engine.limits[0] << 32 | self.engine.limits[1],
            now,
            time.process_time(),
        )
        self._send(record)

    def _send(self, packet: bytes) -> None:
        """Send without ever waiting: a server that is behind loses ticks, counted, not the reader its time."""
        try:
            self._channel.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._dropped += len(packet) // RECORD.size
        except OSError:
            # The server is gone; the main loop sees the end of the channel.
            self._dropped += len(packet) // RECORD.size

    def _receive(self) -> bool:
        """Take what the server sent; False when it closed its end."""
        while True:
            try:
                packet, descriptors = _receive_packet(self._channel)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            message: dict[str, Any] = json.loads(packet)
            with self._lock:
                if "lane" in message:
                    try:
                        self._lanes.add(LaneMemory(descriptors[0]))
                    finally:
                        os.close(descriptors[0])
                elif "drop" in message:
                    self._lanes.drop(message["drop"])
                    self._dropped_lane = True
                elif "clients" in message:
                    self._look_for_clients(message["clients"])
                elif "pause" in message:
                    self._lanes.pause(message["pause"])
                elif "processors" in message:
                    self._run_on(message["processors"])

    def _run_on(self, processors: list[int]) -> None:
        """Keep every thread of this process and the engine's kernel workers to `processors`."""
        try:
            for task in os.listdir("/proc/self/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task), processors or range(os.cpu_count() or 1))
            self.engine.set_processors(processors)
        except (OSError, ValueError) as error:
            print(f"reader: processors {processors}: {error}", file=sys.stderr, flush=True)

    def _look_for_clients(self, procfs: str) -> None:
        """Scan for clients in a thread, one at a time; a question asked meanwhile is answered by that scan."""
        if self._scanning is not None and self._scanning.is_alive():
            return

        def scan() -> None:
            try:
                clients, denied = scan_clients(procfs)
            except OSError:
                clients, denied = {}, 1
            self._send(json.dumps({"clients": clients, "denied": denied}).encode())

        self._scanning = threading.Thread(target=scan, name="clients", daemon=True)
        self._scanning.start()


def _receive_packet(channel: socket.socket) -> tuple[bytes, list[int]]:
    packet, ancillary, _, _ = channel.recvmsg(
        _PACKET, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    )
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            descriptors.extend(numbers)
    return packet, descriptors


def _witness() -> int:
    """A thread that does nothing until the process ends, and then ends at once, whatever others are stuck in.

    Returns its number in the kernel. The main thread cannot tell: of the thread engine it may be the one in the
    driver, of io_uring it waits for the ring (kernel/exit.c, do_exit: io_uring_files_cancel).
    """
    before = threading.stack_size(_SMALL_STACK)
    try:
        thread = threading.Thread(target=threading.Event().wait, name="witness", daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    number = thread.native_id
    assert number is not None
    return number


def prepare(capabilities: Iterable[str]) -> None:
    """Make this process a reader: it ends with its launcher, keeps these capabilities and opens many files."""
    begin_child(capabilities)
    # A scan of processes must not keep the loop from the interpreter for long.
    sys.setswitchinterval(_SWITCH)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    tier, wanted, heartbeat = sys.argv[2], sys.argv[3], float(sys.argv[4])
    # To write is the tracer's alone.
    prepare(set(TIERS[tier]) - {"CAP_DAC_OVERRIDE"})
    run_until_left(lambda: Reader(channel, partial(choose_engine, wanted), heartbeat))


if __name__ == "__main__":
    _main()
