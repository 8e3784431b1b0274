"""Accepting connections: TLS handshakes, and the bound on how many there may be.

Beyond the bound the client with most connections loses its oldest idle one. Refusing the new one instead would
let anybody shut Prometheus out by opening connections and waiting.

A TLS connection waits, at the price of a socket, until its first record is there whole; only then is anything
computed for it, one handshake in a round of the loop, address by address. Garbage and plain HTTP cost nothing.
The context is that of the moment, so a new certificate needs no new listening socket.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial

from aiohttp import web

from gpudaemon.export.access import Access
from gpudaemon.export.turns import Turns, client_of

__all__ = ["Connections"]

_log = logging.getLogger(__name__)

_BATCH = 16
"""Connections accepted in one round of the loop."""
_RETRY_SECONDS = 0.5
_ARRIVAL, _GRACE = 0.05, 0.3
"""Seconds at the end for requests of accepted connections to come, and in all for them to be answered."""
_READ_BYTES = 16 * 1024
_SHUTDOWN_SECONDS = 1.0
_HANDSHAKE = 0x16
_HEADER = 5
_LONGEST_RECORD = 16384 + 2048
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nServer: gpudaemon\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nthis port speaks HTTPS\n"
)


class _Pending:
    """A connection that is not yet the HTTP server's. socket: None once asyncio has it, which closes it."""

    __slots__ = ("client", "leaving", "protocol", "socket", "task")

    def __init__(self, connection: socket.socket, client: str) -> None:
        self.socket: socket.socket | None = connection
        self.client = client
        self.leaving = False
        self.task: asyncio.Task[None] | None = None
        self.protocol: web.RequestHandler | None = None

    @property
    def counts(self) -> bool:
        """False once the HTTP server counts it, or it was told to go."""
        return not self.leaving and (self.protocol is None or self.protocol.transport is None)

    def leave(self) -> None:
        """Give it up; its task ends within two rounds of the loop."""
        self.leaving = True
        if self.task is not None:
            self.task.cancel()


