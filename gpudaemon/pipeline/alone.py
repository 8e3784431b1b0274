"""One look at a time: programs that look at this host's devices without a daemon take turns.

Each look at a device that hangs may leave a process behind that cannot end. It leaves a note (`holders`) as
well, and the next look leaves that device alone; but two that run at once do not know of each other. The lock
is flock(2) on a file of the runtime directory: it goes with its process, and the reader does not inherit it.

The process left behind must not keep the caller's pipe open either: a shell's `$(...)`, slurmd and
node-problem-detector wait until every writer has gone.
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from types import TracebackType

__all__ = ["Alone", "CannotNote", "without_output"]


class CannotNote(Exception):
    """There is no place for notes: to look at a device that hangs would leave one more process each time."""


@contextlib.contextmanager
def without_output() -> Iterator[None]:
    """Processes started meanwhile inherit /dev/null for their output; this one's own goes there as well."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    kept = {number: os.dup(number) for number in (1, 2) if _is_open(number)}
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        os.close(nowhere)
        for number, descriptor in kept.items():
            os.dup2(descriptor, number)
            os.close(descriptor)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


class Alone:
    """Context manager. directory: `path.runtime`, made if it is not there. wait: seconds for one's turn.

    Within, this process has no output (`without_output`). Entering raises CannotNote where the directory cannot
    be written, TimeoutError where the turn did not come.
    """

    def __init__(self, directory: str, wait: float = 10.0) -> None:
        self._directory = directory
        self._wait = wait
        self._descriptor = -1
        self._quiet = without_output()

    def __enter__(self) -> None:
        try:
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptor = os.open(os.path.join(self._directory, "look.lock"), flags, 0o600)
        except OSError as error:
            raise CannotNote(f"{self._directory} cannot be written: {error.strerror}") from None
        end = time.monotonic() + self._wait
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._quiet.__enter__()
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    self._close()
                    raise TimeoutError(f"others have been looking for {self._wait:g} s") from None
                time.sleep(0.05)
            except OSError as error:
                self._close()
                raise CannotNote(f"{self._directory} cannot be locked: {error.strerror}") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._quiet.__exit__(kind, error, traceback)
        self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
