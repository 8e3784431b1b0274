"""Every kind of trouble that files, uevents and calls can tell raises exactly its own counter.

Lines of the kernel's log cannot be made up on a host, and are in tests/vm/test_trouble.py.
"""

import json
import os
import re
import shutil
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gpudaemon.mock import build
from gpudaemon.model.trouble import KINDS
from tests.live.daemon import RunningDaemon
from tests.live.nvidia_host import NvidiaHost

pytestmark = pytest.mark.live

GPU = "0000:03:00.0"
QUICK = ("--period.slow", "1", "--period.normal", "0.5", "--period.fast", "0.5")
LOOK = 2.5
"""Seconds until counters have been looked at again, and the files before that."""
ALL = "gpudaemon_trouble_events_total"
Key = tuple[str, str, str]


def counted(daemon: RunningDaemon) -> dict[Key, float]:
    """(device, kind, severity) -> how many."""
    found = {}
    for series, value in daemon.metrics().family(ALL).items():
        labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
        found[labels["device"], labels["kind"], labels["severity"]] = value
    return found


def raised(daemon: RunningDaemon, act: Callable[[], object]) -> dict[Key, float]:
    """What an act raises, and what comes with it."""
    before = counted(daemon)
    act()
    daemon.until(lambda: counted(daemon) != before, 8.0)
    time.sleep(1.2)
    return {
        key: value - before.get(key, 0) for key, value in counted(daemon).items() if value != before.get(key)
    }


class Host:
    """A host as files, whose uevents are the test's."""

    def __init__(self, profile: str, root: Path, **more: int) -> None:
        build(profile, str(root), **more)
        self.root = root
        self.sysfs, self.procfs = str(root / "sys"), str(root / "proc")
        self.uevents = str(root / "uevents")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def path(self, device: str) -> Path:
        return Path(os.path.realpath(f"{self.sysfs}/bus/pci/devices/{device}"))

    def put(self, device: str, name: str, content: str) -> None:
        """Other content of a file."""
        file = self.path(device) / name
        file.chmod(0o644)
        file.write_text(content)

    def instead(self, device: str, name: str, old: str, new: str) -> None:
        text = (self.path(device) / name).read_text()
        assert old in text
        self.put(device, name, text.replace(old, new))

    def event(self, action: str, path: str, subsystem: str, **said: str) -> None:
        """A uevent, as lib/kobject_uevent.c lays it out."""
        devpath = "/" + os.path.relpath(path, self.sysfs)
        pairs = {"ACTION": action, "DEVPATH": devpath, "SUBSYSTEM": subsystem, **said, "SEQNUM": "1"}
        text = "".join(f"{key}={value}\0" for key, value in pairs.items())
        self._socket.sendto(f"{action}@{devpath}\0{text}".encode(), self.uevents)

    def card(self, device: str, **said: str) -> None:
        (card,) = (self.path(device) / "drm").glob("card*")
        self.event("change", str(card), "drm", **said)


def recovery(host: Host, word: str) -> None:
    host.event("change", str(host.path(GPU)), "pci", ERROR_EVENT=word, DEVICE_ONLINE="0")


def dump(host: Host) -> None:
    path = Path(host.sysfs, "devices/virtual/devcoredump/devcd1")
    path.mkdir(parents=True)
    (path / "failing_device").symlink_to(host.path(GPU))
    host.event("add", str(path), "devcoredump")


def pages(host: Host, flags: str) -> None:
    lines = (f"0x{place:08x} : 0x00001000 : {flag}\n" for place, flag in enumerate(flags, 1))
    host.put(GPU, "ras/gpu_vram_bad_pages", "".join(lines))


Act = Callable[[Host], object]
AMD: list[tuple[str, str, Act]] = [
    ("reset", "recovered", lambda host: host.card(GPU, WEDGED="none", PID="1", TASK="python")),
    ("wedged", "fatal", lambda host: host.card(GPU, WEDGED="rebind,bus-reset")),
    ("hang", "recovered", lambda host: host.card(GPU, ERROR="1")),
    ("pci_recovery", "uncorrected", lambda host: recovery(host, "BEGIN_RECOVERY")),
    ("pci_recovery", "recovered", lambda host: recovery(host, "SUCCESSFUL_RECOVERY")),
    ("pci_recovery", "fatal", lambda host: recovery(host, "FAILED_RECOVERY")),
    ("core_dump", "recovered", dump),
    ("aer", "corrected", lambda host: host.instead(GPU, "aer_dev_correctable", "BadTLP 0", "BadTLP 1")),
    ("aer", "uncorrected", lambda host: host.instead(GPU, "aer_dev_nonfatal", "CmpltTO 0", "CmpltTO 1")),
    ("aer", "fatal", lambda host: host.instead(GPU, "aer_dev_fatal", "DLP 0", "DLP 1")),
    ("ras", "corrected", lambda host: host.put(GPU, "ras/umc_err_count", "ue: 0\nce: 1\nde: 0\n")),
    ("ras", "uncorrected", lambda host: host.put(GPU, "ras/umc_err_count", "ue: 1\nce: 1\nde: 0\n")),
    ("retired", "uncorrected", lambda host: pages(host, "R")),
    ("retired", "fatal", lambda host: pages(host, "RF")),
    ("link_downgraded", "uncorrected", lambda host: host.put(GPU, "current_link_width", "8\n")),
    ("unbound", "uncorrected", lambda host: host.event("unbind", str(host.path(GPU)), "pci")),
]


