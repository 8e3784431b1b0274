"""v3d's `gpu_stats`: a heading, then a line a queue: name, timestamp, jobs, runtime, with tabs between.

`bin\\t239043069420\\t22620\\t17438164056`; times are nanoseconds, the first of the scheduler's clock.
drivers/gpu/drm/v3d/v3d_sysfs.c, gpu_stats_show.
"""

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import integer

__all__ = ["queues"]

_HEADING = b"queue\ttimestamp\tjobs\truntime"
_FIELDS = 4
_MOST = 32
_LONGEST_NAME = 32


def queues(content: bytes) -> list[tuple[str, int, int]]:
    """(name, jobs, nanoseconds) of each queue; raises Malformed."""
    lines = content.splitlines()
    if not lines:
        raise Malformed("empty")
    if lines[0] != _HEADING:
        raise Malformed("format")
    if len(lines) > _MOST:
        raise Malformed("oversized")
    found: dict[str, tuple[int, int]] = {}
    for line in lines[1:]:
        fields = line.split(b"\t")
        if len(fields) != _FIELDS or not 0 < len(fields[0]) <= _LONGEST_NAME or not fields[0].isascii():
            raise Malformed("format")
        jobs, runtime = integer(fields[2]), integer(fields[3])
        name = fields[0].decode("ascii")
        if jobs < 0 or runtime < 0:
            raise Malformed("out_of_range")
        if name in found:
            raise Malformed("format")
        found[name] = (jobs, runtime)
    return [(name, jobs, runtime) for name, (jobs, runtime) in found.items()]
