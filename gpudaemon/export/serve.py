"""Listening: sockets, and aiohttp's runner around an Exposition.

Binding and accepting are apart: between the two the caller may give up its rights, and no request can start a
thread that still has them. Clients that connect meanwhile wait in the kernel.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError

from gpudaemon.errors import ConfigError
from gpudaemon.export.access import Access
from gpudaemon.export.address import ListenAddress, parse_listen_address
from gpudaemon.export.connections import Connections
from gpudaemon.export.http import Exposition

__all__ = ["Serving", "serve"]

_log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 2.0
_BACKLOG = 1024
"""Connections that wait to be accepted; net.core.somaxconn is an upper bound of its own."""


class Serving:
    """A server: bound when made, running once started. Made by `serve`."""

    def __init__(
        self, runner: web.AppRunner, connections: Connections, access: Access, given: Sequence[socket.socket]
    ) -> None:
        self._runner = runner
        self._connections = connections
        self._access = access
        self._given = tuple(given)
        self._bound: dict[str, list[socket.socket]] = {}
        self._started = False

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """What it listens on, with the ports the kernel chose; sockets that were given come last."""
        return tuple(_address_of(one) for one in self._sockets if one.family != socket.AF_UNIX)

    @property
    def tls(self) -> bool:
        """Whether the next connection is to speak TLS."""
        return self._access.context is not None

    @property
    def web_error(self) -> str:
        """Why the newest state of the web configuration is not in force; empty where it is."""
        return self._access.error

    @property
    def _sockets(self) -> list[socket.socket]:
        return [*(one for sockets in self._bound.values() for one in sockets), *self._given]

    def start(self) -> None:
        """Begin to accept. May be called again."""
        if self._started:
            return
        self._started = True
        for listening in self._sockets:
            self._connections.listen(listening)
        addresses = [str(address) for address in self.addresses]
        _log.info("serving", extra={"addresses": addresses, "tls": self.tls})

    async def refresh(self) -> bool:
        """Take over what changed in the web configuration and its files; True where something did.

        To be called now and then and at SIGHUP: the files are looked at in a thread. A state of them that
        cannot be used changes nothing, is logged once and stands in `web_error`.
        """
        if not self._started or not await self._access.refresh():
            return False
        self._connections.close_outdated()
        return True

    async def rebind(self, addresses: str | Sequence[str]) -> None:
        """Listen on these addresses from now on. Those that stay keep their socket, connections live on.

        Raises ConfigError where one cannot be bound; everything is as before then. An address that takes a
        port over from one that goes (`:9836`, then `127.0.0.1:9836`) refuses connections for a moment.
        """
        wanted = _parsed(addresses)
        going = {text: sockets for text, sockets in self._bound.items() if text not in wanted}
        coming = {text: address for text, address in wanted.items() if text not in self._bound}
        try:
            made = await _bind_all(coming)
        except ConfigError as error:
            in_use = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if not (going and in_use):
                raise
            made = await self._bind_instead(going, coming)
        for text in going:
            self._close(self._bound.pop(text))
        for text, sockets in made.items():
            self._add(text, sockets)
        _log.info("listening elsewhere", extra={"addresses": [str(address) for address in self.addresses]})

    async def _bind_instead(
        self, going: dict[str, list[socket.socket]], coming: dict[str, ListenAddress]
    ) -> dict[str, list[socket.socket]]:
        former = {text: [_address_of(one) for one in sockets] for text, sockets in going.items()}
        for sockets in going.values():
            self._close(sockets)
        try:
            return await _bind_all(coming)
        except ConfigError:
            for text, held in former.items():
                self._add(text, [one for address in held for one in await _bind(address)])
            raise

    def _add(self, text: str, sockets: list[socket.socket]) -> None:
        self._bound[text] = sockets
        if self._started:
            for listening in sockets:
                self._connections.listen(listening)

    def _close(self, sockets: Sequence[socket.socket]) -> None:
        for listening in sockets:
            if listening.fileno() >= 0:
                self._connections.leave(listening)
                listening.close()

    async def close(self) -> None:
        """Stop listening, give requests under way two seconds, and close every connection."""
        await self._connections.close()
        for listening in self._sockets:
            listening.close()
        await self._runner.cleanup()


async def serve(
    exposition: Exposition,
    addresses: str | Sequence[str],
    *,
    sockets: Sequence[socket.socket] = (),
    web_config: str = "",
    start: bool = False,
) -> Serving:
    """Bind `HOST:PORT`, `:PORT` or `[IPV6]:PORT`, one or several.

    Nothing is accepted before `Serving.start`, which is called here where `start` says so.

    Port 0 lets the kernel choose. sockets: ones that listen already, of systemd; they are closed at the end.
    web_config: the file with certificates and users for all of them, read before this returns, without a
    thread. Only the resolver uses one (the loop's default executor).

    Raises ConfigError for an address that is malformed, unknown to the resolver or cannot be bound, for a
    socket that does not listen and for a web configuration that cannot be used; nothing is left listening.
    """
    wanted = _parsed(addresses)
    for given in sockets:
        _check(given)
    access = Access(web_config)
    bound = await _bind_all(wanted)
    # aiohttp names itself and Python's version in every answer, also in those given before any of our code
    # runs; this constant is the only place where that can be said otherwise.
    web_response.SERVER_SOFTWARE = "gpudaemon"  # type: ignore[attr-defined]
    limits = exposition.limits
    runner = web.AppRunner(
        exposition.app(access),
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
    connections = Connections(
        runner.server,
        access,
        exposition.busy,
        limit=limits.connections,
        handshake_seconds=limits.handshake_seconds,
        failed=exposition.handshake_failed,
        refused=exposition.count,
    )
    serving = Serving(runner, connections, access, sockets)
    for text, listening in bound.items():
        serving._add(text, listening)
    if start:
        serving.start()
    return serving


def _parsed(addresses: str | Sequence[str]) -> dict[str, ListenAddress]:
    return {
        text: parse_listen_address(text) for text in ([addresses] if isinstance(addresses, str) else addresses)
    }


def _check(given: socket.socket) -> None:
    """Raise ConfigError for anything but a stream socket that listens."""
    listens = given.type == socket.SOCK_STREAM and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listens:
        raise ConfigError(
            f"socket {given.fileno()}: not a listening stream socket; ListenStream= with Accept=no"
        )
    given.setblocking(False)


async def _bind_all(wanted: dict[str, ListenAddress]) -> dict[str, list[socket.socket]]:
    """Sockets of all addresses; none is left where one cannot be bound."""
    made: dict[str, list[socket.socket]] = {}
    try:
        for text, address in wanted.items():
            made[text] = await _bind(address)
    except ConfigError:
        for sockets in made.values():
            for listening in sockets:
                listening.close()
        raise
    return made


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
            listening = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
            listening.setblocking(False)
            sockets.append(listening)
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for one in sockets:
            one.close()
        raise ConfigError(f"listen address {str(address)!r}: {error.strerror or error}") from error
    return sockets


def _address_of(listening: socket.socket) -> ListenAddress:
    host, port = listening.getsockname()[:2]
    return ListenAddress(host, port)


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
