"""Flags of a bench and its lines: a figure, its unit, and what must be reached beside it."""

import argparse
import statistics
from collections.abc import Sequence

__all__ = ["flags", "heading", "percentile", "show", "spread"]


def flags(
    description: str | None,
    *,
    runs: int,
    seconds: float,
    quick: tuple[int, float],
    engines: Sequence[str] = ("io_uring", "threads"),
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser, and the arguments of this run; `quick` are the runs and seconds of --quick."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, help=f"({runs})")
    parser.add_argument("--seconds", type=float, help=f"({seconds:g})")
    parser.add_argument("--quick", action="store_true", help=f"runs {quick[0]}, seconds {quick[1]:g}")
    parser.add_argument("--engine", dest="engines", action="append", choices=engines, help="only this one")
    arguments = parser.parse_args()
    chosen = quick if arguments.quick else (runs, seconds)
    arguments.runs = arguments.runs or chosen[0]
    arguments.seconds = arguments.seconds or chosen[1]
    arguments.engines = arguments.engines or list(engines)
    return parser, arguments


def heading(text: str) -> None:
    """A title over the lines that follow."""
    print(f"\n{text}", flush=True)


def show(name: str, figure: float | str, unit: str = "", must: str = "", note: str = "") -> None:
    """One line."""
    text = figure if isinstance(figure, str) else f"{figure:.3f}" if abs(figure) < 100 else f"{figure:.1f}"
    print(f"  {name:<46} {text:>10} {unit:<8} {must:<22} {note}".rstrip(), flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie; the nearest one, never between two."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(name: str, values: Sequence[float], unit: str = "", must: str = "") -> None:
    """A line with the median of several runs, and the smallest and largest of them."""
    show(
        name, statistics.median(values), unit, must, f"{min(values):.3f} to {max(values):.3f} of {len(values)}"
    )
