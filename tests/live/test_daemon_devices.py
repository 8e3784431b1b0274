"""The whole daemon on a host whose devices hang, fail, lie, sleep, go and come back."""

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator

import pytest

from gpudaemon.mock import ControlError, HostProcess
from tests.live.daemon import Page, RunningDaemon, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

GPUS = [f"0000:{bus:02x}:00.0" for bus in range(0x03, 0x100, 0x20)]
TABLE = "sys/bus/pci/devices/{}/gpu_metrics"
USED = "sys/bus/pci/devices/{}/mem_info_vram_used"
FRESH = 3.0


@pytest.fixture(scope="module", params=["io_uring", "threads"])
def started(request: pytest.FixtureRequest) -> Iterator[tuple[HostProcess, RunningDaemon]]:
    if request.param == "io_uring":
        pytest.importorskip("liburing", reason="this half needs liburing")
    with HostProcess("mi300x8") as host:
        flags = ("--engine", request.param, "--read.deadline", "0.5")
        with RunningDaemon(host, *flags, uevents=f"socket:{host.uevents}") as daemon:
            yield host, daemon
            host.control.clear()


@pytest.fixture
def host(started: tuple[HostProcess, RunningDaemon]) -> Iterator[HostProcess]:
    host, daemon = started
    yield host
    host.control.clear()
    daemon.until(lambda: all(daemon.metrics().states(gpu) == ["ok"] for gpu in GPUS))


@pytest.fixture
def daemon(started: tuple[HostProcess, RunningDaemon]) -> RunningDaemon:
    return started[1]


def busy(page: Page, gpu: str) -> float | None:
    return page.get(f'gpudaemon_gpu_busy_ratio{{device="{gpu}",engine="gfx"}}')


def used(page: Page, gpu: str) -> float | None:
    return page.get(f'gpudaemon_gpu_memory_used_bytes{{device="{gpu}",pool="vram"}}')


def age(page: Page, gpu: str) -> float:
    return page[f'gpudaemon_device_data_age_seconds{{device="{gpu}"}}']


def count(page: Page, name: str, **labels: str) -> float:
    pairs = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(value for series, value in page.family(name).items() if all(pair in series for pair in pairs))


def test_every_device_says_everything(daemon: RunningDaemon) -> None:
    """After ready the page is whole: what a GPU shows does not grow with the seconds."""
    page = daemon.metrics()
    series = {re.sub(r"0000:..:..\..", "", name) for name in page.data(GPUS[0])}
    assert len(series) > 100
    for gpu in GPUS:
        assert page.states(gpu) == ["ok"]
        assert busy(page, gpu) is not None
        own = {re.sub(r"0000:..:..\..", "", name) for name in page.data(gpu)}
        # A GPU's _info names its nodes, serial number and hive.
        assert {name for name in own if "_info{" not in name} == {
            name for name in series if "_info{" not in name
        }
    assert set(daemon.devices()) >= set(GPUS)
    assert daemon.log.count("engine=") == 1


def test_one_hung_file_costs_its_device_and_no_other(host: HostProcess, daemon: RunningDaemon) -> None:
    hung = GPUS[3]
    before = daemon.metrics()
    host.control.fault(TABLE.format(hung), "hang")
    daemon.until(lambda: daemon.metrics().states(hung) == ["hung"])
    time.sleep(FRESH + 1)
    page = daemon.metrics()
    assert page.states(hung) == ["hung"]
    assert busy(page, hung) is None
    assert page[f'gpudaemon_daemon_stuck_read_age_seconds{{device="{hung}",attribute="gpu_metrics"}}'] > FRESH
    assert page["gpudaemon_daemon_stuck_lanes"] == 1
    assert count(page, "gpudaemon_daemon_hangs_total") == count(before, "gpudaemon_daemon_hangs_total") + 1
    for gpu in set(GPUS) - {hung}:
        assert page.states(gpu) == ["ok"]
        assert busy(page, gpu) is not None
        assert age(page, gpu) < 2.5
    assert len(host.control.stats()["waiting"]) == 1
    assert host.control.release(TABLE.format(hung)) == 1
    daemon.until(lambda: set(daemon.metrics().data(hung)) == set(before.data(hung)), 2.0)
    assert daemon.metrics().states(hung) == ["ok"]


