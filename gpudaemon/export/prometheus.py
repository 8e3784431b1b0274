"""Snapshot -> Prometheus text 0.0.4 or OpenMetrics 1.0, in chunks.

The prefix of every line was rendered when its series was planned, so a page is those prefixes joined with
`repr(value)`. What stays the same between two snapshots (which family has which prefixes, and where their
values stand) is kept as a layout and made anew only when a plan changed.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4) and
https://prometheus.io/docs/specs/om/open_metrics_spec/ (1.0).

State sets are gauges in both formats: OpenMetrics wants the label of a state set to be named like its family,
and a label that changes its name with the format would break every query.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite, isnan
from operator import itemgetter

from gpudaemon.metrics import table
from gpudaemon.model.metric import Kind, Metric, Unit, escape_help
from gpudaemon.model.snapshot import Block, Samples, Snapshot

__all__ = ["CHUNK", "END", "Renderer", "pages"]

CHUNK = 1000
"""Most samples of one chunk: about half a millisecond of work between two breaths of the event loop."""

END = "# EOF\n"
"""Last line of an OpenMetrics page, exactly once."""

_Values = Sequence[float | None]
_Lines = Sequence[tuple[str, float]]
_Created = Mapping[str, float]
_Rows = dict[str, list[tuple[Samples, _Lines]]]
_Texts = dict[int, tuple[_Lines, str]]
"""Rendered rows by the id of their tuple, which is kept so that the id stays its own."""
_NUMBERS = frozenset({int, float})


@dataclass(frozen=True, slots=True)
class _Segment:
    """At most CHUNK series of one family; `pick` takes their values out of the values of all devices.

    pieces: the lines with a place for each value: prefix, "", newline and prefix, "", ... newline.
    """

    prefixes: tuple[str, ...]
    pieces: list[str]
    pick: Callable[[_Values], _Values]


@dataclass(frozen=True, slots=True)
class _Family:
    """One family: its HELP, TYPE and UNIT lines in both formats, and its planned series."""

    metric: Metric
    text: str
    openmetrics: str
    segments: tuple[_Segment, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a set of plans looks like on a page. `plans` are the mappings and value counts it was made of."""

    plans: tuple[tuple[Mapping[Metric, Block], int], ...]
    families: tuple[_Family, ...]
    names: frozenset[str]

    def fits(self, samples: Sequence[Samples]) -> bool:
        """True while every device still has the very plan this layout was made of."""
        return len(samples) == len(self.plans) and all(
            one.blocks is blocks and len(one.values) == count
            for one, (blocks, count) in zip(samples, self.plans, strict=True)
        )


@dataclass(slots=True)
class _Parts:
    prefixes: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class Renderer:
    """Renders snapshots, keeping the layout of the last one.

    order: rows in the order of exposition; the metric table when omitted. Metrics of a snapshot that are not
        among them come last, as met.
    """

    def __init__(self, order: Sequence[Metric] | None = None) -> None:
        self._order = table() if order is None else tuple(order)
        self._layout = _Layout((), (), frozenset())
        self._texts: _Texts = {}

    def chunks(
        self, snapshot: Snapshot, openmetrics: bool, dropped: Container[str] = frozenset()
    ) -> Iterator[str]:
        """Yield the lines of `snapshot`, at most CHUNK samples at a time, without the `# EOF` of OpenMetrics.

        dropped: names of metrics that are left out; layout and texts are those of the whole page all the same.
        A family without a sample has no HELP and TYPE either; None is no sample. In OpenMetrics a counter is
        followed by its `_created` line where its start was seen.
        """
        layout = self._layout
        if not layout.fits(snapshot.samples):
            layout = self._layout = _layout(snapshot.samples, self._order)
        values = list(chain.from_iterable(samples.values for samples in snapshot.samples))
        met, rows = _rows(snapshot.samples)
        created: dict[str, float] = {}
        if openmetrics:
            for samples in snapshot.samples:
                created.update(samples.created)
        texts: _Texts = {}
        families = layout.families
        late = [metric for name, metric in met.items() if name not in layout.names]
        if late:
            families += _families(late, {}, {family.metric.family for family in families})
        chunk: list[str] = []
        size = 0
        for family in families:
            if family.metric.name in dropped or (not family.segments and family.metric.name not in rows):
                continue
            heading = family.openmetrics if openmetrics else family.text
            starts = created if family.metric.kind is Kind.COUNTER else {}
            for pieces, count in _bodies(family, values, rows, starts, (self._texts, texts)):
                if size + count > CHUNK:
                    yield "".join(chunk)
                    chunk, size = [], 0
                chunk.append(heading)
                chunk += pieces
                size += count
                heading = ""
        if not dropped:  # a page of a few collectors met few texts: the others are wanted again soon
            self._texts = texts
        if chunk:
            yield "".join(chunk)


def pages(snapshot: Snapshot, openmetrics: bool) -> Iterator[str]:
    """Yield a whole page of one snapshot, at most CHUNK samples a chunk, ended by `# EOF` in OpenMetrics."""
    yield from Renderer().chunks(snapshot, openmetrics)
    if openmetrics:
        yield END


