"""One device on the server's side: takes its readings, keeps values, their age and the outcome of each file.

Owner: the device. A lane and all it holds goes with its device or with a change of its plan.
"""

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from math import inf

from gpudaemon.errors import Malformed
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.outcome import Outcome, of_open_errno, of_read_errno
from gpudaemon.model.snapshot import Samples
from gpudaemon.pipeline.figures import Figures
from gpudaemon.pipeline.files import File, Region
from gpudaemon.pipeline.following import Following
from gpudaemon.pipeline.plan import DevicePlan
from gpudaemon.pipeline.policy import RETRY_GROUP, SLOW_SECONDS, demoted_group, is_slow, retry_delay
from gpudaemon.pipeline.rest import Rest
from gpudaemon.reader.channel import DEMOTED, DEPTH, GROUPS, OPEN_ERROR, PARKED, LaneMemory

__all__ = ["DeviceLane"]

_log = logging.getLogger(__name__)
_WORST_FRESHNESS = 3.0
_PREFIXES = 4096
_SLOW_CHAIN = 0.02
_SLOW_FOR = 0.9
"""Seconds over which a file must have been slow: two readings of one that is read each second."""


class _Bits(dict[int, tuple[int, ...]]):
    """mask -> the numbers of its bits, each mask worked out once; a host has a few dozen."""

    def __missing__(self, mask: int) -> tuple[int, ...]:
        bits = self[mask] = tuple(bit for bit in range(GROUPS) if mask >> bit & 1)
        return bits


_BITS = _Bits()
_CADENCES = (1 << DEMOTED) - 1
_DEMOTED = (1 << RETRY_GROUP) - 1 & ~_CADENCES


