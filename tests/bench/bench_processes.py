"""What it costs to know whose work GPUs do: 5,000 real processes, 200 clients of 4 descriptors each, every 5 s.

    python tests/bench/bench_processes.py [--processes 5000] [--clients 200] [--seconds 60]

The processes are real and sleep (`sleep infinity`). The clients are real processes that hold four descriptors,
duplicates of one, of a real node of the DRM major, opened with O_PATH: such a descriptor has a device number
and a link like any other and needs no driver. What no machine without a GPU has is their fdinfo with a driver's
keys: a directory of links to the real /proc stands in its place, in which only fdinfo of the clients is a text
of amdgpu, written anew each second with more busy time. Everything else is the kernel's own procfs.

Printed: CPU of each process of the daemon, as a share of one core, with process events and without, and beside
that of a daemon that looks at no processes; and how long a new client of a process that was there before, and
of a new process, takes to be seen, in periods. Needs root (mknod, processes of others). About three minutes.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpudaemon.mock import build
from tests.bench.processor_time import seconds, tree
from tests.procfs import amdgpu

PERIOD = 5.0
PORT = 19876
HOLDER = """
import os, signal, sys, time
node, count, first = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
if first == "later":
    signal.sigwait({signal.SIGUSR1})
one = os.open(node, os.O_PATH)
for number in range(100, 100 + count):
    os.dup2(one, number)
os.close(one)
print("ready", flush=True)
signal.pause()
"""


class Host:
    """Real processes, and a directory that shows them with fdinfo for the clients."""

    def __init__(self, root: Path, processes: int, clients: int) -> None:
        self.root = root
        self.procfs = root / "proc"
        self.procfs.mkdir()
        self.node = f"/dev/dri/renderD{128 + os.getpid() % 100}"
        os.makedirs("/dev/dri", exist_ok=True)
        os.mknod(self.node, 0o600 | 0o020000, os.makedev(226, 128))
        build("rx7900xtx", str(root / "mock"))
        self.sysfs = root / "mock" / "sys"
        char = self.sysfs / "dev" / "char"
        char.mkdir(parents=True, exist_ok=True)
        (char / "226:128").unlink(missing_ok=True)
        (char / "226:128").symlink_to("../../class/drm/renderD128")
        module = self.sysfs / "module" / "amdgpu"
        module.mkdir(parents=True, exist_ok=True)
        self.references = module / "refcnt"
        self.references.write_text(f"{clients}\n")
        self.children: list[subprocess.Popen[bytes]] = []
        for _ in range(processes):
            self.children.append(subprocess.Popen(["sleep", "infinity"]))
        self.clients = [self.holder() for _ in range(clients)]
        (self.procfs / "self").symlink_to("/proc/self")
        (self.procfs / "sys").symlink_to("/proc/sys")
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in self.clients:
                (self.procfs / name).symlink_to(f"/proc/{name}")
        self.busy = 0
        for number, pid in enumerate(self.clients):
            self.show(pid, number + 1)

    def holder(self, first: str = "now", count: int = 4) -> int:
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", HOLDER, self.node, str(count), first], stdout=subprocess.PIPE
        )
        self.children.append(child)
        if first == "now":
            assert child.stdout is not None
            child.stdout.readline()
        return child.pid

    def show(self, pid: int, client: int, count: int = 4) -> None:
        """Let a client's directory be seen."""
        made = self.procfs / f"new{pid}"
        (made / "fdinfo").mkdir(parents=True)
        for name in ("fd", "stat", "cgroup", "task"):
            (made / name).symlink_to(f"/proc/{pid}/{name}")
        for descriptor in range(100, 100 + count):
            (made / "fdinfo" / str(descriptor)).write_text(amdgpu(client, self.busy, vram=client << 20))
        (self.procfs / str(pid)).unlink(missing_ok=True)
        os.rename(made, self.procfs / str(pid))

    def work(self) -> None:
        """Every client's engine has worked for another 10 ms."""
        self.busy += 10_000_000
        for number, pid in enumerate(self.clients):
            text = amdgpu(number + 1, self.busy, vram=(number + 1) << 20)
            for descriptor in range(100, 104):
                with (self.procfs / str(pid) / "fdinfo" / str(descriptor)).open("r+") as file:
                    file.write(text)

    def close(self) -> None:
        for child in self.children:
            child.send_signal(signal.SIGKILL)
        for child in self.children:
            child.wait()
        os.unlink(self.node)


