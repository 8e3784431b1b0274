"""What must hold at every moment, whatever happens: looked at on each page the daemon serves.

A rule that is broken is noted with the moment, the device and what was seen; nothing is raised, so that one run
finds all there is. `checked` counts how often each rule had something to say: a rule that never looked proves
nothing.
"""

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gpudaemon.mock import Control
from gpudaemon.pipeline.derived import RULES
from tests.chaos.probed import Pace
from tests.chaos.series import COUNTERS, TRUTH, WIRING, DeviceSeries, is_identity, is_topology, is_value
from tests.chaos.world import World
from tests.live.daemon import Page

__all__ = ["Rules", "Violation"]

FRESH = 3.0
"""Seconds: values are younger than max(3 x their period, 3 s), and loads have a period of 1 s."""
PERIOD = 1.0
GONE = 1.0
"""Seconds from a removal, with its uevents, until no sample of the device is served."""
ASLEEP = 2.0
"""Seconds until a device's sleep has been seen: its power state is looked at each second."""
_DEVICE = re.compile(r'device="([^"]*)"')
_MOST = 200
_SLOWED = "gpudaemon_daemon_attribute_period_seconds{"
_WHILE_ASLEEP = (
    *("gpudaemon_device_", "gpudaemon_pci_power_state", "gpudaemon_trouble_events_total", *WIRING),
    # What the daemon counts itself stands still while a device sleeps; docs/windows.md.
    *(f"{rule.counter.name}{{" for rule in RULES),
)
_WHILE_ABSENT = ("gpudaemon_device_missing", "gpudaemon_device_health", "gpudaemon_trouble_events_total")


@dataclass(frozen=True, slots=True)
class Violation:
    """rule: its name. at: seconds from the start of the schedule."""

    rule: str
    at: float
    device: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.rule:10} {self.device}  {self.what}"