def test_each_act_raises_its_counter_and_no_other(tmp_path: Path) -> None:
    host = Host("mi300x8", tmp_path, gpus=2)
    expected: dict[Key, float] = {}
    with RunningDaemon(host, *QUICK, uevents=f"socket:{host.uevents}") as daemon:
        daemon.until(lambda: any("link_downgraded" in series for series in daemon.metrics()))
        time.sleep(LOOK)
        for kind, severity, act in AMD:
            expected[GPU, kind, severity] = expected.get((GPU, kind, severity), 0) + 1
            act(host)
            with suppress(AssertionError):
                daemon.until(lambda: counted(daemon) == expected, 10.0)
            assert counted(daemon) == expected, f"{kind} {severity}"
        time.sleep(LOOK)
        assert counted(daemon) == expected
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/api/v1/events", timeout=5) as answer:
            events = json.load(answer)["events"]
    assert [(one["kind"], one["severity"]) for one in events] == [(kind, word) for kind, word, _ in AMD]
    assert {one["device"] for one in events} == {GPU} and (events[0]["pid"], events[0]["task"]) == (1, "python")
    assert all(0 < time.time() - one["at"] < 120 for one in events)


def test_a_gpu_that_is_missed(tmp_path: Path) -> None:
    host = Host("mi300x8", tmp_path, gpus=2)

    def leave() -> None:
        path = host.path(GPU)
        (card,) = (path / "drm").glob("card*")
        cards, pci = str(card), str(path)
        shutil.rmtree(path)
        for folder in ("bus/pci/devices", "class/drm", "class/hwmon"):
            for link in Path(host.sysfs, folder).iterdir():
                if link.is_symlink() and not link.exists():
                    link.unlink()
        host.event("remove", cards, "drm", DEVTYPE="drm_minor")
        host.event("remove", pci, "pci")

    with RunningDaemon(host, *QUICK, uevents=f"socket:{host.uevents}") as daemon:
        assert raised(daemon, leave) == {(GPU, "missing", "fatal"): 1}


def test_heat(tmp_path: Path) -> None:
    host = Host("arcb580", tmp_path)
    arc = "0000:09:00.0"
    with RunningDaemon(host, *QUICK) as daemon:

        def hot() -> None:
            host.put(arc, "tile0/gt0/freq0/throttle/reasons", "thermal\n")

        assert raised(daemon, hot) == {(arc, "throttled", "corrected"): 1}
        host.put(arc, "tile0/gt0/freq0/throttle/reasons", "none\n")
        time.sleep(LOOK)
        before = counted(daemon)
        hot()
        time.sleep(LOOK)
        assert counted(daemon) == before, "a minute has not been quiet"


def test_what_nvidias_library_counts() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    errors = {"0 2": 4, "1 2": 1, "0 7": 0, "1 7": 1}  # before: 3 corrected, 0 uncorrected in device memory
    with NvidiaHost(2) as host, RunningDaemon(host, *QUICK, environment=host.environment) as daemon:
        gpu = host.addresses[1]
        daemon.until(lambda: daemon.metrics().family("gpudaemon_gpu_ras_bad_pages").of_device(gpu))
        time.sleep(LOOK)
        assert raised(daemon, lambda: host.become(1, {"errors": errors})) == {
            (gpu, "ras", "corrected"): 1,
            (gpu, "ras", "uncorrected"): 1,
        }
        assert raised(daemon, lambda: host.become(1, {"errors": errors, "rows": [1, 2, 0, 1]})) == {
            (gpu, "retired", "uncorrected"): 2,
            (gpu, "retired", "fatal"): 1,
        }


ELSEWHERE = {"job_hang": "tests/vm/test_tracing.py", "cxl": "tests/vm/test_cxl_events.py"}
"""Kinds that the tests of what finds them provoke."""


def test_every_kind_has_its_test() -> None:
    from tests.vm.test_trouble import PROVOKED

    here = {kind for kind, _, _ in AMD} | {"missing", "throttled"}
    assert here | PROVOKED | set(ELSEWHERE) == set(KINDS)
    for kind, path in ELSEWHERE.items():
        assert f'"{kind}"' in (Path(__file__).parents[2] / path).read_text("utf-8")
