"""The files of a lane on the server's side: where each stands, and whether a group says anything new."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpudaemon.pipeline.plan import PlannedFile

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

    Most readings of most devices say what the one before said. Files of a group lie together, so that is seen
    by comparing their lengths and slots as two runs of bytes, without looking at any file.
    """

    __slots__ = ("_contents", "_files", "_lengths", "_now", "_seen")

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self._seen: tuple[bytes, bytes] | None = None
        self._now: tuple[bytes, bytes] | None = None
        self._lengths = self._contents = (0, 0)
        if files and files[-1].index - files[0].index == len(files) - 1:
            first, last = files[0], files[-1]
            self._lengths = (4 * first.index, 4 * (last.index + 1))
            self._contents = (first.start, last.start + last.plan.limit)

    def unchanged(self, memory: "mmap.mmap", base: int) -> bool:
        """Whether every file says again, in the copy at `base`, what was accepted last."""
        (lengths, lengths_end), (contents, contents_end) = self._lengths, self._contents
        self._now = (memory[base + lengths : base + lengths_end], memory[base + contents : base + contents_end])
        return self._now == self._seen and contents_end > 0

    def accept(self) -> None:
        """What `unchanged` saw was taken over; if any file gave nothing, all are looked at next time."""
        self._seen = self._now if all(file.raw is not None for file in self._files) else None

    def forget(self) -> None:
        """What was accepted is not known any more: the same bytes are news again."""
        self._seen = None
