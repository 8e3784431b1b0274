"""Event sources: what arrives is delivered, what is garbage or forged is not, what was lost is said."""

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudaemon.errors import ConfigError
from gpudaemon.parsers.uevent import Uevent
from gpudaemon.sources import uevents
from gpudaemon.sources.uevents import UeventSource, choose

ADD = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=drm\0SEQNUM=1\0"
NULL = "/sys/class/mem/null/uevent"


class Heard:
    """What a source delivered."""

    def __init__(self) -> None:
        self.events: list[Uevent] = []
        self.losses = 0
        self._news = threading.Condition()

    def deliver(self, event: Uevent) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def lost(self) -> None:
        with self._news:
            self.losses += 1
            self._news.notify_all()

    def until(self, done: Callable[[], bool], seconds: float = 10.0) -> bool:
        with self._news:
            return self._news.wait_for(done, seconds)

    def paths(self) -> list[str]:
        return [event.devpath for event in self.events]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events")


@pytest.fixture
def source(heard: Heard, path: str) -> Iterator[UeventSource]:
    source = UeventSource(f"socket:{path}", heard.deliver, heard.lost)
    yield source
    source.stop()


def send(path: str, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, path)


@pytest.mark.parametrize("word", ["udev", "kernel", "none", "socket:/run/x"])
def test_a_source_that_is_named_is_taken(word: str) -> None:
    assert choose(word) == word


def test_auto_is_udev_where_udev_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uevents, "_UDEV_CONTROL", str(tmp_path / "control"))
    assert choose("auto") == "kernel"
    (tmp_path / "control").touch()
    assert choose("auto") == "udev"


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--uevent\.source 'netlink'"):
        choose("netlink")


def test_what_arrives_is_delivered_in_order(source: UeventSource, heard: Heard, path: str) -> None:
    send(path, ADD, ADD.replace(b"/x", b"/y"))
    assert heard.until(lambda: len(heard.events) == 2)
    assert heard.paths() == ["/devices/x", "/devices/y"]
    assert heard.events[0].properties["SUBSYSTEM"] == "drm"
    assert heard.losses == 0


def test_garbage_is_passed_over(source: UeventSource, heard: Heard, path: str) -> None:
    garbage = [b"", b"\0", b"libudev\0\xfe\xed\xca\xfe", b"add@", b"boom@/devices/x\0A=b", b"\xff" * 20000]
    send(path, *garbage, ADD)
    assert heard.until(lambda: bool(heard.events))
    assert heard.paths() == ["/devices/x"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datagrams=st.lists(st.binary(max_size=200), max_size=8))
def test_any_garbage_leaves_the_source_alive(
    datagrams: list[bytes], source: UeventSource, heard: Heard, path: str
) -> None:
    before = len(heard.events)
    send(path, *datagrams, ADD)
    assert heard.until(lambda: len(heard.events) > before and heard.paths()[-1] == "/devices/x")


def test_a_socket_left_behind_is_replaced_and_ours_removed(heard: Heard, path: str) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(path)
    left.close()
    source = UeventSource(f"socket:{path}", heard.deliver, heard.lost)
    send(path, ADD)
    assert heard.until(lambda: bool(heard.events))
    source.stop()
    assert not os.path.exists(path)


def test_a_socket_that_cannot_be_bound_is_the_user_s_to_mend(heard: Heard) -> None:
    with pytest.raises(ConfigError, match="/nowhere/at/all"):
        UeventSource("socket:/nowhere/at/all", heard.deliver, heard.lost)


def test_stop_ends_thread_and_descriptors(heard: Heard, path: str) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        UeventSource(f"socket:{path}", heard.deliver, heard.lost).stop()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


class Overflowing:
    """A socket that overflows once, delivers, then breaks."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self._answers: list[OSError | None] = [
            OSError(errno.ENOBUFS, "no buffer space"),
            None,
            OSError(errno.EBADF, "broken"),
        ]

    def fileno(self) -> int:
        return self._real.fileno()

    def close(self) -> None:
        self._real.close()

    def recvmsg(self, *sizes: int) -> tuple[bytes, list[object], int, str]:
        answer = self._answers.pop(0)
        if answer is not None:
            raise answer
        return ADD, [], 0, ""


def test_an_overflow_is_a_loss_and_a_broken_socket_the_last_one(
    heard: Heard, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = UeventSource._open

    def overflowing(self: UeventSource) -> None:
        opened(self)
        assert self._socket is not None
        self._socket = Overflowing(self._socket)  # type: ignore[assignment]

    monkeypatch.setattr(UeventSource, "_open", overflowing)
    source = UeventSource(f"socket:{path}", heard.deliver, heard.lost)
    send(path, b"", b"", b"")
    assert heard.until(lambda: heard.losses == 2)
    assert heard.paths() == ["/devices/x"]
    source.stop()


needs_kernel = pytest.mark.skipif(
    not os.access(NULL, os.W_OK), reason="only root may ask the kernel for a uevent"
)


def provoke() -> None:
    """Have the kernel send an event: uevent_store() in drivers/base/core.c."""
    with open(NULL, "w") as stream:
        stream.write("add")


@pytest.fixture
def kernel(heard: Heard) -> Iterator[UeventSource]:
    source = UeventSource("kernel", heard.deliver, heard.lost)
    yield source
    source.stop()


@needs_kernel
def test_an_event_of_the_kernel_arrives(kernel: UeventSource, heard: Heard) -> None:
    provoke()
    assert heard.until(lambda: "/devices/virtual/mem/null" in heard.paths())
    event = next(event for event in heard.events if event.devpath == "/devices/virtual/mem/null")
    assert (event.action, event.properties["SUBSYSTEM"]) == ("add", "mem")
    assert event.properties["SYNTH_UUID"] == "0"


@needs_kernel
def test_an_event_that_a_process_made_up_is_not_believed(kernel: UeventSource, heard: Heard) -> None:
    code = (
        "import socket, sys\n"
        "forged = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)\n"
        "forged.bind((0, 0))\n"
        "print(forged.sendto(sys.stdin.buffer.read(), (0, 1)))\n"
    )
    forged = ADD.replace(b"/x", b"/forged")
    sent = subprocess.run([sys.executable, "-c", code], input=forged, capture_output=True, check=True)
    assert int(sent.stdout) == len(forged)
    # The kernel's own comes after it on the same socket: when it is here, the other was looked at.
    provoke()
    assert heard.until(lambda: "/devices/virtual/mem/null" in heard.paths())
    assert "/devices/forged" not in heard.paths()


@needs_kernel
def test_events_the_kernel_dropped_are_a_loss(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest buffer the kernel allows, and a reader that is held up: netlink answers ENOBUFS."""
    monkeypatch.setattr(uevents, "_BUFFER", 1)
    gate, held = threading.Event(), threading.Event()

    def slow(event: Uevent) -> None:
        held.set()
        gate.wait(10)
        heard.deliver(event)

    source = UeventSource("kernel", slow, heard.lost)
    try:
        provoke()
        assert held.wait(10)
        for _ in range(200):
            provoke()
        gate.set()
        assert heard.until(lambda: heard.losses >= 1)
        before = len(heard.events)
        provoke()
        assert heard.until(lambda: len(heard.events) > before)
    finally:
        gate.set()
        source.stop()
