"""The unit under a real systemd: restarts beside a stuck read, watchdog, reload, socket activation, tiers.

`tests/systemd/boot` boots this host's own systemd as process 1 of a machine made of namespaces.
GPUDAEMON_SOURCE is the checkout that is installed there (this one).
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess
from tests.live.daemon import Page, is_running, until
from tests.live.test_systemd_rights import capabilities, owner_of_port
from tests.systemd.machine import PORT, ROOT, Machine, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

SICK = "0000:43:00.0"
FILE = "gpu_metrics"
SERVE = 3.0
"""Seconds after which a new server answers, whatever happened to the old one."""


@pytest.fixture(scope="module")
def booted() -> Iterator[Machine]:
    with Machine(Path(os.environ.get("GPUDAEMON_SOURCE", ROOT))) as machine:
        yield machine


@pytest.fixture
def host(booted: Machine) -> Iterator[HostProcess]:
    with booted.host("mi300x8", 4) as host:
        yield host


def start(machine: Machine) -> int:
    """Start the service; returns the server's process id once every device was read."""
    machine.run("systemctl", "restart", "gpudaemon.service")
    until(lambda: machine.fetch("/-/ready") is not None, 20.0)
    return machine.main_pid()


def reader_of(machine: Machine, server: int) -> int:
    """The reader of a server: the only one that is no former one."""
    (launcher,) = (pid for pid in machine.processes() if _says(pid, "gpudaemon.reader.launcher", server))
    (reader,) = (pid for pid in machine.processes() if _says(pid, "gpudaemon.reader.process", launcher))
    return reader


def _says(pid: int, module: str, parent: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return module.encode() in command and int(fields[1]) == parent
    return False


def hang(machine: Machine, host: HostProcess) -> str:
    """Let the sick GPU's file hang until the server says so; returns its path as the host names it."""
    found = os.path.realpath(f"{host.sysfs}/bus/pci/devices/{SICK}")
    path = f"{os.path.relpath(found, host.directory)}/{FILE}"
    host.control.fault(path, "hang")
    until(lambda: Page.of(machine.fetch("/metrics") or "").states(SICK) == ["hung"], 15.0)
    return path


def first_page(machine: Machine, old: int, began: float) -> float:
    """Seconds of the wall clock from `began` to the first page of another server than `old`."""
    until(lambda: not is_running(old), 15.0)
    until(lambda: machine.fetch("/metrics") is not None, 15.0)
    return time.time() - began


def ready_page(machine: Machine) -> Page:
    """The first page once every device was read."""
    until(lambda: machine.fetch("/-/ready") is not None, 15.0)
    return Page.of(machine.fetch("/metrics") or "")


# What ends the server: returns the moment from which a new one is waited for.


def restart(machine: Machine, server: int) -> float:
    began = time.time()
    command = machine.command("systemctl", "restart", "gpudaemon.service")
    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return began


def kill(machine: Machine, server: int) -> float:
    os.kill(server, signal.SIGKILL)
    return time.time()


def silence(machine: Machine, server: int) -> float:
    """Stop the server's loop, and wait for systemd to find out."""
    began = time.time()
    os.kill(server, signal.SIGSTOP)
    found: list[float] = []

    def declared() -> bool:
        lines = machine.journal(since=began).splitlines()
        found.extend(float(line.split()[0]) for line in lines if "Watchdog timeout" in line)
        return bool(found)

    until(declared, 15.0)
    return found[0]


ENDS: dict[str, Callable[[Machine, int], float]] = {"restart": restart, "kill": kill, "watchdog": silence}


class Scraper:
    """Asks for a page without pause, as many at a time as given, until it is left. Outcome -> how often."""

    def __init__(self, machine: Machine, threads: int = 3) -> None:
        self.outcomes: dict[str, int] = {}
        self.longest = 0.0
        self._ends = threading.Event()
        self._machine = machine
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> "Scraper":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(20.0)

    def _ask(self) -> None:
        self._machine.enter_network()
        while not self._ends.is_set():
            began = time.monotonic()
            try:
                with self._machine.connection(10.0) as one:
                    one.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    outcome = one.recv(64).partition(b"\r\n")[0].decode()[:12] or "closed"
            except OSError as error:
                outcome = type(error).__name__
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.005)


