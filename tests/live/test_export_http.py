"""A real server on a loopback port: what it answers, and that no client can keep it from answering."""

import asyncio
import gzip
import html
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Container, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gpudaemon import __version__
from gpudaemon.errors import ConfigError
from gpudaemon.export.http import Exposition, HttpInstruments, Limits
from gpudaemon.export.own import private_registry
from gpudaemon.export.prometheus import Renderer
from gpudaemon.export.serve import Serving, serve
from gpudaemon.model.metric import Kind, Metric, Series, Unit
from gpudaemon.model.snapshot import Block, DeviceView, Samples, Snapshot

pytestmark = pytest.mark.live

_T = TypeVar("_T")

GAUGE = Metric(
    name="gpudaemon_test_watts", kind=Kind.GAUGE, unit=Unit.WATTS, help="T.", labels=("n",), abi="test"
)
FAILED = Metric(name="gpudaemon_daemon_failed_total", kind=Kind.COUNTER, help="T.", abi="test")
REQUESTS = Metric(
    name="gpudaemon_daemon_requests_total", kind=Kind.COUNTER, help="T.", labels=("code",), abi="test"
)
IN_FLIGHT = Metric(name="gpudaemon_daemon_scrapes_in_flight", kind=Kind.GAUGE, help="T.", abi="test")
RENDER = Metric(
    name="gpudaemon_daemon_render_seconds_total", kind=Kind.COUNTER, unit=Unit.SECONDS, help="T.", abi="test"
)
DEVICE = DeviceView(
    id="0000:03:00.0",
    kind="gpu",
    driver="amdgpu",
    path="devices/pci0000:00/0000:03:00.0",
    nodes=("card0", "renderD128"),
    numa_node=None,
    state="ok",
    age=float("nan"),
    identity={"model": "<b>\udcff"},
    attributes=3,
)


def snapshot(version: int, series: int = 3) -> Snapshot:
    prefixes = tuple(Series(GAUGE, (str(number),)).prefix() for number in range(series))
    blocks = {GAUGE: Block(prefixes, tuple(range(series)))}
    samples = Samples("", blocks, (float(version),) * series)
    return Snapshot(at=float(version), version=version, samples=(samples,), devices=(DEVICE,))


