"""The one door to the liburing binding: `from gpudaemon.reader.binding import liburing`.

At every import the binding's helper library (dynamic_import 2024.5.2) removes and writes anew a cache file in
its own package, which it then cannot read back. Where that directory is not writable, as for every service that
is not root, the import fails; where it is, two processes that start together remove the file under each other.
So it is told that there is no cache, and what it would write goes nowhere. That costs no time.
"""

import contextlib
import importlib
from typing import Any

__all__ = ["liburing"]


def _nothing(*_: object) -> bool:
    return False


def _load() -> Any:
    """Import the binding without its cache. Raises ImportError where it is not installed."""
    with contextlib.suppress(ModuleNotFoundError):
        importer = importlib.import_module("dynamic_import.importer")
        for name in ("exists", "create_cache_dir", "dump_cache", "add_record"):
            if hasattr(importer, name):
                setattr(importer, name, _nothing)
    return importlib.import_module("liburing")


liburing = _load()
