"""Verdicts of a whole daemon, and of `gpudaemon health` beside it and without it: GPUs hang and vanish."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpudaemon.discovery.expected import Known
from gpudaemon.discovery.inventory_file import InventoryFile, machine
from gpudaemon.mock import HostProcess
from tests.live.daemon import Page, RunningDaemon, is_running

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST, SECOND, THIRD = (f"0000:{bus}:00.0" for bus in ("03", "23", "43"))
BUSY = "sys/bus/pci/devices/{}/gpu_metrics"


@dataclass
class Bench:
    """A host of three GPUs with directories of its own; daemons come and go."""

    host: HostProcess
    runtime: str
    state: str
    flags: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.flags = ("--path.state", self.state, "--read.deadline", "0.5")

    def daemon(self) -> RunningDaemon:
        return RunningDaemon(
            self.host, *self.flags, runtime=self.runtime, uevents=f"socket:{self.host.uevents}"
        )

    def command(self, *words: str) -> tuple[int, str]:
        """Exit status and standard output of a `gpudaemon` command on this host."""
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "gpudaemon.cli", *words, *self.flags),
                *("--path.sysfs", self.host.sysfs, "--path.procfs", self.host.procfs),
                *("--path.runtime", self.runtime, "--uevent.source", "none"),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout

    def health(self, *words: str) -> tuple[int, list[str]]:
        """Exit status and lines of `gpudaemon health`."""
        status, text = self.command("health", *words)
        lines = text.splitlines()
        assert len(lines[0]) <= 80
        return status, lines

    def learn(self, *devices: str) -> None:
        """What a former run would have left behind."""
        file = InventoryFile(self.state, machine(), sysfs=self.host.sysfs)
        labels = {"product_name": "MI300X", "vendor_id": "0x1002", "device_id": "0x74a1"}
        known = [
            Known(
                id=id_,
                driver="amdgpu",
                path=f"devices/pci0000:e0/{id_}",
                info=labels | {"device": id_, "serial_number": f"serial of {id_}"},
                first_seen=1.0,
                last_seen=2.0,
                learnt=True,
            )
            for id_ in devices
        ]
        assert file.store(file.render(known))

    def learnt(self) -> set[str]:
        return {known.id for known in InventoryFile(self.state, machine(), sysfs=self.host.sysfs).load()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with HostProcess("mi300x8", gpus=3) as host:
        yield Bench(host, str(tmp_path / "run"), str(tmp_path / "state"))
        host.control.clear()


def verdict(page: Page, device: str) -> str:
    """The one state of `gpudaemon_device_health` that is 1; empty where the device has none."""
    found = [
        series.rsplit('state="', 1)[1].split('"')[0]
        for series, value in page.family("gpudaemon_device_health").of_device(device).items()
        if value == 1
    ]
    assert len(found) <= 1
    return found[0] if found else ""


def is_missed(page: Page, device: str) -> bool:
    return page.get(f'gpudaemon_device_missing{{device="{device}"}}') == 1


def test_a_host_that_is_well(bench: Bench) -> None:
    with bench.daemon() as daemon:
        page = daemon.metrics()
        assert {verdict(page, device) for device in (FIRST, SECOND, THIRD)} == {"ok"}
        assert bench.health() == (0, ["OK 3 GPUs"])
        assert bench.health("--device", "card1") == (0, ["OK 1 GPU"])
        assert bench.health("--expect", "3")[0] == 0
        status, lines = bench.health("--expect", "4")
        assert (status, lines[0]) == (1, "FAILED too_few: 3 of 4 GPUs are here")
        status, text = bench.command("health", "--json")
        found = json.loads(text)
        assert (status, found["verdict"]) == (0, "ok")
        assert [device["device"] for device in found["devices"]] == [FIRST, SECOND, THIRD]


def test_a_gpu_that_fell_off_before_the_daemon_started(bench: Bench) -> None:
    bench.learn(FIRST, SECOND, THIRD)
    bench.host.control.remove(SECOND)
    for _ in range(2):  # across restarts too
        with bench.daemon() as daemon:
            daemon.until(lambda: is_missed(daemon.metrics(), SECOND))
            page = daemon.metrics()
            assert not is_missed(page, FIRST) and not is_missed(page, THIRD)
            assert (verdict(page, SECOND), verdict(page, FIRST)) == ("failed", "ok")
            info = [series for series in page.family("gpudaemon_gpu_info") if SECOND in series]
            assert len(info) == 1 and f'serial_number="serial of {SECOND}"' in info[0]
            status, lines = bench.health()
            assert status == 1
            assert lines[0].startswith(f"FAILED {SECOND} missing: not here, serial")
            assert bench.health("--device", FIRST)[0] == 0
            assert bench.health("--device", "23:00.0")[0] == 1
    status, lines = bench.health()  # and without a daemon
    assert status == 1 and lines[0].startswith(f"FAILED {SECOND} missing")


def test_it_returns(bench: Bench) -> None:
    bench.learn(FIRST, SECOND, THIRD)
    bench.host.control.remove(SECOND)
    with bench.daemon() as daemon:
        daemon.until(lambda: is_missed(daemon.metrics(), SECOND))
        bench.host.control.restore(SECOND)
        daemon.until(lambda: verdict(daemon.metrics(), SECOND) == "ok")
        assert not is_missed(daemon.metrics(), SECOND)
        assert bench.health()[0] == 0


@pytest.mark.parametrize("running", [True, False], ids=["beside a daemon", "without one"])
def test_a_card_that_was_taken_out_is_forgotten_for_good(bench: Bench, running: bool) -> None:
    bench.learn(FIRST, SECOND, THIRD)
    bench.host.control.remove(SECOND)
    if running:
        with bench.daemon() as daemon:
            daemon.until(lambda: is_missed(daemon.metrics(), SECOND))
            assert bench.command("forget", "23:00.0")[0] == 0
            assert not is_missed(daemon.metrics(), SECOND)
            assert bench.health() == (0, ["OK 2 GPUs"])
            daemon.until(lambda: bench.learnt() == {FIRST, THIRD})
    else:
        assert bench.command("forget", SECOND)[0] == 0
    assert bench.learnt() == {FIRST, THIRD}
    with bench.daemon() as daemon:
        assert not is_missed(daemon.metrics(), SECOND)
        assert bench.command("forget", "0000:ff:00.0")[0] != 0


def test_configured_gpus_are_expected_from_the_start(bench: Bench) -> None:
    bench.flags += ("--inventory.expect", FIRST, "--inventory.expect", "0000:e3:00.0")
    with bench.daemon() as daemon:
        daemon.until(lambda: is_missed(daemon.metrics(), "0000:e3:00.0"))
        assert bench.health()[0] == 1
        bench.host.control.remove(SECOND)  # nobody expects it
        daemon.until(lambda: not daemon.metrics().data(SECOND))
        assert not is_missed(daemon.metrics(), SECOND)


def test_a_hang_degrades_then_fails_its_gpu_alone_and_passes(bench: Bench) -> None:
    with bench.daemon() as daemon:
        bench.host.control.fault(BUSY.format(SECOND), "hang")
        daemon.until(lambda: verdict(daemon.metrics(), SECOND) == "degraded")
        status, lines = bench.health()
        assert (status, lines[0].split(":")[-2].split()[-1]) == (0, "slow")
        assert bench.health("--strict")[0] == 1
        daemon.until(lambda: verdict(daemon.metrics(), SECOND) == "failed", 15)
        status, lines = bench.health()
        assert status == 1
        assert lines[0].startswith(f"FAILED {SECOND} hung: gpu_metrics has not answered for 1")
        assert bench.health("--device", "renderD128") == (0, ["OK 1 GPU"])
        bench.host.control.release(BUSY.format(SECOND))
        bench.host.control.clear()
        daemon.until(lambda: verdict(daemon.metrics(), SECOND) == "ok")


def test_prologs_without_a_daemon_leave_one_stuck_process_and_no_more(bench: Bench) -> None:
    bench.host.control.fault(BUSY.format(SECOND), "hang")
    answers = [bench.health("--device", SECOND) for _ in range(4)]
    assert all(lines[0].startswith(("DEGRADED", "FAILED")) for _, lines in answers), answers
    assert len(bench.host.control.stats()["waiting"]) == 1
    notes = [name for name in os.listdir(bench.runtime) if name.startswith("stuck-reader-")]
    assert len(notes) == 1
    assert is_running(int(notes[0].rsplit("-", 1)[1]))
    bench.host.control.clear()
    assert bench.health("--device", SECOND) == (0, ["OK 1 GPU"])


def test_a_driver_that_gave_its_gpu_up(bench: Bench) -> None:
    with bench.daemon() as daemon:
        bench.host.control.change(SECOND, WEDGED="none")
        bench.host.control.change(THIRD, WEDGED="rebind,bus-reset")
        daemon.until(lambda: verdict(daemon.metrics(), THIRD) == "failed")
        assert verdict(daemon.metrics(), SECOND) == "ok"
        status, lines = bench.health()
        assert (status, lines[0]) == (1, f"FAILED {THIRD} wedged: driver asks for recovery: rebind,bus-reset")
