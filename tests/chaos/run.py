"""One daemon against one host that goes wrong in every way, for a while.

    python -m tests.chaos.run --seed 7 --seconds 90 --engine io_uring

The host has 8 GPUs. What happens is drawn from the seed (`tests.chaos.schedule`); a real Prometheus scrapes
each second, and four times a second a page is looked at (`tests.chaos.rules`). Afterwards everything must be as
it was. Status 1 and one line for each violation where any rule was broken. `--json FILE` keeps the figures.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "bench")]

import processes  # noqa: E402

from gpudaemon.mock import HostProcess  # noqa: E402
from tests.chaos import probed  # noqa: E402
from tests.chaos.prometheus import Prometheus  # noqa: E402
from tests.chaos.rules import Rules  # noqa: E402
from tests.chaos.schedule import schedule  # noqa: E402
from tests.chaos.series import COUNTERS, is_value, of_devices  # noqa: E402
from tests.chaos.world import DaemonUnderTest, World, home, hurry  # noqa: E402
from tests.live.daemon import Page, RunningDaemon, until  # noqa: E402

GPUS = 8
QUIET = 8.0
"""Seconds before and after: the daemon is left alone with a host that is well."""
LOOP = (0.010, 0.025)
"""Must of docs/benchmarks.md: p99.9 and longest time that the event loop stands still."""
START = 5.0
"""Seconds after a start that do not count: modules are imported then."""
ANSWER = 1.0
"""Seconds for a page, Prometheus's own scrape_timeout here."""
MEMORY = 8.0
"""MiB that a process may have grown."""
SPARE = {"server": 4, "reader": 1, "launcher": 0}
"""Threads that may be more. Server: those of its pools start when one is first wanted, and stay; each has one
of our descriptors (`probed`). Reader: once another thread has taken the loop over, the first one only waits."""
_DATA = "gpudaemon_gpu_busy_ratio"


def _resources(daemon: RunningDaemon) -> dict[str, dict[str, float]]:
    found = {}
    for name, pid in processes.of(daemon).items():
        own, _ = processes.threads(pid)
        found[name] = {
            "descriptors": processes.descriptors(pid),
            "threads": own,
            "MiB": processes.memory(pid)["Anon"],
        }
    return found