def _bodies(
    family: _Family,
    values: list[float | None],
    rows: _Rows,
    created: _Created,
    texts: tuple[_Texts, _Texts],
) -> Iterator[tuple[list[str], int]]:
    """Yield (pieces of lines, number of samples) of one family, empty ones left out.

    texts: rows rendered for the last page and, filled here, for this one.
    """
    before, now = texts
    for segment in family.segments:
        picked = segment.pick(values)
        if not created and _plain(picked):
            pieces = segment.pieces.copy()
            pieces[1::2] = map(repr, picked)
            yield pieces, len(picked)
        elif known := [
            (prefix, value) for prefix, value in zip(segment.prefixes, picked, strict=True) if value is not None
        ]:
            yield _lines(known, created), len(known)
    for samples, lines in rows.get(family.metric.name, ()):
        # Rows of a device are the same tuple until they change; the daemon's own are new in every snapshot.
        if samples.device and not samples.created and 0 < len(lines) <= CHUNK:
            known_text = before.get(id(lines))
            if known_text is None:
                known_text = (lines, "".join(_lines(lines, {})))
            now[id(lines)] = known_text
            yield [known_text[1]], len(lines)
        else:
            for start in range(0, len(lines), CHUNK):
                part = lines[start : start + CHUNK]
                yield _lines(part, created), len(part)


def _plain(values: _Values) -> bool:
    """True where `repr` of every value is what the formats ask for: numbers, all finite, none unknown."""
    # Two passes in C cost a fortieth of the page; a sum that overflows only sends finite values the slow way.
    try:
        return _NUMBERS.issuperset(map(type, values)) and isfinite(sum(values))  # type: ignore[arg-type]
    except OverflowError:
        return False


def _lines(known: _Lines, created: _Created) -> list[str]:
    if not created and _plain([value for _, value in known]):
        return [f"{prefix}{value!r}\n" for prefix, value in known]
    lines = []
    for prefix, value in known:
        lines.append(f"{prefix}{_number(value)}\n")
        start = created.get(prefix)
        if start is not None:
            # OpenMetrics 1.0, "Counter": _total and _created of one metric stand together.
            end = len(prefix) - 1 if "{" not in prefix else prefix.index("{")
            lines.append(f"{prefix[:end].removesuffix('_total')}_created{prefix[end:]}{_number(start)}\n")
    return lines


def _number(value: float) -> str:
    if isinstance(value, int):
        return repr(int(value))  # a bool is an int whose repr is a word
    if isfinite(value):
        return repr(float(value))
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"


def _rows(all_samples: Sequence[Samples]) -> tuple[dict[str, Metric], _Rows]:
    """(metrics, their lines device by device), both by name: hashing a row of the table costs more."""
    metrics: dict[str, Metric] = {}
    rows: _Rows = {}
    for samples in all_samples:
        for metric, lines in samples.rows.items():
            metrics.setdefault(metric.name, metric)
            rows.setdefault(metric.name, []).append((samples, lines))
    return metrics, rows


def _layout(all_samples: Sequence[Samples], order: Sequence[Metric]) -> _Layout:
    parts: dict[str, _Parts] = {}
    metrics = {metric.name: metric for metric in order}
    offset = 0
    for samples in all_samples:
        for metric, block in samples.blocks.items():
            metrics.setdefault(metric.name, metric)
            part = parts.setdefault(metric.name, _Parts())
            part.prefixes += block.prefixes
            part.places += [offset + index for index in block.indexes]
        offset += len(samples.values)
    families = _families(metrics.values(), parts, set())
    plans = tuple((samples.blocks, len(samples.values)) for samples in all_samples)
    return _Layout(plans, families, frozenset(metrics))


def _families(metrics: Iterable[Metric], parts: Mapping[str, _Parts], taken: set[str]) -> tuple[_Family, ...]:
    """taken: OpenMetrics family names already on the page; those of `metrics` are added."""
    families = []
    for metric in metrics:
        text, openmetrics = _text_heading(metric), _openmetrics_heading(metric, taken)
        part = parts.get(metric.name, _Parts())
        starts = range(0, len(part.prefixes), CHUNK)
        segments = tuple(
            _segment(part.prefixes[at : at + CHUNK], part.places[at : at + CHUNK]) for at in starts
        )
        families.append(_Family(metric, text, openmetrics, segments))
    return tuple(families)


def _segment(prefixes: Sequence[str], places: Sequence[int]) -> _Segment:
    pieces = list(chain.from_iterable((f"\n{prefix}", "") for prefix in prefixes))
    pieces[0] = prefixes[0]
    return _Segment(tuple(prefixes), [*pieces, "\n"], _pick(places))


def _pick(places: Sequence[int]) -> Callable[[_Values], _Values]:
    if len(places) == 1:  # itemgetter of one place answers with the bare value
        place = places[0]
        return lambda values: (values[place],)
    return itemgetter(*places)


def _text_heading(metric: Metric) -> str:
    kind = metric.kind if metric.kind in (Kind.COUNTER, Kind.HISTOGRAM) else Kind.GAUGE
    return f"# HELP {metric.name} {escape_help(metric.help, quotes=False)}\n# TYPE {metric.name} {kind.value}\n"


def _openmetrics_heading(metric: Metric, taken: set[str]) -> str:
    name = metric.family
    kind = Kind.GAUGE.value if metric.kind is Kind.STATESET else metric.kind.value
    suffixed = metric.kind in (Kind.COUNTER, Kind.INFO)
    if name in taken or (suffixed and name == metric.name):
        # Two families of one name, or a counter without its suffix, would spoil the page for every reader.
        name, kind = metric.name, "unknown"
    taken.add(name)
    lines = [
        f"# HELP {name} {escape_help(metric.help, quotes=True)}\n",
        f"# TYPE {name} {kind}\n",
    ]
    unit = metric.unit.value
    if metric.unit is not Unit.NONE and kind in ("gauge", "counter", "histogram") and name.endswith(f"_{unit}"):
        lines.append(f"# UNIT {name} {unit}\n")
    return "".join(lines)
