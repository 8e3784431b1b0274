"""CPU of the whole daemon on the steady load, in % of one core, with a gzip scrape each 15 s and without.

    python tests/bench/bench_whole.py [--seconds 60] [--runs 3]

500 attributes at 1 Hz and 80 at 10 Hz of this machine's own sysfs in 8 lanes. Everything is as in production:
HTTP, snapshots, events, reader, launcher; all processes are counted, kernel workers too. Only the devices are
made up (whole_daemon.py), since a machine without a GPU has none.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import processes
from figures import flags, heading, show, spread
from processes import Page, children, cpu_seconds
from scraper import Scraper

MUST = {"io_uring": 3.0, "threads": 2.5}
RATE = 500 + 10 * 80
PERIOD = 15.0
_READS = re.compile(r'gpudaemon_daemon_reads_total\{device="lane\d+",outcome="ok"\}')


def reads(page: str) -> float:
    """Good reads so far."""
    return sum(value for series, value in Page.of(page).items() if _READS.fullmatch(series))


def spell(pids: list[int], scraper: Scraper, seconds: float, *, scraped: bool) -> tuple[list[float], float]:
    """(% of a core by process, reads a second) over `seconds`."""
    first = reads(scraper.page())
    # What the first page left behind (the connection, a compressing thread) does not belong to the spell.
    time.sleep(1.0)
    before = [cpu_seconds([pid]) for pid in pids]
    began = time.monotonic()
    if scraped:
        for number in range(int(seconds // PERIOD)):
            time.sleep(max(0.0, began + (number + 0.5) * PERIOD - time.monotonic()))
            scraper.page()
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    after = [cpu_seconds([pid]) for pid in pids]
    taken = time.monotonic() - began
    rate = (reads(scraper.page()) - first) / (taken + 1.0)
    return [100 * (b - a) / taken for a, b in zip(before, after, strict=True)], rate


def one(engine: str, seconds: float) -> dict[str, list[float]]:
    """One daemon: figures by name."""
    command = [sys.executable, str(Path(__file__).with_name("whole_daemon.py")), "0", engine]
    # The reader is a further interpreter; the package may be a checkout that is not installed.
    packages = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": packages},
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the daemon did not start")
            scraper = Scraper(int(line.rsplit(":", 1)[1]))
            # Past the scans that follow the first one, 5 s after it; those at 30 and 120 s are counted.
            time.sleep(10.0)
            found = f'gpudaemon_daemon_engine_info{{engine="{engine}"'
            if found not in scraper.page():
                raise SystemExit(f"the reader does not use {engine}")
            pids = [process.pid, *children(process.pid)]
            pids += [pid for parent in pids[1:] for pid in children(parent)]
            if len(pids) != 3:
                raise SystemExit(f"{len(pids)} processes, not server, launcher and reader")
            quiet, rate = spell(pids, scraper, seconds, scraped=False)
            busy, rate_scraped = spell(pids, scraper, seconds, scraped=True)
        finally:
            process.terminate()
            process.wait(15)
    return {"quiet": quiet, "scraped": busy, "rate": [rate, rate_scraped]}


def main() -> None:
    _, arguments = flags(__doc__, runs=3, seconds=60, quick=(1, 15))
    print(processes.machine())
    short = False
    for engine in arguments.engines:
        runs = [one(engine, arguments.seconds) for _ in range(arguments.runs)]
        heading(f"{engine}, {arguments.seconds:.0f} s each")
        for kind, must in (("scraped", f"at most {MUST[engine]}"), ("quiet", "")):
            name = "with a scrape each 15 s" if kind == "scraped" else "without scrapes"
            spread(f"whole daemon, {name}", [sum(run[kind]) for run in runs], "% core", must)
            for place, process in enumerate(("server", "launcher", "reader")):
                spread(f"  {process}", [run[kind][place] for run in runs], "% core")
        rate = min(min(run["rate"]) for run in runs)
        short |= rate < 0.95 * RATE
        show("good reads a second, fewest", rate, "", f"{RATE}")
    if short:
        sys.exit("not every attribute was read at its rate")


if __name__ == "__main__":
    main()
