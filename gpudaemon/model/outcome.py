"""What came of a read. Absent is not zero and not an error; each outcome is an answer of its own.

Errno meanings: Documentation/hwmon/sysfs-interface.rst, drivers/gpu/drm/amd/pm/amdgpu_pm.c
(amdgpu_pm_get_access_if_active), fs/kernfs/file.c (ENODEV after removal).
"""

import enum
import errno

__all__ = ["Outcome", "of_open_errno", "of_read_errno"]


class Outcome(enum.Enum):
    """Outcome of reading one file; the value is the label value of the daemon's own metrics."""

    OK = "ok"
    ABSENT = "absent"
    UNSUPPORTED = "unsupported"
    DENIED = "denied"
    TRANSIENT = "transient"
    MALFORMED = "malformed"
    GONE = "gone"
    HUNG = "hung"
    SUSPENDED = "suspended"
    RESTING = "resting"
    PAUSED = "paused"
    STALE = "stale"


_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENODATA, errno.ENOSYS, errno.ENOTTY})
_GONE = frozenset({errno.ENODEV, errno.ENXIO})


def of_open_errno(number: int) -> Outcome:
    """Outcome of an open that failed with `number` (positive errno)."""
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
        return Outcome.ABSENT
    if number in (errno.EACCES, errno.EPERM):
        return Outcome.DENIED
    if number in _GONE:
        return Outcome.GONE
    if number in _UNSUPPORTED:
        return Outcome.UNSUPPORTED
    return Outcome.TRANSIENT


def of_read_errno(number: int) -> Outcome:
    """Outcome of a read that failed with `number`: here EPERM and EBUSY are the driver speaking.

    amdgpu answers EPERM while asleep and EBUSY in reset, so neither means "no permission".
    """
    if number in _GONE:
        return Outcome.GONE
    if number in _UNSUPPORTED:
        return Outcome.UNSUPPORTED
    if number == errno.ENOENT:
        return Outcome.ABSENT
    return Outcome.TRANSIENT
