"""Runtime power management of one mock PCI device, and who disturbed its sleep.

The model of drivers/base/power/runtime.c with autosuspend: a device whose `control` is `auto` falls asleep when
nobody has used it for autosuspend_delay_ms; reading a file that the driver serves under pm_runtime_get_sync
wakes it (amdgpu up to Linux 6.12, xe, i915). Times are seconds since the host started. Nothing runs in the
background: the state at a moment follows from the accesses before it.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["RuntimePower"]


@dataclass(slots=True)
class RuntimePower:
    """Runtime PM state of one device.

    delay: autosuspend_delay_ms, None where the device stays awake (`control` is `on`).
    accesses: reads that reached the device; suspended_accesses: of those, the ones that woke it.
    last_access: seconds, None before the first. below: devices behind a bridge, which stays awake while one of
    them is; since: when the state last changed, for their bridge. changed: told of each change, its moment and
    whether it woke.
    """

    delay: int | None
    active: bool = True
    busy_at: float = 0.0
    accounted: float = 0.0
    active_seconds: float = 60.0  # what the PCI core counted before the host started
    suspended_seconds: float = 0.0
    accesses: int = 0
    suspended_accesses: int = 0
    last_access: float | None = None
    below: list["RuntimePower"] = field(default_factory=list)
    since: float = 0.0
    changed: Callable[[float, bool], object] | None = None

    def advance(self, now: float) -> None:
        """Bring the state up to `now`: fall asleep at the moment the delay ran out, account the time."""
        for device in self.below:
            device.advance(now)
            if device.active:
                self._change(True, max(device.since, self.accounted))
                self.busy_at = now
            else:
                self.busy_at = max(self.busy_at, device.since)
        if self.active and self.delay is not None:
            asleep_at = self.busy_at + self.delay / 1000
            if asleep_at <= now:
                self._change(False, max(asleep_at, self.accounted))
        self._account(now)

    def _change(self, active: bool, moment: float) -> None:
        if active != self.active:
            self._account(moment)
            self.active = active
            self.since = moment
            if self.changed is not None:
                self.changed(moment, active)

    def _account(self, until: float) -> None:
        passed = until - self.accounted
        if self.active:
            self.active_seconds += passed
        else:
            self.suspended_seconds += passed
        self.accounted = until

    def touch(self, now: float) -> None:
        """A read reached the device: it wakes, and the delay starts again."""
        self.advance(now)
        self.accesses += 1
        self.suspended_accesses += not self.active
        self.last_access = now
        self.resume(now)

    def suspend(self, now: float) -> None:
        """Put it to sleep now, until the next access."""
        self.advance(now)
        self._change(False, now)

    def resume(self, now: float) -> None:
        """Wake it; the delay starts again."""
        self.advance(now)
        self._change(True, now)
        self.busy_at = now

    def autosuspend(self, now: float, delay: int | None) -> None:
        """Write `delay` to autosuspend_delay_ms and `auto` to control; None writes `on`, which wakes it."""
        self.advance(now)
        if delay is None:
            self.resume(now)
        self.delay = delay
        self.busy_at = now

    def read(self, path: str, now: float) -> bytes | None:
        """Content of the PM core's file `path` of the device at `now`; None for any other file.

        Raises OSError(EIO) for autosuspend_delay_ms where autosuspend is not in use, as the kernel does.
        """
        self.advance(now)
        return self._files(path)

    def _files(self, path: str) -> bytes | None:
        values: dict[str, object] = {
            "power/runtime_status": "active" if self.active else "suspended",
            "power/runtime_active_time": int(self.active_seconds * 1000),
            "power/runtime_suspended_time": int(self.suspended_seconds * 1000),
            "power/control": "on" if self.delay is None else "auto",
            "power/autosuspend_delay_ms": self.delay,
            "power_state": "D0" if self.active else "D3cold",
        }
        if path not in values:
            return None
        if values[path] is None:
            raise OSError(errno.EIO, "autosuspend is not in use")
        return b"%s\n" % str(values[path]).encode()