def test_all_eight_hung_leave_the_server_answering(host: HostProcess, daemon: RunningDaemon) -> None:
    before = daemon.metrics()
    for gpu in GPUS:
        host.control.fault(TABLE.format(gpu), "hang")
    daemon.until(lambda: all(daemon.metrics().states(gpu) == ["hung"] for gpu in GPUS))
    assert daemon.metrics()["gpudaemon_daemon_reader_up"] == 1
    began = time.monotonic()
    for _ in range(10):
        page = daemon.metrics()
    assert time.monotonic() - began < 3
    assert count(page, "gpudaemon_daemon_reader_restarts_total") == 0
    # Bridges have lanes of their own.
    bridges = [id_ for id_, device in daemon.devices().items() if device["kind"] == "pci"]
    assert len(bridges) == 24
    assert all(page.states(bridge) == ["ok"] for bridge in bridges)
    assert len(host.control.stats()["waiting"]) == 8
    host.control.clear()
    series = {gpu: set(before.data(gpu)) for gpu in GPUS}
    daemon.until(lambda: {gpu: set(daemon.metrics().data(gpu)) for gpu in GPUS} == series, 3.0)


FAULTS = {
    "errno": ("read_errno", {"errno": errno.EIO}, "transient"),
    "denied": ("open_errno", {"errno": errno.EACCES}, ""),
    "unsupported": ("read_errno", {"errno": errno.EOPNOTSUPP}, "unsupported"),
    "vanish": ("vanish", {}, ""),
    "garbage": ("content", {"content": b"\xff\x00not a number\n"}, "malformed"),
    "empty": ("content", {"content": b""}, "malformed"),
    "oversized": ("content", {"content": b"1" * 5000}, "malformed"),
    "negative": ("content", {"content": b"-17\n"}, "malformed"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_file_that_fails_costs_its_own_sample_only(
    kind: str, host: HostProcess, daemon: RunningDaemon
) -> None:
    fault, arguments, outcome = FAULTS[kind]
    # A device of its own for each: a file that vanished is asked for again 5 s after its device came, or later.
    gpu = GPUS[list(FAULTS).index(kind)]
    other = GPUS[(list(FAULTS).index(kind) + 1) % len(GPUS)]
    before = daemon.metrics()
    assert used(before, gpu) is not None
    host.control.fault(USED.format(gpu), fault, **arguments)
    if fault == "open_errno":
        # Files that are read each second stay open; a denied open shows when the daemon opens them anew.
        host.control.suspend(gpu)
        daemon.until(lambda: daemon.metrics().states(gpu) == ["suspended"])
        host.control.resume(gpu)
        time.sleep(1.5)
    else:
        daemon.until(lambda: used(daemon.metrics(), gpu) is None)
    page = daemon.metrics()
    assert page.states(gpu) == ["ok"]
    lost = set(before.data(gpu)) - set(page.data(gpu))
    if fault != "open_errno":
        assert lost == {f'gpudaemon_gpu_memory_used_bytes{{device="{gpu}",pool="vram"}}'}
    if outcome:
        labels = {"device": gpu, "outcome": outcome}
        name = "gpudaemon_daemon_reads_total"
        assert count(page, name, **labels) > count(before, name, **labels)
    # The others did not notice.
    assert set(page.data(other)) == set(before.data(other))
    host.control.clear()
    # Errors that pass are asked again within seconds, missing files 5 s after the device was added or later.
    if kind in ("garbage", "empty", "oversized", "negative", "errno"):
        daemon.until(lambda: used(daemon.metrics(), gpu) is not None, 10)


def test_a_malformed_file_is_logged_once(host: HostProcess, daemon: RunningDaemon) -> None:
    path = f"sys/bus/pci/devices/{GPUS[4]}/mem_info_gtt_used"
    host.control.fault(path, "content", content=b"nonsense of a driver\n")
    daemon.until(lambda: count(daemon.metrics(), "gpudaemon_daemon_malformed_total", device=GPUS[4]) >= 2)
    assert daemon.log.count("nonsense of a driver") == 1


def test_a_removed_device_leaves_and_comes_back(host: HostProcess, daemon: RunningDaemon) -> None:
    gpu = GPUS[5]
    before = daemon.metrics()
    info = set(before.family("gpudaemon_gpu_info").of_device(gpu))
    assert len(info) == 1
    assert host.control.remove(gpu) > 0
    daemon.until(lambda: not daemon.metrics().states(gpu), 1.0)
    page = daemon.metrics()
    assert page[f'gpudaemon_device_missing{{device="{gpu}"}}'] == 1
    pci = set(before.family("gpudaemon_pci_info").of_device(gpu))
    missing = f'gpudaemon_device_missing{{device="{gpu}"}}'
    health = set(page.family("gpudaemon_device_health").of_device(gpu))
    assert page[f'gpudaemon_device_health{{device="{gpu}",state="failed"}}'] == 1
    trouble = {name for name in page.of_device(gpu) if name.startswith("gpudaemon_trouble_")}
    assert {re.findall('kind="(\\w+)"', name)[0] for name in trouble} <= {"unbound", "missing"}
    assert set(page.of_device(gpu)) == {missing, *info, *pci, *health, *trouble}
    assert all(page.states(other) == ["ok"] for other in set(GPUS) - {gpu})
    assert host.control.restore(gpu) > 0
    daemon.until(lambda: set(daemon.metrics().data(gpu)) == set(before.data(gpu)), 2.0)
    page = daemon.metrics()
    assert missing not in page
    assert page.states(gpu) == ["ok"]
    assert count(page, "gpudaemon_daemon_uevents_total", subsystem="drm") >= 4


def test_a_sleeping_device_is_not_woken(host: HostProcess, daemon: RunningDaemon) -> None:
    gpu = GPUS[6]
    before = daemon.metrics()
    host.control.suspend(gpu)
    woken = host.control.stats()["devices"][gpu]["suspended_accesses"]
    daemon.until(lambda: daemon.metrics().states(gpu) == ["suspended"])
    accesses = host.control.stats()["devices"][gpu]["accesses"]
    time.sleep(2.5)
    page = daemon.metrics()
    assert page.states(gpu) == ["suspended"]
    assert page[f'gpudaemon_device_runtime_power_state{{device="{gpu}",state="suspended"}}'] == 1
    assert busy(page, gpu) is None
    assert page[f'gpudaemon_device_left_suspended_seconds_total{{device="{gpu}"}}'] > 1
    stats = host.control.stats()["devices"][gpu]
    assert (stats["suspended_accesses"], stats["accesses"]) == (woken, accesses)
    host.control.resume(gpu)
    # Everything, also what is read once in ten minutes only.
    daemon.until(lambda: set(daemon.metrics().data(gpu)) == set(before.data(gpu)), 4.0)
    assert daemon.metrics().states(gpu) == ["ok"]


def test_forbidden_files_are_never_touched(host: HostProcess) -> None:
    for name in ("*/xgmi_error", "*/pcie_bw", "*/rom"):
        with contextlib.suppress(ControlError):  # not every host has all of them
            assert host.control.accesses(name) == {}
    assert host.control.accesses("*/xgmi_error") == {}
    assert host.control.accesses(TABLE.format(GPUS[0])) != {}


def test_a_device_suspended_from_the_start_is_known_and_not_woken() -> None:
    with HostProcess("mi300x8", gpus=2) as host:
        host.control.suspend(GPUS[0])
        with RunningDaemon(host) as daemon:
            page = daemon.metrics()
            assert page.states(GPUS[0]) == ["suspended"]
            assert page.states(GPUS[1]) == ["ok"]
            time.sleep(1.2)
        stats = host.control.stats()["devices"][GPUS[0]]
        assert (stats["accesses"], stats["suspended_accesses"]) == (0, 0)
        assert stats["runtime_status"] == "suspended"


def test_an_idle_device_falls_asleep_under_observation() -> None:
    """A GPU sleeps after 4 s without access; a daemon that reads each second would keep it awake."""
    with HostProcess("rx7900xtx") as host:
        gpu = "0000:03:00.0"
        host.control.autosuspend(gpu, 4000)
        with RunningDaemon(host) as daemon:
            daemon.until(lambda: daemon.metrics().states(gpu) == ["ok"], 4)
            host.control.workload(gpu, "idle")
            daemon.until(lambda: daemon.metrics().states(gpu) == ["resting"], 10)
            daemon.until(lambda: daemon.metrics().states(gpu) == ["suspended"], 10)
            until(lambda: host.control.stats()["devices"][gpu]["runtime_status"] == "suspended", 1)
            time.sleep(2)
            stats = host.control.stats()["devices"][gpu]
            assert stats["accesses"] > 0 and stats["suspended_accesses"] == 0
