"""Whose work a GPU does, on real kernels: fdinfo of the test GPU against what its driver itself counts."""

import sys
from typing import Any

import pytest

from tests.live.daemon import Page
from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.store import ROOT
from tests.vm.testgpu import TestGpu, TestGpus

pytestmark = [pytest.mark.campaign, pytest.mark.guest(devices="minimal"), pytest.mark.timeout(900)]

_FLAGS = ("--tier", "processes", "--preset", "scrape", "--process.period", "2", "--read.deadline", "5")
_POD = "kubepods-burstable-pod55c6c714_b240_4dec_9a45_57b61696ab6e.slice"
_ID = "ab" * 32
_SCOPE = f"/kubepods.slice/{_POD}/cri-containerd-{_ID}.scope"
_POD_KEY = f"pod/55c6c714-b240-4dec-9a45-57b61696ab6e/{_ID[:12]}"

_SHARED = """
import json, os, signal, socket, sys
from tests.vm.module.client import Client

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
ours, theirs = socket.socketpair()
given = os.fork()
if not given:
    ours.close()
    _, descriptors, _, _ = socket.recv_fds(theirs, 16, 1)
    signal.pause()
theirs.close()
client = Client(sys.argv[1])
client.bo("vram", 3 << 20)
client.bo("system", 1 << 20)
os.dup(client.fd)
os.dup(client.fd)
inherits = os.fork()
if not inherits:
    signal.pause()
socket.send_fds(ours, [b"x"], [client.fd])
print(json.dumps({"pid": os.getpid(), "given": given, "inherits": inherits, "client": client.id}), flush=True)
while True:
    signal.sigwait({signal.SIGUSR1})
    for ring in ("gfx", "compute0", "compute1", "copy"):
        client.submit(ring, count=30, microseconds=5000)
    client.wait(60.0)
"""


class Looker:
    """A daemon in the guest, and what it says of one GPU."""

    def __init__(self, daemon: GuestDaemon, gpu: TestGpu) -> None:
        self.daemon = daemon
        self.gpu = gpu

    def page(self) -> Page:
        return self.daemon.metrics().of_device(self.gpu.name)

    def value(self, name: str, **labels: str) -> float | None:
        """The only series of that name with these labels, None where there is none."""
        found = [
            value
            for series, value in self.page().family(f"gpudaemon_{name}").items()
            if all(f'{label}="{text}"' in series for label, text in labels.items())
        ]
        assert len(found) < 2, found
        return found[0] if found else None

    def busy(self) -> dict[str, float]:
        """Seconds by engine."""
        return {
            engine: self.value("drm_engine_busy_seconds_total", engine=engine) or 0.0
            for engine in ("gfx", "compute", "copy")
        }

    def witness(self, before: dict[str, int]) -> dict[str, float]:
        """The driver's own seconds by engine since then."""
        now = self.gpu.counters()
        names = {engine: f"engine.{engine}.busy_ns" for engine in ("gfx", "compute", "copy")}
        return {engine: (now[name] - before[name]) / 1e9 for engine, name in names.items()}

    def until(self, name: str, wanted: float, **labels: str) -> None:
        self.daemon.until(lambda: self.value(name, **labels) == wanted, 240.0, f"for {name} {wanted}")


def _start(guest: Guest, gpu: TestGpu, script: str) -> dict[str, Any]:
    import json

    log = f"/run/{gpu.name}-shared"
    guest.start(sys.executable, "-P", "-c", script, gpu.node, log=log, environment={"PYTHONPATH": str(ROOT)})
    guest.until(lambda: guest.exists(log) and "\n" in guest.read(log), 120.0, "for the client")
    return dict(json.loads(guest.read(log).splitlines()[0]))


def _cgroup(guest: Guest, path: str, *pids: int) -> None:
    """Put processes into a cgroup of version 2."""
    guest.shell(
        f"mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup; mkdir -p /sys/fs/cgroup{path}"
    )
    for pid in pids:
        guest.write(f"/sys/fs/cgroup{path}/cgroup.procs", str(pid))


