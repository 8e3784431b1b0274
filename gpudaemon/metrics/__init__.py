"""The one metric table. One module per subject; each public value that is a `Metric` is a row, a `WindowRows`
is three.

Exposition, reference, dashboards, alerts and tests all read `table()`.
"""

import importlib
import pkgutil
from functools import cache

from gpudaemon.metrics.windows import WindowRows
from gpudaemon.model.metric import Metric

__all__ = ["table"]


@cache
def table() -> tuple[Metric, ...]:
    """Every row, in the order of exposition: modules by name, rows as written."""
    rows: list[Metric] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        values = vars(importlib.import_module(f"{__name__}.{module.name}"))
        for name, value in values.items():
            if isinstance(value, Metric) and not name.startswith("_"):
                rows.append(value)
            elif isinstance(value, WindowRows):
                rows += value
    return tuple(rows)
