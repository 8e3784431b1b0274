"""All eight GPUs hang and are released: pages throughout, all data within two seconds, nothing restarted."""

import re
import time
from pathlib import Path

import pytest

from gpudaemon.mock import HostProcess, available
from tests.chaos.probed import Pace, beside
from tests.live.daemon import Page, RunningDaemon

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not available(), reason="FUSE cannot be used here"),
]

HANG = 6.0
AGAIN = 2.0
_GPU = re.compile(r'device="([^"]+)"')


def gpus(page: Page) -> list[str]:
    return sorted(_GPU.findall(" ".join(page.family("gpudaemon_gpu_info"))))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_all_eight_hang_and_are_released(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = str(tmp_path / "machine")
    with (
        beside(machine),
        HostProcess("mi300x8", 8, timeout=60.0) as host,
        RunningDaemon(host, "--engine", engine, wait=90.0) as daemon,
    ):
        time.sleep(3.0)
        before = daemon.metrics()
        devices = gpus(before)
        assert len(devices) == 8
        processes = (daemon.pid, daemon.launcher, daemon.reader)
        for device in devices:
            host.control.fault(f"sys/bus/pci/devices/{device}/*", "hang")
        waits = []
        end = time.monotonic() + HANG
        while time.monotonic() < end:
            began = time.monotonic()
            page = daemon.metrics()
            waits.append(time.monotonic() - began)
            time.sleep(0.2)
        assert all(page.states(device) == ["hung"] for device in devices)
        assert not any(page.data(device).family("gpudaemon_gpu_busy_ratio") for device in devices)
        pace = Pace(machine)
        assert max(waits) < 1.0 + pace.slack(end - HANG, time.monotonic())
        host.control.clear()
        released = time.monotonic()
        took = daemon.until(
            lambda: all(
                before.data(device).keys() <= daemon.metrics().data(device).keys()
                and daemon.metrics().states(device) == ["ok"]
                for device in devices
            ),
            60.0,
        )
        slack = pace.slack(released, time.monotonic())
        after = daemon.metrics()
        assert processes == (daemon.pid, daemon.launcher, daemon.reader)
        assert after.family("gpudaemon_daemon_reader_restarts_total") == before.family(
            "gpudaemon_daemon_reader_restarts_total"
        )
    with capsys.disabled():
        print(f"\n{engine}: {len(waits)} pages, slowest {1e3 * max(waits):.0f} ms;", end=" ")
        print(f"all data {took:.2f} s after release (machine: up to {slack:.2f} s of it)")
    assert took < AGAIN + slack
