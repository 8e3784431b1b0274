"""The HTTP face of the daemon: the landing page, `/metrics`, health, readiness and the devices as JSON.

A request reads the newest snapshot and nothing else. A page is rendered in chunks on the event loop and
compressed in threads; scrapes of the same snapshot and format share one rendering. Every request is bounded:
scrapes in flight, time to render, time to write, connections, sizes of lines and headers.

What it speaks is documented in docs/http.md; the scrape protocol is
https://prometheus.io/docs/instrumenting/content_negotiation/ and exporter-toolkit's conventions.
"""

import asyncio
import html
import io
import json
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from gpudaemon.export.negotiation import OPENMETRICS, TEXT, accepts_gzip, scrape_timeout, wants_openmetrics
from gpudaemon.export.own import counter, gauge, own_text
from gpudaemon.export.prometheus import END, Renderer
from gpudaemon.model.metric import Metric
from gpudaemon.model.snapshot import DeviceView, Snapshot

__all__ = ["Exposition", "HttpInstruments", "Limits"]

_log = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LINKS = (
    ("/metrics", "Metrics, as Prometheus text or OpenMetrics"),
    ("/api/v1/devices", "Devices, as JSON"),
    ("/-/ready", "Ready: the first snapshot is there"),
    ("/-/healthy", "Healthy: the server answers"),
)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the server; each is there so that no client can cost more than it.

    scrapes: pages being made at once; more are answered 503 at once.
    scrape_seconds: longest time to make a page, also where the client allows more.
    write_seconds: longest time a client may take to receive an answer; then the connection is cut.
    idle_seconds: longest time between two requests, and for a request to arrive whole.
    connections: open ones; beyond, the oldest idle one makes room.
    line_bytes: longest request line and longest header.
    compressors: threads that compress.
    """

    scrapes: int = 8
    scrape_seconds: float = 10.0
    write_seconds: float = 10.0
    idle_seconds: float = 75.0
    connections: int = 128
    line_bytes: int = 8190
    compressors: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpInstruments:
    """What the server counts about itself.

    requests: answers by label `code`. scrapes_in_flight: pages being made. render_seconds: time spent on
    rendering, a shared page counted once. Exceptions are the requests with code 500.
    """

    requests: Counter
    scrapes_in_flight: Gauge
    render_seconds: Counter

    @classmethod
    def registered(
        cls,
        registry: CollectorRegistry,
        *,
        requests: Metric,
        scrapes_in_flight: Metric,
        render_seconds: Metric,
    ) -> Self:
        """Make the instruments of these rows of the metric table and register them."""
        return cls(
            requests=counter(registry, requests),
            scrapes_in_flight=gauge(registry, scrapes_in_flight),
            render_seconds=counter(registry, render_seconds),
        )


class Exposition:
    """Everything that is served, over the newest snapshot.

    snapshot: gives the newest one. with_devices: one that has its devices, where `snapshot` gives none.
    ready: (ready or not, why, in one line).
    registry: the daemon's own instruments; their text follows the snapshot's on every page.
    html_pages: path -> renderer of a further HTML page, linked from the landing page.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        ready: Callable[[], tuple[bool, str]],
        registry: CollectorRegistry,
        with_devices: Callable[[], Snapshot] | None = None,
        instruments: HttpInstruments | None = None,
        limits: Limits | None = None,
        html_pages: Mapping[str, Callable[[Snapshot], str]] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.busy: set[object] = set()
        """connections (aiohttp's protocols) with a request being answered"""
        self._snapshot = snapshot
        self._with_devices = with_devices or snapshot
        self._ready = ready
        self._registry = registry
        self._instruments = instruments
        self._html_pages = dict(html_pages or {})
        self._renderer = Renderer()
        self._in_flight = 0
        self._rendered: dict[bool, tuple[Snapshot, asyncio.Task[bytes]]] = {}
        self._logged: set[tuple[str, str]] = set()
        self._compressors = ThreadPoolExecutor(self.limits.compressors, thread_name_prefix="compress")

    def app(self) -> web.Application:
        """The application: routes and the guard around them. One application per Exposition."""
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/", self._landing)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/-/healthy", self._healthy)
        app.router.add_get("/-/ready", self._readiness)
        app.router.add_get("/api/v1/devices", self._devices)
        for path, render in self._html_pages.items():
            app.router.add_get(path, self._html(render))
        app.on_cleanup.append(self._close)
        return app

    def count(self, code: int) -> None:
        """Count an answer that was given outside the routes (a request that could not be parsed)."""
        if self._instruments is not None:
            self._instruments.requests.labels(code=str(code)).inc()

    async def _close(self, _: web.Application) -> None:
        for _snapshot, task in self._rendered.values():
            task.cancel()
        self._compressors.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Turn what went wrong into a plain answer, and give the client a bounded time to take it."""
        self.busy.add(request.protocol)
        try:
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                allowed = {name: value for name, value in refusal.headers.items() if name == "Allow"}
                response = _line(refusal.status, f"{refusal.status} {refusal.reason}", allowed)
            except Exception as error:
                self._report(request, error)
                response = _line(500, "500 Internal Server Error")
            self.count(response.status)
            response.headers.update(_HEADERS)
            await self._write(request, response)
            return response
        finally:
            self.busy.discard(request.protocol)

    async def _write(self, request: web.Request, response: web.StreamResponse) -> None:
        try:
            async with asyncio.timeout(self.limits.write_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the client went away, which is its right; aiohttp notices by itself

    def _report(self, request: web.Request, error: Exception) -> None:
        # Only known routes raise anything but a 404, so the set stays as small as the code.
        place = (request.path, type(error).__name__)
        if place not in self._logged:
            self._logged.add(place)
            _log.error("request failed", exc_info=error, extra={"path": request.path})

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        if self._in_flight >= self.limits.scrapes:
            return _line(503, "too many scrapes in flight", {"Retry-After": "1"})
        header = request.headers.get("X-Prometheus-Scrape-Timeout-Seconds")
        seconds = scrape_timeout(header, self.limits.scrape_seconds)
        openmetrics = wants_openmetrics(",".join(request.headers.getall("Accept", ())))
        gzip = accepts_gzip(",".join(request.headers.getall("Accept-Encoding", ())))
        headers = {"Content-Type": OPENMETRICS if openmetrics else TEXT, "Vary": "Accept, Accept-Encoding"}
        self._enter(1)
        try:
            async with asyncio.timeout(seconds):
                body = await self._page(openmetrics)
                if gzip:
                    headers["Content-Encoding"] = "gzip"
                    loop = asyncio.get_running_loop()
                    body = await loop.run_in_executor(self._compressors, _gzip, body)
        except TimeoutError:
            return _line(503, f"no page within {seconds:.3g} s", {"Retry-After": "1"})
        finally:
            self._enter(-1)
        return web.Response(body=body, headers=headers)

    def _enter(self, step: int) -> None:
        self._in_flight += step
        if self._instruments is not None:
            self._instruments.scrapes_in_flight.set(self._in_flight)

    async def _page(self, openmetrics: bool) -> bytes:
        """The whole page: the newest snapshot, shared while it is the newest, and the daemon's own, fresh."""
        snapshot = self._snapshot()
        rendered = self._rendered.get(openmetrics)
        if rendered is None or rendered[0] is not snapshot or _failed(rendered[1]):
            # The task is nobody's request: who runs out of time leaves it to those who wait on.
            task = asyncio.create_task(self._render(snapshot, openmetrics))
            task.add_done_callback(_failed)
            self._rendered[openmetrics] = rendered = (snapshot, task)
        page = await asyncio.shield(rendered[1])
        own = own_text(self._registry, openmetrics) + (END if openmetrics else "")
        return page + own.encode("utf-8", "replace")

    async def _render(self, snapshot: Snapshot, openmetrics: bool) -> bytes:
        page = io.BytesIO()
        spent = 0.0
        started = time.perf_counter()
        for chunk in self._renderer.chunks(snapshot, openmetrics):
            page.write(chunk.encode("utf-8", "replace"))
            spent += time.perf_counter() - started
            await asyncio.sleep(0)
            started = time.perf_counter()
        if self._instruments is not None:
            self._instruments.render_seconds.inc(spent)
        return page.getvalue()

    async def _landing(self, _: web.Request) -> web.StreamResponse:
        links = [*_LINKS, *((path, path.strip("/")) for path in self._html_pages)]
        items = "\n".join(
            f'<li><a href="{html.escape(path)}">{html.escape(path)}</a> {html.escape(text)}</li>'
            for path, text in links
        )
        return _markup(
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>gpudaemon</title></head>\n'
            f"<body>\n<h1>gpudaemon</h1>\n<p>Telemetry of the GPUs of this host.</p>\n<ul>\n{items}\n</ul>\n"
            "</body></html>\n"
        )

    def _html(self, render: Callable[[Snapshot], str]) -> _Handler:
        async def page(_: web.Request) -> web.StreamResponse:
            return _markup(render(self._with_devices()))

        return page

    async def _healthy(self, _: web.Request) -> web.StreamResponse:
        return _line(200, "healthy")

    async def _readiness(self, _: web.Request) -> web.StreamResponse:
        ready, why = self._ready()
        return _line(200 if ready else 503, why)

    async def _devices(self, _: web.Request) -> web.StreamResponse:
        snapshot = self._with_devices()
        body = {
            "at": snapshot.at,
            "version": snapshot.version,
            "devices": [_device(device) for device in snapshot.devices],
        }
        return web.Response(text=json.dumps(body, indent=1) + "\n", content_type="application/json")


def _device(device: DeviceView) -> dict[str, object]:
    known = device.age is not None and isfinite(device.age)
    return {
        "id": device.id,
        "kind": device.kind,
        "driver": device.driver,
        "path": device.path,
        "nodes": list(device.nodes),
        "numa_node": device.numa_node,
        "state": device.state,
        "age_seconds": device.age if known else None,
        "identity": dict(device.identity),
        "attributes": device.attributes,
    }


def _failed(task: asyncio.Task[bytes]) -> bool:
    # Asking for the exception also tells asyncio that somebody knows of it.
    return task.done() and (task.cancelled() or task.exception() is not None)


def _gzip(body: bytes) -> bytes:
    # 31: the largest window, with a gzip header (zlib.h, deflateInit2).
    return zlib.compress(body, 1, wbits=31)


def _line(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=" ".join(text.split()) + "\n", headers=headers)


def _markup(text: str) -> web.Response:
    return web.Response(body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8")
