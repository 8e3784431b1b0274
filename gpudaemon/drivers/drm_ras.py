"""Error counters that a driver gives the DRM core, asked for by the generic netlink family `drm-ras`.

Of every GPU with a DRM node, whatever its driver: as of Linux 7.3 xe alone has any. A node is one severity
(`correctable-errors`, `uncorrectable-errors`) and counts by part (`core-compute`, `soc-internal`,
`device-memory`, `pcie`, `fabric`). A value has 32 bits and can be cleared by an administrator: one that falls
began anew, as with any counter.

Documentation/netlink/specs/drm_ras.yaml, drivers/gpu/drm/xe/xe_drm_ras.c.
"""

from collections.abc import Callable, Iterator

from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Cadence, Row, Rows
from gpudaemon.model.device import Device
from gpudaemon.parsers.drm_ras import counters

__all__ = ["error_counters"]

_SEVERITIES = {"correctable-errors": "corrected", "uncorrectable-errors": "uncorrected"}
_LIMIT = 16384


def error_counters(device: Device) -> Iterator[Rows]:
    """What is asked of `device`; nothing where it has no DRM node."""
    if any(node.startswith("card") for node in device.nodes):
        yield Rows(
            "drm_ras/errors", Cadence.SLOW, _decoder(device.id), (gpu.RAS_ERRORS,), _LIMIT, call="drm_ras"
        )


def _decoder(device: str) -> Callable[[bytes], list[Row]]:
    def decode(content: bytes) -> list[Row]:
        return [
            (gpu.RAS_ERRORS, (device, one.error, _SEVERITIES.get(one.node, one.node)), float(one.value))
            for one in counters(content)
            if one.device == device
        ]

    return decode
