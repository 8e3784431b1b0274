"""The HTTP face of the daemon: the landing page, `/metrics`, health, readiness and the devices as JSON.

A request reads the newest snapshot and nothing else. Requests take turns, address by address. A page is
rendered in chunks on the event loop and compressed in threads. Every request is bounded: scrapes in flight,
time to render, time to write, answers being written, connections, sizes of lines and headers.

What it speaks is documented in docs/http.md; the scrape protocol is
https://prometheus.io/docs/instrumenting/content_negotiation/ and exporter-toolkit's conventions.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from traceback import clear_frames
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge

from gpudaemon import __version__
from gpudaemon.export.access import Access
from gpudaemon.export.landing import landing
from gpudaemon.export.negotiation import (
    OPENMETRICS,
    TEXT,
    accepts_gzip,
    not_collected,
    scrape_timeout,
    wants_openmetrics,
)
from gpudaemon.export.own import counter, gauge
from gpudaemon.export.page import Pages
from gpudaemon.export.turns import Turns, client_of
from gpudaemon.model.metric import Metric
from gpudaemon.model.snapshot import DeviceView, Snapshot
from gpudaemon.model.trouble import Trouble

try:
    # Five times as fast as zlib for pages, at about the same size.
    from isal import isal_zlib as compressor
except ImportError:
    import zlib as compressor  # type: ignore[no-redef]

__all__ = ["Exposition", "HttpInstruments", "Limits"]

_log = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LINKS = (
    ("/metrics", "Metrics, as Prometheus text or OpenMetrics"),
    ("/api/v1/devices", "Devices, as JSON"),
    ("/api/v1/events", "What went wrong lately, as JSON"),
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

    scrapes: pages being made at once, three quarters of them for one address; more are answered 503 at once.
    scrape_seconds: longest time to make a page, also where the client allows more.
    write_seconds: longest time a client may take to receive an answer; then the connection is cut.
    answers: pages being received at once; beyond, the address that has most of them loses its oldest.
    idle_seconds: longest time between two requests, and for a request to arrive whole.
    handshake_seconds: longest time of a TLS handshake.
    connections: open ones, handshakes included; beyond, who has most of them loses the oldest idle one.
    line_bytes: longest request line and longest header.
    compressors: threads that compress.
    turns: requests begun in one round of the event loop.
    """

    scrapes: int = 8
    scrape_seconds: float = 10.0
    write_seconds: float = 10.0
    answers: int = 16
    idle_seconds: float = 75.0
    handshake_seconds: float = 5.0
    connections: int = 128
    line_bytes: int = 8190
    compressors: int = 2
    turns: int = 4

    @property
    def scrapes_each(self) -> int:
        """Pages being made for one address: somebody else finds room, too."""
        return self.scrapes - self.scrapes // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpInstruments:
    """What the server counts about itself.

    requests: answers by label `code`. scrapes_in_flight: pages being made. render_seconds: time spent on
    rendering, a shared page counted once. handshakes_failed: connections that ended before they were one,
    where TLS is spoken. Exceptions are the requests with code 500.
    """

    requests: Counter
    scrapes_in_flight: Gauge
    render_seconds: Counter
    handshakes_failed: Counter | None = None

    @classmethod
    def registered(
        cls,
        registry: CollectorRegistry,
        *,
        requests: Metric,
        scrapes_in_flight: Metric,
        render_seconds: Metric,
        handshakes_failed: Metric | None = None,
    ) -> Self:
        """Make the instruments of these rows of the metric table and register them."""
        return cls(
            requests=counter(registry, requests),
            scrapes_in_flight=gauge(registry, scrapes_in_flight),
            render_seconds=counter(registry, render_seconds),
            handshakes_failed=counter(registry, handshakes_failed) if handshakes_failed is not None else None,
        )


