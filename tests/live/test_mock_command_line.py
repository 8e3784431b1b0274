"""`gpudaemon mock live` and the commands to it, and uevents over real netlink, as a user runs them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

PROGRAM = [sys.executable, "-P", "-m", "gpudaemon.cli", "mock"]
SCENARIO = """
[host]
profile = "mi300x8"
gpus = 2
workload = "training"

[[step]]
at = 0.4
every = 0.1
times = 3
do = "errors"
device = "card0"
counter = "uncorrected"

[[step]]
at = 0.6
do = "remove"
device = "card9"
"""


def mock(*words: object, status: int = 0) -> str:
    done = subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    directory = os.fspath(tmp_path / "host")
    command = [*PROGRAM, "live", directory, "--scenario", os.fspath(tmp_path / "scenario.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, ready = process.stdout.readline(), process.stdout.readline()
        assert first == (
            f"gpudaemon run --path.sysfs {directory}/sys --path.procfs {directory}/proc "
            f"--uevent.source socket:{directory}.uevents\n"
        )
        assert ready == f"ready {directory}\n"
        yield directory
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert os.listdir(directory) == []
    assert not os.path.exists(f"{directory}.control")


def read(host: str, path: str) -> str:
    with open(f"{host}/{path}") as stream:
        return stream.read()


def test_a_host_from_the_command_line(host: str) -> None:
    card = "sys/class/drm/card1/device"
    assert int(mock("fault", host, "card1", "read_errno", "EBUSY")) > 40
    with pytest.raises(OSError, match="busy"):
        read(host, f"{card}/gpu_busy_percent")
    assert mock("clear", host) == "0\n"
    mock("fault", host, f"{card}/gpu_busy_percent", "content", "101\n")
    assert read(host, f"{card}/gpu_busy_percent") == "101\n"
    mock("workload", host, "all", "idle")
    assert json.loads(mock("truth", host, "card1"))["workload"] == "idle"
    assert json.loads(mock("rebind", host, "card1", "card=card7"))["card"] == "card7"
    assert os.path.exists(f"{host}/sys/class/drm/card7/device/gpu_busy_percent")
    mock("autosuspend", host, "card7", 100)
    time.sleep(0.3)
    assert read(host, "sys/class/drm/card7/device/power/runtime_status") == "suspended\n"
    mock("autosuspend", f"{host}.control", "card7", "on")
    assert read(host, "sys/class/drm/card7/device/power/runtime_status") == "active\n"
    stats = json.loads(mock("stats", host))
    assert stats["refused"] == 1  # card9 of the scenario
    assert read(host, "sys/class/drm/card0/device/ras/umc_err_count").startswith("ue: 3\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fault", "{host}", "card1", "latency"), "latency needs seconds"),
        (("fault", "{host}", "card1", "hang", "3"), "hang has no value"),
        (("fault", "{host}", "card1", "latency", "soon"), "seconds = 'soon': a number is wanted"),
        (("fault", "{host}", "nothing/here", "hang"), "no file matches nothing/here"),
        (("workload", "{host}", "card1", "rest"), "no workload 'rest'"),
        (("change", "{host}", "card1", "WEDGED"), "keys = WEDGED: NAME=VALUE is wanted"),
        (("stats", "{host}x"), "hostx"),
    ],
)
def test_what_cannot_be_done_is_said(host: str, words: tuple[str, ...], says: str) -> None:
    assert says in mock(*(word.format(host=host) for word in words), status=1)


def test_what_cannot_be_mounted_is_said(tmp_path: Path) -> None:
    assert "no profile 'mi300'" in mock("live", "mi300", tmp_path / "x", status=1)
    assert "gpus is 3" in mock("live", "rx7900xtx", tmp_path / "x", "--gpus", 3, status=1)
    assert "no workload 'rest'" in mock("live", tmp_path / "x", "--workload", "rest", status=1)
    (tmp_path / "bad.toml").write_text("[[step]]\nat = 1\n")
    assert "bad.toml: step 1: do = None" in mock(
        "live", tmp_path / "x", "--scenario", tmp_path / "bad.toml", status=1
    )


LISTEN = """
import socket, sys
if sys.argv[1] == "daemon":
    from gpudaemon.sources.uevents import UeventSource
    import queue
    found = queue.Queue()
    source = UeventSource("kernel", found.put, lambda: None)
    print("ready", flush=True)
    while True:
        event = found.get(timeout=20)
        if event.properties["SUBSYSTEM"] in ("drm", "pci"):
            print(event.action, event.devpath, event.properties.get("WEDGED"), flush=True)
