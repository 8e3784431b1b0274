"""The raw FUSE protocol, as much of it as a read-only tree of small files needs.

Requests are read from /dev/fuse and answered there in any order: an answer that is late or never comes costs a
dictionary entry, not a thread. Structures: include/uapi/linux/fuse.h, protocol 7.31.

Two choices make a read that is not answered look like one stuck in a driver, to threads and io_uring alike.
FUSE_ASYNC_DIO is not negotiated: otherwise io_uring holds no worker for a direct read and its process can exit.
FUSE_INTERRUPT is answered ENOSYS: from then on request_wait_answer (fs/fuse/dev.c) does not wait interruptibly,
so the reader is in D state, and SIGKILL cannot end it either once the request was read from /dev/fuse.
"""

import enum
import errno
import os
import stat
import struct

from gpudaemon.mock.live import Node
from gpudaemon.mock.tree import File, Link

__all__ = [
    "FOREVER",
    "Attributes",
    "Connection",
    "Opcode",
    "Request",
    "directory_entry",
]


class Opcode(enum.IntEnum):
    """enum fuse_opcode: the requests that are answered with something else than ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


FOREVER = 86_400
"""seconds a name or its attributes may be cached where they cannot change"""

_IN = struct.Struct("<IIQQIIIHH")  # fuse_in_header
_OUT = struct.Struct("<IiQ")  # fuse_out_header
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ENTRY = struct.Struct("<QQQQII")  # fuse_entry_out before its fuse_attr
_ATTR_OUT = struct.Struct("<QII")  # fuse_attr_out before its fuse_attr
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_DIRENT = struct.Struct("<QQII")

_PARALLEL_DIROPS = 1 << 18
_BUFFER = 65_536
_GONE = frozenset({errno.ENODEV, errno.ENOTCONN, errno.EBADF})

Request = tuple[int, int, int, memoryview]
"""opcode, unique, node number, body; the body is valid until the next request is read"""


class Connection:
    """One mount's end of /dev/fuse. `descriptor` is non-blocking and owned by the connection."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)

    def receive(self) -> Request | None:
        """The next request, None where there is none now. Raises ConnectionAbortedError when unmounted."""
        while True:
            try:
                length = os.readv(self.descriptor, [self._buffer])
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ENOENT:  # the request was taken back before we read it
                    continue
                if error.errno in _GONE:
                    raise ConnectionAbortedError from error
                raise
            _, opcode, unique, number, _, _, _, _, _ = _IN.unpack_from(self._buffer)
            return opcode, unique, number, self._view[_IN.size : length]

    def reply(self, unique: int, payload: bytes = b"") -> None:
        """Answer a request."""
        self._send(_OUT.pack(_OUT.size + len(payload), 0, unique) + payload)

    def error(self, unique: int, number: int) -> None:
        """Answer a request with a (positive) errno."""
        self._send(_OUT.pack(_OUT.size, -number, unique))

    def _send(self, message: bytes) -> None:
        try:
            os.write(self.descriptor, message)
        except OSError as error:
            # ENOENT: nobody waits for this answer any more.
            if error.errno not in _GONE and error.errno != errno.ENOENT:
                raise

    def initialise(self, unique: int, body: memoryview) -> None:
        """Answer FUSE_INIT. Raises ValueError for a kernel older than protocol 7.23 (Linux 3.15)."""
        major, minor, readahead, offered = _INIT_IN.unpack_from(body)
        if (major, minor) < (7, 23):
            self.error(unique, errno.EPROTO)
            raise ValueError(f"the kernel speaks FUSE {major}.{minor}, at least 7.23 is needed")
        # Large enough for a read of any size to stay one request; nothing is ever written.
        flags = offered & _PARALLEL_DIROPS
        self.reply(unique, _INIT_OUT.pack(7, 31, readahead, flags, 64, 48, 4096, 1, 0, 0, 0))

    def close(self) -> None:
        """Close; the kernel then ends every request of this mount with ECONNABORTED."""
        os.close(self.descriptor)


class Attributes:
    """Makes attribute structures; every inode belongs to root and dates from the host's start."""

    def __init__(self, started: int) -> None:
        self._started = started

    def _attr(self, node: Node) -> bytes:
        entry = node.entry
        if entry is None:
            mode, size, links = stat.S_IFDIR | 0o755, 0, 2
        elif isinstance(entry, Link):
            mode, size, links = stat.S_IFLNK | 0o777, len(entry.target), 1
        else:
            # A page, as sysfs says. procfs says 0, but of such a file an asynchronous read, as io_uring's,
            # is empty here without our being asked (fs/fuse/file.c, fuse_direct_IO).
            mode, size, links = stat.S_IFREG | entry.mode, 4096, 1
        at = self._started
        return _ATTR.pack(node.number, size, 0, at, at, at, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

    def entry(self, node: Node) -> bytes:
        """fuse_entry_out. Names that may go away are looked up each time, so that they are missed at once."""
        lasting = FOREVER if node.owner is None and node.entry is None else 0
        return _ENTRY.pack(node.number, 0, lasting, FOREVER, 0, 0) + self._attr(node)

    def attributes(self, node: Node) -> bytes:
        """fuse_attr_out."""
        return _ATTR_OUT.pack(FOREVER, 0, 0) + self._attr(node)


def directory_entry(number: int, offset: int, name: bytes, entry: File | Link | None) -> bytes:
    """fuse_dirent, padded; `offset` is where the next READDIR goes on."""
    kind = 4 if entry is None else 10 if isinstance(entry, Link) else 8  # DT_DIR, DT_LNK, DT_REG
    return (_DIRENT.pack(number, offset, len(name), kind) + name).ljust(
        (_DIRENT.size + len(name) + 7) & ~7, b"\0"
    )
