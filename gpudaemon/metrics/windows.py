"""Rows made from rows: minimum, maximum and mean of a quantity over fixed windows of time."""

from typing import NamedTuple

from gpudaemon.model.metric import Metric

__all__ = ["WindowRows", "window_rows"]


class WindowRows(NamedTuple):
    """The rows of one quantity, in the order in which a window's figures are given."""

    minimum: Metric
    maximum: Metric
    mean: Metric


def window_rows(base: Metric) -> WindowRows:
    """The window rows of the gauge `base`: its labels and `window`, its unit last in the name."""
    unit = f"_{base.unit.value}" if base.unit.value else ""
    stem = base.name.removesuffix(unit)

    def row(word: str, what: str) -> Metric:
        return Metric(
            name=f"{stem}_window_{word}{unit}",
            kind=base.kind,
            unit=base.unit,
            help=f"{what} {base.name} over the last complete window of fixed length.",
            labels=(*base.labels, "window"),
            abi=base.abi,
        )

    return WindowRows(
        row("minimum", "Lowest reading of"),
        row("maximum", "Highest reading of"),
        row("mean", "Mean over time of"),
    )
