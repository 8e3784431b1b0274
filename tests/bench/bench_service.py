"""A server is ended under a real systemd while one of its GPUs is stuck: how long until the next one answers.

    python tests/bench/bench_service.py [--runs 5]

As `bench_restart`, with the shipped units on a machine made of namespaces (tests/systemd): by `systemctl
restart`, by SIGKILL and by the watchdog, each with a socket of its own and with gpudaemon.socket. Watchdog:
from the moment systemd declares the timeout. With the socket unit pages are asked for all the time, and
outcomes counted.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

import processes
from figures import flags, heading, show, spread

from tests.live.daemon import is_running, until
from tests.live.test_systemd import ENDS, SERVE, Scraper, first_page, hang, reader_of, ready_page, start
from tests.systemd.machine import ROOT, Machine, why_not


class Figures:
    """What the runs of one way took."""

    def __init__(self) -> None:
        self.metrics: list[float] = []
        self.ready: list[float] = []
        self.longest: list[float] = []
        self.outcomes: dict[str, int] = {}


def one(machine: Machine, engine: str, way: str, activated: bool, figures: Figures) -> None:
    """One end and one new start."""
    with machine.host("mi300x8", 8) as host:
        machine.configure(host, f"--engine={engine}", service="WatchdogSec=3" if way == "watchdog" else "")
        if activated:
            machine.run("systemctl", "start", "gpudaemon.socket")
        server = start(machine)
        reader = reader_of(machine, server)
        path = hang(machine, host)
        with Scraper(machine) if activated else contextlib.nullcontext() as scraper:
            since = time.time()
            began = ENDS[way](machine, server)
            taken = first_page(machine, server, began)
            ready_page(machine)
            figures.ready.append(time.time() - began)
        figures.metrics.append(taken)
        if taken > SERVE:
            print(machine.journal(since=since))
        if scraper is not None:
            figures.longest.append(scraper.longest)
            for outcome, number in scraper.outcomes.items():
                figures.outcomes[outcome] = figures.outcomes.get(outcome, 0) + number
        assert is_running(reader), "the old reader is not stuck: nothing was shown"
        host.control.release(path)
        until(lambda: not is_running(reader))


def main() -> None:
    _, arguments = flags(__doc__, runs=5, seconds=0, quick=(1, 0))
    if why_not():
        sys.exit(why_not())
    print(processes.machine())
    with Machine(Path(os.environ.get("GPUDAEMON_SOURCE", ROOT))) as machine:
        for engine in arguments.engines:
            for way in ENDS:
                for activated in (False, True):
                    figures = Figures()
                    for _ in range(arguments.runs):
                        one(machine, engine, way, activated, figures)
                    heading(f"{engine}, {way}, {'gpudaemon.socket' if activated else 'own socket'}")
                    spread("until the first /metrics", figures.metrics, "s", f"at most {SERVE}")
                    spread("until ready", figures.ready, "s")
                    if activated:
                        spread("longest wait of a scrape", figures.longest, "s")
                        refused = figures.outcomes.get("ConnectionRefusedError", 0)
                        show("connections refused", str(refused), "", "0", str(figures.outcomes))


if __name__ == "__main__":
    main()
