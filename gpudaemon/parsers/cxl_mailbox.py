"""Answers of a CXL memory device's mailbox: health, alert thresholds, shutdown state, firmware slots.

Payloads are little endian and of a fixed size; a newer device may say more at the end, which is left alone.
What a device has not is all ones of its kind (`0xff`, `0x7fff`): None.

CXL 3.1, 8.2.9.9.3 (health info and alerts), 8.2.9.3.1 (get FW info); drivers/cxl/cxlmem.h.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpudaemon.errors import Malformed
from gpudaemon.parsers.text import text_or_empty

__all__ = [
    "ALERTS",
    "LEVELS",
    "MEDIA_STATES",
    "STATUSES",
    "THRESHOLDS",
    "Slot",
    "firmware",
    "health",
    "shutdown",
    "thresholds",
]

STATUSES = ("maintenance_needed", "performance_degraded", "replacement_needed", "capacity_degraded")
"""Bits of Health Status, from bit 0 on."""
MEDIA_STATES = (
    "normal",
    "not_ready",
    "write_persistency_lost",
    "all_data_lost",
    "write_persistency_loss_on_power_loss",
    "write_persistency_loss_on_shutdown",
    "write_persistency_loss_imminent",
    "all_data_loss_on_power_loss",
    "all_data_loss_on_shutdown",
    "all_data_loss_imminent",
)
"""Values of Media Status."""
LEVELS = ("normal", "warning", "critical")
ALERTS = (
    ("life_used", 0, 3, LEVELS),
    ("temperature", 2, 3, LEVELS),
    ("corrected_volatile_errors", 4, 1, LEVELS[:2]),
    ("corrected_persistent_errors", 5, 1, LEVELS[:2]),
)
"""Parts of Additional Status: name, first bit, mask, levels by value."""
THRESHOLDS = (
    "life_used_critical",
    "life_used_warning",
    "over_temperature_critical",
    "under_temperature_critical",
    "over_temperature_warning",
    "under_temperature_warning",
    "corrected_volatile_errors_warning",
    "corrected_persistent_errors_warning",
)
"""In the order of the payload."""

_HEALTH = struct.Struct("<BBBBhIII")
_ALERTS = struct.Struct("<BBBBhhhhHH")
_FIRMWARE = struct.Struct("<BBB13x16s16s16s16s")
_VALID = (None, 0, None, None, 1, 2, 3, 4)
"""Bit of Valid Alerts that says whether a threshold is; critical ones always are."""
_NO_LIFE, _NO_TEMPERATURE = 0xFF, 0x7FFF


def _unpacked(form: struct.Struct, content: bytes) -> tuple[int, ...]:
    if len(content) < form.size:
        raise Malformed("format" if content else "empty")
    return form.unpack_from(content)


def health(content: bytes) -> tuple[float | None, ...]:
    """Get Health Info, raises Malformed.

    1.0 or 0.0 for each of STATUSES, of MEDIA_STATES, of the levels of each of ALERTS; then life used (0 to 1),
    temperature (degrees Celsius), dirty shutdowns, corrected errors of volatile and of persistent memory.
    """
    status, media, additional, life, temperature, dirty, volatile, persistent = _unpacked(_HEALTH, content)
    found: list[float | None] = [float(status >> bit & 1) for bit in range(len(STATUSES))]
    found += _one_of(media, len(MEDIA_STATES))
    for _, first, mask, levels in ALERTS:
        found += _one_of(additional >> first & mask, len(levels))
    found.append(None if life > 100 else life / 100)
    found.append(None if temperature == _NO_TEMPERATURE else float(temperature))
    return *found, float(dirty), float(volatile), float(persistent)


def _one_of(value: int, count: int) -> Sequence[float | None]:
    """Of a value that is reserved nothing is known."""
    return [float(value == one) if value < count else None for one in range(count)]


def thresholds(content: bytes) -> tuple[float | None, ...]:
    """Get Alert Configuration: one value for each of THRESHOLDS; raises Malformed.

    Life used is from 0 to 1, temperatures are degrees Celsius. None: no such warning is programmed.
    """
    valid, _, *values = _unpacked(_ALERTS, content)
    found: list[float | None] = []
    for name, value, bit in zip(THRESHOLDS, values, _VALID, strict=True):
        if bit is not None and not valid >> bit & 1:
            found.append(None)
        elif name.startswith("life"):
            found.append(None if value > 100 else value / 100)
        else:
            found.append(float(value))
    return tuple(found)


def shutdown(content: bytes) -> tuple[float]:
    """Get Shutdown State: 1.0 where it is dirty; raises Malformed."""
    if not content:
        raise Malformed("empty")
    if content[0] > 1:
        raise Malformed("out_of_range")
    return (float(content[0]),)


@dataclass(frozen=True, slots=True)
class Slot:
    """A firmware slot that holds something. active: it runs; staged: it will after the next reset."""

    number: int
    version: str
    active: bool
    staged: bool


def firmware(content: bytes) -> Iterator[Slot]:
    """Get FW Info: the slots that hold firmware; raises Malformed."""
    if len(content) < _FIRMWARE.size:
        raise Malformed("format" if content else "empty")
    count, which, _, *versions = _FIRMWARE.unpack_from(content)
    for number, version in enumerate(versions[:count], 1):
        text = text_or_empty(version.split(b"\0", 1)[0])
        if text:
            yield Slot(number, text, which & 7 == number, which >> 3 & 7 == number)
