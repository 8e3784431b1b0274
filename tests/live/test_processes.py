"""The whole daemon and who uses its GPUs: host and processes as files, and rings of io_uring that are real."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import build
from gpudaemon.sources.process_events import ProcessEvents
from tests.live.daemon import Page, RunningDaemon, children, until
from tests.procfs import Procfs, amdgpu, xe

pytestmark = pytest.mark.live

GPU = "0000:03:00.0"
S = 1_000_000_000
ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("--tier", "processes", "--process.period", "1", "--process.top", "2")
DOCKER = f"/system.slice/docker-{'ab' * 32}.scope"
OWNER = f"docker/{'ab' * 6}"


class Files:
    """A host of one GPU as files."""

    def __init__(self, root: Path) -> None:
        build("rx7900xtx", str(root))
        self.sysfs = str(root / "sys")
        self.processes = Procfs(root / "procfs")
        self.procfs = str(self.processes.root)


@pytest.fixture
def host(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def daemon(host: Files) -> Iterator[RunningDaemon]:
    with RunningDaemon(host, *FLAGS) as daemon:
        daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 0)
        yield daemon


def value(page: Page, name: str, **labels: str) -> float | None:
    """The only series of that name with these labels, None where there is none."""
    found = [
        number
        for series, number in page.family(f"gpudaemon_{name}").items()
        if all(f'{label}="{text}"' in series for label, text in labels.items())
    ]
    assert len(found) < 2, found
    return found[0] if found else None


def scout(daemon: RunningDaemon) -> int:
    for pid in children(daemon.launcher):
        if b"gpudaemon.processes.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise LookupError


def test_clients_come_work_and_go_and_their_time_stays(host: Files, daemon: RunningDaemon) -> None:
    procfs = host.processes
    procfs.process(10, cgroup=DOCKER)
    for descriptor in (3, 4):
        procfs.open(10, descriptor, amdgpu(5, S, vram=1 << 20))
    procfs.process(11, cgroup=DOCKER)
    procfs.open(11, 9, amdgpu(5, S, vram=1 << 20))
    daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 1)
    page = daemon.metrics()
    assert value(page, "drm_engine_busy_seconds_total", engine="gfx") == 1
    assert value(page, "drm_open_descriptors", owner=OWNER) == 3
    assert value(page, "drm_owner_memory_bytes", owner=OWNER, region="vram", kind="total") == 1 << 20
    for pid, descriptor in ((10, 3), (10, 4), (11, 9)):
        procfs.open(pid, descriptor, amdgpu(5, 4 * S, vram=1 << 20))
    daemon.until(lambda: value(daemon.metrics(), "drm_owner_engine_busy_seconds_total", owner=OWNER) == 4)
    procfs.end(11)
    time.sleep(2.5)
    assert value(daemon.metrics(), "drm_clients") == 1, "the other process has it too"
    procfs.end(10)
    daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 0)
    page = daemon.metrics()
    assert value(page, "drm_engine_busy_seconds_total", engine="gfx") == 4
    assert value(page, "drm_owner_engine_busy_seconds_total", owner=OWNER) == 4
    assert value(page, "drm_owner_memory_bytes", owner=OWNER, region="vram", kind="total") is None
    assert not page.family("gpudaemon_drm_process_memory_bytes"), "processes are forgotten"


def test_cycles_of_xe_are_seconds(host: Files, daemon: RunningDaemon) -> None:
    """Half of two engines' time, by a clock of 19.2 MHz."""
    procfs, began = host.processes, time.monotonic()
    procfs.process(10)

    def write() -> None:
        ticks = int((time.monotonic() - began) * 19_200_000)
        procfs.open(10, 3, xe(7, ticks, ticks, capacity=2))

    end = began + 8
    while time.monotonic() < end:
        write()
        time.sleep(0.05)
    page = daemon.metrics()
    assert value(page, "drm_engine_busy_ratio", engine="rcs") == pytest.approx(0.5, rel=0.15)
    counted = value(page, "drm_engine_busy_seconds_total", engine="rcs")
    assert counted == pytest.approx(8, abs=2.2), "two looks a second apart at most are not counted yet"


def test_hostile_names_reach_the_page_escaped(host: Files, daemon: RunningDaemon) -> None:
    procfs = host.processes
    for pid, name, unit in (
        (20, b'a"} 1\ngpudaemon_evil 1', 'x"}\\n1'),
        (21, b"\xff\xfe\x1b[31m", "\udcff"),
        (22, b"(((()))))) S 1 1", "a" * 250),
    ):
        made = procfs.process(pid, name=name)
        (made / "cgroup").write_bytes(b"0::/" + os.fsencode(unit) + b".service\n")
        procfs.open(pid, 3, amdgpu(pid, S, vram=4096, name='n"\n'))
    daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 3)
    status, text = daemon.get("/metrics")
    assert status == 200
    assert "gpudaemon_evil" not in {line.split("{")[0].split(" ")[0] for line in text.splitlines()}
    assert "\x1b" not in text
    assert all(len(line) < 1200 for line in text.splitlines())


