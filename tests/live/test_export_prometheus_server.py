"""A real Prometheus scrapes a page we serve, in both formats, and knows the same values."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpudaemon.export.http import Exposition
from gpudaemon.export.own import private_registry
from gpudaemon.export.serve import serve
from gpudaemon.model.metric import Kind, Metric, Series, Unit
from gpudaemon.model.snapshot import Block, Samples, Snapshot

pytestmark = pytest.mark.live

POWER = Metric(
    name="gpudaemon_test_power_watts",
    kind=Kind.GAUGE,
    unit=Unit.WATTS,
    help="Power.",
    labels=("device", "sensor"),
    abi="test",
)
ENERGY = Metric(
    name="gpudaemon_test_energy_joules_total", kind=Kind.COUNTER, unit=Unit.JOULES, help="Energy.", abi="test"
)
BOARD = Metric(name="gpudaemon_test_board_info", kind=Kind.INFO, help="Board.", labels=("name",), abi="test")

ODD = 'a "quoted" \\ backslash'

SERIES = [
    (Series(POWER, ("0000:03:00.0", "edge")), 217.25),
    (Series(POWER, ("0000:83:00.0", "edge")), float("inf")),
    (Series(ENERGY), 2**40),
    (Series(BOARD, (ODD,)), 1),
]
STARTED = 1700000000.5

DEADLINE = 60.0


def page() -> Snapshot:
    blocks: dict[Metric, Block] = {}
    for place, (series, _) in enumerate(SERIES):
        before = blocks.get(series.metric, Block((), ()))
        blocks[series.metric] = Block((*before.prefixes, series.prefix()), (*before.indexes, place))
    values = tuple(value for _, value in SERIES)
    created = {Series(ENERGY).prefix(): STARTED}
    return Snapshot(at=1.0, version=1, samples=(Samples("a", blocks, values, created=created),), devices=())


@contextmanager
def served() -> Iterator[int]:
    snapshot = page()
    exposition = Exposition(
        snapshot=lambda: snapshot, ready=lambda: (True, "ready"), registry=private_registry()
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    serving = asyncio.run_coroutine_threadsafe(serve(exposition, "127.0.0.1:0", start=True), loop).result(20)
    try:
        yield serving.addresses[0].port
    finally:
        asyncio.run_coroutine_threadsafe(serving.close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """A Prometheus of our own, scraping the target four times a second; gives the URL of its query API."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
        "scrape_configs:\n"
        f"  - {{job_name: gpudaemon, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n"
    )
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield f"http://127.0.0.1:{port}/api/v1/query"
        except BaseException:
            print(log.read_text()[-4000:])
            raise
        finally:
            process.kill()
            process.wait(20)


def ask(api: str, query: str) -> list[dict[str, object]]:
    try:
        with urllib.request.urlopen(f"{api}?query={urllib.parse.quote(query)}", timeout=5) as answer:
            found: list[dict[str, object]] = json.load(answer)["data"]["result"]
            return found
    except (OSError, urllib.error.URLError):  # not listening yet
        return []


def wait_for(api: str, query: str) -> str:
    """Value of the one series of `query`, once there is one."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = ask(api, query)
        if found:
            assert len(found) == 1
            value = found[0]["value"]
            assert isinstance(value, list)
            return str(value[1])
        time.sleep(0.1)
    raise AssertionError(f"no answer to {query!r} within {DEADLINE} s")


def test_prometheus_scrapes_and_knows_the_same(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        assert not os.environ.get("CI"), "prometheus belongs to CI"
        pytest.skip("prometheus is not installed")
    with served() as target, prometheus(tmp_path, target) as api:
        assert wait_for(api, "up == 1") == "1"
        assert wait_for(api, 'gpudaemon_test_power_watts{device="0000:03:00.0"}') == "217.25"
        assert wait_for(api, 'gpudaemon_test_power_watts{device="0000:83:00.0"}') == "+Inf"
        assert wait_for(api, "gpudaemon_test_energy_joules_total") == str(2**40)
        # Prometheus asks for OpenMetrics first, and only that has the line.
        assert float(wait_for(api, "gpudaemon_test_energy_joules_created")) == STARTED
        assert wait_for(api, f"gpudaemon_test_board_info{{name={json.dumps(ODD)}}}") == "1"
        assert float(wait_for(api, "process_resident_memory_bytes")) > 1e6
        assert wait_for(api, "scrape_samples_scraped > 0") != "0"
