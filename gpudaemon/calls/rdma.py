"""Objects and optional counters of RDMA devices by netlink: NETLINK_RDMA, client nldev, commands that ask only.

None of them wants a capability; CAP_SYS_PTRACE is for the name and the cgroup of the processes that own the
objects, where /proc hides them (hidepid). A socket of NETLINK_RDMA loads ib_core where it is not there, so
nothing is asked before there is an RDMA device.

Summaries and dumps come from the core's lists (drivers/infiniband/core/restrack.c), but for one: of each queue
pair the driver is asked for its state (ib_query_qp), which may cost a command to the firmware. So a dump is
made only of what there is not too much of, and how many were passed over is said. Counters that a port always
has are files (hw_counters); those an administrator switched on (`rdma statistic set`) are not: they are asked
for here, where the port has any.

An answer is lines of words separated by tabs, for `gpudaemon.parsers.rdma_objects`.

drivers/infiniband/core/nldev.c, include/uapi/rdma/rdma_netlink.h.
"""

import errno
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nlsocket import NetlinkSocket

__all__ = ["Holdings", "Rdma", "caller", "optional_counters", "summary"]

_NETLINK_RDMA = 20
_CLIENT = 5 << 10
"""RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, 0)."""
_GET, _RES_GET, _STAT_GET, _STAT_GET_STATUS = 1, 9, 17, 24
_TABLES = {
    "qp": (10, 19),
    "cm_id": (11, 30),
    "cq": (12, 35),
    "mr": (13, 40),
    "pd": (14, 46),
    "ctx": (22, 86),
}
"""Sort of object -> command that dumps them, attribute that holds their table."""
_INDEX, _NAME, _PORTS = 1, 2, 3
_SUMMARY, _SUMMARY_NAME, _SUMMARY_CURRENT, _SUMMARY_MOST = 15, 17, 18, 118
_STATE, _PID, _KERNEL_NAME, _LENGTH = 27, 28, 29, 45
_COUNTERS, _COUNTER_NAME, _COUNTER_VALUE, _COUNTER_DYNAMIC = 80, 82, 83, 95
_TYPE = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_ATTRIBUTE = struct.Struct("=HH")
_HEADER = 16
_MOST = {"qp": 4096}
_MOST_OBJECTS = 65536
"""Objects of a sort of which a dump is made."""
_MOST_HOLDERS = 64
_MOST_PORTS = 16
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT)
"""Of a kernel or driver that does not know a command."""


class _Request(nlmsg):  # type: ignore[misc]
    nla_map = (
        (_INDEX, "INDEX", "uint32"),
        (_PORTS, "PORT", "uint32"),
    )


def attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute; ends where one is not whole."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, offset)
        if length < _ATTRIBUTE.size or offset + length > len(content):
            return
        yield kind & _TYPE, content[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _number(value: bytes | None) -> int | None:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big") if value else None


def _text(value: bytes | None) -> str:
    """A NUL-terminated string as one word of a line."""
    found = (value or b"").split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in found)


def _entries(payload: bytes, table: int) -> Iterator[dict[int, bytes]]:
    """The attributes of each entry of the tables of this kind in a message."""
    for kind, value in attributes(payload):
        if kind == table:
            for _, entry in attributes(value):
                yield dict(attributes(entry))


def summary(payload: bytes) -> dict[str, tuple[int, int | None]]:
    """Sort of object -> (how many there are, how many the device can have), of an answer to RES_GET."""
    found = {}
    for entry in _entries(payload, _SUMMARY):
        name, current = _text(entry.get(_SUMMARY_NAME)), _number(entry.get(_SUMMARY_CURRENT))
        if name and current is not None:
            found[name] = (current, _number(entry.get(_SUMMARY_MOST)))
    return found