class Connections:
    """Accepts for an aiohttp server. failed: called for each connection that ends before it is one.

    refused: called with the status of an answer given here.
    """

    def __init__(
        self,
        server: web.Server,
        access: Access,
        busy: set[object],
        *,
        limit: int,
        handshake_seconds: float,
        failed: Callable[[], None],
        refused: Callable[[int], None],
    ) -> None:
        self._server = server
        self._access = access
        self._busy = busy
        self._limit = limit
        self._handshake_seconds = handshake_seconds
        self._failed = failed
        self._refused = refused
        self._pending: dict[_Pending, None] = {}
        self._turns = Turns(1)
        self._listening: set[socket.socket] = set()
        self._retries: dict[socket.socket, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._complained: set[str] = set()

    @property
    def pending(self) -> int:
        """Connections in or before their handshake."""
        return len(self._pending)

    def listen(self, listening: socket.socket) -> None:
        """Accept from this socket, which is non-blocking and listens."""
        self._listening.add(listening)
        self._loop.add_reader(listening, self._accept, listening)

    def leave(self, listening: socket.socket) -> None:
        """Accept no more from it; what was accepted stays."""
        self._listening.discard(listening)
        self._loop.remove_reader(listening)
        if (retry := self._retries.pop(listening, None)) is not None:
            retry.cancel()

    def close_outdated(self) -> None:
        """Close what was accepted under other rules about clients than those of now, once it is idle."""
        for one, transport in self._connected():
            if one not in self._busy and not self._access.current(transport):
                _cut(one, transport)

    async def close(self) -> None:
        """Accept no more; what was accepted may ask and be answered for a moment, then it is dropped."""
        for listening in tuple(self._listening):
            self.leave(listening)
        end = self._loop.time() + _GRACE
        await asyncio.sleep(_ARRIVAL)
        while (self._pending or self._busy) and self._loop.time() < end:
            await asyncio.sleep(0.01)
        tasks = [pending.task for pending in self._pending if pending.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(listening, error)
                break
            connection.setblocking(False)
            pending = _Pending(connection, client_of(peer))
            self._pending[pending] = None
            pending.task = self._loop.create_task(self._connect(connection, pending))
            # Not the task's own business: one that is cancelled before its first step runs none of its code.
            pending.task.add_done_callback(partial(self._ended, pending))
        self._close_excess()

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """No descriptor or no memory: the socket stays readable, so looking again at once would spin."""
        self._complain("accept failed", error)
        self._loop.remove_reader(listening)
        self._retries[listening] = self._loop.call_later(_RETRY_SECONDS, self.listen, listening)

    async def _connect(self, connection: socket.socket, pending: _Pending) -> None:
        """Make it the HTTP server's: a task for each, which ends with the handshake."""

        def protocol() -> asyncio.Protocol:
            pending.protocol = self._server()
            return pending.protocol

        context = self._access.context
        try:
            if context is not None and connection.family != socket.AF_UNIX:
                async with asyncio.timeout(self._handshake_seconds):
                    if not await self._hello(connection):
                        self._failed()
                        return
                    await self._turns.take(pending.client)
            pending.socket = None
            transport, _ = await self._loop.connect_accepted_socket(
                protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._handshake_seconds if context is not None else None,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS if context is not None else None,
            )
            if hasattr(transport, "max_size"):
                # What one read takes. A parser that gives up keeps it with its error until the next collection;
                # 256 KiB, asyncio's choice, made a hundred megabytes of a thousand long headers.
                transport.max_size = _READ_BYTES
            if not self._access.named(transport):
                self._failed()
                transport.abort()
        except OSError:  # TLS that failed is one, and so is the end of a time limit
            self._failed()

    def _ended(self, pending: _Pending, task: asyncio.Task[None]) -> None:
        del self._pending[pending]
        if pending.socket is not None:
            pending.socket.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._complain("connection failed", error)

    def _complain(self, what: str, error: BaseException) -> None:
        if what not in self._complained:
            self._complained.add(what)
            _log.error(what, exc_info=error)

    async def _hello(self, connection: socket.socket) -> bool:
        """Wait until the first record is there whole; False where it is none of a handshake."""
        head = await self._peek(connection, _HEADER)
        if len(head) < _HEADER:
            return False
        if head[0] != _HANDSHAKE:
            if head[:3].isalpha():
                self._refused(400)
                connection.send(_PLAIN)
                connection.shutdown(socket.SHUT_WR)
            return False
        length = _HEADER + int.from_bytes(head[3:5], "big")
        if length > _LONGEST_RECORD or len(await self._peek(connection, length)) < length:
            return False
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return True

    async def _peek(self, connection: socket.socket, size: int) -> bytes:
        # With the low-water mark the socket is not readable before so much is there, or its end
        # (socket(7); tcp_poll since 2.4). A reader that merely looks would be called over and over.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        readable = asyncio.Event()
        self._loop.add_reader(connection, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(connection)
        return connection.recv(size, socket.MSG_PEEK)

    def _connected(self) -> list[tuple[web.RequestHandler, asyncio.Transport]]:
        # One that was told to close stays in the server's list, without transport, until it has.
        return [
            (one, one.transport)
            for one in self._server.connections
            if one.transport is not None and not one.transport.is_closing()
        ]

    def _close_excess(self) -> None:
        waiting = [pending for pending in self._pending if pending.counts]
        excess = len(waiting) + len(self._server.connections) - self._limit
        if excess <= 0:
            return
        connected = self._connected()
        excess = len(waiting) + len(connected) - self._limit
        # Of each client: idle connections, those before their handshake, busy ones; the oldest last.
        held: dict[str, tuple[list[Callable[[], object]], ...]] = {}
        for one, transport in reversed(connected):
            ranks = held.setdefault(client_of(transport.get_extra_info("peername")), ([], [], []))
            ranks[2 if one in self._busy else 0].append(partial(_cut, one, transport))
        for pending in reversed(waiting):
            ranks = held.setdefault(pending.client, ([], [], []))
            ranks[1].append(pending.leave)
        for _ in range(excess):
            greediest = max(held.values(), key=lambda ranks: sum(map(len, ranks)))
            next(rank for rank in greediest if rank).pop()()


def _cut(one: web.RequestHandler, transport: asyncio.Transport) -> None:
    one.force_close()
    transport.abort()  # a TLS client that does not answer the farewell would stay for another second
