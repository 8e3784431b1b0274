"""Events of CXL devices on real kernels: what QEMU is told to report is what the daemon counts, each once.

QEMU queues records in a device's logs and raises its interrupt; the guest's driver takes them out and traces
them. A log has room for few: what comes while it is full is an overflow, which the device counts itself.
"""

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.daemon import Page
from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.test_cxl import furnish
from tests.vm.test_hotplug import _slot, _unplug
from tests.vm.tracefs import ROOT

pytestmark = [pytest.mark.guest(), pytest.mark.timeout(900)]

Measured = Callable[[str, float, str], None]
Key = tuple[str, str, str, str, str]
"""memdev, event, severity, type, transaction_type"""

FLAGS = ("--tier", "full", "--preset", "scrape", "--period.slow", "2", "--read.deadline", "5")
LATEST, QUIET = 60.0, 4.0
BURST, KEPT = 1000, 900
"""Records of a burst; how many of them at least must be heard of: QEMU's devices forget some."""
_RECORD = {"flags": 1}
_MEDIA: dict[str, Any] = {**_RECORD, "dpa": 0x1000, "descriptor": 0, "type": 1, "transaction_type": 2}
_MODULE: dict[str, Any] = {
    **_RECORD,
    **{"type": 3, "health_status": 3, "media_status": 7, "additional_status": 33, "life_used": 30},
    **{"temperature": -15, "dirty_shutdown_count": 4},
    **{"corrected_volatile_error_count": 3233, "corrected_persistent_error_count": 1300},
}
_POISONED = 0x4000
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def unmask(device: str) -> list[int]:
    """In the guest: let a CXL memory device, and all PCI functions, report errors of the link.

    Bits of internal errors are masked by default in Advanced Error Reporting, and those of CXL.cachemem in the
    RAS capability of the component registers (CXL 3.1, 8.2.4.17), which are in BAR 0 of QEMU's device. The
    masks of the latter as they were.
    """
    import ctypes
    import glob
    import mmap
    import os
    import struct

    for path in glob.glob("/sys/bus/pci/devices/*/config"):
        with open(path, "r+b", buffering=0) as stream:
            content = stream.read(4096)
            place = 0x100
            while 0x100 <= place < len(content) - 0x18:
                (header,) = struct.unpack_from("<I", content, place)
                if header & 0xFFFF == 1:
                    for at, bit in ((place + 0x08, 22), (place + 0x14, 14)):
                        (mask,) = struct.unpack_from("<I", content, at)
                        stream.seek(at)
                        stream.write(struct.pack("<I", mask & ~(1 << bit)))
                    break
                place = header >> 20
    descriptor = os.open(f"/sys/bus/pci/devices/{device}/resource0", os.O_RDWR | os.O_SYNC)
    masks = []
    with mmap.mmap(descriptor, 0x10000) as registers:
        base = ctypes.addressof(ctypes.c_char.from_buffer(registers))

        def at(place: int) -> ctypes.c_uint32:
            return ctypes.c_uint32.from_address(base + place)

        cachemem = 0x1000
        for number in range(1, (at(cachemem).value >> 24) + 1):
            entry = at(cachemem + 4 * number).value
            if entry & 0xFFFF == 2:
                for place in (0x04, 0x10):
                    register = at(cachemem + (entry >> 20) + place)
                    masks.append(register.value)
                    register.value = 0
    os.close(descriptor)
    return masks


class Looker:
    """A daemon in the guest, and what it says of events; what was counted before is left out."""

    def __init__(self, guest: Guest, daemon: GuestDaemon) -> None:
        self._guest = guest
        self.daemon = daemon
        self.expected: Counter[Key] = Counter()

    def armed(self) -> bool:
        return self.daemon.metrics().get('gpudaemon_daemon_tracer_state{subject="cxl",state="armed"}') == 1

    def events(self) -> Counter[Key]:
        found: Counter[Key] = Counter()
        for series, value in self.daemon.metrics().family("gpudaemon_cxl_events_total").items():
            labels = dict(_LABEL.findall(series))
            key = tuple(labels[name] for name in ("memdev", "event", "severity", "type", "transaction_type"))
            found[key[0], key[1], key[2], key[3], key[4]] += int(value)
        return found

    def until(self) -> None:
        """Wait for exactly what is expected."""
        try:
            self.daemon.until(lambda: self.events() == self.expected, LATEST)
        except AssertionError as error:
            raise AssertionError(f"{self.events()} and not {self.expected}: {error}") from None

    def texts(self, device: str) -> list[str]:
        """Of events of trouble, the oldest first."""
        found = json.loads(self.daemon.get("/api/v1/events")[1])["events"]
        return [one["text"] for one in found if one["kind"] == "cxl" and one["device"] == device]

    def memdev(self, serial: int) -> tuple[str, str]:
        """(memdev, PCI function)"""

        def infos() -> list[dict[str, str]]:
            series = self.daemon.metrics().family("gpudaemon_cxl_memdev_info")
            return [labels for one in series if (labels := dict(_LABEL.findall(one)))["serial"] == hex(serial)]

        self.daemon.until(infos, LATEST, f"for {serial:#x}")
        (labels,) = infos()
        return labels["memdev"], labels["device"]


