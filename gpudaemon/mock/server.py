"""Answers FUSE requests from a live tree: at once, or late or never where a fault says so.

One thread. A delayed answer is an entry in a heap, a hung one only a parked request; lookups, listings and
links are always answered at once.
"""

import errno
import heapq
import logging
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from gpudaemon.mock.fuse import Attributes, Connection, Opcode, directory_entry
from gpudaemon.mock.live import LiveTree, Node
from gpudaemon.mock.tree import File, Link

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_OPEN_OUT = struct.Struct("<QII")
_READ_IN = struct.Struct("<QQI")
_HANDLE = struct.Struct("<Q")
_INTERRUPTED = struct.Struct("<Q")
_STATFS = struct.pack("<QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
_FOPEN_DIRECT_IO = 1  # each read reaches us; there is no page cache to answer from
_BATCH = 64  # requests taken in one go, so that due answers are not held up by a busy reader


@dataclass(slots=True, eq=False)
class _Handle:
    """An open file.

    generation: of the node at open. content: of the last read at offset 0 (fs/seq_file.c).
    rest: what a buffer had left after that read, 0 where it was filled.
    """

    node: Node
    generation: int
    content: bytes | None = None
    rest: int = 0


@dataclass(slots=True, eq=False)
class _Parked:
    """A read without an answer. due: when it gets one, None for not before it is released."""

    handle: _Handle
    offset: int
    size: int
    since: float
    due: float | None


class Server:
    """Serves one mount. `clock` gives seconds since the host started."""

    def __init__(
        self, connection: Connection, tree: LiveTree, clock: Callable[[], float], started: int
    ) -> None:
        self._connection = connection
        self._tree = tree
        self._clock = clock
        self._attributes = Attributes(started)
        self._entries: dict[int, bytes] = {}
        self._handles: dict[int, _Handle] = {}
        self._next_handle = 1
        self._parked: dict[int, _Parked] = {}
        self._due: list[tuple[float, int]] = []
        self._jitter = random.Random(0)
        self.requests = 0
        self.reads = 0
        self.interrupts = 0
        self.initialised = False
        self.ended = False
        self._serve: dict[int, Callable[[int, int, memoryview], None]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._no_reply,
            Opcode.BATCH_FORGET: self._no_reply,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.STATFS: lambda unique, _number, _body: self._connection.reply(unique, _STATFS),
            Opcode.RELEASE: self._release,
            Opcode.INIT: self._init,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.RELEASEDIR: lambda unique, _number, _body: self._connection.reply(unique),
            Opcode.INTERRUPT: self._interrupt,
            Opcode.DESTROY: self._destroy,
        }

    def pump(self) -> None:
        """Answer what is waiting. Sets `ended` when the file system was unmounted."""
        for _ in range(_BATCH):
            try:
                request = self._connection.receive()
            except ConnectionAbortedError:
                self.ended = True
                return
            if request is None:
                return
            opcode, unique, number, body = request
            self.requests += 1
            serve = self._serve.get(opcode)
            if serve is None:
                self._connection.error(unique, errno.ENOSYS)
            else:
                serve(unique, number, body)

    def timeout(self) -> float | None:
        """Seconds until the next delayed answer is due, None for none."""
        return max(0.0, self._due[0][0] - self._clock()) if self._due else None

    def answer_due(self) -> None:
        """Send the delayed answers whose time has come."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, unique = heapq.heappop(self._due)
            parked = self._parked.pop(unique, None)
            if parked is not None:
                self._answer(unique, parked.handle, parked.offset, parked.size)

    def release(self, nodes: Iterable[Node]) -> int:
        """Answer every read of `nodes` that waits; returns how many."""
        wanted = {node.number for node in nodes}
        waiting = [unique for unique, parked in self._parked.items() if parked.handle.node.number in wanted]
        for unique in waiting:
            parked = self._parked.pop(unique)
            self._answer(unique, parked.handle, parked.offset, parked.size)
        return len(waiting)

    def abort(self) -> None:
        """Answer every waiting read with EIO, so that nobody stays behind in D state."""
        for unique in self._parked:
            self._connection.error(unique, errno.EIO)
        self._parked.clear()
        self._due.clear()

    def waiting(self) -> list[tuple[str, float, bool]]:
        """(path, seconds waited, hung for good) of each read without an answer, oldest first."""
        now = self._clock()
        return [(p.handle.node.path, now - p.since, p.due is None) for p in self._parked.values()]

    def _no_reply(self, unique: int, number: int, body: memoryview) -> None:
        """FORGET: nodes live as long as the tree."""

    def _init(self, unique: int, _number: int, body: memoryview) -> None:
        self._connection.initialise(unique, body)
        self.initialised = True

    def _destroy(self, unique: int, _number: int, _body: memoryview) -> None:
        self._connection.reply(unique)
        self.ended = True

    def _interrupt(self, unique: int, _number: int, body: memoryview) -> None:
        # ENOSYS tells the kernel not to send this again; see the module docstring of gpudaemon.mock.fuse.
        self._connection.error(unique, errno.ENOSYS)
        self.interrupts += 1
        parked = self._parked.get(_INTERRUPTED.unpack_from(body)[0])
        if parked is not None:
            _log.debug("read of %s was interrupted and stays", parked.handle.node.path)

    def _lookup(self, unique: int, number: int, body: memoryview) -> None:
        node = self._tree.nodes[number].children.get(bytes(body[:-1]))
        if node is None or not node.alive:
            self._connection.error(unique, errno.ENOENT)
            return
        entry = self._entries.get(node.number)
        if entry is None:
            entry = self._entries[node.number] = self._attributes.entry(node)
        self._connection.reply(unique, entry)

    def _getattr(self, unique: int, number: int, _body: memoryview) -> None:
        self._connection.reply(unique, self._attributes.attributes(self._tree.nodes[number]))

    def _readlink(self, unique: int, number: int, _body: memoryview) -> None:
        node = self._tree.nodes[number]
        if isinstance(node.entry, Link) and node.alive:
            self._connection.reply(unique, node.entry.target.encode())
        else:
            self._connection.error(unique, errno.EINVAL if node.alive else errno.ENOENT)

    def _open(self, unique: int, number: int, _body: memoryview) -> None:
        node = self._tree.nodes[number]
        if not node.alive:
            self._connection.error(unique, errno.ENOENT)
            return
        node.opens += 1
        if node.fault is not None and node.fault.open_errno:
            self._connection.error(unique, node.fault.open_errno)
            return
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = _Handle(node, node.generation)
        self._connection.reply(unique, _OPEN_OUT.pack(handle, _FOPEN_DIRECT_IO, 0))

    def _release(self, unique: int, _number: int, body: memoryview) -> None:
        self._handles.pop(_HANDLE.unpack_from(body)[0], None)
        self._connection.reply(unique)

    def _read(self, unique: int, _number: int, body: memoryview) -> None:
        number, offset, size = _READ_IN.unpack_from(body)
        handle = self._handles[number]
        node = handle.node
        if handle.generation != node.generation:
            self._connection.error(unique, errno.ENODEV)
            return
        if offset and handle.content is not None:
            # The rest of what a read at offset 0 produced; the driver is not asked again (fs/seq_file.c).
            self._connection.reply(unique, handle.content[offset : offset + size])
            return
        if handle.rest and size == handle.rest:
            # io_uring goes on after a short read of a regular file (io_uring/rw.c, __io_read), and
            # fs/fuse/file.c, fuse_direct_IO, does not move the position of an asynchronous read, so it asks
            # for the rest of its buffer at the same offset. On sysfs it would be told the end of the file.
            handle.rest = 0
            self._connection.reply(unique)
            return
        node.reads += 1
        self.reads += 1
        if node.touching and node.device is not None:
            node.device.power.touch(self._clock())
        late = node.entry.delay if isinstance(node.entry, File) else 0.0
        fault = node.fault
        if late or (fault is not None and (fault.hang or fault.latency or fault.jitter)):
            now = self._clock()
            due: float | None = now + late
            if fault is not None:
                due = None if fault.hang else now + late + fault.latency + fault.jitter * self._jitter.random()
            self._parked[unique] = _Parked(handle, offset, size, now, due)
            if due is not None:
                heapq.heappush(self._due, (due, unique))
            return
        self._answer(unique, handle, offset, size)

    def _answer(self, unique: int, handle: _Handle, offset: int, size: int) -> None:
        node = handle.node
        fault = node.fault
        if handle.generation != node.generation:
            self._connection.error(unique, errno.ENODEV)
        elif fault is not None and fault.read_errno:
            self._connection.error(unique, fault.read_errno)
        else:
            try:
                now = self._clock()
                if fault is None:
                    content = node.content(now)
                else:
                    content = fault.spoil(partial(node.content, now), node.number)
            except OSError as error:
                self._connection.error(unique, error.errno or errno.EIO)
                return
            handle.content = content
            part = content[offset : offset + size]
            handle.rest = size - len(part) if part else 0
            self._connection.reply(unique, part)

    def _opendir(self, unique: int, number: int, _body: memoryview) -> None:
        if self._tree.nodes[number].alive:
            self._connection.reply(unique, _OPEN_OUT.pack(0, 0, 0))
        else:
            self._connection.error(unique, errno.ENOENT)

    def _readdir(self, unique: int, number: int, body: memoryview) -> None:
        _, offset, size = _READ_IN.unpack_from(body)
        directory = self._tree.nodes[number]
        # Offsets count all names, also those gone, so that a listing under way does not slip.
        names: list[tuple[bytes, Node]] = [(b".", directory), (b"..", directory), *directory.children.items()]
        entries: list[bytes] = []
        for position, (name, node) in enumerate(names[offset:], start=offset + 1):
            if not (node.alive and directory.alive):
                continue
            entry = directory_entry(node.number, position, name, node.entry)
            size -= len(entry)
            if size < 0:
                break
            entries.append(entry)
        self._connection.reply(unique, b"".join(entries))

    def waits_for(self, node: Node) -> bool:
        """True while a read of `node` has no answer."""
        return any(parked.handle.node is node for parked in self._parked.values())
