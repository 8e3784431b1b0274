"""How long the event loop ever stands still, with everything unpleasant at once.

    python tests/bench/bench_loop.py [--seconds 60] [--engine io_uring --engine threads]

Together, for a minute: 8 of 24 GPUs answer each read after 200 ms, a page of 10,000 series is scraped with gzip
each second, and 5,000 processes are scanned for clients over and over. A task of the daemon's own loop sleeps
a millisecond at a time and notes how late it wakes.
"""

import argparse
import asyncio
import http.client
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection

PROCESSES = 5000
SLOW_GPUS = 8
GPUS = 24
MUST = (0.010, 0.025)
_STEP = 0.001


def _processes(directory: str) -> None:
    """A procfs with 5,000 processes of 12 descriptors each, as far as a scan for clients looks."""
    for pid in range(1000, 1000 + PROCESSES):
        os.makedirs(f"{directory}/{pid}/fd")
        for descriptor in range(12):
            os.symlink(
                "/dev/dri/renderD128" if descriptor == 11 else "/dev/null", f"{directory}/{pid}/fd/{descriptor}"
            )


def _scrape(port: int, seconds: float, results: Connection) -> None:
    """Scrape each second as Prometheus does, from a process of its own."""
    took, lines, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        body = connection.getresponse().read()
        took.append(time.monotonic() - begun)
        connection.close()
        import gzip

        lines = sum(not line.startswith(b"#") for line in gzip.decompress(body).splitlines())
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
    results.send((lines, took))


async def _measure(engine: str, seconds: float) -> dict[str, float]:
    from gpudaemon.config import Config
    from gpudaemon.daemon import Daemon
    from gpudaemon.mock import HostProcess

    with HostProcess("mi300x8", GPUS) as host, tempfile.TemporaryDirectory() as procfs:
        _processes(procfs)
        for card in range(SLOW_GPUS):
            host.control.fault(f"sys/class/drm/card{card}/device/*", "latency", seconds=0.2)
        addresses: list[str] = []
        config = Config(
            sysfs=host.sysfs, procfs=procfs, listen=("127.0.0.1:0",), engine=engine, uevents="none",
            runtime_directory=f"{procfs}/run",
        ).checked()  # fmt: skip
        daemon = Daemon(config)
        serving = asyncio.create_task(daemon.serve(announce=addresses.append))
        while not addresses:
            await asyncio.sleep(0.05)
        # Start-up is not steady state; its longest pause is printed beside.
        start_late = await _late(5.0)
        spawn = multiprocessing.get_context("spawn")
        results, end = spawn.Pipe()
        port = int(addresses[0].rsplit(":", 1)[1])
        scraper = spawn.Process(target=_scrape, args=(port, seconds, end))
        scraper.start()
        scanning = asyncio.create_task(_scan(daemon, procfs))
        late = sorted(await _late(seconds))
        scans = await _stop(scanning)
        lines, took = await asyncio.to_thread(results.recv)
        await asyncio.to_thread(scraper.join)
        daemon.stop()
        await serving
    return {
        "p50": late[len(late) // 2],
        "p99.9": late[int(len(late) * 0.999)],
        "longest": late[-1],
        "longest at start": max(start_late),
        "series": lines,
        "scrapes": len(took),
        "longest scrape": max(took),
        "scans": scans,
    }


async def _late(seconds: float) -> list[float]:
    """How late each sleep of a millisecond ended, in seconds."""
    late, end = [], time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(_STEP)
        late.append(max(0.0, time.monotonic() - begun - _STEP))
    return late


async def _scan(daemon: "object", procfs: str) -> int:
    """Have the reader scan for clients all the time."""
    answers = 0

    def count(_: object) -> None:
        nonlocal answers
        answers += 1

    link = daemon._link  # type: ignore[attr-defined]
    link.on_clients = count
    try:
        while True:
            link.ask_clients(procfs)
            await asyncio.sleep(0.2)
    except asyncio.CancelledError:
        return answers


async def _stop(task: "asyncio.Task[int]") -> int:
    task.cancel()
    return await task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--engine", action="append", choices=("io_uring", "threads"))
    arguments = parser.parse_args()
    engines = arguments.engine or ["io_uring", "threads"]
    if len(engines) > 1:
        # A process for each: the daemon gives up its capabilities, and mounting the next host needs them.
        for engine in engines:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--engine", engine], check=True)
        return
    sys.setswitchinterval(0.001)
    for engine in engines:
        found = asyncio.run(_measure(engine, arguments.seconds))
        print(
            f"{engine:9} p50 {1e3 * found['p50']:.2f} ms  p99.9 {1e3 * found['p99.9']:.2f} ms (at most"
            f" {1e3 * MUST[0]:.0f})  longest {1e3 * found['longest']:.2f} ms (at most {1e3 * MUST[1]:.0f})\n"
            f"{'':9} {found['scrapes']:.0f} scrapes of {found['series']:.0f} series, longest"
            f" {1e3 * found['longest scrape']:.1f} ms; {found['scans']:.0f} scans of {PROCESSES} processes;"
            f" longest pause at start {1e3 * found['longest at start']:.1f} ms"
        )


if __name__ == "__main__":
    main()
