"""A uevent as the kernel sends it on NETLINK_KOBJECT_UEVENT: `add@/devices/…`, NUL, `KEY=value`, NUL, …

lib/kobject_uevent.c (kobject_uevent_env). udevd's own messages start with `libudev` and have another,
binary format: they are not this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["LONGEST", "Uevent", "uevent"]

LONGEST = 16384
"""Bytes of a datagram; the kernel's variables fit 2048 (UEVENT_BUFFER_SIZE), the path a page."""

_ACTIONS = frozenset({"add", "remove", "change", "move", "online", "offline", "bind", "unbind"})


@dataclass(frozen=True, slots=True)
class Uevent:
    """action: a word of kobject_actions. devpath: below the sysfs root, with its leading slash."""

    action: str
    devpath: str
    properties: Mapping[str, str]


def uevent(datagram: bytes) -> Uevent:
    """Take a datagram apart; bad UTF-8 (a process name can hold any byte) is replaced; raises Malformed."""
    if not datagram:
        raise Malformed("empty")
    if len(datagram) > LONGEST:
        raise Malformed("oversized")
    head, *fields = datagram.split(b"\0")
    action, separator, devpath = head.decode("utf-8", "replace").partition("@")
    if not separator or action not in _ACTIONS or not devpath.startswith("/"):
        raise Malformed("format")
    properties: dict[str, str] = {}
    for field in fields:
        if not field:
            continue
        key, equals, value = field.decode("utf-8", "replace").partition("=")
        if not equals or not key:
            raise Malformed("format")
        properties[key] = value
    return Uevent(action, devpath, properties)
