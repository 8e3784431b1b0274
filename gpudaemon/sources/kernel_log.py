"""The kernel's log as a stream: records of /dev/kmsg that come from now on.

Documentation/ABI/testing/dev-kmsg: each open has a place of its own, a read gives one record, and EPIPE where
records were overwritten before they were read. Opening it takes CAP_SYSLOG where kernel.dmesg_restrict is set.
Records that were there before are history; `after` says up to which one a reader before this one has come.
"""

import contextlib
import errno
import os

from gpudaemon.errors import Malformed
from gpudaemon.parsers.kmsg import LONGEST, Record, kmsg

__all__ = ["KernelLog"]

_AT_ONCE = 4096
"""Most records taken at once; the others stay in the kernel's buffer, or are lost and counted."""


class KernelLog:
    """records, lost: how many were read, and overwritten unread. sequence: of the last one, -1 for none."""

    def __init__(self, path: str = "/dev/kmsg", after: int = -1) -> None:
        """after: begin with the record after this one; -1: with the next that comes. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.records = 0
        self.lost = 0
        self.sequence = after
        self._unknown = False
        with contextlib.suppress(OSError):  # a pipe, for tests
            os.lseek(self._descriptor, 0, os.SEEK_END if after < 0 else os.SEEK_SET)

    def fileno(self) -> int:
        """Readable where there is a record."""
        return self._descriptor

    def close(self) -> None:
        """Read no more."""
        os.close(self._descriptor)

    def take(self) -> list[Record]:
        """The kernel's own records that have come since. Raises OSError where the log can be read no more."""
        found: list[Record] = []
        for _ in range(_AT_ONCE):
            try:
                content = os.read(self._descriptor, LONGEST)
            except BlockingIOError:
                break
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self._unknown = True
                continue
            if not content:
                break
            try:
                record = kmsg(content)
            except Malformed:
                continue
            if record.sequence <= self.sequence:
                continue
            self._count(record)
            if record.facility == 0:
                found.append(record)
        return found

    def _count(self, record: Record) -> None:
        """Numbers have no gaps: what is missing was overwritten."""
        missing = record.sequence - self.sequence - 1 if self.sequence >= 0 else 0
        self.lost += missing or int(self._unknown)
        self._unknown = False
        self.sequence = record.sequence
        self.records += 1
