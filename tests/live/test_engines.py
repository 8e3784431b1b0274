"""What every engine promises, tested with both on files that fail, wait and hang as drivers make them.

Whatever hangs is read in a process of its own, because that process cannot end before the read returns.
"""

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gpudaemon.mock import Control, HostProcess
from gpudaemon.reader.engine import NOT_READ, Chain, Step
from gpudaemon.reader.threads import BOUND, ThreadEngine
from tests.live.daemon import is_running, until

pytestmark = pytest.mark.live
needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse")

ENGINES = ("io_uring", "threads")
ENTRIES = 1024
DEVICES = "sys/class/drm/card{}/device"
FILES = (
    "gpu_busy_percent",
    "mem_busy_percent",
    "mem_info_vram_used",
    "mem_info_vram_total",
    "mem_info_gtt_used",
)


open_files: list[int] = []
"""Descriptors that tests opened, closed when the test ends."""


class RunningEngine:
    """An engine and the loop around it, as the reader's is: on a thread, or on the one that took over.

    longest_wait: seconds the loop once needed to do what was asked of it: how long anything held it up.
    """

    def __init__(self, name: str) -> None:
        self.ended: list[Chain] = []
        self.quiets = 0
        self.longest_wait = 0.0
        self.on_end: Callable[[Chain], None] = lambda _: None
        self.lock = threading.RLock()
        if name == "io_uring":
            uring = pytest.importorskip("gpudaemon.reader.uring", reason="this half needs liburing")
            self.engine = uring.UringEngine(self._finished, self._quiet, self.lock)
        else:
            self.engine = ThreadEngine(self._finished, self._quiet, self.lock)
        self.engine.take_over = self._loop
        self._commands: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._failure: Exception | None = None
        self._closing = False
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        if self.engine.descriptor() >= 0:
            self._poll.register(self.engine.descriptor(), select.POLLIN)
        threading.Thread(target=self._loop, daemon=True).start()

    def _finished(self, chain: Chain) -> None:
        self.ended.append(chain)
        self.on_end(chain)

    def _quiet(self) -> None:
        self.quiets += 1

    def _loop(self) -> None:
        try:
            while True:
                while self._commands:
                    work, done = self._commands.popleft()
                    with self.lock:
                        work()
                    done.set()
                if self._closing:
                    return
                self.engine.run()
                if not self.engine.leads():
                    return
                patience = self.engine.patience()
                self._poll.poll(20.0 if patience is None else 1000 * min(0.02, patience))
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
        except Exception as error:
            self._failure = error

    def do(self, work: Callable[[], object]) -> None:
        """Have the loop do something, and wait until it has."""
        began = time.monotonic()
        done = threading.Event()
        self._commands.append((work, done))
        os.eventfd_write(self._wake, 1)
        while not done.wait(0.05):
            if self._failure is not None:
                raise self._failure
            assert time.monotonic() - began < 20, "the loop does not answer"
        self.longest_wait = max(self.longest_wait, time.monotonic() - began)

    def start(self, *chains: Chain) -> None:
        self.do(lambda: [self.engine.start(chain) for chain in chains])

    def abandon(self, chain: Chain) -> None:
        self.do(lambda: self.engine.abandon(chain))

    def until(self, done: Callable[[], bool], seconds: float = 20.0) -> float:
        """Wait for `done`, looking meanwhile whether the loop answers; returns after how many seconds."""
        began = time.monotonic()
        while not done():
            self.do(lambda: None)
            assert time.monotonic() - began < seconds, f"not within {seconds} s: {len(self.ended)} chains ended"
            time.sleep(0.005)
        return time.monotonic() - began

    def run(self, *chains: Chain) -> None:
        """Start `chains` and wait until they are through."""
        before = len(self.ended)
        self.start(*chains)
        self.until(lambda: len(self.ended) - before == len(chains))

    def close(self) -> None:
        self._closing = True
        self.do(lambda: None)
        self.engine.close()
        os.close(self._wake)

    def opened(self, paths: Sequence[str | Path]) -> list[int]:
        """Descriptors or -errno of the paths, opened by the engine."""
        chain = Chain(None, Step.OPEN, range(len(paths)), paths=[os.fsencode(path) for path in paths])
        self.run(chain)
        open_files.extend(result for result in chain.results if result >= 0)
        return chain.results


