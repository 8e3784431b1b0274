"""The daemon in a guest, as `tests.live.daemon.RunningDaemon` is one on this host.

    with GuestDaemon(guest, "--engine", "threads") as daemon:
        daemon.metrics()['gpudaemon_device_state{device="0000:00:02.0",state="ok"}'] == 1.0

It reads the guest's own /sys and /proc and listens to its uevents. Pages come through the guest's agent, so
they need no network. What it is compared with is read by the guest itself: `runtime_status`, `usage`.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.live.daemon import Page
from tests.vm.guest import Guest, GuestError
from tests.vm.store import ROOT

__all__ = ["VARIANTS", "GuestDaemon", "runtime_status", "usage"]

VARIANTS = {
    "io_uring": ("--engine", "io_uring", "--uevent.source", "kernel"),
    "threads-udev": ("--engine", "threads", "--uevent.source", "udev"),
}
"""How the fixture `daemon` starts it: both engines, and uevents without and with udevd in the guest."""

_PORTS = itertools.count(9836)


class GuestDaemon:
    """Context manager: `gpudaemon run` in a guest, ready when entered, ended by SIGTERM when left.

    flags: further arguments. wait: seconds to wait for /-/ready; 0 does not wait. port: 0 chooses; the same as
    one before had means the same runtime directory too.
    """

    def __init__(self, guest: Guest, *flags: str, wait: float = 300.0, port: int = 0) -> None:
        self._guest = guest
        self._flags = flags
        self._wait = wait
        self.port = port or next(_PORTS)
        self._home = f"/run/gpudaemon-{self.port}"
        self.pid = 0
        self.started = 0.0

    def __enter__(self) -> "GuestDaemon":
        command = [sys.executable, "-P", "-m", "gpudaemon.cli", "run", "--path.runtime", self._home]
        command += ["--web.listen-address", f"127.0.0.1:{self.port}", *self._flags]
        self._guest.run("mkdir", "-p", self._home)
        self.started = time.monotonic()
        self.pid = self._guest.start(*command, log=f"{self._home}/log", environment={"PYTHONPATH": str(ROOT)})
        try:
            if self._wait:
                self.until(lambda: self.get("/-/ready")[0] == 200, self._wait)
        except BaseException:
            self.stop(force=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        status = self.stop(force=kind is not None)
        assert kind is not None or status == 0, f"the daemon ended with {status}:\n{self.log[-4000:]}"

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._guest.read(f"{self._home}/log")

    def get(self, path: str, *, seconds: float = 20.0) -> tuple[int, str]:
        """Status and body of a request; status 0 where nobody answered."""
        try:
            return self._guest.fetch(self.port, path, seconds=seconds)
        except GuestError as error:
            assert self._guest.ended(self.pid) is None, f"the daemon ended: {self.log[-4000:]}"
            return 0, str(error)

    def metrics(self, *, seconds: float = 20.0) -> Page:
        """/metrics, taken apart."""
        status, text = self.get("/metrics", seconds=seconds)
        assert status == 200, text
        return Page.of(text)

    def devices(self) -> dict[str, dict[str, Any]]:
        """/api/v1/devices by id."""
        status, text = self.get("/api/v1/devices")
        assert status == 200, text
        found = json.loads(text)
        return {device["id"]: device for device in (found["devices"] if isinstance(found, dict) else found)}

    def until(self, done: Callable[[], Any], seconds: float = 30.0, what: str = "") -> float:
        """Wait for `done`; returns after how many seconds. The log is shown where it does not come."""
        try:
            return self._guest.until(done, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the daemon said:\n{self.log[-4000:]}") from None

    def stop(self, *, force: bool = False, seconds: float = 30.0) -> int | None:
        """SIGTERM (force: SIGKILL), then wait; its exit status, None where it does not end."""
        if (status := self._guest.ended(self.pid)) is not None:
            return status
        self._guest.run("kill", "-KILL" if force else "-TERM", str(self.pid), check=False)
        end = time.monotonic() + seconds
        while (status := self._guest.ended(self.pid)) is None and time.monotonic() < end:
            time.sleep(0.05)
        return status


def runtime_status(guest: Guest, device: str) -> str:
    """`power/runtime_status` of a PCI device by the guest's own reading; it does not wake the device."""
    return guest.read(f"/sys/bus/pci/devices/{device}/power/runtime_status").strip()


def usage(guest: Guest, device: str) -> int:
    """`power/runtime_usage`: how many holders keep it awake (Documentation/ABI/testing/sysfs-devices-power)."""
    return int(guest.read(f"/sys/bus/pci/devices/{device}/power/runtime_usage"))