class Daemon:
    """A daemon over that host."""

    def __init__(self, host: Host, *flags: str) -> None:
        self.runtime = tempfile.mkdtemp(prefix="bench-run")
        command = [sys.executable, "-m", "gpudaemon.cli", "run", "--web.listen-address", f"127.0.0.1:{PORT}"]
        command += [
            "--path.runtime",
            self.runtime,
            "--path.sysfs",
            str(host.sysfs),
            "--path.procfs",
            str(host.procfs),
        ]
        command += ["--uevent.source", "none", "--preset", "scrape", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(
            lambda: "gpudaemon_build_info" in self.page() or "gpudaemon_daemon_reader_up 1" in self.page(), 60
        )

    def page(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def processes(self) -> dict[str, int]:
        found = {"server": self.process.pid}
        for pid in tree(self.process.pid)[1:]:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            module = next((word.decode() for word in words if word.startswith(b"gpudaemon.")), "")
            found[module.removeprefix("gpudaemon.") or str(pid)] = pid
        return found

    def cpu(self) -> dict[str, float]:
        return {name: seconds([pid]) for name, pid in self.processes().items()}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.runtime, ignore_errors=True)


def until(what: object, longest: float) -> float:
    """Seconds until `what()` holds."""
    began = time.monotonic()
    while not what():  # type: ignore[operator]
        if time.monotonic() - began > longest:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - began


def measure(host: Host, title: str, length: float, *flags: str) -> float:
    daemon = Daemon(host, *flags)
    try:
        time.sleep(2 * PERIOD + 1)
        before, began = daemon.cpu(), time.monotonic()
        while time.monotonic() - began < length:
            host.work()
            time.sleep(1)
        passed = time.monotonic() - began
        shares = {name: (value - before.get(name, 0.0)) / passed * 100 for name, value in daemon.cpu().items()}
        total = sum(shares.values())
        page = daemon.page()
        busy = [
            line for line in page.splitlines() if line.startswith("gpudaemon_drm_engine_busy_seconds_total")
        ]
        parts = ", ".join(f"{name} {share:.2f}" for name, share in sorted(shares.items()))
        print(f"{title:34} {total:5.2f} % of a core ({parts}) {busy[:1]}", flush=True)
        return total
    finally:
        daemon.stop()


def latency(host: Host, *flags: str) -> None:
    """How long new clients take to be seen."""
    old = host.holder("later", 1)
    daemon = Daemon(host, *flags)
    (host.procfs / str(old)).symlink_to(f"/proc/{old}")
    try:
        until(lambda: f'clients{{device="0000:03:00.0"}} {len(host.clients)}.0' in daemon.page(), 60)
        time.sleep(PERIOD * 1.3)
        for title, pid in (("a process that was there", old), ("a new process", 0)):
            seen = int(daemon.page().split('seen_total{device="0000:03:00.0"} ')[1].split(".")[0])
            if pid:
                os.kill(pid, signal.SIGUSR1)
            host.show(pid or host.holder("now", 1), 1000 + seen, 1)
            host.references.write_text(f"{len(host.clients) + 1 + seen}\n")
            wanted = f'seen_total{{device="0000:03:00.0"}} {seen + 1}.0'
            took = until(lambda wanted=wanted: wanted in daemon.page(), 60)
            print(f"new client of {title}: seen after {took / PERIOD:.2f} periods", flush=True)
    finally:
        daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    wanted = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-processes"))
    host = Host(root, wanted.processes, wanted.clients)
    try:
        every = ("--tier", "full", "--process.period", str(PERIOD), "--no-collector.io-uring")
        without = measure(host, "no processes looked at", wanted.seconds, "--tier", "base")
        told = measure(host, "with process events", wanted.seconds, *every)
        listed = measure(host, "without process events", wanted.seconds, *every, "--no-process.events")
        rings = measure(host, "with events, and io_uring", wanted.seconds, "--tier", "full")
        print(
            f"more than none: {told - without:.2f}, {listed - without:.2f}, {rings - without:.2f} % of a core"
        )
        latency(host, *every)
    finally:
        host.close()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
