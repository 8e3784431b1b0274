"""What each preset costs: CPU of the whole daemon, readings and series, with eight moving GPUs.

    python tests/bench/bench_presets.py [--seconds 60] [--runs 3]

Baseline: the preset `scrape` in the same run. Beside the presets stands `fast` at 20 Hz (--period.fast 0.05).
The GPUs are a mock host's whose values move at every reading, so that nothing is saved because it stayed the
same; its own CPU time is not counted. A gzip scrape each 15 s; all processes are counted, kernel workers too.
"""

import re
import statistics
import time

import processes
from figures import flags, heading, show
from processes import Page, RunningDaemon, cpu_seconds
from scraper import Scraper

from gpudaemon.mock import HostProcess

PRESETS = {
    "scrape": ("--preset", "scrape"),
    "normal": ("--preset", "normal"),
    "fast": ("--preset", "fast"),
    "fast, 20 Hz": ("--preset", "fast", "--period.fast", "0.05"),
}
_PERIOD = 15.0
_READS = re.compile(r"gpudaemon_daemon_reads_total\{.*outcome=\"ok\"\}")


def reads(page: str) -> float:
    """Good readings of files so far."""
    return sum(value for series, value in Page.of(page).items() if _READS.fullmatch(series))


def one(chosen: tuple[str, ...], engine: str, seconds: float) -> dict[str, float]:
    """One daemon: % of a core, readings a second, series."""
    with (
        HostProcess("mi300x8") as host,
        RunningDaemon(host, *chosen, "--engine", engine, "--log.level", "error") as daemon,
    ):
        scraper = Scraper(daemon.port)
        # Past the start and the scan 5 s after it.
        time.sleep(8.0)
        first, pids = reads(scraper.page()), processes.of(daemon)
        time.sleep(1.0)
        before = {name: cpu_seconds([pid]) for name, pid in pids.items()}
        began = time.monotonic()
        for number in range(max(1, int(seconds // _PERIOD))):
            time.sleep(max(0.0, began + (number + 0.5) * _PERIOD - time.monotonic()))
            page = scraper.page()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        spent = {name: cpu_seconds([pid]) - before[name] for name, pid in pids.items()}
        taken = time.monotonic() - began
        page = scraper.page()
        found = {name: 100 * value / taken for name, value in spent.items()}
        return {
            **found,
            "all": sum(found.values()),
            "readings": (reads(page) - first) / (taken + 1.0),
            "series": sum(not line.startswith("#") for line in page.splitlines()),
        }


def main() -> None:
    _, arguments = flags(__doc__, runs=3, seconds=60, quick=(1, 15))
    print(processes.machine())
    for engine in arguments.engines:
        heading(f"{engine}, {arguments.seconds:.0f} s each, median of {arguments.runs}")
        baseline = 0.0
        for name, chosen in PRESETS.items():
            runs = [one(chosen, engine, arguments.seconds) for _ in range(arguments.runs)]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            baseline = baseline or median["all"]
            note = ", ".join(f"{key} {median[key]:.2f}" for key in ("server", "reader", "launcher"))
            note += f"; {median['readings']:.0f} readings a second, {median['series']:.0f} series"
            show(name, median["all"], "% core", f"{median['all'] / baseline:.1f} x scrape", note)


if __name__ == "__main__":
    main()
