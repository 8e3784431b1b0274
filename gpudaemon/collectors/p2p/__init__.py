"""Peer-to-peer DMA: what a function can be reached by, and the memory it hands to peers.

What lies between two functions is the host's and no device's: `reachability` and `paths` say it of a topology
that is put together from every function's facts (`build`).

Documentation/driver-api/pci/p2pdma.rst, drivers/pci/p2pdma.c.
"""

from collections.abc import Sequence

from gpudaemon.collectors import Collector, Constant
from gpudaemon.collectors.p2p.build import CONFIG, FILES, KINDS, function_of
from gpudaemon.drivers import Facts
from gpudaemon.metrics import p2p
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Series
from gpudaemon.model.topology import Role
from gpudaemon.parsers.integer import quotient

__all__ = ["COLLECTOR"]

_whole = quotient()
# `allocate` in the same directory is for mmap(2) only: a read fails with EIO.
_MEMORY = (
    ("p2pmem/size", Cadence.SLOW, p2p.MEMORY_SIZE),
    ("p2pmem/available", Cadence.NORMAL, p2p.MEMORY_AVAILABLE),
    ("p2pmem/published", Cadence.SLOW, p2p.MEMORY_PUBLISHED),
)


def _wants(device: Device) -> bool:
    return device.subsystem == "pci" and device.kind in KINDS


def _needs(device: Device) -> Sequence[str]:
    return [*(path for path in FILES if path in device.names), CONFIG]


def _attributes(device: Device, _: Facts) -> Sequence[Attribute | Rows]:
    return [
        Attribute(path, cadence, (Series(metric, (device.id,)),), _whole)
        for path, cadence, metric in _MEMORY
        if path in device.names
    ]


def _constants(device: Device, facts: Facts) -> Sequence[Constant]:
    function = function_of(device, facts, {})
    found = [(Series(p2p.BAR_SIZE, (device.id, str(bar.number))), float(bar.size)) for bar in function.bars]
    if function.acs is not None:
        found.append((Series(p2p.ACS_REDIRECT, (device.id,)), float(function.acs.redirects)))
    if function.role is Role.GPU and function.memory_size and function.bars:
        whole = any(bar.size >= function.memory_size for bar in function.bars)
        found.append((Series(p2p.WHOLE_MEMORY_REACHABLE, (device.id,)), float(whole)))
    return found


COLLECTOR = Collector(
    name="p2p",
    emits=(
        p2p.REACHABLE,
        p2p.PATH_INFO,
        p2p.DISTANCE,
        p2p.CEILING,
        p2p.PAIRS_LEFT_OUT,
        p2p.LINK_CEILING,
        p2p.LINK_DOWNGRADED,
        p2p.ACS_REDIRECT,
        p2p.BAR_SIZE,
        p2p.WHOLE_MEMORY_REACHABLE,
        p2p.MEMORY_SIZE,
        p2p.MEMORY_AVAILABLE,
        p2p.MEMORY_PUBLISHED,
    ),
    wants=_wants,
    needs=_needs,
    attributes=_attributes,
    constants=_constants,
)
