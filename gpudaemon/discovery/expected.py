"""The GPUs this host should have: named by the administrator, or learnt by having been here. No I/O.

Three grades of knowledge:

expected  `inventory.expect` names them: these and only these are missed, from the first scan on.
learnt    bound to a driver and here for `LEARN_AFTER` seconds without a break: missed across restarts and
          reboots, until they return, are found elsewhere in this host, or are forgotten by the administrator.
seen      here in this run, not long enough to be learnt: missed until the daemon ends.

A GPU that moved is not missing: firmware numbered the buses anew, or a card was put into another slot. Each
missing address is paired with a new address at most, one that appeared after the old one was last seen: by
serial number or unique id, else by model (PCI vendor, device and subsystem ids). A card with a serial number
that is nowhere in this host has not moved.

Virtual functions are never missed: their number is a setting (sriov_numvfs). The records go to a file and come
back by `discovery.inventory_file`; docs/health.md is the manual.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from gpudaemon.model.device import Device, DeviceKind

__all__ = ["LEARN_AFTER", "MOST", "Expected", "Info", "Known", "full_id"]

LEARN_AFTER = 600.0
"""Seconds for which a GPU must be here, bound to a driver, before it is learnt."""
MOST = 1024
"""Most GPUs remembered."""
_REFRESH = 3600.0
_IDENTIFY = 15.0
"""Seconds a GPU at a new address gets to say who it is, before one of the same model counts as missing."""

_MODEL = ("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id")
_UNIQUE = ("unique_id", "serial_number")
_SHORT = re.compile(r"[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")

Info = Callable[[str], Mapping[str, str] | None]
"""Labels of `gpudaemon_gpu_info` of a device that is here, None while they are not known."""


def full_id(id_: str) -> str:
    """A PCI address with its domain, in lower case (`03:00.0` -> `0000:03:00.0`); other ids as they are."""
    low = id_.strip().lower()
    return f"0000:{low}" if _SHORT.fullmatch(low) else low if ":" in low else id_.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is remembered of a GPU.

    path: directory below the sysfs root, where the bridges above it are found. info: its labels of
    `gpudaemon_gpu_info`. first_seen, last_seen: unix seconds, 0 where it never was here. learnt: kept.
    """

    id: str
    driver: str = ""
    path: str = ""
    info: Mapping[str, str] = field(default_factory=dict)
    first_seen: float = 0.0
    last_seen: float = 0.0
    learnt: bool = False

    @property
    def device(self) -> Device:
        """A device to look for its bridges by; it has no names and no nodes."""
        parents = tuple(part for part in reversed(self.path.split("/")[:-1]) if part.count(":") == 2)
        return Device(
            id=self.id,
            kind=DeviceKind.GPU,
            path=self.path,
            subsystem="pci",
            driver=self.driver,
            parents=parents,
        )

    @property
    def model(self) -> tuple[str, ...]:
        """PCI ids that say what card it is; empty where they are not known."""
        ids = tuple(self.info.get(label, "") for label in _MODEL)
        return ids if ids[0] and ids[1] else ()

    @property
    def marks(self) -> frozenset[tuple[str, str]]:
        """What tells this very card from others of its model; empty where nothing does."""
        given = ((label, self.info.get(label, "")) for label in _UNIQUE)
        return frozenset((label, text) for label, text in given if text.strip("0 -.:"))


