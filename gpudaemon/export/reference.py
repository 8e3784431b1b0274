"""The metric table -> docs/metrics.md: one section per subject, one table row per metric.

A pure function of the rows, so a test can tell whether the committed file is fresh.
"""

from collections.abc import Iterable

from gpudaemon.model.metric import Metric

__all__ = ["reference"]

_HEAD = """\
# Metrics

Made from the metric table (`gpudaemon/metrics/`); do not edit. A metric is served only while its value is
known: absent is neither zero nor an error. Counters end in `_total`; in OpenMetrics the families lose
`_total` and `_info`, and state sets are gauges.
"""

_COLUMNS = "| metric | type | unit | labels | meaning | source |\n|---|---|---|---|---|---|\n"


def reference(rows: Iterable[Metric]) -> str:
    """Markdown of all rows in the order given, a new section whenever the subject changes.

    The subject is the word after `gpudaemon_` (`gpu`, `pcie`, `daemon`); a subject met again later gets its
    rows in the section it already has.
    """
    sections: dict[str, list[str]] = {}
    for row in rows:
        sections.setdefault(_subject(row), []).append(_line(row))
    parts = [_HEAD]
    parts += [f"\n## {subject}\n\n{_COLUMNS}{''.join(lines)}" for subject, lines in sections.items()]
    return "".join(parts)


def _subject(row: Metric) -> str:
    return row.name.removeprefix("gpudaemon_").partition("_")[0]


def _line(row: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in row.labels)
    meaning = f"{row.help} OpenTelemetry: `{row.otel}`." if row.otel else row.help
    cells = (f"`{row.name}`", row.kind.value, row.unit.value, labels, _cell(meaning), _cell(row.abi))
    return "| " + " | ".join(cells) + " |\n"


def _cell(text: str) -> str:
    # A cell ends at a bar or a line break, and angle brackets (`<addr>`) would be taken for HTML.
    text = " ".join(text.split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
