"""What the kernel's log says of trouble, as the scout read it: put in its place and counted.

A line names a PCI address, or, of older drivers, none. That amdgpu tells of one reset both here and by uevent
is seen by `Troubles.note`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpudaemon.metrics import trouble as rows
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.trouble import KINDS, Trouble
from gpudaemon.parsers.kmsg import PROCESS, Said
from gpudaemon.pipeline.trouble import Source, Troubles

__all__ = ["KernelLog"]

_log = logging.getLogger(__name__)
_MOST_CODES = 1024
_CODES = {"xid": rows.XIDS, "sxid": rows.SXIDS}


@dataclass(slots=True)
class _Reader:
    """What scouts said of their reading. records, lost: of all but the present one."""

    records: int = 0
    lost: int = 0
    present: tuple[int, int] = (0, 0)


class KernelLog:
    """See the module. devices: those of the inventory. clock: unix time.

    sequence: of the last record that was read, -1 for none: where the next scout goes on. up: whether it is
    read, else why not.
    """

    def __init__(
        self, troubles: Troubles, devices: Callable[[], Mapping[str, Device]], clock: Callable[[], float]
    ) -> None:
        self._troubles = troubles
        self._devices = devices
        self._clock = clock
        self._codes: dict[tuple[Metric, str, str], int] = {}
        self._unplaced: dict[str, int] = {}
        self._read = _Reader()
        self.sequence = -1
        self.up = False
        self.why = ""

    @property
    def records(self) -> int:
        """How many records were read."""
        return self._read.records + self._read.present[0]

    @property
    def lost(self) -> int:
        """How many were overwritten before."""
        return self._read.lost + self._read.present[1]

    def restarted(self) -> None:
        """Another scout reads: its counts begin at zero."""
        self._read.records, self._read.lost = self.records, self.lost
        self._read.present = (0, 0)
        self.up = False

    def message(self, message: Mapping[str, Any]) -> None:
        """Take one message of the scout."""
        for line in message.get("trouble", ()):
            self._take(Said.unpacked(line))
        state = message.get("log")
        if state is not None:
            if state["why"] not in ("", self.why):
                _log.info("the kernel's log is not read", extra={"reason": state["why"]})
            self.up, self.why = not state["why"], state["why"]
            self._read.present = (state["records"], state["lost"])
            self.sequence = max(self.sequence, state["sequence"])

    def _take(self, said: Said) -> None:
        device = self._place(said)
        if not device:
            if said.kind != PROCESS:
                self._unplaced[said.driver] = self._unplaced.get(said.driver, 0) + 1
            return
        if said.kind == PROCESS:
            self._troubles.name(device, "hang", said.pid, said.task, self._clock())
            return
        assert said.kind in KINDS, said.kind
        text = said.text
        if said.kind in _CODES:
            self._count(_CODES[said.kind], device, str(said.code))
            instance = f" GPU-I {said.instance}" if said.instance else ""
            text = f"{'Xid' if said.kind == 'xid' else 'SXid'} {said.code}{instance}: {text}"
        self._troubles.note(
            Trouble(
                at=self._clock(),
                device=device,
                kind=said.kind,
                severity=said.severity,
                text=text,
                pid=said.pid,
                task=said.task,
            ),
            Source.LOG,
        )

    def _place(self, said: Said) -> str:
        """Id of the device a line is about; empty where it could be several. Of an address that is not known,
        as of a switch, or of a GPU that fell off the bus before it was seen, it is that address."""
        devices = self._devices()
        if not said.address:
            found = [device.id for device in devices.values() if device.driver == said.driver]
            return found[0] if len(found) == 1 else ""
        whole = said.address if "." in said.address else f"{said.address}.0"
        if whole in devices:
            return whole
        part = said.address.partition(".")[0]
        return next((id_ for id_ in devices if id_.partition(".")[0] == part), whole)

    def _count(self, metric: Metric, device: str, code: str) -> None:
        key = (metric, device, code)
        if key in self._codes or len(self._codes) < _MOST_CODES:
            self._codes[key] = self._codes.get(key, 0) + 1
        else:
            self._troubles.dropped += 1

    def rows(self, wanted: Callable[[Metric], bool]) -> Mapping[Metric, tuple[tuple[str, float], ...]]:
        """Series of what was counted. wanted: whether a metric is served."""
        found: dict[Metric, list[tuple[str, float]]] = {}
        for (metric, device, code), count in self._codes.items():
            found.setdefault(metric, []).append((Series(metric, (device, code)).prefix(), count))
        for driver, count in self._unplaced.items():
            found.setdefault(rows.UNPLACED, []).append((Series(rows.UNPLACED, (driver,)).prefix(), count))
        return {metric: tuple(lines) for metric, lines in found.items() if wanted(metric)}
