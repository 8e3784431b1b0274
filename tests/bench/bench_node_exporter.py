"""CPU per minute at equal work, against node_exporter: 64 GPUs, a gzip scrape of each every 15 s.

    NODE_EXPORTER=/usr/bin/prometheus-node-exporter python tests/bench/bench_node_exporter.py [--seconds 120]

Both exporters (and both our engines) run at once over the same seconds on the same tree of plain files, which
are kept in motion once a second, and are scraped at moments of their own so that they do not meet. Ours is
everything: server, reader with its kernel workers, launcher. Before it starts, pages of a tree that stands
still are compared: every value of the other exporter must be there. Start-up is shown apart.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

import processes
from figures import flags, heading, show, spread
from node_exporter_equivalents import differences, parse
from processes import RunningDaemon, cpu_seconds
from scraper import Scraper

from gpudaemon.mock import build
from gpudaemon.mock.demo import Mover

MUST = 0.5
GPUS = 64
PERIOD = 15.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NodeExporter:
    """node_exporter with the three collectors of a GPU host, answering when entered."""

    def __init__(self, path: str, sysfs: str, procfs: str) -> None:
        self.port = free_port()
        self._command = [path, "--collector.disable-defaults", "--collector.drm", "--collector.hwmon"]
        self._command += ["--collector.pcidevice", f"--path.sysfs={sysfs}", f"--path.procfs={procfs}"]
        self._command += ["--web.disable-exporter-metrics", f"--web.listen-address=127.0.0.1:{self.port}"]

    def __enter__(self) -> "NodeExporter":
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        processes.until(self._answers, 15.0)
        return self

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise SystemExit(f"{self._command[0]} ended with status {self._process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pids(self) -> list[int]:
        return [self._process.pid]


def compare(name: str, theirs: str, ours: str) -> bool:
    """Print how many of their samples have no equal in ours."""
    compared, found = differences(parse(theirs), parse(ours))
    show(f"{name}: samples, theirs / ours", f"{count(theirs)}/{count(ours)}")
    show(f"{name}: values that differ, of {compared}", str(len(found)), "", "none")
    for difference in found[:10]:
        print(f"    {difference.reason}: {difference.theirs} ours {difference.ours}")
    return not found and compared > 0


def count(page: str) -> int:
    return sum(1 for line in page.splitlines() if line and not line.startswith("#"))


def main() -> None:
    _, arguments = flags(__doc__, runs=1, seconds=120, quick=(1, 60))
    path = os.environ.get("NODE_EXPORTER", "")
    if not path:
        raise SystemExit("NODE_EXPORTER is not set: give the path of prometheus-node-exporter 1.11 there")
    print(processes.machine())
    equal = True
    with tempfile.TemporaryDirectory(prefix="gpudaemon-bench-") as directory, contextlib.ExitStack() as stack:
        tree = build("mi300x8", directory, GPUS)
        sysfs, procfs = f"{directory}/sys", f"{directory}/proc"
        peer = stack.enter_context(NodeExporter(path, sysfs, procfs))
        pids = {"node_exporter": peer.pids}
        scrapers = {"node_exporter": Scraper(peer.port)}
        heading(f"start-up, {GPUS} GPUs")
        scrapers["node_exporter"].page()
        show("node_exporter, with its first page", cpu_seconds(peer.pids) * 1e3, "ms CPU")
        for engine in arguments.engines:
            chosen = ("--preset", "scrape", "--engine", engine, "--log.level", "warning")
            daemon = stack.enter_context(RunningDaemon(None, *chosen, sysfs=sysfs, procfs=procfs))
            pids[engine] = list(processes.of(daemon).values())
            show(f"{engine}, until ready", cpu_seconds(pids[engine]) * 1e3, "ms CPU")
            scrapers[engine] = Scraper(daemon.port)
            for name, pid in processes.of(daemon).items():
                show(f"{engine}, {name}", cpu_seconds([pid]) * 1e3, "ms CPU")
        heading("equal work")
        theirs = scrapers["node_exporter"].page()
        for engine in arguments.engines:
            equal &= compare(engine, theirs, scrapers[engine].page())
        mover = Mover(tree, directory)
        mover.start()
        # The scans 5, 30 and 120 seconds after start belong to the start; later there is one in ten minutes.
        for _ in range(9):
            time.sleep(PERIOD)
            for scraper in scrapers.values():
                scraper.page()
        for run in range(arguments.runs):
            heading(f"{arguments.seconds:.0f} s, a scrape each {PERIOD:.0f} s, run {run + 1}")
            measure(arguments.seconds, pids, scrapers)
        mover.stop()
    if not equal:
        sys.exit("our pages lack values of the other exporter")


def measure(seconds: float, pids: dict[str, list[int]], scrapers: dict[str, Scraper]) -> None:
    """Scrape each in turn over `seconds` and print what each used a minute."""
    before = {name: cpu_seconds(of) for name, of in pids.items()}
    by_process = {(name, pid): cpu_seconds([pid]) for name, of in pids.items() for pid in of}
    waits: dict[str, list[float]] = {name: [] for name in pids}
    sizes = {}
    began = time.monotonic()
    for period in range(max(1, round(seconds / PERIOD))):
        for place, (name, scraper) in enumerate(scrapers.items()):
            # In the middle of a slot, so that the work after the page falls into the same one.
            due = began + PERIOD * (period + (place + 0.3) / len(scrapers))
            time.sleep(max(0.0, due - time.monotonic()))
            scraper.page()
            waits[name].append(scraper.seconds)
            sizes[name] = scraper.size
    time.sleep(max(0.0, began + PERIOD * max(1, round(seconds / PERIOD)) - time.monotonic()))
    minutes = (time.monotonic() - began) / 60
    used = {name: (cpu_seconds(of) - before[name]) * 1e3 / minutes for name, of in pids.items()}
    for name, milliseconds in used.items():
        must = "" if name == "node_exporter" else f"at most {MUST * used['node_exporter']:.1f}"
        show(f"{name}, CPU a minute", milliseconds, "ms", must)
    for name, milliseconds in used.items():
        if name != "node_exporter":
            show(f"{name}, ratio", milliseconds / used["node_exporter"], "x", f"at most {MUST} x")
            parts = ", ".join(
                f"{part} {(cpu_seconds([pid]) - by_process[name, pid]) * 1e3 / minutes:.1f}"
                for part, pid in zip(("server", "reader", "launcher"), pids[name], strict=True)
            )
            print(f"    ms a minute: {parts}")
    for name, taken in waits.items():
        spread(f"{name}, wait for a page", [1e3 * one for one in taken], "ms")
        show(f"{name}, page on the wire", sizes[name] / 1024, "KiB")


if __name__ == "__main__":
    main()
