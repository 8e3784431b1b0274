"""The metric table -> docs/metrics.md: a section per subject, in it a table of the rows and one of where they
come from.

A pure function of the rows and claims, so a test can tell whether the committed file is fresh.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gpudaemon.export.provenance import Claim
from gpudaemon.model.metric import Metric

__all__ = ["reference"]

_HEAD = """\
# Metrics

Made from the metric table (`gpudaemon/metrics/`); do not edit. A metric is served only while its value is
known: absent is neither zero nor an error. Counters end in `_total`; in OpenMetrics the families lose
`_total` and `_info`, and state sets are gauges.

The second table of a section says who gives a metric (a kernel driver's name, or a collector's), from which
file below the device's directory, and in which captures of real machines or booted kernels it was seen, a few
of them. **claimed, never seen** is what it says, of a metric or of some of its files: written after the
kernel's source or documents, and shown by no capture yet.
"""

_COLUMNS = "| metric | type | unit | labels | meaning | source |\n|---|---|---|---|---|---|\n"
_ORIGINS = "| metric | given by | from | seen in |\n|---|---|---|---|\n"
_NEVER = "**claimed, never seen**"
_MOST_FILES = 12


def reference(rows: Iterable[Metric], claims: Mapping[str, Sequence[Claim]] | None = None) -> str:
    """Markdown of all rows in the order given, a new section whenever the subject changes.

    The subject is the word after `gpudaemon_` (`gpu`, `pcie`, `daemon`); a subject met again later gets its
    rows in the section it already has. claims: who gives each row, by its name.
    """
    sections: dict[str, tuple[list[str], list[str]]] = {}
    for row in rows:
        lines, origins = sections.setdefault(_subject(row), ([], []))
        lines.append(_line(row))
        origins += [line for claim in (claims or {}).get(row.name, ()) for line in _origins(row, claim)]
    parts = [_HEAD]
    for subject, (lines, origins) in sections.items():
        parts.append(f"\n## {subject}\n\n{_COLUMNS}{''.join(lines)}")
        if origins:
            parts.append(f"\nWhere `{subject}` comes from:\n\n{_ORIGINS}{''.join(origins)}")
    return "".join(parts)


def _subject(row: Metric) -> str:
    return row.name.removeprefix("gpudaemon_").partition("_")[0]


def _line(row: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in row.labels)
    meaning = f"{row.help} OpenTelemetry: `{row.otel}`." if row.otel else row.help
    cells = (f"`{row.name}`", row.kind.value, row.unit.value, labels, _cell(meaning), _cell(row.abi))
    return "| " + " | ".join(cells) + " |\n"


def _origins(row: Metric, claim: Claim) -> Iterator[str]:
    """A line for what was seen and one for what was not; where no file is known, the document of the row."""

    def line(source: str, seen: str) -> str:
        return f"| `{row.name}` | {_cell(claim.by)} | {_cell(source)} | {_cell(seen)} |\n"

    if claim.made_of:
        yield line(f"made of `{claim.made_of}`", "where that was")
        return
    if claim.seen:
        seen = ", ".join(claim.seen) + (f" and {claim.more} more" if claim.more else "")
        yield line(_files(claim.shown) or "names and links", seen)
    never = claim.files - claim.shown
    if never or not claim.seen:
        yield line(_files(never) or row.abi, _NEVER)


def _files(patterns: Collection[str]) -> str:
    shown = [f"`{file}`" for file in sorted(patterns)]
    beyond = len(shown) - _MOST_FILES
    return ", ".join(shown[:_MOST_FILES]) + (f" and {beyond} more" if beyond > 0 else "")


def _cell(text: str) -> str:
    # A cell ends at a bar or a line break, and angle brackets (`<addr>`) would be taken for HTML.
    text = " ".join(text.split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
