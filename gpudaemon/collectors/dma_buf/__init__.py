"""Buffers that drivers share: evidence of peer-to-peer DMA, and by whom.

`bufinfo` takes a lock that every export and release of a buffer needs, and of each buffer the lock of its
reservation, which a driver may hold while it waits for a GPU. So it is read every ten minutes, in a lane of its
own, and only in tier full: debugfs belongs to root.

drivers/dma-buf/dma-buf.c.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from gpudaemon.collectors import Collector
from gpudaemon.drivers import Facts
from gpudaemon.metrics import gpudirect as rows
from gpudaemon.model.attribute import Attribute, Cadence, Row, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.dma_buf import bufinfo

__all__ = ["COLLECTOR"]

_FILE = "bufinfo"
_LIMIT = 1 << 18
"""About 2,000 buffers; beyond that nothing is shown, and counted as oversized."""
_METRICS = (rows.BUFFERS, rows.BUFFER_BYTES, rows.BUFFER_ATTACHMENTS, rows.BUFFER_ATTACHED_BYTES)


def _decode(content: bytes) -> Iterator[Row]:
    sums: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for buffer in bufinfo(content):
        sums[0, (buffer.exporter,)] += 1
        sums[1, (buffer.exporter,)] += buffer.size
        # One that is attached twice is one importer of this buffer.
        for importer in set(buffer.devices):
            sums[2, (buffer.exporter, importer)] += 1
            sums[3, (buffer.exporter, importer)] += buffer.size
    for (place, labels), value in sorted(sums.items()):
        yield _METRICS[place], labels, float(value)


def _attributes(device: Device, _: Facts) -> Sequence[Attribute | Rows]:
    return [Rows(_FILE, Cadence.STATIC, _decode, _METRICS, _LIMIT, 512)] if _FILE in device.names else []


COLLECTOR = Collector(
    name="dma_buf",
    emits=_METRICS,
    wants=lambda device: device.kind is DeviceKind.DMA_BUF,
    attributes=_attributes,
)
