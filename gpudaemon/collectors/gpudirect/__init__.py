"""GPUDirect: modules that let NICs and drives reach the memory of GPUs, and what they count.

nvidia-fs is GPUDirect Storage. A peer memory client (`/sys/kernel/mm/memory_peers`, MLNX_OFED only) is how RDMA
devices reached memory of GPUs before dma-buf. Every file here prints numbers from memory.
"""

import re
from collections.abc import Iterator, Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts
from gpudaemon.metrics import gpudirect as rows
from gpudaemon.model.attribute import Attribute, Cadence, Row, Rows
from gpudaemon.model.device import PROC, Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers.integer import quotient
from gpudaemon.parsers.nvidia_fs import MEBIBYTE, peer_distance, stats
from gpudaemon.parsers.text import text_or_empty

__all__ = ["COLLECTOR"]

_STATS, _PEERS = f"{PROC}driver/nvidia-fs/stats", f"{PROC}driver/nvidia-fs/peer_distance"
_MODULE = re.compile(r"module/(\w{1,64})/(?:version|initstate)", re.ASCII)
_CLIENT = re.compile(r"kernel/mm/memory_peers/([^/]{1,64})/num_(reg|dereg)_bytes")
_Numbers = tuple[Metric, int, dict[str, tuple[str, str]]]
_COUNTED: tuple[_Numbers, ...] = (
    (rows.GDS_OPERATIONS, 1, {"read": ("Reads", "n"), "write": ("Writes", "n"), "batch": ("Batches", "n")}),
    (rows.GDS_BYTES, MEBIBYTE, {"read": ("Reads", "readMiB"), "write": ("Writes", "writeMiB")}),
    (rows.GDS_ACTIVE, 1, {"read": ("Ops", "Read"), "write": ("Ops", "Write"), "batch": ("Ops", "BatchIO")}),
)
"""Metric, factor, value of its label -> line and word; where operations are not counted these are zero."""
_ERRORS = {
    "read": ("Reads", "err"),
    "read_io_state": ("Reads", "io_state_err"),
    "write": ("Writes", "err"),
    "write_io_state": ("Writes", "io_state_err"),
    "page_cache_fail": ("Writes", "pg-cache-fail"),
    "page_cache_eio": ("Writes", "pg-cache-eio"),
    "batch": ("Batches", "err"),
    "mmap": ("Mmap", "err"),
    "bar1_map": ("Bar1-map", "err"),
    "cpu_gpu_pages": ("Error", "cpu-gpu-pages"),
    "sg_ext": ("Error", "sg-ext"),
    "dma_map": ("Error", "dma-map"),
    "dma_ref": ("Error", "dma-ref"),
}
_OF_STATS = (
    *(rows.GDS_COUNTED, rows.GDS_OPERATIONS, rows.GDS_BYTES, rows.GDS_ERRORS, rows.GDS_ACTIVE),
    *(rows.GDS_PROCESSES, rows.GDS_SHADOW, rows.GDS_REGISTERED, rows.GDS_PEAK, rows.GDS_CROSSED),
)
_OF_PEERS = (rows.GDS_DISTANCE, rows.GDS_TRANSFERS)


def _of_stats(content: bytes) -> Iterator[Row]:
    found = stats(content)
    for kind, on in (("io", found.io), ("peer", found.peer)):
        if on is not None:
            yield rows.GDS_COUNTED, (kind,), float(on)
    counted = () if found.io is False else _COUNTED
    for metric, factor, words in (*counted, (rows.GDS_ERRORS, 1, _ERRORS)):
        for label, (line, word) in words.items():
            count = found.number(line, word)
            if count is not None:
                yield metric, (label,), float(count * factor)
    if found.processes is not None:
        yield rows.GDS_PROCESSES, (), float(found.processes)
    if found.shadow is not None:
        yield rows.GDS_SHADOW, (), float(found.shadow)
    for gpu in found.gpus:
        yield rows.GDS_REGISTERED, (gpu.device, "registered"), float(gpu.registered)
        yield rows.GDS_REGISTERED, (gpu.device, "cache"), float(gpu.cache)
        yield rows.GDS_PEAK, (gpu.device,), float(gpu.peak)
        if gpu.crossed is not None:
            yield rows.GDS_CROSSED, (gpu.device,), gpu.crossed / 100


def _of_peers(content: bytes) -> Iterator[Row]:
    for peer in peer_distance(content):
        yield rows.GDS_DISTANCE, (peer.gpu, peer.peer), float(peer.distance)
        if peer.operations:
            yield rows.GDS_TRANSFERS, (peer.gpu, peer.peer), float(peer.operations)


def _needs(device: Device) -> Sequence[str]:
    return sorted(name for name in device.names if _MODULE.fullmatch(name))


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    versions: dict[str, str] = {}
    for path in _needs(device):
        module, _, file = path.removeprefix("module/").partition("/")
        versions.setdefault(module, "")
        if file == "version":
            versions[module] = text_or_empty(facts.get(path))
    return [(Series(rows.MODULE_INFO, (module, version)), 1.0) for module, version in versions.items()]


def _attributes(device: Device, _: Facts) -> Sequence[Attribute | Rows]:
    found: list[Attribute | Rows] = []
    if _STATS in device.names:
        found.append(Rows(_STATS, Cadence.NORMAL, _of_stats, _OF_STATS, 16384))
    if _PEERS in device.names:
        found.append(Rows(_PEERS, Cadence.SLOW, _of_peers, _OF_PEERS, 1 << 18, 2048))
    for path in sorted(device.names):
        if match := _CLIENT.fullmatch(path):
            direction = "registered" if match[2] == "reg" else "released"
            series = Series(rows.CLIENT_BYTES, (match[1], direction))
            found.append(Attribute(path, Cadence.SLOW, (series,), quotient(signed=False)))
    return found


COLLECTOR = Collector(
    name="gpudirect",
    emits=(rows.MODULE_INFO, rows.CLIENT_BYTES, *_OF_STATS, *_OF_PEERS),
    wants=lambda device: device.kind is DeviceKind.GPUDIRECT,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
