"""What can be configured: `options` declares it, `load` reads a file and flags, `text` writes about it."""

from gpudaemon.config.load import DEFAULT_FILE, Flag, default_file, load, nearest
from gpudaemon.config.options import ENGINES, PRESETS, TIERS, Config, Option, options, sections

__all__ = [
    "DEFAULT_FILE",
    "ENGINES",
    "PRESETS",
    "TIERS",
    "Config",
    "Flag",
    "Option",
    "default_file",
    "load",
    "nearest",
    "options",
    "sections",
]
