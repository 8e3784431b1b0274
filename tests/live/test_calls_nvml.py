"""Calls as an operator meets them: a library that hangs, freezes or crashes costs its own data and no other."""

import os
import re
import signal
import time

import pytest

from gpudaemon.model.call import KINDS
from tests.live.daemon import Page, RunningDaemon, children, is_running
from tests.live.nvidia_host import NvidiaHost

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
pytestmark = pytest.mark.live
assert "nvml" in KINDS

QUICK = ("--call.deadline", "0.5", "--period.normal", "0.2", "--period.slow", "1")


def watts(page: Page, address: str) -> float | None:
    return page.get(f'gpudaemon_gpu_power_watts{{device="{address}",sensor="gpu"}}')


def restarts(page: Page) -> dict[str, float]:
    return {
        re.findall(r'reason="(\w+)"', series)[0]: count
        for series, count in page.family("gpudaemon_daemon_call_restarts_total").items()
    }


def caller(daemon: RunningDaemon) -> int:
    """Process id of the newest process of calls, 0 while there is none."""
    for pid in reversed(children(daemon.launcher)):
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            if b"gpudaemon.calls.process" in stream.read().split(b"\0") and is_running(pid):
                return pid
    return 0


def test_what_the_library_says_is_on_the_page_beside_what_files_say() -> None:
    values = {1: {"fans": [40], "utilization": None, "power": 99000, "fields": {}}}
    with NvidiaHost(2, values) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        first, second = host.addresses
        page = daemon.metrics()
        assert watts(page, first) == 312.0
        assert watts(page, second) == 99.0  # no field values: what the older function says
        assert page[f'gpudaemon_gpu_busy_ratio{{device="{first}",engine="gfx"}}'] == 0.37
        assert f'gpudaemon_gpu_busy_ratio{{device="{second}",engine="gfx"}}' not in page  # absent is not zero
        assert page[f'gpudaemon_gpu_pwm_ratio{{device="{second}",sensor="fan0"}}'] == 0.4
        assert (
            page[f'gpudaemon_gpu_energy_joules_total{{device="{first}",sensor="gpu",source="hardware"}}']
            == 4321
        )
        assert page[f'gpudaemon_pcie_link_width{{device="{first}"}}'] == 16.0
        assert page[f'gpudaemon_daemon_calls_total{{device="{second}",call="nvml",outcome="unsupported"}}'] >= 1
        assert page.states(first) == page.states(second) == ["ok"]
        info = next(iter(page.family("gpudaemon_gpu_info").of_device(second)))
        assert 'product_name="NVIDIA H100 80GB HBM3"' in info
        assert 'unique_id="GPU-00000000-0000-0000-0000-000000000001"' in info
        assert 'vbios_version=""' in info
        driver = f'{{device="{first}",version="570.86.15",firmware="570.86.15"}}'
        assert page[f"gpudaemon_gpu_driver_info{driver}"] == 1
        assert page['gpudaemon_daemon_call_up{call="nvml"}'] == 1
        assert restarts(page) == {}


def test_a_call_that_hangs_costs_one_gpu_its_data_until_it_comes_back() -> None:
    with NvidiaHost(2) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        first, second = host.addresses
        before, reader = caller(daemon), daemon.reader
        host.fault({"gpu": first, "function": "nvmlDeviceGetPowerUsage", "do": "hang"},
                   {"gpu": first, "function": "nvmlDeviceGetFieldValues", "do": "hang"})  # fmt: skip
        daemon.until(lambda: daemon.metrics().states(first) == ["hung"], 5)
        page = daemon.metrics()
        assert page[f'gpudaemon_daemon_call_hangs_total{{device="{first}",call="nvml"}}'] == 1
        assert page.family("gpudaemon_daemon_stuck_read_age_seconds").of_device(first)
        daemon.until(lambda: watts(daemon.metrics(), first) is None, 5)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            page = daemon.metrics()
            assert watts(page, second) == 312.0, "the other GPU's calls go on"
            assert page[f'gpudaemon_pcie_link_width{{device="{first}"}}'] == 16.0, "and this one's files"
            time.sleep(0.1)
        assert page.states(second) == ["ok"]
        # Another process takes over, and is hung again: longer and longer it is left alone.
        daemon.until(lambda: restarts(daemon.metrics()).get("hung", 0) >= 1, 15)
        daemon.until(lambda: not is_running(before), 5)
        host.fault()
        daemon.until(lambda: watts(daemon.metrics(), first) == 312.0, 15)
        assert daemon.metrics().states(first) == ["ok"]
        assert daemon.reader == reader


def test_a_library_that_keeps_the_interpreter_is_given_up_as_silent() -> None:
    with NvidiaHost(1) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        host.fault({"function": "nvmlDeviceGetUtilizationRates", "do": "freeze"})
        daemon.until(lambda: restarts(daemon.metrics()).get("silent", 0) >= 1, 20)
        host.fault()
        daemon.until(lambda: watts(daemon.metrics(), host.addresses[0]) == 312.0, 15)


