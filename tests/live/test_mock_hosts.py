"""The daemon on a laptop whose discrete GPU sleeps, and on a server that has no GPU at all."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess, profiles, write
from tests.live.daemon import Page, RunningDaemon

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

DISCRETE = "0000:03:00.0"
ASLEEP = ("0000:00:01.1", "0000:01:00.0", "0000:02:00.0", DISCRETE)
APU = "0000:c4:00.0"
READY = 15.0  # seconds; about 1 on an idle machine


@pytest.fixture(scope="module", params=["io_uring", "threads"])
def laptop(request: pytest.FixtureRequest) -> Iterator[tuple[HostProcess, RunningDaemon]]:
    with HostProcess("laptop") as host, RunningDaemon(host, "--engine", request.param, wait=READY) as daemon:
        yield host, daemon


def test_nothing_of_the_sleeping_gpu_is_touched(laptop: tuple[HostProcess, RunningDaemon]) -> None:
    host, daemon = laptop
    reads = host.control.stats()["reads"]
    deadline = time.monotonic() + 6  # the rescan 5 s after the start is in it
    while time.monotonic() < deadline:
        assert daemon.metrics().states(DISCRETE) == ["suspended"]
        time.sleep(0.5)
    stats = host.control.stats()
    assert stats["reads"] > reads + 50  # the rest of the laptop is being read
    for address in ASLEEP:
        seen = stats["devices"][address]
        assert (seen["accesses"], seen["runtime_status"]) == (0, "suspended"), address
    opened = host.control.accesses(f"sys/bus/pci/devices/{DISCRETE}/*")
    assert {path.rsplit("/", 1)[1] for path in opened} <= {
        *("runtime_status", "runtime_active_time", "runtime_suspended_time", "control", "power_state"),
        *("vendor", "device", "subsystem_vendor", "subsystem_device", "revision", "numa_node", "class"),
        *("local_cpulist", "name", "uevent"),
        *("aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal"),
    }


def test_the_page_has_the_apu_and_says_that_the_other_one_sleeps(
    laptop: tuple[HostProcess, RunningDaemon],
) -> None:
    _, daemon = laptop
    page = daemon.metrics()
    assert page.states(APU) == ["ok"]
    vram = page[f'gpudaemon_gpu_memory_total_bytes{{device="{APU}",pool="vram"}}']
    assert vram == 2**32
    power = page.family("gpudaemon_gpu_power_watts").of_device(APU)
    assert power
    assert all(4 <= watts <= 45 for watts in power.values())
    assert not page.family("gpudaemon_gpu_power_watts").of_device(DISCRETE)
    assert not page.family("gpudaemon_gpu_busy_ratio").of_device(DISCRETE)
    assert not [series for series in page.of_device(APU) if "_fan_" in series or "_cap" in series]
    assert page.family("gpudaemon_hwmon_voltage_volts").of_device("BAT1")


def test_what_slept_at_the_start_is_read_when_it_wakes(laptop: tuple[HostProcess, RunningDaemon]) -> None:
    host, daemon = laptop
    seconds = f'gpudaemon_device_left_suspended_seconds_total{{device="{DISCRETE}"}}'
    assert daemon.metrics()[seconds] > 1
    host.control.resume(DISCRETE)
    daemon.until(lambda: daemon.metrics().states(DISCRETE) == ["ok"], 5)
    daemon.until(lambda: bool(daemon.metrics().family("gpudaemon_gpu_power_watts").of_device(DISCRETE)), 5)


def sane_without_gpus(page: Page) -> None:
    assert not [series for series in page if series.startswith("gpudaemon_gpu_")]
    assert not page.family("gpudaemon_device_missing")
    for device in ("coretemp.0", "coretemp.1", "0000:17:00.0"):
        assert page.states(device) == ["ok"]
    temperatures = page.family("gpudaemon_hwmon_temperature_celsius")
    assert len(temperatures) == 2 * 17 + 2
    assert all(30 <= celsius <= 80 for celsius in temperatures.values())


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_host_without_gpus(engine: str) -> None:
    with HostProcess("empty") as host, RunningDaemon(host, "--engine", engine, wait=READY) as daemon:
        sane_without_gpus(daemon.metrics())
        assert "error" not in daemon.log.lower(), daemon.log


def test_a_drm_class_without_cards(tmp_path: Path) -> None:
    """The drm module is loaded and no card is there."""
    tree = profiles()["empty"].tree()
    tree.file("sys/class/drm/version", b"drm 1.1.0 20060810\n")
    write(tree, os.fspath(tmp_path))
    with RunningDaemon(sysfs=f"{tmp_path}/sys", procfs=f"{tmp_path}/proc", wait=READY) as daemon:
        sane_without_gpus(daemon.metrics())


def test_nothing_at_all(tmp_path: Path) -> None:
    """A container whose /sys is empty: ready, and a page about the daemon itself."""
    for name in ("sys", "proc"):
        (tmp_path / name).mkdir()
    with RunningDaemon(sysfs=f"{tmp_path}/sys", procfs=f"{tmp_path}/proc", wait=READY) as daemon:
        page = daemon.metrics()
        assert page["gpudaemon_daemon_reader_up"] == 1
        own = ("gpudaemon_daemon_", "gpudaemon_build_info{", "process_", "python_")
        assert not [series for series in page if not series.startswith(own)]
