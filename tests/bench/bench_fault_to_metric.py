"""How long a fault takes to be a metric: a hang, a removal, a reset, a throttled clock.

    python tests/bench/bench_fault_to_metric.py [--runs 20]

A live mock host with 8 GPUs that sends the kernel's uevents, read with the ordinary preset: each second. Faults
come at random moments, one GPU after the other; pages are asked for one after the other, and a fault is a
metric on the first page that says so. The moment of a throttle is that of the model's first step that
throttles.
"""

import inspect
import random
import re
import sys
import time
from collections.abc import Callable

import processes
from figures import flags, heading, percentile, show
from processes import RunningDaemon
from scraper import Scraper

from gpudaemon.mock import HostProcess

DEADLINE = 1.0
CADENCE = 1.0
LONGEST = 30.0
_GPU = re.compile(r'^gpudaemon_gpu_info\{device="([^"]+)"', re.MULTILINE)


class Bench:
    """One daemon and its host."""

    def __init__(self, host: HostProcess, daemon: RunningDaemon) -> None:
        self.host = host
        self._scraper = Scraper(daemon.port, compressed=False)
        self.devices = sorted(_GPU.findall(self.page()))

    def page(self) -> str:
        return self._scraper.page()

    def until(self, seen: Callable[[str], bool], began: float) -> float:
        """Seconds from `began` to the end of the first page on which it is seen."""
        while True:
            page = self.page()
            now = time.monotonic()
            if seen(page):
                return now - began
            if now - began > LONGEST:
                raise SystemExit(f"{inspect.getsource(seen).strip()}: not within {LONGEST:.0f} s")
            time.sleep(0.005)

    def hang(self, device: str) -> float:
        """A file stops answering."""
        path = f"sys/bus/pci/devices/{device}/mem_info_vram_used"
        began = time.monotonic()
        self.host.control.fault(path, "hang")
        took = self.until(lambda page: f'_state{{device="{device}",state="hung"}} 1' in page, began)
        self.host.control.release(path)
        self.well(device)
        return took

    def removal(self, device: str) -> float:
        """The device leaves."""
        began = time.monotonic()
        self.host.control.remove(device)
        took = self.until(lambda page: f'gpudaemon_gpu_busy_ratio{{device="{device}"' not in page, began)
        self.host.control.restore(device)
        self.well(device)
        return took

    def reset(self, device: str) -> float:
        """The driver gives up and says so."""
        began = time.monotonic()
        self.host.control.reset(device, 0.0, wedged="rebind")
        took = self.until(lambda page: f'_health{{device="{device}",state="ok"}} 0' in page, began)
        self.host.control.rebind(device)
        self.well(device)
        return took

    def throttle(self, device: str) -> float:
        """The clock goes down for the power's sake."""
        control = self.host.control
        counter = re.compile(
            rf'^gpudaemon_gpu_throttled_ticks_total\{{device="{device}",.*reason="ppt"\}} (\S+)', re.MULTILINE
        )
        control.workload(device, "idle")
        quiet = time.monotonic() + 2.5
        while time.monotonic() < quiet or self._throttled(device, time.monotonic() - 2.0):
            time.sleep(0.1)
        before = counter.findall(self.page())
        began = time.monotonic()
        control.workload(device, "thermal")
        took = self.until(
            lambda page: [float(one) for one in counter.findall(page)] > [*map(float, before)], began
        )
        first = began
        while not control.truth(device, until=first)["values"]["power_throttled"]:
            first += 0.1
        return began + took - first

    def _throttled(self, device: str, since: float) -> bool:
        return bool(self.host.control.truth(device, since=since)["ranges"]["power_throttled"][1])

    def well(self, device: str) -> None:
        """Wait until the device is read as ever."""
        self.until(
            lambda page: (
                f'_state{{device="{device}",state="ok"}} 1' in page
                and f'gpudaemon_gpu_busy_ratio{{device="{device}"' in page
            ),
            time.monotonic(),
        )


def report(name: str, taken: list[float], most: float, must: str) -> None:
    show(f"{name}, median", percentile(taken, 0.5), "s")
    show(f"{name}, p90", percentile(taken, 0.9), "s")
    show(f"{name}, longest", max(taken), "s", f"{must}: {most:g}", f"of {len(taken)}")
    print("    " + " ".join(f"{one:.3f}" for one in sorted(taken)))


def main() -> None:
    _, arguments = flags(__doc__, runs=20, seconds=0, quick=(5, 0))
    print(processes.machine())
    for engine in arguments.engines:
        heading(f"{engine}, {arguments.runs} of each")
        chosen = ("--engine", engine, "--log.level", "error")
        with (
            HostProcess("mi300x8", 8) as host,
            RunningDaemon(host, *chosen, uevents=f"socket:{host.uevents}") as daemon,
        ):
            bench = Bench(host, daemon)
            time.sleep(8.0)
            source = random.Random(1)
            for name, fault, most, must in (
                ("hang", bench.hang, DEADLINE + CADENCE, "deadline and cadence"),
                ("removal", bench.removal, 0.1, "one uevent"),
                ("reset", bench.reset, 0.1, "one uevent"),
                ("throttle", bench.throttle, CADENCE + 0.1, "one cadence"),
            ):
                taken = []
                for number in range(arguments.runs):
                    time.sleep(source.uniform(0.3, 1.3))
                    taken.append(fault(bench.devices[number % len(bench.devices)]))
                report(name, taken, most, must)


if __name__ == "__main__":
    sys.exit(main())
