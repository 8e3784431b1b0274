"""Answers of the calls about RDMA devices (`gpudaemon.calls.rdma`): lines of words separated by tabs.

What the words of a line are is said with each function. Each of them raises Malformed and nothing else.

drivers/infiniband/core/nldev.c; include/rdma/ib_verbs.h (enum ib_qp_state).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed
from gpudaemon.parsers.cgroup import NOBODY, cgroup_owner

__all__ = ["QP_STATES", "SORTS", "Holder", "Holders", "Objects", "holders", "objects", "statistics"]

SORTS = ("qp", "cm_id", "cq", "mr", "pd", "ctx")
"""Sorts of objects whose holders are asked for."""
QP_STATES = (
    "reset",
    "init",
    "ready_to_receive",
    "ready_to_send",
    "send_queue_drained",
    "send_queue_error",
    "error",
)
"""enum ib_qp_state: RESET, INIT, RTR, RTS, SQD, SQE, ERR."""
_MOST = 1 << 64
_NAME = 64


@dataclass(frozen=True, slots=True)
class Objects:
    """How many objects of a sort a device has, and how many it can have, None where the kernel does not say."""

    sort: str
    count: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds objects of a device: the processes of one name and owner, or a part of the kernel.

    owner: key of the cgroup's owner, `kernel`, `unknown`, or `others` for the rest. process: name of the
    processes, or of the part of the kernel. octets: registered memory; counts: by sort.
    """

    owner: str
    process: str
    octets: int
    counts: dict[str, int]


@dataclass(slots=True)
class Holders:
    """An answer to `holders`. left_out: sort -> how many objects were not looked at. states: of queue pairs."""

    left_out: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    holders: list[Holder] = field(default_factory=list)


def objects(content: bytes) -> list[Objects]:
    """Lines of `SORT COUNT MOST`, MOST `-` for not known."""
    found = []
    for words in _lines(content):
        if len(words) != 3:
            raise Malformed("format")
        sort, count, most = words
        found.append(Objects(_word(sort), _number(count), None if most == "-" else _number(most)))
    return found


def holders(content: bytes) -> Holders:
    """Lines of `left SORT COUNT`, `state NUMBER COUNT`, `holder KIND NAME CGROUP OCTETS SORT=COUNT...`.

    CGROUP is /proc/PID/cgroup with 0x1f for line feeds.
    """
    found = Holders()
    for words in _lines(content):
        match words:
            case ["left", sort, count]:
                found.left_out[_word(sort)] = _number(count)
            case ["state", number, count]:
                place = _number(number)
                if place < len(QP_STATES):  # a newer one is no state we know
                    found.states[QP_STATES[place]] = _number(count)
            case ["holder", kind, name, cgroup, octets, *counts]:
                found.holders.append(_holder(kind, name, cgroup, _number(octets), counts))
            case _:
                raise Malformed("format")
    return found


def statistics(content: bytes) -> list[tuple[str, str, int]]:
    """Lines of `PORT NAME VALUE` -> (port, name of the counter, value)."""
    found = []
    for words in _lines(content):
        if len(words) != 3:
            raise Malformed("format")
        port, name, value = words
        found.append((str(_number(port)), _word(name), _number(value)))
    return found


def _holder(kind: str, name: str, cgroup: str, octets: int, words: list[str]) -> Holder:
    counts = {}
    for word in words:
        sort, equals, count = word.partition("=")
        if not equals or sort not in SORTS:
            raise Malformed("format")
        counts[sort] = _number(count)
    if kind == "k":
        return Holder("kernel", name[:_NAME] or "unknown", octets, counts)
    if kind == "o":
        return Holder("others", "others", octets, counts)
    if kind != "u":
        raise Malformed("format")
    try:
        owner = cgroup_owner(cgroup.replace("\x1f", "\n").encode())
    except Malformed:
        owner = NOBODY
    return Holder(owner.key, name[:_NAME] or "unknown", octets, counts)


def _lines(content: bytes) -> Iterator[list[str]]:
    # Not splitlines(): names and cgroups hold what they like but line feeds.
    for line in content.decode("utf-8", "replace").split("\n"):
        if line:
            yield line.split("\t")


def _word(text: str) -> str:
    if not text:
        raise Malformed("format")
    return text[:_NAME]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise Malformed("not_a_number")
    value = int(text)
    if value >= _MOST:
        raise Malformed("out_of_range")
    return value
