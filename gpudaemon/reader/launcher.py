"""Starts readers and keeps the rights they need: `python -m gpudaemon.reader.launcher CONTROL TIER`.

The server drops every capability once the first reader runs, so it could never give a second one its rights.
This small process holds them instead. It opens no kernel file and no network; CONTROL is the descriptor of a
SOCK_SEQPACKET pair. A packet is what to start (a key of `PROGRAMS`), the engine's name or the kind of calls,
and the seconds between heartbeats, with the reader's end of its channel as a descriptor; the answer is the
reader's process id. A process that makes calls is a reader like any other. A packet "kill PID" ends a reader
that fell silent. When the server's end closes, every reader is killed and the launcher ends; a reader stuck
in a driver stays until its read returns. A tracer has something to undo and ends by itself when its channel
closes: it gets a signal it can obey, and time.
"""

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from gpudaemon.model.rights import TIERS
from gpudaemon.reader.rights import keep_only

__all__ = ["PROGRAMS", "request", "start"]

PROGRAMS = {
    "reader": "gpudaemon.reader.process",
    "scout": "gpudaemon.processes.process",
    "calls": "gpudaemon.calls.process",
    "tracer": "gpudaemon.tracing.process",
}
"""What a launcher can start, and the module that is it."""

_FAREWELL = 0.2
"""Seconds that readers have to end; a stuck one takes longer than anybody can wait."""
_GENTLE = {"tracer": 0.7}
"""Programs that are asked to end, and seconds they have for it before the launcher leaves; they go on without
it."""


def start(tier: str) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    """Start a launcher; returns the server's end of its control socket, and the process. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpudaemon.reader.launcher", str(theirs.fileno()), tier],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # A terminal's Ctrl-C is the server's to handle.
            start_new_session=True,
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, process


def request(
    control: socket.socket, engine: str, heartbeat: float = 2.0, *, program: str = "reader"
) -> tuple[socket.socket, int]:
    """Ask for a reader; returns the server's end of its channel and the reader's process id.

    heartbeat: seconds between its heartbeats. program: a key of `PROGRAMS`.
    Blocks until the reader's process exists (some milliseconds).
    Raises OSError when the launcher is gone.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    try:
        descriptors = array.array("i", [theirs.fileno()])
        control.sendmsg(
            [f"{program} {engine} {heartbeat}".encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        )
        answer = control.recv(64)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    if not answer.isdigit():
        ours.close()
        raise ConnectionError(f"the launcher started no reader: {answer.decode(errors='replace')}")
    ours.setblocking(False)
    return ours, int(answer)


def _serve(control: socket.socket, tier: str) -> None:
    readers: dict[int, subprocess.Popen[bytes]] = {}
    gentle: dict[int, float] = {}
    while True:
        packet, ancillary, _, _ = control.recvmsg(256, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not packet:
            break
        for number in [number for number, reader in readers.items() if reader.poll() is not None]:
            del readers[number]
            gentle.pop(number, None)
        if packet.startswith(b"kill "):
            reader = readers.get(int(packet[5:]))
            if reader is not None:
                _end(reader, reader.pid in gentle)
            continue
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        channel = descriptors[0]
        program, *arguments = packet.decode().split()
        try:
            reader = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", PROGRAMS[program]),
                    *(str(channel), tier, *arguments),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(channel,),
            )
        except OSError as error:
            control.send(f"{error.strerror}".encode())
        else:
            readers[reader.pid] = reader
            if program in _GENTLE:
                gentle[reader.pid] = _GENTLE[program]
            control.send(str(reader.pid).encode())
        finally:
            os.close(channel)
    for reader in readers.values():
        _end(reader, reader.pid in gentle)
    # The server waits for this process: of a healthy stop nothing is left when it ends.
    end = time.monotonic() + max(_FAREWELL, *gentle.values(), 0.0)
    while any(reader.poll() is None for reader in readers.values()) and time.monotonic() < end:
        time.sleep(0.005)


def _end(reader: "subprocess.Popen[bytes]", gentle: bool) -> None:
    with contextlib.suppress(OSError):
        if gentle:
            reader.terminate()
        else:
            reader.kill()


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not reaped by waiting: a stuck reader must not hold the launcher.
    keep_only(TIERS[sys.argv[2]])
    with contextlib.suppress(ConnectionResetError):
        _serve(control, sys.argv[2])
    os._exit(0)


if __name__ == "__main__":
    _main()