def optional_counters(status: bytes, values: Callable[[], bytes]) -> list[tuple[str, int]]:
    """(name, value) of the counters of a port that can be switched off and are on.

    status: an answer to STAT_GET_STATUS. values: asks STAT_GET, which is done only where there are any.
    """
    wanted = {
        _text(entry.get(_COUNTER_NAME))
        for entry in _entries(status, _COUNTERS)
        if _number(entry.get(_COUNTER_DYNAMIC))
    }
    if not wanted:
        return []
    found = []
    for entry in _entries(values(), _COUNTERS):
        name, value = _text(entry.get(_COUNTER_NAME)), _number(entry.get(_COUNTER_VALUE))
        if name in wanted and value is not None:
            found.append((name, value))
    return found


@dataclass(slots=True)
class Holdings:
    """Who holds the objects of a device.

    counts: (holder, sort) -> how many; octets: holder -> registered memory; states: of queue pairs -> how many.
    A holder is ("k", name) for a part of the kernel, ("u", pid) for a process, ("u", "") for one that cannot be
    told: it has ended, or is in another pid namespace.
    """

    counts: Counter[tuple[tuple[str, str], str]] = field(default_factory=Counter)
    octets: Counter[tuple[str, str]] = field(default_factory=Counter)
    states: Counter[int] = field(default_factory=Counter)

    def take(self, sort: str, payload: bytes) -> None:
        """Add the objects of one message of a dump."""
        for entry in _entries(payload, _TABLES[sort][1]):
            kernel = _text(entry.get(_KERNEL_NAME))
            pid = _number(entry.get(_PID))
            holder = ("k", kernel) if kernel else ("u", str(pid) if pid else "")
            self.counts[holder, sort] += 1
            if sort == "mr":
                self.octets[holder] += _number(entry.get(_LENGTH)) or 0
            if sort == "qp" and entry.get(_STATE):
                self.states[entry[_STATE][0]] += 1


class _Socket:
    """A socket of NETLINK_RDMA. Context manager. Raises OSError."""

    def __init__(self) -> None:
        try:
            self._socket = NetlinkSocket(family=_NETLINK_RDMA)
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT:
                raise OSError(errno.EOPNOTSUPP, "no NETLINK_RDMA") from None
            raise

    def __enter__(self) -> "_Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, command: int, *, flags: int = 0, **what: int) -> Iterator[bytes]:
        """What stands behind the header of each message of an answer."""
        request = _Request()
        request["attrs"] = list(what.items())
        try:
            for one in self._socket.nlm_request(
                request, msg_type=_CLIENT | command, msg_flags=NLM_F_REQUEST | flags
            ):
                length = one["header"]["length"]
                yield bytes(one.data[one.offset + _HEADER : one.offset + length])
        except NetlinkError as error:
            raise OSError(errno.EACCES if error.code == errno.EPERM else error.code, str(error)) from None

    def dump(self, command: int, **what: int) -> list[bytes] | None:
        """The same of a dump; None where the kernel does not know the command or the driver cannot answer."""
        try:
            return list(self.ask(command, flags=NLM_F_DUMP, **what))
        except OSError as error:
            if error.errno in _REFUSED:
                return None
            raise

    def device(self, name: str) -> tuple[int, int]:
        """(index, number of ports) of a device. Raises OSError: ENODEV where there is none of this name."""
        for payload in self.ask(_GET, flags=NLM_F_DUMP):
            found = dict(attributes(payload))
            if _text(found.get(_NAME)) == name:
                index = _number(found.get(_INDEX))
                if index is not None:
                    return index, _number(found.get(_PORTS)) or 0
        raise OSError(errno.ENODEV, f"no RDMA device {name}")

    def summary(self, index: int) -> dict[str, tuple[int, int | None]]:
        """Of one device; see `summary`."""
        return summary(b"".join(self.ask(_RES_GET, INDEX=index)))


Words = Iterable[object]


def _objects(socket: _Socket, index: int, _: int) -> Iterator[Words]:
    """sort, how many, how many there can be."""
    for sort, (current, most) in socket.summary(index).items():
        yield sort, current, "-" if most is None else most