def _settled(daemon: RunningDaemon, wanted: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    end = time.monotonic() + 10.0
    while True:
        found = _resources(daemon)
        counts = [
            {name: (one["descriptors"], one["threads"]) for name, one in all_.items()}
            for all_ in (found, wanted)
        ]
        if counts[0] == counts[1] or time.monotonic() > end:
            return found
        time.sleep(0.5)


class Looking(threading.Thread):
    """Scrapes as fast as four times a second, and looks."""

    def __init__(self, rules: Rules, daemon: DaemonUnderTest, world: World) -> None:
        super().__init__(daemon=True)
        self._rules = rules
        self._daemon = daemon
        self._world = world
        self.ended = threading.Event()
        self.slowest = 0.0
        self.pages = 0
        self.failed = 0

    def run(self) -> None:
        while not self.ended.wait(0.2):
            begin = time.monotonic()
            try:
                self._once(begin)
            except OSError as error:
                end = time.monotonic()
                self.failed += 1
                if not self._world.is_down(begin, end):
                    self._rules.broken("scrapes", "", f"{type(error).__name__}: {error}", begin)
                self._rules.forget()
            except Exception as error:  # a mistake of ours must not pass for a run without violations
                self._rules.broken("test", "", f"{type(error).__name__}: {error}", begin)

    def _once(self, begin: float) -> None:
        running = self._daemon.running
        if running is None:
            return
        status, text = running.get("/metrics", timeout=10.0)
        end = time.monotonic()
        if self._world.is_down(begin, end):
            self._rules.forget()
            return
        self.pages += 1
        self._rules.checked["scrapes"] += 1
        self.slowest = max(self.slowest, end - begin)
        if status != 200:
            self._rules.broken("scrapes", "", f"status {status}", begin)
            return
        if end - begin > ANSWER + self._rules.pace.slack(begin, end):
            self._rules.broken("scrapes", "", f"a page took {end - begin:.2f} s", begin)
        self._rules.look(Page.of(text), begin, end)


def _loop(world: World, control: str, starts: list[float]) -> dict[str, Any]:
    """How long the loop stood still, the machine's own pauses taken off."""
    machine = probed.read(control)
    stalls = [(at - late, at) for at, late, _ in machine if late > 0.005]
    own: list[tuple[float, float]] = []
    raw: list[float] = []
    for path, start in zip(world.daemon.pauses, starts, strict=True):
        for at, late, waited in probed.read(path):
            if at < start + START:
                continue
            raw.append(late)
            # Time stolen from the whole machine is in no run queue: the idle process beside saw it too.
            stolen = sum(
                max(0.0, min(at, e) - max(at - late, b)) for b, e in stalls if e > at - late and b < at
            )
            own.append((max(0.0, late - max(waited, stolen)), at))
    own.sort()
    raw.sort()
    beside = sorted(late for _, late, _ in machine)
    if not own or not beside:
        return {"pauses": 0}
    return {
        "pauses": len(own),
        "p99.9": own[int(len(own) * 0.999)][0],
        "longest": own[-1][0],
        "longest at": own[-1][1],
        "p99.9 with the machine's": raw[int(len(raw) * 0.999)],
        "longest with the machine's": raw[-1],
        "machine p99.9": beside[int(len(beside) * 0.999)],
        "machine longest": beside[-1],
    }


def _afterwards(prometheus: Prometheus, rules: Rules, world: World, seconds: float) -> dict[str, Any]:
    """What Prometheus has seen: gaps, counters that fell, samples of who was not there."""
    offset = time.time() - time.monotonic()
    rows = prometheus.samples('up{job="gpudaemon"}', seconds)
    samples = [(at - offset, value) for at, value in rows[0][1]] if rows else []
    failed = [moment for moment, value in samples if value != 1]
    for moment in failed:
        if not world.is_down(moment - 1.5, moment + 1.5) and rules.pace.slack(moment, moment) < ANSWER / 2:
            rules.broken("prometheus", "", "a scrape failed", moment)
    if len(samples) < 0.8 * seconds - 10:
        rules.broken("prometheus", "", f"only {len(samples)} scrapes in {seconds:.0f} s")
    rules.checked["prometheus"] += len(samples)
    counters = 0
    for device in world.devices:
        for labels, points in prometheus.samples(f'{{job="gpudaemon",device="{device}"}}', seconds):
            name = labels["__name__"]
            if name in COUNTERS:
                counters += 1
                _rises(rules, device, name, [(at - offset, value) for at, value in points])
            if name == _DATA:
                _nobody(rules, device, name, [at - offset for at, _ in points])
    rules.checked["prometheus counters"] += counters
    return {"scrapes": len(samples), "failed": len(failed), "counters": counters}


def _rises(rules: Rules, device: str, name: str, points: list[tuple[float, float]]) -> None:
    for (at, value), (later, after) in itertools.pairwise(points):
        if after >= value or rules.world.may_wrap(device, f"{name}{{", at - 60.0, later + 1.0):
            continue
        if not rules.world.may_fall(device, at - 60.0, later + 1.0):
            rules.broken("prometheus", device, f"{name} fell from {value:.17g} to {after:.17g}", later)


def _nobody(rules: Rules, device: str, name: str, moments: list[float]) -> None:
    log = rules.world.logs[device]
    for moment in moments:
        slack = rules.pace.slack(moment, moment)
        for spans, margin in ((log.absent, 1.5 + slack), (log.asleep, 2.5 + slack)):
            inside = rules.world.inside(spans, moment, moment, margin)
            if inside and not rules.world.is_down(moment - 3, moment):
                rules.broken("prometheus", device, f"{name} of an absent or sleeping device", moment)


def run(seed: int, seconds: float, engine: str) -> tuple[Rules, dict[str, Any], list[tuple[float, str, str]]]:
    """One run: what was broken, the figures, and what happened: (seconds, device, what)."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(home())
        host = stack.enter_context(HostProcess("mi300x8", GPUS, timeout=60.0))
        daemon = DaemonUnderTest(host, directory, engine)
        stack.callback(lambda: daemon.running and daemon.running.stop(force=True))
        stack.enter_context(probed.beside(f"{directory}/machine"))
        daemon.start()
        stats = host.control.stats()["devices"]
        devices = sorted(device for device, one in stats.items() if one["workload"])
        paths = {device: _path(host, device) for device in devices}
        world = World(host, daemon, devices, paths)
        assert daemon.running is not None
        pace = probed.Pace(f"{directory}/machine")
        control = stack.enter_context(world.control())
        rules = Rules(world, of_devices(host.sysfs), time.monotonic(), control, pace)
        prometheus = stack.enter_context(Prometheus(directory, daemon.port))
        until(lambda: bool(prometheus.ask('up{job="gpudaemon"} == 1')), 60.0)
        scraped = time.monotonic()
        time.sleep(QUIET)
        first = daemon.running.metrics()
        rules.learn(first)
        baseline = _resources(daemon.running)
        files = _files(rules.series[devices[0]].by_file)
        episodes = schedule(seed, seconds - 2 * QUIET, GPUS, files)
        looking = Looking(rules, daemon, world)
        rules.began = time.monotonic()
        looking.start()
        world.run(episodes, rules.began)
        until(lambda: all(span.end < time.monotonic() for span in world.down), 60.0)
        time.sleep(max(QUIET, rules.began + seconds - QUIET - time.monotonic()))
        looking.ended.set()
        looking.join(30.0)
        seen = _afterwards(prometheus, rules, world, time.monotonic() - scraped)
        _ended(rules, daemon, first, baseline)
        figures = _figures(rules, world, daemon, looking, f"{directory}/machine")
        figures |= {"prometheus": seen, "seed": seed, "seconds": seconds, "engine": engine}
        if looking.is_alive():
            rules.broken("test", "", "what looks at the pages did not end")
        for rule in ("scrapes", "fresh", "true", "counters", "prometheus", "prometheus counters"):
            if not rules.checked[rule]:
                rules.broken("test", "", f"{rule}: nothing was asked")
        for what in world.refused:
            rules.broken("schedule", "", what)
        daemon.stop()
    return rules, figures, [(at - rules.began, who, what) for at, who, what in world.events]


def _files(by_file: dict[str, set[str]]) -> list[str]:
    """Files that can fail: all that are read, the one that gives most first; not the power state itself."""
    files = [path for path in by_file if not path.startswith("power/") and by_file[path]]
    return sorted(files, key=lambda path: (-len(by_file[path]), path))


def _path(host: HostProcess, device: str) -> str:
    link = Path(host.sysfs, "bus/pci/devices", device)
    return str(link.resolve().relative_to(Path(host.directory).resolve()))


def _ended(rules: Rules, daemon: DaemonUnderTest, first: Page, baseline: dict[str, dict[str, float]]) -> None:
    """Everything is as it was."""
    running, world = daemon.running, rules.world
    assert running is not None
    found = _settled(running, baseline)
    page = running.metrics()
    for name, before in baseline.items():
        for what, value in before.items():
            rules.checked["baseline"] += 1
            allowed = value + (MEMORY if what == "MiB" else SPARE[name])
            if found[name][what] > allowed:
                files = processes.open_files(processes.of(running)[name])
                rules.broken("baseline", name, f"{what}: {value:g} before, {found[name][what]:g} after {files}")
    excused = set()
    for device in world.devices:
        for path in world.excused_files(device, time.monotonic(), time.monotonic()):
            excused |= rules.series[device].by_file.get(path, set())
    lost = {name for name in first if is_value(name) and not name.split("{")[0].endswith("_info")}
    lost = {name for name in lost - set(page) - excused if "_daemon_" not in name}
    new = {name for name in set(page) - set(first) if is_value(name) and "_info{" not in name}
    for name in sorted(lost)[:5]:
        rules.broken("baseline", "", f"lost {name}")
    for name in sorted(new)[:5]:
        rules.broken("baseline", "", f"new {name}")
    left = world.host.control.stats()["waiting"]
    if left:
        rules.broken("baseline", "", f"{len(left)} reads still wait, such as {left[0]['path']}")
    errors = [line for line in running.log.splitlines() if "Traceback" in line]
    errors += [line for log in daemon.logs for line in log.splitlines() if "Traceback" in line]
    if errors:
        rules.broken("baseline", "", f"{len(errors)} tracebacks in the log")


def _figures(
    rules: Rules, world: World, daemon: DaemonUnderTest, looking: Looking, control: str
) -> dict[str, Any]:
    starts = [probed.read(path)[0][0] if probed.read(path) else 0.0 for path in daemon.pauses]
    loop = _loop(world, control, starts)
    rules.checked["loop"] += int(loop["pauses"])
    if not loop["pauses"]:
        rules.broken("loop", "", "nothing was measured")
    elif loop["machine p99.9"] > LOOP[0]:
        # Where not even an idle process is on time, nothing can be said about a loop that works.
        rules.checked["loop not judged for the machine's sake"] += 1
    elif loop["p99.9"] > LOOP[0]:
        rules.broken("loop", "", f"p99.9 is {1e3 * loop['p99.9']:.1f} ms")
    elif loop["longest"] > LOOP[1]:
        rules.broken("loop", "", f"stood still for {1e3 * loop['longest']:.1f} ms", loop["longest at"])
    return {
        "episodes": dict(sorted(world.done.items())),
        "pages": looking.pages,
        "slowest page": looking.slowest,
        "oldest data of a healthy device": rules.oldest,
        "seconds held up by the machine, median and most": (
            statistics.median(rules.slacks or [0.0]),
            max(rules.slacks, default=0.0),
        ),
        "checked": dict(sorted(rules.checked.items())),
        "server starts": daemon.starts,
        "reader kills": daemon.reader_kills,
        "longest start of a program": max(world.start_seconds, default=0.0),
        "longest restart": max(world.restart_seconds, default=0.0),
        "woken by a read under way": world.rewoken,
        "loop": loop,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--engine", choices=("io_uring", "threads"), default="io_uring")
    parser.add_argument(
        "--nice", type=int, default=0, help="priority of all of it: -10 on a machine that is busy"
    )
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is not installed")
    if arguments.nice:
        with contextlib.suppress(PermissionError):
            os.setsid()
        os.nice(arguments.nice)
        hurry(os.getpid(), arguments.nice)
    print(f"seed {arguments.seed}, {arguments.seconds:.0f} s, {arguments.engine}", flush=True)
    rules, figures, events = run(arguments.seed, arguments.seconds, arguments.engine)
    for name, value in figures.items():
        print(f"{name}: {value}")
    for violation in sorted(rules.violations, key=lambda one: one.at):
        print(violation)
        for at, who, what in events:
            if who in ("", violation.device) and -1.0 < violation.at - at < 16.0:
                print(f"            {at:7.2f} s  {who} {what}")
    print(f"{len(rules.violations)} violated, {sum(rules.checked.values())} checks")
    if arguments.json:
        figures["violations"] = [asdict(one) for one in rules.violations]
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(1 if rules.violations else 0)


if __name__ == "__main__":
    main()
