"""An idle GPU with autosuspend falls asleep although it is watched, and is not woken by it.

    python tests/bench/bench_sleep.py [--seconds 600]

A live mock host with one card whose every read restarts its autosuspend timer of 5 s (amdgpu up to Linux 6.12)
and wakes it when asleep. All collectors on, 1 Hz, a gzip scrape each 15 s; both engines at once, each with a
host of its own. The host counts the accesses that reach the card.
"""

import contextlib
import sys
import time

import processes
from figures import flags, heading, show
from processes import Page, RunningDaemon
from scraper import Scraper

from gpudaemon.mock import HostProcess

ASLEEP = 30.0
PERIOD = 15.0
_IDLE_FILES = "sys/devices/*busy_percent"


class Watched:
    """One engine with its host: what became of the card."""

    def __init__(self, engine: str, host: HostProcess, daemon: RunningDaemon, card: str) -> None:
        self.engine = engine
        self.card = card
        self._host = host
        self._scraper = Scraper(daemon.port)
        self.asleep = 0.0
        self.accesses = 0
        self.seen = 0
        self.late = 0
        self.wakes = 0
        self.pages = 0
        self.states: set[str] = set()
        self.wrong_states: set[str] = set()

    def look(self, elapsed: float) -> None:
        """Ask the host once."""
        device = self._host.control.stats()["devices"][self.card]
        self.seen = int(device["accesses"])
        self.wakes = int(device["suspended_accesses"])
        if not self.asleep and device["runtime_status"] == "suspended":
            self.asleep = elapsed
            self.accesses = self.seen

    def scrape(self) -> None:
        """A page; once the card sleeps it must say so and show none of its values."""
        page = Page.of(self._scraper.page())
        self.pages += 1
        if self.asleep:
            self.states |= set(page.states(self.card))
            if f'gpudaemon_gpu_busy_ratio{{device="{self.card}",engine="gfx"}}' in page:
                self.wrong_states.add("values of a sleeping card")

    def report(self, seconds: float) -> bool:
        heading(f"{self.engine}, {seconds:.0f} s")
        must = f"at most {ASLEEP:.0f}"
        show("start of the daemon to asleep", self.asleep if self.asleep else "never", "s", must)
        show("accesses until asleep", str(self.accesses))
        show("accesses afterwards", str(self.seen - self.accesses if self.asleep else self.seen), "", "0")
        show("accesses that woke it", str(self.wakes), "", "0")
        show("pages meanwhile", str(self.pages), "", str(int(seconds // PERIOD)))
        show("states shown while asleep", ",".join(sorted(self.states)) or "-", "", "suspended")
        for text in self.wrong_states:
            print(f"    {text}")
        quiet = bool(self.asleep) and self.seen == self.accesses
        return quiet and self.states == {"suspended"} and not self.wrong_states


def main() -> None:
    _, arguments = flags(__doc__, runs=1, seconds=600, quick=(1, 60))
    print(processes.machine())
    good = True
    for _ in range(arguments.runs):
        with contextlib.ExitStack() as stack:
            hosts = {engine: stack.enter_context(HostProcess("rx7900xtx")) for engine in arguments.engines}
            for host in hosts.values():
                host.control.fault(_IDLE_FILES, "content", content=b"0\n")
            began = time.monotonic()
            watched = []
            for engine, host in hosts.items():
                daemon = RunningDaemon(host, "--engine", engine, "--log.level", "error")
                stack.enter_context(daemon)
                (card,) = [
                    device
                    for device, found in host.control.stats()["devices"].items()
                    if found["accesses"] and device.endswith("03:00.0")
                ]
                watched.append(Watched(engine, host, daemon, card))
            watch(watched, began, arguments.seconds)
            for each in watched:
                good &= each.report(arguments.seconds)
    if not good:
        sys.exit("the card was kept awake or woken")


def watch(watched: list[Watched], began: float, seconds: float) -> None:
    next_page = 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        for each in watched:
            each.look(elapsed)
            if elapsed >= next_page:
                each.scrape()
        if elapsed >= next_page:
            next_page += PERIOD
        time.sleep(0.5)


if __name__ == "__main__":
    main()