def test_a_crash_is_counted_and_only_the_gpu_in_question_is_left_alone() -> None:
    with NvidiaHost(3) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        bad, *others = host.addresses
        server, reader = daemon.pid, daemon.reader
        host.fault({"gpu": bad, "function": "nvmlDeviceGetClockInfo", "do": "crash"})
        daemon.until(lambda: restarts(daemon.metrics()).get("died", 0) >= 2, 20)
        # It is asked for again after 1, 5, 30 s; between those the others have all their data.
        daemon.until(lambda: all(watts(daemon.metrics(), other) == 312.0 for other in others), 10)
        assert all(daemon.metrics().states(other) == ["ok"] for other in others)
        host.fault()
        daemon.until(lambda: watts(daemon.metrics(), bad) == 312.0, 20)
        assert (daemon.pid, daemon.reader) == (server, reader)


def test_a_process_of_calls_that_is_killed_is_replaced() -> None:
    with NvidiaHost(1) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        before = caller(daemon)
        os.kill(before, signal.SIGKILL)
        daemon.until(lambda: restarts(daemon.metrics()) == {"died": 1}, 10)
        daemon.until(lambda: caller(daemon) not in (0, before), 10)
        daemon.until(lambda: daemon.metrics().states(host.addresses[0]) == ["ok"], 10)


def test_a_lost_gpu_is_gone_and_one_without_rights_denied() -> None:
    with NvidiaHost(2) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        lost, denied = host.addresses
        host.fault({"gpu": lost, "function": "", "error": 15}, {"gpu": denied, "function": "", "error": 4})
        state = 'gpudaemon_daemon_call_state{{device="{}",call="nvml",state="gone"}}'
        daemon.until(lambda: daemon.metrics()[state.format(lost)] == 1, 10)
        page = daemon.metrics()
        assert page.states(lost) == ["gone"]
        count = f'gpudaemon_daemon_calls_total{{device="{denied}",call="nvml",outcome="denied"}}'
        daemon.until(lambda: daemon.metrics().get(count, 0) > 0, 10)
        assert watts(page, lost) is None
        host.fault()
        daemon.until(lambda: watts(daemon.metrics(), lost) == 312.0, 15)


def test_a_sleeping_gpu_is_not_called_and_nothing_of_it_is_held() -> None:
    with NvidiaHost(2) as host:
        host.power_state(0, "suspended")
        with RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
            asleep, awake = host.addresses
            daemon.until(lambda: watts(daemon.metrics(), awake) == 312.0, 10)
            time.sleep(2)
            assert not [line for line in host.calls() if asleep in line]
            assert daemon.metrics().states(asleep) == ["suspended"]
            host.power_state(0, "active")
            daemon.until(lambda: watts(daemon.metrics(), asleep) == 312.0, 10)
            ended = host.calls().count("nvmlShutdown ")
            host.power_state(0, "suspended")
            daemon.until(lambda: host.calls().count("nvmlShutdown ") > ended, 10)
            known = len([line for line in host.calls() if asleep in line])
            time.sleep(1.5)
            assert len([line for line in host.calls() if asleep in line]) == known
            assert watts(daemon.metrics(), awake) == 312.0


def test_what_is_not_wanted_is_not_called() -> None:
    wanted = ("--metric.include", "gpudaemon_gpu_(power|temperature)_(watts|celsius)")
    with NvidiaHost(1) as host, RunningDaemon(host, *QUICK, *wanted, environment=host.environment) as daemon:
        daemon.until(lambda: watts(daemon.metrics(), host.addresses[0]) == 312.0, 10)
        time.sleep(1.5)
        functions = {line.split()[0] for line in host.calls()}
        assert "nvmlDeviceGetUtilizationRates" not in functions
        assert "nvmlDeviceGetNvLinkState" not in functions
        assert functions <= {
            "nvmlInitWithFlags", "nvmlDeviceGetHandleByPciBusId", "nvmlDeviceGetFieldValues",
            "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature",
            "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementDefaultLimit",
            "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetTemperatureThreshold",
        }  # fmt: skip


def test_mig_devices_are_slices_of_their_gpu() -> None:
    slices = [
        {"instance": i, "compute": 0, "uuid": f"MIG-{i}", "name": "NVIDIA H100 MIG 1g.10gb",
         "memory": [10 << 30, i << 30, 0], "multiprocessors": 16}
        for i in (1, 2)
    ]  # fmt: skip
    host = NvidiaHost(1, {0: {"mig": slices}})
    with host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        (gpu,) = host.addresses
        page = daemon.metrics()
        assert page['gpudaemon_daemon_devices{kind="gpu"}'] == 1
        labels = f'device="{gpu}",gpu_instance="2",compute_instance="0"'
        assert page[f"gpudaemon_gpu_mig_memory_used_bytes{{{labels}}}"] == 2 << 30
        name = f'{{{labels},uuid="MIG-2",name="NVIDIA H100 MIG 1g.10gb"}}'
        assert page[f"gpudaemon_gpu_mig_info{name}"] == 1


def test_without_the_library_there_is_what_files_say(tmp_path: object) -> None:
    with NvidiaHost(1) as host, RunningDaemon(host, "--no-call.nvml", environment=host.environment) as daemon:
        page = daemon.metrics()
        assert page.states(host.addresses[0]) == ["ok"]
        assert watts(page, host.addresses[0]) is None
        assert not page.family("gpudaemon_daemon_call_up")
        assert host.calls() == []