def _inject(guest: Guest, what: str, device: str, **arguments: Any) -> None:
    guest.qmp.command(f"cxl-inject-{what}", path=f"/machine/peripheral/{device}", **arguments)


def _records(guest: Guest, look: Looker) -> None:
    """One of each kind, of each log: exactly its counter rises."""
    first, device = look.memdev(0x1001)
    second, _ = look.memdev(0x1002)
    for log in ("informational", "warning", "failure", "fatal"):
        _inject(guest, "general-media-event", "cxl_volatile0", log=log, **_MEDIA)
        look.expected[first, "general_media", log, "invalid_address", "host_write"] += 1
    look.until()
    _inject(guest, "dram-event", "cxl_persistent0", log="failure", **{**_MEDIA, "transaction_type": 1})
    look.expected[second, "dram", "failure", "scrub_media_ecc_error", "host_read"] += 1
    look.until()
    _inject(guest, "memory-module-event", "cxl_persistent0", log="warning", **_MODULE)
    look.expected[second, "memory_module", "warning", "temperature_change", ""] += 1
    look.until()

    texts = look.texts(device)
    where = "at 0x1000 of the device"
    # The driver looks into the logs one after the other, the worst first.
    assert {text.partition(": invalid")[0] for text in texts} == {
        f"{first}: general media, {log}" for log in ("warning", "failure", "fatal")
    }
    assert all(text.endswith(f"invalid address host write {where}") for text in texts), texts
    ages = look.daemon.metrics().family("gpudaemon_cxl_event_last_seen_timestamp_seconds")
    now = float(guest.shell("date +%s.%N"))
    assert len(ages) == 6 and all(now - LATEST * 3 < at <= now for at in ages.values()), (now, ages)


def _poison(guest: Guest, look: Looker) -> None:
    memdev, device = look.memdev(0x1003)
    _inject(guest, "poison", "cxl_volatile1", start=_POISONED, length=64)
    look.until()
    guest.shell(f"echo 1 > /sys/bus/cxl/devices/{memdev}/trigger_poison_list")
    look.expected[memdev, "poison", "", "internal", "list"] += 1
    look.until()
    assert look.texts(device) == [f"{memdev}: poison, list: internal at {_POISONED:#x} of the device"]


def _link(guest: Guest, look: Looker) -> None:
    """Errors of a device that was plugged in: one that cannot be corrected has its driver let it go."""
    slot = _slot(guest, "cxl_free0")
    memory = "cxl_linked"
    guest.qmp.command("object-add", qom_type="memory-backend-ram", id=memory, size=256 << 20)
    guest.qmp.command(
        "device_add", driver="cxl-type3", bus="cxl_free0", volatile_memdev=memory, id="cxl_erring", sn=0x1008
    )
    try:
        memdev, device = look.memdev(0x1008)
        assert device == slot
        guest.until(
            lambda: guest.run("readlink", f"/sys/bus/cxl/devices/{memdev}/driver", check=False).status == 0,
            LATEST,
        )
        print(guest.kernel.release, "masks were", [hex(mask) for mask in guest.call(unmask, device)])
        _inject(guest, "correctable-error", "cxl_erring", type="mem-data-ecc")
        look.expected[memdev, "aer", "corrected", "", ""] += 1
        look.until()
        _inject(guest, "correctable-error", "cxl_erring", type="crc-threshold")
        look.expected[memdev, "aer", "corrected", "", ""] += 1
        look.until()
        errors = _errors(look.daemon.metrics())
        assert errors == {("corrected", "memory_data_ecc_error"): 1, ("corrected", "crc_threshold_hit"): 1}
        recoveries = _recoveries(guest)
        error = {"type": "cache-address-parity", "header": list(range(16))}
        _inject(guest, "uncorrectable-errors", "cxl_erring", errors=[error])
        look.expected[memdev, "aer", "uncorrected", "", ""] += 1
        look.until()
        assert _errors(look.daemon.metrics())["uncorrected", "cache_address_parity_error"] == 1
        assert [text.partition(": ")[2] for text in look.texts(device)] == [
            "corrected: memory data ecc error",
            "corrected: crc threshold hit",
            "uncorrected: cache address parity error",
        ]
        # A guest stood still whose device was taken out while the kernel was resetting its link.
        guest.until(lambda: _recoveries(guest) > recoveries, LATEST, "for the end of the recovery")
    finally:
        _unplug(guest, "cxl_erring", slot)
    # With the device its series leave; that it had trouble stays known.
    for key in [key for key in look.expected if key[0] == memdev]:
        del look.expected[key]
    look.until()
    page = look.daemon.metrics()
    assert not [series for series in page if f'device="{device}"' in series and "_trouble_" not in series]


