"""Rows with labels of their own become lines: prefixes are rendered once and kept, within a bound."""

from collections.abc import Callable, Iterable, Mapping

from gpudaemon.model.metric import Distribution, Kind, Metric, Series
from gpudaemon.model.snapshot import Block, Samples
from gpudaemon.model.tracing import StreamRow

__all__ = ["Rendered"]

_PREFIXES = 16384
_NO_BLOCKS: Mapping[Metric, Block] = {}


class Rendered:
    """The lines of one set of rows. since: unix time at which its counters began."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._prefixes: dict[tuple[Metric, tuple[str, ...]], tuple[str, ...]] = {}
        self._rows: Mapping[Metric, tuple[tuple[str, float], ...]] = {}
        self._created: dict[str, float] = {}
        self.cut = 0

    def take(self, rows: Iterable[StreamRow], most: int, served: Callable[[str], bool] | None = None) -> None:
        """Take other rows in place of those before; beyond `most` lines they are left out and counted.

        served: whether a metric of this name is wanted; None: all are.
        """
        wanted: dict[Metric, bool] = {}
        found: dict[Metric, list[tuple[str, float]]] = {}
        seen: set[str] = set()
        created: dict[str, float] = {}
        self.cut = 0
        for metric, labels, value in rows:
            if served is not None:
                if metric not in wanted:
                    wanted[metric] = served(metric.name)
                if not wanted[metric]:
                    continue
            prefixes = self._prefixes_of(metric, labels)
            if prefixes[0] in seen:
                continue
            if len(seen) + len(prefixes) > most:
                self.cut += len(prefixes)
                continue
            seen.update(prefixes)
            if metric.kind is Kind.COUNTER:
                created[prefixes[0]] = self._created.get(prefixes[0], self._since)
            lines = found.setdefault(metric, [])
            if isinstance(value, Distribution):
                lines.extend(zip(prefixes, value.lines(), strict=True))
            else:
                lines.append((prefixes[0], value))
        self._created = created
        self._rows = {metric: tuple(lines) for metric, lines in found.items()}

    def _prefixes_of(self, metric: Metric, labels: tuple[str, ...]) -> tuple[str, ...]:
        known = self._prefixes.get((metric, labels))
        if known is None:
            series = Series(metric, labels)
            known = series.histogram() if metric.kind is Kind.HISTOGRAM else (series.prefix(),)
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            self._prefixes[metric, labels] = known
        return known

    def samples(self, device: str) -> Samples:
        """A part of a snapshot."""
        return Samples(device, _NO_BLOCKS, (), self._rows, self._created)
