"""What hostile clients cost: a real daemon with TLS and users, one attack after the other, a scraper beside.

    python tests/bench/bench_hostile.py [--seconds 10] [--engine io_uring] [--plain] [--same-address]

The attackers come from 127.0.0.2 (the same address as the scraper's on request), share the machine's processors
with the daemon, and reconnect when they are cut off. The scraper, with a password and every second time on a
new connection, asks four times a second.
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator

from figures import heading, percentile, show
from processes import RunningDaemon, machine, memory

from hostile import KINDS, Attack, Scraper, configuration  # isort: skip  # found by what `processes` adds to the path

from gpudaemon.mock import HostProcess

SLOWEST = 2.0
LARGEST_GROWTH = 64.0


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