@pytest.mark.parametrize(("flavour", "fdinfo"), [("pci", "ns"), ("platform", "ns"), ("pci", "cycles")])
def test_one_client_of_seven_descriptors(guest: Guest, flavour: str, fdinfo: str) -> None:
    """dup'd, inherited and passed on: one client, whose time is the driver's own and stays when it is gone."""
    with TestGpus(guest, fdinfo=fdinfo) as gpus:
        gpu = getattr(gpus, flavour)[0]
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            look = Looker(daemon, gpu)
            look.until("drm_clients", 0.0)
            before = gpu.counters()
            told = _start(guest, gpu, _SHARED)
            pids = [told["pid"], told["given"], told["inherits"]]
            _cgroup(guest, _SCOPE, *pids)
            look.until("drm_clients", 1.0)
            look.until("drm_open_descriptors", 7.0, owner=_POD_KEY)
            assert look.value("drm_owner_memory_bytes", region="vram", kind="total") == 3 << 20
            assert look.value("drm_owner_memory_bytes", region="system", kind="total") == 1 << 20
            for _ in range(3):
                guest.run("kill", "-USR1", str(told["pid"]))
                daemon.until(lambda: gpu.counters()["jobs"] == 0 and look.witness(before)["gfx"] > 0.1, 60.0)
            daemon.until(lambda: look.witness(before)["gfx"] >= 0.45 and gpu.counters()["jobs"] == 0, 60.0)
            exact = fdinfo == "ns"
            expected = look.witness(before)
            daemon.until(
                lambda: look.busy() == pytest.approx(expected, rel=1e-9 if exact else 0.01), 30.0, f"{expected}"
            )
            assert look.value("drm_engine_capacity", engine="compute") == 2
            owned = look.value("drm_owner_engine_busy_seconds_total", owner=_POD_KEY, engine="gfx")
            assert owned == pytest.approx(expected["gfx"], rel=0.01)
            assert look.value("drm_clients_seen_total") == 1
            guest.run("kill", "-KILL", *map(str, pids))
            look.until("drm_clients", 0.0)
            assert look.busy() == pytest.approx(expected, rel=1e-9 if exact else 0.01)
            assert look.value("drm_owner_memory_bytes", region="vram", kind="total") is None
            info = [series for series in daemon.metrics() if series.startswith("gpudaemon_owner_info")]
            assert any(f'owner="{_POD_KEY}"' in one and 'qos="burstable"' in one for one in info), info


def test_two_opens_are_two_clients_and_each_process_its_own(guest: Guest) -> None:
    with TestGpus(guest) as gpus:
        gpu = gpus.pci[0]
        with GuestDaemon(guest, *_FLAGS, "--process.top", "1", wait=400.0) as daemon:
            look = Looker(daemon, gpu)
            look.until("drm_clients", 0.0)
            before = gpu.counters()
            much = gpu.program("bo", "vram", "1048576", "submit", "gfx", "200", "5000", "say", "hold")
            little = gpu.program("bo", "vram", "4096", "submit", "copy", "2", "1000", "say", "hold")
            one, two = much.said()["pid"], little.said()["pid"]
            look.until("drm_clients", 2.0)
            daemon.until(lambda: gpu.counters()["jobs"] == 0, 60.0)
            expected = look.witness(before)
            daemon.until(lambda: look.busy() == pytest.approx(expected), 30.0, f"{expected}")
            assert look.value("drm_process_memory_bytes", pid=str(one), kind="total", region="vram") == 1 << 20
            assert look.value("drm_process_memory_bytes", pid="", kind="total", region="vram") == 4096
            assert look.value("drm_process_engine_busy_seconds_total", pid=str(two), engine="copy") is None
            much.kill()
            look.until("drm_clients", 1.0)
            assert look.value("drm_process_engine_busy_seconds_total", pid=str(one), engine="gfx") is None
            assert look.busy()["gfx"] == pytest.approx(expected["gfx"])
            little.kill()