@dataclass(slots=True)
class Rules:
    """baseline: device -> series that are there when all is well, with the values of those that never
    change."""

    world: World
    series: dict[str, DeviceSeries]
    began: float
    control: Control
    pace: Pace
    baseline: dict[str, dict[str, float]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    before: Page = field(default_factory=Page)
    before_at: float = 0.0
    oldest: float = 0.0
    slacks: list[float] = field(default_factory=list)

    def learn(self, page: Page) -> None:
        """Take a page as one on which everything is well."""
        for device in self.world.devices:
            data = {name: value for name, value in page.of_device(device).items() if is_value(name)}
            self.baseline[device] = {
                name: value for name, value in data.items() if not is_identity(name) and not is_topology(name)
            }

    def broken(self, rule: str, device: str, what: str, at: float | None = None) -> None:
        """Note a violation."""
        if len(self.violations) < _MOST:
            moment = (time.monotonic() if at is None else at) - self.began
            self.violations.append(Violation(rule, moment, device, what))

    def look(self, page: Page, begin: float, end: float) -> None:
        """Look at a page that was asked for at `begin` and had come at `end`."""
        slack = self.pace.slack(begin, end)
        self.slacks.append(slack)
        by_device: dict[str, dict[str, float]] = {device: {} for device in self.world.devices}
        for name, value in page.items():
            match = _DEVICE.search(name)
            if match is not None and match[1] in by_device:
                by_device[match[1]][name] = value
        for device, found in by_device.items():
            self._complete(device, found, begin, end, slack)
            self._nothing(device, found, begin, end, slack)
            self._true(device, found, begin, end, slack)
        self._counters(page, begin, end)
        self.before, self.before_at = page, begin

    def forget(self) -> None:
        """The daemon is another one: nothing it counts goes on."""
        self.before = Page()

    # Rules

    def _complete(self, device: str, found: dict[str, float], begin: float, end: float, slack: float) -> None:
        """A healthy device has everything, and it is fresh."""
        if not self.world.is_well(device, begin - slack, end):
            return
        if slack > FRESH - PERIOD:
            # Values go when they are old, and here the machine alone may have made them so.
            self.checked["not looked at for the machine's sake"] += 1
            return
        self.checked["fresh"] += 1
        excused: set[str] = set()
        for path in self.world.excused_files(device, begin - FRESH, end):
            excused |= self.series[device].by_file.get(path, set())
        missing = [name for name in self.baseline[device] if name not in found and name not in excused]
        if missing:
            state = [name for name, value in found.items() if "_device_state{" in name and value == 1]
            self.broken("fresh", device, f"{len(missing)} series missing, such as {missing[0]}; {state}", begin)
        age = found.get(f'gpudaemon_device_data_age_seconds{{device="{device}"}}', 1e9)
        self.oldest = max(self.oldest, age if age < 1e9 else 0.0)
        if age > FRESH + slack:
            self.broken("fresh", device, f"data are {age:.2f} s old", begin)
        if found.get(f'gpudaemon_device_state{{device="{device}",state="ok"}}') != 1:
            state = [name for name, value in found.items() if "_device_state{" in name and value == 1]
            self.broken("fresh", device, f"not ok: {state}", begin)

    def _nothing(self, device: str, found: dict[str, float], begin: float, end: float, slack: float) -> None:
        """An absent or sleeping device has no sample but what says so and who it is."""
        log = self.world.logs[device]
        for rule, spans, margin, about in (
            ("absent", log.absent, GONE, _WHILE_ABSENT),
            ("asleep", log.asleep, ASLEEP, _WHILE_ASLEEP),
        ):
            if not self.world.inside(spans, begin, end, margin + slack):
                continue
            if self.world.is_down(begin - 3.0, end):
                continue
            self.checked[rule] += 1
            left = [
                name
                for name in found
                if is_value(name) and not is_identity(name) and not name.startswith(about)
            ]
            if rule == "asleep":
                left = [name for name in left if name not in self.series[device].constant]
            if left:
                self.broken(rule, device, f"{len(left)} samples, such as {left[:3]}", begin)

    def _true(self, device: str, found: dict[str, float], begin: float, end: float, slack: float) -> None:
        """No value that the model did not have within the time values are served."""
        late = self.world.may_be_late(device, begin - 55.0, end)
        if not late and any(name.startswith(_SLOWED) for name in found):
            # On a machine that is busy any file may be slow, and is then read less often: that is told.
            self.checked["slowed down by the machine"] += 1
            late = True
        known: dict[float, Any] = {}
        for name, how in TRUTH.items():
            value = found.get(name % device)
            if value is None:
                continue
            self.checked["true"] += 1
            oldest = 55.0 if late else self.series[device].oldest.get(name % device, 55.0)
            if oldest not in known:
                since = begin - min(55.0, oldest + slack)
                known[oldest] = self.control.truth(device, since=since, until=end)["ranges"]
            low, high = (float(one) * how.scale + how.offset for one in known[oldest][how.name])
            if not low - how.below <= value <= high + how.above:
                age = found.get(f'gpudaemon_device_data_age_seconds{{device="{device}"}}', -1.0)
                what = f"{name % device} is {value:g}, true is {low:g} to {high:g}"
                self.broken("true", device, f"{what}; age {age:.2f}, slack {slack:.2f}", begin)
        for name in self.series[device].still:
            value, ever = found.get(name), self.baseline[device].get(name)
            if value is not None and ever is not None:
                self.checked["still"] += 1
                if value != ever:
                    self.broken("true", device, f"{name} is {value:g}, ever was {ever:g}", begin)

    def _counters(self, page: Page, begin: float, end: float) -> None:
        """No counter falls but at a reset that the schedule made."""
        for name, old in self.before.items():
            if name.split("{", 1)[0] not in COUNTERS:
                continue
            value = page.get(name)
            if value is None:
                continue
            self.checked["counters"] += 1
            if value < old:
                match = _DEVICE.search(name)
                device = match[1] if match is not None else ""
                since = self.before_at - 60.0
                if not self.world.may_fall(device, since, end) and not self.world.may_wrap(
                    device, name, since, end
                ):
                    self.broken("counters", device, f"{name} fell from {old:.17g} to {value:.17g}", begin)
