"""Reads a second a GPU, decoding of the firmware's table, and what the daemon costs with it and without.

    python tests/bench/bench_gpu_metrics.py [--quick]

Two daemons read the same live mock host with 8 MI300X, preset fast; for one the files `gpu_metrics` answer
EOPNOTSUPP, so that it reads the text files instead, as all did before. Reads are those the daemon counts
itself, processor time that of server and reader. Decoding is timed in this process. Ratios count.
"""

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator

import processes
from figures import flags, heading, show, spread
from processes import RunningDaemon

from gpudaemon.drivers.amdgpu import DRIVER
from gpudaemon.mock import HostProcess
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.gpu_metrics.layouts import TABLES
from gpudaemon.parsers.gpu_metrics.quantities import pick
from gpudaemon.parsers.gpu_metrics.table import HEADER, decoder

_READS = re.compile(r'^gpudaemon_daemon_reads_total\{device="([^"]+)",outcome="ok"\} (\S+)', re.MULTILINE)
GPUS = 8


def _decode(calls: int) -> None:
    heading("decoding, by revision")
    for (major, minor, size), layout in sorted(TABLES.items()):
        content = HEADER.pack(size, major, minor).ljust(size, b"\x01")
        picks = [
            one
            for name, field in layout.fields.items()
            for index in range(field.count)
            if (one := pick(layout, name, index)) is not None
        ]
        decode = decoder(layout, picks)
        began = time.perf_counter()
        for _ in range(calls):
            decode(content)
        each = (time.perf_counter() - began) / calls
        show(
            f"{major}.{minor}, {size} bytes, {len(picks)} elements",
            each * 1e6,
            "us",
            note=f"{each / len(picks) * 1e9:.0f} ns an element",
        )
    device = Device(id="x", kind=DeviceKind.GPU, path="x", driver="amdgpu", names=frozenset({"gpu_metrics"}))
    content = HEADER.pack(120, 1, 3).ljust(120, b"\x01")
    (table,) = [one for one in DRIVER.attributes(device, {"gpu_metrics": content}) if one.path == "gpu_metrics"]
    began = time.perf_counter()
    for _ in range(calls):
        table.decode(content)  # type: ignore[operator]
    show("1.3 with its throttlers, as a card's lane does", (time.perf_counter() - began) / calls * 1e6, "us")


def _reads(daemon: RunningDaemon, gpus: set[str]) -> float:
    text = daemon.get("/metrics")[1]
    return sum(float(value) for device, value in _READS.findall(text) if device in gpus)


def _processor(daemon: RunningDaemon) -> float:
    """Seconds of server and reader, user and system."""
    total = 0.0
    for pid in processes.of(daemon).values():
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


@contextlib.contextmanager
def _hosts() -> Iterator[dict[str, HostProcess]]:
    with HostProcess("mi300x8", GPUS) as with_table, HostProcess("mi300x8", GPUS) as without:
        without.control.fault("*/gpu_metrics", "read_errno", errno=errno.EOPNOTSUPP)
        yield {"text files": without, "gpu_metrics": with_table}


def main() -> None:
    _, arguments = flags(__doc__, runs=3, seconds=20, quick=(1, 5))
    _decode(2000 if arguments.quick else 20_000)
    with _hosts() as hosts, tempfile.TemporaryDirectory():
        for engine in arguments.engines:
            heading(f"{engine}: {GPUS} GPUs, preset fast")
            reads: dict[str, list[float]] = {}
            costs: dict[str, list[float]] = {}
            for name, host in hosts.items():
                with RunningDaemon(host, "--engine", engine, "--preset", "fast") as daemon:
                    gpus = {id_ for id_, one in daemon.devices().items() if one["kind"] == "gpu"}
                    time.sleep(5)
                    for _ in range(arguments.runs):
                        before, used, began = _reads(daemon, gpus), _processor(daemon), time.monotonic()
                        time.sleep(arguments.seconds)
                        seconds = time.monotonic() - began
                        reads.setdefault(name, []).append((_reads(daemon, gpus) - before) / seconds / len(gpus))
                        costs.setdefault(name, []).append((_processor(daemon) - used) / seconds * 100)
            for name in hosts:
                spread(f"reads a second a GPU, {name}", reads[name])
            for name in hosts:
                spread(f"processor, {name}", costs[name], "% core")


if __name__ == "__main__":
    main()