@dataclass
class Host:
    """A server in a thread, what it serves, and its loop."""

    exposition: Exposition
    serving: Serving
    loop: asyncio.AbstractEventLoop
    registry: CollectorRegistry

    @property
    def port(self) -> int:
        return self.serving.addresses[0].port

    def get(
        self, path: str = "/metrics", method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer, answer.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def run(self, of: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(of, self.loop).result(20)

    def own(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"gpudaemon_daemon_{name}", labels) or 0.0


@contextmanager
def running(
    newest: Callable[[], Snapshot] | None = None,
    *,
    ready: Callable[[], tuple[bool, str]] = lambda: (True, "ready"),
    limits: Limits | None = None,
    addresses: tuple[str, ...] = ("127.0.0.1:0",),
    html_pages: dict[str, Callable[[Snapshot], str]] | None = None,
    web_config: str = "",
    sockets: tuple[socket.socket, ...] = (),
    start: bool = True,
    subjects: dict[str, frozenset[str]] | None = None,
    status: Callable[[], dict[str, str]] = dict,
) -> Iterator[Host]:
    registry = private_registry()
    counts = HttpInstruments.registered(
        registry,
        requests=REQUESTS,
        scrapes_in_flight=IN_FLIGHT,
        render_seconds=RENDER,
        handshakes_failed=FAILED,
    )
    fixed = snapshot(1)
    exposition = Exposition(
        snapshot=newest or (lambda: fixed),
        ready=ready,
        registry=registry,
        instruments=counts,
        limits=limits,
        html_pages=html_pages,
        subjects=subjects,
        status=status,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        binding = serve(exposition, addresses, sockets=sockets, web_config=web_config, start=start)
        serving = asyncio.run_coroutine_threadsafe(binding, loop).result(20)
        try:
            yield Host(exposition, serving, loop, registry)
        finally:
            asyncio.run_coroutine_threadsafe(serving.close(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with running() as one:
        yield one


def values(text: str) -> list[float]:
    families: Iterable[Family] = parse_openmetrics(text) if text.endswith("# EOF\n") else parse_text(text)
    return [sample.value for family in families if family.name == GAUGE.name for sample in family.samples]


# What is answered


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("application/vnd.google.protobuf", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_a_page_holds_the_snapshot_and_the_daemon_itself(host: Host, accept: str, content_type: str) -> None:
    answer, body = host.get(Accept=accept)
    text = body.decode()
    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert values(text) == [1.0, 1.0, 1.0]
    assert text.index(GAUGE.name) < text.index("process_resident_memory_bytes")
    assert "gpudaemon_daemon_scrapes_in_flight 1.0\n" in text
    assert text.count("# EOF") == content_type.startswith("application/")


def test_gzip_is_the_same_page(host: Host) -> None:
    answer, body = host.get(Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert values(gzip.decompress(body).decode()) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("encoding", ["", "gzip;q=0", "identity", "br"])
def test_identity_where_gzip_is_not_wanted(host: Host, encoding: str) -> None:
    answer, body = host.get(Accept_Encoding=encoding)
    assert answer.headers["Content-Encoding"] is None
    assert values(body.decode()) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/devices"])
def test_head_has_the_headers_of_get_and_no_body(host: Host, path: str) -> None:
    got, _ = host.get(path)
    answer, body = host.get(path, method="HEAD")
    assert answer.status == got.status == 200
    assert answer.headers["Content-Type"] == got.headers["Content-Type"]
    assert body == b""


def test_the_landing_page_links_to_everything_and_escapes() -> None:
    def odd(of: Snapshot) -> str:
        return f"<p>{of.version} \udcff</p>"

    with running(html_pages={'/page"<x>': odd}) as host:
        answer, body = host.get("/")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        for path in ("/metrics", "/api/v1/devices", "/-/ready", "/-/healthy"):
            assert f'href="{path}"' in body.decode()
        assert b"/page&quot;&lt;x&gt;" in body
        assert b"<x>" not in body
        answer, body = host.get("/page%22%3Cx%3E")
        assert (answer.status, body) == (200, b"<p>1 ?</p>")


HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\udcff\n"


def test_no_name_of_a_device_or_a_driver_is_markup() -> None:
    device = replace(
        DEVICE, id=HOSTILE, driver=HOSTILE, kind=HOSTILE, state=HOSTILE, identity={"model": HOSTILE}
    )
    fixed = replace(snapshot(1), devices=(device,) * 300)
    with running(lambda: fixed, status=lambda: {HOSTILE: HOSTILE}, ready=lambda: (False, HOSTILE)) as host:
        answer, body = host.get("/")
    page = body.decode()
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "script" not in re.findall(r"<\s*/?\s*(\w+)", page)
    assert set(re.findall(r"<(\w+)", page)) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr",
        "th", "td", "ul", "li", "a", "span",
    }  # fmt: skip
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in page
    assert len(page) < 500_000
    assert "100 more" in page


def test_the_landing_page_says_how_it_is() -> None:
    hung = replace(DEVICE, id="0000:23:00.0", state="hung", age=None)
    fixed = replace(snapshot(1), devices=(replace(DEVICE, age=0.25), hung))
    with running(lambda: fixed, status=lambda: {"Reading": "paused"}, ready=lambda: (False, "1 of 2")) as host:
        page = host.get("/")[1].decode()
    text = " ".join(re.sub(r"<style>.*</style>|<[^>]*>", " ", page, flags=re.S).split())
    assert __version__ in text
    assert "Ready 1 of 2 Devices 1 hung , 1 ok Reading paused" in text
    assert (
        "0000:23:00.0 gpu amdgpu <b>\ufffd hung - 0000:03:00.0 gpu amdgpu <b>\ufffd ok 0.2 s"
        in html.unescape(text)
    )
    assert '<meta name="viewport"' in page


def test_devices_as_json(host: Host) -> None:
    answer, body = host.get("/api/v1/devices")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    found = json.loads(body, parse_constant=pytest.fail)
    assert (found["at"], found["version"]) == (1.0, 1)
    assert found["devices"] == [
        {
            "id": "0000:03:00.0",
            "kind": "gpu",
            "driver": "amdgpu",
            "path": "devices/pci0000:00/0000:03:00.0",
            "nodes": ["card0", "renderD128"],
            "numa_node": None,
            "state": "ok",
            "age_seconds": None,
            "identity": {"model": "<b>\udcff"},
            "attributes": 3,
        }
    ]


def test_readiness_is_one_line() -> None:
    state = [False, "no snapshot\nyet"]
    with running(ready=lambda: (bool(state[0]), str(state[1]))) as host:
        answer, body = host.get("/-/ready")
        assert (answer.status, body) == (503, b"no snapshot yet\n")
        assert host.get("/-/healthy")[0].status == 200
        state[:] = [True, "ready"]
        answer, body = host.get("/-/ready")
        assert (answer.status, body) == (200, b"ready\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "//etc/passwd", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/", 405),
        ("PUT", "/-/ready", 405),
        ("PATCH", "/api/v1/devices", 405),
    ],
)
def test_refusals_are_one_line(host: Host, method: str, path: str, status: int) -> None:
    answer, body = host.get(path, method=method)
    assert answer.status == status
    assert body.decode().startswith(f"{status} ")
    assert body.count(b"\n") == 1
    assert ("GET" in answer.headers.get("Allow", "")) == (status == 405)


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\nHost: a\r\n", b"nonsense\r\n"])
def test_no_answer_tells_the_versions_of_libraries(host: Host, request_line: bytes) -> None:
    with host.connect() as client:
        client.sendall(request_line + b"Connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"\r\nServer: gpudaemon\r\n" in answer
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


def test_requests_are_counted_by_code_also_those_that_cannot_be_parsed() -> None:
    with running() as host:
        host.get("/-/healthy")
        host.get("/nothing")
        with host.connect() as client:
            client.sendall(b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n")
            while client.recv(65536):
                pass
        assert [host.own("requests_total", code=code) for code in ("200", "404", "400")] == [1, 1, 1]


def test_a_bug_is_a_500_without_traceback_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Snapshot:
        raise RuntimeError("secret")

    with running(broken) as host, caplog.at_level(logging.ERROR):
        for _ in range(3):
            answer, body = host.get("/metrics")
            assert (answer.status, body) == (500, b"500 Internal Server Error\n")
        assert host.get("/-/healthy")[0].status == 200
        assert host.own("requests_total", code="500") == 3
    assert [record.getMessage() for record in caplog.records] == ["request failed"]


# Collectors

OTHER = Metric(name="gpudaemon_other", kind=Kind.GAUGE, help="O.", labels=("n",), abi="test")
SUBJECTS = {
    "one": frozenset({GAUGE.name}),
    "two": frozenset({OTHER.name}),
    "both": frozenset({GAUGE.name, OTHER.name}),
}


def two_metrics(version: int = 1) -> Snapshot:
    blocks = {
        metric: Block((Series(metric, ("0",)).prefix(),), (place,))
        for place, metric in enumerate((GAUGE, OTHER))
    }
    samples = Samples("0000:03:00.0", blocks, (1.0, 2.0))
    return Snapshot(at=0.0, version=version, samples=(samples,), devices=())


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {GAUGE.name, OTHER.name}),
        ("?collect[]=one", {GAUGE.name}),
        ("?collect%5B%5D=two", {OTHER.name}),
        ("?collect[]=one&collect[]=two", {GAUGE.name, OTHER.name}),
        ("?exclude[]=one", {GAUGE.name, OTHER.name}),  # "both" has it, too
        ("?exclude[]=one&exclude[]=both", {OTHER.name}),
        ("?collect=one", {GAUGE.name, OTHER.name}),
        ("?else[]=x", {GAUGE.name, OTHER.name}),
    ],
)
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_a_page_of_some_collectors_has_their_metrics_and_the_daemons_own(
    query: str, shown: set[str], accept: str
) -> None:
    fixed = two_metrics()
    with running(lambda: fixed, subjects=SUBJECTS) as host:
        for _ in range(2):
            answer, body = host.get(f"/metrics{query}", Accept=accept)
            assert answer.status == 200
            found = {name for name in (GAUGE.name, OTHER.name) if f"# TYPE {name} " in body.decode()}
            assert found == shown
            assert b"process_resident_memory_bytes" in body
        assert host.get()[1].count(b"gpudaemon_other{") == 1


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?collect[]=on", "no collector 'on'; did you mean one? allowed are both, one, two\n"),
        ("?exclude[]=", "no collector ''; allowed are both, one, two\n"),
        ("?collect[]=one&exclude[]=two", "collect[] and exclude[] cannot be combined\n"),
        ("?collect[]=%00%0d%0aX:%20y", "no collector '\\x00\\r\\nX: y'; allowed are both, one, two\n"),
    ],
)
def test_an_unknown_collector_is_refused(query: str, text: str) -> None:
    with running(two_metrics, subjects=SUBJECTS) as host:
        answer, body = host.get(f"/metrics{query}")
        assert (answer.status, body.decode()) == (400, text)


def test_renderings_that_are_kept_are_bounded() -> None:
    subjects = {str(number): frozenset({f"gpudaemon_{number}"}) for number in range(40)}
    fixed = two_metrics()
    with running(lambda: fixed, subjects=subjects) as host:
        for number in range(40):
            host.get(f"/metrics?collect[]={number}")
        assert len(host.exposition._pages._rendered) <= 8


# Snapshots and sharing


def test_a_page_is_never_older_than_the_snapshot() -> None:
    current = [snapshot(1)]
    with running(lambda: current[0]) as host:
        for version in range(2, 30):
            current[0] = snapshot(version)
            assert values(host.get()[1].decode()) == [float(version)] * 3


def test_scrapes_of_one_snapshot_share_one_rendering() -> None:
    big = snapshot(1, 5000)
    with running(lambda: big) as host:
        host.get()
        rendered = host.own("render_seconds_total")
        assert rendered > 0
        assert len(values(host.get()[1].decode())) == 5000
        assert host.own("render_seconds_total") == rendered
        host.get(Accept="application/openmetrics-text")
        assert host.own("render_seconds_total") > rendered


class Stumbling(Renderer):
    """Fails the first time."""

    failed = False

    def chunks(
        self, snapshot: Snapshot, openmetrics: bool, dropped: Container[str] = frozenset()
    ) -> Iterator[str]:
        if not self.failed:
            self.failed = True
            raise RuntimeError("once")
        yield from super().chunks(snapshot, openmetrics, dropped)


def test_a_failed_rendering_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as host:
        monkeypatch.setattr(host.exposition._pages, "_renderer", Stumbling())
        assert host.get()[0].status == 500
        assert values(host.get()[1].decode()) == [1.0, 1.0, 1.0]


def test_concurrent_scrapes_all_get_whole_pages() -> None:
    counter = iter(range(1, 10**6))
    with running(lambda: snapshot(next(counter), 3000), limits=Limits(scrapes=100)) as host:

        def scrape(number: int) -> set[float]:
            accept = "application/openmetrics-text" if number % 2 else "text/plain"
            found = values(host.get(Accept=accept)[1].decode())
            assert len(found) == 3000
            return set(found)

        with ThreadPoolExecutor(8) as pool:
            pages = list(pool.map(scrape, range(40)))
    assert all(len(page) == 1 for page in pages), "a page mixes two snapshots"


# Bounds


class SlowRendering:
    """Stands in for the renderer: a page of many chunks, each of which takes a while."""

    def __init__(self, chunks: int, seconds: float) -> None:
        self.work = (chunks, seconds)
        self.begun = 0

    def chunks(self, _: Snapshot, __: bool, ___: Container[str]) -> Iterator[str]:
        self.begun += 1
        for _number in range(self.work[0]):
            time.sleep(self.work[1])
            yield "# chunk\n"


def test_the_clients_timeout_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as host:
        slow = SlowRendering(300, 0.01)
        monkeypatch.setattr(host.exposition._pages, "_renderer", slow)
        started = time.monotonic()
        answer, body = host.get(X_Prometheus_Scrape_Timeout_Seconds="0.5")
        took = time.monotonic() - started
        assert (answer.status, body) == (503, b"no page within 0.45 s\n")
        assert took < 2
        assert host.own("scrapes_in_flight") == 0
        # Who has more time gets the page that the other one left behind.
        assert host.get(X_Prometheus_Scrape_Timeout_Seconds="nonsense")[0].status == 200
        assert slow.begun == 1


def test_too_many_scrapes_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(limits=Limits(scrapes=2)) as host:
        monkeypatch.setattr(host.exposition._pages, "_renderer", SlowRendering(200, 0.01))
        with ThreadPoolExecutor(6) as pool:
            started = time.monotonic()

            def scrape(_: int) -> tuple[int, str | None, float]:
                answer, _body = host.get()
                return answer.status, answer.headers["Retry-After"], time.monotonic() - started

            answers = sorted(pool.map(scrape, range(6)))
        assert [status for status, _, _ in answers] == [200, 200, 503, 503, 503, 503]
        assert {again for status, again, _ in answers if status == 503} == {"1"}
        assert max(took for status, _, took in answers if status == 503) < 1.5
        assert host.get("/-/healthy")[0].status == 200


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x00" * 2000 + b"\r\n\r\n",
        b"\r\n" * 5000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 65536 + b"\r\n\r\n",
        b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 10_000_000,
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["zeros", "lines", "version", "header-64k", "line-64k", "headers", "header-10M", "length", "smuggling"],
)
def test_garbage_is_refused_and_the_connection_closed(host: Host, hostile: bytes) -> None:
    answer = b""
    with host.connect() as client:
        try:
            client.sendall(hostile)
            client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(65536):
                answer += chunk
        except OSError:
            pass  # the server cut it while we were still sending
    assert answer == b"" or answer.split(b" ", 2)[1] == b"400"
    # aiohttp quotes the line it could not read, escaped: four characters a byte.
    assert len(answer) < 4 * host.exposition.limits.line_bytes + 1024
    assert host.get("/-/healthy")[0].status == 200


def test_a_body_is_not_read(host: Host) -> None:
    with host.connect() as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1000)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 405 ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                client.sendall(b"x" * 65536)
    assert host.get("/-/healthy")[0].status == 200


