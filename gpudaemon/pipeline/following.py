"""What is made of the readings of one lane: windows, counters over time, how often a sensor says something new.

A reading that says what the one before said costs one comparison for a whole group of files. Something is done
when content changes, when a window ends, when readings fail to come, and when a snapshot is made.

The moment of a reading is the one at which its chain began: fast files are read first in it, and how long the
others take says nothing about them. All moments are CLOCK_MONOTONIC seconds.
"""

import time
from collections.abc import Iterable, Sequence

from gpudaemon.pipeline.derived import Changes, Integral, Measure, Rate, Share
from gpudaemon.pipeline.figures import Figures
from gpudaemon.pipeline.files import File
from gpudaemon.pipeline.plan import DevicePlan
from gpudaemon.pipeline.windows import READINGS, WINDOWS, Window, gap_after, window_end
from gpudaemon.reader.channel import GROUPS, PARKED

__all__ = ["OFFSET", "Following"]

OFFSET = time.time() - time.monotonic()
"""Unix time less CLOCK_MONOTONIC, settled when the daemon starts: windows do not move when the clock is set."""
_FAST = 3
_MOST_COUNTS = 256

Follower = Window | Integral | Changes | Rate


class _Link:
    """One follower, and what it follows.

    file: the one whose readings count. source, limit: indexes of values, limit -1 for none; measure: what is
    made of them, None for the value itself. place: where in that file's values the source is.
    """

    __slots__ = ("file", "follower", "limit", "measure", "place", "source")

    def __init__(
        self, follower: Follower, file: File, source: int, limit: int = -1, measure: Measure | None = None
    ) -> None:
        self.follower = follower
        self.file = file
        self.source = source
        self.limit = limit
        self.measure = measure
        self.place = source - file.plan.first

    def value(self, values: Sequence[float | None]) -> float | None:
        """What is followed, as it is known now."""
        value = values[self.source]
        if value is None or self.measure is None:
            return value
        if self.limit < 0:
            return self.measure(value)
        limit = values[self.limit]
        return None if limit is None else self.measure(value, limit)

    @property
    def key(self) -> tuple[str, str, int]:
        """The same in every plan of the device."""
        return (type(self.follower).__name__, self.file.plan.path, self.place)


