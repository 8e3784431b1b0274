"""The devices of a host as a table for a terminal, or as JSON for a program. Pure."""

from collections.abc import Iterable
from typing import Any

from gpudaemon.model.snapshot import DeviceView
from gpudaemon.view.text import printable

__all__ = ["as_json", "as_table"]

_HEADINGS = ("DEVICE", "KIND", "DRIVER", "STATE", "AGE", "NUMA", "NODES", "FILES", "NAME")
_NAMES = ("product", "product_name", "board", "model")


def as_json(devices: Iterable[DeviceView]) -> list[dict[str, Any]]:
    """One object a device; null where nothing is known."""
    return [
        {
            "device": device.id,
            "kind": device.kind,
            "driver": device.driver or None,
            "state": device.state,
            "age_seconds": None if device.age is None else round(device.age, 3),
            "numa_node": device.numa_node,
            "nodes": list(device.nodes),
            "path": device.path,
            "identity": dict(device.identity),
            "files": device.attributes,
        }
        for device in devices
    ]


def as_table(devices: Iterable[DeviceView]) -> str:
    """Aligned columns; a dash where nothing is known. Control characters of hostile names are shown escaped."""
    lines = [_HEADINGS, *(_line(device) for device in devices)]
    if len(lines) == 1:
        return "no device found"
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _line(device: DeviceView) -> tuple[str, ...]:
    name = next((device.identity[key] for key in _NAMES if device.identity.get(key)), "")
    cells = (
        device.id,
        device.kind,
        device.driver,
        device.state,
        "" if device.age is None else f"{device.age:.1f}s",
        "" if device.numa_node is None else str(device.numa_node),
        ",".join(device.nodes),
        str(device.attributes),
        name,
    )
    return tuple(printable(cell) or "-" for cell in cells)
