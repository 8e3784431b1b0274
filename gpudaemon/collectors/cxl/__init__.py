"""The CXL bus: what is on it, how it is wired, how large it is and what it is used for.

All of it stands in files that the CXL core prints from memory; nothing asks a device. What makes up the model
is read when the bus changes and looked at again now and then: other content is another model, and other series.
Health is asked of each memory device by calls (`mailbox`), and so are its performance counters (`counters`).
What devices report by themselves is traced (`events`).

Documentation/driver-api/cxl, Documentation/ABI/testing/sysfs-bus-cxl.
"""

from collections.abc import Iterator, Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.collectors.cxl.build import build, path_of
from gpudaemon.collectors.cxl.counters import counters, files
from gpudaemon.collectors.cxl.events import STREAM
from gpudaemon.collectors.cxl.mailbox import questions
from gpudaemon.drivers import Facts
from gpudaemon.metrics import cxl, cxl_events, cxl_health, cxl_pmu
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.cxl import Bus, Decoder, Memdev, Port, Region
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Series
from gpudaemon.parsers.integer import words

__all__ = ["COLLECTOR", "SECURITY_STATES", "STREAM"]

SECURITY_STATES = ("disabled", "sanitize", "locked", "unlocked", "frozen")
"""drivers/cxl/core/memdev.c, security_state_show()."""
_LIMIT = 128
_SETTLED = ("size", "mode", "region", "commit", "target", "interleave_ways", "resource", "dpa_size", "uuid")
"""Files that say something else when a region is created, committed or torn down."""


def _wants(device: Device) -> bool:
    return device.kind in (DeviceKind.CXL_BUS, DeviceKind.CXL)


def _needs(device: Device) -> Sequence[str]:
    return sorted(device.names) if device.kind is DeviceKind.CXL_BUS else files(device)


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    if device.kind is not DeviceKind.CXL_BUS:
        return ()
    bus = build(device, facts)
    return [
        *(one for memdev in bus.memdevs.values() for one in _of_memdev(bus, memdev)),
        *(one for port in bus.ports.values() for one in _of_port(port)),
        *(one for decoder in bus.decoders.values() for one in _of_decoder(bus, decoder)),
        *(one for region in bus.regions.values() for one in _of_region(bus, region)),
        *_of_dax(bus),
    ]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _of_memdev(bus: Bus, memdev: Memdev) -> Iterator[Constant]:
    endpoint = bus.endpoint_of(memdev.name)
    serial = "" if memdev.serial is None else f"0x{memdev.serial:x}"
    place = (
        (bus.host_bridge_of(endpoint), endpoint.above, endpoint.name) if endpoint is not None else ("", "", "")
    )
    labels = (memdev.name, memdev.device, serial, memdev.firmware, _text(memdev.numa_node), *place)
    yield Series(cxl.MEMDEV_INFO, labels), 1.0
    for kind, size in (("volatile", memdev.volatile), ("persistent", memdev.persistent)):
        if size is not None:
            yield Series(cxl.MEMDEV_CAPACITY, (memdev.name, kind)), float(size)


def _of_port(port: Port) -> Iterator[Constant]:
    depth, dports = str(port.depth), ",".join(port.dports.values())
    labels = (port.name, port.kind, port.above, port.uport, port.parent_dport, depth, dports)
    yield Series(cxl.PORT_INFO, labels), 1.0
    if port.committed is not None:
        yield Series(cxl.PORT_DECODERS, (port.name,)), float(port.committed)


def _of_decoder(bus: Bus, decoder: Decoder) -> Iterator[Constant]:
    """A switch or endpoint has ten and more decoders that do nothing: only those in use."""
    port = bus.ports.get(decoder.port)
    if not decoder.size and (port is None or port.kind != "root"):
        return
    labels = (
        *(decoder.name, decoder.port, decoder.mode, decoder.region),
        *(_text(decoder.ways), _text(decoder.granularity)),
        ",".join(port.dports.get(one, str(one)) for one in decoder.targets) if port is not None else "",
        ",".join(decoder.capable),
    )
    yield Series(cxl.DECODER_INFO, labels), 1.0
    if decoder.size is not None:
        yield Series(cxl.DECODER_SIZE, (decoder.name,)), float(decoder.size)


def _of_region(bus: Bus, region: Region) -> Iterator[Constant]:
    yield Series(cxl.REGION_INFO, (region.name, region.decoder, region.mode, region.uuid)), 1.0
    for metric, known in (
        (cxl.REGION_SIZE, region.size),
        (cxl.REGION_COMMITTED, region.committed),
        (cxl.REGION_WAYS, region.ways),
        (cxl.REGION_GRANULARITY, region.granularity),
    ):
        if known is not None:
            yield Series(metric, (region.name,)), float(known)
    for position, decoder in enumerate(region.targets):
        if decoder:
            labels = (region.name, str(position), bus.memdev_of(decoder), decoder)
            yield Series(cxl.REGION_MEMDEV_INFO, labels), 1.0
    for (way, what, access), value in region.speeds.items():
        metric = cxl.REGION_BANDWIDTH if what == "bandwidth" else cxl.REGION_LATENCY
        yield Series(metric, (region.name, way, str(access))), value


def _of_dax(bus: Bus) -> Iterator[Constant]:
    for dax in bus.dax.values():
        labels = (dax.name, dax.region, dax.driver, _text(dax.target_node))
        yield Series(cxl.DAX_INFO, labels), 1.0
        if dax.size is not None:
            yield Series(cxl.DAX_SIZE, (dax.name,)), float(dax.size)


def _nothing(_: bytes) -> tuple[()]:
    return ()


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    if device.kind is not DeviceKind.CXL_BUS:
        return [*questions(device), *counters(device, facts)]
    planned: list[Attribute | Rows] = []
    for name in build(device, facts).memdevs:
        path = path_of(name, "security/state")
        if path in device.names:
            series = tuple(Series(cxl.MEMDEV_SECURITY, (name, state)) for state in SECURITY_STATES)
            planned.append(Attribute(path, Cadence.NORMAL, series, words(SECURITY_STATES)))
    planned += [
        Attribute(path, Cadence.SLOW, (), _nothing, _LIMIT, settles=True)
        for path in sorted(device.names)
        if path.rpartition("/")[2].rstrip("0123456789") in _SETTLED
    ]
    return planned


COLLECTOR = Collector(
    name="cxl",
    emits=tuple(
        getattr(rows, name) for rows in (cxl, cxl_events, cxl_health, cxl_pmu) for name in rows.__all__
    ),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