class Expected:
    """See the module. Every moment is unix time in seconds, but how long a GPU was here counts on `clock`.

    expect: ids the administrator named; where there are any, nothing is learnt into missing.
    learn: whether GPUs are learnt. clock: CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        *,
        expect: Iterable[str] = (),
        learn: bool = True,
        learn_after: float = LEARN_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expect = tuple(dict.fromkeys(full_id(id_) for id_ in expect))
        self._learn = learn
        self._learn_after = learn_after
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._arrived: dict[str, float] = {}
        self._bound: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._here: frozenset[str] = frozenset()
        self._identified: set[str] = set()
        self._compared: float | None = None
        self._refreshed = clock()
        self.changed = False
        self.moved: dict[str, str] = {}
        """Where GPUs were found that are not at their old address, old id -> new id; of this run."""

    @property
    def known(self) -> Mapping[str, Known]:
        """Everything remembered, by id."""
        return self._known

    def learnt(self) -> tuple[Known, ...]:
        """What belongs into the file."""
        return tuple(known for known in self._known.values() if known.learnt)

    def load(self, learnt: Iterable[Known]) -> None:
        """Take over what a file held; of what this run has seen already, that it is learnt and since when."""
        for known in learnt:
            seen = self._known.get(known.id)
            if seen is not None:
                info = seen.info or known.info
                seen = replace(seen, learnt=True, first_seen=known.first_seen, info=info)
                self._known[known.id] = seen
            elif len(self._known) < MOST:
                self._known[known.id] = replace(known, learnt=True)

    def configure(self, expect: Iterable[str], *, learn: bool) -> None:
        """A configuration read again: what is remembered stays."""
        self.expect = tuple(dict.fromkeys(full_id(id_) for id_ in expect))
        self._learn = learn

    def see(self, devices: Iterable[Device]) -> None:
        """What a scan found, at once: the GPUs that are here now are remembered for this run."""
        now, moment = time.time(), self._clock()
        here = [device for device in devices if device.kind is DeviceKind.GPU and not device.link("physfn")]
        for device in here:
            old = self._known.get(device.id)
            if old is None:
                if len(self._known) >= MOST:
                    continue
                old = Known(id=device.id, first_seen=now)
            self._arrived.setdefault(device.id, moment)
            if device.driver:
                self._bound.setdefault(device.id, moment)
            else:
                self._bound.pop(device.id, None)
            if old.path != device.path or (device.driver and old.driver != device.driver):
                self.changed = self.changed or old.learnt
                old = replace(old, path=device.path, driver=device.driver or old.driver)
            self._known[device.id] = replace(old, last_seen=now)
        self._here = frozenset(device.id for device in here)
        self._identified &= self._here
        for id_ in self._arrived.keys() - self._here:
            del self._arrived[id_]
            self._bound.pop(id_, None)
            self._left[id_] = moment
        for id_ in self._left.keys() - (self._known.keys() - self._here):
            del self._left[id_]

    def compare(self, info: Info) -> tuple[Known, ...]:
        """The missing ones, sorted by id, once a scan is complete; asked again now and then.

        info: what is known of those that are here; asked of each until it is known, then every hour.
        """
        moment = self._clock()
        if self._compared is None:
            self._compared = moment
        if moment - self._refreshed >= _REFRESH:
            self._refresh(moment)
        for id_ in self._here:
            known = self._known.get(id_)
            identified = id_ in self._identified
            if known is not None and not (known.learnt and identified):
                self._identify(known, None if identified else info(id_), moment)
        absent = [id_ for id_ in (self.expect or self._known) if id_ not in self._here]
        missing = [self._known.get(id_) or Known(id=id_) for id_ in absent]
        if not self.expect:
            missing = self._without_moved(missing, moment)
        return tuple(sorted(missing, key=lambda known: known.id))

    def left(self) -> tuple[Known, ...]:
        """Those that left in this run, for as long as no scan is known to be complete."""
        return tuple(self._known[id_] for id_ in sorted(self._left) if not self.expect or id_ in self.expect)

    def forget(self, id_: str) -> bool:
        """The administrator took this GPU out: it is missed no more. False where it is not known.

        One that is here stays known: it would be learnt again. One that is configured must be taken out of the
        configuration.
        """
        if id_ in self._here or self._known.pop(id_, None) is None:
            return False
        self.changed = True
        return True

    def _refresh(self, moment: float) -> None:
        """Every hour: when everything was last seen goes to the file, and labels may have changed."""
        self._refreshed = moment
        self._identified.clear()
        now = time.time()
        for id_ in self._here & self._known.keys():
            self._known[id_] = replace(self._known[id_], last_seen=now)
            self.changed = self.changed or self._known[id_].learnt

    def _identify(self, known: Known, labels: Mapping[str, str] | None, moment: float) -> None:
        """Take over a GPU's labels, and learn it when its time has come."""
        if labels is not None:
            self._identified.add(known.id)
        if labels and dict(labels) != known.info:
            self.changed = self.changed or known.learnt
            known = replace(known, info=dict(labels))
        since = self._bound.get(known.id, moment)
        if self._learn and not known.learnt and known.driver and moment - since >= self._learn_after:
            known = replace(known, learnt=True)
            self.changed = True
        self._known[known.id] = known

    def _without_moved(self, missing: Iterable[Known], moment: float) -> list[Known]:
        """`missing` less those found at another address, which are forgotten, and those that may yet be."""
        here = [known for id_ in self._here if (known := self._known.get(id_)) is not None]
        new = sorted((known for known in here if not known.learnt), key=lambda known: known.id)
        nameless = any(known.id not in self._identified for known in new)
        waiting = nameless and moment - (self._compared or moment) < _IDENTIFY
        left: list[Known] = []
        for known in missing:
            left_at = self._left.get(known.id, -inf)
            came = [other for other in new if self._arrived.get(other.id, -inf) >= left_at]
            place = _place(known, came, here)
            if place is not None:
                new.remove(place)
                self._has_moved(known, place, here)
            elif not (waiting and known.learnt):
                left.append(known)
        return left

    def _has_moved(self, known: Known, place: Known, here: Iterable[Known]) -> None:
        """The record goes to its new address."""
        del self._known[known.id]
        if len(self.moved) < MOST:
            found = next((other.id for other in here if other.marks & known.marks), place.id)
            self.moved[known.id] = found
        first_seen = known.first_seen or place.first_seen
        self._known[place.id] = replace(place, learnt=place.learnt or known.learnt, first_seen=first_seen)
        self.changed = self.changed or known.learnt


def _place(known: Known, new: Sequence[Known], here: Iterable[Known]) -> Known | None:
    """Which of the new addresses stands for `known`, None where none does."""
    by_mark = next((other for other in new if other.marks & known.marks), None)
    if by_mark is not None or not known.model:
        return by_mark
    if known.marks and not any(other.marks & known.marks for other in here):
        return None
    return next((other for other in new if other.model == known.model), None)
