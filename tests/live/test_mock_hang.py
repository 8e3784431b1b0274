"""Reads that really hang: D state, processes that cannot die, hundreds at once, and a host that goes away."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock import HostProcess
from gpudaemon.mock.demo import Demo

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

BUSY = "sys/class/drm/card0/device/gpu_busy_percent"

PREAD = """
import os, sys, threading
descriptor = os.open(sys.argv[1], os.O_RDONLY)
thread = threading.Thread(target=os.pread, args=(descriptor, 64, 0))
thread.start()
thread.join()
"""

# user_data must not be 0; 1 << 4 is IOSQE_ASYNC, which the binding does not export.
URING = """
import os, sys, liburing
ring = liburing.io_uring()
liburing.io_uring_queue_init(8, ring, 0)
descriptor = os.open(sys.argv[1], os.O_RDONLY)
buffer = bytearray(64)
entry = liburing.io_uring_get_sqe(ring)
liburing.io_uring_prep_read(entry, descriptor, buffer, 64, 0)
entry.flags |= 1 << 4
entry.user_data = 1
liburing.io_uring_submit(ring)
liburing.io_uring_wait_cqe(ring, liburing.io_uring_cqe())
"""

MANY = """
import os, sys, threading
descriptor = os.open(sys.argv[1], os.O_RDONLY)
results = []
def read():
    try:
        results.append(os.pread(descriptor, 64, 0).strip().isdigit())
    except OSError as error:
        results.append(error.errno)
threading.stack_size(65536)
threads = [threading.Thread(target=read) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(results), sorted(set(results)))
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def until(done: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stuck(pid: int) -> list[str]:
    """Stacks of the tasks of `pid` that are in D state and wait for a FUSE answer."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/stat") as stream:
                state = stream.read().rsplit(")", 1)[1].split()[0]
            with open(f"/proc/{pid}/task/{task}/stack") as stream:
                stack = stream.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state == "D" and "request_wait_answer" in stack:
            found.append(stack)
    return found


def mounts() -> str:
    with open("/proc/self/mounts") as stream:
        return stream.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at /proc/PID/stack")
@pytest.mark.parametrize("way", ["pread in a thread", "io_uring"])
def test_a_hung_read_is_in_d_state_and_survives_sigkill(way: str) -> None:
    if way == "io_uring":
        pytest.importorskip("liburing", reason="the io_uring half of this test needs liburing")
    with HostProcess("mi300x8", gpus=1) as host:
        host.control.fault(BUSY, "hang")
        process = child(URING if way == "io_uring" else PREAD, os.path.join(host.directory, BUSY))
        try:
            until(lambda: len(host.control.stats()["waiting"]) == 1)
            until(lambda: len(stuck(process.pid)) == 1)
            process.kill()
            time.sleep(0.5)
            assert process.poll() is None
            assert len(stuck(process.pid)) == 1
        finally:
            assert host.control.clear() == 1
            assert process.wait(10) == -signal.SIGKILL


def test_hundreds_of_hung_reads_cost_the_host_nothing() -> None:
    number = 400
    with HostProcess("mi300x8", gpus=1) as host:
        host.control.fault(BUSY, "hang")
        process = child(MANY, os.path.join(host.directory, BUSY), str(number))
        until(lambda: len(host.control.stats()["waiting"]) == number, 30)
        with open(f"/proc/{host.pid}/status") as stream:
            assert "\nThreads:\t1\n" in stream.read()
        other = os.open(os.path.join(host.sysfs, "class/drm/card0/device/mem_busy_percent"), os.O_RDONLY)
        began = time.monotonic()
        for _ in range(100):
            assert os.pread(other, 64, 0)
        assert time.monotonic() - began < 1
        os.close(other)
        assert host.control.release(BUSY) == number
        assert process.communicate(timeout=20)[0] == f"{number} [True]\n"
        assert host.control.stats()["waiting"] == []


def test_the_host_ends_cleanly_with_reads_waiting() -> None:
    with HostProcess("mi300x8", gpus=1) as host:
        host.control.fault(BUSY, "hang")
        host.control.fault("proc/uptime", "latency", seconds=1000)
        hung = child(MANY, os.path.join(host.directory, BUSY), "20")
        slow = child(MANY, os.path.join(host.directory, "proc/uptime"), "3")
        until(lambda: len(host.control.stats()["waiting"]) == 23)
        began = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - began < 5
        assert hung.communicate(timeout=10)[0] == "20 [5]\n"  # EIO
        assert slow.communicate(timeout=10)[0] == "3 [5]\n"
        assert host.directory not in mounts()
        assert not os.path.exists(host.directory)


def test_a_host_that_is_killed_leaves_nothing_behind() -> None:
    with HostProcess("mi300x8", gpus=1) as host:
        host.control.fault(BUSY, "hang")
        process = child(MANY, os.path.join(host.directory, BUSY), "5")
        until(lambda: len(host.control.stats()["waiting"]) == 5)
        os.kill(host.pid, signal.SIGKILL)
        # The kernel ends them when the last descriptor of /dev/fuse is closed.
        assert process.communicate(timeout=10)[0] == "5 [103]\n"  # ECONNABORTED
    assert host.directory not in mounts()
    assert not os.path.exists(host.directory)


def test_the_host_ends_with_the_process_that_started_it() -> None:
    code = (
        "import sys, time\nfrom gpudaemon.mock import HostProcess\n"
        "host = HostProcess('rx7900xtx').__enter__()\n"
        "print(host.pid, host.directory, flush=True)\ntime.sleep(100)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert starter.stdout is not None
    pid, directory = starter.stdout.readline().split()
    assert directory in mounts()
    starter.kill()
    starter.communicate()
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert directory not in mounts()
    shutil.rmtree(os.path.dirname(directory))  # what only the killed starter could have removed


def test_a_host_that_cannot_start_is_an_error() -> None:
    host = HostProcess("rx7900xtx", gpus=3)
    with pytest.raises(GpudaemonError, match="did not come up"):
        host.__enter__()
    assert not os.path.exists(host.directory)


def test_the_demo_uses_the_live_host() -> None:
    with Demo("rx7900xtx", fuse=True) as demo:
        assert demo.control is not None
        with open(os.path.join(demo.sysfs, "class/drm/card0/device/gpu_busy_percent")) as stream:
            assert 0 <= int(stream.read()) <= 100
    assert not os.path.exists(demo.sysfs)


def test_the_demo_without_fuse_is_files_in_motion() -> None:
    with Demo("rx7900xtx", fuse=False) as demo:
        assert demo.control is None
        path = os.path.join(demo.procfs, "uptime")
        with open(path, "rb", buffering=0) as stream:
            first = os.pread(stream.fileno(), 64, 0)
            until(lambda: os.pread(stream.fileno(), 64, 0) != first)
    assert not os.path.exists(demo.sysfs)
