"""What may be asked of a running daemon over its control socket: routes, each with its answer as JSON."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from gpudaemon.discovery.expected import full_id
from gpudaemon.log import recent
from gpudaemon.model.health import Report
from gpudaemon.view.health import as_json

__all__ = ["LONGEST_PAUSE", "Asked", "routes"]

LONGEST_PAUSE = 86400.0
"""Seconds; a pause that nobody ends must not outlast everybody's memory of it."""

_Query = Mapping[str, str]
_Routes = Mapping[tuple[str, str], Callable[[_Query], Awaitable[tuple[int, Any]]]]


class Asked(Protocol):
    """The daemon, as far as it is asked."""

    async def reload(self) -> str:
        """Read the configuration again; returns what is wrong with it, empty where nothing is."""

    def report(self) -> Report:
        """What is thought of each GPU."""

    async def page(self) -> str:
        """What a scrape would be answered."""

    async def forget(self, device: str) -> bool:
        """A GPU was taken out; False where it is not missing."""

    def pause(self, seconds: float) -> None:
        """Read nothing for so long."""

    def resume(self) -> None:
        """Read again."""


def routes(daemon: Asked) -> _Routes:
    """method and path -> what answers; a query is a mapping of words."""

    async def reload(_: _Query) -> tuple[int, Any]:
        wrong = await daemon.reload()
        return (400, {"error": wrong}) if wrong else (200, {})

    async def pause(query: _Query) -> tuple[int, Any]:
        try:
            seconds = float(query.get("seconds", ""))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= LONGEST_PAUSE:
            return 400, {"error": f"seconds: allowed: numbers up to {LONGEST_PAUSE:g}"}
        daemon.pause(seconds)
        return 200, {"paused_seconds": seconds}

    async def resume(_: _Query) -> tuple[int, Any]:
        daemon.resume()
        return 200, {}

    async def health(_: _Query) -> tuple[int, Any]:
        return 200, as_json(daemon.report())

    async def bundle(_: _Query) -> tuple[int, Any]:
        return 200, {"page": await daemon.page(), "log": recent(), "health": as_json(daemon.report())}

    async def forget(query: _Query) -> tuple[int, Any]:
        device = full_id(query.get("device", ""))
        if not await daemon.forget(device):
            return 404, {"error": f"{device!r}: no GPU with this id is missing"}
        return 200, {"forgotten": device}

    return {
        ("GET", "/bundle"): bundle,
        ("GET", "/health"): health,
        ("POST", "/inventory/forget"): forget,
        ("POST", "/pause"): pause,
        ("POST", "/reload"): reload,
        ("POST", "/resume"): resume,
    }
