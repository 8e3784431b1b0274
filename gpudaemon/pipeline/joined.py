"""Parts of one device's samples become one: what files give, and what calls give.

What was joined is kept for as long as the parts are the same objects, so that a page knows it again.
"""

from collections.abc import Mapping, Sequence

from gpudaemon.model.metric import Metric
from gpudaemon.model.snapshot import Block, Samples

__all__ = ["Joined"]

Rows = Mapping[Metric, tuple[tuple[str, float], ...]]


class Joined:
    """Of one device. A series that an earlier part has is not taken from a later one."""

    __slots__ = ("_blocks", "_blocks_of", "_rows", "_rows_of")

    def __init__(self) -> None:
        self._blocks_of: tuple[Mapping[Metric, Block], ...] = ()
        self._blocks: Mapping[Metric, Block] = {}
        self._rows_of: tuple[Rows, ...] = ()
        self._rows: Rows = {}

    def join(self, parts: Sequence[Samples]) -> Samples:
        """One part of all; `parts` are of one device and there is at least one."""
        if len(parts) == 1:
            return parts[0]
        blocks_of = tuple(part.blocks for part in parts)
        if not _same(blocks_of, self._blocks_of):
            self._blocks_of, self._blocks = blocks_of, _blocks(parts)
            self._rows_of = ()
        rows_of = tuple(part.rows for part in parts)
        if not _same(rows_of, self._rows_of):
            self._rows_of, self._rows = rows_of, _rows(rows_of)
        values = tuple(value for part in parts for value in part.values)
        return Samples(parts[0].device, self._blocks, values, self._rows, parts[0].created)


def _same(now: tuple[object, ...], before: tuple[object, ...]) -> bool:
    return len(now) == len(before) and all(one is other for one, other in zip(now, before, strict=True))


def _blocks(parts: Sequence[Samples]) -> Mapping[Metric, Block]:
    found: dict[Metric, dict[str, int]] = {}
    offset = 0
    for part in parts:
        for metric, block in part.blocks.items():
            series = found.setdefault(metric, {})
            for prefix, index in zip(block.prefixes, block.indexes, strict=True):
                series.setdefault(prefix, offset + index)
        offset += len(part.values)
    return {metric: Block(tuple(series), tuple(series.values())) for metric, series in found.items()}


def _rows(parts: Sequence[Rows]) -> Rows:
    found: dict[Metric, dict[str, float]] = {}
    for part in parts:
        for metric, lines in part.items():
            series = found.setdefault(metric, {})
            for prefix, value in lines:
                series.setdefault(prefix, value)
    return {metric: tuple(series.items()) for metric, series in found.items()}
