"""Error counters by generic netlink: the family `drm-ras`, of which only the two commands that ask are used.

Every command wants CAP_NET_ADMIN in the initial user namespace (genl_ops flag GENL_ADMIN_PERM). There is no
multicast group, so it is asked now and then. Node numbers are given anew when a driver is bound: nodes are
listed each time. An answer is the kernel's messages as they came, for `gpudaemon.parsers.drm_ras`: of each of
the device's nodes what LIST_NODES said of it, then its counters.

Documentation/netlink/specs/drm_ras.yaml, drivers/gpu/drm/drm_ras.c.
"""

import errno
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

__all__ = ["DrmRas", "Family", "caller"]

_LIST_NODES, _GET_ERROR_COUNTER = 1, 2
_MOST_NODES = 64
"""Nodes of a device; xe has two."""

# That a kernel lacks the family is an answer, not an error to be printed.
AsyncGenericNetlinkSocket.module_err_level = "debug"


class _Message(genlmsg):  # type: ignore[misc]
    """Attributes of requests and answers; in an answer of GET_ERROR_COUNTER 2 is the error's number."""

    nla_map = (
        ("UNSPEC", "none"),
        ("NODE_ID", "uint32"),
        ("DEVICE_NAME", "asciiz"),
        ("NODE_NAME", "asciiz"),
        ("NODE_TYPE", "uint32"),
    )


class _Counter(genlmsg):  # type: ignore[misc]
    """A counter is passed on as it came."""

    nla_map = (("UNSPEC", "none"), ("NODE_ID", "uint32"))


class Family:
    """A socket bound to a generic netlink family. Context manager. Raises OSError."""

    def __init__(self, name: str) -> None:
        self._socket = GenericNetlinkSocket()
        try:
            self._socket.bind(name, _Message)
        except NetlinkError as error:
            self._socket.close()
            # nlctrl answers ENOENT where there is no such family.
            number = errno.EOPNOTSUPP if error.code == errno.ENOENT else error.code
            raise OSError(number, f"generic netlink family {name}") from None

    def __enter__(self) -> "Family":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(
        self, command: int, node: int | None = None, *, message: Any = _Message
    ) -> Iterator[tuple[Any, bytes]]:
        """(message, its bytes) of each answer to a dump. Raises OSError; EACCES without the capability."""
        request = _Message()
        request["cmd"] = command
        request["version"] = 1
        if node is not None:
            request["attrs"] = [["NODE_ID", node]]
        self._socket.marshal.msg_map[self._socket.prid] = message
        try:
            found = self._socket.nlm_request(
                request, msg_type=self._socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP
            )
            for one in found:
                yield one, bytes(one.data[one.offset : one.offset + one["header"]["length"]])
        except NetlinkError as error:
            raise OSError(errno.EACCES if error.code == errno.EPERM else error.code, str(error)) from None


class _Errors:
    """The counters of one device."""

    def __init__(self, device: str, family: str) -> None:
        self._device = device
        self._family = family

    def ask(self) -> bytes:
        with Family(self._family) as family:
            nodes = [
                (one.get_attr("NODE_ID"), raw)
                for one, raw in family.dump(_LIST_NODES)
                if one.get_attr("DEVICE_NAME") == self._device
            ]
            if not nodes:
                raise OSError(errno.ENOENT, "no node of this device")
            answer = b""
            for number, raw in nodes[:_MOST_NODES]:
                answer += _padded(raw)
                for _, counter in family.dump(_GET_ERROR_COUNTER, number, message=_Counter):
                    answer += _padded(counter)
        return answer

    def close(self) -> None:
        """Nothing is held between two questions."""


def _padded(message: bytes) -> bytes:
    return message + b"\0" * (-len(message) % 4)


class DrmRas:
    """See the module."""

    let_go = False

    def __init__(self, family: str = "drm-ras") -> None:
        self._family = family
        self.about = f"generic netlink family {family}"

    def open(self, device: str, question: str) -> _Errors:
        """Prepare the question `errors`. Raises OSError: EOPNOTSUPP where the kernel has no such family."""
        if question != "errors":
            raise OSError(errno.ENOENT, f"drm_ras: no question {question}")
        with Family(self._family):
            return _Errors(device, self._family)


def caller() -> DrmRas:
    """The caller of this kind."""
    return DrmRas()
