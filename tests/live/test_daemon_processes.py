"""Server, launcher and reader: what each may do, what becomes of the rest when one of them goes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess, build
from tests.live.daemon import Page, RunningDaemon, is_running, until

ROOT = str(Path(__file__).resolve().parents[2])
GPU = "0000:03:00.0"
BUSY = f"sys/bus/pci/devices/{GPU}/gpu_metrics"
SERIES = f'gpudaemon_gpu_busy_ratio{{device="{GPU}",engine="gfx"}}'

pytestmark = pytest.mark.live
needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("host"))
    build("mi300x8", directory)
    return f"{directory}/sys"


@pytest.fixture
def host() -> Iterator[HostProcess]:
    with HostProcess("mi300x8") as host:
        yield host
        host.control.clear()


def restarts(page: Page) -> dict[str, float]:
    name = "gpudaemon_daemon_reader_restarts_total"
    return {series.split('"')[1]: value for series, value in page.family(name).items()}


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status") as stream:
        return dict(line.rstrip("\n").split(":\t", 1) for line in stream)


# Rights


@needs_root
@pytest.mark.parametrize("tier", ["base", "full"])
def test_the_server_keeps_no_capability_and_the_reader_those_of_its_tier(tree: str, tier: str) -> None:
    with RunningDaemon(None, "--tier", tier, sysfs=tree) as daemon:
        server, reader = status(daemon.pid), status(daemon.reader)
        for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
            assert int(server[name], 16) == 0, name
        assert server["NoNewPrivs"] == reader["NoNewPrivs"] == "1"
        # capabilities(7), by number: DAC_READ_SEARCH NET_ADMIN SYS_PTRACE SYS_ADMIN SYSLOG PERFMON, and the
        # tracer's DAC_OVERRIDE, which the launcher keeps for it; a reader's bounding set gains it nothing.
        bits = {"base": 0, "full": sum(1 << number for number in (2, 12, 19, 21, 34, 38))}[tier]
        launched = bits | {"base": 0, "full": 1 << 1}[tier]
        held = int(status(os.getpid())["CapEff"], 16)
        for name in ("CapEff", "CapPrm"):
            assert int(reader[name], 16) == bits & held, name
        assert int(reader["CapBnd"], 16) == launched & held
        assert int(status(daemon.launcher)["CapEff"], 16) == launched & held
        # A task of the server that was started early must not have kept them.
        for task in os.listdir(f"/proc/{daemon.pid}/task"):
            with open(f"/proc/{daemon.pid}/task/{task}/status") as stream:
                lines = [line for line in stream if line.startswith(("CapEff", "CapPrm"))]
            assert all(int(line.split()[1], 16) == 0 for line in lines), task


def test_the_server_opens_nothing_of_sysfs_and_the_reader_no_socket(tree: str) -> None:
    with RunningDaemon(None, sysfs=tree) as daemon:
        time.sleep(1.2)
        held = [os.readlink(f"/proc/{daemon.pid}/fd/{name}") for name in os.listdir(f"/proc/{daemon.pid}/fd")]
        assert not [target for target in held if target.startswith(tree)]
        directory = f"/proc/{daemon.reader}/fd"
        read = [os.readlink(f"{directory}/{name}") for name in os.listdir(directory)]
        assert [target for target in read if target.startswith(tree)]
        # Its end of the channel and nothing else that talks.
        assert len([target for target in read if target.startswith("socket:")]) == 1


# Replacement


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_killed_reader_is_replaced_while_scrapes_go_on(tree: str, engine: str) -> None:
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    with RunningDaemon(None, "--engine", engine, sysfs=tree) as daemon:
        first = daemon.reader
        series = set(daemon.metrics().data(GPU))
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        back, slowest, pages = 0.0, 0.0, 0
        while time.monotonic() - killed < 2.5:
            began = time.monotonic()
            page = daemon.metrics()
            slowest = max(slowest, time.monotonic() - began)
            pages += 1
            # Values younger than three seconds are served all the while.
            assert set(page.data(GPU)) == series
            if not back and page["gpudaemon_daemon_reader_up"] == 1 and restarts(page) == {"died": 1}:
                back = time.monotonic() - killed
            time.sleep(0.02)
        assert 0 < back < 1.5
        assert slowest < 0.5
        assert pages > 20
        assert daemon.reader != first
        daemon.until(lambda: daemon.metrics()[f'gpudaemon_device_data_age_seconds{{device="{GPU}"}}'] < 1.2)


def test_a_reader_that_falls_silent_is_replaced(tree: str) -> None:
    with RunningDaemon(None, sysfs=tree) as daemon:
        first = daemon.reader
        os.kill(first, signal.SIGSTOP)
        try:
            took = daemon.until(lambda: restarts(daemon.metrics()) == {"silent": 1}, 8)
            assert took > 1.5
            daemon.until(lambda: daemon.metrics()["gpudaemon_daemon_reader_up"] == 1, 3)
            assert daemon.reader != first
            until(lambda: not is_running(first), 3)
            daemon.until(lambda: SERIES in daemon.metrics(), 3)
        finally:
            if is_running(first):
                os.kill(first, signal.SIGKILL)


def test_without_its_launcher_the_daemon_goes_on(tree: str) -> None:
    with RunningDaemon(None, sysfs=tree) as daemon:
        launcher, first = daemon.launcher, daemon.reader
        os.kill(launcher, signal.SIGKILL)

        def replaced() -> bool:
            try:
                return daemon.launcher != launcher and daemon.reader != first
            except LookupError:
                return False

        # The reader ends with its launcher (PR_SET_PDEATHSIG).
        daemon.until(replaced, 8)
        until(lambda: not is_running(first), 3)
        daemon.until(
            lambda: daemon.metrics().get(f'gpudaemon_device_data_age_seconds{{device="{GPU}"}}', 9) < 1.2, 5
        )
        assert "launcher is gone" in daemon.log


def test_everything_ends_when_the_server_is_killed(tree: str) -> None:
    with RunningDaemon(None, sysfs=tree) as daemon:
        launcher, reader = daemon.launcher, daemon.reader
        daemon.stop(force=True)
        until(lambda: not is_running(launcher) and not is_running(reader), 5)


def test_a_terminal_s_interrupt_ends_it_in_order(tree: str) -> None:
    with RunningDaemon(None, sysfs=tree) as daemon:
        launcher, reader = daemon.launcher, daemon.reader
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(5) == 0
        assert time.monotonic() - began < 2
        until(lambda: not is_running(launcher) and not is_running(reader), 3)
        assert "Traceback" not in daemon.log


# A stuck reader


@needs_fuse
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_stuck_reader_holds_neither_end_nor_port_nor_driver(
    host: HostProcess, engine: str, tmp_path: Path
) -> None:
    """The server ends, or is killed, with a read stuck: a new one starts at once and leaves that GPU alone."""
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    flags = ("--engine", engine, "--read.deadline", "0.3")
    runtime = str(tmp_path / "run")
    with RunningDaemon(host, *flags, runtime=runtime) as daemon:
        port, stuck = daemon.port, daemon.reader
        series = set(daemon.metrics().data(GPU))
        host.control.fault(BUSY, "hang")
        daemon.until(lambda: daemon.metrics().states(GPU) == ["hung"])
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 2
    assert is_running(stuck)
    for force in (True, False):
        began = time.monotonic()
        with RunningDaemon(host, *flags, runtime=runtime, port=port) as daemon:
            assert time.monotonic() - began < 3
            assert daemon.port == port
            page = daemon.metrics()
            assert page.states(GPU) == ["hung"]
            assert page["gpudaemon_daemon_stuck_reader_processes"] == 1
            assert f'gpudaemon_daemon_stuck_read_age_seconds{{device="{GPU}",attribute="gpu_metrics"}}' in page
            assert not page.data(GPU)
            assert page.states("0000:23:00.0") == ["ok"]
            time.sleep(1.5)
            # No second reader was sent into the driver.
            assert [one["path"].rsplit("/", 1)[1] for one in host.control.stats()["waiting"]] == ["gpu_metrics"]
            daemon.stop(force=force)
    assert is_running(stuck)
    with RunningDaemon(host, *flags, runtime=runtime, port=port) as daemon:
        assert host.control.release(BUSY) == 1
        until(lambda: not is_running(stuck), 5)
        daemon.until(lambda: set(daemon.metrics().data(GPU)) >= series, 5)
        page = daemon.metrics()
        assert page.states(GPU) == ["ok"]
        assert page["gpudaemon_daemon_stuck_reader_processes"] == 0
        # What is noted of a reader goes with it.
        daemon.until(lambda: os.listdir(runtime) == ["control.sock"], 3)


@needs_fuse
def test_a_reader_killed_while_stuck_is_replaced_and_its_device_waits(host: HostProcess) -> None:
    with RunningDaemon(host, "--read.deadline", "0.3") as daemon:
        stuck = daemon.reader
        host.control.fault(BUSY, "hang")
        daemon.until(lambda: daemon.metrics().states(GPU) == ["hung"])
        os.kill(stuck, signal.SIGSTOP)  # silent: with a read in the driver it cannot die
        daemon.until(lambda: restarts(daemon.metrics()) == {"silent": 1}, 8)
        daemon.until(lambda: daemon.metrics()["gpudaemon_daemon_stuck_reader_processes"] == 1, 5)
        daemon.until(lambda: daemon.metrics().states("0000:23:00.0") == ["ok"], 5)
        page = daemon.metrics()
        assert page.states(GPU) == ["hung"]
        assert len(host.control.stats()["waiting"]) == 1
        host.control.clear()
        daemon.until(lambda: daemon.metrics().states(GPU) == ["ok"], 5)
        assert daemon.metrics()["gpudaemon_daemon_stuck_reader_processes"] == 0


@pytest.mark.parametrize("known", [True, False], ids=["after the deadline", "before it"])
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_reader_that_is_killed_while_stuck_is_missed_at_once(
    host: HostProcess, engine: str, known: bool
) -> None:
    """It cannot end, so its socket stays open: one of its threads tells. Healthy devices stay fresh."""
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    with RunningDaemon(host, "--read.deadline", "0.3", "--engine", engine) as daemon:
        stuck = daemon.reader
        daemon.until(lambda: daemon.metrics().states("0000:23:00.0") == ["ok"])
        host.control.fault(BUSY, "hang")
        until(lambda: host.control.stats()["waiting"], 3)
        if known:
            daemon.until(lambda: daemon.metrics().states(GPU) == ["hung"])
        os.kill(stuck, signal.SIGKILL)
        killed = time.monotonic()
        oldest, missed = 0.0, 0.0
        while time.monotonic() - killed < 4.0:
            page = daemon.metrics()
            oldest = max(oldest, page['gpudaemon_device_data_age_seconds{device="0000:23:00.0"}'])
            missed = missed or (restarts(page) == {"died": 1} and time.monotonic() - killed)
            time.sleep(0.05)
        assert 0 < missed < 1.0 and oldest < 2.5
        page = daemon.metrics()
        assert restarts(page) == {"died": 1} and page.states("0000:23:00.0") == ["ok"]
        # What the reader had not yet said to hang is read once more.
        assert page.states(GPU) == ["hung"]
        assert page["gpudaemon_daemon_stuck_reader_processes"] == (1 if known else 0)
        host.control.clear()
        daemon.until(lambda: daemon.metrics().states(GPU) == ["ok"], 5)


# The command line


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "gpudaemon.cli", *arguments],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--path.sysfs", "/nowhere"], '--path.sysfs = "/nowhere": allowed: a directory: there is none'),
        (["--read.deadline", "0"], "--read.deadline = 0: allowed: numbers from 0.05 to 60"),
        (["--read.deadline", "soon"], '--read.deadline = "soon": allowed: numbers from 0.05 to 60'),
        (["--web.max-requests", "0"], "--web.max-requests = 0"),
        (
            ["--engine", "thread"],
            '--engine = "thread": allowed: auto, io_uring, threads; did you mean threads?',
        ),
        (["--tier", "root"], '--tier = "root"'),
        (["--config.file", "/nowhere.toml"], "/nowhere.toml: No such file or directory"),
        (["--web.listen-address", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (["--web.listen-address", "nonsense"], "nonsense"),
        (["--uevent.source", "telepathy"], '--uevent.source = "telepathy"'),
        (["--uevent.source", "socket:/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_used_ends_with_one_line(tree: str, arguments: list[str], says: str) -> None:
    """Status 2 where only an edit can help, 1 where another try may."""
    done = command("run", "--path.sysfs", tree, "--web.listen-address", "127.0.0.1:0", *arguments)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("info: ", "warning: "))]
    assert done.returncode == (1 if says in ("127.0.0.1:99999", "/nowhere/at/all") else 2), done.stderr
    assert len(errors) == 1
    assert errors[0].startswith("gpudaemon: ")
    assert says in errors[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine"], "expected one argument"),
        (["--x"], "--x"),
        (["--read.dedline", "3"], "did you mean --read.deadline?"),
        (["--collector.gpus"], "did you mean --collector.gpu?"),
    ],
)
def test_wrong_flags_end_with_status_2(arguments: list[str], says: str) -> None:
    done = command("run", *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said(tree: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = command("run", "--path.sysfs", tree, "--uevent.source", "none", "--web.listen-address", address)
    assert done.returncode == 1
    assert address in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