@pytest.mark.parametrize("way", ["restart", "kill", "watchdog"])
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
@pytest.mark.parametrize("activated", [False, True], ids=["own socket", "gpudaemon.socket"])
@pytest.mark.timeout(180)
def test_a_new_server_beside_a_stuck_reader(
    booted: Machine,
    host: HostProcess,
    engine: str,
    way: str,
    activated: bool,
) -> None:
    booted.configure(host, f"--engine={engine}", service="WatchdogSec=3" if way == "watchdog" else "")
    if activated:
        booted.run("systemctl", "start", "gpudaemon.socket")
    server = start(booted)
    assert f'engine="{engine}"' in (booted.fetch("/metrics") or "")
    reader = reader_of(booted, server)
    path = hang(booted, host)
    waiting = len(host.control.stats()["waiting"])
    accesses = host.control.accesses(f"{os.path.dirname(path)}/*")
    since = time.time()
    with Scraper(booted) if activated else contextlib.nullcontext() as scraper:
        began = ENDS[way](booted, server)
        taken = first_page(booted, server, began)
    print(f"\n{engine}, {way}, {'socket unit' if activated else 'own socket'}: serving after {taken:.2f} s")
    assert taken < SERVE, booted.journal(since=since)
    if scraper is not None:
        print(f"  while it restarted: {scraper.outcomes}, longest {scraper.longest:.2f} s")
        assert "ConnectionRefusedError" not in scraper.outcomes
        assert scraper.outcomes["HTTP/1.1 200"] > 0

    # It starts with the device quarantined and sends nothing there.
    assert ready_page(booted).states(SICK) == ["hung"]
    until(lambda: bool(Page.of(booted.fetch("/metrics") or "").data("0000:03:00.0")), 10.0)
    assert len(host.control.stats()["waiting"]) == waiting
    assert host.control.accesses(f"{os.path.dirname(path)}/*") == accesses

    # Nothing of the old is left but the reader that cannot end, and it is named.
    new = booted.main_pid()
    assert new != server
    expected = {new, reader, reader_of(booted, new), *_launchers(booted, new)}
    until(lambda: set(booted.processes()) == expected, 5.0)
    assert is_running(reader)
    inner = _inner(reader)
    lines = booted.journal(since=since).splitlines()
    manager = [line for line in lines if "systemd[1]" in line and re.search(rf"process {inner} ", line)]
    assert manager, lines
    own = [line for line in lines if "held by a former reader" in line]
    assert own and f"pid={inner}" in own[0] and FILE in own[0] and SICK in own[0], lines
    if way == "watchdog":
        # Python says where each thread stood.
        assert any("Fatal Python error: Aborted" in line for line in lines), lines

    host.control.release(path)
    until(lambda: not is_running(reader), 15.0)
    until(lambda: Page.of(booted.fetch("/metrics") or "").states(SICK) == ["ok"], 15.0)


def _launchers(machine: Machine, server: int) -> list[int]:
    return [pid for pid in machine.processes() if _says(pid, "gpudaemon.reader.launcher", server)]


def _inner(pid: int) -> int:
    words = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid")
    )
    return int(words.split()[-1])


def test_a_healthy_stop_leaves_nothing(booted: Machine, host: HostProcess) -> None:
    booted.configure(host)
    start(booted)
    since = time.time()
    booted.run("systemctl", "stop", "gpudaemon.service")
    assert booted.show("ActiveState") == "inactive"
    assert booted.show("Result") == "success"
    assert booted.processes() == []
    assert "remains running" not in booted.journal(since=since)
    booted.run("systemctl", "start", "gpudaemon.service")
    assert "left-over" not in booted.journal(since=since)


def test_ready_means_that_a_page_can_be_had(booted: Machine, host: HostProcess) -> None:
    booted.configure(host)
    booted.run("systemctl", "start", "gpudaemon.service")
    assert booted.fetch("/metrics") is not None
    until(lambda: booted.fetch("/-/ready") is not None)
    until(lambda: booted.show("StatusText") != "")


def test_the_watchdog_lets_a_working_daemon_live(booted: Machine, host: HostProcess) -> None:
    booted.configure(host, service="WatchdogSec=2")
    server = start(booted)
    time.sleep(7.0)
    assert booted.main_pid() == server
    assert booted.show("NRestarts") == "0"


def test_reload_is_acknowledged(booted: Machine, host: HostProcess) -> None:
    booted.configure(host)
    server = start(booted)
    since = time.time()
    booted.run("systemctl", "reload", "gpudaemon.service")
    until(lambda: "configuration read again" in booted.journal(since=since))
    until(lambda: booted.show("ActiveState") == "active")
    assert booted.main_pid() == server
    assert Page.of(booted.fetch("/metrics") or "")["gpudaemon_daemon_config_reload_success"] == 1


