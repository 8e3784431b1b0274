"""Listening: sockets, the bound on connections, and aiohttp's runner around an Exposition."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from gpudaemon.errors import ConfigError
from gpudaemon.export.address import ListenAddress, parse_listen_address
from gpudaemon.export.http import Exposition

__all__ = ["Serving", "serve"]

_log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 2.0


class Serving:
    """A running server.

    addresses: what it listens on, with the ports the kernel chose.
    """

    def __init__(
        self, runner: web.AppRunner, servers: Sequence[asyncio.Server], addresses: tuple[ListenAddress, ...]
    ) -> None:
        self.addresses = addresses
        self._runner = runner
        self._servers = servers

    async def close(self) -> None:
        """Stop listening, give requests under way two seconds, and close every connection."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()


async def serve(exposition: Exposition, addresses: str | Sequence[str]) -> Serving:
    """Serve on `HOST:PORT`, `:PORT` or `[IPV6]:PORT`, one or several. Port 0 lets the kernel choose.

    Raises ConfigError for an address that is malformed, unknown to the resolver or cannot be bound; nothing
    is left listening then.
    """
    wanted = [parse_listen_address(text) for text in ([addresses] if isinstance(addresses, str) else addresses)]
    sockets: list[socket.socket] = []
    try:
        for address in wanted:
            sockets += await _bind(address)
    except ConfigError:
        for listening in sockets:
            listening.close()
        raise
    # aiohttp names itself and Python's version in every answer, also in those given before any of our code
    # runs; this constant is the only place where that can be said otherwise.
    web_response.SERVER_SOFTWARE = "gpudaemon"  # type: ignore[attr-defined]
    limits = exposition.limits
    runner = web.AppRunner(
        exposition.app(),
        access_log=None,
        logger=_protocol_log(exposition.count),
        keepalive_timeout=limits.idle_seconds,
        lingering_time=0,  # no route reads a body: what a client still sends is not waited for
        auto_decompress=False,
        max_line_size=limits.line_bytes,
        max_field_size=limits.line_bytes,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    assert runner.server is not None
    connect = _Connections(runner.server, exposition.busy, limits.connections)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(connect, sock=listening, backlog=128) for listening in sockets]
    bound = tuple(_address_of(listening) for listening in sockets)
    _log.info("serving", extra={"addresses": [str(address) for address in bound]})
    return Serving(runner, servers, bound)


async def _bind(address: ListenAddress) -> list[socket.socket]:
    """Sockets of one listen address: of a name, one for each of its addresses."""
    if not address.host:
        dual = socket.has_dualstack_ipv6()
        found = [(socket.AF_INET6, "::")] if dual else [(socket.AF_INET, "0.0.0.0")]
    else:
        dual = False
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"listen address {str(address)!r}: {error}") from error
        found = list(
            dict.fromkeys((socket.AddressFamily(family), str(name[0])) for family, *_, name in answers)
        )
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, host in found:
            # create_server sets SO_REUSEADDR, so a restart need not wait for TIME_WAIT.
            sockets.append(socket.create_server((host, port), family=family, dualstack_ipv6=dual))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise ConfigError(f"listen address {str(address)!r}: {error.strerror or error}") from error
    return sockets


def _address_of(listening: socket.socket) -> ListenAddress:
    host, port = listening.getsockname()[:2]
    return ListenAddress(host, port)


class _Connections:
    """Makes the protocol of each new connection; beyond the bound, the oldest idle connection makes room.

    Refusing the new one instead would let anybody shut Prometheus out by opening connections and waiting.
    """

    def __init__(self, server: web.Server, busy: set[object], limit: int) -> None:
        self._server = server
        self._busy = busy
        self._limit = limit
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> asyncio.Protocol:
        # The loop accepts many connections in a row and connects their protocols in its next round, so only
        # the round after that sees them all.
        self._loop.call_soon(self._loop.call_soon, self._make_room)
        return self._server()

    def _make_room(self) -> None:
        if len(self._server.connections) <= self._limit:
            return
        # One that was told to close stays in the server's list, without transport, until it has.
        connected = [one for one in self._server.connections if one.transport is not None]
        idle = [one for one in connected if one not in self._busy]
        for one in idle[: max(0, len(connected) - self._limit)]:
            one.force_close()


class _ProtocolLog(logging.Handler):
    """Takes what aiohttp logs of one request: what the client did is counted, a bug is logged."""

    def __init__(self, count: Callable[[int], None]) -> None:
        super().__init__()
        self._count = count
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            self._count(400)
        elif record.levelno >= logging.ERROR and type(error).__name__ not in self._seen:
            self._seen.add(type(error).__name__)
            _log.error("connection failed: %s", record.getMessage(), exc_info=error)


def _protocol_log(count: Callable[[int], None]) -> logging.Logger:
    # Not from getLogger: it must have no parent that would print a traceback for every malformed request.
    log = logging.Logger(f"{__name__}.protocol")
    log.addHandler(_ProtocolLog(count))
    return log
