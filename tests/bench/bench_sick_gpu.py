"""What a sick GPU does to its exporter: ours and node_exporter on the same mount, with the same faults.

    NODE_EXPORTER=/usr/bin/prometheus-node-exporter python tests/bench/bench_sick_gpu.py [--seconds 20]

A live mock host with 8 GPUs. One of them sleeps, is removed, hangs, for so many seconds each; both exporters
are asked for a page each second and given a second for it, as by a Prometheus. Prints the table of the README.
"""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

import processes
from bench_node_exporter import NodeExporter
from figures import flags
from processes import RunningDaemon

from gpudaemon.mock import HostProcess

SICK = 3
"""which of the GPUs, in the order of their addresses"""


class Target:
    """An exporter: name, port, what tells a GPU on its pages, all its processes."""

    def __init__(
        self, name: str, port: int, marks: list[re.Pattern[str]], pids: Callable[[], list[int]]
    ) -> None:
        self.name = name
        self.port = port
        self.marks = marks
        self.pids = pids

    def page(self, timeout: float) -> str | None:
        """A page, None where it does not come in time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                return answer.read().decode() if answer.status == 200 else None
            except (OSError, http.client.HTTPException):
                return None

    def shown(self, page: str | None) -> list[bool]:
        """Which GPUs have values on a page."""
        return [bool(page and mark.search(page)) for mark in self.marks]

    def stuck(self) -> int:
        """Threads of all its processes that wait in the kernel and cannot be ended (state D)."""
        stuck = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/stat", "rb") as stat:
                        stuck += stat.read().rsplit(b")", 1)[1].split()[0] == b"D"
        return stuck


class Seen(threading.Thread):
    """Asks for a page each second, as a Prometheus with a timeout of a second does."""

    def __init__(self, target: Target, seconds: float) -> None:
        super().__init__()
        self._target = target
        self._seconds = seconds
        self.pages: list[list[bool] | None] = []

    def run(self) -> None:
        end = time.monotonic() + self._seconds
        while (began := time.monotonic()) < end:
            page = self._target.page(1.0)
            self.pages.append(None if page is None else self._target.shown(page))
            time.sleep(max(0.0, began + 1.0 - time.monotonic()))

    @property
    def failed(self) -> int:
        return sum(page is None for page in self.pages)

    @property
    def healthy(self) -> str:
        """How many of the other GPUs the worst page had."""
        others = [sum(page) - page[SICK] for page in self.pages if page is not None]
        return f"{min(others)} of 7" if others else "none"

    @property
    def sick(self) -> int:
        """Pages that had values of the sick GPU, those of the first three seconds left aside."""
        return sum(page is not None and page[SICK] for page in self.pages[3:])


def watch(targets: Sequence[Target], seconds: float) -> dict[str, Seen]:
    """Ask both for so long."""
    seen = {target.name: Seen(target, seconds) for target in targets}
    for one in seen.values():
        one.start()
    for one in seen.values():
        one.join()
    return seen


def back(target: Target) -> str:
    """Seconds until all GPUs are on a page again."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        if all(target.shown(target.page(5.0))):
            return f"{time.monotonic() - began:.1f} s"
        time.sleep(0.05)
    return "not within 60 s"


def asleep(host: HostProcess, sick: str, target: Target, seconds: float) -> str:
    """Put a GPU to sleep, scrape each second, and put it to sleep again whenever it was woken."""
    host.control.suspend(sick)
    time.sleep(1.5)
    woken = scrapes = 0
    for _ in range(int(seconds)):
        host.control.suspend(sick)
        before = host.control.stats()["devices"][sick]["suspended_accesses"]
        target.page(5.0)
        scrapes += 1
        time.sleep(1.0)
        woken += host.control.stats()["devices"][sick]["suspended_accesses"] > before
    return f"{woken} of {scrapes}"


def can_be_killed(pid: int) -> bool:
    """Whether SIGKILL ends a process within two seconds; it is stopped for good in any case."""
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        if not processes.is_running(pid):
            return True
        time.sleep(0.05)
    return False


def _line(start: str) -> re.Pattern[str]:
    return re.compile("^" + start, re.MULTILINE)