class Exposition:
    """Everything that is served, over the newest snapshot.

    snapshot: gives the newest one. with_devices: one that has its devices, where `snapshot` gives none.
    ready: (ready or not, why, in one line).
    registry: the daemon's own instruments; their text follows the snapshot's on every page.
    html_pages: path -> renderer of a further HTML page, linked from the landing page.
    subjects: collector -> names of its metrics, for `?collect[]=`.
    status: further lines of the landing page (when the configuration was read, ...), name -> value.
    events: what went wrong lately, oldest first.
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
        subjects: Mapping[str, frozenset[str]] | None = None,
        status: Callable[[], Mapping[str, str]] = dict,
        events: Callable[[], Iterable[Trouble]] = tuple,
    ) -> None:
        self.limits = limits or Limits()
        self.busy: set[object] = set()
        """connections (aiohttp's protocols) with a request being answered"""
        self._with_devices = with_devices or snapshot
        self._ready = ready
        self._instruments = instruments
        self._html_pages = dict(html_pages or {})
        self._subjects = subjects or {}
        self._status = status
        self._events = events
        self._pages = Pages(snapshot, registry, self._spent)
        self._access = Access()
        self._turns = Turns(self.limits.turns)
        self._in_flight: dict[str, int] = {}
        self._writing: dict[asyncio.Transport, str] = {}
        self._logged: set[tuple[str, str]] = set()
        # Threads are started by the first page that wants one, never before.
        self._compressors = ThreadPoolExecutor(self.limits.compressors, thread_name_prefix="compress")

    def app(self, access: Access | None = None) -> web.Application:
        """The application: routes and the guard around them. One application per Exposition."""
        if access is not None:
            self._access = access
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/", self._landing)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/-/healthy", self._healthy)
        app.router.add_get("/-/ready", self._readiness)
        app.router.add_get("/api/v1/devices", self._devices)
        app.router.add_get("/api/v1/events", self._troubles)
        for path, render in self._html_pages.items():
            app.router.add_get(path, self._html(render))
        app.on_cleanup.append(self._close)
        return app

    async def page(self) -> bytes:
        """The whole page of metrics, as a scrape gets it in Prometheus's text format."""
        return await self._pages.page(False, frozenset())

    def count(self, code: int) -> None:
        """Count an answer that was given outside the routes (a request that could not be parsed)."""
        if self._instruments is not None:
            self._instruments.requests.labels(code=str(code)).inc()

    def handshake_failed(self) -> None:
        """Count a connection that ended before it was one."""
        if self._instruments is not None and self._instruments.handshakes_failed is not None:
            self._instruments.handshakes_failed.inc()

    def _spent(self, seconds: float) -> None:
        if self._instruments is not None:
            self._instruments.render_seconds.inc(seconds)

    async def _close(self, _: web.Application) -> None:
        self._pages.close()
        self._access.close()
        self._compressors.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Wait for a turn, make a plain answer of what went wrong, give the client bounded time to take it."""
        self.busy.add(request.protocol)
        try:
            transport = request.transport
            client = client_of(transport.get_extra_info("peername") if transport is not None else None)
            await self._turns.take(client)
            response = await self._answer(request, handler, client)
            self.count(response.status)
            response.headers.update(_HEADERS)
            for name, value in self._access.headers.items():
                response.headers.pop(name, None)
                if value:
                    response.headers[name] = value
            await self._write(request, response, client)
            return response
        finally:
            self.busy.discard(request.protocol)

    async def _answer(self, request: web.Request, handler: _Handler, client: str) -> web.StreamResponse:
        try:
            refusal = await self._access.admit(request, client)
            return await handler(request) if refusal is None else refusal
        except web.HTTPException as refused:
            allowed = {name: value for name, value in refused.headers.items() if name == "Allow"}
            return _line(refused.status, f"{refused.status} {refused.reason}", allowed)
        except Exception as error:
            self._report(request, error)
            return _line(500, "500 Internal Server Error")

    async def _write(self, request: web.Request, response: web.StreamResponse, client: str) -> None:
        transport = request.transport
        if transport is None:
            return
        self._writing[transport] = client
        self._make_room()
        try:
            async with asyncio.timeout(self.limits.write_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError as error:
            transport.abort()
            _let_go(error)
        except ConnectionError as error:
            _let_go(error)  # the client went away, which is its right; aiohttp notices by itself
        finally:
            del self._writing[transport]

    def _make_room(self) -> None:
        """Whole pages lie in memory for those who receive them slowly: there are not ever more of them."""
        if len(self._writing) <= self.limits.answers:
            return
        clients = list(self._writing.values())
        greediest = max(clients, key=clients.count)
        for transport, client in self._writing.items():
            if client == greediest and not transport.is_closing():
                transport.abort()
                return

    def _report(self, request: web.Request, error: Exception) -> None:
        # Only known routes raise anything but a 404, so the set stays as small as the code.
        place = (request.path, type(error).__name__)
        if place not in self._logged:
            self._logged.add(place)
            _log.error("request failed", exc_info=error, extra={"path": request.path})

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        try:
            query = request.query
            dropped = not_collected(
                query.getall("collect[]", ()), query.getall("exclude[]", ()), self._subjects
            )
        except ValueError as error:
            return _line(400, str(error))
        client = client_of(request.transport.get_extra_info("peername") if request.transport else None)
        own = self._in_flight.get(client, 0)
        if own >= self.limits.scrapes_each or sum(self._in_flight.values()) >= self.limits.scrapes:
            return _line(503, "too many scrapes in flight", {"Retry-After": "1"})
        header = request.headers.get("X-Prometheus-Scrape-Timeout-Seconds")
        seconds = scrape_timeout(header, self.limits.scrape_seconds)
        openmetrics = wants_openmetrics(",".join(request.headers.getall("Accept", ())))
        gzip = accepts_gzip(",".join(request.headers.getall("Accept-Encoding", ())))
        headers = {"Content-Type": OPENMETRICS if openmetrics else TEXT, "Vary": "Accept, Accept-Encoding"}
        self._enter(client, 1)
        try:
            async with asyncio.timeout(seconds):
                body = await self._pages.page(openmetrics, dropped)
                if gzip:
                    headers["Content-Encoding"] = "gzip"
                    loop = asyncio.get_running_loop()
                    body = await loop.run_in_executor(self._compressors, _gzip, body)
        except TimeoutError:
            return _line(503, f"no page within {seconds:.3g} s", {"Retry-After": "1"})
        finally:
            self._enter(client, -1)
        return web.Response(body=body, headers=headers)

    def _enter(self, client: str, step: int) -> None:
        self._in_flight[client] = self._in_flight.get(client, 0) + step
        if not self._in_flight[client]:
            del self._in_flight[client]
        if self._instruments is not None:
            self._instruments.scrapes_in_flight.set(sum(self._in_flight.values()))

    async def _landing(self, _: web.Request) -> web.StreamResponse:
        status = dict(self._status())
        if self._access.path:
            status["Web configuration"] = (
                "not usable, the former one stays" if self._access.error else "in force"
            )
        return _markup(
            landing(
                self._with_devices(),
                version=__version__,
                ready=self._ready(),
                links=[*_LINKS, *((path, path.strip("/")) for path in self._html_pages)],
                status=status,
            )
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

    async def _troubles(self, _: web.Request) -> web.StreamResponse:
        body = {"events": [_trouble(event) for event in self._events()]}
        return web.Response(text=json.dumps(body, indent=1) + "\n", content_type="application/json")

    async def _devices(self, _: web.Request) -> web.StreamResponse:
        snapshot = self._with_devices()
        body = {
            "at": snapshot.at,
            "version": snapshot.version,
            "devices": [_device(device) for device in snapshot.devices],
        }
        return web.Response(text=json.dumps(body, indent=1) + "\n", content_type="application/json")


def _trouble(event: Trouble) -> dict[str, object]:
    return {
        "at": event.at,
        "device": event.device,
        "kind": event.kind,
        "severity": event.severity.value,
        "count": event.count,
        "text": event.text,
        "pid": event.pid or None,
        "task": event.task or None,
        "owner": event.owner or None,
    }


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


def _gzip(body: bytes) -> bytes:
    # 31: the largest window, with a gzip header (zlib.h, deflateInit2).
    return compressor.compress(body, 1, wbits=31)


def _let_go(error: BaseException | None) -> None:
    """Clear what the frames of an error hold: a page each, which else waits for the garbage collector."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _line(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=" ".join(text.split()) + "\n", headers=headers)


def _markup(text: str) -> web.Response:
    return web.Response(body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8")