def test_slow_headers_are_cut() -> None:
    with running(limits=Limits(idle_seconds=1)) as host, host.connect() as client:
        started = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for letter in b"GET /metrics HTTP/1.1\r\nX-Slow: " + b"a" * 200:
                client.sendall(bytes([letter]))
                time.sleep(0.05)
        assert 0.5 < time.monotonic() - started < 5


def test_a_client_that_does_not_take_its_answer_is_cut() -> None:
    big = snapshot(1, 60_000)
    with running(lambda: big, limits=Limits(write_seconds=1)) as host, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", host.port))
        for _ in range(20):  # more pages than the kernel's buffers hold
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        server = host.serving._runner.server
        assert server is not None
        deadline = time.monotonic() + 6  # one answer's time, not twenty's
        while server.connections or not host.own("requests_total", code="200"):
            assert time.monotonic() < deadline, "the connection is still being served"
            time.sleep(0.05)
        taken = 0
        with suppress(ConnectionResetError):
            while chunk := client.recv(1 << 20):
                taken += len(chunk)
        assert taken < 20 * len(host.get()[1])


def test_thousands_of_pipelined_requests_are_answered_in_bounded_memory(host: Host) -> None:
    wanted = 5000
    with host.connect() as client:

        def send() -> None:
            client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n" * (wanted - 1))
            client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        received = b""
        most = 0
        while chunk := client.recv(65536):
            received += chunk
            server = host.serving._runner.server
            assert server is not None
            most = max([most, *(len(one._messages) for one in server.connections)])
        sender.join(20)
    assert received.count(b"\r\n\r\nhealthy\n") == wanted
    assert most < 1000


