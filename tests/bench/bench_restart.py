"""A server is ended while one of its GPUs is stuck; the next one takes its port and does not touch that GPU.

    python tests/bench/bench_restart.py [--runs 5]

A live mock host whose reads hang in D state: the old reader can then neither exit nor be killed. Each run ends
the server once by SIGTERM and once by SIGKILL, starts another on the same port and with the same runtime
directory, releases the GPU and waits until its data is complete again.
"""

import functools
import os
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request

import processes
from figures import flags, heading, show, spread
from processes import Page, RunningDaemon, is_running, until

from gpudaemon.mock import HostProcess

END = 2.0
SERVE = 3.0
SICK = "0000:43:00.0"
FILE = "gpu_metrics"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int, path: str) -> str | None:
    """Body of an answer with status 200; None for any other and for none at all."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2.0) as answer:
            return str(answer.read().decode()) if answer.status == 200 else None
    except (urllib.error.HTTPError, OSError):
        return None


def first_answers(port: int, began: float) -> tuple[float, float, Page]:
    """Seconds since `began` to the first 200 of /metrics and of /-/ready; and the first page once ready."""
    metrics = ready = 0.0
    while not (metrics and ready):
        if time.monotonic() - began > 30:
            raise SystemExit("the new server does not answer")
        if not metrics and fetch(port, "/metrics") is not None:
            metrics = time.monotonic() - began
        if not ready and fetch(port, "/-/ready") is not None:
            ready = time.monotonic() - began
        time.sleep(0.002)
    return metrics, ready, Page.of(fetch(port, "/metrics") or "")


class Figures:
    """What the runs of one signal took, and what went wrong."""

    def __init__(self) -> None:
        self.quarantine: list[float] = []
        self.gone: list[float] = []
        self.metrics: list[float] = []
        self.ready: list[float] = []
        self.free: list[float] = []
        self.complete: list[float] = []
        self.wrong: list[str] = []

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)


def sick_path(host: HostProcess) -> str:
    """Path of the sick GPU's file below the mount, links resolved as the host's counters name it."""
    found = os.path.realpath(f"{host.sysfs}/bus/pci/devices/{SICK}")
    return f"{os.path.relpath(found, host.directory)}/{FILE}"


def one(engine: str, number: signal.Signals, figures: Figures) -> None:
    """One end and one new start."""
    with tempfile.TemporaryDirectory(prefix="gpudaemon-bench-") as runtime, HostProcess("mi300x8", 8) as host:
        port = free_port()
        make = functools.partial(
            RunningDaemon, host, "--engine", engine, "--log.level", "error", port=port, runtime=runtime
        )
        path = sick_path(host)
        old = make().__enter__()
        time.sleep(3.0)
        healthy = len(old.metrics().data(SICK))
        reader = old.reader
        host.control.fault(path, "hang")
        figures.quarantine.append(old.until(lambda: old.metrics().states(SICK) == ["hung"], 15.0))
        began = time.monotonic()
        os.kill(old.pid, number)
        old.process.wait(30)
        figures.gone.append(time.monotonic() - began)
        figures.check(is_running(reader), "the old reader is not stuck: nothing was shown")
        waiting = host.control.stats()["waiting"]
        before = host.control.accesses(f"{os.path.dirname(path)}/*")
        began = time.monotonic()
        with make(wait=0.0) as new:
            metrics, ready, page = first_answers(port, began)
            figures.metrics.append(metrics)
            figures.ready.append(ready)
            figures.check(page.states(SICK) == ["hung"], f"first page says {page.states(SICK)}, not hung")
            figures.check(not page.data(SICK), "first page has data of the stuck GPU")
            time.sleep(3.0)
            figures.check(
                host.control.accesses(f"{os.path.dirname(path)}/*") == before,
                "files of the stuck GPU were opened or read",
            )
            figures.check(len(host.control.stats()["waiting"]) == len(waiting), "a second read was sent there")
            began = time.monotonic()
            host.control.release(path)
            figures.free.append(until(lambda: not is_running(reader), 15.0))
            new.until(lambda: len(new.metrics().data(SICK)) >= healthy, 30.0)
            figures.complete.append(time.monotonic() - began)
        old.stop(force=True)


def main() -> None:
    _, arguments = flags(__doc__, runs=5, seconds=0, quick=(1, 0))
    print(processes.machine())
    wrong: list[str] = []
    for engine in arguments.engines:
        for number in (signal.SIGTERM, signal.SIGKILL):
            figures = Figures()
            for _ in range(arguments.runs):
                one(engine, number, figures)
            heading(f"{engine}, {number.name}")
            spread("until the stuck GPU is quarantined", figures.quarantine, "s")
            spread("until the server is gone", figures.gone, "s", f"at most {END}")
            spread("new server, start to first /metrics", figures.metrics, "s", f"at most {SERVE}")
            spread("new server, start to ready", figures.ready, "s", f"at most {SERVE}")
            spread("old reader gone after release", figures.free, "s")
            spread("full data after release", figures.complete, "s")
            show("new server kept off the stuck GPU", "no" if figures.wrong else "yes", "", "yes")
            for text in dict.fromkeys(figures.wrong):
                print(f"    {text}")
            wrong += figures.wrong
    if wrong:
        sys.exit("something other than time was not as it must be")


if __name__ == "__main__":
    main()