def reading(paths: Sequence[str | Path], *, limit: int = 64, owner: object = None) -> Chain:
    """A chain that reads `paths`, opened here."""
    descriptors = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
    open_files.extend(descriptors)
    buffers = [memoryview(bytearray(limit)) for _ in paths]
    # Engines remember lanes, so a chain without a lane is one of its own.
    owner = object() if owner is None else owner
    return Chain(owner, Step.READ, range(len(paths)), descriptors=descriptors, buffers=buffers)


def contents(chain: Chain) -> list[bytes]:
    """What each file of a chain gave."""
    pairs = zip(chain.buffers, chain.results, strict=True)
    return [bytes(buffer[: max(0, length)]) for (buffer,), length in pairs]


def card(host: HostProcess | str, number: int, count: int = len(FILES)) -> list[str]:
    """The first files of a card."""
    directory = host if isinstance(host, str) else host.directory
    return [os.path.join(directory, DEVICES.format(number), name) for name in FILES[:count]]


def fault_path(number: int, place: int) -> str:
    return f"{DEVICES.format(number)}/{FILES[place]}"


@pytest.fixture(params=ENGINES)
def running(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    running = RunningEngine(request.param)
    yield running
    running.close()
    close_files()


def close_files() -> None:
    for descriptor in open_files:
        os.close(descriptor)
    open_files.clear()


@pytest.fixture(scope="module")
def started() -> Iterator[HostProcess]:
    with HostProcess("mi300x8", gpus=40) as host:
        yield host


@pytest.fixture
def host(started: HostProcess) -> Iterator[HostProcess]:
    yield started
    started.control.clear()


# Files that answer


def test_opens_give_descriptors_or_errno(running: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"7\n")
    (tmp_path / "file" / "below").parent.touch()
    (tmp_path / "loop").symlink_to("loop")
    paths = [tmp_path / "file", tmp_path / "missing", tmp_path / "file/below", tmp_path / "loop", tmp_path]
    results = running.opened(paths)
    assert results[1:4] == [-errno.ENOENT, -errno.ENOTDIR, -errno.ELOOP]
    assert os.readlink(f"/proc/self/fd/{results[0]}") == str(tmp_path / "file")
    for descriptor in (results[0], results[4]):
        assert not os.get_inheritable(descriptor)


def test_reads_give_content_length_or_errno(running: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"42\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "long").write_bytes(b"x" * 100)
    chain = reading([tmp_path / "text", tmp_path, tmp_path / "empty", tmp_path / "long"])
    running.run(chain)
    assert chain.results == [3, -errno.EISDIR, 0, 64]
    assert contents(chain)[0] == b"42\n"
    assert contents(chain)[3] == b"x" * 64


def test_a_chain_may_be_started_again_and_sees_new_content(running: RunningEngine, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"first")
    chain = reading([path])
    for text in (b"one", b"two and more", b""):
        path.write_bytes(text)
        running.run(chain)
        assert contents(chain) == [text]
    assert running.ended == [chain] * 3


@pytest.mark.parametrize("number", [255, 256, 257, 1000])
def test_long_chains_read_every_file_into_its_own_buffer(
    running: RunningEngine, tmp_path: Path, number: int
) -> None:
    paths = [tmp_path / str(place) for place in range(number)]
    for place, path in enumerate(paths):
        path.write_bytes(b"" if place % 100 == 99 else f"value {place}".encode())
    descriptors = running.opened(paths)
    assert min(descriptors) > 0
    buffers = [memoryview(bytearray(64)) for _ in paths]
    chain = Chain(None, Step.READ, range(number), descriptors=descriptors, buffers=buffers)
    wanted = [path.read_bytes() for path in paths]
    for _ in range(3):
        for buffer in buffers:
            buffer[:] = bytes(64)
        running.run(chain)
        assert contents(chain) == wanted
        assert chain.position == number


def test_many_chains_at_once_end_once_each(running: RunningEngine, tmp_path: Path) -> None:
    """More reads than either ring holds: 24 chains of 300 files, each started three times."""
    paths = [tmp_path / str(place) for place in range(300)]
    for path in paths:
        path.write_bytes(path.name.encode())
    descriptors = running.opened(paths)
    chains = []
    for number in range(24):
        buffers = [memoryview(bytearray(8)) for _ in paths]
        chains.append(Chain(number, Step.READ, range(300), descriptors=descriptors, buffers=buffers))
    running.engine.set_lanes(len(chains))
    running.ended.clear()

    def again(chain: Chain) -> None:
        if running.ended.count(chain) < 3:
            running.engine.start(chain)

    running.on_end = again
    running.start(*chains)
    running.until(lambda: len(running.ended) >= 72)
    time.sleep(0.1)
    assert sorted(chain.owner for chain in running.ended) == sorted(list(range(24)) * 3)
    assert all(contents(chain) == [path.name.encode() for path in paths] for chain in chains)
    assert not running.engine.overflowed()
    assert running.engine.figures()[0] == 0
    assert running.quiets


def test_reads_in_flight_never_exceed_the_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than that and completions could find no room (io_uring_setup(2), IORING_FEAT_NODROP)."""
    liburing = pytest.importorskip("liburing", reason="needs liburing")
    running = RunningEngine("io_uring")
    in_flight = []
    submit = liburing.io_uring_submit_and_wait_timeout

    def submitting(*arguments: object) -> object:
        in_flight.append(running.engine.figures()[0])
        return submit(*arguments)

    monkeypatch.setattr(liburing, "io_uring_submit_and_wait_timeout", submitting)
    path = tmp_path / "file"
    path.write_bytes(b"1")
    running.engine.set_lanes(12)
    running.run(*[reading([path] * 200) for _ in range(8)])
    assert ENTRIES - 200 < max(in_flight) <= ENTRIES
    assert not running.engine.overflowed()
    running.close()
    close_files()


def test_worker_limits_are_set_and_read_back() -> None:
    uring = pytest.importorskip("gpudaemon.reader.uring", reason="needs liburing")
    running = RunningEngine("io_uring")
    running.engine.set_lanes(20)
    assert running.engine.limits == (28, 28)
    assert uring.worker_limits(running.engine.descriptor(), 0, 0) == (28, 28)
    running.engine.set_lanes(100)
    assert uring.worker_limits(running.engine.descriptor(), 0, 0) == (108, 108)
    running.close()


@pytest.mark.parametrize("name", ENGINES)
def test_close_gives_back_threads_and_descriptors(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    # Watchdogs of tests before this one end when their alarm rings.
    time.sleep(2 * BOUND)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    running = RunningEngine(name)
    chain = reading([tmp_path / "file"])
    running.run(chain)
    running.close()
    close_files()
    until(lambda: threading.active_count() <= threads, 5)
    # The ring itself goes with the last reference to it.
    del running
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, 5)


# Files that fail or take their time


@needs_fuse
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO, errno.EINVAL, errno.EBUSY, errno.EPERM])
def test_an_error_in_the_middle_does_not_end_the_chain(
    running: RunningEngine, host: HostProcess, number: int
) -> None:
    host.control.fault(fault_path(0, 1), "read_errno", errno=number)
    host.control.fault(fault_path(0, 3), "read_errno", errno=number)
    chain = reading(card(host, 0))
    running.run(chain)
    assert [result > 0 for result in chain.results] == [True, False, True, False, True]
    assert chain.results[1] == chain.results[3] == -number


@needs_fuse
def test_an_open_that_is_denied_does_not_end_the_chain(running: RunningEngine, host: HostProcess) -> None:
    host.control.fault(fault_path(0, 1), "open_errno", errno=errno.EACCES)
    results = running.opened(card(host, 0))
    assert results[1] == -errno.EACCES
    assert sum(result >= 0 for result in results) == 4


@needs_fuse
@pytest.mark.parametrize("first", [errno.EAGAIN, errno.EIO, 0])
def test_no_read_runs_in_the_submitter(running: RunningEngine, host: HostProcess, first: int) -> None:
    """Nor after -EAGAIN, when io_uring issues the next link from the submitter's task work if it may."""
    if first:
        host.control.fault(fault_path(0, 0), "read_errno", errno=first)
    for place in range(1, len(FILES)):
        host.control.fault(fault_path(0, place), "latency", seconds=0.3)
    chain = reading(card(host, 0))
    running.run(chain)
    assert min(chain.results[1:]) > 0
    # Threads: until the watchdog hands the loop to another.
    assert running.longest_wait < (BOUND + 0.15 if running.engine.name == "threads" else 0.15)


@needs_fuse
def test_the_slow_file_is_charged_and_no_other(running: RunningEngine, host: HostProcess) -> None:
    host.control.fault(fault_path(0, 2), "latency", seconds=0.4)
    chain = reading(card(host, 0))
    began = time.monotonic()
    running.run(chain)
    passed = time.monotonic() - began
    assert 0.35 < chain.costs[2] <= passed
    assert sum(chain.costs) - chain.costs[2] < 0.2
    assert sum(chain.costs) <= passed + 0.001


@needs_fuse
def test_files_of_a_chain_are_read_one_after_the_other(running: RunningEngine, host: HostProcess) -> None:
    for place in range(len(FILES)):
        host.control.fault(fault_path(0, place), "latency", seconds=0.1)
    paths = card(host, 0)
    chain = reading(paths)
    seen: list[int] = []

    def done() -> bool:
        waiting = host.control.stats()["waiting"]
        assert len(waiting) <= 1
        seen.extend(FILES.index(one["path"].rsplit("/", 1)[1]) for one in waiting)
        return len(running.ended) == 1

    running.start(chain)
    running.until(done)
    assert seen == sorted(seen)
    # A busy machine may look too late for one or the other.
    assert len(set(seen)) >= 3


@needs_fuse
def test_a_slow_lane_does_not_hold_up_the_others(running: RunningEngine, host: HostProcess) -> None:
    host.control.fault(fault_path(0, 0), "latency", seconds=1.5)
    slow = reading(card(host, 0), owner="slow")
    others = [reading(card(host, number), owner=number) for number in range(1, 9)]
    running.engine.set_lanes(9)
    running.start(slow)
    time.sleep(0.01)
    running.start(*others)
    took = running.until(lambda: len(running.ended) == 8)
    # Threads: at most BOUND, once. The rest is what a busy machine may take.
    assert took < (BOUND + 0.6 if running.engine.name == "threads" else 0.6)
    assert slow not in running.ended
    # From now on the slow one costs its neighbours nothing.
    began = time.monotonic()
    for _ in range(5):
        running.run(*others)
    assert time.monotonic() - began < 0.6
    running.until(lambda: slow in running.ended)


# Files that hang


def hung_lanes_leave_the_others_alone(running: RunningEngine, directory: str, control: Control) -> None:
    """More stuck lanes than the engine runs chains at a time (16): a healthy one is read all the same."""
    for number in range(20):
        control.fault(fault_path(number, 0), "hang")
    hung = [reading(card(directory, number), owner=number) for number in range(20)]
    healthy = [reading(card(directory, number), owner=number) for number in range(20, 30)]
    running.engine.set_lanes(30)
    running.start(*hung)
    running.start(*healthy)
    # Threads hand over once for each of the 20, after BOUND every time.
    running.until(lambda: len(running.ended) == 10, 15)
    assert {chain.owner for chain in running.ended} == set(range(20, 30))
    running.until(lambda: len(control.stats()["waiting"]) == 20)
    for _ in range(5):
        running.ended.clear()
        running.run(*healthy)
    assert running.longest_wait < 0.5
    running.ended.clear()
    assert control.clear() == 20
    running.until(lambda: len(running.ended) == 20)
    assert all(min(chain.results) > 0 for chain in hung)


def nothing_is_read_after_abandon(running: RunningEngine, directory: str, control: Control) -> None:
    control.fault(fault_path(0, 1), "hang")
    chain = reading(card(directory, 0))
    paths = f"{DEVICES.format(0)}/"
    reads = {name: control.accesses(paths + name) for name in FILES}
    running.start(chain)
    running.until(lambda: len(control.stats()["waiting"]) == 1)
    running.abandon(chain)
    time.sleep(0.3)
    assert running.ended == []
    for name in FILES[2:]:
        assert read_count(control.accesses(paths + name)) == read_count(reads[name])
    assert control.release(fault_path(0, 1)) == 1
    running.until(lambda: len(running.ended) == 1)
    time.sleep(0.3)
    assert running.ended == [chain]
    for name in FILES[2:]:
        assert read_count(control.accesses(paths + name)) == read_count(reads[name])
    assert chain.results[0] > 0
    assert chain.results[2:] == [NOT_READ] * 3


def a_long_chain_abandoned_ends_early(running: RunningEngine, directory: str, control: Control) -> None:
    """Beyond its first segment, too: 600 reads of one file, stuck at the third."""
    control.fault(fault_path(0, 1), "hang")
    healthy, stuck = card(directory, 0, 2)
    chain = reading([healthy, healthy, stuck, *[healthy] * 597])
    running.start(chain)
    running.until(lambda: len(control.stats()["waiting"]) == 1)
    before = read_count(control.accesses(fault_path(0, 0)))
    running.abandon(chain)
    control.clear()
    running.until(lambda: len(running.ended) == 1)
    assert read_count(control.accesses(fault_path(0, 0))) == before
    assert set(chain.results[3:]) == {NOT_READ}


def an_abandoned_chain_that_waits_is_not_begun(
    running: RunningEngine, directory: str, control: Control
) -> None:
    before = read_count(control.accesses(fault_path(1, 0)))
    control.fault(fault_path(0, 0), "hang")
    hung, queued = reading(card(directory, 0), owner="hung"), reading(card(directory, 1), owner="queued")
    running.start(hung)
    running.until(lambda: len(control.stats()["waiting"]) == 1)

    def start_and_abandon() -> None:
        running.engine.start(queued)
        running.engine.abandon(queued)

    running.do(start_and_abandon)
    assert running.ended == [queued]
    time.sleep(2 * BOUND)
    assert read_count(control.accesses(fault_path(1, 0))) == before
    assert running.ended == [queued]
    control.clear()
    running.until(lambda: len(running.ended) == 2)


def a_hung_reader_waits_for_sigkill(running: RunningEngine, directory: str, control: Control) -> None:
    """Hang and stay: the test looks at this process from outside."""
    chain = reading(card(directory, 0))
    running.start(chain)
    running.until(lambda: False, 60)


def read_count(accesses: dict[str, tuple[int, int]]) -> int:
    return sum(reads for _, reads in accesses.values())


def in_child(scenario: Callable[..., None], engine: str, host: HostProcess) -> "subprocess.Popen[str]":
    """Run a scenario of this module in a process of its own."""
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    control = os.path.join(os.path.dirname(host.directory), "control")
    # A scenario that fails must not stay in its own hung read.
    code = (
        "import sys\nfrom tests.live import test_engines as module\nfrom gpudaemon.mock import Control\n"
        "scenario, engine, directory, control = sys.argv[1:]\n"
        "control = Control(control)\n"
        "try:\n    getattr(module, scenario)(module.RunningEngine(engine), directory, control)\n"
        "finally:\n    control.clear()\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, scenario.__name__, engine, host.directory, control],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )


@needs_fuse
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "scenario",
    [
        hung_lanes_leave_the_others_alone,
        nothing_is_read_after_abandon,
        a_long_chain_abandoned_ends_early,
        an_abandoned_chain_that_waits_is_not_begun,
    ],
)
def test_hung(scenario: Callable[..., None], engine: str, host: HostProcess) -> None:
    child = in_child(scenario, engine, host)
    try:
        _, said = child.communicate(timeout=60)
    finally:
        host.control.clear()
        if child.poll() is None:
            child.kill()
    assert child.returncode == 0, said


@needs_fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at /proc/PID/stack")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_hung_read_holds_its_process_in_the_kernel(engine: str, host: HostProcess) -> None:
    """The premise of two processes: D state, and SIGKILL does nothing until the driver lets go."""
    host.control.fault(fault_path(0, 2), "hang")
    child = in_child(a_hung_reader_waits_for_sigkill, engine, host)
    try:
        until(lambda: len(host.control.stats()["waiting"]) == 1)
        until(lambda: len(waiting_tasks(child.pid)) == 1)
        child.kill()
        time.sleep(0.5)
        assert child.poll() is None
        assert is_running(child.pid)
        assert len(waiting_tasks(child.pid)) == 1
    finally:
        host.control.clear()
        status = child.wait(10)
        child.communicate()
    assert status == -signal.SIGKILL


def waiting_tasks(pid: int) -> list[str]:
    """Tasks in D state that wait for a file system's answer, io_uring's workers included."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/stat") as stream:
                state = stream.read().rsplit(")", 1)[1].split()[0]
            with open(f"/proc/{pid}/task/{task}/stack") as stream:
                stack = stream.read()
        except OSError:
            continue
        if state == "D" and "request_wait_answer" in stack:
            found.append(task)
    return found
