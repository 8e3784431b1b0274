"""Clients that mean harm, as a program: `python hostile.py KIND PORT SECONDS [--tls] [--source ADDRESS]`.

Prints how often it got through what it does, when the time is over. Tests and benches start one or more of them
beside a scraper that means well.
"""

import argparse
import asyncio
import base64
import contextlib
import http.client
import logging
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable

__all__ = ["KINDS", "Attack", "Scraper", "configuration", "oldest"]

_HOST = "127.0.0.1"
_PASSWORD = "right"
_GET = b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n"


class Attack:
    """Context manager: one attacking process. source: its address, which is not the scraper's."""

    def __init__(
        self, kind: str, port: int, seconds: float, *, tls: bool = False, source: str = "127.0.0.2"
    ) -> None:
        command = [sys.executable, __file__, kind, str(port), str(seconds), "--source", source]
        self._process = subprocess.Popen(
            [*command, *(("--tls",) if tls else ())], stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Attack":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def count(self) -> int:
        """Wait for its end; how often it did what it does."""
        out, _ = self._process.communicate(timeout=60)
        return int(out.strip() or 0)


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
        import bcrypt

        hashed = bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(10)).decode()
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
        known = base64.b64encode(f"prometheus:{_PASSWORD}".encode()).decode()
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
                self.ages.append(oldest(self.scrape(fresh=len(self.took) % 2 == 0)))
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


def oldest(page: str) -> float:
    """Age of the oldest newest reading of any GPU; a bridge has files that are read once in minutes only."""
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    busy = "gpudaemon_gpu_busy_ratio{"
    gpus = {name.split('"')[1] for name in values if name.startswith(busy)}
    return max(float(values[f'gpudaemon_device_data_age_seconds{{device="{gpu}"}}']) for gpu in gpus)


class Attacker:
    """Opens connections from one address and counts."""

    def __init__(self, port: int, seconds: float, tls: bool, source: str) -> None:
        self.port = port
        self.end = time.monotonic() + seconds
        self.source = source
        self.count = 0
        self.context: ssl.SSLContext | None = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    @property
    def going(self) -> bool:
        return time.monotonic() < self.end

    async def connect(self, plain: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            _HOST, self.port, ssl=None if plain else self.context, local_addr=(self.source, 0)
        )

    async def repeat(self, clients: int, work: Callable[["Attacker"], Awaitable[None]]) -> None:
        """So many clients at a time, each at it again when it is done or cut off."""

        async def one() -> None:
            while self.going:
                try:
                    async with asyncio.timeout(max(0.0, self.end - time.monotonic())):
                        await work(self)
                except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(one() for _ in range(clients)))


async def _slow_headers(attacker: Attacker) -> None:
    """Slowloris: a header that never ends."""
    reader, writer = await attacker.connect()
    with contextlib.closing(writer):
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ")
        attacker.count += 1
        while not reader.at_eof():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.5)


async def _idle(attacker: Attacker) -> None:
    reader, writer = await attacker.connect(plain=True)
    with contextlib.closing(writer):
        attacker.count += 1
        await reader.read(1)


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def _pages(attacker: Attacker) -> None:
    reader, writer = await attacker.connect()
    with contextlib.closing(writer):
        while attacker.going:
            path = random.choice((b"/metrics", b"/api/v1/devices", b"/", b"/nothing"))
            writer.write(_GET % (path, b"Accept-Encoding: gzip\r\n"))
            await _answer(reader)
            attacker.count += 1


async def _passwords(attacker: Attacker) -> None:
    reader, writer = await attacker.connect()
    with contextlib.closing(writer):
        while attacker.going:
            tried = base64.b64encode(b"prometheus:" + os.urandom(12))
            writer.write(_GET % (b"/metrics", b"Authorization: Basic " + tried + b"\r\n"))
            await _answer(reader)
            attacker.count += 1


async def _large_header(attacker: Attacker) -> None:
    """A header of 100 MB, as far as it is taken."""
    _, writer = await attacker.connect()
    with contextlib.closing(writer):
        attacker.count += 1
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(1600):
            writer.write(b"a" * 65536)
            await writer.drain()


async def _many_headers(attacker: Attacker) -> None:
    """100 MB of small headers."""
    _, writer = await attacker.connect()
    with contextlib.closing(writer):
        attacker.count += 1
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
        for _ in range(1600):
            writer.write(b"X-Small: y\r\n" * 5400)
            await writer.drain()


async def _long_path(attacker: Attacker) -> None:
    reader, writer = await attacker.connect()
    with contextlib.closing(writer):
        attacker.count += 1
        writer.write(_GET % (b"/" + b"a" * random.choice((8000, 100_000, 10_000_000)), b""))
        await writer.drain()
        await reader.read(65536)


async def _pipelining(attacker: Attacker) -> None:
    """Thousands of requests, answers read late or never."""
    reader, writer = await attacker.connect()
    with contextlib.closing(writer):
        path = random.choice((b"/-/healthy", b"/metrics"))
        while attacker.going:
            writer.write(_GET % (path, b"") * 1000)
            attacker.count += 1000
            await writer.drain()
            await reader.read(1024)


async def _never_reads(attacker: Attacker) -> None:
    """Wants pages and takes none."""
    reader, writer = await attacker.connect()
    with contextlib.closing(writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(_GET % (b"/metrics", b"") * 30)
        attacker.count += 1
        await asyncio.sleep(3)
        await reader.read(1)


async def _handshakes(attacker: Attacker) -> None:
    """Whole handshakes, as many as can be had."""
    _, writer = await attacker.connect()
    attacker.count += 1
    writer.transport.abort()


async def _bad_tls(attacker: Attacker) -> None:
    reader, writer = await attacker.connect(plain=True)
    with contextlib.closing(writer):
        attacker.count += 1
        hello = b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03" + os.urandom(245)
        writer.write(
            random.choice((os.urandom(300), hello, hello[:100], b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x01"))
        )
        await writer.drain()
        async with asyncio.timeout(0.5):
            await reader.read(1024)


KINDS: dict[str, tuple[int, Callable[[Attacker], Awaitable[None]]]] = {
    "slowloris": (500, _slow_headers),
    "idle connections": (1000, _idle),
    "flood of requests": (64, _pages),
    "wrong passwords": (64, _passwords),
    "header of 100 MB": (8, _large_header),
    "100 MB of headers": (8, _many_headers),
    "long paths": (16, _long_path),
    "pipelining": (16, _pipelining),
    "answers not read": (200, _never_reads),
    "handshakes": (32, _handshakes),
    "bad TLS": (64, _bad_tls),
}
"""Attacks: how many clients at a time, and what each does over and over."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--source", default="127.0.0.2")
    arguments = parser.parse_args()
    attacker = Attacker(arguments.port, arguments.seconds, arguments.tls, arguments.source)
    logging.disable()  # asyncio's remarks about connections that were cut
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # broken connections are what this is about
    loop.run_until_complete(attacker.repeat(*KINDS[arguments.kind]))
    print(attacker.count, flush=True)
    os._exit(0)  # without a farewell to hundreds of connections


if __name__ == "__main__":
    main()
