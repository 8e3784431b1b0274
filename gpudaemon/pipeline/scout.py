"""The scout process as the server sees it: started by the launcher, heard, and replaced when it dies or is
silent.

It reads nothing that enters a driver, so it can be killed at any time; see `gpudaemon.processes`.
"""

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ScoutLink"]

_log = logging.getLogger(__name__)
_PACKET = 1 << 16
_GRACE = 60.0
_SILENCE = 4.0
"""Periods without a word after which a scout is given up."""
_DELAYS = (0.0, 1.0, 5.0, 15.0, 60.0)
_LONG_LIFE = 60.0
_AT_ONCE = 64


class ScoutLink:
    """One scout, or another process of that kind (name), at a time.

    launch: has one started, and returns its channel and process id; it may block and raise OSError. kill: ends
    one. on_message: takes each of its messages. on_start: a further one begins; returns settings for it alone.
    on_loss: one has died or was given up.
    """

    def __init__(
        self,
        launch: Callable[[], tuple[socket.socket, int]],
        kill: Callable[[int], None],
        period: float,
        *,
        name: str = "scout",
    ) -> None:
        self._name = name
        self._launch = launch
        self._kill = kill
        self._period = period
        self._channel: socket.socket | None = None
        self._settings: Mapping[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[None] | None = None
        self._heard = 0.0
        self._started = 0.0
        self._failures = 0
        self.on_message: Callable[[dict[str, Any]], None] = lambda _: None
        self.on_start: Callable[[], Mapping[str, Any]] = dict
        self.on_loss: Callable[[], None] = lambda: None
        self.pid = 0
        self.restarts: dict[str, int] = {}

    @property
    def up(self) -> bool:
        """Whether there is one."""
        return self._channel is not None

    def settle(self, settings: Mapping[str, Any]) -> None:
        """What to look at, from now on and of later scouts."""
        self._settings = settings
        self._period = settings["period"]
        self.tell({"settings": settings})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send without waiting; one that is behind misses it."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a scout from now on."""
        self._loop = loop
        if self._starting is None and self._channel is None:
            self._starting = loop.create_task(self._start())

    def watch(self, now: float) -> None:
        """Replace one that has not been heard for too long."""
        if self._channel is not None and now - self._heard > max(_GRACE, _SILENCE * self._period):
            self._lost("silent")

    def close(self) -> None:
        """End it."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        self._part()

    def _part(self) -> None:
        if self._channel is None:
            return
        assert self._loop is not None
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._channel = None
        self._kill(self.pid)

    def _lost(self, reason: str) -> None:
        assert self._loop is not None
        self.restarts[reason] = self.restarts.get(reason, 0) + 1
        _log.error("%s lost", self._name, extra={"pid": self.pid, "reason": reason})
        self._part()
        self.on_loss()
        self._starting = self._loop.create_task(self._start())

    async def _start(self) -> None:
        assert self._loop is not None
        began = time.monotonic()
        lived = began - self._started
        self._failures = 0 if not self.pid or lived > _LONG_LIFE else self._failures + 1
        while True:
            await asyncio.sleep(_DELAYS[min(self._failures, len(_DELAYS) - 1)])
            try:
                channel, self.pid = await asyncio.to_thread(self._launch)
                break
            except OSError as error:
                self._failures += 1
                _log.error("%s could not be started", self._name, extra={"error": str(error)})
        channel.setblocking(False)
        self._channel = channel
        self._heard = self._started = time.monotonic()
        self._loop.add_reader(channel.fileno(), self._readable)
        self._starting = None
        if self._settings:
            self.tell({"settings": {**self._settings, **self.on_start()}})

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            if self._channel is None:
                return
            try:
                packet = self._channel.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost("died")
                return
            self._heard = time.monotonic()
            self.on_message(json.loads(packet))
