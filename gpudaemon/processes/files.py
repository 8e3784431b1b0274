"""Small files of procfs, sysfs and cgroupfs as the scout reads them: content, or nothing."""

import os

__all__ = ["names", "read"]

_LIMIT = 1 << 16


def read(path: str, limit: int = _LIMIT) -> bytes | None:
    """The first `limit` bytes; None where the file cannot be opened or read, as of a process that ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, limit)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def names(path: str) -> list[str]:
    """Names in a directory, sorted; none where it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
