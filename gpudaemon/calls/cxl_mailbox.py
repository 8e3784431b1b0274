"""Commands to a CXL memory device's mailbox that only ask: health, alert thresholds, shutdown state, firmware.

A question is `memN WHAT`. The node /dev/cxl/memN (root's, mode 0600) is opened for reading, for each call
anew: nothing keeps a device from being unbound. CXL_MEM_QUERY_COMMANDS comes first; what driver or device have
not is EOPNOTSUPP, what the kernel keeps to itself EBUSY. Kernels before 6.3 list all commands and do not say
which are enabled: there the command itself is answered ENOTTY.

Event records and the poison list are not among the commands a process may send (CXL_MEM_DEPRECATED_ID_*): the
kernel takes them and makes trace events of them.

The mailbox takes one command at a time and waits up to 2 s for each (drivers/cxl/pci.c,
CXL_MAILBOX_TIMEOUT_MS). An answer is the output payload as it came, for `gpudaemon.parsers.cxl_mailbox`.

include/uapi/linux/cxl_mem.h, drivers/cxl/core/mbox.c.
"""

import ctypes
import errno
import fcntl
import os
import re
import struct

__all__ = ["COMMANDS", "CxlMailbox", "Mailbox", "caller"]

COMMANDS: dict[str, tuple[int, int]] = {
    "firmware": (4, 0x50),
    "health": (7, 0x12),
    "thresholds": (11, 0x10),
    "shutdown": (13, 0x1),
}
"""CXL_MEM_COMMAND_ID_* of GET_FW_INFO, GET_HEALTH_INFO, GET_ALERT_CONFIG, GET_SHUTDOWN_STATE, and the length of
what each answers."""
_IDENTIFY = 1
"""Always enabled (CXL_CMD_FLAG_FORCE_ENABLE): where it is not said to be, nothing is said."""
_QUERY, _SEND = 0x8008CE01, 0xC030CE02
"""_IOR(0xCE, 1, 8 bytes), _IOWR(0xCE, 2, 48 bytes) (include/uapi/asm-generic/ioctl.h)."""
_COUNT = struct.Struct("=II")
_COMMAND = struct.Struct("=IIII")
"""struct cxl_command_info: id, flags, size_in, size_out."""
_MESSAGE = struct.Struct("=IIII IIQ IIQ")
"""struct cxl_send_command: id, flags, raw or reserved, retval; in and out: size, reserved, payload."""
_ENABLED, _EXCLUSIVE = 1, 2
_MOST_COMMANDS = 256
_QUESTION = re.compile(r"(mem\d{1,5}) ([a-z]+)", re.ASCII)
_RETURNED = {
    0x2: errno.EINVAL,
    0x3: errno.EOPNOTSUPP,
    0x5: errno.EAGAIN,
    0x6: errno.EBUSY,
    0x15: errno.EOPNOTSUPP,
}
"""errno of a device's return code (CXL 3.1, table 8-34); EIO for any other but 0."""


class Mailbox:
    """An open memory device. Context manager. Raises OSError, ENXIO where the driver has let go of it."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> "Mailbox":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def commands(self) -> dict[int, int]:
        """Commands the driver knows: id -> flags."""
        buffer = bytearray(_COUNT.size)
        fcntl.ioctl(self._descriptor, _QUERY, buffer, True)
        count = min(_COUNT.unpack(buffer)[0], _MOST_COMMANDS)
        # Longer than the size in the number says: the list follows the header.
        listing = bytearray(_COUNT.size + count * _COMMAND.size)
        _COUNT.pack_into(listing, 0, count, 0)
        fcntl.ioctl(self._descriptor, _QUERY, listing, True)
        found = _COMMAND.iter_unpack(listing[_COUNT.size :])
        return {number: flags for number, flags, _, _ in found if number}

    def send(self, command: int, size: int) -> bytes:
        """Send a command without input that answers up to `size` bytes; returns what it answered."""
        payload = ctypes.create_string_buffer(size)
        message = bytearray(_MESSAGE.pack(command, 0, 0, 0, 0, 0, 0, size, 0, ctypes.addressof(payload)))
        fcntl.ioctl(self._descriptor, _SEND, message, True)
        _, _, _, returned, _, _, _, length, _, _ = _MESSAGE.unpack(message)
        if returned:
            raise OSError(_RETURNED.get(returned, errno.EIO), f"the device returned {returned:#x}")
        return payload.raw[: min(length, size)]


class _Question:
    """One command of one memory device."""

    def __init__(self, path: str, command: int, size: int) -> None:
        self._path = path
        self._command = command
        self._size = size

    def ask(self) -> bytes:
        with Mailbox(self._path) as mailbox:
            return mailbox.send(self._command, self._size)

    def close(self) -> None:
        """Nothing is held between two questions."""


class CxlMailbox:
    """See the module."""

    about = "CXL_MEM_SEND_COMMAND"
    let_go = False

    def __init__(self, directory: str = "/dev/cxl") -> None:
        self._directory = directory

    def open(self, device: str, question: str) -> _Question:
        """Prepare one of COMMANDS. Raises OSError: EOPNOTSUPP where driver or device has no such command."""
        found = _QUESTION.fullmatch(question)
        if found is None or found.group(2) not in COMMANDS:
            raise OSError(errno.ENOENT, f"cxl_mailbox: no question {question}")
        path = os.path.join(self._directory, found.group(1))
        command, size = COMMANDS[found.group(2)]
        with Mailbox(path) as mailbox:
            known = mailbox.commands()
        told = known.get(_IDENTIFY, 0) & _ENABLED
        if command not in known or (told and not known[command] & _ENABLED):
            raise OSError(errno.EOPNOTSUPP, f"{question}: not supported")
        if known[command] & _EXCLUSIVE:
            raise OSError(errno.EBUSY, f"{question}: the kernel's own")
        return _Question(path, command, size)


def caller() -> CxlMailbox:
    """The caller of this kind."""
    return CxlMailbox()
