"""The contract of an engine: it runs chains of reads and says when each is through.

A chain is the work of one lane at one moment: files opened, or files read, one after another. Two engines
keep this contract (`uring`, `threads`), and one conformance suite tests both. Deadlines, power states and
quarantine are not an engine's business: `lanes` watches `Chain.progress` and calls `abandon`.
"""

import enum
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

__all__ = ["NOT_READ", "Chain", "Engine", "Step"]

NOT_READ = -125
"""Length of a file whose read was not begun because the chain was abandoned (-ECANCELED)."""


class Step(enum.Enum):
    """What a chain does."""

    GATE = "gate"
    OPEN = "open"
    READ = "read"


class Chain:
    """Files of one lane to be opened or read in order.

    indexes: which files of the lane. paths: for OPEN; descriptors and buffers: for READ and GATE, each buffer
    in a tuple of its own, as preadv(2) wants it. offset: where in the files a READ begins.
    results: after the end, per file: a descriptor (OPEN) or a length (READ), or -errno.
    costs: seconds from the previous completion to this one.
    position: how many are through. progress: CLOCK_MONOTONIC of the last completion, or of the start.
    """

    __slots__ = (
        "abandoned",
        "buffers",
        "costs",
        "descriptors",
        "indexes",
        "offset",
        "owner",
        "paths",
        "position",
        "prepared",
        "progress",
        "results",
        "started",
        "step",
    )

    def __init__(
        self,
        owner: Any,
        step: Step,
        indexes: Sequence[int],
        *,
        paths: Sequence[bytes] = (),
        descriptors: Sequence[int] = (),
        buffers: Sequence[memoryview] = (),
        offset: int = 0,
    ) -> None:
        self.owner = owner
        self.step = step
        self.indexes = tuple(indexes)
        self.paths = tuple(paths)
        self.descriptors = list(descriptors)
        self.buffers = tuple((buffer,) for buffer in buffers)
        self.offset = offset
        self.prepared: Any = None
        self.reset()

    def reset(self) -> None:
        """Make the chain ready to be started once more."""
        self.results = [NOT_READ] * len(self.indexes)
        self.costs = [0.0] * len(self.indexes)
        self.position = 0
        self.abandoned = False
        self.started = self.progress = time.monotonic()


class Engine(Protocol):
    """What reads files.

    finished: called once per started chain, in the engine's own context. It may start further chains.
    quiet: called when nothing is left that could be begun now: the moment to tell the server.
    take_over: the engine has a fresh thread run the reader's loop; the old one learns so from `leads`.
    """

    name: str
    limits: tuple[int, int]
    """Most bounded and unbounded kernel workers there can be; 0: not a matter of this engine."""
    finished: Callable[[Chain], None]
    quiet: Callable[[], None]
    take_over: Callable[[], None]

    def set_lanes(self, lanes: int) -> None:
        """How many lanes there are: each may come to hold one worker for as long as its driver likes."""

    def set_processors(self, processors: Collection[int]) -> None:
        """Have what works for this engine in the kernel run there; empty: wherever it may. Raises OSError."""

    def start(self, chain: Chain) -> None:
        """Begin `chain`; returns at once, whatever its files do."""

    def run(self) -> None:
        """Do what can be done now, within a few milliseconds; may call `finished`."""

    def patience(self) -> float | None:
        """Seconds after which `run` should be called even if nothing else happens; None: no need."""

    def descriptor(self) -> int:
        """A descriptor that becomes readable when `run` should be called; -1 where there is none."""

    def abandon(self, chain: Chain) -> None:
        """Begin no further file of `chain`. What is begun stays begun: `finished` comes when it returns."""

    def forget(self, owner: object) -> None:
        """The lane `owner` is gone: so is whatever the engine remembers of it."""

    def leads(self) -> bool:
        """Whether the calling thread still is the one that runs the reader's loop."""

    def figures(self) -> tuple[int, int]:
        """Reads in flight and workers in use."""

    def overflowed(self) -> bool:
        """Whether a completion ever found no room."""

    def close(self) -> None:
        """Release what the engine holds. A stuck read may hold this process for as long as it lasts."""
