"""500 times a GPU goes and comes back: nothing may be left over, and both must be seen at once.

    python tests/bench/bench_removal.py [--runs 500]

A live mock host with 8 GPUs that sends the kernel's uevents; the cycles go round all of them. Gone is when a
page has no series of the GPU but what names it as missing, back when it has as many as before. Growth is that
of heaps and shared memory: pages of libraries are shared with any other interpreter that happens to run.
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

BACK = 1.0
GROWTH = 1.0
WARM_UP = 50
_GPU = re.compile(r'^gpudaemon_gpu_info\{device="([^"]+)"', re.MULTILINE)
_SERIES = re.compile(r"^[^#\n].*(?= \S+$)", re.MULTILINE)


class Page:
    """The series of a page, those of one GPU apart."""

    def __init__(self, text: str) -> None:
        self.series = set(_SERIES.findall(text))

    def data(self, device: str) -> set[str]:
        """Series of the GPU's own values."""
        found = {series for series in self.series if f'device="{device}"' in series}
        named = ("gpudaemon_daemon_", "gpudaemon_device_", "gpudaemon_gpu_info{", "gpudaemon_pci_info{")
        return {series for series in found if not series.startswith(named)}

    def of_devices(self) -> set[str]:
        """Every series but counters of the daemon that appear when what they count first happens."""
        return {series for series in self.series if not series.startswith("gpudaemon_daemon_")}


def counts(daemon: RunningDaemon) -> dict[str, tuple[int, int]]:
    """Descriptors and own threads of each process."""
    return {
        name: (processes.descriptors(pid), processes.threads(pid)[0])
        for name, pid in processes.of(daemon).items()
    }


def unchanged(daemon: RunningDaemon) -> dict[str, tuple[int, int]]:
    """The counts, once they have stood still for three seconds."""
    found, since = counts(daemon), time.monotonic()
    while time.monotonic() - since < 3.0:
        time.sleep(0.25)
        if (now := counts(daemon)) != found:
            found, since = now, time.monotonic()
    return found


def settled(daemon: RunningDaemon, wanted: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The counts, once they are as wanted or have had time enough to become so."""
    end = time.monotonic() + 15.0
    while (found := counts(daemon)) != wanted and time.monotonic() < end:
        time.sleep(0.5)
    return found


class Cycle:
    """Removes and restores GPUs and keeps how long it took to be seen."""

    def __init__(self, host: HostProcess, daemon: RunningDaemon) -> None:
        self._host = host
        self._scraper = Scraper(daemon.port, compressed=False)
        self.gone: list[float] = []
        self.back: list[float] = []
        self.scrapes: list[int] = []

    def page(self) -> Page:
        return Page(self._scraper.page())

    def run(self, device: str, complete: set[str]) -> None:
        """One removal and one return."""
        assert self._host.control.remove(device) > 0, "nobody receives the uevents"
        began = time.monotonic()
        scrapes = 1
        while self.page().data(device):
            scrapes += 1
            if time.monotonic() - began > 10:
                raise SystemExit(f"series of {device} are still there 10 s after its removal")
        self.gone.append(time.monotonic() - began)
        self.scrapes.append(scrapes)
        self._host.control.restore(device)
        began = time.monotonic()
        while not complete <= self.page().data(device):
            if time.monotonic() - began > 30:
                left = sorted(complete - self.page().data(device))
                raise SystemExit(f"{len(left)} series of {device} not back after 30 s, such as {left[0]}")
            time.sleep(0.005)
        self.back.append(time.monotonic() - began)


def one(engine: str, cycles: int) -> bool:
    """The cycles of one daemon; whether everything is as before."""
    with HostProcess("mi300x8", 8) as host:
        source = f"socket:{host.uevents}"
        chosen = ("--engine", engine, "--log.level", "error")
        with RunningDaemon(host, *chosen, uevents=source) as daemon:
            cycle = Cycle(host, daemon)
            time.sleep(8.0)
            gpus = sorted(_GPU.findall(Scraper(daemon.port).page()))
            complete = {device: cycle.page().data(device) for device in gpus}
            # Some first: they start the threads and load the modules that stay from then on.
            for number in range(min(WARM_UP, cycles)):
                cycle.run(gpus[number % len(gpus)], complete[gpus[number % len(gpus)]])
            before = unchanged(daemon)
            series = cycle.page().of_devices()
            files = processes.open_files(daemon.reader)
            early = {name: processes.memory(pid) for name, pid in processes.of(daemon).items()}
            course: dict[str, list[float]] = {name: [] for name in early}
            for number in range(cycles):
                device = gpus[number % len(gpus)]
                cycle.run(device, complete[device])
                if (number + 1) % max(1, cycles // 5) == 0:
                    for name, pid in processes.of(daemon).items():
                        course[name].append(processes.memory(pid)["Anon"] - early[name]["Anon"])
            after = settled(daemon, before)
            end = time.monotonic() + 10.0
            while (found := cycle.page().of_devices()) != series and time.monotonic() < end:
                time.sleep(0.5)
            report(cycle, before, after)
            opened = processes.open_files(daemon.reader)
            for name in sorted(files | opened):
                if files[name] != opened[name]:
                    print(f"    reader, {name}: {files[name]} before, {opened[name]} after")
            for name, pid in processes.of(daemon).items():
                late = processes.memory(pid)
                grown = {kind: late[kind] - early[name][kind] for kind in ("Anon", "Pss", "Uss")}
                must = f"under {GROWTH}" if name != "launcher" else ""
                note = f"Pss {grown['Pss']:+.2f}  Uss {grown['Uss']:+.2f}  Pss now {late['Pss']:.1f}"
                show(f"{name}, growth after {WARM_UP} cycles", grown["Anon"], "MiB", must, note)
                print(f"    on the way: {', '.join(f'{one:+.2f}' for one in course[name])}")
            lost, new = series - found, found - series
            show("series lost / new", f"{len(lost)}/{len(new)}", "", "0/0", f"of {len(series)}")
            for one_series in (*sorted(lost)[:5], *sorted(new)[:5]):
                print(f"    {one_series}")
            return after == before and not lost and not new


def report(cycle: Cycle, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    show("removal to series gone, median", statistics.median(cycle.gone) * 1e3, "ms")
    show("removal to series gone, longest", max(cycle.gone) * 1e3, "ms", "", f"of {len(cycle.gone)}")
    first = cycle.scrapes.count(1) / len(cycle.scrapes)
    show("gone on a page asked for at once", 100 * first, "%")
    show("scrapes until gone, most", str(max(cycle.scrapes)), "", "the next one")
    show("return to series there, median", statistics.median(cycle.back), "s")
    show("return to series there, p99", percentile(cycle.back, 0.99), "s")
    show("return to series there, longest", max(cycle.back), "s", f"at most {BACK}")
    for name in before:
        for what, place in (("descriptors", 0), ("threads", 1)):
            pair = f"{before[name][place]}/{after[name][place]}"
            show(f"{name}, {what} before / after", pair, "", "the same")


def main() -> None:
    _, arguments = flags(__doc__, runs=500, seconds=0, quick=(60, 0))
    print(processes.machine())
    good = True
    for engine in arguments.engines:
        heading(f"{engine}, {arguments.runs} cycles")
        good &= one(engine, arguments.runs)
    if not good:
        sys.exit("something is left over or missing")


if __name__ == "__main__":
    main()