class DeviceLane:
    """See the module. All moments are CLOCK_MONOTONIC seconds; `clock` is there for tests.

    gone: called when reads say that the device is gone. resting: an idle device may be given the chance to
    fall asleep. busy_elsewhere: whether calls say that it is not idle.
    """

    def __init__(
        self,
        number: int,
        plan: DevicePlan,
        memory: LaneMemory,
        figures: Figures,
        created: dict[str, float],
        *,
        gone: Callable[[], None],
        resting: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self.plan = plan
        self.memory = memory
        self.figures = figures
        self.created = created
        self.rest = Rest()
        self.state = Outcome.STALE
        self.power = ""
        self._power_raw = b""
        self.hung_file = ""
        self.hung_since = 0.0
        self.newest = 0.0
        self.answered = False
        self.unsettled = False
        """the plan was made with other content of a file than it has now"""
        self.busy_elsewhere: Callable[[], bool] = lambda: False
        self._gone = gone
        self._may_rest = resting
        self._clock = clock
        self._born = clock()
        self._suspended_at = 0.0
        self.values: list[float | None] = list(plan.initial)
        self.rows: dict[int, dict[Metric, list[tuple[str, float]]]] = {}
        # Rows change seldom: the same objects in every snapshot until one does, so that a page knows them.
        self._gathered: Mapping[Metric, tuple[tuple[str, float], ...]] | None = None
        self._prefixes: dict[tuple[Metric, tuple[str, ...]], str] = {}
        self._files = [
            File(
                index,
                memory.offsets[index],
                file,
                tuple(c for c in plan.counters if file.first <= c[1] < file.first + file.count),
            )
            for index, file in enumerate(plan.files)
        ]
        self._groups: list[list[File]] = [[] for _ in range(GROUPS)]
        for file in self._files[1 if plan.gated else 0 :]:
            self._groups[file.group].append(file)
        self._parked: list[File] = []
        self.next_retry = inf
        self._clients = -1
        self._group_at = [0.0] * GROUPS
        self._moved_into = [0.0] * GROUPS
        self._fresh_until = 0.0
        self._owed: dict[int, tuple[int, float, float]] = {}
        self._regions = [Region(self._groups[group]) for group in range(DEMOTED)]
        self._rows_cut: dict[int, int] = {}
        self._now = 0.0
        self._some_slow = False
        self._following = Following(plan, self._files, self.values, figures=figures, created=created)
        self._following.set_periods(memory.periods)

    @property
    def series_dropped(self) -> int:
        """Series of this device that are wanted and not served, because it has more than are allowed."""
        return self.plan.dropped + sum(self._rows_cut.values())

    def set_periods(self, periods: Sequence[float]) -> None:
        """Read every group at another period from now on."""
        self.memory.set_periods(periods)
        self._following.set_periods(periods)
        self._fresh_until = 0.0

    def settle(self) -> None:
        """Count all that was read up to now: the device gets another lane."""
        self._following.settle()

    def groups(self) -> list[int]:
        """The group of each file, as a lane's memory wants it."""
        return [file.group for file in self._files]

    def adopt(self, number: int, memory: LaneMemory) -> None:
        """A new reader reads this lane from now on, in `memory` made with `groups()`."""
        self.number = number
        self.memory = memory
        self.hung_file = ""
        self._owed.clear()
        self._regions = [Region(self._groups[group]) for group in range(DEMOTED)]
        for file in self._files:
            file.slow = 0 if file.group == file.plan.group else file.slow

    def inherit(self, before: "DeviceLane") -> None:
        """Take over what the lane of a former plan knows: of files that are in both, value and age."""
        self.state, self.power, self._power_raw = before.state, before.power, before._power_raw
        self.rest, self.newest = before.rest, before.newest
        known = {file.plan.path: file for file in before._files if file.raw is not None}
        for file in self._files[1 if self.plan.gated else 0 :]:
            old = known.get(file.plan.path)
            if old is not None and old.raw is not None and (old.plan.decode or old.plan.rows):
                file.moved, file.at = self._born, before._read_at(old)
                self._decode(file, old.raw)
        self._following.inherit(before._following)

    # What the reader tells

    def finished(self, groups: int, chain: int, started: float, ended: float) -> None:
        """A chain ended: take over what the files of `groups` say."""
        memory = self.memory
        base = memory.base(chain)
        files: list[File] = []
        good = 0
        for group in _BITS[groups]:
            if group < DEMOTED and self._regions[group].unchanged(memory.map, base):
                good += len(self._groups[group])
            else:
                files += self._read_by(group, started)
        news = self._changed(files, chain)
        if not memory.intact(chain):
            # Later chains have come round to this copy: the content may be torn. Their records are on the way,
            # but they may be without the cadences that are not due again for minutes.
            self.figures.ticks_missed += 1
            self._owed |= dict.fromkeys(_BITS[groups & _CADENCES], (chain, started, ended))
            return
        self._suspended_at = 0.0
        if self.plan.gated:
            self._see_power(chain)
        good += len(files) - len(news)
        changed, gone = self._take(news, _BITS[groups], started, ended)
        for group in _BITS[groups]:
            self._owed.pop(group, None)
        if news:
            self._accept(groups, started)
        good += changed
        if self._owed:
            self._take_owed()
        reads = self.figures.reads
        reads[Outcome.OK] = reads.get(Outcome.OK, 0) + good
        self.figures.read_seconds += ended - started
        if ended - started > _SLOW_CHAIN:
            self._weigh([file for group in _BITS[groups] for file in self._groups[group]], started, ended)
        elif groups & _DEMOTED:
            self._bring_back([file for group in _BITS[groups & _DEMOTED] for file in self._groups[group]])
        if self._groups[RETRY_GROUP]:
            self._send_home()
        self._conclude(good, gone, ended)

    def _conclude(self, good: int, gone: int, ended: float) -> None:
        """How the device stands after a reading."""
        self.answered = True
        if good:
            self.newest = ended
            self.state = Outcome.OK
        elif gone:
            self.state = Outcome.GONE
        if gone:
            self._gone()
        self._consider_rest(ended)

    def _accept(self, groups: int, started: float) -> None:
        """The cadences among `groups` are known as this reading has them, unless files came there since."""
        for group in _BITS[groups & _CADENCES]:
            if started > self._moved_into[group]:
                self._regions[group].accept()

    def _read_by(self, group: int, started: float) -> list[File]:
        """The files of `group` as the reader knew them when it began."""
        if started > self._moved_into[group]:
            return self._groups[group]
        # Files move one by one, perhaps while the group was being read: their place there holds an old reading.
        return [file for file in self._groups[group] if file.moved < started]

    def _changed(self, files: list[File], chain: int) -> list[tuple[File, int, bytes]]:
        """Those of `files` that say something new or nothing at all, with length and content.

        The others were decoded before, and what they say is as old as this reading now.
        """
        if not files:
            return []
        lengths = self.memory.lengths[chain % DEPTH].tolist()
        content, base = self.memory.map, self.memory.base(chain)
        news = []
        for file in files:
            length = lengths[file.index]
            start = base + file.start
            raw = content[start : start + length] if length >= 0 else b""
            if raw != file.raw or length < 0:
                news.append((file, length, raw))
        return news

    def _take(
        self, news: list[tuple[File, int, bytes]], groups: tuple[int, ...], started: float, ended: float
    ) -> tuple[int, int]:
        """Take over a reading of `groups`, of which `news` changed.

        Returns how many of those files are good and how many say the device is gone.
        """
        good = gone = 0
        following, self._now = self._following, started
        followed = following.followed(groups)
        if followed:
            following.before(followed, started)
        for file, length, raw in news:
            if length < 0:
                gone += self._failed(file, length, ended)
            elif self._decode(file, raw):
                good += 1
                if file.plan.settles and raw != file.plan.known:
                    self.unsettled = True
                if file.followers:
                    following.changed(file, started)
        if followed:
            following.after(followed, started)
        for group in groups:
            self._group_at[group] = ended
        return good, gone

    def _take_owed(self) -> None:
        """Take cadences that a late look lost: their copy holds them until that cadence is read there again."""
        memory = self.memory
        for group, (chain, started, ended) in list(self._owed.items()):
            before = memory.begun
            news = self._changed(self._read_by(group, started), chain)
            if any((number - chain) % DEPTH == 0 for number in range(before, memory.begun + 1)):
                continue  # that copy is being written: the next record finds it whole
            del self._owed[group]
            self._take(news, (group,), started, ended)

    def withheld(self, chain: int, ended: float, *, resting: bool) -> None:
        """The power state forbids reading, or the device is resting; the state's text is in slot 0."""
        length = self._see_power(chain)
        self.answered = True
        if resting:
            self.state = Outcome.RESTING
            return
        if length < 0:
            self.figures.count(self._outcome(length))
            self.state = Outcome.DENIED if self._outcome(length) is Outcome.DENIED else Outcome.STALE
            self._clear()
            return
        if self._suspended_at:
            self.figures.left_suspended += ended - self._suspended_at
        else:
            self._clear()
        self._suspended_at = ended
        self.state = Outcome.SUSPENDED
        self.rest.slept()
        self.memory.rest_until = 0.0

    def hung(self, index: int, since: float) -> None:
        """The deadline passed in file `index`."""
        self.state = Outcome.HUNG
        self.answered = True
        self.figures.hangs += 1
        self.figures.count(Outcome.HUNG)
        self._following.stopped()
        self.hung_file = self.plan.files[index].path
        self.hung_since = since
        _log.warning(
            "read hangs, device quarantined", extra={"device": self.plan.device.id, "attribute": self.hung_file}
        )

    def resumed(self) -> None:
        """The read that hung came back; the device is read again from the start."""
        _log.info(
            "device answers again",
            extra={"device": self.plan.device.id, "seconds": round(self._clock() - self.hung_since, 1)},
        )
        self.state = Outcome.STALE
        self.hung_file = ""
        for file in self._files:
            file.raw = None
        for region in self._regions:
            region.forget()
        self._owed.clear()
        self._fresh_until = 0.0

    # What the server's clock brings

    def retry(self, now: float) -> None:
        """Ask files again whose time has come."""
        due = [file for file in self._parked if file.retry <= now]
        if due:
            self._parked = [file for file in self._parked if file.retry > now]
            for file in due:
                self._move(file, RETRY_GROUP)
        self.next_retry = min((file.retry for file in self._parked), default=inf)

    def clients(self, descriptors: int) -> None:
        """So many descriptors of this device's nodes are open; one more than before ends a rest."""
        if descriptors > self._clients >= 0 and self.state is Outcome.RESTING:
            self.rest.disturbed()
            self.memory.rest_until = 0.0
        self._clients = descriptors

    def samples(self, now: float) -> Samples:
        """This device's part of a snapshot: values that are fresh, None for the others."""
        if self._following.files:
            self._following.refresh(now)
        if now < self._fresh_until and self._gathered is not None:
            return Samples(
                self.plan.device.id, self.plan.blocks, tuple(self.values), self._gathered, self.created
            )
        values = self.values.copy()
        periods = self.memory.periods.tolist()
        horizons = [max(3 * period, _WORST_FRESHNESS) for period in periods]
        stale: set[int] = set()
        # What is read again only becomes fresher, and what fails leaves its values at once: nothing can be
        # stale before the first of these moments.
        until = inf
        for file in self._files:
            horizon = horizons[file.plan.group if file.group in (PARKED, RETRY_GROUP) else file.group]
            fresh_until = self._read_at(file) + horizon
            if file.raw is None or now > fresh_until:
                plan = file.plan
                for place in range(plan.first, plan.first + plan.count):
                    values[place] = None
                if file.index in self.rows:
                    stale.add(file.index)
                if file.raw is not None:
                    until = 0.0
            else:
                until = min(until, fresh_until)
        self._fresh_until = until
        rows = self._gathered if not stale else None
        if rows is None:
            rows = self._gather(stale)
            self._gathered = rows if not stale else None
        return Samples(self.plan.device.id, self.plan.blocks, tuple(values), rows, self.created)

    def _gather(self, stale: set[int]) -> Mapping[Metric, tuple[tuple[str, float], ...]]:
        """The rows of all files but the stale ones, by metric."""
        rows: dict[Metric, list[tuple[str, float]]] = {}
        for index, found in self.rows.items():
            if index not in stale:
                for metric, lines in found.items():
                    rows.setdefault(metric, []).extend(lines)
        return {metric: tuple(lines) for metric, lines in rows.items()}

    def facts(self) -> Mapping[str, bytes | None]:
        """Contents of the files of a facts plan."""
        return {file.plan.path: file.raw for file in self._files}

    def demoted(self) -> list[tuple[str, float, float]]:
        """Files with a slower cadence of their own: path, period and seconds of the last read."""
        return [
            (file.plan.path, self.memory.periods[file.group], file.cost)
            for file in self._files
            if file.slow and file.group not in (PARKED, file.plan.group)
        ]

    # Within

    def _decode(self, file: File, raw: bytes) -> bool:
        """Take over new content; False where it gives nothing."""
        plan = file.plan
        try:
            if len(raw) >= plan.limit:
                raise Malformed("oversized")
            if plan.decode is not None:
                values = plan.decode(raw)
                if len(values) != plan.count:
                    raise AssertionError(f"{len(values)} values for {plan.count} series")
                if file.counters:
                    self._watch_counters(file, values)
                self.values[plan.first : plan.first + plan.count] = values
            elif plan.rows is not None:
                self.rows[file.index] = self._take_rows(file, raw)
                self._gathered = None
        except Malformed as error:
            self._malformed(file, raw, error.reason)
            return False
        except Exception:
            self._bug(file, raw)
            return False
        if file.raw is None:
            self._fresh_until = 0.0  # it was no part of that moment
        file.raw = raw
        file.failures = 0
        return True

    def _watch_counters(self, file: File, values: Sequence[float | None]) -> None:
        """A counter that falls was reset by the driver: remember when, for OpenMetrics' _created."""
        for prefix, index in file.counters:
            new, old = values[index - file.plan.first], self.values[index]
            if new is not None and old is not None and new < old:
                self.created[prefix] = time.time()

    def _take_rows(self, file: File, raw: bytes) -> dict[Metric, list[tuple[str, float]]]:
        found: dict[Metric, list[tuple[str, float]]] = {}
        seen: set[str] = set()
        room = self._room(file)
        assert file.plan.rows is not None
        for count, (metric, labels, value) in enumerate(file.plan.rows(raw)):
            if count >= file.plan.bound:
                self.figures.rows_dropped += 1
                break
            prefix = self._prefixes.get((metric, labels))
            if prefix is None:
                prefix = "" if metric in file.plan.unwanted else Series(metric, labels).prefix()
                if len(self._prefixes) < _PREFIXES:
                    self._prefixes[metric, labels] = prefix
            if not prefix or prefix in seen:
                continue
            seen.add(prefix)
            if len(seen) <= room:
                found.setdefault(metric, []).append((prefix, value))
        self._rows_cut.pop(file.index, None)
        if len(seen) > room:
            self._rows_cut[file.index] = len(seen) - room
        return found

    def _room(self, file: File) -> int:
        """How many series `file` may give beside the others."""
        others = (found for index, found in self.rows.items() if index != file.index)
        return max(self.plan.room - sum(len(lines) for found in others for lines in found.values()), 0)

    def _malformed(self, file: File, raw: bytes, reason: str) -> None:
        self.figures.malformed[reason] = self.figures.malformed.get(reason, 0) + 1
        self.figures.count(Outcome.MALFORMED)
        self._forget(file)
        self._log_once(file, f"malformed ({reason})", raw)

    def _bug(self, file: File, raw: bytes) -> None:
        self.figures.decoder_failures += 1
        self._forget(file)
        if f"bug {file.plan.path}" not in self.figures.logged:
            self.figures.logged.add(f"bug {file.plan.path}")
            _log.error("decoder failed, please report: %s", traceback.format_exc(limit=-4))
            self._log_once(file, "decoder failed", raw)

    def _log_once(self, file: File, what: str, raw: bytes) -> None:
        if file.plan.path not in self.figures.logged:
            self.figures.logged.add(file.plan.path)
            _log.warning(
                what,
                extra={
                    "device": self.plan.device.id,
                    "attribute": file.plan.path,
                    "content": repr(raw[:64]),
                },
            )

    def _forget(self, file: File) -> None:
        """Nothing is known of this file any more."""
        file.raw = None
        if file.group < DEMOTED:
            self._regions[file.group].forget()
        for place in range(file.plan.first, file.plan.first + file.plan.count):
            self.values[place] = None
        if self.rows.pop(file.index, None) is not None:
            self._gathered = None
            self._rows_cut.pop(file.index, None)
        if file.followers:
            self._following.changed(file, self._now)

    def _clear(self) -> None:
        for file in self._files[1 if self.plan.gated else 0 :]:
            if file.raw is not None:
                self._forget(file)
        self._owed.clear()

    def _outcome(self, length: int) -> Outcome:
        if length <= -OPEN_ERROR:
            return of_open_errno(-length - OPEN_ERROR)
        return of_read_errno(-length)

    def _failed(self, file: File, length: int, now: float) -> int:
        """Take over a failure; returns 1 where it says that the device is gone."""
        outcome = self._outcome(length)
        self.figures.count(outcome)
        self._forget(file)
        file.failures += 1
        if outcome is Outcome.GONE:
            return 1
        if outcome is Outcome.DENIED:
            self._log_once(file, "permission denied", b"")
        file.retry = now + retry_delay(outcome, file.failures, now - self._born)
        self._move(file, PARKED)
        self._parked.append(file)
        self.next_retry = min(self.next_retry, file.retry)
        return 0

    def _move(self, file: File, group: int) -> None:
        file.at = self._read_at(file)
        self._fresh_until = 0.0
        if file.followers:
            self._following.moving(file, group)
        if file.group != PARKED:
            self._groups[file.group].remove(file)
            self._settle(file.group)
        file.group = group
        file.moved = self._clock()
        if group != PARKED:
            self._groups[group].append(file)
            self._settle(group)
        if file.followers:
            self._following.regroup()
        self.memory.move(file.index, group)
        # The reader cannot have known before: what it began until now is without this file.
        file.moved = self._clock()
        if group != PARKED:
            self._moved_into[group] = file.moved

    def _read_at(self, file: File) -> float:
        """When a file was last read well: with its group, unless it came there later."""
        at = self._group_at[file.group] if file.group != PARKED else 0.0
        return at if at >= file.moved else file.at

    def _settle(self, group: int) -> None:
        """The files of a group changed: find out again where in memory they lie."""
        if group < DEMOTED:
            self._groups[group].sort(key=lambda file: file.index)
            self._regions[group] = Region(self._groups[group])

    def _send_home(self) -> None:
        for file in list(self._groups[RETRY_GROUP]):
            if file.raw is not None:
                self._move(file, file.plan.group)

    def _weigh(self, files: list[File], started: float, ended: float) -> None:
        """After a slow chain: files that are too dear for their period get a slower one of their own.

        Too dear is one that is so twice and for a second: a moment in which the machine was busy does not make
        a file slow that is read twenty times a second.
        """
        if not self._some_slow and max(self.memory.costs) <= SLOW_SECONDS:
            # The chain was slow because it waited its turn.
            return
        cheap = []
        for file in files:
            if file.group in (PARKED, RETRY_GROUP):
                continue
            file.cost = cost = self.memory.costs[file.index]
            period = self.memory.periods[file.group]
            if is_slow(cost, period):
                if file.group == file.plan.group and started - file.slow_at > 3 * period:
                    file.slow, file.slow_since = 0, started
                file.slow += 1
                file.slow_at = ended
                if file.slow >= 2 and started - file.slow_since >= _SLOW_FOR:
                    group = demoted_group(cost, period)
                    if group != file.group:
                        file.slow = 2
                        self._move(file, group)
            elif not is_slow(cost, self.memory.periods[file.plan.group]):
                cheap.append(file)
        self._bring_back(cheap)
        self._some_slow = any(file.slow for file in self._files)

    def _bring_back(self, files: list[File]) -> None:
        """Files that were read fast enough for the period they came from; twice so, they return to it."""
        for file in files:
            if file.slow and file.group != PARKED:
                file.slow -= 1
                if not file.slow and file.group != file.plan.group:
                    self._move(file, file.plan.group)

    def _see_power(self, chain: int) -> int:
        """Take over the power state; returns the length of its text, or why there is none."""
        length: int = self.memory.lengths[chain % DEPTH][0]
        if length >= 0:
            raw = self.memory.content(chain, 0, length)
            if raw != self._power_raw:
                self._power_raw = raw
                self.power = raw.decode("ascii", "replace").strip()
        elif self._outcome(length) is Outcome.ABSENT:
            self.power, self._power_raw = "", b""
        return length

    def _consider_rest(self, now: float) -> None:
        plan = self.plan
        if not self._may_rest or plan.control_auto < 0 or self.values[plan.control_auto] != 1:
            return
        delay = self.values[plan.autosuspend] if plan.autosuspend >= 0 else None
        armed = delay is not None and delay >= 0 and self.power == "active"
        idle = not any(self.values[index] for index in plan.busy) and not self.busy_elsewhere()
        until = self.rest.look(now, armed=armed, delay=delay or 0.0, idle=idle)
        if until:
            self.memory.rest_until = until
