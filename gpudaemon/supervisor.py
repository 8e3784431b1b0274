"""Tasks that never end: one that fails is counted, logged once and started again; the others do not notice."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)
_MOST_LOGGED = 100
_LONGEST_DELAY = 60.0


class Supervisor:
    """Owner of the daemon's tasks. restarts: failures by task, counted here."""

    def __init__(self, restarts: MutableMapping[str, int]) -> None:
        self._restarts = restarts
        self._tasks: list[asyncio.Task[None]] = []
        self._beats: list[asyncio.Event] = []
        self._logged: set[str] = set()

    def run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` for ever; when it fails, again with back-off."""

        async def forever() -> None:
            delay = 1.0
            while True:
                try:
                    await work()
                except Exception as error:
                    self.failed(name, error)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _LONGEST_DELAY)

        self._tasks.append(asyncio.get_running_loop().create_task(forever(), name=name))

    def at_beats(self, name: str, work: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Do `work` at each `beat`: what may wait for a disk and must not hold the clock.

        Returns what has it done now, and again where it is being done.
        """
        beat = asyncio.Event()
        self._beats.append(beat)

        async def at_beat() -> None:
            while True:
                await beat.wait()
                beat.clear()
                await work()

        self.run(name, at_beat)
        return beat.set

    def beat(self) -> None:
        """The moment for what is done at beats."""
        for beat in self._beats:
            beat.set()

    def failed(self, name: str, error: Exception) -> None:
        """Count a failure of the task `name`, and log it unless it was logged before."""
        self._restarts[name] = self._restarts.get(name, 0) + 1
        key = f"{name} {error!r}"
        if key not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(key)
            _log.error("task failed", extra={"task": name}, exc_info=error)

    async def end(self) -> None:
        """Cancel all of them and wait until they are through."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
