"""debugfs dma_buf/bufinfo: every buffer that drivers share, who exports it and which devices are attached.

    Dma-buf Objects:
    size      flags     mode      count     exp_name  ino       name
    00016384  00000002  02080007  00000003  drm       00000001  <none>
            write fence:...
            Attached Devices:
            0000:05:00.0
    Total 1 devices attached

    Total 1 objects, 16384 bytes

The words of a buffer are separated by tabs. Its name is what a program gave it (DMA_BUF_SET_NAME), and is not
used.

drivers/dma-buf/dma-buf.c (dma_buf_debug_show).
"""

import re
from dataclasses import dataclass

from gpudaemon.errors import Malformed

__all__ = ["Buffer", "bufinfo"]

_BUFFER = re.compile(r"(\d{8,20})\t[0-9a-f]{8}\t[0-9a-f]{8}\t(\d{8,20})\t([^\t]{1,64})\t\d{8,20}\t.*")
_ATTACHED = "\tAttached Devices:"
_END = re.compile(r"Total \d+ objects, \d+ bytes")
_DEVICE = re.compile(r"\t([^\t]{1,64})")
_MOST = 1 << 64


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer. size: bytes; exporter: name its exporter gives, often that of the driver; devices: attached."""

    exporter: str
    size: int
    devices: tuple[str, ...]


def bufinfo(content: bytes) -> list[Buffer]:
    """Read the whole file; raises Malformed, also where its last line is missing."""
    lines = content.decode("utf-8", "replace").split("\n")
    if not any(_END.fullmatch(line) for line in lines):
        raise Malformed("empty" if not content.strip() else "format")
    found: list[tuple[str, int, list[str]]] = []
    listing = False
    for line in lines:
        if match := _BUFFER.fullmatch(line):
            size = int(match[1])
            if size >= _MOST:
                raise Malformed("out_of_range")
            found.append((match[3], size, []))
            listing = False
        elif line == _ATTACHED:
            listing = bool(found)
        elif listing and (match := _DEVICE.fullmatch(line)):
            found[-1][2].append(match[1])
        else:
            listing = False
    return [Buffer(exporter, size, tuple(devices)) for exporter, size, devices in found]
