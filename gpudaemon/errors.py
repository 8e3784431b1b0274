"""Errors that cross a layer of gpudaemon.

Everything the daemon raises on purpose derives from `GpudaemonError`, so the command line can tell a
message for the user from a bug.
"""


class GpudaemonError(Exception):
    """Something the user can act on; its text is one line, written for them."""


class ConfigError(GpudaemonError):
    """A flag or a configuration key that cannot be used; names the key, the value and what is allowed."""


class Malformed(ValueError):
    """Content of a kernel file that does not have the documented format.

    Raised by parsers and decoders only. `reason` comes from a small fixed set, because it becomes a label
    value of `gpudaemon_daemon_malformed_total`.
    """

    REASONS = ("empty", "not_a_number", "not_finite", "out_of_range", "format", "oversized")

    def __init__(self, reason: str) -> None:
        if reason not in self.REASONS:
            raise AssertionError(f"{reason!r} is not one of {self.REASONS}")
        super().__init__(reason)
        self.reason = reason