def _holders(socket: _Socket, index: int, _: int) -> Iterator[Words]:
    """`left`, sort, count; `state`, number, count; `holder`, kind, name, cgroup, octets, sort=count each."""
    there = socket.summary(index)
    holdings = Holdings()
    for sort, (command, _table) in _TABLES.items():
        current, _most = there.get(sort, (0, None))
        if current > _MOST.get(sort, _MOST_OBJECTS):
            yield "left", sort, current
            continue
        found = socket.dump(command, INDEX=index) if current else []
        if found is None:
            yield "left", sort, current
            continue
        for payload in found:
            holdings.take(sort, payload)
    for state, count in sorted(holdings.states.items()):
        yield "state", state, count
    yield from _together(holdings)


def _together(holdings: Holdings, proc: str = "/proc") -> Iterator[Words]:
    """A line for processes of one name and cgroup; beyond _MOST_HOLDERS they go together, the least first."""
    objects: dict[tuple[str, ...], Counter[str]] = {}
    octets: Counter[tuple[str, ...]] = Counter()
    named = {
        holder: (holder[0], *(_process(proc, holder[1]) if holder[0] == "u" else (holder[1], "")))
        for holder, _ in holdings.counts
    }
    for (holder, sort), count in holdings.counts.items():
        objects.setdefault(named[holder], Counter())[sort] += count
    for holder, count in holdings.octets.items():
        octets[named[holder]] += count
    ranked = sorted(objects, key=lambda who: (-objects[who].total(), who))
    for place, who in enumerate(ranked):
        if place >= _MOST_HOLDERS:
            objects.setdefault(("o", "others", ""), Counter()).update(objects.pop(who))
            octets["o", "others", ""] += octets.pop(who, 0)
    for who, sorts in objects.items():
        yield "holder", *who, octets[who], *(f"{sort}={count}" for sort, count in sorted(sorts.items()))


def _process(proc: str, pid: str) -> tuple[str, str]:
    """(name, content of /proc/PID/cgroup with separators for line feeds); empty where they cannot be read."""
    if not pid:
        return "", ""
    found = []
    for name in ("comm", "cgroup"):
        try:
            with open(os.path.join(proc, pid, name), "rb") as file:
                found.append(file.read(4096).rstrip(b"\n"))
        except OSError:
            found.append(b"")
    comm, cgroup = (one.decode("utf-8", "replace") for one in found)
    lines = "\x1f".join(_text(line.encode()) for line in cgroup.split("\n"))
    return _text(comm.encode()), lines


def _statistics(socket: _Socket, index: int, ports: int) -> Iterator[Words]:
    """port, name, value of optional counters that are switched on."""
    for port in range(1, min(ports, _MOST_PORTS) + 1):
        try:
            status = b"".join(socket.ask(_STAT_GET_STATUS, INDEX=index, PORT=port))
        except OSError as error:
            if error.errno in _REFUSED:
                continue
            raise

        def values(port: int = port) -> bytes:
            return b"".join(socket.ask(_STAT_GET, INDEX=index, PORT=port))

        for name, value in optional_counters(status, values):
            yield port, name, value


_QUESTIONS: dict[str, Callable[[_Socket, int, int], Iterator[Words]]] = {
    "objects": _objects,
    "holders": _holders,
    "statistics": _statistics,
}


class _Question:
    """One of `_QUESTIONS` about one RDMA device."""

    def __init__(self, name: str, make: Callable[[_Socket, int, int], Iterator[Words]]) -> None:
        self._name = name
        self._make = make

    def ask(self) -> bytes:
        with _Socket() as socket:
            lines = ["\t".join(map(str, words)) for words in self._make(socket, *socket.device(self._name))]
        return "".join(f"{line}\n" for line in lines).encode()

    def close(self) -> None:
        """Nothing is held between two questions: names of devices and indexes may change hands."""


class Rdma:
    """See the module."""

    let_go = False
    about = "netlink, NETLINK_RDMA"

    def open(self, device: str, question: str) -> Any:
        """Prepare `objects NAME`, `holders NAME` or `statistics NAME`. Raises OSError."""
        what, _, name = question.partition(" ")
        if what not in _QUESTIONS or not name:
            raise OSError(errno.ENOENT, f"rdma: no question {question}")
        return _Question(name, _QUESTIONS[what])


def caller() -> Rdma:
    """The caller of this kind."""
    return Rdma()
