"""The one metric table. One module per subject; each public value that is a `Metric` is a row.

Exposition, reference, dashboards, alerts and tests all read `table()`.
"""

import importlib
import pkgutil
from functools import cache

from gpudaemon.model.metric import Metric

__all__ = ["table"]


@cache
def table() -> tuple[Metric, ...]:
    """Every row, in the order of exposition: modules by name, rows as written."""
    rows: list[Metric] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        values = vars(importlib.import_module(f"{__name__}.{module.name}"))
        rows += [
            value for name, value in values.items() if isinstance(value, Metric) and not name.startswith("_")
        ]
    return tuple(rows)
