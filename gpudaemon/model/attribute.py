"""What is read of a device: attributes (fixed series) and rows (series found in the content).

Either may be a file or, where `call` names a kind (`gpudaemon.model.call`), the answer to a call that a process
of its own makes: an ioctl, a library function, a netlink request. Both are pure descriptions: the reader sees
only path, limit and period; the server keeps the decoder.
"""

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpudaemon.model.metric import Metric, Series

__all__ = ["TEXT_LIMIT", "Attribute", "Cadence", "Constant", "Decode", "Row", "Rows"]

TEXT_LIMIT = 4096
"""A sysfs text attribute never exceeds one page (fs/sysfs/file.c, sysfs_kf_seq_show)."""


class Cadence(enum.Enum):
    """How often a file is read. Periods belong to the configuration, not to the plan.

    STATIC values change only with the device or its driver, SLOW ones by an administrator's hand or by rare
    events, NORMAL ones with load; FAST is for what changes faster than once a second.
    """

    STATIC = "static"
    SLOW = "slow"
    NORMAL = "normal"
    FAST = "fast"


Decode = Callable[[bytes], Sequence[float | None]]

Constant = tuple[Series, float]
"""A series whose value is known from names and facts alone, such as an `_info`."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One file with fixed series: the hot path, no object per sample.

    path: relative to the device's directory.
    decode: bytes of the file -> one number per series, None where the kernel says "not known"; raises
        `gpudaemon.errors.Malformed` on content without the documented format and nothing else.
    limit: buffer in bytes; content that fills it counts as oversized. 64 holds any sysfs number.
    steady: those of its series that have no windows even where the file is read fast.
    settles: the plan rests on what it says: other content than the plan was made with makes another plan.
    call: the kind of call that gives the content, and `path` is what is asked there; empty: a file.
    long: read until its end, part by part: one read of a file of procfs brings at most a page or one record
        (fs/seq_file.c, seq_read_iter), where one of sysfs brings all there is.
    """

    path: str
    cadence: Cadence
    series: tuple[Series, ...]
    decode: Decode
    limit: int = 64
    steady: frozenset[Series] = frozenset()
    settles: bool = False
    call: str = ""
    long: bool = False


Row = tuple[Metric, tuple[str, ...], float]
"""metric, label values, value"""


@dataclass(frozen=True, slots=True)
class Rows:
    """One file whose series are found in its content: AER counters, clock levels, fdinfo.

    decode: bytes -> rows; raises `gpudaemon.errors.Malformed` and nothing else.
    metrics: the rows of the metric table the content can fill.
    bound: most rows taken of one reading; what is beyond is dropped and counted.
    call: see `Attribute`.
    """

    path: str
    cadence: Cadence
    decode: Callable[[bytes], Iterable[Row]]
    metrics: tuple[Metric, ...]
    limit: int = TEXT_LIMIT
    bound: int = 256
    call: str = ""
