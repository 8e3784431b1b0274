"""What windows and energy make of power spikes that come at any phase, against the programme the GPUs followed.

    python tests/bench/bench_windows.py [--gpus 10] [--spikes 300] [--engine ENGINE] [--period 0.05]

A live mock host: each GPU idles, and once in each window of 15 s draws 150 to 650 W more for 70 to 330 ms, from
a random moment on; reads answer up to `--jitter` seconds late. One daemon per engine reads it, all at the same
time, 20 times a second. Each is scraped two seconds after the end of each window, and what it says of that
window is compared with the programme. Energy is the difference between a scrape just before the programme
begins and the last one. The daemons read power only, and what goes with it: the host is one
Python process, and it is not to be what limits them.
"""

import argparse
import contextlib
import errno
import random
import re
import time
from collections.abc import Mapping

import processes
from processes import RunningDaemon, cpu_seconds

from gpudaemon.mock import HostProcess, Schedule, Sensor

LENGTH = 15.0
IDLE = 90.0
MUST_RIGHT, MUST_ENERGY = 0.95, 0.05
_FLAGS = ("--metric.include", "gpudaemon_(gpu_(power|energy|info)|device|daemon)_.*", "--preset", "fast")
_DEVICE = re.compile(r'device="([^"]+)"')

Series = Mapping[str, float]


def programme(windows: int, first: float, chance: random.Random) -> Schedule:
    """One spike in each of `windows`, anywhere in it but across its ends; `first` is when the first begins."""
    pulses = []
    for number in range(windows):
        length = chance.uniform(0.07, 0.33)
        start = first + number * LENGTH + chance.uniform(0.2, LENGTH - 0.2 - length)
        pulses.append((start, length, IDLE + chance.randint(150, 650)))
    return Schedule(IDLE, tuple(pulses))


def by_device(page: Series, name: str, *labels: str) -> dict[str, float]:
    """One value a device: of the series of that name that have these labels."""
    found = {}
    for series, value in page.items():
        if series.startswith(f"{name}{{") and all(label in series for label in labels):
            match = _DEVICE.search(series)
            assert match is not None
            found[match.group(1)] = value
    return found


class Watched:
    """One daemon, and what it said of each window."""

    def __init__(self, engine: str, daemon: RunningDaemon) -> None:
        self.engine = engine
        self.daemon = daemon
        self.pids = [daemon.pid, daemon.reader]
        self.maxima: list[dict[str, float]] = []
        self.energy: list[tuple[dict[str, float], dict[str, float]]] = []
        self.cpu = cpu_seconds(self.pids)
        self.page: Series = {}

    def look(self) -> None:
        """Scrape: energy with the moment of its last reading, and the window that ended last."""
        self.page = page = self.daemon.metrics()
        now = time.monotonic()
        ages = by_device(page, "gpudaemon_device_data_age_seconds")
        self.energy.append(
            (
                by_device(page, "gpudaemon_gpu_energy_joules_total"),
                {device: now - age for device, age in ages.items()},
            )
        )
        self.maxima.append(by_device(page, "gpudaemon_gpu_power_window_maximum_watts", 'window="15s"'))

    def report(self, truth: Mapping[str, Schedule], seconds: float, period: float) -> bool:
        """Print what was seen of `truth`; True where all that must be reached is."""
        found: dict[str, list[bool]] = {"long": [], "short": []}
        absent = 0
        # The first scrape is before the programme, the second in its first window.
        for number, maxima in enumerate(self.maxima[2:]):
            for device, schedule in truth.items():
                _, length, height = schedule.pulses[number]
                seen = maxima.get(device)
                absent += seen is None
                right = seen is not None and abs(seen - height) <= 1
                found["long" if length >= 2 * period else "short"].append(right)
        (joules0, at0), (joules1, at1) = self.energy[0], self.energy[-1]
        errors = {}
        seen_sum = true_sum = 0.0
        for device, schedule in truth.items():
            true = sum(length * (height - IDLE) for _, length, height in schedule.pulses)
            seen_above = joules1[device] - joules0[device] - IDLE * (at1[device] - at0[device])
            errors[device] = seen_above / true - 1
            seen_sum, true_sum = seen_sum + seen_above, true_sum + true
        share = sum(found["long"]) / len(found["long"])
        error = seen_sum / true_sum - 1
        missed = sum(by_device(self.page, "gpudaemon_daemon_ticks_missed_total").values())
        cpu = 100 * (cpu_seconds(self.pids) - self.cpu) / seconds
        worst = max(abs(one) for one in errors.values())
        short = f"{sum(found['short'])} of {len(found['short'])}"
        print(f"{self.engine}: window maximum right (1 W)")
        print(
            f"  spikes of two periods or more {100 * share:6.1f} % of {len(found['long'])}"
            f"   must reach {100 * MUST_RIGHT:.0f} %"
        )
        print(f"  shorter spikes                {short}; windows without figures: {absent}")
        print(
            f"  energy above idle, all GPUs   {100 * error:+6.2f} %   must be within {100 * MUST_ENERGY:.0f} %"
        )
        print(f"  worst single GPU              {100 * worst:6.2f} %; readings lost {missed:.0f}")
        print(f"  server and reader             {cpu:6.1f} % of a core")
        return share >= MUST_RIGHT and abs(error) <= MUST_ENERGY


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--gpus", type=int, default=10)
    parser.add_argument("--spikes", type=int, default=300)
    parser.add_argument("--period", type=float, default=0.05)
    parser.add_argument("--jitter", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", dest="engines", action="append", choices=processes.ENGINES)
    arguments = parser.parse_args()
    print(processes.machine())
    windows = -(-arguments.spikes // arguments.gpus)
    chance = random.Random(arguments.seed)
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(HostProcess("mi300x8", arguments.gpus))
        # What is driven is the text file: without the firmware's table the daemon reads that.
        host.control.fault("*/gpu_metrics", "read_errno", errno=errno.EOPNOTSUPP)
        watched = []
        for engine in arguments.engines or processes.ENGINES:
            flags = ("--engine", engine, "--period.fast", str(arguments.period), *_FLAGS)
            watched.append(Watched(engine, stack.enter_context(RunningDaemon(host, *flags))))
        devices = [id_ for id_, one in watched[0].daemon.devices().items() if one["kind"] == "gpu"]
        offset = time.time() - time.monotonic()
        # The first full window that follows is watched idle; the programme begins with the one after.
        first = ((time.time() + 2) // LENGTH + 2) * LENGTH - offset
        truth = {}
        for device in devices:
            truth[device] = programme(windows, first, chance)
            path = f"sys/bus/pci/devices/{device}/hwmon/hwmon*/power1_input"
            host.control.drive(path, truth[device], Sensor(scale=1e6), since=0.0)
            host.control.fault(path, "jitter", seconds=arguments.jitter)
        began = time.monotonic()
        moments = (first - 0.5, *(first + number * LENGTH + 2 for number in range(windows + 1)))
        for moment in moments:
            time.sleep(max(0.0, moment - time.monotonic()))
            for one in watched:
                one.look()
        seconds = time.monotonic() - began
        results = [one.report(truth, seconds, arguments.period) for one in watched]
    if not all(results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
