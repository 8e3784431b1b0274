"""How a child of the launcher lives: it ends with the launcher, or when the server has left."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

from gpudaemon.reader.rights import keep_only

__all__ = ["Loop", "begin_child", "run_until_left"]

_PR_SET_PDEATHSIG = 1


class Loop(Protocol):
    """What a child does for as long as it lives."""

    def run(self) -> None:
        """Raises BrokenPipeError or ConnectionResetError when the server is gone."""


def begin_child(capabilities: Iterable[str]) -> None:
    """Let this process end with its launcher (prctl(2), PR_SET_PDEATHSIG), and keep these capabilities only."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_only(capabilities)


def run_until_left(loop: Callable[[], Loop]) -> None:
    """Make a loop and run it; ends this process when the server is gone, 70 where that failed."""
    try:
        loop().run()
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception:
        sys.excepthook(*sys.exc_info())
        os._exit(70)
