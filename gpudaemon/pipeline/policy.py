"""What a read's outcome or cost does to a file's cadence. Pure: numbers in, numbers out."""

from gpudaemon.model.outcome import Outcome
from gpudaemon.reader.channel import DEMOTED, GROUPS

__all__ = ["DEMOTED_PERIODS", "RETRY_GROUP", "SLOW_SECONDS", "demoted_group", "is_slow", "retry_delay"]

DEMOTED_PERIODS = (15.0, 60.0, 300.0, 900.0)
"""Periods of the groups that hold files demoted for their cost."""
RETRY_GROUP = GROUPS - 1
"""Group of files that are asked again: read once within its period, then home or parked."""
RETRY_PERIOD = 1.0

_ASK_AGAIN = (5.0, 30.0, 120.0)
_ASK_AGAIN_LATER = 600.0
_BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_BACK_OFF_LATER = 60.0
SLOW_SECONDS = 0.02
"""A read that takes no longer is cheap whatever its period."""
_SLOW_SHARE = 0.1
_SHARE_OF_DEMOTED = 0.02


def retry_delay(outcome: Outcome, times: int, age: float) -> float:
    """Seconds until a file that gave `outcome` is asked again.

    times: failures of that kind in a row, 1 for the first. age: seconds since the device was added, bound or
    reset; absent and unsupported files are asked again at 5, 30 and 120 s of it, then every ten minutes.
    """
    if outcome is Outcome.TRANSIENT:
        return _BACK_OFF[times - 1] if times <= len(_BACK_OFF) else _BACK_OFF_LATER
    for moment in _ASK_AGAIN:
        if age < moment - 0.5:
            return moment - age
    return _ASK_AGAIN_LATER


def is_slow(cost: float, period: float) -> bool:
    """Whether a read that took `cost` seconds is too dear for `period`."""
    return cost > max(SLOW_SECONDS, _SLOW_SHARE * min(period, 10.0))


def demoted_group(cost: float, period: float) -> int:
    """The group a slow file moves to: slower than now, and its reads at most 2 % of the period."""
    for place, longer in enumerate(DEMOTED_PERIODS):
        if longer > period and cost <= _SHARE_OF_DEMOTED * longer:
            return DEMOTED + place
    return DEMOTED + len(DEMOTED_PERIODS) - 1
