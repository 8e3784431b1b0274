"""What the control socket can do to devices and to the host as a whole: power, presence, driver, load, time.

Every method is a command; its arguments are those of the request. Refusals are LookupError, ValueError and
TypeError. Methods that return a moment give it as CLOCK_MONOTONIC of this machine, from which on it is true.
"""

import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from gpudaemon.mock.agenda import Agenda
from gpudaemon.mock.binding import lowest_free
from gpudaemon.mock.clock import LiveClock
from gpudaemon.mock.live import LiveDevice, LiveTree
from gpudaemon.mock.model import STEP, Gpu
from gpudaemon.mock.tree import File
from gpudaemon.mock.truth import ranges, truth
from gpudaemon.mock.uevent import Uevents

__all__ = ["Datagrams", "DeviceCommands"]

_log = logging.getLogger(__name__)

_IN_RESET = {"amdgpu": errno.EPERM, "habanalabs": errno.ENODEV}
"""driver -> errno of reads during a reset: amdgpu_pm.c up to Linux 6.12; habanalabs/common/hwmon.c"""


class Datagrams:
    """Takes uevents to a UNIX datagram socket at `path`, or nowhere where that is None."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, events: Iterable[bytes]) -> int:
        """Send them; returns how many somebody received."""
        if self._path is None:
            return 0
        sent = 0
        for event in events:
            try:
                self._socket.sendto(event, self._path)
                sent += 1
            except OSError as error:
                # Like netlink: nobody bound, or a listener that does not keep up, loses them.
                _log.debug("uevent for %s not sent: %s", self._path, error)
        return sent


class DeviceCommands:
    """Commands about devices, models and clocks of one live host.

    carry: takes uevents to whoever listens, returns how many arrived. sleep: makes the host's file system stand
    still for so many seconds.
    """

    def __init__(
        self,
        live: LiveTree,
        clock: LiveClock,
        agenda: Agenda,
        *,
        carry: Callable[[Iterable[bytes]], int],
        sleep: Callable[[float], None],
    ) -> None:
        self._tree = live
        self._clock = clock
        self._agenda = agenda
        self._carry = carry
        self._sleep = sleep
        self._uevents = Uevents(live)

    def commands(self) -> dict[str, Callable[..., Any]]:
        """name -> what carries it out."""
        methods: tuple[Callable[..., Any], ...] = (
            *(self.suspend, self.resume, self.autosuspend, self.remove, self.restore, self.change),
            *(self.unbind, self.bind, self.rebind, self.reset, self.workload, self.errors, self.wrap),
            *(self.truth, self.contents, self.host_sleep, self.clock_step),
        )
        return {method.__name__: method for method in methods}

    def _send(self, events: Iterable[bytes]) -> int:
        return 0 if self._clock.asleep() else self._carry(events)

    def suspend(self, device: str) -> None:
        """Put a device to sleep until the next access."""
        self._tree.device(device).power.suspend(self._clock())

    def resume(self, device: str) -> None:
        """Wake a device."""
        self._tree.device(device).power.resume(self._clock())

    def autosuspend(self, device: str, delay: int | None) -> None:
        """Set autosuspend_delay_ms and `auto`; None sets `on`."""
        self._tree.device(device).power.autosuspend(self._clock(), delay)

    def remove(self, device: str) -> int:
        """Take a device away; returns how many uevents somebody received."""
        found = self._tree.device(device)
        events = self._uevents.removed(found)
        self._tree.remove(found)
        return self._send(events)

    def restore(self, device: str) -> int:
        """Bring it back, as cold as the air and all its counters at zero; returns how many uevents arrived."""
        found = self._tree.device(device)
        self._tree.restore(found)
        found.power.resume(self._clock())
        if found.gpu is not None:
            found.gpu.renew(self._clock())
        if found.bound:
            return self._send(self._uevents.restored(found))
        return self._send(self._uevents.restored(found)) + self.bind(found.address)

    def change(self, device: str, keys: dict[str, str]) -> int:
        """Send a `change` uevent of the device's DRM card with these keys (WEDGED=…); returns 1 if received."""
        card = self._uevents.card(self._tree.device(device))
        return self._send([self._uevents.event("change", card, "drm", **keys)])

    def unbind(self, device: str) -> int:
        """Take the driver off, and all that comes with it; returns how many uevents arrived."""
        found = self._tree.device(device)
        events = self._uevents.unbound(found)
        self._tree.unbind(found)
        return self._send(events)

    def bind(self, device: str, names: dict[str, str] | None = None) -> int:
        """Give it its driver again; names: kind -> node name, None for the lowest free ones."""
        found = self._tree.device(device)
        old = self._tree.names(found)
        taken = self._tree.taken(found)
        wanted = {kind: f"{kind}{lowest_free(kind, taken)}" for kind in old} | (names or {})
        if set(wanted) != set(old):
            raise ValueError(f"{device} has {', '.join(old)}, not {', '.join(set(wanted) - set(old))}")
        self._tree.bind(found, {old[kind]: wanted[kind] for kind in old})
        found.power.resume(self._clock())
        if found.gpu is not None:
            found.gpu.reload(self._clock())
        return self._send(self._uevents.bound(found))

    def rebind(self, device: str, names: dict[str, str] | None = None) -> dict[str, str]:
        """Unbind and bind while somebody still holds the old nodes: the new ones get other numbers.

        Returns kind -> the new name.
        """
        found = self._tree.device(device)
        old = self._tree.names(found)
        held = self._tree.taken(found) | set(old.values())
        wanted = {kind: f"{kind}{lowest_free(kind, held)}" for kind in old} | (names or {})
        self.unbind(found.address)
        self.bind(found.address, wanted)
        return self._tree.names(found)

    def reset(
        self, device: str, seconds: float = 0.0, wedged: str = "none", keys: dict[str, str] | None = None
    ) -> float:
        """Reset a GPU: for `seconds` its driver refuses, then its memory is lost and its firmware counts anew.

        wedged: the event that follows, empty for none (Linux 6.12 and older). Returns when it will be over.
        """
        found = self._tree.device(device)
        gpu = self._gpu(device)
        if seconds < 0:
            raise ValueError(f"seconds is {seconds}, allowed is 0 and more")
        found.refuses = _IN_RESET.get(found.driver, 0) if seconds else 0

        def finish() -> None:
            found.refuses = 0
            if not (found.present and found.bound):
                return
            gpu.reset(self._clock())
            if wedged and "card" in self._tree.names(found):
                self.change(found.address, {"WEDGED": wedged, **(keys or {})})

        if seconds:
            self._agenda.after(seconds, finish)
        else:
            finish()
        return time.monotonic() + seconds + STEP

    def workload(self, device: str, name: str) -> float:
        """Let a GPU, or `all`, do something else; returns from when on it does."""
        found = [known.gpu for known in self._tree.devices.values() if known.gpu is not None]
        wanted = found if device == "all" else [self._gpu(device)]
        if not wanted:
            raise LookupError("this host has no GPU that follows a model")
        return self._clock.monotonic(max(gpu.work(self._clock(), name) for gpu in wanted))

    def errors(self, device: str, counter: str, count: int = 1) -> float:
        """Have so many errors happen; returns when they have."""
        if count < 1:
            raise ValueError(f"count is {count}, allowed is 1 and more")
        return self._clock.monotonic(self._gpu(device).add(self._clock(), counter, count))

    def wrap(self, device: str, lead: float = 5.0) -> float:
        """Bring the firmware's counters of 32 bits close to their wrap: `lead` seconds at half load."""
        return self._clock.monotonic(self._gpu(device).wrap(self._clock(), lead))

    def _gpu(self, device: str) -> Gpu:
        gpu = self._tree.device(device).gpu
        if gpu is None:
            raise LookupError(f"{device} follows no model")
        return gpu

    def truth(self, device: str, since: float | None = None, until: float | None = None) -> dict[str, Any]:
        """What is true of a GPU now, and between two moments of CLOCK_MONOTONIC."""
        found = self._tree.device(device)
        found.power.advance(self._clock())
        gpu = self._gpu(device)
        now = self._clock.at(until) if until is not None else self._clock()
        state = gpu.at(now)
        begin = now if since is None else self._clock.at(since)
        return {
            "monotonic": self._clock.monotonic(state.seconds),
            "workload": gpu.workload,
            **self._condition(found),
            "values": truth(gpu.chip, state),
            "ranges": ranges(gpu.chip, gpu.between(begin, now)),
        }

    def _condition(self, device: LiveDevice) -> dict[str, Any]:
        return {
            "present": device.present,
            "bound": device.bound,
            "in_reset": bool(device.refuses),
            "runtime_status": "active" if device.power.active else "suspended",
            "names": self._tree.names(device),
        }

    def contents(self, path: str, since: float, until: float) -> dict[str, list[str]]:
        """path -> every content the file had between two moments of CLOCK_MONOTONIC, faults left aside."""
        found: dict[str, list[str]] = {}
        begin, end = self._clock.at(since), self._clock.at(until)
        for node in self._tree.match(path):
            if isinstance(node.entry, File):
                generate = node.driven or node.entry.at
                first, last = int(begin / STEP), int(end / STEP + 1e-6)
                moments = [begin, *(step * STEP for step in range(first + 1, last + 1)), end]
                distinct = dict.fromkeys(generate(moment) for moment in moments)
                found[node.path] = [content.decode("latin-1") for content in distinct]
        return found

    def host_sleep(self, seconds: float, passed: float | None = None) -> float:
        """System sleep: for `seconds` nothing answers, uevents are lost; then all clocks have gone on.

        passed: what CLOCK_BOOTTIME goes on by, `seconds` where None. Returns when the host wakes.
        """
        if seconds <= 0 or (passed is not None and passed < 0):
            raise ValueError("a sleep lasts longer than 0 s, and no clock goes back in it")
        if self._clock.asleep():
            raise ValueError("the host sleeps already")
        began = time.monotonic()
        before = self._clock()
        self._clock.sleeps.append((began, began + seconds))
        self._sleep(seconds)
        self._tree.clock.slept += seconds if passed is None else passed
        for device in self._tree.devices.values():
            if device.present:
                device.power.resume(before)
            if device.gpu is not None:
                device.gpu.cool(before, seconds if passed is None else passed)
        return began + seconds

    def clock_step(self, seconds: float) -> None:
        """Set the host's wall clock forward, or back: `btime` of /proc/stat moves with it."""
        self._tree.clock.stepped += float(seconds)