def _recoveries(guest: Guest) -> int:
    """How many recoveries of a PCI device the kernel has finished, well or not (drivers/pci/pcie/err.c)."""
    return int(guest.run("dmesg", "--raw").stdout.count("device recovery "))


def _errors(page: Page) -> dict[tuple[str, str], float]:
    return {
        ((labels := dict(_LABEL.findall(series)))["severity"], labels["error"]): value
        for series, value in page.family("gpudaemon_cxl_protocol_errors_total").items()
    }


@contextlib.contextmanager
def _witness(guest: Guest) -> Iterator[Callable[[], tuple[int, int]]]:
    """Another listener to the same events: (records of media, those the devices say they had no room for)."""
    instance = f"{ROOT}/instances/witness"
    guest.shell(
        f"mkdir {instance}; echo 4096 > {instance}/buffer_size_kb; echo 1 > {instance}/events/cxl/enable"
    )

    def heard() -> tuple[int, int]:
        text = guest.read(f"{instance}/trace")
        lost = sum(map(int, re.findall(r"cxl_overflow: .* : (\d+) records from", text)))
        return text.count("cxl_general_media:"), lost

    try:
        yield heard
    finally:
        guest.shell(f"echo 0 > {instance}/events/cxl/enable; rmdir {instance}")


def _settled(heard: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """What is heard when nothing more comes for some seconds; a driver under emulation takes its time."""
    last, since, end = heard(), time.monotonic(), time.monotonic() + LATEST
    while time.monotonic() - since < QUIET and time.monotonic() < end:
        time.sleep(0.2)
        if (now := heard()) != last:
            last, since = now, time.monotonic()
    return last


def _burst(guest: Guest, look: Looker, measured: Measured) -> None:
    """As fast as QEMU takes them, on two devices in turn: each is counted, or counted as lost.

    QEMU's devices forget now and then one they had no room for, where it comes while the driver asks how many
    there were: what there is to count is what another listener hears.
    """
    names = {"cxl_volatile0": look.memdev(0x1001)[0], "cxl_volatile1": look.memdev(0x1003)[0]}
    before, began = look.events(), time.monotonic()

    def counted() -> tuple[int, int]:
        page = look.daemon.metrics()
        events = sum(count for key, count in (look.events() - before).items() if key[1] == "general_media")
        lost = sum(page.family("gpudaemon_cxl_events_overflowed_total").values())
        return events, int(lost + page["gpudaemon_daemon_tracer_events_lost_total"])

    with _witness(guest) as heard:
        for number in range(BURST):
            device = tuple(names)[number % 2]
            _inject(guest, "general-media-event", device, log="warning", **{**_MEDIA, "dpa": 0x40 * number})
        took = time.monotonic() - began
        settled = _settled(heard)
        try:
            look.daemon.until(lambda: counted() == settled, LATEST)
        except AssertionError as error:
            raise AssertionError(f"{counted()} and not {heard()} of {BURST}: {error}") from None
        assert heard() == settled
    events, lost = settled
    measured(f"{BURST} events injected in", took, "s")
    measured("counted", events, "")
    measured("counted as lost", lost, "")
    measured("forgotten by the devices", BURST - events - lost, "")
    assert KEPT <= events + lost <= BURST
    fresh = look.events() - before
    assert {key[0] for key in fresh if key[1] == "general_media"} == set(names.values())
    assert look.daemon.metrics()["gpudaemon_cxl_events_lower_bound"] == 0


def test_injected_events(guest: Guest, measured: Measured) -> None:
    furnish(guest)
    with GuestDaemon(guest, *FLAGS, wait=400.0) as daemon:
        look = Looker(guest, daemon)
        daemon.until(look.armed, LATEST, "for the events")
        assert not look.events()
        _records(guest, look)
        _poison(guest, look)
        _link(guest, look)
        _burst(guest, look, measured)
        assert "Traceback" not in daemon.log
