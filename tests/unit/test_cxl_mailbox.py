"""Mailboxes of CXL memory: the ioctls as the kernel checks them, what answers mean, any bytes."""

import ctypes
import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.calls import cxl_mailbox as calls
from gpudaemon.collectors.cxl import COLLECTOR
from gpudaemon.errors import Malformed
from gpudaemon.metrics import cxl_health
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric
from gpudaemon.parsers import cxl_mailbox as parser
from gpudaemon.pipeline.plan import Selection, call_plans, make_plan

DEVICE = Device(id="0000:21:00.0", kind=DeviceKind.CXL, path="devices/x", subsystem="pci", nodes=("mem3",))
HEALTH = struct.pack("<BBBBhIII", 0b0101, 6, 0b11_10_01, 42, -5, 7, 2**32 - 1, 3)
THRESHOLDS = struct.pack("<BBBBhhhhHH", 0b10011, 0x1F, 95, 80, 90, -20, 85, 0, 0, 500)
FIRMWARE = struct.pack("<BBB13x16s16s16s16s", 2, 0b010_001, 1, b"BWFW VERSION 00", b"1.2", b"junk", b"")


class Kernel:
    """drivers/cxl/core/mbox.c as far as a caller sees it. answers: id -> (return code, payload)."""

    def __init__(self, answers: dict[int, tuple[int, bytes]]) -> None:
        self.answers = answers
        self.enabled = {1, *answers}
        self.exclusive: set[int] = set()
        self.tells = True
        self.sent: list[int] = []

    def __call__(self, descriptor: int, request: int, buffer: bytearray, mutate: bool) -> int:
        assert mutate
        if request == 0x8008CE01:
            self._query(buffer)
        else:
            assert request == 0xC030CE02 and len(buffer) == 48
            self._send(buffer)
        return 0

    def _query(self, buffer: bytearray) -> None:
        (wanted,) = struct.unpack_from("=I", buffer)
        if not wanted:
            struct.pack_into("=I", buffer, 0, 25)
            return
        assert len(buffer) >= 8 + 16 * wanted
        for number in range(wanted):
            flags = (number in self.enabled) | (number in self.exclusive) << 1 if self.tells else 0
            struct.pack_into("=IIII", buffer, 8 + 16 * number, number, flags, 0, 0)

    def _send(self, buffer: bytearray) -> None:
        number, flags, raw, _, size_in, rsvd, _, size, rsvd_out, address = struct.unpack("=IIIIIIQIIQ", buffer)
        assert (flags, raw, size_in, rsvd, rsvd_out) == (0, 0, 0, 0, 0)
        if number not in self.enabled:
            raise OSError(errno.ENOTTY, "not enabled")
        self.sent.append(number)
        returned, payload = self.answers[number]
        assert size >= len(payload)
        ctypes.memmove(address, payload, len(payload))
        struct.pack_into("=I", buffer, 12, returned)
        struct.pack_into("=I", buffer, 32, len(payload))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel({4: (0, FIRMWARE), 7: (0, HEALTH), 11: (0, THRESHOLDS), 13: (0, b"\1")})
    (tmp_path / "mem3").write_bytes(b"")
    monkeypatch.setattr(calls.fcntl, "ioctl", made)
    yield made


@pytest.mark.parametrize(
    "what,answer", [("health", HEALTH), ("thresholds", THRESHOLDS), ("firmware", FIRMWARE), ("shutdown", b"\1")]
)
def test_the_answer_is_the_payload(kernel: Kernel, tmp_path: Path, what: str, answer: bytes) -> None:
    question = calls.CxlMailbox(str(tmp_path)).open("", f"mem3 {what}")
    assert not kernel.sent  # to prepare a question asks the device nothing
    assert question.ask() == answer and len(kernel.sent) == 1


def test_what_the_device_has_not_is_unsupported(kernel: Kernel, tmp_path: Path) -> None:
    kernel.enabled.discard(7)
    with pytest.raises(OSError) as raised:
        calls.CxlMailbox(str(tmp_path)).open("", "mem3 health")
    assert raised.value.errno == errno.EOPNOTSUPP
    # A kernel that lists commands without a word about them is asked the command itself.
    kernel.tells = False
    with pytest.raises(OSError) as raised:
        calls.CxlMailbox(str(tmp_path)).open("", "mem3 health").ask()
    assert raised.value.errno == errno.ENOTTY


def test_what_the_kernel_keeps_is_busy(kernel: Kernel, tmp_path: Path) -> None:
    kernel.exclusive.add(13)
    with pytest.raises(OSError) as raised:
        calls.CxlMailbox(str(tmp_path)).open("", "mem3 shutdown")
    assert raised.value.errno == errno.EBUSY and not kernel.sent


@pytest.mark.parametrize("code,number", [(3, errno.EOPNOTSUPP), (6, errno.EBUSY), (4, errno.EIO)])
def test_a_device_that_refuses(kernel: Kernel, tmp_path: Path, code: int, number: int) -> None:
    """The ioctl succeeds where the device says no."""
    kernel.answers[7] = (code, b"")
    with pytest.raises(OSError) as raised:
        calls.CxlMailbox(str(tmp_path)).open("", "mem3 health").ask()
    assert raised.value.errno == number


