"""The configuration is read again while the daemon runs: nothing known is lost, nothing wrong is taken over."""

import os
import re
import signal
import socket
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.export.control import ask
from gpudaemon.mock import HostProcess
from tests.live.daemon import Page, RunningDaemon, until

pytestmark = pytest.mark.live

GPU, OTHER = "0000:03:00.0", "0000:23:00.0"
BUSY = "sys/class/drm/card0/device/gpu_metrics"
RELOADED = "gpudaemon_daemon_config_reload_timestamp_seconds"
USED = "gpudaemon_daemon_config_reload_success"


@pytest.fixture(scope="module")
def host() -> Iterator[HostProcess]:
    with HostProcess("mi300x8") as host:
        yield host


def reload(daemon: RunningDaemon, file: Path, text: str) -> Page:
    """Have the daemon read `text`; returns a page made afterwards."""
    before = daemon.metrics()[RELOADED]
    file.write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.metrics()[RELOADED] > before, 5)
    return daemon.metrics()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gpudaemon.toml"
    path.write_text("")
    return path


def test_a_reload_changes_what_is_served(host: HostProcess, file: Path) -> None:
    with RunningDaemon(host, "--config.file", str(file)) as daemon:
        first = daemon.metrics()
        page = reload(
            daemon,
            file,
            '[metric]\nexclude = "gpudaemon_gpu_temperature.*"\n[collector]\npcie = false\np2p = false',
        )
        daemon.until(lambda: not daemon.metrics().family("gpudaemon_pcie_link_width"), 5)
        page = daemon.metrics()
        assert not [name for name in page if name.startswith(("gpudaemon_gpu_temperature", "gpudaemon_pcie_"))]
        assert page.states(GPU) == ["ok"]
        assert len(page.family("gpudaemon_gpu_power_watts")) == 8
        page = reload(daemon, file, f'[device]\nexclude = "{re.escape(OTHER)}"\n'.replace("\\", "\\\\"))
        daemon.until(lambda: OTHER not in daemon.devices(), 5)
        # Left out on purpose: it is not missing.
        assert f'gpudaemon_device_missing{{device="{OTHER}"}}' not in daemon.metrics()
        reload(daemon, file, "")
        daemon.until(lambda: set(first.data(OTHER)) <= set(daemon.metrics().data(OTHER)), 5)


def test_a_wrong_configuration_changes_nothing(host: HostProcess, file: Path, tmp_path: Path) -> None:
    runtime = str(tmp_path / "run")
    with RunningDaemon(host, "--config.file", str(file), runtime=runtime) as daemon:
        file.write_text("[read]\ndedline = 3")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: daemon.metrics()[USED] == 0, 5)
        assert "unknown key read.dedline: did you mean read.deadline?" in daemon.log
        status, answer = ask(f"{runtime}/control.sock", "POST", "/reload")
        assert (status, "read.dedline" in answer["error"]) == (400, True)
        assert daemon.metrics().states(GPU) == ["ok"]
        file.write_text('tier = "full"')
        assert ask(f"{runtime}/control.sock", "POST", "/reload") == (200, {})
        daemon.until(lambda: daemon.metrics()[USED] == 1, 2)
        assert "takes effect at the next start option=tier" in daemon.log


def test_what_fails_while_it_is_taken_over_changes_nothing_either(host: HostProcess, file: Path) -> None:
    """No error of the file itself: this machine has no such processor."""
    with RunningDaemon(host, "--config.file", str(file)) as daemon:
        file.write_text('preset = "fast"\n[cpu]\nserver = "4095"\n[collector]\npcie = false\np2p = false')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: daemon.metrics()[USED] == 0, 5)
        assert "cpu.server" in daemon.log
        assert "<td>normal</td>" in daemon.get("/")[1]
        assert daemon.metrics().family("gpudaemon_pcie_link_width")


def test_a_flag_wins_over_the_file_at_a_reload_too(host: HostProcess, file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with RunningDaemon(host, "--config.file", str(file)) as daemon:
        reload(daemon, file, f'[web]\nlisten_address = ["127.0.0.1:{port}"]')
        assert daemon.get("/-/healthy")[0] == 200
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 1):
            pass


