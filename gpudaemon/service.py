"""What the service manager and the daemon say to each other: readiness, liveness, sockets opened beforehand.

The protocol is systemd's and only environment variables, datagrams and inherited descriptors, so no library is
needed: NOTIFY_SOCKET (sd_notify(3)), WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)), LISTEN_FDS and
LISTEN_PID (sd_listen_fds(3)). Without these variables every function does nothing.
"""

import contextlib
import os
import socket
import time

from gpudaemon.errors import ConfigError

__all__ = ["listening_sockets", "notify", "watchdog_seconds"]

_FIRST = 3
"""The first inherited descriptor, SD_LISTEN_FDS_START."""
_MOST = 1024


def notify(**fields: str | int) -> bool:
    """Send one message, a line a field: `notify(READY=1, STATUS="serving")`; returns whether it was sent.

    RELOADING gets its MONOTONIC_USEC here, which Type=notify-reload wants in the same message. Never raises and
    never waits: where nobody listens, or the manager does not take its messages, the message is lost.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or not fields:
        return False
    if "RELOADING" in fields:
        fields.setdefault("MONOTONIC_USEC", time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
    # A field is a line: a line break inside a text would start another one.
    lines = [f"{name}={' '.join(str(value).splitlines())}" for name, value in fields.items()]
    message = "\n".join(lines).encode(errors="replace")
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        ) as ours:
            # An abstract address begins with a null byte, which no environment variable can hold.
            ours.connect(f"\0{address[1:]}" if address[0] == "@" else address)
            return ours.send(message) == len(message)
    except (OSError, ValueError):
        return False


def watchdog_seconds() -> float | None:
    """Seconds without `notify(WATCHDOG=1)` after which the manager ends this process; None where it does not
    watch, or watches another process."""
    pid = os.environ.get("WATCHDOG_PID")
    microseconds = _natural(os.environ.get("WATCHDOG_USEC", ""))
    if not microseconds or (pid is not None and _natural(pid) != os.getpid()):
        return None
    return microseconds / 1e6


def listening_sockets() -> list[socket.socket]:
    """The listening sockets the manager opened, in its order; an empty list where it passed none.

    They are this process's alone: marked close-on-exec before anything else, and the variables that tell of
    them are removed, so that no child takes descriptors of its own for them. A second call returns none.
    Raises ConfigError, with all of them closed, for one that is no listening stream socket of TCP or Unix.
    """
    inherited = range(_FIRST, _FIRST + _take_count())
    found: list[socket.socket] = []
    try:
        for descriptor in inherited:
            _keep_from_children(descriptor)
        for descriptor in inherited:
            found.append(_listening(descriptor))
    except ConfigError:
        for one in found:
            one.detach()
        for descriptor in inherited:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        raise
    return found


def _take_count() -> int:
    """The number of descriptors passed to this very process; the variables are gone afterwards."""
    count = os.environ.pop("LISTEN_FDS", None)
    pid = os.environ.pop("LISTEN_PID", None)
    os.environ.pop("LISTEN_FDNAMES", None)
    if count is None or pid is None or _natural(pid) != os.getpid():
        # Meant for another process (a wrapper that forked): its descriptors are not ours to touch.
        return 0
    number = _natural(count)
    if number is None or number > _MOST:
        raise ConfigError(f"LISTEN_FDS {count!r}: allowed are 0 to {_MOST}")
    return number


def _keep_from_children(descriptor: int) -> None:
    try:
        os.set_inheritable(descriptor, False)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor}: {error.strerror}") from error


def _listening(descriptor: int) -> socket.socket:
    """The descriptor as a non-blocking socket; it stays open where it cannot be one."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} is no socket") from error
    if one.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        wrong = "is neither a TCP nor a Unix socket"
    elif one.type != socket.SOCK_STREAM:
        wrong = "is no stream socket, use ListenStream="
    elif not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wrong = "does not listen, use Accept=no"
    else:
        one.setblocking(False)
        return one
    one.detach()
    raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} {wrong}")


def _natural(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