class Following:
    """See the module. `values` are those of the lane, which are read and, where they are made here, written.

    groups: bit mask of those with a file that is followed. files: those followed. figures, created: of the
    device, where counters are kept and when each began. offset: unix time less CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        plan: DevicePlan,
        files: Sequence[File],
        values: list[float | None],
        *,
        figures: Figures,
        created: dict[str, float],
        offset: float = OFFSET,
    ) -> None:
        self.groups = 0
        self.files: list[File] = []
        self._values = values
        self._created = created
        self._offset = offset
        self._begun = [0.0] * GROUPS
        self._periods = [0.0] * GROUPS
        self._gaps = [0.0] * GROUPS
        self._broken: list[File] = []
        self._end = 0.0
        self._until = [0.0] * len(WINDOWS)
        by_index = {file.plan.first + place: file for file in files for place in range(file.plan.count)}
        self._windows = [
            (_Link(Window(offset), by_index[one.source], one.source), one.places) for one in plan.windows
        ]
        self._updates = [(_Link(Changes(), by_index[source], source), index) for source, index in plan.updates]
        self._rates = [(_Link(Rate(), by_index[source], source), index) for source, index in plan.rates]
        self._integrals: list[tuple[_Link, Integral, int, str]] = []
        for one in plan.integrals:
            follower = _counter(figures, one.key, Share if one.shared else Integral)
            link = _Link(follower, by_index[one.source], one.source, one.limit, one.measure)
            self._integrals.append((link, follower, one.index, one.prefix))
        self._attach(by_index)

    def _attach(self, by_index: dict[int, File]) -> None:
        """Let each file know who follows it."""
        links = [link for link, _ in self._windows] + [link for link, *_ in self._integrals]
        for link in links + [link for link, _ in (*self._updates, *self._rates)]:
            for index in (link.source, link.limit):
                file = by_index.get(index)
                if file is not None and link not in file.followers:
                    file.followers = (*file.followers, link)
                    if file not in self.files:
                        self.files.append(file)
        self.regroup()

    def set_periods(self, periods: Iterable[float]) -> None:
        """Seconds between readings, by group."""
        self._periods = list(periods)
        self._gaps = [gap_after(period) for period in self._periods]

    def inherit(self, before: "Following") -> None:
        """Take over what the lane of a former plan followed, as far as this one follows it too."""
        before.settle()
        known = {link.key: link.follower for link, *_ in (*before._windows, *before._updates, *before._rates)}
        for link, *_ in (*self._windows, *self._updates, *self._rates):
            link.follower = known.get(link.key, link.follower)
        self._end, self._until = before._end, before._until
        began = {file.plan.path: before.last(file) for file in before.files}
        for file in self.files:
            file.began = began.get(file.plan.path, 0.0)
        # Content may be the same as before the change of plans: who knows nothing yet begins all the same.
        self._broken = list(self.files)
        self._serve()

    # Readings

    def followed(self, groups: tuple[int, ...]) -> tuple[int, ...]:
        """Those of `groups` in which a file is followed."""
        found = self._followed.get(groups)
        if found is None:
            found = tuple(group for group in groups if self.groups >> group & 1)
            self._followed[groups] = found
        return found

    def last(self, file: File) -> float:
        """When the last reading of `file` began that is taken over."""
        begun = self._begun[file.group] if file.group != PARKED else 0.0
        return begun if begun >= file.moved else file.began

    def before(self, groups: tuple[int, ...], at: float) -> None:
        """A reading of `groups` that began at `at` is about to be taken over: silence before it is a gap."""
        for group in groups:
            if at - self._begun[group] > self._gaps[group]:
                for file in self.files:
                    last = self.last(file)
                    if file.group == group and at - last > self._gaps[group]:
                        self._break(file, last)

    def changed(self, file: File, at: float) -> None:
        """`file` says something new in the reading that began at `at`, or nothing any more."""
        before, values = self.last(file), self._values
        home = file.group == file.plan.group
        for link in file.followers:
            if link.file is file:
                value = values[link.source] if link.measure is None else link.value(values)
                if value is not None and value == link.follower.value:
                    continue  # of several values of one file this one is as before
                if home or not isinstance(link.follower, Window):
                    link.follower.read(at, value, before)
            elif link.file.raw is not None:
                moment = self.last(link.file)
                link.follower.read(moment, link.value(values), moment)

    def after(self, groups: tuple[int, ...], at: float) -> None:
        """A reading of `groups` that began at `at` was taken over."""
        if self._broken:
            self._mend(groups, at)
        if at >= self._end and _FAST in groups and self._windows:
            self._close(at)
        for group in groups:
            self._begun[group] = at

    def moving(self, file: File, group: int) -> None:
        """`file` is about to move to another group: one that is read less often has no windows."""
        file.began = self.last(file)
        if group != file.plan.group:
            for link in file.followers:
                if link.file is file and isinstance(link.follower, Window):
                    link.follower.lose(file.began)

    def regroup(self) -> None:
        """Files moved."""
        self._followed: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.groups = 0
        for file in self.files:
            if file.group != PARKED:
                self.groups |= 1 << file.group

    def stopped(self) -> None:
        """Readings stop here: whatever comes next, what lies between is not known."""
        for file in self.files:
            self._break(file, self.last(file))

    # Snapshots

    def refresh(self, now: float) -> None:
        """Bring the values made here up to date."""
        values = self._values
        for link, integral, index, prefix in self._integrals:
            if integral.value:
                integral.hold(self.last(link.file))
            if integral.total is not None:
                if values[index] is None:
                    self._created.setdefault(prefix, integral.born + self._offset)
                values[index] = integral.total
        for link, index in self._updates:
            changes = link.follower
            assert isinstance(changes, Changes)
            period = self._periods[link.file.group] if link.file.group != PARKED else 0.0
            values[index] = None if self._is_stale(link.file, now) else changes.interval(period)
        for link, index in self._rates:
            rate = link.follower
            assert isinstance(rate, Rate)
            values[index] = None if self._is_stale(link.file, now) else rate.mean(self.last(link.file))
        for which, until in enumerate(self._until):
            if until and now > until:
                self._until[which] = 0.0
                for _, places in self._windows:
                    _put(values, places[which], (None, None, None))

    def settle(self) -> None:
        """Count everything up to the last readings."""
        for link, integral, *_ in self._integrals:
            integral.hold(self.last(link.file))

    # Within

    def _is_stale(self, file: File, now: float) -> bool:
        group = file.group
        return file.raw is None or group == PARKED or now - self.last(file) > self._gaps[group]

    def _break(self, file: File, last: float) -> None:
        for link in file.followers:
            if link.file is file:
                link.follower.lose(last)
        if file not in self._broken:
            self._broken.append(file)

    def _mend(self, groups: tuple[int, ...], at: float) -> None:
        """Files read again after a gap are followed again, also where they say what they said before."""
        read = [file for file in self._broken if file.group in groups]
        self._broken = [file for file in self._broken if file not in read]
        for file in read:
            for link in file.followers:
                if link.file is file and link.follower.value is None and self._was_read(file, link, at):
                    link.follower.read(at, link.value(self._values), at)

    @staticmethod
    def _was_read(file: File, link: _Link, at: float) -> bool:
        home = file.group == file.plan.group or not isinstance(link.follower, Window)
        return home and file.raw is not None and file.moved <= at

    def _close(self, at: float) -> None:
        """The open windows ended before `at`."""
        for link, _ in self._windows:
            window = link.follower
            assert isinstance(window, Window)
            if self._was_read(link.file, link, at):
                window.hold(at)
                window.close(at)
                if window.value is None:
                    window.read(at, link.value(self._values), at)
            else:
                window.lose(self.last(link.file))
                window.close(at)
        self._end = window_end(at, self._offset)
        for which, length in enumerate(WINDOWS):
            ended = (at + self._offset) // length * length - self._offset
            self._until[which] = ended + 2 * length
        self.settle()
        self._serve()

    def _serve(self) -> None:
        """Put what the windows know where it is served."""
        for link, places in self._windows:
            window = link.follower
            assert isinstance(window, Window)
            for length, place, figures in zip(WINDOWS, places, window.figures, strict=True):
                enough = self._periods[_FAST] * READINGS <= length
                _put(self._values, place, figures if enough else (None, None, None))


def _put(values: list[float | None], place: int, figures: tuple[float | None, ...]) -> None:
    if place >= 0:
        values[place : place + len(figures)] = figures


def _counter(figures: Figures, key: tuple[str, ...], kind: type[Integral]) -> Integral:
    """The count of that name, which outlives lanes and plans and goes with the device."""
    known = figures.integrals.get(key)
    if known is not None and type(known) is kind:
        return known
    made = kind()
    if known is not None or len(figures.integrals) < _MOST_COUNTS:
        figures.integrals[key] = made
    return made
