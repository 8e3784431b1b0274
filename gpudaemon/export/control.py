"""The control socket: JSON over HTTP on a Unix socket that only the daemon's own user may open.

It shares nothing with the addresses for scrapers: no TLS, no passwords, no bound in common. Routes are given
as `{(method, path): async callable(query) -> (status, what is answered as JSON)}`. The client's side, `ask`,
needs the standard library only.
"""

import asyncio
import errno
import http.client
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gpudaemon.errors import ConfigError, GpudaemonError

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Control", "ControlError", "Forbidden", "NoAnswer", "NoDaemon", "Routes", "ask", "open_control"]

_log = logging.getLogger(__name__)

_LONGEST_PATH = 107
"""Bytes of a path in sockaddr_un, less the NUL that ends it (unix(7))."""
_MODE = 0o600
_TRY_SECONDS = 1.0
_SHUTDOWN_SECONDS = 1.0
_LARGEST_ANSWER = 64 * 1024 * 1024

Routes = Mapping[tuple[str, str], Callable[[Mapping[str, str]], Awaitable[tuple[int, Any]]]]


class ControlError(GpudaemonError):
    """The daemon could not be asked; the text says why and what to do."""


class NoDaemon(ControlError):
    """Nobody listens there."""


class Forbidden(ControlError):
    """The socket is somebody else's."""


class NoAnswer(ControlError):
    """The daemon did not answer in time, or not as it should."""


class Control:
    """A control socket that is being served. Made by `open_control`."""

    def __init__(self, runner: "web.AppRunner", path: str, identity: tuple[int, int]) -> None:
        self.path = path
        self._runner = runner
        self._identity = identity

    async def close(self) -> None:
        """Stop, and remove the socket, unless another one stands there by now."""
        if _identity(self.path) == self._identity:
            with suppress(OSError):
                os.unlink(self.path)
        await self._runner.cleanup()


async def open_control(path: str, routes: Routes) -> Control:
    """Serve `routes` on a Unix socket with mode 0600. A socket that nobody listens on is replaced.

    Raises ConfigError where the path is too long, is something else than a socket, belongs to a daemon that
    runs, or cannot be made.
    """
    from aiohttp import web

    listening = _bind(path)
    identity = _identity(path)
    assert identity is not None
    app = web.Application(middlewares=[web.middleware(_answered)])
    for (method, route), handler in routes.items():
        app.router.add_route(method, route, _json(handler))
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=10.0, lingering_time=0, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    await web.SockSite(runner, listening).start()
    return Control(runner, path, identity)


def ask(path: str, method: str, target: str, *, timeout: float = 5.0) -> tuple[int, Any]:
    """Ask the daemon whose control socket is `path`; returns the status and the JSON of its answer.

    target: path and query, such as `/pause?seconds=60`. timeout: seconds in all, about.
    Raises NoDaemon, Forbidden or NoAnswer, whose text is for the user.
    """
    connection = _Connection(path, timeout)
    try:
        connection.request(method, target, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(_LARGEST_ANSWER)
        return answer.status, json.loads(body)
    except TimeoutError:
        raise NoAnswer(f"{path}: no answer within {timeout:g} s") from None
    except (http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{path}: not an answer of the daemon: {type(error).__name__}") from None
    except PermissionError:
        raise Forbidden(f"{path}: permission denied; it is open to the daemon's own user and to root") from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoDaemon(f"{path}: no daemon is running there; is path.runtime the one it was given?") from None
    except OSError as error:
        raise NoAnswer(f"{path}: {error.strerror or error}") from None
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        _check_length(self._path, NoDaemon)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _bind(path: str) -> socket.socket:
    """A listening socket at `path` that was never open to anybody else.

    It is bound, given its mode and listens under another name before it gets its own: who finds it finds it
    whole. Of two daemons that start together only one gets the name.
    """
    fresh = os.path.join(os.path.dirname(path), f".{os.getpid()}")
    for name in (path, fresh):
        _check_length(name, ConfigError)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(FileNotFoundError):
            os.unlink(fresh)
        # Linux makes the name with the mode of the descriptor, less the umask (unix(7), unix_bind).
        os.fchmod(listening.fileno(), _MODE)
        listening.bind(fresh)
        try:
            os.chmod(fresh, _MODE)
            listening.listen(16)
            os.link(fresh, path)
        finally:
            os.unlink(fresh)
    except OSError as error:
        listening.close()
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from error
    return listening


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises ConfigError for one that somebody does, or no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"control socket {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"control socket {path}: there is a file that is no socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_TRY_SECONDS)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(path)
            return
        except OSError as error:
            # A full backlog or a foreign owner: somebody is there, or it cannot be known.
            why = error.strerror or str(error)
            if error.errno in (errno.EAGAIN, errno.ETIMEDOUT):
                why = "another daemon listens there"
            raise ConfigError(f"control socket {path}: {why}") from error
    raise ConfigError(
        f"control socket {path}: another daemon answers there; stop it or give this one another path.runtime"
    )


def _check_length(path: str, kind: type[GpudaemonError]) -> None:
    length = len(os.fsencode(path))
    if length > _LONGEST_PATH:
        raise kind(
            f"control socket {path}: {length} bytes, and the kernel takes {_LONGEST_PATH};"
            " choose a shorter path.runtime"
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _json(handler: Callable[[Mapping[str, str]], Awaitable[tuple[int, Any]]]) -> "Any":
    from aiohttp import web

    async def answer(request: web.Request) -> web.StreamResponse:
        status, body = await handler(request.query)
        return web.json_response(body, status=status)

    return answer


async def _answered(request: "web.Request", handler: "Any") -> "web.StreamResponse":
    """Every answer is JSON: also a path that is not there, and a bug, which is logged."""
    from aiohttp import web

    try:
        response: web.StreamResponse = await handler(request)
        return response
    except web.HTTPException as refused:
        return web.json_response({"error": refused.reason}, status=refused.status)
    except asyncio.CancelledError:
        raise
    except GpudaemonError as error:
        return web.json_response({"error": str(error)}, status=400)
    except Exception as error:
        _log.error("control request failed", exc_info=error, extra={"path": request.path})
        return web.json_response({"error": "internal error; see the daemon's log"}, status=500)
