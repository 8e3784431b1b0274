"""Pages of metrics: rendered in chunks on the event loop, shared by scrapes of the same snapshot.

Who asks for the same format and the same collectors of the same snapshot gets the same rendering; the daemon's
own instruments follow, fresh on every page. At most eight renderings are kept, and none of a former snapshot
once a newer one is asked for.
"""

import asyncio
import io
import time
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from gpudaemon.export.own import own_text
from gpudaemon.export.prometheus import END, Renderer
from gpudaemon.model.snapshot import Snapshot

__all__ = ["Pages"]

_KEPT = 8

_Key = tuple[bool, frozenset[str]]


class Pages:
    """Pages over the newest snapshot. spent: called with the seconds each rendering took."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        registry: CollectorRegistry,
        spent: Callable[[float], object],
    ) -> None:
        self._snapshot = snapshot
        self._registry = registry
        self._spent = spent
        self._renderer = Renderer()
        self._rendered: OrderedDict[_Key, tuple[Snapshot, asyncio.Task[bytes]]] = OrderedDict()

    async def page(self, openmetrics: bool, dropped: frozenset[str]) -> bytes:
        """The whole page without the metrics `dropped`."""
        snapshot = self._snapshot()
        key = (openmetrics, dropped)
        rendered = self._rendered.get(key)
        if rendered is None or rendered[0] is not snapshot or _failed(rendered[1]):
            # The task is nobody's request: who runs out of time leaves it to those who wait on.
            task = asyncio.create_task(self._render(snapshot, openmetrics, dropped))
            task.add_done_callback(_failed)
            rendered = (snapshot, task)
            self._keep(key, rendered)
        page = await asyncio.shield(rendered[1])
        own = own_text(self._registry, openmetrics) + (END if openmetrics else "")
        return page + own.encode("utf-8", "replace")

    def close(self) -> None:
        """Give up what is being rendered."""
        for _, task in self._rendered.values():
            task.cancel()

    def _keep(self, key: _Key, rendered: tuple[Snapshot, asyncio.Task[bytes]]) -> None:
        for other, (snapshot, task) in list(self._rendered.items()):
            if snapshot is not rendered[0] and task.done():
                del self._rendered[other]
        self._rendered[key] = rendered
        self._rendered.move_to_end(key)
        while len(self._rendered) > _KEPT:
            self._rendered.popitem(last=False)

    async def _render(self, snapshot: Snapshot, openmetrics: bool, dropped: frozenset[str]) -> bytes:
        page = io.BytesIO()
        spent = 0.0
        started = time.perf_counter()
        for chunk in self._renderer.chunks(snapshot, openmetrics, dropped):
            page.write(chunk.encode("utf-8", "replace"))
            spent += time.perf_counter() - started
            await asyncio.sleep(0)
            started = time.perf_counter()
        self._spent(spent)
        return page.getvalue()


def _failed(task: asyncio.Task[bytes]) -> bool:
    # Asking for the exception also tells asyncio that somebody knows of it.
    return task.done() and (task.cancelled() or task.exception() is not None)
