"""When an idle device is left alone so that it can fall asleep. Pure: moments in, moments out.

Every read restarts a device's autosuspend timer, so a daemon that reads each second keeps an idle device
awake for ever. An idle device with autosuspend armed is therefore rested: for twice its delay only its power
state is read, which never enters the driver (drivers/base/power/sysfs.c). If it is still active after that,
somebody else keeps it awake and reading does no harm; it is tried again later, each time after a longer while.
"""

from dataclasses import dataclass

__all__ = ["Rest"]

_SLACK = 1.0
_FIRST_PAUSE = 30.0
_LONGEST_PAUSE = 600.0


@dataclass(slots=True)
class Rest:
    """The resting state of one device.

    until: moment up to which the device is left alone; 0.0: it is not.
    """

    until: float = 0.0
    _not_before: float = 0.0
    _pause: float = _FIRST_PAUSE

    def look(self, now: float, *, armed: bool, delay: float, idle: bool) -> float:
        """After a reading: the moment until which to rest, 0.0 for not at all.

        armed: `power/control` is auto and the delay is not negative. delay: autosuspend delay in seconds.
        idle: no engine is busy, or nobody can say.
        """
        if not armed:
            self.until = 0.0
            return 0.0
        if not idle:
            self.until = 0.0
            self._pause = _FIRST_PAUSE
            self._not_before = 0.0
            return 0.0
        if now < self._not_before:
            return 0.0
        rest = 2 * delay + _SLACK
        self.until = now + rest
        self._not_before = self.until + max(self._pause, rest)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return self.until

    def slept(self) -> None:
        """The device was seen asleep: the next idle spell is rested at once."""
        self.until = 0.0
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE

    def disturbed(self) -> None:
        """A client appeared: read again at once."""
        self.until = 0.0
        self._not_before = 0.0
