"""The scout and the kernel's log: what it tells, and when."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gpudaemon.processes.process import Scout

XID = "3,{},10,-;NVRM: Xid (PCI:0000:03:00): 79, pid=5, name=py, GPU has fallen off the bus."


class Watched:
    """A scout in a thread, and the log it reads: a pipe that keeps records apart."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(5)
        self.thread = threading.Thread(target=Scout(theirs, 600.0).run)
        self.thread.start()

    def settle(self, **more: Any) -> None:
        settings = {
            "procfs": "/proc",
            "sysfs": "/sys",
            "period": 600.0,
            "walk": False,
            "drivers": [],
            "rings": False,
            "cgroups": False,
            "events": False,
            "kubelet": "",
            "log": f"/proc/self/fd/{self.reader}",
            **more,
        }
        self.channel.send(json.dumps({"settings": settings}).encode())

    def say(self, *numbers: int) -> None:
        for number in numbers:
            os.write(self.writer, XID.format(number).encode())

    def until(self, key: str) -> Any:
        """What the next message with this key says."""
        while True:
            message = json.loads(self.channel.recv(1 << 16))
            if key in message:
                return message[key]

    def close(self) -> None:
        self.channel.close()
        self.thread.join(5)
        os.close(self.reader)
        os.close(self.writer)
        assert not self.thread.is_alive()


@pytest.fixture
def scout() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.close()


def test_trouble_is_told_long_before_the_cycle_is_over(scout: Watched) -> None:
    scout.settle()
    assert scout.until("log") == {"sequence": -1, "records": 0, "lost": 0, "why": ""}
    for number in (1, 2):
        began = time.monotonic()
        scout.say(number)
        (line,) = scout.until("trouble")
        assert time.monotonic() - began < 2
        assert line[:5] == ["xid", "nvidia", "fatal", "0000:03:00", 79]
        assert scout.until("log") == {"sequence": number, "records": number, "lost": 0, "why": ""}


def test_other_settings_neither_repeat_nor_lose_a_record(scout: Watched) -> None:
    scout.settle(after=1)
    scout.say(1, 2)
    assert len(scout.until("trouble")) == 1
    scout.settle()
    scout.say(3)
    assert len(scout.until("trouble")) == 1
    assert scout.until("log")["records"] == 2


def test_nobody_is_looked_at_for_the_log_alone(scout: Watched) -> None:
    scout.settle()
    assert scout.until("processes") == 0
    scout.settle(walk=True)
    assert scout.until("processes") > 0


def test_a_log_that_may_not_be_read_is_said_to_be(scout: Watched) -> None:
    scout.settle(log="/nowhere/kmsg")
    assert scout.until("log")["why"] == "No such file or directory"
    scout.settle(log="")
    assert scout.until("log")["why"] == "not asked for"