class Comparison:
    """Both exporters on one host. rows: what was seen, row -> exporter -> text."""

    def __init__(self, host: HostProcess, daemon: RunningDaemon, peer: NodeExporter, seconds: float) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self._host = host
        self._seconds = seconds
        self._pids = (daemon.pid, peer.pids[0])
        stats = host.control.stats()["devices"]
        gpus = sorted(device for device, one in stats.items() if one["workload"])
        self.sick = gpus[SICK]
        ours = [_line(rf'gpudaemon_gpu_power_watts\{{device="{device}"') for device in gpus]
        theirs = [_line(rf'node_hwmon_power_\w+\{{chip="[^"]*{device[2:7]}:00_0"') for device in gpus]
        self.ours = Target("gpudaemon", daemon.port, ours, lambda: list(processes.of(daemon).values()))
        self.theirs = Target("node_exporter", peer.port, theirs, lambda: peer.pids)
        self.both = (self.ours, self.theirs)
        for target in self.both:
            shown = sum(target.shown(target.page(10.0)))
            if shown != len(gpus):
                raise SystemExit(
                    f"{target.name} shows {shown} of {len(gpus)} GPUs: {target.page(10.0)!r:.2000}"
                )
        link = f"{host.sysfs}/bus/pci/devices/{self.sick}"
        self._files = os.path.relpath(os.path.realpath(link), host.directory) + "/*"

    def note(self, row: str, target: Target, what: str) -> None:
        self.rows.setdefault(row, {})[target.name] = what

    def _said(self, row: str, series: str) -> None:
        page = self.ours.page(5.0) or ""
        self.note(
            row, self.ours, f"`{re.sub(r'device=[^,}]*,?', '', series)}` 1" if f"{series} 1" in page else "no"
        )
        self.note(row, self.theirs, "no")

    def asleep(self, pausing: Callable[[bool], None]) -> None:
        """One sleeps. pausing: has our daemon read nothing, so that nobody but the other can wake it."""
        row = "one GPU sleeps: scrapes that woke it"
        pausing(True)
        self.note(row, self.theirs, asleep(self._host, self.sick, self.theirs, self._seconds))
        pausing(False)
        time.sleep(3.0)
        self.note(row, self.ours, asleep(self._host, self.sick, self.ours, self._seconds))
        self._host.control.resume(self.sick)
        time.sleep(3.0)

    def removed(self) -> None:
        """One is taken out, and comes back."""
        self._host.control.remove(self.sick)
        seen = watch(self.both, self._seconds / 2)
        for target in self.both:
            one = seen[target.name]
            self.note("one is removed: pages that still had it", target, f"{one.sick} of {len(one.pages) - 3}")
        self._said("that it is missing is on the page", f'gpudaemon_device_missing{{device="{self.sick}"}}')
        self._host.control.restore(self.sick)
        for target in self.both:
            back(target)
        time.sleep(3.0)

    def hangs(self) -> None:
        """One hangs, and is released."""
        self._host.control.fault(self._files, "hang")
        seen = watch(self.both, self._seconds)
        for target in self.both:
            one = seen[target.name]
            self.note(
                "one hangs: scrapes that failed (timeout 1 s)", target, f"{one.failed} of {len(one.pages)}"
            )
            self.note("the other 7 meanwhile, worst page", target, one.healthy)
            self.note(f"threads stuck after {self._seconds:.0f} s", target, str(target.stuck()))
        self._said(
            "that it hangs is on the page", f'gpudaemon_device_state{{device="{self.sick}",state="hung"}}'
        )
        self._release()
        for target in self.both:
            self.note("released, until all 8 are on a page", target, back(target))

    def killed(self) -> None:
        """One hangs, and whoever has the port is ended by force."""
        self._host.control.fault(self._files, "hang")
        watch(self.both, 4.0)
        for target, pid in zip(self.both, self._pids, strict=True):
            answer = "yes" if can_be_killed(pid) else "no: it waits for the driver, its port stays taken"
            self.note("while it hangs, SIGKILL frees the port", target, answer)
        self._release()

    def _release(self) -> None:
        self._host.control.release(self._files)


def main() -> None:
    _, arguments = flags(__doc__, runs=1, seconds=20, quick=(1, 10), engines=("auto",))
    path = os.environ.get("NODE_EXPORTER", "")
    if not path:
        raise SystemExit("NODE_EXPORTER is not set: give the path of prometheus-node-exporter 1.11 there")
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="gpudaemon-run-"))
        host = stack.enter_context(HostProcess("mi300x8", 8, timeout=60.0))
        daemon = RunningDaemon(host, uevents=f"socket:{host.uevents}", runtime=runtime)
        stack.enter_context(daemon)
        peer = stack.enter_context(NodeExporter(path, host.sysfs, host.procfs))
        time.sleep(5.0)

        def pausing(paused: bool) -> None:
            words = ["pause", "--for", "600"] if paused else ["resume"]
            command = [sys.executable, "-P", "-m", "gpudaemon.cli", *words, "--path.runtime", runtime]
            subprocess.run(command, check=True)

        comparison = Comparison(host, daemon, peer, arguments.seconds)
        comparison.asleep(pausing)
        comparison.removed()
        comparison.hangs()
        comparison.killed()
    print(f"{processes.machine()}\n\n| | gpudaemon | node_exporter |\n|---|---|---|")
    for name, found in comparison.rows.items():
        print(f"| {name} | {found['gpudaemon']} | {found['node_exporter']} |")


if __name__ == "__main__":
    main()
