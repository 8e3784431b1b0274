"""Reading files in a child process that can be abandoned, with a deadline on every read."""

import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gpudaemon.reader.recorder import ANSWER, REQUEST, STAGES

__all__ = ["LIMIT", "Reader", "Reading"]

LIMIT = 1 << 20
"""Bytes of a file that are kept; sysfs text has at most a page, a gpu_metrics table less."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of one read.

    content: None where there is none. why: empty where all is well, else `errno`, `deadline`, `refused` or
    `too large`. error: the errno, 0 for none. stage: `open` or `read`, where it came from.
    """

    content: bytes | None
    why: str = ""
    error: int = 0
    stage: str = ""


class Reader:
    """Context manager. deadline: seconds for one read. stuck: told the process and the file that did not come
    back.

    A child whose read does not return is killed and left: SIGKILL reaches it when the driver lets go.
    """

    def __init__(self, deadline: float, stuck: Callable[[int, str], None] = lambda _pid, _path: None) -> None:
        self._deadline = deadline
        self._stuck = stuck
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._drop(wait=True)

    def read(self, path: str) -> Reading:
        """Content of `path`, or why there is none. Raises OSError where no process can be started."""
        child = self._started()
        name = os.fsencode(path)
        assert child.stdin is not None
        try:
            child.stdin.write(REQUEST.pack(len(name), LIMIT + 1) + name)
            child.stdin.flush()
            end = time.monotonic() + self._deadline
            stage, number, length = ANSWER.unpack(self._receive(child, ANSWER.size, end))
            content = self._receive(child, length, end)
        except TimeoutError:
            self._stuck(child.pid, path)
            self._drop(wait=False)
            return Reading(None, "deadline")
        except (BrokenPipeError, EOFError):
            # Killed by somebody else; a driver that ends its readers is a broken one.
            self._drop(wait=False)
            return Reading(None, "errno", errno.EIO, "read")
        if STAGES[stage] == "refused":
            return Reading(None, "refused", number, "open")
        if number:
            return Reading(None, "errno", number, STAGES[stage])
        return Reading(content[:LIMIT], "too large" if len(content) > LIMIT else "")

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            packages = str(Path(__file__).resolve().parents[2])
            search = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "gpudaemon.reader.recorder"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # What may stay behind must not keep a caller's pipe open.
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": search},
            )
            # The first answer also waits for the interpreter to start, which is nobody's hang.
            self._child.stdin.write(REQUEST.pack(1, 0) + b"/")  # type: ignore[union-attr]
            self._child.stdin.flush()  # type: ignore[union-attr]
            self._receive(self._child, ANSWER.size, time.monotonic() + 30.0)
        return self._child

    def _receive(self, child: "subprocess.Popen[bytes]", length: int, end: float) -> bytes:
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        content = bytearray()
        while len(content) < length:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(descriptor, min(length - len(content), 1 << 16))
            if not part:
                raise EOFError
            content += part
        return bytes(content)

    def _drop(self, *, wait: bool) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if wait:
            child.wait()
