"""Runtime power management of the mock, without a clock: who counts as an access, and when a device sleeps."""

import errno

import pytest

from gpudaemon.mock.power import RuntimePower
from gpudaemon.model.from_memory import reaches_device


@pytest.mark.parametrize(
    "path",
    [
        *("gpu_busy_percent", "mem_info_vram_used", "current_link_speed", "hwmon/hwmon3/temp1_input"),
        *("hwmon/hwmon3/power1_cap", "ras/umc_err_count", "drm/card0/gt/gt0/rps_act_freq_mhz", "gpu_metrics"),
        "drm/card0/card0-DP-1/status",
    ],
)
def test_reading_it_reaches_the_device(path: str) -> None:
    assert reaches_device(path)


@pytest.mark.parametrize(
    "path",
    [
        *("power/runtime_status", "power/control", "uevent", "class", "vendor", "numa_node", "local_cpulist"),
        *("enable", "power_state", "aer_dev_fatal", "resource", "hwmon/hwmon3/name", "drm/card0/dev"),
        *("drm/card0/uevent", "drm/card0/power/runtime_status"),
    ],
)
def test_the_core_prints_it_from_memory(path: str) -> None:
    assert not reaches_device(path)


def test_it_falls_asleep_after_the_delay_and_an_access_wakes_it() -> None:
    power = RuntimePower(delay=5000)
    power.touch(1.0)
    assert power.read("power/runtime_status", 5.9) == b"active\n"
    assert power.read("power/runtime_status", 6.0) == b"suspended\n"
    assert power.read("power_state", 6.0) == b"D3cold\n"
    assert power.read("power/runtime_status", 20.0) == b"suspended\n"  # looking does not wake it
    assert (power.accesses, power.suspended_accesses) == (1, 0)
    power.touch(26.0)
    assert power.read("power/runtime_status", 26.0) == b"active\n"
    assert (power.accesses, power.suspended_accesses, power.last_access) == (2, 1, 26.0)
    # 60 s before the host started, 6 s until asleep, then 20 s of sleep, then 1 s
    assert power.read("power/runtime_active_time", 27.0) == b"67000\n"
    assert power.read("power/runtime_suspended_time", 27.0) == b"20000\n"


def test_each_access_starts_the_delay_again() -> None:
    power = RuntimePower(delay=1000)
    for tenth in range(50):
        power.touch(tenth / 10)
    assert power.suspended_accesses == 0
    assert power.read("power/runtime_status", 5.8) == b"active\n"
    assert power.read("power/runtime_status", 5.95) == b"suspended\n"


def test_without_autosuspend_it_stays_awake() -> None:
    power = RuntimePower(delay=None)
    assert power.read("power/runtime_status", 1e6) == b"active\n"
    assert power.read("power/control", 0) == b"on\n"
    with pytest.raises(OSError, match="autosuspend") as raised:
        power.read("power/autosuspend_delay_ms", 0)
    assert raised.value.errno == errno.EIO


def test_told_to_sleep_and_to_wake() -> None:
    power = RuntimePower(delay=None)
    power.suspend(3.0)
    assert power.read("power/runtime_status", 100.0) == b"suspended\n"
    power.resume(100.0)
    assert power.read("power/runtime_status", 200.0) == b"active\n"
    assert power.suspended_accesses == 0
    power.autosuspend(200.0, 100)
    assert power.read("power/control", 200.0) == b"auto\n"
    assert power.read("power/autosuspend_delay_ms", 200.05) == b"100\n"
    assert power.read("power/runtime_status", 200.2) == b"suspended\n"
    power.autosuspend(201.0, None)
    assert power.read("power/runtime_status", 300.0) == b"active\n"


def test_other_files_are_not_its_business() -> None:
    assert RuntimePower(delay=None).read("gpu_busy_percent", 0) is None


def test_a_bridge_sleeps_after_the_last_device_below_it() -> None:
    first, second = RuntimePower(delay=1000, active=False), RuntimePower(delay=3000, active=False)
    bridge = RuntimePower(delay=100, active=False, below=[first, second])
    root = RuntimePower(delay=100, active=False, below=[bridge])
    assert root.read("power/runtime_status", 5.0) == b"suspended\n"
    first.touch(10.0)
    assert root.read("power/runtime_status", 10.5) == b"active\n"
    second.touch(10.6)
    assert (bridge.read("power/runtime_status", 13.6), second.active) == (b"active\n", False)
    assert root.read("power/runtime_status", 13.75) == b"active\n"  # the bridge below it fell asleep at 13.7
    assert bridge.read("power_state", 13.75) == b"D3cold\n"
    assert root.read("power/runtime_status", 13.85) == b"suspended\n"
    assert not (bridge.accesses or root.accesses)
    # Read late, the times are the same: asleep until 10.0, awake to 13.8, then asleep again.
    assert root.read("power/runtime_suspended_time", 20.0) in (b"16200\n", b"16199\n")


def test_a_bridge_that_is_read_wakes_alone() -> None:
    device = RuntimePower(delay=1000, active=False)
    bridge = RuntimePower(delay=100, active=False, below=[device])
    bridge.touch(2.0)
    assert (bridge.suspended_accesses, device.suspended_accesses) == (1, 0)
    assert bridge.read("power/runtime_status", 2.05) == b"active\n"
    assert device.read("power/runtime_status", 2.05) == b"suspended\n"
    assert bridge.read("power/runtime_status", 2.15) == b"suspended\n"
