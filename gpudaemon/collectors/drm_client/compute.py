"""What KFD says of the processes of one GPU, added up by owner. Pure.

Compute work of ROCm is in no engine time of fdinfo: what there is of it stands in KFD's own files, see
`gpudaemon.parsers.kfd`. Sums add increments as in `accounts`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.metrics import drm_client as rows
from gpudaemon.model.attribute import Row
from gpudaemon.model.metric import Metric
from gpudaemon.parsers.integer import integer

__all__ = ["Compute", "ComputeReading", "measure_of", "number"]

_MICRO, _MILLI = 1_000_000, 1000
_OWNER_STAYS = 900.0

_MEASURES = {
    "vram": "vram",
    "sdma": "sdma",
    "evicted_ms": "evicted",
    "cu_occupancy": "units",
    "faults": "faults",
    "page_in": "page_in",
    "page_out": "page_out",
}
_GAUGES: tuple[tuple[str, Metric], ...] = (("vram", rows.KFD_VRAM), ("units", rows.KFD_CU_OCCUPANCY))
_COUNTERS: tuple[tuple[str, Metric, tuple[str, ...], int], ...] = (
    ("sdma", rows.KFD_SDMA, (), _MICRO),
    ("evicted", rows.KFD_EVICTED, (), _MILLI),
    ("faults", rows.KFD_FAULTS, (), 1),
    ("page_in", rows.KFD_PAGES, ("in",), 1),
    ("page_out", rows.KFD_PAGES, ("out",), 1),
)


def measure_of(path: str) -> str:
    """What a file below the directory of a process gives; empty for none that is known."""
    directory, _, name = path.rpartition("/")
    return _MEASURES.get(name if directory else name.partition("_")[0], "")


def number(content: bytes) -> int:
    """The number in a file, never below zero; raises Malformed."""
    value = integer(content.strip())
    if value < 0:
        raise Malformed("out_of_range")
    return value


@dataclass(frozen=True, slots=True)
class ComputeReading:
    """What one process says. queues: by type."""

    process: tuple[int, int]
    owner: str
    values: Mapping[str, int]
    queues: Mapping[str, int]


@dataclass(slots=True)
class _Known:
    owner: str
    values: dict[str, int]
    highest: dict[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)


class Compute:
    """Of one device."""

    def __init__(self, device: str, *, owners: int = 256) -> None:
        self.device = device
        self.owners_most = owners
        self._known: dict[tuple[int, int], _Known] = {}
        self._sums: dict[str, Counter[str]] = {}
        self._seen: dict[str, float] = {}
        self._looked = False

    def update(self, at: float, readings: list[ComputeReading]) -> None:
        """Take one look at every process KFD has on this GPU."""
        here = {reading.process for reading in readings}
        for process in self._known.keys() - here:
            del self._known[process]
        for reading in readings:
            known = self._known.get(reading.process)
            if known is None:
                known = self._known[reading.process] = _Known(reading.owner, {})
                if not self._looked:
                    known.highest = dict(reading.values)
            known.owner, known.values = self._owner(reading.owner), dict(reading.values)
            known.queues = reading.queues
            self._seen[known.owner] = at
            for name, *_ in _COUNTERS:
                if name in reading.values:
                    before = known.highest.get(name, 0)
                    known.highest[name] = max(before, reading.values[name])
                    self._sums[known.owner][name] += known.highest[name] - before
        for owner in [owner for owner, seen in self._seen.items() if at - seen > _OWNER_STAYS]:
            del self._seen[owner], self._sums[owner]
        self._looked = True

    def owners(self) -> Iterator[str]:
        """Keys of the owners that have rows."""
        return iter(self._sums)

    def _owner(self, key: str) -> str:
        if key not in self._sums and len(self._sums) >= self.owners_most:
            key = "others"
        self._sums.setdefault(key, Counter())
        return key

    def rows(self) -> Iterator[Row]:
        """Everything there is to publish."""
        processes: Counter[str] = Counter()
        values: Counter[tuple[str, str]] = Counter()
        queues: Counter[tuple[str, str]] = Counter()
        for known in self._known.values():
            processes[known.owner] += 1
            for name, value in known.values.items():
                values[known.owner, name] += value
            for kind, count in known.queues.items():
                queues[known.owner, kind] += count
        for owner, count in processes.items():
            yield rows.KFD_PROCESSES, (self.device, owner), float(count)
            for name, metric in _GAUGES:
                if (owner, name) in values:
                    yield metric, (self.device, owner), float(values[owner, name])
        for (owner, kind), count in queues.items():
            yield rows.KFD_QUEUES, (self.device, owner, kind), float(count)
        for owner, sums in self._sums.items():
            for name, metric, labels, divisor in _COUNTERS:
                if name in sums:
                    yield metric, (self.device, owner, *labels), sums[name] / divisor
