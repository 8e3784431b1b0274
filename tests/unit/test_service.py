"""systemd's protocol, with real sockets and, where a process id matters, real processes."""

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from gpudaemon import service

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The manager's end of the notification socket."""
    address = (
        f"{tmp_path}/notify" if request.param == "path" else f"\0gpudaemon-{os.getpid()}-{time.monotonic_ns()}"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(address)
        ours.settimeout(2.0)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield ours


def test_a_message_has_a_line_for_each_field(manager: socket.socket) -> None:
    assert service.notify(READY=1, STATUS="8 devices, 1 hung")
    assert manager.recv(4096) == b"READY=1\nSTATUS=8 devices, 1 hung"


def test_a_reload_says_when_it_began(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert service.notify(RELOADING=1)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    fields = dict(line.split("=") for line in manager.recv(4096).decode().splitlines())
    assert fields.pop("RELOADING") == "1"
    assert before <= int(fields.pop("MONOTONIC_USEC")) <= after
    assert not fields


def test_text_cannot_add_a_field(manager: socket.socket) -> None:
    assert service.notify(STATUS="file\nMAINPID=1\r\nREADY=1 \ud800")
    assert manager.recv(4096) == b"STATUS=file MAINPID=1 READY=1 ?"


def test_a_manager_that_does_not_listen_costs_no_time(manager: socket.socket) -> None:
    """The queue of a datagram socket is short: an ordinary send would wait for room."""
    began = time.monotonic()
    sent = [service.notify(WATCHDOG=1) for _ in range(2000)]
    assert time.monotonic() - began < 2.0
    assert sent[0]
    assert not sent[-1]
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert service.notify(WATCHDOG=1)


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody", "vsock:2:1", "/" + 200 * "x", "@"])
def test_nobody_there_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not service.notify(READY=1)


def test_no_manager_at_all() -> None:
    assert not service.notify(READY=1)
    assert service.watchdog_seconds() is None
    assert service.listening_sockets() == []


def test_no_descriptor_is_left(manager: socket.socket) -> None:
    before = os.listdir("/proc/self/fd")
    service.notify(READY=1)
    os.environ["NOTIFY_SOCKET"] = "/nowhere/notify"
    service.notify(READY=1)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("500000", "own", 0.5),
        ("30000000", "1", None),
        ("30000000", "", None),
        ("0", None, None),
        ("", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("\u0665", None, None),
        ("9" * 5000, None, None),
    ],
)
def test_watchdog(
    microseconds: str, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert service.watchdog_seconds() == seconds


# Takes the sockets as the daemon does, answers one connection on each, and tells what a child of it sees.
TAKER = """
import os, subprocess, sys
from gpudaemon.errors import ConfigError
from gpudaemon.service import listening_sockets
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "own" else sys.argv[1]
try:
    sockets = listening_sockets()
except ConfigError as error:
    print(error)
    print(*sorted(os.listdir("/proc/self/fd"), key=int))
    sys.exit()
print(len(sockets), any(one.getblocking() for one in sockets), len(listening_sockets()), flush=True)
see = "import os; print(*[n for n in os.environ if 'LISTEN' in n], *sorted(os.listdir('/proc/self/fd')))"
subprocess.run([sys.executable, "-c", see], close_fds=False)
for one in sockets:
    one.setblocking(True)
    connection, _ = one.accept()
    connection.sendall(b"hello")
"""


def start(
    passed: "list[socket.socket] | list[TextIO]", count: str | None = None, pid: str = "own"
) -> "subprocess.Popen[str]":
    """A process that has the sockets from descriptor 3 on, as the manager would start it."""
    # Away from 3 and following first: a duplicate could lie on one that is still to be moved.
    high = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 200) for one in passed]
    move = "".join(f"os.dup2({number}, {3 + index}); " for index, number in enumerate(high))
    move += "".join(f"os.close({number}); " for number in high)
    code = f"import os, sys; {move}os.execv(sys.executable, [sys.executable, '-c', {TAKER!r}, {pid!r}])"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LISTEN_FDS": str(len(passed)) if count is None else count,
        "LISTEN_FDNAMES": "gpudaemon.socket",
    }
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=high, stdout=subprocess.PIPE, text=True, env=environment
        )
    finally:
        for number in high:
            os.close(number)


def test_sockets_are_taken_over_and_not_handed_on(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.socket(socket.AF_UNIX) as second,
    ):
        second.bind(f"{tmp_path}/listen")
        second.listen()
        process = start([first, second])
        for one in (first, second):
            with socket.socket(one.family) as client:
                client.settimeout(10.0)
                client.connect(one.getsockname())
                assert client.recv(5) == b"hello"
        said, _ = process.communicate(timeout=10)
        mine, child = said.splitlines()
        assert mine == "2 False 0"
        # 3 is the directory being listed.
        assert child.split() == ["0", "1", "2", "3"]


def test_sockets_for_another_process_are_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        said, _ = start([one], pid="1").communicate(timeout=10)
        assert said.splitlines()[0] == "0 False 0"
        assert "LISTEN" not in said


def unfit(kind: str) -> socket.socket:
    if kind == "datagram":
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        return one
    if kind == "netlink":
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    return socket.socket(socket.AF_INET)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("datagram", "descriptor 4 is no stream socket"),
        ("netlink", "descriptor 4 is neither a TCP nor a Unix socket"),
        ("not listening", "descriptor 4 does not listen"),
    ],
)
def test_a_socket_that_cannot_serve_is_named(kind: str, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as good, unfit(kind) as bad:
        said, _ = start([good, bad]).communicate(timeout=10)
        error, left = said.splitlines()
        assert reason in error
        # 3 is the directory being listed: both that were passed are closed.
        assert left.split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("count", ["many", "-1", "100000"])
def test_a_wrong_count_is_named(count: str) -> None:
    said, _ = start([], count=count).communicate(timeout=10)
    assert said.startswith(f"LISTEN_FDS '{count}': allowed are")


def test_a_descriptor_that_is_not_open_or_no_socket_is_named() -> None:
    said, _ = start([], count="1").communicate(timeout=10)
    assert said.startswith("LISTEN_FDS: descriptor 3: Bad file descriptor")
    with open("/dev/null") as null:
        said, _ = start([null], count="1").communicate(timeout=10)
    assert said.startswith("LISTEN_FDS: descriptor 3 is no socket")