def test_a_number_used_again_is_another_process(host: Files, daemon: RunningDaemon) -> None:
    procfs = host.processes
    procfs.process(10, cgroup="/first.service", started=100)
    procfs.open(10, 3, amdgpu(5, S))
    daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 1)
    procfs.end(10)
    procfs.process(10, cgroup="/second.service", started=200)
    procfs.open(10, 3, amdgpu(6, 2 * S))
    daemon.until(
        lambda: value(daemon.metrics(), "drm_owner_engine_busy_seconds_total", owner="unit/second.service") == 2
    )
    page = daemon.metrics()
    assert value(page, "drm_owner_engine_busy_seconds_total", owner="unit/first.service") == 1
    assert value(page, "drm_clients") == 1


def test_a_scout_that_is_killed_is_replaced_and_nothing_falls(host: Files, daemon: RunningDaemon) -> None:
    procfs = host.processes
    procfs.process(10, cgroup=DOCKER)
    procfs.open(10, 3, amdgpu(5, S))
    daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 1)
    before = scout(daemon)
    os.kill(before, signal.SIGKILL)
    daemon.until(lambda: value(daemon.metrics(), "daemon_scout_restarts_total", reason="died") == 1)
    procfs.open(10, 3, amdgpu(5, 3 * S))
    daemon.until(lambda: value(daemon.metrics(), "drm_engine_busy_seconds_total", engine="gfx") == 3)
    daemon.until(lambda: value(daemon.metrics(), "daemon_scout_up") == 1)
    assert scout(daemon) != before


def test_a_reader_that_is_killed_loses_no_sum(host: Files, daemon: RunningDaemon) -> None:
    procfs = host.processes
    procfs.process(10, cgroup=DOCKER)
    procfs.open(10, 3, amdgpu(5, S))
    daemon.until(lambda: value(daemon.metrics(), "drm_clients") == 1)
    os.kill(daemon.reader, signal.SIGKILL)
    procfs.open(10, 3, amdgpu(5, 3 * S))
    daemon.until(lambda: value(daemon.metrics(), "drm_engine_busy_seconds_total", engine="gfx") == 3, 30.0)


def test_the_base_tier_looks_at_nobody_unless_asked(host: Files) -> None:
    with RunningDaemon(host) as daemon:
        assert value(daemon.metrics(), "daemon_scout_up") is None
        with pytest.raises(LookupError):
            scout(daemon)
    with RunningDaemon(host, "--collector.drm-client") as daemon:
        daemon.until(lambda: value(daemon.metrics(), "daemon_scout_processes") is not None)


def test_the_scout_has_no_more_rights_than_it_needs(daemon: RunningDaemon) -> None:
    status = Path(f"/proc/{scout(daemon)}/status").read_text()
    held = {line.split()[0]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}
    allowed = sum(1 << number for number in (2, 12, 19, 34))  # DAC_READ_SEARCH NET_ADMIN SYS_PTRACE SYSLOG
    assert all(not held[name] & ~allowed for name in ("CapEff:", "CapPrm:", "CapInh:", "CapAmb:"))
    assert "NoNewPrivs:\t1" in status


RINGS = """
import signal
from tests.rings import Ring
one = Ring(8)
one.nops(24)
one.put(3)
two = Ring(8, poll=True, idle=60000)
print("ready", flush=True)
signal.pause()
"""


def test_rings_of_io_uring_are_counted_exactly(host: Files) -> None:
    """24 operations done of which 16 found room, 3 put and not submitted, a thread that polls."""
    try:
        from tests.rings import Ring

        Ring(1).close()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error.strerror}")
    host.procfs = "/proc"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", RINGS], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        owners = f'{{owner="{_owner(child.pid)}"}}'
        try:
            with RunningDaemon(
                host, "--tier", "processes", "--process.period", "1", "--engine", "threads"
            ) as daemon:
                daemon.until(lambda: value(daemon.metrics(), "io_uring_disabled") is not None)
                page = daemon.metrics()
        finally:
            child.kill()
    # Other processes of this cgroup may have rings as well; those of the daemon's are not among them.
    assert page[f"gpudaemon_io_uring_completions_overflowed{owners}"] == 8
    assert page[f"gpudaemon_io_uring_poll_threads{owners}"] == 1
    assert page[f"gpudaemon_io_uring_submissions_waiting{owners}"] >= 3
    assert page[f"gpudaemon_io_uring_completions_waiting{owners}"] >= 16
    if page[f"gpudaemon_io_uring_processes{owners}"] == 1:
        assert page[f"gpudaemon_io_uring_submissions_waiting{owners}"] == 3
        assert page[f"gpudaemon_io_uring_completions_waiting{owners}"] == 16
        assert page[f"gpudaemon_io_uring_rings{owners}"] == 2


def _owner(pid: int) -> str:
    from gpudaemon.parsers.cgroup import cgroup_owner

    return cgroup_owner(Path(f"/proc/{pid}/cgroup").read_bytes()).key


def test_the_kernel_tells_of_processes() -> None:
    try:
        events = ProcessEvents()
    except OSError as error:
        pytest.skip(f"no process events here: {error.strerror}")
    try:
        with subprocess.Popen(["sleep", "infinity"]) as child:
            began: set[int] = set()

            def has_begun() -> bool:
                nonlocal began
                began |= events.take()[0]
                return child.pid in began

            until(has_begun)
            child.kill()
        ended: set[int] = set()

        def has_ended() -> bool:
            ended.update(events.take()[1])
            return child.pid in ended

        until(has_ended)
    finally:
        events.close()
