"""How long the event loop ever stands still, with everything unpleasant at once.

    python tests/bench/bench_loop.py [--seconds 60] [--engine io_uring --engine threads]

Together, for a minute: 8 of 24 GPUs answer each read after 200 ms, a page of 10,000 series is scraped with gzip
each second, and 5,000 processes are scanned for clients over and over. All of it over TLS with users (--plain:
without): each scrape is a new connection, 8 clients of another address try ten wrong passwords a second each,
on a new connection every tenth time (--flood: as fast as they can), and users log in whose passwords were not
checked yet. A task of the daemon's own loop sleeps a millisecond at a time and notes how late it wakes.
"""

import argparse
import asyncio
import base64
import contextlib
import http.client
import multiprocessing
import os
import ssl
import subprocess
import sys
import tempfile
import threading
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


USERS = 200
GUESSERS = 8
GUESSES = 10.0
"""Tries a second of each."""
OTHER = ("127.0.0.2", 0)
COST = 10


def _web(directory: str) -> str:
    """A web configuration: TLS with an ECDSA key, and users whose passwords are their names."""
    import bcrypt

    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-keyout", f"{directory}/key", "-out", f"{directory}/crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    os.chmod(f"{directory}/key", 0o600)
    lines = ["tls_server_config: {cert_file: crt, key_file: key}", "basic_auth_users:"]
    for number in range(USERS):
        name = f"user{number}"
        lines.append(f"  {name}: {bcrypt.hashpw(name.encode(), bcrypt.gensalt(COST)).decode()}")
    with open(f"{directory}/web.yml", "w", encoding="ascii") as stream:
        stream.write("\n".join(lines) + "\n")
    return f"{directory}/web.yml"


def _connection(port: int, tls: bool, source: tuple[str, int] | None = None) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=source)
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context, source_address=source)


def _login(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _log_in(port: int, seconds: float, flood: bool, results: Connection) -> None:
    """Wrong passwords, and right ones that were not checked before; from a process of its own."""
    end = time.monotonic() + seconds
    codes: dict[tuple[str, int], int] = {}

    def count(kind: str, code: int) -> None:
        codes[kind, code] = codes.get((kind, code), 0) + 1

    def guess(number: int) -> None:
        tries = 0
        while time.monotonic() < end:
            guessing = _connection(port, True, OTHER)
            with contextlib.closing(guessing) as connection, contextlib.suppress(OSError):
                for _ in range(10):
                    if not flood:
                        time.sleep(1 / GUESSES)
                    tries += 1
                    connection.request("GET", "/metrics", headers=_login("user0", f"{number} {tries}"))
                    answer = connection.getresponse()
                    answer.read()
                    count("wrong", answer.status)

    guessers = [threading.Thread(target=guess, args=(number,)) for number in range(GUESSERS)]
    for one in guessers:
        one.start()
    for number in range(1, USERS):
        if time.monotonic() > end:
            break
        with contextlib.closing(_connection(port, True)) as connection:
            connection.request("GET", "/-/healthy", headers=_login(f"user{number}", f"user{number}"))
            count("right", connection.getresponse().status)
        time.sleep(0.25)
    for one in guessers:
        one.join()
    results.send(codes)


def _scrape(port: int, seconds: float, tls: bool, results: Connection) -> None:
    """Scrape each second as Prometheus does, from a process of its own."""
    took, lines, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        connection = _connection(port, tls)
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip", **_login("user0", "user0")})
        answer = connection.getresponse()
        body = answer.read()
        took.append(time.monotonic() - begun)
        connection.close()
        import gzip

        lines = sum(not line.startswith(b"#") for line in gzip.decompress(body).splitlines())
        time.sleep(max(0.0, begun + 1 - time.monotonic()))
    results.send((lines, took))


async def _measure(engine: str, seconds: float, tls: bool, flood: bool) -> dict[str, float | str]:
    from gpudaemon.config import load
    from gpudaemon.daemon import Daemon
    from gpudaemon.mock import HostProcess

    with HostProcess("mi300x8", GPUS) as host, tempfile.TemporaryDirectory() as procfs:
        _processes(procfs)
        for card in range(SLOW_GPUS):
            host.control.fault(f"sys/class/drm/card{card}/device/*", "latency", seconds=0.2)
        addresses: list[str] = []
        flags: dict[str, str | list[str]] = {
            "path.sysfs": host.sysfs, "path.procfs": procfs, "path.runtime": f"{procfs}/run",
            "path.state": f"{procfs}/state", "web.listen_address": ["127.0.0.1:0"], "engine": engine,
            "uevent.source": "none", **({"web.config_file": _web(procfs)} if tls else {}),
        }  # fmt: skip
        config = load("", flags)
        daemon = Daemon(config)
        serving = asyncio.create_task(daemon.serve(announce=addresses.append))
        while not addresses:
            await asyncio.sleep(0.05)
        # Start-up is not steady state; its longest pause is printed beside.
        start_late = await _late(5.0)
        spawn = multiprocessing.get_context("spawn")
        results, end = spawn.Pipe()
        port = int(addresses[0].rsplit(":", 1)[1])
        scraper = spawn.Process(target=_scrape, args=(port, seconds, tls, end))
        scraper.start()
        counted, counting = spawn.Pipe()
        logins = spawn.Process(target=_log_in, args=(port, seconds, flood, counting))
        if tls:
            logins.start()
        scanning = asyncio.create_task(_scan(daemon, procfs))
        late = sorted(await _late(seconds))
        scans = await _stop(scanning)
        lines, took = await asyncio.to_thread(results.recv)
        await asyncio.to_thread(scraper.join)
        codes = await asyncio.to_thread(counted.recv) if tls else {}
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
        "logins": ", ".join(f"{number} {kind} {code}" for (kind, code), number in sorted(codes.items()))
        or "none",
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
    parser.add_argument("--plain", action="store_true", help="neither TLS nor users")
    parser.add_argument("--flood", action="store_true", help="wrong passwords as fast as they go")
    arguments = parser.parse_args()
    engines = arguments.engine or ["io_uring", "threads"]
    if len(engines) > 1:
        # A process for each: the daemon gives up its capabilities, and mounting the next host needs them.
        for engine in engines:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--engine", engine], check=True)
        return
    sys.setswitchinterval(0.001)
    for engine in engines:
        found = asyncio.run(_measure(engine, arguments.seconds, not arguments.plain, arguments.flood))
        print(
            f"{engine:9} p50 {1e3 * found['p50']:.2f} ms  p99.9 {1e3 * found['p99.9']:.2f} ms (at most"
            f" {1e3 * MUST[0]:.0f})  longest {1e3 * found['longest']:.2f} ms (at most {1e3 * MUST[1]:.0f})\n"
            f"{'':9} {found['scrapes']:.0f} scrapes of {found['series']:.0f} series, longest"
            f" {1e3 * found['longest scrape']:.1f} ms; {found['scans']:.0f} scans of {PROCESSES} processes;"
            f" longest pause at start {1e3 * found['longest at start']:.1f} ms\n"
            f"{'':9} logins: {found['logins']}"
        )


if __name__ == "__main__":
    main()
