"""From the listing of the CXL bus and the contents of its files to the model. Pure; never raises.

Documentation/ABI/testing/sysfs-bus-cxl, drivers/cxl/core/port.c, memdev.c, region.c: sizes are hexadecimal with
`0x`, all other numbers decimal; all ones is "none".
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from gpudaemon.drivers import Facts
from gpudaemon.errors import Malformed
from gpudaemon.model.cxl import Bus, Dax, Decoder, Memdev, Port, Region
from gpudaemon.model.device import Device
from gpudaemon.parsers.integer import hexadecimal, integer
from gpudaemon.parsers.text import text_or_empty

__all__ = ["build", "number", "path_of"]

_NAME = re.compile(r"(root|port|endpoint|decoder|region|mem|dax_region|pmem_region|dax)\d+(?:\.\d+)?", re.ASCII)
_ALL_ONES = 0xFFFFFFFFFFFFFFFF
_MOST_TARGETS = 64
_MEGABYTE, _NANOSECOND = 1_000_000, 1_000_000_000
_CAPABILITIES = ("pmem", "ram", "type2", "type3")


def path_of(name: str, file: str) -> str:
    """Path of a file of a device of the bus, below the device that is the bus."""
    return f"{'dax' if name.startswith('dax') and '_' not in name else 'cxl'}/devices/{name}/{file}"


def number(content: bytes | None) -> int | None:
    """Hexadecimal with `0x`, else decimal; None for nothing, all ones and what is no number."""
    if not content:
        return None
    try:
        value = hexadecimal(content) if content[:2] == b"0x" else integer(content)
    except Malformed:
        return None
    return None if value in (_ALL_ONES, -1) else value


class _Reader:
    """Contents of one device's files."""

    def __init__(self, name: str, facts: Facts) -> None:
        self._name = name
        self._facts = facts

    def number(self, file: str) -> int | None:
        return number(self._facts.get(path_of(self._name, file)))

    def text(self, file: str) -> str:
        return text_or_empty(self._facts.get(path_of(self._name, file)))

    def flag(self, file: str) -> bool | None:
        value = self.number(file)
        return None if value is None else value != 0


def build(device: Device, facts: Facts) -> Bus:
    """The bus. device: as discovery lists it; facts: contents by path below it."""
    links = dict(device.links)
    names = sorted({name for key in links if (name := key.partition("/")[0])}, key=_order)
    kinds = {name: found.group(1) for name in names if (found := _NAME.fullmatch(name)) is not None}
    above = {name: links.get(f"{name}/..", "") for name in kinds}
    of = {name: _Reader(name, facts) for name in kinds}
    ports = {name: _port(name, kind, links, of[name]) for name, kind in kinds.items() if kind in _PORTS}
    ports = {name: _with_depth(port, ports) for name, port in ports.items()}
    return Bus(
        memdevs={n: _memdev(n, above[n], of[n]) for n, kind in kinds.items() if kind == "mem"},
        ports=ports,
        decoders={n: _decoder(n, above[n], of[n]) for n, kind in kinds.items() if kind == "decoder"},
        regions={n: _region(n, above[n], of[n]) for n, kind in kinds.items() if kind == "region"},
        dax={n: _dax(n, above.get(above[n], ""), links, of[n]) for n, kind in kinds.items() if kind == "dax"},
    )


_PORTS = ("root", "port", "endpoint")


def _order(name: str) -> tuple[str, tuple[int, ...]]:
    head = name.rstrip("0123456789.")
    return head, tuple(int(part) for part in name[len(head) :].split(".") if part)


def _port(name: str, kind: str, links: dict[str, str], of: _Reader) -> Port:
    prefix = f"{name}/dport"
    dports = {
        int(key[len(prefix) :]): target
        for key, target in links.items()
        if key.startswith(prefix) and key[len(prefix) :].isdecimal()
    }
    return Port(
        name=name,
        kind=kind,
        above=links.get(f"{name}/..", "") if kind != "root" else "",
        uport=links.get(f"{name}/uport", ""),
        parent_dport=links.get(f"{name}/parent_dport", ""),
        dports=dict(sorted(dports.items())),
        committed=of.number("decoders_committed"),
    )


def _with_depth(port: Port, ports: dict[str, Port]) -> Port:
    depth, one = 0, port
    while one.above in ports and depth < len(ports):
        depth, one = depth + 1, ports[one.above]
    return replace(port, above=port.above if port.above in ports else "", depth=depth)


def _memdev(name: str, above: str, of: _Reader) -> Memdev:
    return Memdev(
        name=name,
        device=above,
        serial=of.number("serial"),
        firmware=of.text("firmware_version"),
        numa_node=of.number("numa_node"),
        volatile=of.number("ram/size"),
        persistent=of.number("pmem/size"),
        volatile_qos=of.number("ram/qos_class"),
        persistent_qos=of.number("pmem/qos_class"),
        security=of.text("security/state"),
    )


def _decoder(name: str, above: str, of: _Reader) -> Decoder:
    return Decoder(
        name=name,
        port=above,
        start=of.number("start"),
        size=of.number("size"),
        ways=of.number("interleave_ways"),
        granularity=of.number("interleave_granularity"),
        targets=tuple(_ids(of.text("target_list"))),
        mode=of.text("mode"),
        dpa_start=of.number("dpa_resource"),
        dpa_size=of.number("dpa_size"),
        region=of.text("region"),
        locked=of.flag("locked"),
        capable=tuple(one for one in _CAPABILITIES if of.flag(f"cap_{one}")),
        qos=of.number("qos_class"),
    )


def _ids(text: str) -> Iterator[int]:
    words = text.split(",")[:_MOST_TARGETS] if text else []
    if all(word.isascii() and word.isdecimal() for word in words):
        yield from map(int, words)


def _region(name: str, above: str, of: _Reader) -> Region:
    ways = of.number("interleave_ways")
    targets = (of.text(f"target{place}") for place in range(min(ways or 0, _MOST_TARGETS)))
    return Region(
        name=name,
        decoder=above,
        mode=of.text("mode"),
        size=of.number("size"),
        start=of.number("resource"),
        ways=ways,
        granularity=of.number("interleave_granularity"),
        committed=of.flag("commit"),
        uuid=of.text("uuid"),
        targets=tuple(targets),
        speeds=dict(_speeds(of)),
    )


def _speeds(of: _Reader) -> Iterable[tuple[tuple[str, str, int], float]]:
    """MB/s and ns, of which 0 says that nobody knows (drivers/cxl/core/region.c hides those)."""
    for access in (0, 1):
        for way in ("read", "write"):
            bandwidth = of.number(f"access{access}/{way}_bandwidth")
            if bandwidth:
                yield (way, "bandwidth", access), float(bandwidth * _MEGABYTE)
            latency = of.number(f"access{access}/{way}_latency")
            if latency:
                yield (way, "latency", access), latency / _NANOSECOND


def _dax(name: str, region: str, links: dict[str, str], of: _Reader) -> Dax:
    return Dax(
        name=name,
        region=region,
        size=of.number("size"),
        target_node=of.number("target_node"),
        driver=links.get(f"{name}/driver", ""),
    )