def test_a_device_that_hangs_gets_its_plan_when_it_answers(host: HostProcess, file: Path) -> None:
    with RunningDaemon(host, "--config.file", str(file), "--read.deadline", "0.3") as daemon:
        host.control.fault(BUSY, "hang")
        daemon.until(lambda: daemon.metrics().states(GPU) == ["hung"])
        page = reload(daemon, file, '[metric]\nexclude = "gpudaemon_gpu_busy_ratio"')
        daemon.until(lambda: not daemon.metrics().family("gpudaemon_gpu_busy_ratio"), 5)
        time.sleep(1.0)
        # No second read was sent into the driver.
        assert len(host.control.stats()["waiting"]) == 1
        assert daemon.metrics().states(GPU) == ["hung"]
        host.control.release(BUSY)
        daemon.until(lambda: daemon.metrics().states(GPU) == ["ok"], 5)
        page = daemon.metrics()
        assert page.of_device(GPU).family("gpudaemon_gpu_power_watts")
        assert not page.family("gpudaemon_gpu_busy_ratio")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_hundred_reloads_under_load(host: HostProcess, file: Path, engine: str) -> None:
    """No counter falls, no scrape fails, no series of a GPU is ever away."""
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    configurations = (
        'preset = "fast"',
        "[metric]\nlimit = 4000",
        "[collector]\npcie = false",
        '[metric]\nexclude = "gpudaemon_hwmon_.*"',
        "resting = false\n[read]\ndeadline = 2",
        "",
    )
    failures: list[str] = []
    scrapes = 0
    stop = threading.Event()
    with RunningDaemon(host, "--config.file", str(file), "--engine", engine) as daemon:
        always = set(daemon.metrics().family("gpudaemon_gpu_power_watts"))
        counters: dict[str, float] = {}
        assert len(always) == 8

        def scrape() -> None:
            nonlocal scrapes
            while not stop.is_set():
                try:
                    page = daemon.metrics()
                except (OSError, urllib.error.URLError, AssertionError) as error:
                    failures.append(repr(error))
                    continue
                scrapes += 1
                failures.extend(f"{name} is away" for name in always - set(page))
                for name, value in page.items():
                    if name.split("{")[0].endswith("_total"):
                        if value < counters.get(name, 0.0):
                            failures.append(f"{name} fell from {counters[name]} to {value}")
                        counters[name] = value

        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            for number in range(100):
                reload(daemon, file, configurations[number % len(configurations)])
        finally:
            stop.set()
            thread.join(20)
        assert failures == []
        assert scrapes > 100
        assert len(counters) > 100
        page = daemon.metrics()
        assert page["gpudaemon_daemon_reader_up"] == 1
        assert not page.family("gpudaemon_daemon_task_restarts_total")
        assert not page.family("gpudaemon_daemon_reader_restarts_total")


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_pause_reads_nothing_and_ends_by_itself(host: HostProcess, engine: str, tmp_path: Path) -> None:
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    runtime = str(tmp_path / "run")
    with RunningDaemon(host, "--engine", engine, runtime=runtime) as daemon:
        control = f"{runtime}/control.sock"
        assert ask(control, "POST", "/pause?seconds=6")[0] == 200
        daemon.until(lambda: daemon.metrics().states(GPU) == ["paused"], 2)
        time.sleep(1.2)
        before = host.control.stats()["reads"]
        daemon.until(lambda: not daemon.metrics().family("gpudaemon_gpu_busy_ratio"), 4)
        page = daemon.metrics()
        assert page["gpudaemon_daemon_paused"] == 1
        assert host.control.stats()["reads"] == before
        daemon.until(lambda: bool(daemon.metrics().family("gpudaemon_gpu_busy_ratio")), 5)
        assert daemon.metrics().states(GPU) == ["ok"]
        ask(control, "POST", "/pause?seconds=600")
        # A reader that is replaced meanwhile does not read either.
        os.kill(daemon.reader, signal.SIGKILL)
        daemon.until(
            lambda: sum(daemon.metrics().family("gpudaemon_daemon_reader_restarts_total").values()) == 1
        )
        time.sleep(1.5)
        before = host.control.stats()["reads"]
        time.sleep(2.5)
        assert host.control.stats()["reads"] == before
        assert ask(control, "POST", "/resume")[0] == 200
        daemon.until(lambda: bool(daemon.metrics().family("gpudaemon_gpu_busy_ratio")), 5)


@pytest.mark.parametrize(
    "query", ["", "?seconds=", "?seconds=nan", "?seconds=-1", "?seconds=1e9", "?seconds=x"]
)
def test_a_pause_must_have_an_end(host: HostProcess, tmp_path: Path, query: str) -> None:
    runtime = str(tmp_path / "run")
    with RunningDaemon(host, runtime=runtime) as daemon:
        status, answer = ask(f"{runtime}/control.sock", "POST", f"/pause{query}")
        assert (status, "allowed" in answer["error"]) == (400, True)
        assert daemon.metrics()["gpudaemon_daemon_paused"] == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_every_thread_keeps_to_its_processors(
    host: HostProcess, engine: str, file: Path, tmp_path: Path
) -> None:
    """The kernel's workers too: they do not follow the affinity of the thread that submits."""
    if engine == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    first, second = sorted(os.sched_getaffinity(0))[:2]

    def kept(pid: int) -> set[frozenset[int]]:
        return {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir(f"/proc/{pid}/task")}

    file.write_text(f'[cpu]\nserver = "{first}"\nreader = "{second}"')
    with RunningDaemon(host, "--config.file", str(file), "--engine", engine) as daemon:
        assert kept(daemon.pid) == kept(daemon.launcher) == {frozenset({first})}
        assert kept(daemon.reader) == {frozenset({second})}
        reload(daemon, file, f'[cpu]\nserver = "{second}"\nreader = "{first}"')
        until(lambda: kept(daemon.reader) == {frozenset({first})}, 10)
        assert kept(daemon.pid) == kept(daemon.launcher) == {frozenset({second})}


def test_a_limit_of_series_is_kept_and_told(host: HostProcess, file: Path) -> None:
    file.write_text("[metric]\nlimit = 10")
    with RunningDaemon(host, "--config.file", str(file)) as daemon:
        page = daemon.metrics()
        dropped = page[f'gpudaemon_daemon_series_dropped{{device="{GPU}"}}']
        # What lies between devices is the host's and has a bound of its own.
        others = (
            "gpudaemon_device_",
            "gpudaemon_runtime_",
            "gpudaemon_pcie_link_ceiling",
            "gpudaemon_pcie_link_down",
        )
        own = [name for name in page.data(GPU) if not name.startswith(others)]
        assert len(own) <= 10
        page = reload(daemon, file, "")
        daemon.until(lambda: not daemon.metrics().family("gpudaemon_daemon_series_dropped"), 5)
        assert dropped > 100
        assert len(daemon.metrics().data(GPU)) > 100
