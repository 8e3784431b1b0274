"""What can be configured, as one frozen record; the only place with default values."""

import os
import re
from dataclasses import dataclass

from gpudaemon.errors import ConfigError

__all__ = ["ENGINES", "PRESETS", "TIERS", "Config", "preset_periods"]

ENGINES = ("auto", "io_uring", "threads")
TIERS = ("base", "processes", "tracing", "full")

PRESETS = {
    # static, slow, normal, fast: seconds
    "scrape": (600.0, 60.0, 15.0, 15.0),
    "normal": (600.0, 60.0, 1.0, 1.0),
    "fast": (600.0, 15.0, 1.0, 0.1),
}
"""Seconds between readings by cadence. A static file is read again every ten minutes in any case."""


def preset_periods(name: str) -> tuple[float, float, float, float]:
    """(static, slow, normal, fast) of a preset; raises ConfigError for a name that is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(f"--preset {name!r}: allowed are {', '.join(PRESETS)}") from None


def _runtime_directory() -> str:
    """Where notes survive a restart of the daemon but not of the host."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or os.environ.get("XDG_RUNTIME_DIR", "")
    if os.environ.get("RUNTIME_DIRECTORY"):
        return given
    if os.geteuid() == 0:
        return "/run/gpudaemon"
    return f"{given}/gpudaemon" if given else f"/tmp/gpudaemon-{os.geteuid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The daemon's configuration.

    sysfs, procfs: roots. listen: addresses. engine: one of ENGINES. tier: one of TIERS.
    preset: one of PRESETS. deadline: seconds a single read may take. resting: let idle devices fall asleep.
    scrapes: most pages made at once.
    collectors: names of those in use, None for all. uevents: auto, udev, kernel, none, socket:PATH.
    runtime_directory: for notes that must outlive the server.
    """

    sysfs: str = "/sys"
    procfs: str = "/proc"
    listen: tuple[str, ...] = ("127.0.0.1:9836",)
    engine: str = "auto"
    tier: str = "base"
    preset: str = "normal"
    deadline: float = 1.0
    resting: bool = True
    scrapes: int = 8
    collectors: tuple[str, ...] | None = None
    uevents: str = "auto"
    runtime_directory: str = ""
    log_level: str = "info"

    def checked(self) -> "Config":
        """This configuration with its paths made absolute; raises ConfigError where it cannot be used."""
        if self.engine not in ENGINES:
            raise ConfigError(f"--engine {self.engine!r}: allowed are {', '.join(ENGINES)}")
        if self.tier not in TIERS:
            raise ConfigError(f"--tier {self.tier!r}: allowed are {', '.join(TIERS)}")
        preset_periods(self.preset)
        if not 0.05 <= self.deadline <= 60:
            raise ConfigError(f"--read.deadline {self.deadline}: allowed are 0.05 to 60 seconds")
        if not 1 <= self.scrapes <= 1000:
            raise ConfigError(f"--web.max-requests {self.scrapes}: allowed are 1 to 1000")
        for flag, path in (("--path.sysfs", self.sysfs), ("--path.procfs", self.procfs)):
            if not os.path.isdir(path):
                raise ConfigError(f"{flag} {path!r}: not a directory")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ConfigError(f"--log.level {self.log_level!r}: allowed are debug, info, warning, error")
        from dataclasses import replace

        return replace(
            self,
            sysfs=re.sub(r"/+$", "", os.path.abspath(self.sysfs)),
            procfs=re.sub(r"/+$", "", os.path.abspath(self.procfs)),
            runtime_directory=self.runtime_directory or _runtime_directory(),
        )