def test_fdinfo_that_hangs_quarantines_its_device_only(guest: Guest) -> None:
    with TestGpus(guest) as gpus:
        gpu, other = gpus.pci[0], gpus.platform[0]
        clients = [one.program("say", "hold") for one in (gpu, other)]
        for client in clients:
            client.said()
        with GuestDaemon(guest, *_FLAGS[:-1], "2", wait=400.0) as daemon:
            look, beside = Looker(daemon, gpu), Looker(daemon, other)
            look.until("drm_clients", 1.0)
            gpu.order("fault fdinfo hang")
            daemon.until(lambda: daemon.metrics().states(gpu.name) == ["hung"], 240.0)
            assert gpu.counters()["faults.held"] == 1
            daemon.until(
                lambda: gpu.counters()["faults.held"] == 1 and look.value("drm_clients") is None, 240.0
            )
            assert daemon.metrics().states(other.name) == ["ok"]
            assert beside.value("drm_clients") == 1
            gpu.order("release")
            daemon.until(lambda: daemon.metrics().states(gpu.name) == ["ok"], 240.0)
            look.until("drm_clients", 1.0)
        for client in clients:
            client.kill()


def test_a_device_that_sleeps_is_not_woken_by_looking_at_its_clients(guest: Guest) -> None:
    with TestGpus(guest, autosuspend_ms=300) as gpus:
        gpu = gpus.pci[0]
        client = gpu.program("say", "hold")
        client.said()
        with GuestDaemon(guest, *_FLAGS, wait=400.0) as daemon:
            daemon.until(lambda: gpu.power("runtime_status") == "suspended", 90.0)
            daemon.until(lambda: daemon.metrics().states(gpu.name) == ["suspended"], 240.0)
            resumed = gpu.counters()["pm.resumes"]
            daemon.until(lambda: False if daemon.pid == 0 else daemon.metrics().states(gpu.name) != [], 10.0)
            guest.run("sleep", "6")
            assert gpu.counters()["pm.resumes"] == resumed
        client.kill()


def test_rings_of_io_uring_are_counted_exactly(guest: Guest) -> None:
    """Known submissions and completions, overflow forced, a thread that polls."""
    script = """
import sys, signal
from tests.rings import Ring
one = Ring(8)
one.nops(24)
one.put(3)
two = Ring(8, poll=True, idle=60000)
print("ready", flush=True)
signal.pause()
"""
    log = "/run/rings"
    pid = guest.start(sys.executable, "-P", "-c", script, log=log, environment={"PYTHONPATH": str(ROOT)})
    guest.until(lambda: guest.exists(log) and "ready" in guest.read(log), 240.0, "for the rings")
    _cgroup(guest, "/system.slice/rings.service", pid)
    with GuestDaemon(guest, *_FLAGS, "--engine", "threads", wait=400.0) as daemon:

        def value(name: str) -> float | None:
            series = f'gpudaemon_io_uring_{name}{{owner="unit/rings.service"}}'
            return daemon.metrics().get(series)

        daemon.until(lambda: value("rings") == 2, 240.0, "for the rings")
        found = {
            name: value(name)
            for name in (
                *("processes", "submissions_waiting", "completions_waiting"),
                *("completions_overflowed", "poll_threads", "rings_unreadable"),
            )
        }
        assert found == {
            "processes": 1,
            "submissions_waiting": 3,
            "completions_waiting": 16,
            "completions_overflowed": 8,
            "poll_threads": 1,
            "rings_unreadable": 0,
        }
        assert daemon.metrics()["gpudaemon_io_uring_disabled"] == 0
    guest.run("kill", "-KILL", str(pid))
