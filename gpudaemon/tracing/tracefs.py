"""Everything that is written to tracefs: an instance of our own, probes and events in it, and their removal.

Documentation/trace/ftrace.rst (Instances), events.rst, histogram.rst, fprobetrace.rst. The order matters:

* `dynamic_events` is opened for appending only: opening it with O_TRUNC removes every probe of the host.
* A trigger is removed before the event it is on, an instance after its triggers, a probe after the instance.
* Two daemons cannot share the instance: whoever holds a lock (flock) on the directory of instances has it.

Errors are OSError; `why` puts them into words.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from gpudaemon.model.tracing import GROUP, SYNTHETIC
from gpudaemon.parsers.trace_hist import trigger

__all__ = ["Tracefs", "why"]

_LONGEST = 1 << 24
_SYNTHETIC_GROUP = "synthetic"
_NAME = GROUP


def why(error: OSError) -> str:
    """An error of tracefs in words."""
    words = {
        errno.EACCES: "tracefs is root's: CAP_DAC_OVERRIDE or an owner's rights are needed",
        errno.EPERM: "tracing is locked down",
        errno.ENOENT: "not in this kernel now",
        errno.ENODEV: "this kernel has no such probe",
        errno.EROFS: "tracefs may only be read",
        errno.EWOULDBLOCK: "another daemon traces here",
    }
    return words.get(error.errno or 0, error.strerror or str(error))


class Tracefs:
    """tracefs at `root`, of which only our own is changed."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.instance = f"{root}/instances/{_NAME}"
        self._lock: int | None = None

    # What there is

    def mounted(self) -> bool:
        """Whether there is a tracefs at all; raises PermissionError where it may not be looked at."""
        try:
            os.listdir(self.root)
        except FileNotFoundError:
            return False
        return os.path.exists(f"{self.root}/dynamic_events") or os.path.exists(f"{self.root}/events")

    def format(self, event: str) -> bytes:
        """The format file of "group/event". Raises OSError."""
        return _read(f"{self.root}/events/{event}/format")

    def header_page(self) -> bytes:
        """How pages of the ring buffer are laid out. Raises OSError."""
        return _read(f"{self.root}/events/header_page")

    def hist(self, event: str) -> bytes:
        """What the hist triggers of an event in our instance have added up. Raises OSError."""
        return _read(f"{self.instance}/events/{event}/hist")

    def processors(self) -> list[int]:
        """Numbers of the processors that have a buffer in our instance. Raises OSError."""
        names = os.listdir(f"{self.instance}/per_cpu")
        return sorted(int(name[3:]) for name in names if name.startswith("cpu") and name[3:].isdigit())

    def open_pages(self, processor: int) -> int:
        """A descriptor to read a processor's pages from, without waiting. Raises OSError."""
        path = f"{self.instance}/per_cpu/cpu{processor}/trace_pipe_raw"
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def clock(self, processor: int) -> int:
        """What the trace clock of our instance says now, in ns, to the microsecond. Raises OSError."""
        for line in _read(f"{self.instance}/per_cpu/cpu{processor}/stats").splitlines():
            if line.startswith(b"now ts:"):
                seconds, _, micro = line.partition(b":")[2].strip().partition(b".")
                if seconds.isdigit() and micro.isdigit():
                    return int(seconds) * 10**9 + int(micro.ljust(6, b"0")[:6]) * 1000
        raise OSError(errno.EINVAL, "no clock")

    # What is changed

    def claim(self) -> None:
        """Be the one who traces. Raises OSError, EWOULDBLOCK where somebody is."""
        if self._lock is not None:
            return
        descriptor = os.open(f"{self.root}/instances", os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def release(self) -> None:
        """Let others trace."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_instance(self, kibibytes: int) -> None:
        """Our instance, its buffers so large on each processor. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.instance)
        _write(f"{self.instance}/buffer_size_kb", str(kibibytes))
        with contextlib.suppress(OSError):
            # Older kernels do not have it. Pages are fetched each period in any case; this wakes us between.
            _write(f"{self.instance}/buffer_percent", "50")

    def probe(self, line: str) -> None:
        """Make a probe or a synthetic event. Raises OSError."""
        place = line.partition(" ")[0].partition(":")[2]
        assert place.startswith((f"{GROUP}/", SYNTHETIC)), line
        self._dynamic(line)

    def remove_probe(self, line: str) -> None:
        """Remove what `line` made, if it is there."""
        place = line.partition(" ")[0].partition(":")[2]
        if "/" not in place:
            place = f"{_SYNTHETIC_GROUP}/{place}"
        with contextlib.suppress(OSError):
            self._dynamic(f"-:{place}")

    def trigger(self, event: str, text: str) -> None:
        """Set a trigger on one of our own events, in our instance. Raises OSError."""
        assert event.startswith((f"{GROUP}/", f"{_SYNTHETIC_GROUP}/{SYNTHETIC}")), event
        _write(f"{self.instance}/events/{event}/trigger", text)

    def enable(self, event: str, keep: str = "") -> None:
        """Have an event written to our buffer. keep: a filter, empty for all. Raises OSError."""
        if keep:
            _write(f"{self.instance}/events/{event}/filter", keep)
        _write(f"{self.instance}/events/{event}/enable", "1")

    def disable(self, event: str) -> None:
        """The opposite, if the event is there."""
        with contextlib.suppress(OSError):
            _write(f"{self.instance}/events/{event}/enable", "0")

    def remove_triggers(self, event: str) -> None:
        """Remove all triggers of one of our own events, the last first."""
        path = f"{self.instance}/events/{event}/trigger"
        with contextlib.suppress(OSError):
            lines = _read(path).decode("utf-8", "replace").splitlines()
            for line in reversed([line for line in lines if line and not line.startswith("#")]):
                with contextlib.suppress(OSError):
                    _write(path, f"!{trigger(line)}")

    def remove_all(self) -> None:
        """Remove our instance and all our probes, in whatever state they are.

        Raises OSError where the instance stays, as while somebody reads it.
        """
        # Variables of one histogram may be used by another: what is refused in the first round goes in a later.
        for _ in range(3):
            for event in list(self._own_events()):
                self.remove_triggers(event)
        with contextlib.suppress(OSError):
            _write(f"{self.instance}/events/enable", "0")
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.instance)
        # Synthetic events may be used by probes' triggers, which went; probes have no order among them.
        for _ in range(2):
            for line in self._own_probes():
                self.remove_probe(line)

    def _own_events(self) -> Iterator[str]:
        for group, start in ((_SYNTHETIC_GROUP, SYNTHETIC), (GROUP, "")):
            try:
                names = os.listdir(f"{self.instance}/events/{group}")
            except OSError:
                continue
            for name in names:
                if name.startswith(start) and os.path.isdir(f"{self.instance}/events/{group}/{name}"):
                    yield f"{group}/{name}"

    def _own_probes(self) -> list[str]:
        """Lines of `dynamic_events` that are ours, the newest first."""
        try:
            lines = _read(f"{self.root}/dynamic_events").decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            # f:gpudaemon/job ..., s:synthetic/gpudaemon_job<TAB>..., s:gpudaemon_job<TAB>..., r8:gpudaemon/x
            # ...
            place = line.replace("\t", " ").partition(" ")[0].partition(":")[2]
            if place.startswith((f"{GROUP}/", f"{_SYNTHETIC_GROUP}/{SYNTHETIC}", SYNTHETIC)):
                found.append(f"-:{place}")
        return found[::-1]

    def _dynamic(self, line: str) -> None:
        descriptor = os.open(f"{self.root}/dynamic_events", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        size = 0
        while size < _LONGEST and (part := os.read(descriptor, 1 << 16)):
            parts.append(part)
            size += len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _write(path: str, text: str) -> None:
    # Nothing is truncated: the file of triggers would lose those of others (event_trigger_regex_open).
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)
