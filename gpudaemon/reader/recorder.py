"""Reads files one at a time, for a caller that can do without it: `python -P -m gpudaemon.reader.recorder`.

Requests come on standard input, answers go to standard output. A read stuck in a driver takes this process with
it; the caller kills it, leaves it and starts another (`gpudaemon.capture.reading`).

Request: REQUEST (length of the path, most bytes wanted), then the path. Answer: ANSWER (stage, errno or 0,
length), then so many bytes. Files of `model.forbidden` and what is no regular file are refused with EPERM at
stage REFUSED.
"""

import errno
import os
import stat
import struct
import sys
from typing import BinaryIO

from gpudaemon.model.forbidden import is_forbidden

__all__ = ["ANSWER", "REQUEST", "STAGES", "main", "read"]

REQUEST = struct.Struct("<II")
ANSWER = struct.Struct("<BiI")
STAGES = ("read", "open", "refused")
"""What an answer is about: the content, or where its errno comes from."""
_READ, _OPEN, _REFUSED = range(3)


def read(path: str, limit: int) -> tuple[int, int, bytes]:
    """(stage, errno or 0, content) of one file; at most `limit` bytes."""
    if is_forbidden(path):
        return _REFUSED, errno.EPERM, b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return _OPEN, error.errno or errno.EIO, b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _REFUSED, errno.EPERM, b""
        parts, left = [], limit
        while left > 0:
            part = os.read(descriptor, left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return _READ, 0, b"".join(parts)
    except OSError as error:
        return _READ, error.errno or errno.EIO, b""
    finally:
        os.close(descriptor)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        # Whoever asked is gone.
        sys.exit(0)
    return content


def main() -> None:
    """Answer until the requests end."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        length, limit = REQUEST.unpack(_exactly(requests, REQUEST.size))
        stage, number, content = read(os.fsdecode(_exactly(requests, length)), limit)
        answers.write(ANSWER.pack(stage, number, len(content)) + content)
        answers.flush()


if __name__ == "__main__":
    main()
