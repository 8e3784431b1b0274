"""Kernel device events, in a thread of its own.

Three sources, one shape: udev's messages through pyudev where udev runs (its rules have been applied by
then), the kernel's own multicast group where it does not, and a UNIX datagram socket that carries datagrams in
the kernel's format, for hosts that do not exist. NETLINK_KOBJECT_UEVENT groups: 1 kernel, 2 udev
(Documentation/driver-api/driver-model, lib/kobject_uevent.c).
"""

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from gpudaemon.errors import ConfigError, Malformed
from gpudaemon.parsers.uevent import LONGEST, Uevent, uevent

__all__ = ["UeventSource", "choose"]

_log = logging.getLogger(__name__)

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_BUFFER = 4 << 20
_SO_PASSCRED, _SCM_CREDENTIALS = 16, 2
_UDEV_CONTROL = "/run/udev/control"


def choose(wanted: str) -> str:
    """Resolve `auto`; others pass: udev, kernel, none, or socket:PATH. Raises ConfigError."""
    if wanted in ("udev", "kernel", "none") or wanted.startswith("socket:"):
        return wanted
    if wanted != "auto":
        raise ConfigError(f"--uevent.source {wanted!r}: allowed are auto, udev, kernel, none, socket:PATH")
    return "udev" if os.path.exists(_UDEV_CONTROL) else "kernel"


class UeventSource:
    """Delivers events until stopped.

    deliver: takes each event. lost: the kernel dropped events, a scan is needed. Both are called on this
    source's thread.
    """

    def __init__(self, kind: str, deliver: Callable[[Uevent], None], lost: Callable[[], None]) -> None:
        self.kind = kind
        self._deliver = deliver
        self._lost = lost
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._monitor: Any = None
        self._socket: socket.socket | None = None
        self._path = ""
        try:
            self._open()
        except (OSError, ImportError) as error:
            if kind != "udev":
                raise ConfigError(f"uevents from {kind}: {error}") from error
            _log.warning("uevents come from the kernel, not from udev", extra={"error": str(error)})
            self.kind = "kernel"
            self._open()
        self._thread = threading.Thread(target=self._run, name="uevents", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close what it held."""
        os.write(self._stop_write, b"x")
        self._thread.join(1.0)
        if self._socket is not None:
            self._socket.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._stop_write)
        os.close(self._stop_read)

    def _open(self) -> None:
        if self.kind == "udev":
            import pyudev

            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
            with contextlib.suppress(OSError):
                self._monitor.set_receive_buffer_size(_BUFFER)
            self._monitor.start()
        elif self.kind == "kernel":
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_KOBJECT_UEVENT)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
            self._socket.bind((0, _KERNEL_GROUP))
        else:
            self._path = self.kind.removeprefix("socket:")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(self._path)

    def _run(self) -> None:
        incoming = self._monitor.fileno() if self._monitor is not None else self._socket.fileno()  # type: ignore[union-attr]
        poll = select.poll()
        poll.register(incoming, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while True:
            ready = poll.poll()
            if any(descriptor == self._stop_read for descriptor, _ in ready):
                return
            try:
                event = self._from_udev() if self._monitor is not None else self._from_socket()
            except OSError as error:
                # ENOBUFS: the receive buffer overflowed, what was lost nobody can say.
                if error.errno in (errno.ENOBUFS, errno.EINTR):
                    self._lost()
                    continue
                _log.error("uevents ended", extra={"error": str(error)})
                self._lost()
                return
            except Malformed:
                continue
            if event is not None:
                self._deliver(event)

    def _from_udev(self) -> Uevent | None:
        device = self._monitor.poll(0)
        if device is None:
            return None
        return Uevent(device.action, device.device_path, dict(device.properties))

    def _from_socket(self) -> Uevent | None:
        assert self._socket is not None
        data, ancillary, _, address = self._socket.recvmsg(LONGEST + 1, 128)
        if self.kind == "kernel" and not (_from_kernel(ancillary) and address[0] == 0):
            # Anybody may send to the group; only port 0 of the kernel itself is believed.
            return None
        return uevent(data)


def _from_kernel(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """True for what root sent. The process may be another than the kernel's 0: a container manager that hands
    an event to the kernel for this network namespace (uevent_net_rcv_skb in lib/kobject_uevent.c, which asks
    for CAP_SYS_ADMIN over it); the kernel sends it on from its own port, with the credentials of who asked.
    """
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SCM_CREDENTIALS:
            _, uid, _ = struct.unpack("iII", data[:12])
            return bool(uid == 0)
    return False
