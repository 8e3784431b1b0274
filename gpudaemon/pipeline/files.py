"""The files of a lane on the server's side: where each stands, and whether a group says anything new."""

from array import array
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from gpudaemon.pipeline.plan import SMALL, PlannedFile

if TYPE_CHECKING:
    import mmap

__all__ = ["File", "Region"]


class File:
    """Where one file stands.

    index, start: its number in the lane and its slot in a copy of the memory. counters: (prefix, index) of the
    counters among its values. group: the reader's, now; moved: since when; at: read well then, before it moved.
    raw: content last taken over, None where nothing is known.
    began: like `at`, the moment at which that reading began. followers: what is made of its values.
    failures, retry: in a row, and when it is asked again. cost, slow: of the last slow read, and how often;
    slow_since, slow_at: when slow reads in a row began, and when the last ended.
    """

    __slots__ = (
        "at",
        "began",
        "cost",
        "counters",
        "failures",
        "followers",
        "group",
        "index",
        "moved",
        "plan",
        "raw",
        "retry",
        "slow",
        "slow_at",
        "slow_since",
        "start",
    )

    def __init__(
        self, index: int, start: int, plan: PlannedFile, counters: tuple[tuple[str, int], ...]
    ) -> None:
        self.index = index
        self.start = start
        self.moved = 0.0
        self.counters = counters
        self.plan = plan
        self.group = plan.group
        self.raw: bytes | None = None
        self.at = 0.0
        self.began = 0.0
        self.followers: tuple[Any, ...] = ()
        self.failures = 0
        self.retry = 0.0
        self.slow = 0
        self.slow_since = 0.0
        self.slow_at = 0.0
        self.cost = 0.0


class Region:
    """Where the files of a group lie in a lane's memory, and what stood there last.

    Most readings of most devices say what the one before said. Files of a group lie together, small ones first,
    so that is seen by comparing a few runs of bytes without looking at any file: the lengths, the slots of the
    small ones, and of each large one, whose slot is mostly empty, what it said.
    """

    __slots__ = ("_contents", "_files", "_large", "_lengths", "_now", "_seen", "_spans", "_whole")

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self._seen: tuple[bytes, ...] | None = None
        self._now: tuple[bytes, ...] = ()
        self._spans: tuple[tuple[int, int], ...] = ()
        self._lengths = self._contents = (0, 0)
        self._large: tuple[tuple[int, int], ...] = ()
        self._whole = bool(files) and files[-1].index - files[0].index == len(files) - 1
        if self._whole:
            first = files[0].index
            small = list(takewhile(lambda file: file.plan.limit <= SMALL, files))
            self._lengths = (4 * first, 4 * (files[-1].index + 1))
            if small:
                self._contents = (small[0].start, small[-1].start + small[-1].plan.limit)
            self._large = tuple((file.index - first, file.start) for file in files[len(small) :])

    def unchanged(self, memory: "mmap.mmap", base: int) -> bool:
        """Whether every file says again, in the copy at `base`, what was accepted last."""
        if not self._whole:
            return False
        (start, end), seen = self._lengths, self._seen
        lengths = memory[base + start : base + end]
        if seen is None or lengths != seen[0]:
            self._spans = self._large_ones(lengths)
        start, end = self._contents
        self._now = (
            lengths,
            memory[base + start : base + end],
            *[memory[base + start : base + end] for start, end in self._spans],
        )
        return self._now == seen

    def accept(self) -> None:
        """What `unchanged` saw was taken over; if any file gave nothing, all are looked at next time."""
        known = bool(self._now) and all(file.raw is not None for file in self._files)
        self._seen = self._now if known else None

    def forget(self) -> None:
        """What was accepted is not known any more: the same bytes are news again."""
        self._seen = None

    def _large_ones(self, lengths: bytes) -> tuple[tuple[int, int], ...]:
        """Where the contents of the large files are, in a copy; errors have none."""
        numbers = array("i", lengths)
        return tuple((start, start + max(numbers[place], 0)) for place, start in self._large)