@pytest.mark.parametrize(
    "question", ["", "health", "mem3 sanitize", "mem3 health ", "../x health", "mem4 health"]
)
def test_no_question_or_no_device_is_absent(kernel: Kernel, tmp_path: Path, question: str) -> None:
    with pytest.raises(OSError) as raised:
        calls.CxlMailbox(str(tmp_path)).open("", question)
    assert raised.value.errno == errno.ENOENT


def planned() -> dict[str, Attribute | Rows]:
    return {one.path: one for one in COLLECTOR.attributes(DEVICE, {})}


def values(what: str, content: bytes) -> dict[tuple[Metric, tuple[str, ...]], float]:
    """What is served of an answer."""
    one = planned()[f"cxl_mailbox/mem3 {what}"]
    if isinstance(one, Rows):
        return {(metric, labels): value for metric, labels, value in one.decode(content)}
    found = zip(one.series, one.decode(content), strict=True)
    return {(series.metric, series.values): value for series, value in found if value is not None}


def test_health() -> None:
    found = values("health", HEALTH)

    def holding(metric: Metric) -> set[tuple[str, ...]]:
        return {labels[1:] for (row, labels), value in found.items() if row is metric and value}

    assert holding(cxl_health.HEALTH_STATUS) == {("maintenance_needed",), ("replacement_needed",)}
    assert holding(cxl_health.MEDIA_STATUS) == {("write_persistency_loss_imminent",)}
    assert holding(cxl_health.ALERT) == {
        ("life_used", "warning"),
        ("temperature", "critical"),
        ("corrected_volatile_errors", "warning"),
        ("corrected_persistent_errors", "warning"),
    }
    assert found[cxl_health.LIFE_USED, ("mem3",)] == 0.42
    assert found[cxl_health.TEMPERATURE, ("mem3",)] == -5
    assert found[cxl_health.DIRTY_SHUTDOWNS, ("mem3",)] == 7
    assert found[cxl_health.CORRECTED_ERRORS, ("mem3", "volatile")] == 2**32 - 1
    assert found[cxl_health.CORRECTED_ERRORS, ("mem3", "persistent")] == 3


def test_what_a_device_has_not_is_no_value() -> None:
    found = values("health", struct.pack("<BBBBhIII", 0, 10, 0b11_11, 0xFF, 0x7FFF, 0, 0, 0))
    assert {row for row, _ in found} == {
        cxl_health.HEALTH_STATUS,
        cxl_health.ALERT,
        cxl_health.DIRTY_SHUTDOWNS,
        cxl_health.CORRECTED_ERRORS,
    }
    # Level 3 is reserved; the two alerts of one bit are known.
    assert {labels[1] for row, labels in found if row is cxl_health.ALERT} == {
        "corrected_volatile_errors",
        "corrected_persistent_errors",
    }


def test_thresholds_that_are_not_programmed_are_none() -> None:
    assert values("thresholds", THRESHOLDS) == {
        (cxl_health.LIFE_USED_THRESHOLD, ("mem3", "critical")): 0.95,
        (cxl_health.LIFE_USED_THRESHOLD, ("mem3", "warning")): 0.8,
        (cxl_health.TEMPERATURE_THRESHOLD, ("mem3", "over", "critical")): 90,
        (cxl_health.TEMPERATURE_THRESHOLD, ("mem3", "under", "critical")): -20,
        (cxl_health.TEMPERATURE_THRESHOLD, ("mem3", "over", "warning")): 85,
        (cxl_health.CORRECTED_ERRORS_THRESHOLD, ("mem3", "persistent")): 500,
    }


def test_firmware_of_the_slots_there_are() -> None:
    assert set(values("firmware", FIRMWARE)) == {
        (cxl_health.FIRMWARE_INFO, ("mem3", "1", "BWFW VERSION 00", "true", "false")),
        (cxl_health.FIRMWARE_INFO, ("mem3", "2", "1.2", "false", "true")),
    }


@given(st.sampled_from(sorted(calls.COMMANDS)), st.binary(max_size=100))
def test_any_bytes(what: str, content: bytes) -> None:
    try:
        found = values(what, content)
    except Malformed:
        assert len(content) < calls.COMMANDS[what][1] or what == "shutdown"
        return
    assert len(content) >= calls.COMMANDS[what][1]
    assert all(0 <= value <= 1 for (row, _), value in found.items() if row.name.endswith("_ratio"))


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 3), st.integers(0, 100), st.integers(-(2**15), 2**15 - 2))
def test_numbers_come_back(counts: tuple[Any, ...], life: int, degrees: int) -> None:
    content = struct.pack("<BBBBhIII", 0, 0, 0, life, degrees, *counts)
    assert parser.health(content)[-5:] == (life / 100, degrees, *counts)


def test_only_in_tiers_that_may_and_only_of_memory_devices() -> None:
    plan = make_plan(DEVICE, {})
    found = call_plans(DEVICE, {}, Selection(calls=frozenset({"cxl_mailbox"})), plan)
    assert {file.path for file in found["cxl_mailbox"].files} == set(planned())
    assert not call_plans(DEVICE, {}, Selection(), plan)
    other = Device(id="0000:22:00.0", kind=DeviceKind.CXL, path="devices/y", nodes=())
    assert not COLLECTOR.attributes(other, {})
