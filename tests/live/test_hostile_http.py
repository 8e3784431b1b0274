"""Clients that mean harm against a real daemon: the scraper is answered, data stay fresh, memory is bounded.

Short; `tests/bench/bench_hostile.py` has the figures. Attackers come from an address of their own.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess
from tests.live.daemon import RunningDaemon
from tests.live.hostile import KINDS, Attack, Scraper, configuration, oldest

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

SECONDS = 2.5
SLOWEST = 5.0
OLDEST = 3.0
"""Seconds. Values older than this are not served: one that misses three of its rounds."""
GROWTH = 96 * 1024 * 1024
OPEN_KINDS = ("flood of requests", "pipelining", "answers not read")


class Served:
    """A daemon, whether it speaks TLS, and its memory before anything happened."""

    def __init__(self, daemon: RunningDaemon, tls: bool) -> None:
        self.daemon = daemon
        self.tls = tls
        scraper = Scraper(daemon.port, tls)
        daemon.until(lambda: "gpudaemon_gpu_busy_ratio" in scraper.scrape(), 30)
        scraper.close()
        self.before = self.resident()

    def resident(self) -> int:
        """Bytes of the server that are in memory."""
        with open(f"/proc/{self.daemon.pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _served(engine: str, tls: bool, directory: Path) -> Iterator[Served]:
    web = configuration(str(directory), plain=not tls)
    with HostProcess("mi300x8") as host:
        flags = ("--engine", engine, "--web.config.file", web)
        with RunningDaemon(host, *flags, wait=0) as daemon:
            yield Served(daemon, tls)


@pytest.fixture(scope="module", params=["io_uring", "threads"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _served(request.param, True, tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module", params=["io_uring", "threads"])
def public(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _served(request.param, False, tmp_path_factory.mktemp("web"))


def withstands(served: Served, kind: str) -> None:
    scraper = Scraper(served.daemon.port, served.tls)
    scraper.start()
    with Attack(kind, served.daemon.port, SECONDS, tls=served.tls) as attack:
        count = attack.count()
        resident = served.resident()
    scraper.stop()
    assert count > 0, "nothing was attacked"
    assert scraper.failures == []
    assert len(scraper.ages) >= 3
    assert max(scraper.took) < SLOWEST
    assert max(scraper.ages) < OLDEST
    assert resident - served.before < GROWTH


@pytest.mark.parametrize("kind", KINDS)
def test_with_tls_and_users(guarded: Served, kind: str) -> None:
    withstands(guarded, kind)


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_where_everybody_is_answered(public: Served, kind: str) -> None:
    withstands(public, kind)


def test_afterwards_all_is_as_before(guarded: Served) -> None:
    scraper = Scraper(guarded.daemon.port, guarded.tls)

    def calm() -> bool:
        page = scraper.scrape()
        # The scraper's own connection, and what is not HTTP's: listening, control, launcher, reader, pages.
        return "gpudaemon_daemon_scrapes_in_flight 1.0" in page and oldest(page) < OLDEST

    guarded.daemon.until(calm, 10)
    page = scraper.scrape()
    assert 'gpudaemon_daemon_http_requests_total{code="401"}' in page
    assert 'gpudaemon_daemon_http_requests_total{code="429"}' in page
    scraper.close()
    for secret in ("right", "cHJvbWV0aGV1cz", "$2b$"):
        assert secret not in guarded.daemon.log
    assert "Traceback" not in guarded.daemon.log
