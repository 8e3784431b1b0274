"""Hosts where io_uring is not to be had: the daemon reads by threads and says why."""

import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import build
from tests.live.daemon import RunningDaemon

pytestmark = pytest.mark.live

SYSCTL = "/proc/sys/kernel/io_uring_disabled"
GPU = "0000:03:00.0"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("host"))
    build("mi300x8", directory, 1)
    return f"{directory}/sys"


def engine_of(daemon: RunningDaemon) -> tuple[str, str]:
    """Engine and reason, after a look that devices are read and that one line of the log tells."""
    page = daemon.metrics()
    (series,) = page.family("gpudaemon_daemon_engine_info")
    found = re.search(r'engine="(.*?)",reason="(.*?)"}', series)
    assert found is not None
    assert page.states(GPU) == ["ok"]
    daemon.until(lambda: "engine=" in daemon.log)
    lines = [line for line in daemon.log.splitlines() if "engine=" in line]
    assert len(lines) == 1, daemon.log
    assert "Traceback" not in daemon.log
    return found.group(1), found.group(2)


BINDINGS = {
    "dies by a signal": ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", "SIGILL"),
    "is killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "SIGKILL"),
    "is for another Python": ("raise ImportError('undefined symbol: PyFoo')\n", "undefined symbol: PyFoo"),
    "fails": ("raise RuntimeError('broken')\n", "broken"),
    "exits": ("import sys\nsys.exit(3)\n", "status 3"),
    "lacks what we use": ("", "AttributeError"),
    "prints": ("print('not json')\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n", "status 0"),
}


@pytest.mark.parametrize("what", BINDINGS)
def test_a_binding_that(what: str, tree: str, tmp_path: Path) -> None:
    code, says = BINDINGS[what]
    (tmp_path / "liburing.py").write_text(code)
    with RunningDaemon(None, sysfs=tree, environment={"PYTHONPATH": str(tmp_path)}) as daemon:
        engine, reason = engine_of(daemon)
    assert engine == "threads"
    assert says in reason


@pytest.fixture
def io_uring_disabled() -> Iterator[None]:
    if not os.access(SYSCTL, os.W_OK):
        pytest.skip("only root may write kernel.io_uring_disabled")
    with open(SYSCTL) as stream:
        before = stream.read()
    try:
        with open(SYSCTL, "w") as stream:
            stream.write("2")
        yield
    finally:
        with open(SYSCTL, "w") as stream:
            stream.write(before)


@pytest.mark.parametrize("wanted", ["auto", "io_uring"])
def test_an_administrator_who_forbids_it_is_obeyed(io_uring_disabled: None, tree: str, wanted: str) -> None:
    pytest.importorskip("liburing", reason="without the binding the sysctl is never met")
    with RunningDaemon(None, "--engine", wanted, sysfs=tree) as daemon:
        engine, reason = engine_of(daemon)
    assert engine == "threads"
    assert "kernel.io_uring_disabled is 2" in reason
    assert ("was asked for" in reason) is (wanted == "io_uring")


SECCOMP = """
import ctypes, os, struct, sys
# struct sock_filter: load the system call's number; io_uring_setup (425): EPERM; anything else: allow
program = b"".join(struct.pack("=HBBI", *one) for one in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(program)
filter = struct.pack("=HxxxxxxQ", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="the filter is written for 64 bit")
def test_a_container_that_filters_it_out_is_recognised(tree: str) -> None:
    pytest.importorskip("liburing", reason="without the binding the filter is never met")
    with RunningDaemon(None, sysfs=tree, prefix=(sys.executable, "-c", SECCOMP)) as daemon:
        engine, reason = engine_of(daemon)
    assert engine == "threads"
    assert "Operation not permitted" in reason
    assert "seccomp" in reason


def test_threads_that_were_asked_for_say_so(tree: str) -> None:
    with RunningDaemon(None, "--engine", "threads", sysfs=tree) as daemon:
        assert engine_of(daemon) == ("threads", "asked for by configuration")


def test_io_uring_where_it_works(tree: str) -> None:
    pytest.importorskip("liburing", reason="needs liburing")
    with open(SYSCTL) as stream:
        if stream.read().strip() != "0":
            pytest.skip("io_uring is disabled on this host")
    with RunningDaemon(None, sysfs=tree) as daemon:
        assert engine_of(daemon) == ("io_uring", "io_uring answers")
        name = "gpudaemon_daemon_reader_worker_limit"
        daemon.until(lambda: len(daemon.metrics().family(name)) == 2, 5)
        # Bounded and unbounded alike: a worker for each lane and some to spare.
        (limit,) = set(daemon.metrics().family(name).values())
        assert limit >= len(daemon.devices()) + 8