def test_idle_connections_do_not_shut_anybody_out() -> None:
    with running(limits=Limits(connections=16)) as host, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(host.connect())
        for _ in range(5):
            assert host.get()[0].status == 200
        server = host.serving._runner.server
        assert server is not None
        deadline = time.monotonic() + 10
        while len(server.connections) > 16:
            assert time.monotonic() < deadline, f"{len(server.connections)} connections"
            time.sleep(0.05)


def test_a_connection_can_be_used_again(host: Host) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
        assert connection.sock is first


# Addresses


def test_several_addresses_and_the_port_the_kernel_chose() -> None:
    with running(addresses=("127.0.0.1:0", "127.0.0.2:0", ":0")) as host:
        hosts = [address.host for address in host.serving.addresses]
        assert hosts[:2] == ["127.0.0.1", "127.0.0.2"]
        assert hosts[2] in ("::", "0.0.0.0")
        for where, address in zip(("127.0.0.1", "127.0.0.2", "127.0.0.1"), host.serving.addresses, strict=True):
            assert address.port > 0
            socket.create_connection((where, address.port), timeout=5).close()


def test_all_addresses_of_a_name_get_the_port_the_kernel_chose_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        found = ("127.0.0.1", "127.0.0.2", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with running(addresses=("two-addresses.example:0",)) as host:
        addresses = host.serving.addresses
    assert [address.host for address in addresses] == ["127.0.0.1", "127.0.0.2"]
    assert addresses[0].port == addresses[1].port > 0


def test_ipv6_loopback() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with running(addresses=("[::1]:0",)) as host:
        assert str(host.serving.addresses[0]).startswith("[::1]:")
        socket.create_connection(("::1", host.port), timeout=5).close()


def test_an_address_in_use_is_a_config_error_and_leaves_nothing_behind(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as spare:
        free = spare.getsockname()[1]
    with (
        pytest.raises(ConfigError, match=f"127.0.0.1:{host.port}.*in use"),
        running(addresses=(f"127.0.0.1:{free}", f"127.0.0.1:{host.port}")),
    ):
        pass
    socket.create_server(("127.0.0.1", free)).close()


def test_a_restart_can_bind_the_same_port_at_once() -> None:
    with running() as host:
        port = host.port
        assert host.get()[0].status == 200
    with running(addresses=(f"127.0.0.1:{port}",)) as again:
        assert again.get()[0].status == 200


# Binding and accepting


def test_nothing_is_accepted_before_it_is_started_and_nobody_is_refused() -> None:
    with running(start=False) as host, ThreadPoolExecutor(1) as pool:
        threads = threading.active_count()
        early = pool.submit(host.get)
        time.sleep(0.3)
        assert not early.done()
        assert threading.active_count() == threads + 1  # ours
        host.loop.call_soon_threadsafe(host.serving.start)
        assert early.result(10)[0].status == 200
        host.loop.call_soon_threadsafe(host.serving.start)
        assert host.get()[0].status == 200


def test_sockets_that_listen_already() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind("")  # an abstract name the kernel chooses
        unix.listen()
        name = unix.getsockname()
        with running(addresses=(), sockets=(tcp, unix)) as host:
            assert [str(address) for address in host.serving.addresses] == [f"127.0.0.1:{tcp.getsockname()[1]}"]
            assert host.get()[0].status == 200
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(name)
                client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.0 200 ")


def test_a_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as deaf, pytest.raises(ConfigError, match="not a listening"), running(sockets=(deaf,)):
        pass


def test_addresses_change_while_connections_live() -> None:
    with running(addresses=("127.0.0.1:0", "127.0.0.2:0")) as host:
        first, second = host.serving.addresses
        with closing(http.client.HTTPConnection("127.0.0.2", second.port, timeout=10)) as kept:
            kept.request("GET", "/-/healthy")
            kept.getresponse().read()
            connected = kept.sock
            listening = host.serving._bound["127.0.0.1:0"]
            host.run(host.serving.rebind(["127.0.0.1:0", "127.0.0.3:0"]))
            assert host.serving._bound["127.0.0.1:0"] is listening
            assert [address.host for address in host.serving.addresses] == ["127.0.0.1", "127.0.0.3"]
            assert host.serving.addresses[0] == first
            socket.create_connection(("127.0.0.3", host.serving.addresses[1].port), timeout=5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", second.port), timeout=5)
            kept.request("GET", "/-/healthy")
            assert kept.getresponse().read() == b"healthy\n"
            assert kept.sock is connected


def test_an_address_may_take_the_port_of_one_that_goes() -> None:
    with running(addresses=(":0",)) as host:
        port = host.port
        host.run(host.serving.rebind(f"127.0.0.1:{port}"))
        assert [str(address) for address in host.serving.addresses] == [f"127.0.0.1:{port}"]
        assert host.get()[0].status == 200


def test_a_new_address_that_cannot_be_bound_leaves_the_old_ones() -> None:
    with running() as host, socket.create_server(("127.0.0.1", 0)) as other:
        port, taken = host.port, other.getsockname()[1]
        for addresses in ([f"127.0.0.1:{taken}"], ["127.0.0.4:0", f"127.0.0.1:{taken}"], ["nonsense"]):
            with pytest.raises(ConfigError):
                host.run(host.serving.rebind(addresses))
            assert [str(address) for address in host.serving.addresses] == [f"127.0.0.1:{port}"]
            assert host.get()[0].status == 200