def test_processors_pause_and_credentials(booted: Machine, host: HostProcess) -> None:
    """What an operator does with the unit, as docs/service.md says."""
    booted.write("etc/gpudaemon/web.yml", "basic_auth_users: {}\n")
    booted.run("chmod", "600", "/etc/gpudaemon/web.yml")
    flags = ("--cpu.server=0", "--cpu.reader=1", "--web.config.file=%d/web.yml")
    if (os.cpu_count() or 1) < 2:
        flags = flags[2:]
    booted.configure(host, *flags, service="LoadCredential=web.yml:/etc/gpudaemon/web.yml")
    server = start(booted)
    if len(flags) == 3:
        assert os.sched_getaffinity(server) == {0}
        assert os.sched_getaffinity(reader_of(booted, server)) == {1}
    program = "/opt/gpudaemon/bin/gpudaemon"
    for words, paused in ((("pause", "--for", "60"), 1), (("resume",), 0)):
        booted.run(program, *words)
        assert Page.of(booted.fetch("/metrics") or "")["gpudaemon_daemon_paused"] == paused


def test_wrong_arguments_are_not_tried_again(booted: Machine, host: HostProcess) -> None:
    booted.configure(host, "--no-such-flag")
    booted.run("systemctl", "start", "gpudaemon.service", check=False)
    until(lambda: booted.show("ActiveState") == "failed", 10.0)
    time.sleep(1.5)
    assert booted.show("NRestarts") == "0"


def test_a_server_that_ends_by_itself_comes_back(booted: Machine, host: HostProcess) -> None:
    """SIGTERM from somebody else than the service manager is an end with status 0."""
    booted.configure(host)
    server = start(booted)
    os.kill(server, signal.SIGTERM)
    taken = first_page(booted, server, time.time())
    assert taken < SERVE


def test_a_lost_launcher_and_a_lost_reader_do_not_end_the_service(booted: Machine, host: HostProcess) -> None:
    booted.configure(host)
    server = start(booted)
    for pid in (reader_of(booted, server), *_launchers(booted, server)):
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(booted.processes()) == 3 and pid not in booted.processes(), 15.0)  # noqa: B023
    until(lambda: booted.fetch("/-/ready") is not None)
    assert booted.main_pid() == server


@pytest.mark.parametrize("tier", ["base", "processes", "tracing", "full"])
def test_the_owner_of_the_socket_has_no_capability(booted: Machine, host: HostProcess, tier: str) -> None:
    booted.configure(host, tier=tier)
    server = start(booted)
    owners = owner_of_port(PORT, namespace=booted.pid, among=booted.processes())
    assert owners == [server]
    granted = booted.show("CapabilityBoundingSet").split()
    for thread, sets in capabilities(server).items():
        assert [sets[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0], thread
        # Only CAP_SETPCAP, which no tier has, could empty this one; with no_new_privs nothing comes of it.
        assert sets["CapBnd"].bit_count() == len(granted), thread
        assert sets["NoNewPrivs"] == 1, thread
    reader = capabilities(reader_of(booted, server))
    # CAP_DAC_OVERRIDE is the tracer's alone.
    assert "cap_dac_override" not in granted or tier in ("tracing", "full")
    own = len([name for name in granted if name != "cap_dac_override"])
    assert {sets["CapEff"].bit_count() for sets in reader.values()} == {own}
    assert len(granted) == {"base": 0, "processes": 2, "tracing": 4, "full": 7}[tier]


@pytest.mark.parametrize("tier", ["base", "processes"])
def test_in_no_tier_is_a_second_reader_sent_after_a_stuck_one(
    booted: Machine, host: HostProcess, tier: str
) -> None:
    """The new server has no capability; the stuck reader may have, and is still seen."""
    booted.configure(host, tier=tier)
    server = start(booted)
    reader = reader_of(booted, server)
    path = hang(booted, host)
    began = restart(booted, server)
    first_page(booted, server, began)
    assert ready_page(booted).states(SICK) == ["hung"]
    time.sleep(1.5)
    assert len(host.control.stats()["waiting"]) == 1
    assert is_running(reader)
    host.control.release(path)
    until(lambda: Page.of(booted.fetch("/metrics") or "").states(SICK) == ["ok"], 15.0)


def test_the_tier_processes_sees_who_has_a_gpu_open(booted: Machine, host: HostProcess) -> None:
    """What the tier buys: the reader may look into another user's /proc/PID/fd; in the base tier it may not."""
    code = (
        "from gpudaemon.reader.clients import scan_clients; found, denied = scan_clients('/proc');print(denied)"
    )
    denied = {}
    for tier in ("base", "processes"):
        booted.configure(
            host,
            tier=tier,
            service=f'Type=oneshot\nRestart=no\nExecStart=\nExecStart=/opt/gpudaemon/bin/python -c "{code}"',
        )
        since = time.time()
        booted.run("systemctl", "start", "gpudaemon.service")
        until(lambda: bool(re.search(r"\]: \d+$", booted.journal(since=since), re.M)))  # noqa: B023
        denied[tier] = int(re.findall(r"\]: (\d+)$", booted.journal(since=since), re.M)[0])
    assert denied["processes"] == 0
