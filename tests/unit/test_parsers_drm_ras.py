"""Messages of drm-ras: what a kernel would send comes back, any bytes give counters or Malformed."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.drivers.drm_ras import error_counters
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.parsers.drm_ras import Counter, counters, messages

DEVICE = "0000:03:00.0"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(command: int, *attributes: bytes) -> bytes:
    payload = struct.pack("=BBH", command, 1, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(payload), 0x1C, 2, 1, 0) + payload


def node(number: int, device: str, name: str) -> bytes:
    parts = (struct.pack("=I", number), device.encode() + b"\0", name.encode() + b"\0", struct.pack("=I", 1))
    return message(1, *(attribute(kind, value) for kind, value in enumerate(parts, 1)))


def counter(number: int, name: str, value: int) -> bytes:
    numbers = struct.pack("=I", number), struct.pack("=I", value)
    return message(2, attribute(2, numbers[0]), attribute(3, name.encode() + b"\0"), attribute(4, numbers[1]))


ANSWER = (
    node(0, DEVICE, "correctable-errors") + counter(1, "core-compute", 7)
    + counter(3, "device-memory", 2**32 - 1)
    + node(1, DEVICE, "uncorrectable-errors") + counter(1, "core-compute", 0)
)  # fmt: skip


def test_counters_belong_to_the_node_before_them() -> None:
    assert list(counters(ANSWER)) == [
        Counter(DEVICE, "correctable-errors", "core-compute", 7),
        Counter(DEVICE, "correctable-errors", "device-memory", 2**32 - 1),
        Counter(DEVICE, "uncorrectable-errors", "core-compute", 0),
    ]


def test_rows_of_a_device() -> None:
    device = Device(id=DEVICE, kind=DeviceKind.GPU, path="devices/x", driver="xe", nodes=("card0",))
    (planned,) = error_counters(device)
    assert planned.call == "drm_ras"
    assert list(
        planned.decode(ANSWER + node(2, "0000:04:00.0", "correctable-errors") + counter(1, "pcie", 5))
    ) == [
        (gpu.RAS_ERRORS, (DEVICE, "core-compute", "corrected"), 7.0),
        (gpu.RAS_ERRORS, (DEVICE, "device-memory", "corrected"), float(2**32 - 1)),
        (gpu.RAS_ERRORS, (DEVICE, "core-compute", "uncorrected"), 0.0),
    ]


NAMES = st.sampled_from(["a", "pcie", "core-compute", "x" * 40])


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.lists(st.tuples(NAMES, st.integers(0, 2**32 - 1)), max_size=6)), max_size=4)
)
def test_what_is_sent_comes_back(nodes: list[tuple[str, list[tuple[str, int]]]]) -> None:
    content = b"".join(
        node(number, DEVICE, name) + b"".join(counter(1, error, value) for error, value in errors)
        for number, (name, errors) in enumerate(nodes)
    )
    assert list(counters(content)) == [
        Counter(DEVICE, name, error, value) for name, errors in nodes for error, value in errors
    ]


@given(st.binary(max_size=200) | st.integers(0, len(ANSWER)).map(lambda cut: ANSWER[:cut]))
def test_any_bytes(content: bytes) -> None:
    for parse in (messages, counters):
        try:
            list(parse(content))
        except Malformed as error:
            assert error.reason in Malformed.REASONS


@given(st.integers(0, len(ANSWER) - 1), st.integers(0, 255))
def test_a_byte_that_changed(place: int, value: int) -> None:
    content = bytearray(ANSWER)
    content[place] = value
    try:
        found = list(counters(bytes(content)))
    except Malformed:
        return
    assert all(0 <= one.value < 2**32 for one in found)


def test_a_counter_without_a_node_is_malformed() -> None:
    with pytest.raises(Malformed):
        list(counters(counter(1, "pcie", 5)))
