"""Uevents over real netlink, in a network namespace of the mock host's own.

A process with CAP_SYS_ADMIN over a network namespace may hand a uevent to the kernel's NETLINK_KOBJECT_UEVENT
socket there; the kernel gives it the next SEQNUM and sends it to group 1 of that namespace, from port 0 as one
of its own (lib/kobject_uevent.c, uevent_net_rcv_skb). Since Linux kernel commit 692ec06d7c92 ("netns: send
uevent messages") (in v4.18). Whoever listens outside is not reached, so no udev of this machine takes a device
that does not exist for one that does.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable

from gpudaemon.errors import GpudaemonError

__all__ = ["NETLINK", "Netlink"]

NETLINK = "netlink"
"""in place of a socket's path: uevents go over netlink"""

_CLONE_NEWNET = 0x40000000
_NETLINK_KOBJECT_UEVENT = 15
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_EVENT = 16  # the first type that is not a control message; the kernel looks at no other field of it
_REQUEST, _ACK = 1, 4
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class Netlink:
    """Moves this process to a new network namespace, its loopback up, and sends uevents there.

    Raises GpudaemonError where there is no right to.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise GpudaemonError(f"no network namespace for uevents: {reason} (CAP_SYS_ADMIN is needed)")
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_KOBJECT_UEVENT)
        self._socket.bind((0, 0))
        self._socket.settimeout(1.0)
        self._number = 0
        _loopback_up()

    def __call__(self, events: Iterable[bytes]) -> int:
        """Send them; returns how many the kernel took. Raises ValueError for one it refuses."""
        return sum(self._send(event) for event in events)

    def _send(self, event: bytes) -> bool:
        # The kernel numbers them itself.
        body = b"".join(line + b"\0" for line in event.split(b"\0") if line and not line.startswith(b"SEQNUM="))
        self._number += 1
        header = _HEADER.pack(_HEADER.size + len(body), _EVENT, _REQUEST | _ACK, self._number, 0)
        self._socket.sendto(header + body, (0, 0))
        while True:
            answer = self._socket.recv(8192)
            _, _, _, number, _ = _HEADER.unpack_from(answer)
            if number == self._number:
                break
        (refusal,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -refusal == errno.ESRCH:
            return False  # nobody listens
        if refusal:
            raise ValueError(f"the kernel does not send this uevent: {os.strerror(-refusal)}")
        return True


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
