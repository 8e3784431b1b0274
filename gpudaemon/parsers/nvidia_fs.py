"""/proc/driver/nvidia-fs: what GPUDirect Storage moved between drives or NICs and the memory of NVIDIA's GPUs.

`stats` has lines of `NAME : key=number...`; which there are differs between versions 2 and 4, and with the
parameter rw_stats_enabled. `peer_distance` is a table of GPU and peer with a column `np2p`, the DMA mappings
made for that pair (nvfs_update_peer_usage).

https://github.com/NVIDIA/gds-nvidia-fs: nvfs_stats_show() of nvfs-stat.c, nvfs_peer_distance_show() of
nvfs-pci.c; version 2 as in NVIDIA's GPUDirect Storage Benchmarking and Configuration Guide.
"""

import re
from dataclasses import dataclass, field

from gpudaemon.errors import Malformed

__all__ = ["Gpu", "Peer", "Stats", "peer_distance", "stats"]

MEBIBYTE = 1 << 20

_HEAD = re.compile(r"NVFS statistics\(ver: ?(\d{1,4})\.\d{1,4}\)")
_ENABLED = re.compile(r"IO stats: (Enabled|Disabled), peer IO stats: (Enabled|Disabled)")
_PLAIN = re.compile(r"(Active Shadow-Buffer \(MiB\)|Active Process): ?(\d{1,20})")
_LINE = re.compile(r"(Batches|Reads|Writes|Mmap|Bar1-map|Error|Ops)\s*: (.{0,400})")
_GPU = re.compile(r"GPU ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) +uuid:\S{1,64} : (.{0,200})")
_WORD = re.compile(r"(\S+?)=(\d{1,20})(?= |$)")
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_COLUMNS = ("gpu", "peer", "peerrank", "p2pdist", "link", "gen", "numa", "np2p", "class")
_MOST = 1 << 64


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory of a GPU that nvidia-fs uses, in bytes: registered by programs, its own cache, the most so far.

    crossed: percent of the DMA operations that went through another root port; None where not counted.
    """

    device: str
    registered: int
    cache: int
    peak: int
    crossed: int | None


@dataclass(slots=True)
class Stats:
    """A reading of `stats`.

    io, peer: whether operations, and operations by peer, are counted; None where it does not say (version 2
    always counts). shadow: bytes of shadow buffers. processes: that use it.
    lines: first word of a line -> its numbers by name, as they are printed (readMiB are MiB).
    """

    io: bool | None = None
    peer: bool | None = None
    shadow: int | None = None
    processes: int | None = None
    lines: dict[str, dict[str, int]] = field(default_factory=dict)
    gpus: list[Gpu] = field(default_factory=list)

    def number(self, line: str, word: str) -> int | None:
        """One number; None where it is not there."""
        return self.lines.get(line, {}).get(word)


@dataclass(frozen=True, slots=True)
class Peer:
    """A line of `peer_distance`. distance: nvidia-fs' own count of steps; operations: DMA mappings made."""

    gpu: str
    peer: str
    distance: int
    operations: int


def stats(content: bytes) -> Stats:
    """Read `stats`; raises Malformed where it is not that file. Lines that are not known are passed over."""
    text = content.decode("ascii", "replace")
    if _HEAD.search(text) is None:
        raise Malformed("empty" if not text.strip() else "format")
    found = Stats()
    for line in map(str.strip, text.split("\n")):
        if match := _ENABLED.fullmatch(line):
            found.io, found.peer = (word == "Enabled" for word in match.groups())
        elif match := _PLAIN.fullmatch(line):
            value = _bounded(match[2])
            if match[1] == "Active Process":
                found.processes = value
            else:
                found.shadow = value * MEBIBYTE
        elif match := _LINE.fullmatch(line):
            found.lines.setdefault(match[1], {}).update(_words(match[2]))
        elif match := _GPU.fullmatch(line):
            words = _words(match[2])
            found.gpus.append(
                Gpu(
                    match[1],
                    words.get("Registered_MiB", 0) * MEBIBYTE,
                    words.get("Cache_MiB", 0) * MEBIBYTE,
                    words.get("max_pinned_MiB", 0) * MEBIBYTE,
                    words.get("cross_root_port(%)"),
                )
            )
    return found


def peer_distance(content: bytes) -> list[Peer]:
    """Read `peer_distance`; raises Malformed."""
    lines = content.decode("ascii", "replace").split("\n")
    if tuple(lines[0].split()) != _COLUMNS:
        raise Malformed("empty" if not content.strip() else "format")
    found = []
    for line in lines[1:]:
        if not line:
            continue
        words = line.split()
        if len(words) != len(_COLUMNS) or not all(_ADDRESS.fullmatch(word) for word in words[:2]):
            raise Malformed("format")
        distance, operations = words[3], words[7]
        if re.fullmatch(r"0x[0-9a-f]{1,8}", distance) is None or not operations.isdecimal():
            raise Malformed("not_a_number")
        found.append(Peer(words[0], words[1], int(distance, 16), _bounded(operations)))
    return found


def _words(text: str) -> dict[str, int]:
    return {name: _bounded(number) for name, number in _WORD.findall(text)}


def _bounded(text: str) -> int:
    if len(text) > 20 or (value := int(text)) >= _MOST:
        raise Malformed("out_of_range")
    return value
