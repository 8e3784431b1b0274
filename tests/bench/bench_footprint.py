"""Memory with eight GPUs after a minute of scrapes, and the time from process start to ready.

    python tests/bench/bench_footprint.py [--seconds 60] [--runs 10]

Plain files, 1 Hz, a gzip scrape each second. Memory is the proportional set size of each process: a page that
n processes map counts 1/n to each, so the interpreter is shared with this bench too; Uss (pages nobody shares)
and Rss (every page) stand beside it. Start is from before fork and exec to the first 200 of /-/ready.
"""

import contextlib
import http.client
import tempfile
import time

import processes
from figures import flags, heading, show, spread
from processes import RunningDaemon
from scraper import Scraper

from gpudaemon.mock import build

MUST = {"server": 56.0, "reader": 32.0}
READY = 1.0
_GIVE_UP = 30.0


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def start(engine: str, directory: str) -> tuple[RunningDaemon, float]:
    """A daemon and the seconds it took to be ready."""
    chosen = ("--preset", "normal", "--engine", engine, "--log.level", "error")
    daemon = RunningDaemon(None, *chosen, sysfs=f"{directory}/sys", procfs=f"{directory}/proc", wait=0.0)
    began = time.monotonic()
    daemon.__enter__()
    while not ready(daemon.port):
        if time.monotonic() - began > _GIVE_UP:
            daemon.stop(force=True)
            raise SystemExit(f"not ready after {_GIVE_UP} s:\n{daemon.log}")
        time.sleep(0.002)
    return daemon, time.monotonic() - began


def main() -> None:
    _, arguments = flags(__doc__, runs=10, seconds=60, quick=(3, 10))
    print(processes.machine())
    with tempfile.TemporaryDirectory(prefix="gpudaemon-bench-") as directory:
        build("mi300x8", directory, 8)
        for engine in arguments.engines:
            heading(engine)
            taken = []
            for _ in range(arguments.runs):
                daemon, seconds = start(engine, directory)
                taken.append(seconds)
                daemon.stop()
            spread("start to ready", taken, "s", f"at most {READY}")
            daemon, _ = start(engine, directory)
            with contextlib.closing(Scraper(daemon.port)) as scraper, contextlib.ExitStack() as stack:
                stack.callback(daemon.stop)
                began = time.monotonic()
                while time.monotonic() - began < arguments.seconds:
                    scraper.page()
                    time.sleep(1.0)
                for name, pid in processes.of(daemon).items():
                    used = processes.memory(pid)
                    must = f"at most {MUST[name]:.0f}" if name in MUST else ""
                    note = f"Uss {used['Uss']:.1f}  Rss {used['Rss']:.1f}"
                    show(f"{name}, Pss after {arguments.seconds:.0f} s", used["Pss"], "MiB", must, note)


if __name__ == "__main__":
    main()
