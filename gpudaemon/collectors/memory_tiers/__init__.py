"""Memory tiers: every NUMA node with what it is made of, its tier, size, use and speed; how pages are spread.

What a node is made of and its tier is settled when the tiers are planned and looked at again now and then.
Memory of GPUs comes in the same families, as a second name of the GPU's rows (`ALIASES` of
`gpudaemon.pipeline.derived`).

No file here enters a driver. drivers/base/node.c, mm/memory-tiers.c, mm/mempolicy.c.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.metrics import memory_tiers as rows
from gpudaemon.model.attribute import Attribute, Cadence, Decode, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Series
from gpudaemon.parsers.integer import integer, quotient
from gpudaemon.parsers.numa import memory, node_list

__all__ = ["COLLECTOR"]

_NODE = re.compile(r"node/devices/(node\d{1,5})/(.+)", re.ASCII)
_TIER = re.compile(r"memory_tiering/devices/memory_tier(\d{1,6})/nodelist", re.ASCII)
_DAX = re.compile(r"dax/devices/[^/]+/target_node", re.ASCII)
_WEIGHT = re.compile(r"\.\./kernel/mm/mempolicy/weighted_interleave/(node\d{1,5}|auto)", re.ASCII)
_SPEED = re.compile(r"access([01])/initiators/(read|write)_(bandwidth|latency)", re.ASCII)
_DEMOTION = "../kernel/mm/numa/demotion_enabled"
_MEGABYTE, _NANOSECONDS = 1_000_000, 10**9
_LIST_LIMIT, _MEMINFO_LIMIT = 4096, 4096


def _wants(device: Device) -> bool:
    return device.kind is DeviceKind.MEMORY_TIERS


def _settling(path: str) -> bool:
    """Whether the plan rests on a file."""
    return _TIER.fullmatch(path) is not None or _DAX.fullmatch(path) is not None or path.endswith("/cpulist")


def _needs(device: Device) -> Sequence[str]:
    return sorted(path for path in device.names if _settling(path))


def _numbers(content: bytes | None) -> frozenset[int]:
    try:
        return node_list(content or b"")
    except Malformed:
        return frozenset()


def _kinds(device: Device, facts: Facts) -> Mapping[str, str]:
    """Node -> what it is made of."""
    cxl = {f"node{one}" for path in facts if _DAX.fullmatch(path) for one in _numbers(facts[path])}
    kinds = {}
    for node in sorted({found[1] for path in device.names if (found := _NODE.fullmatch(path)) is not None}):
        processors = _numbers(facts.get(f"node/devices/{node}/cpulist"))
        kinds[node] = "dram" if processors else "cxl" if node in cxl else "cpuless"
    return kinds


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    tiers = {
        f"node{node}": found[1]
        for path, content in facts.items()
        if (found := _TIER.fullmatch(path)) is not None
        for node in _numbers(content)
    }
    return [
        (Series(rows.INFO, (node, kind, tiers.get(node, ""))), 1.0)
        for node, kind in _kinds(device, facts).items()
    ]


def _attributes(device: Device, facts: Facts) -> Sequence[Attribute | Rows]:
    kinds = _kinds(device, facts)
    return [one for path in sorted(device.names) for one in _planned(path, kinds)]


def _planned(path: str, kinds: Mapping[str, str]) -> Iterator[Attribute]:
    if _settling(path):
        yield Attribute(path, Cadence.SLOW, (), _nothing, _LIST_LIMIT, settles=True)
    elif path == _DEMOTION:
        yield Attribute(path, Cadence.SLOW, (Series(rows.DEMOTION),), _switch)
    elif (found := _WEIGHT.fullmatch(path)) is not None:
        if found[1] == "auto":
            yield Attribute(path, Cadence.SLOW, (Series(rows.INTERLEAVE_AUTO),), _switch)
        elif found[1] in kinds:  # older kernels have a file for every node there could be
            yield Attribute(path, Cadence.SLOW, (Series(rows.INTERLEAVE_WEIGHT, (found[1],)),), quotient())
    elif (found := _NODE.fullmatch(path)) is not None:
        yield from _of_node(path, found[2], (found[1], kinds[found[1]]))


def _of_node(path: str, file: str, labels: tuple[str, str]) -> Iterator[Attribute]:
    if file == "meminfo":
        series = (Series(rows.CAPACITY, labels), Series(rows.USED, labels))
        yield Attribute(path, Cadence.NORMAL, series, memory, _MEMINFO_LIMIT)
        return
    found = _SPEED.fullmatch(file)
    if found is None:
        return
    access, way, what = found[1], found[2], found[3]
    metric = rows.BANDWIDTH if what == "bandwidth" else rows.LATENCY
    yield Attribute(path, Cadence.SLOW, (Series(metric, (*labels, way, access)),), _SPEEDS[what])


def _speed(scale: int, divisor: int) -> Decode:
    """A decoder of a number of which 0 says that nobody knows (drivers/base/node.c prints it so)."""

    def decode(content: bytes) -> tuple[float | None]:
        value = integer(content)
        if value < 0:
            raise Malformed("out_of_range")
        return (value * scale / divisor if value else None,)

    return decode


_SPEEDS = {"bandwidth": _speed(_MEGABYTE, 1), "latency": _speed(1, _NANOSECONDS)}


def _switch(content: bytes) -> tuple[float]:
    """`true` or `false`, as str_true_false() prints it; raises Malformed."""
    found = {b"true": 1.0, b"false": 0.0}.get(content.rstrip(b"\n"))
    if found is None:
        raise Malformed("format" if content else "empty")
    return (found,)


def _nothing(_: bytes) -> tuple[()]:
    return ()


COLLECTOR = Collector(
    name="memory_tiers",
    emits=tuple(getattr(rows, name) for name in rows.__all__),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
