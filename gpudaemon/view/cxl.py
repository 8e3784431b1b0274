"""The CXL bus as a tree for a terminal, or as JSON for a program. Pure."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from gpudaemon.model.cxl import Bus, Decoder, Port, Region
from gpudaemon.view.text import printable
from gpudaemon.view.topo import size

__all__ = ["as_json", "as_text"]


def as_text(bus: Bus) -> str:
    """Ports with what hangs from them, then regions."""
    if not bus.ports and not bus.memdevs:
        return "no CXL bus: no device, or the module cxl_acpi is not loaded"
    lines = []
    for root in (port for port in bus.ports.values() if port.kind == "root"):
        lines.append(_port(bus, root))
        lines += _below(bus, root, "")
    placed = {port.uport for port in bus.ports.values() if port.kind == "endpoint"}
    lines += [f"{_memdev(bus, name)} (no endpoint)" for name in bus.memdevs if name not in placed]
    for region in bus.regions.values():
        lines += ["", *_region(bus, region)]
    return "\n".join(printable(line) for line in lines)


def _below(bus: Bus, port: Port, indent: str) -> Iterator[str]:
    children: list[Port | Decoder] = [
        one for one in bus.decoders.values() if one.port == port.name and one.size
    ]
    children += [one for one in bus.ports.values() if one.above == port.name]
    for number, child in enumerate(children):
        last = number == len(children) - 1
        text = _port(bus, child) if isinstance(child, Port) else _decoder(bus, child)
        yield f"{indent}{'└─' if last else '├─'} {text}"
        if isinstance(child, Port):
            yield from _below(bus, child, indent + ("   " if last else "│  "))


def _port(bus: Bus, port: Port) -> str:
    if port.kind == "endpoint":
        return f"{port.name} at {port.parent_dport or '?'}: {_memdev(bus, port.uport)}"
    above = f" at {port.parent_dport}" if port.kind == "port" and port.parent_dport != port.uport else ""
    return f"{port.name} {port.uport}{above}" + (f", {len(port.dports)} dports" if port.dports else "")


def _memdev(bus: Bus, name: str) -> str:
    memdev = bus.memdevs.get(name)
    if memdev is None:
        return name or "?"
    sizes = [
        f"{size(count)} {kind}"
        for kind, count in (("volatile", memdev.volatile), ("persistent", memdev.persistent))
        if count
    ]
    serial = "" if memdev.serial is None else f" serial 0x{memdev.serial:x}"
    state = f", security {memdev.security}" if memdev.security not in ("", "disabled") else ""
    return f"{name} {memdev.device}{serial}, {' and '.join(sizes) or 'no capacity'}{state}"


def _decoder(bus: Bus, decoder: Decoder) -> str:
    start = "" if decoder.start is None else f" at 0x{decoder.start:x}"
    words = [f"{decoder.name} {size(decoder.size or 0)}{start}"]
    port = bus.ports.get(decoder.port)
    if decoder.targets and port is not None:
        words.append("to " + ",".join(port.dports.get(one, str(one)) for one in decoder.targets))
    words += [decoder.mode] if decoder.mode not in ("", "none") else []
    words += [f"for {decoder.region}"] if decoder.region else []
    words += [f"can {','.join(decoder.capable)}"] if decoder.capable else []
    return " ".join(words)


def _region(bus: Bus, region: Region) -> Iterator[str]:
    state = {True: "committed", False: "not committed", None: "state not known"}[region.committed]
    start = "" if region.start is None else f" at 0x{region.start:x}"
    yield (
        f"{region.name} {size(region.size or 0)} {region.mode or '?'}{start} in {region.decoder}, {state}, "
        f"{region.ways or '?'} way(s) of {region.granularity or '?'} B"
    )
    for position, decoder in enumerate(region.targets):
        yield f"  {position}: {bus.memdev_of(decoder) or '-'} ({decoder or 'no target'})"
    for access in sorted({access for _, _, access in region.speeds}):
        words = [
            f"{way} {value / 1e9:g} GB/s" if what == "bandwidth" else f"{way} {value * 1e9:g} ns"
            for (way, what, one), value in region.speeds.items()
            if one == access
        ]
        yield f"  access class {access}: {', '.join(words)}"
    for dax in (one for one in bus.dax.values() if one.region == region.name):
        use = f"memory of node {dax.target_node}" if dax.driver == "kmem" else dax.driver or "no driver"
        yield f"  {dax.name} {size(dax.size or 0)}: {use}"


def as_json(bus: Bus) -> dict[str, Any]:
    """Everything by kind; null where nothing is known."""

    def plain(one: Any) -> dict[str, Any]:
        return {key: None if value == "" else value for key, value in asdict(one).items()}

    regions = []
    for region in bus.regions.values():
        speeds = [
            {"direction": way, "what": what, "access": access, "value": value}
            for (way, what, access), value in region.speeds.items()
        ]
        memdevs = [bus.memdev_of(decoder) or None for decoder in region.targets]
        regions.append({**plain(region), "speeds": speeds, "memdevs": memdevs})
    return {
        "memdevs": [plain(one) for one in bus.memdevs.values()],
        "ports": [plain(one) for one in bus.ports.values()],
        "decoders": [plain(one) for one in bus.decoders.values()],
        "regions": regions,
        "dax": [plain(one) for one in bus.dax.values()],
    }
