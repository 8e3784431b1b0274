"""What is read of a device: attributes (fixed series) and rows (series found in the content).

Both are pure descriptions. The reader sees only path, limit and period; the server keeps the decoder.
"""

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpudaemon.model.metric import Metric, Series

__all__ = ["TEXT_LIMIT", "Attribute", "Cadence", "Decode", "Row", "Rows"]

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


@dataclass(frozen=True, slots=True)
class Attribute:
    """One file with fixed series: the hot path, no object per sample.

    path: relative to the device's directory.
    decode: bytes of the file -> one number per series, None where the kernel says "not known"; raises
        `gpudaemon.errors.Malformed` on content without the documented format and nothing else.
    limit: buffer in bytes; content that fills it counts as oversized. 64 holds any sysfs number.
    """

    path: str
    cadence: Cadence
    series: tuple[Series, ...]
    decode: Decode
    limit: int = 64


Row = tuple[Metric, tuple[str, ...], float]
"""metric, label values, value"""


@dataclass(frozen=True, slots=True)
class Rows:
    """One file whose series are found in its content: AER counters, clock levels, fdinfo.

    decode: bytes -> rows; raises `gpudaemon.errors.Malformed` and nothing else.
    metrics: the rows of the metric table the content can fill.
    bound: most rows taken of one reading; what is beyond is dropped and counted.
    """

    path: str
    cadence: Cadence
    decode: Callable[[bytes], Iterable[Row]]
    metrics: tuple[Metric, ...]
    limit: int = TEXT_LIMIT
    bound: int = 256
