"""What is asked of the mailboxes of a memory device, and the series each answer gives. Pure.

A function has a lane of its own among the calls: a device whose mailbox is stuck holds up no other.
"""

import re
from collections.abc import Callable, Iterator

from gpudaemon.metrics import cxl_health
from gpudaemon.model.attribute import Attribute, Cadence, Row, Rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.parsers import cxl_mailbox as parser

__all__ = ["CALL", "questions"]

CALL = "cxl_mailbox"
_MEMDEV = re.compile(r"mem\d{1,5}", re.ASCII)
_TYPES = ("volatile", "persistent")


def questions(device: Device) -> Iterator[Attribute | Rows]:
    """What is asked of each memory device that is this function."""
    for memdev in device.nodes:
        if _MEMDEV.fullmatch(memdev) is None:
            continue
        for name, series, decode in (
            ("health", _health(memdev), parser.health),
            ("thresholds", _thresholds(memdev), parser.thresholds),
            ("shutdown", (Series(cxl_health.SHUTDOWN_DIRTY, (memdev,)),), parser.shutdown),
        ):
            yield Attribute(f"{CALL}/{memdev} {name}", Cadence.SLOW, series, decode, call=CALL)
        yield Rows(
            f"{CALL}/{memdev} firmware",
            Cadence.SLOW,
            _slots(memdev),
            (cxl_health.FIRMWARE_INFO,),
            limit=128,
            call=CALL,
        )


def _health(memdev: str) -> tuple[Series, ...]:
    """In the order of `gpudaemon.parsers.cxl_mailbox.health`."""
    found = [Series(cxl_health.HEALTH_STATUS, (memdev, status)) for status in parser.STATUSES]
    found += [Series(cxl_health.MEDIA_STATUS, (memdev, state)) for state in parser.MEDIA_STATES]
    found += [
        Series(cxl_health.ALERT, (memdev, name, level))
        for name, _, _, levels in parser.ALERTS
        for level in levels
    ]
    found += [
        Series(row, (memdev,))
        for row in (cxl_health.LIFE_USED, cxl_health.TEMPERATURE, cxl_health.DIRTY_SHUTDOWNS)
    ]
    return *found, *(Series(cxl_health.CORRECTED_ERRORS, (memdev, kind)) for kind in _TYPES)


def _thresholds(memdev: str) -> tuple[Series, ...]:
    """In the order of `gpudaemon.parsers.cxl_mailbox.THRESHOLDS`."""
    return tuple(_threshold(memdev, name) for name in parser.THRESHOLDS)


def _threshold(memdev: str, name: str) -> Series:
    what, _, level = name.rpartition("_")
    if what == "life_used":
        return Series(cxl_health.LIFE_USED_THRESHOLD, (memdev, level))
    if what.endswith("temperature"):
        return Series(cxl_health.TEMPERATURE_THRESHOLD, (memdev, what.partition("_")[0], level))
    return Series(cxl_health.CORRECTED_ERRORS_THRESHOLD, (memdev, what.split("_")[1]))


def _slots(memdev: str) -> Callable[[bytes], list[Row]]:
    metric: Metric = cxl_health.FIRMWARE_INFO

    def decode(content: bytes) -> list[Row]:
        return [
            (metric, (memdev, str(slot.number), slot.version, _word(slot.active), _word(slot.staged)), 1.0)
            for slot in parser.firmware(content)
        ]

    return decode


def _word(value: bool) -> str:
    return "true" if value else "false"
