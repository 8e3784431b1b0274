"""What hostile clients cost: a real daemon with TLS and users, one attack after the other, a scraper beside.

    python tests/bench/bench_hostile.py [--seconds 10] [--engine io_uring] [--plain] [--same-address]

The attackers come from 127.0.0.2 (the same address as the scraper's on request), share the machine's processors
with the daemon, and reconnect when they are cut off. The scraper, with a password and every second time on a
new connection, asks four times a second.
"""

import argparse
import base64
import contextlib
import http.client
import os
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

import bcrypt
from figures import heading, percentile, show
from processes import RunningDaemon, machine, memory

from hostile import KINDS, Attack  # isort: skip  # found by what `processes` adds to the path

from gpudaemon.mock import HostProcess

PASSWORD = "right"
SLOWEST = 2.0
LARGEST_GROWTH = 64.0


def configuration(directory: str, plain: bool) -> str:
    """A web configuration with a certificate of its own and one user; cost 10 as `htpasswd -C 10` makes it.

    plain: one that asks for nothing.
    """
    tls = ""
    if not plain:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", f"{directory}/key", "-out", f"{directory}/crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        os.chmod(f"{directory}/key", 0o600)
        tls = "tls_server_config: {cert_file: crt, key_file: key}\n"
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
        tls += f"basic_auth_users: {{prometheus: {hashed}}}\n"
    path = f"{directory}/web.yml"
    with open(path, "w", encoding="ascii") as stream:
        stream.write(tls)
    return path


class Scraper(threading.Thread):
    """Scrapes until told to stop; notes how long it took, the oldest data of any device, and failures."""

    def __init__(self, port: int, tls: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._context = ssl._create_unverified_context() if tls else None
        known = base64.b64encode(f"prometheus:{PASSWORD}".encode()).decode()
        self._headers = {"Authorization": f"Basic {known}", "X-Prometheus-Scrape-Timeout-Seconds": "10"}
        self._done = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self.took: list[float] = []
        self.ages: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._done.wait(0.25):
            began = time.monotonic()
            try:
                self.ages.append(_oldest(self.scrape(fresh=len(self.took) % 2 == 0)))
            except (OSError, AssertionError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__} {error}")
                self._connection = None
            self.took.append(time.monotonic() - began)

    def scrape(self, fresh: bool = False) -> str:
        if fresh or self._connection is None:
            self.close()
            where = ("127.0.0.1", self._port)
            self._connection = (
                http.client.HTTPConnection(*where, timeout=10)
                if self._context is None
                else http.client.HTTPSConnection(*where, timeout=10, context=self._context)
            )
        self._connection.request("GET", "/metrics", headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, f"{answer.status} {body[:100]}"
        return body

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def stop(self) -> None:
        self._done.set()
        self.join(15)
        self.close()


def _oldest(page: str) -> float:
    """Age of the oldest newest reading of any GPU; a bridge has files that are read once in minutes only."""
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    busy = "gpudaemon_gpu_busy_ratio{"
    gpus = {name.split('"')[1] for name in values if name.startswith(busy)}
    return max(float(values[f'gpudaemon_device_data_age_seconds{{device="{gpu}"}}']) for gpu in gpus)


@contextlib.contextmanager
def _highest(pid: int, peaks: dict[str, float]) -> Iterator[None]:
    """Sample the memory of a process meanwhile."""
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.2):
            for name, value in memory(pid).items():
                peaks[name] = max(peaks.get(name, 0.0), value)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5)


def _measure(daemon: RunningDaemon, kind: str, seconds: float, tls: bool, source: str) -> dict[str, float]:
    scraper = Scraper(daemon.port, tls)
    peaks: dict[str, float] = {}
    count = 0
    with _highest(daemon.pid, peaks):
        scraper.start()
        if kind:
            with Attack(kind, daemon.port, seconds, tls=tls, source=source) as attack:
                count = attack.count()
        else:
            time.sleep(seconds)
        scraper.stop()
    for failure in sorted(set(scraper.failures)):
        print(f"  failed: {failure}", flush=True)
    return {
        "count": count,
        "p50": statistics.median(scraper.took),
        "p99": percentile(scraper.took, 0.99),
        "age": max(scraper.ages, default=float("nan")),
        "scrapes": len(scraper.took),
        "failed": len(scraper.failures),
        "Pss": peaks["Pss"],
        "Rss": peaks["Rss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack (10)")
    parser.add_argument("--engine", dest="engines", action="append", choices=("io_uring", "threads"))
    parser.add_argument("--attack", dest="kinds", action="append", choices=KINDS)
    parser.add_argument("--plain", action="store_true", help="neither TLS nor users: every request is answered")
    parser.add_argument("--same-address", action="store_true", help="attackers at the scraper's address")
    arguments = parser.parse_args()
    tls = not arguments.plain
    kinds = arguments.kinds or [
        kind for kind in KINDS if tls or kind not in ("handshakes", "bad TLS", "wrong passwords")
    ]
    source = "127.0.0.1" if arguments.same_address else "127.0.0.2"
    print(machine())
    for engine in arguments.engines or ["io_uring", "threads"]:
        with tempfile.TemporaryDirectory() as directory, HostProcess("mi300x8") as host:
            web = configuration(directory, arguments.plain)
            with RunningDaemon(host, "--engine", engine, "--web.config.file", web, wait=0) as daemon:
                scraper = Scraper(daemon.port, tls)
                daemon.until(lambda scraper=scraper: "gpudaemon_gpu_busy_ratio" in scraper.scrape(), 20)
                scraper.close()
                heading(f"{engine}, {'TLS and users' if tls else 'open to everybody'}, attackers at {source}")
                quiet = _measure(daemon, "", arguments.seconds, tls, source)
                _line("nobody", quiet, quiet)
                for kind in kinds:
                    _line(kind, _measure(daemon, kind, arguments.seconds, tls, source), quiet)
                time.sleep(1)
                show("Pss afterwards", memory(daemon.pid)["Pss"], "MiB", "", f"{quiet['Pss']:.1f} before")


def _line(kind: str, found: dict[str, float], quiet: dict[str, float]) -> None:
    print(
        f"  {kind:<18} {found['count']:>8.0f} times"
        f"  scrape p50 {1e3 * found['p50']:6.1f} p99 {1e3 * found['p99']:7.1f} ms"
        f" ({found['failed']:.0f} of {found['scrapes']:.0f} failed, must 0; p99 <= {1e3 * SLOWEST:.0f})"
        f"  oldest data {found['age']:.2f} s (quiet {quiet['age']:.2f})"
        f"  Pss {found['Pss']:.1f} Rss {found['Rss']:.1f} MiB (+{found['Pss'] - quiet['Pss']:.1f},"
        f" must <= +{LARGEST_GROWTH:.0f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
