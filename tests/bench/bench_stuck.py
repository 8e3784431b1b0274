"""One of eight GPUs stuck in its driver: how old the data of the others gets, and how long a scrape waits.

    python tests/bench/bench_stuck.py [--seconds 30] [--runs 1]

A live mock host whose reads hang in D state, 1 Hz. The same daemon is scraped ten times a second, first with
every GPU healthy, then with one stuck. Ages are gpudaemon_device_data_age_seconds of the healthy GPUs.
"""

import re
import statistics
import sys
import time

import processes
from figures import flags, heading, percentile, show
from processes import RunningDaemon
from scraper import Scraper

from gpudaemon.mock import HostProcess

CADENCE = 1.0
SLACK = 0.25
RATE = 10.0
SICK = "card3"
_AGE = re.compile(r'^gpudaemon_device_data_age_seconds\{device="([^"]+)"\} (\S+)$', re.MULTILINE)
_GPU = re.compile(r'^gpudaemon_gpu_info\{device="([^"]+)"', re.MULTILINE)
_STATE = re.compile(r'^gpudaemon_device_state\{device="([^"]+)",state="(\w+)"\} 1$', re.MULTILINE)


def watch(scraper: Scraper, seconds: float, but: str) -> tuple[list[float], list[float], dict[str, str]]:
    """(waits for pages, ages of GPUs other than `but`, last states) over `seconds` at RATE."""
    waits: list[float] = []
    ages: list[float] = []
    page = ""
    due = began = time.monotonic()
    while due < began + seconds:
        page = scraper.page()
        waits.append(scraper.seconds)
        gpus = set(_GPU.findall(page))
        ages += [float(age) for device, age in _AGE.findall(page) if device in gpus and device != but]
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
    return waits, ages, dict(_STATE.findall(page))


def report(name: str, waits: list[float], ages: list[float], must: bool, limit: float = 0.0) -> None:
    show(f"{name}, wait for a page, median", 1e3 * statistics.median(waits), "ms")
    show(
        f"{name}, wait for a page, p99",
        1e3 * percentile(waits, 0.99),
        "ms",
        f"at most {1e3 * limit:.1f}" if limit else "",
        f"of {len(waits)}",
    )
    show(f"{name}, wait for a page, longest", 1e3 * max(waits), "ms")
    show(f"{name}, age of healthy data, p99", percentile(ages, 0.99), "s")
    show(
        f"{name}, age of healthy data, oldest",
        max(ages),
        "s",
        f"at most {CADENCE + SLACK}" if must else "",
        f"of {len(ages)}",
    )


def one(engine: str, seconds: float) -> bool:
    """A healthy and a sick spell of one daemon; whether the sick GPU was seen as hung and came back."""
    with (
        HostProcess("mi300x8", 8) as host,
        RunningDaemon(host, "--preset", "normal", "--engine", engine, "--log.level", "error") as daemon,
    ):
        scraper = Scraper(daemon.port)
        time.sleep(5.0)
        waits, ages, states = watch(scraper, seconds, "")
        report("healthy", waits, ages, True)
        limit = max(1.5 * percentile(waits, 0.99), percentile(waits, 0.99) + 0.005)
        path = f"sys/class/drm/{SICK}/device/gpu_metrics"
        known = {device for device, state in states.items() if state == "ok"}
        host.control.fault(path, "hang")
        hung = daemon.until(lambda: bool(_hung(scraper)), 15.0)
        sick = _hung(scraper)[0]
        show("until the sick one is quarantined", hung, "s")
        waits, ages, states = watch(scraper, seconds, sick)
        report("one stuck", waits, ages, True, limit)
        show("GPUs and others seen as hung", str(list(states.values()).count("hung")), "", "1")
        host.control.release(path)
        back = daemon.until(lambda: (sick, "ok") in _STATE.findall(scraper.page()), 15.0)
        show("until it is read again after release", back, "s")
        return sick in known and list(states.values()).count("hung") == 1


def _hung(scraper: Scraper) -> list[str]:
    return [device for device, state in _STATE.findall(scraper.page()) if state == "hung"]


def main() -> None:
    _, arguments = flags(__doc__, runs=1, seconds=30, quick=(1, 10))
    print(processes.machine())
    good = True
    for engine in arguments.engines:
        for run in range(arguments.runs):
            heading(f"{engine}, run {run + 1}")
            good &= one(engine, arguments.seconds)
    if not good:
        sys.exit("the stuck GPU was not seen as such")


if __name__ == "__main__":
    main()