else:
    import pyudev
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    monitor.start()
    print("ready", flush=True)
    while True:
        event = monitor.poll(20)
        if event.properties["SUBSYSTEM"] in ("drm", "pci"):
            print(event.action, event.device_path, event.properties.get("WEDGED"), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs CAP_SYS_ADMIN")
@pytest.mark.skipif(shutil.which("nsenter") is None, reason="nsenter is not here")
@pytest.mark.parametrize("who", ["daemon", "pyudev"])
def test_uevents_over_netlink_are_believed(who: str) -> None:
    """The daemon's own source with its check of the sender, and libudev's, in the host's network namespace."""
    with HostProcess("mi300x8", gpus=1, netlink=True) as host:
        command = ["nsenter", f"--net={host.namespace}", sys.executable, "-W", "ignore", "-c", LISTEN, who]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "ready\n"
            assert host.control.change("card0", WEDGED="none") == 1
            assert host.control.remove("card0") == 5
            path = "/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"
            seen = [listener.stdout.readline().strip() for _ in range(5)]
            assert seen == [
                f"change {path}/drm/card0 none",
                f"remove {path}/drm/card0 None",
                f"remove {path}/drm/renderD128 None",
                f"unbind {path} None",
                f"remove {path} None",
            ]
            listener.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs CAP_SYS_ADMIN")
def test_uevents_over_netlink_stay_in_the_hosts_namespace() -> None:
    from gpudaemon.sources.uevents import UeventSource

    seen: list[str] = []
    source = UeventSource("kernel", lambda event: seen.append(event.devpath), lambda: None)
    try:
        with HostProcess("mi300x8", gpus=1, netlink=True) as host:
            assert os.readlink(host.namespace) != os.readlink("/proc/self/ns/net")
            host.control.change("card0", WEDGED="none")
            time.sleep(0.3)
    finally:
        source.stop()
    assert not [path for path in seen if path.endswith("/drm/card0")]


ASK = """
import sys, time, urllib.request
wanted, end = sys.argv[1], time.monotonic() + 60
while time.monotonic() < end:
    try:
        page = urllib.request.urlopen("http://127.0.0.1:9836/metrics", timeout=10).read().decode()
    except OSError:
        page = ""
    if any(line in (f"{wanted} 1", f"{wanted} 1.0") for line in page.splitlines()):
        sys.exit(0)
    time.sleep(0.05)
sys.exit(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs CAP_SYS_ADMIN")
@pytest.mark.skipif(shutil.which("nsenter") is None, reason="nsenter is not here")
def test_a_daemon_hears_of_removal_and_return_over_netlink() -> None:
    """The whole daemon in the host's network namespace; nothing but the kernel's messages tells it."""
    gpu = "0000:03:00.0"
    with HostProcess("mi300x8", gpus=1, netlink=True) as host:
        enter = ["nsenter", f"--net={host.namespace}", sys.executable, "-P"]

        def ask(line: str) -> None:
            asked = subprocess.run([*enter, "-c", ASK, line], timeout=90, check=False)
            assert asked.returncode == 0, line

        command = [*enter, "-m", "gpudaemon.cli", "run", "--uevent.source", "kernel", "--engine", "threads"]
        command += ["--path.sysfs", host.sysfs, "--path.procfs", host.procfs]
        command += ["--path.runtime", os.path.dirname(host.directory)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as daemon:
            try:
                ask(f'gpudaemon_device_state{{device="{gpu}",state="ok"}}')
                assert host.control.remove(gpu) == 5
                ask(f'gpudaemon_device_missing{{device="{gpu}"}}')
                assert host.control.restore(gpu) == 5
                ask(f'gpudaemon_device_state{{device="{gpu}",state="ok"}}')
            finally:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(30)
