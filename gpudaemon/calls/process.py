"""A process that makes calls of one kind: `python -m gpudaemon.calls.process CHANNEL TIER KIND HEARTBEAT`.

A reader (`gpudaemon.reader.process`) with another engine. It keeps no more capabilities than its kind needs.
"""

import importlib
import socket
import sys
import threading

from gpudaemon.calls import Caller
from gpudaemon.calls.engine import CallEngine, Questions
from gpudaemon.model.call import KINDS
from gpudaemon.model.rights import TIERS
from gpudaemon.reader.child import run_until_left
from gpudaemon.reader.lanes import Lanes
from gpudaemon.reader.process import Reader, prepare

__all__ = ["reader"]


def reader(channel: socket.socket, caller: Caller, heartbeat: float) -> Reader:
    """A reader that asks `caller` instead of reading files. Raises OSError."""
    questions = Questions(caller)

    def engine(lanes: Lanes, lock: threading.RLock) -> tuple[CallEngine, str]:
        return CallEngine(questions, lanes.finished, lanes.flush, lock), caller.about

    return Reader(channel, engine, heartbeat, release=questions.release, let_go=caller.let_go)


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    tier, kind, heartbeat = sys.argv[2], sys.argv[3], float(sys.argv[4])
    prepare(set(KINDS[kind].capabilities) & set(TIERS[tier]))
    caller: Caller = importlib.import_module(f"gpudaemon.calls.{kind}").caller()
    run_until_left(lambda: reader(channel, caller, heartbeat))


if __name__ == "__main__":
    _main()
