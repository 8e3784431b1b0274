"""A GPU that sleeps when the daemon starts sleeps on, also one whose directory holds files of its hive."""

import time

import pytest

from gpudaemon.mock import HostProcess, available
from tests.live.daemon import RunningDaemon

pytestmark = [pytest.mark.live, pytest.mark.skipif(not available(), reason="FUSE cannot be used here")]


def test_no_gpu_of_a_hive_is_woken_by_a_start() -> None:
    with HostProcess("mi300x8", 3) as host:
        devices = sorted(device for device, one in host.control.stats()["devices"].items() if one["workload"])
        host.control.suspend(devices[0])
        with RunningDaemon(host) as daemon:
            time.sleep(3.0)
            stats = host.control.stats()["devices"]
            assert (stats[devices[0]]["runtime_status"], stats[devices[0]]["suspended_accesses"]) == (
                "suspended",
                0,
            )
            assert daemon.metrics().states(devices[0]) == ["suspended"]
            assert stats[devices[1]]["accesses"] > 10
