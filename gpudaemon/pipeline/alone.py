"""One look at a time: programs that look at this host's devices without a daemon take turns.

Each look at a device that hangs may leave a process behind that cannot end. It leaves a note (`holders`) as
well, and the next look leaves that device alone; but two that run at once do not know of each other. The lock
is flock(2) on a file of the runtime directory: it goes with its process, and the reader does not inherit it.
"""

import fcntl
import os
import time
from types import TracebackType

__all__ = ["Alone", "CannotNote"]


class CannotNote(Exception):
    """There is no place for notes: to look at a device that hangs would leave one more process each time."""


class Alone:
    """Context manager. directory: `path.runtime`, made if it is not there. wait: seconds for one's turn.

    Entering raises CannotNote where the directory cannot be written, TimeoutError where the turn did not come.
    """

    def __init__(self, directory: str, wait: float = 10.0) -> None:
        self._directory = directory
        self._wait = wait
        self._descriptor = -1

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
                return
            except OSError:
                if time.monotonic() >= end:
                    self._close()
                    raise TimeoutError(f"others have been looking for {self._wait:g} s") from None
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
