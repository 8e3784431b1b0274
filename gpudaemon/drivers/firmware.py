"""Versions of firmware that stand in a file of their own, one a component."""

from collections.abc import Callable

from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Row
from gpudaemon.parsers.text import text

__all__ = ["version_row"]


def version_row(device: str, component: str, none: str = "") -> Callable[[bytes], list[Row]]:
    """Decoder of a file that holds a version; no row for an empty one or for `none`, a word for none."""

    def decode(content: bytes) -> list[Row]:
        version = text(content)
        return [] if version in ("", none) else [(gpu.FIRMWARE_INFO, (device, component, version), 1.0)]

    return decode
