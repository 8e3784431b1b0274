"""Jobs as the kernel's histograms have added them up: see `recipes.FPROBE`.

A histogram's totals begin at zero when it is armed; what each reading has more than the one before is added.
"""

import errno
import re
from collections.abc import Mapping

from gpudaemon.collectors.drm_sched import recipes
from gpudaemon.collectors.drm_sched.rings import Ring, Rings
from gpudaemon.errors import Malformed
from gpudaemon.model.tracing import Hist, HistRow
from gpudaemon.parsers.trace_hist import power, signed

__all__ = ["Added"]

_KEYS = re.compile(r"hist:(?:name=[^:]*:)?keys=([^:]*)")
_MOST_KNOWN = 65536


class Added:
    """Turns totals into increments of rings, and counts into what is in flight."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._before: dict[tuple[str, str, tuple[str, ...]], Mapping[str, int]] = {}
        self._names: dict[str, str] = {}
        self._flight: dict[int, list[int]] = {}
        self._moved: set[int] = set()
        self.dropped = 0
        self._dropped: dict[str, int] = {}

    def forget(self) -> None:
        """Totals begin at zero."""
        self._before.clear()
        self._flight.clear()
        self._dropped.clear()

    def take(self, event: str, hist: Hist) -> None:
        """A reading of one histogram."""
        found = _KEYS.match(hist.trigger)
        keys = found[1] if found else ""
        dropped = hist.dropped - self._dropped.get(f"{event} {keys}", 0)
        self._dropped[f"{event} {keys}"] = hist.dropped
        if dropped > 0:
            self.dropped += dropped
            self._rings.lower_bound = True
        if keys == "common_cpu":
            return
        if keys == "at,dev":
            self._names.update({row.keys["at"]: row.keys["dev"] for row in hist.rows if len(row.keys) == 2})
            return
        for row in hist.rows:
            try:
                self._row(event, keys, row)
            except (Malformed, KeyError):
                self._rings.lower_bound = True

    def levels(self, now: int) -> None:
        """Work out what is in flight from what was counted. now: the trace clock."""
        for ring in self._rings:
            counts = self._flight.get(id(ring))
            if counts is None:
                continue
            queued, run, done = counts
            # Jobs that were in flight when counting began are seen to end but not to begin: never below
            # nothing.
            if done > run:
                counts[1] = run = done
            if run > queued:
                counts[0] = queued = run
            ring.waiting = queued - run
            ring.running = run - done
            if id(ring) in self._moved:
                ring.progress = now
        self._moved.clear()

    def _row(self, event: str, keys: str, row: HistRow) -> None:
        at, name = row.keys["at"], row.keys["ring"]
        place = (event, keys, tuple(row.keys.values()))
        before = self._before.get(place, {})
        if len(self._before) >= _MOST_KNOWN and not before:
            self._rings.lower_bound = True
            return
        count = row.values["hitcount"] - before.get("hitcount", 0)
        if count <= 0:
            return
        device = self._names.get(at)
        if device is None:
            # Its name comes with the histogram of queued jobs, which is read last: next time.
            return
        self._before[place] = row.values
        ring = self._rings.ring(device, name)
        flight = self._flight.setdefault(id(ring), [0, 0, 0])
        if event == recipes.JOB:
            kind = "run" if "run" in row.values else "wait"
            tally = ring.time if kind == "run" else ring.wait
            spent = row.values[kind] - before.get(kind, 0)
            tally.add(power(row.keys[kind]), count, spent)
            if kind == "run":
                ring.busy += spent
        elif event == recipes.CLEANUP:
            self._ended(ring, row, count)
            flight[2] += count
            self._moved.add(id(ring))
        elif event == recipes.SCHEDULED:
            if flight[1] <= flight[2]:
                self._moved.add(id(ring))
            flight[1] += count
            ring.run += count
        elif event == recipes.PUSHED:
            flight[0] += count
            ring.queued += count

    @staticmethod
    def _ended(ring: Ring, row: HistRow, count: int) -> None:
        ring.done += count
        error = -signed(row.keys["err"])
        if error:
            word = errno.errorcode.get(error, str(error))
            ring.failed[word] = ring.failed.get(word, 0) + count
