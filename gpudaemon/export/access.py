"""Who may connect and ask: the web configuration in force, its TLS context and its users.

It is read again when one of its files changed. A new one that cannot be used leaves the old one in force, is
logged once and stands in `error` until it is mended. Connections live on through a new certificate; those
made under other rules about clients are closed.
"""

import asyncio
import hashlib
import logging
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from aiohttp import web

from gpudaemon.errors import ConfigError
from gpudaemon.export.passwords import Busy, Passwords, credentials_of
from gpudaemon.export.web_config import LARGEST, TlsConfig, WebConfig, parse_web_config

__all__ = ["Access"]

_log = logging.getLogger(__name__)

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="gpudaemon", charset="UTF-8"'}
_SOON = {"Retry-After": "1"}

_Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a file says, ready to be used. policy: the rules about clients, equal where they are the same."""

    config: WebConfig
    context: ssl.SSLContext | None
    policy: bytes
    warnings: tuple[str, ...]


class Access:
    """The rules for connections and requests. path: the configuration, empty for plain HTTP for everybody.

    Raises ConfigError where the file cannot be used. The first reading is done by the caller's thread: no other
    may be there yet.

    error: why the newest state of the file is not in force; empty where it is. at: unix time it was taken over.
    """

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.error = ""
        self.at = time.time()
        self.passwords = Passwords()
        self._watched: tuple[str, ...] = ()
        self._seen: _Signature = ()
        self._refreshing = False
        self._policies: WeakKeyDictionary[ssl.SSLContext, bytes] = WeakKeyDictionary()
        self._tokens, self._refilled = 0.0, 0.0
        self._use(self._load() if path else _Loaded(WebConfig(), None, b"", ()))

    @property
    def context(self) -> ssl.SSLContext | None:
        """The context of the next connection; None for plain HTTP."""
        return self._loaded.context

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every answer; an empty value removes one."""
        return self._loaded.config.headers

    async def refresh(self) -> bool:
        """Look whether a file changed, in a thread, and take over what it says; True where rules are new.

        While a look is under way (a file system that hangs) another one returns at once.
        """
        if not self.path or self._refreshing:
            return False
        self._refreshing = True
        try:
            loaded = await asyncio.to_thread(self._look)
        except ConfigError as error:
            self._failed(str(error))
            return False
        finally:
            self._refreshing = False
        if loaded is None:
            return False
        self._use(loaded)
        self.error, self.at = "", time.time()
        _log.info("web configuration taken over", extra={"file": self.path})
        return True

    def current(self, transport: asyncio.BaseTransport) -> bool:
        """Whether this connection was made under the rules about clients that are in force."""
        context = transport.get_extra_info("sslcontext")
        made_under = b"" if context is None else self._policies.get(context)
        return made_under == self._loaded.policy and self.named(transport)

    def named(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the client's certificate has a name that is allowed, where names are asked for."""
        tls = self._loaded.config.tls
        if tls is None or not tls.client_allowed_sans:
            return True
        from gpudaemon.export.tls import allowed_name

        return allowed_name(transport.get_extra_info("peercert"), tls.client_allowed_sans)

    async def admit(self, request: web.Request, client: str) -> web.Response | None:
        """None where the request may be answered, else the answer that says why not."""
        transport = request.transport
        if transport is not None and not self.current(transport):
            refusal = _line(421, "connect again: who may do so has changed")
            refusal.force_close()
            return refusal
        if not self._within_rate():
            return _line(429, "too many requests", _SOON)
        if not self.passwords.wanted:
            return None
        credentials = credentials_of(request.headers.get("Authorization", ""))
        if credentials is None:
            return _line(401, "user and password are needed", _CHALLENGE)
        try:
            right = await self.passwords.check(*credentials, client)
        except Busy:
            return _line(429, "too many passwords are being checked", _SOON)
        return None if right else _line(401, "user or password is wrong", _CHALLENGE)

    def close(self) -> None:
        """End the thread that checks passwords, if there is one."""
        self.passwords.close()

    def _within_rate(self) -> bool:
        rate = self._loaded.config.rate
        if rate is None:
            return True
        now = time.monotonic()
        self._tokens = min(rate.burst, self._tokens + (now - self._refilled) / rate.interval)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _use(self, loaded: _Loaded) -> None:
        self._loaded = loaded
        if loaded.context is not None:
            self._policies[loaded.context] = loaded.policy
        self.passwords.set_users(loaded.config.users)
        if loaded.config.rate is not None:
            self._tokens, self._refilled = float(loaded.config.rate.burst), time.monotonic()
        for warning in loaded.warnings:
            _log.warning("web configuration: %s", warning, extra={"file": self.path})

    def _failed(self, error: str) -> None:
        if error != self.error:
            _log.error("web configuration not taken over, the former one stays: %s", error)
        self.error = error

    def _look(self) -> _Loaded | None:
        """None where no file changed since the last look. In a thread."""
        if self._sign() == self._seen:
            return None
        return self._load()

    def _load(self) -> _Loaded:
        # Signed before it is read: what changes meanwhile is seen at the next look.
        self._watched = (self.path, *self._watched[1:])
        self._seen = self._sign()
        config = parse_web_config(_text_of(self.path), self.path)
        self._watched = (self.path, *(config.tls.files if config.tls is not None else ()))
        self._seen = self._sign()
        if config.tls is None:
            return _Loaded(config, None, b"", config.warnings)
        from gpudaemon.export.tls import make_context, open_to_others, small_buffers

        context = make_context(config.tls, self.path)
        small_buffers()
        warnings = config.warnings
        if open_to_others(config.tls.key_file):
            warnings += (f"tls_server_config.key_file: everybody on this host may read {config.tls.key_file}",)
        return _Loaded(config, context, _policy(config.tls), warnings)

    def _sign(self) -> _Signature:
        return tuple((name, _state_of(name)) for name in self._watched)


def _policy(tls: TlsConfig) -> bytes:
    authorities = tls.client_ca.encode()
    if tls.client_ca_file:
        try:
            with open(tls.client_ca_file, "rb") as stream:
                authorities = stream.read()
        except OSError as error:
            raise ConfigError(f"{tls.client_ca_file}: {error.strerror}") from None
    rules = f"{tls.client_auth_type} {sorted(tls.client_allowed_sans)}".encode()
    return hashlib.blake2b(rules + authorities).digest()


def _text_of(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{path!r}: {error}") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{path}: longer than {LARGEST // 1024} KiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None


def _state_of(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or -1,)
    except ValueError:
        return (-1,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _line(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)
