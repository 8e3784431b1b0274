"""The lane's memory: what one side writes the other reads, and nothing else fits in."""

import contextlib
import fcntl
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.reader.channel import DEPTH, GROUPS, PARKED, RECORD, LaneMemory

PERIODS = [float(period) for period in range(1, GROUPS + 1)]


def plan(limits: list[int], **more: object) -> dict[str, object]:
    paths = [f"/sys/devices/\udcff{number}" for number in range(len(limits))]
    return {"lane": 7, "device": "0000:03:00.0", "deadline": 1.0, "gate": False, "paths": paths} | {
        "limits": limits,
        **more,
    }


def create(limits: list[int], groups: list[int] | None = None) -> int:
    return LaneMemory.create(plan(limits), groups or [0] * len(limits), PERIODS)


@pytest.fixture
def descriptor() -> object:
    descriptor = create([64, 4096, 1])
    yield descriptor
    os.close(descriptor)


limits = st.lists(st.integers(1, 70000), max_size=40)


@settings(deadline=None)
@given(limits, st.data())
def test_both_sides_see_the_same(sizes: list[int], data: st.DataObject) -> None:
    groups = data.draw(
        st.lists(st.sampled_from([0, 3, GROUPS - 1, PARKED]), min_size=len(sizes), max_size=len(sizes))
    )
    descriptor = create(sizes, groups)
    server, reader = LaneMemory(descriptor), LaneMemory(descriptor)
    os.close(descriptor)
    assert reader.plan == plan(sizes)
    assert (reader.count, list(reader.groups), list(reader.periods)) == (len(sizes), groups, PERIODS)
    # Every slot of every copy full, with its own byte: an overlap of any two shows.
    for copy in range(DEPTH):
        for number, slot in enumerate(reader.slots(copy)):
            assert len(slot) == sizes[number]
            slot[:] = bytes([(copy * 41 + number) % 251]) * sizes[number]
            reader.lengths[copy][number] = sizes[number] - copy
            reader.costs[number] = number / 8
    reader.begun, reader.finished = 2**63, 5
    server.rest_until = 1234.5
    assert (server.begun, server.finished, reader.rest_until) == (2**63, 5, 1234.5)
    for chain in range(8, 8 + DEPTH):
        copy = chain % DEPTH
        for number, size in enumerate(sizes):
            assert server.lengths[copy][number] == size - copy
            assert server.content(chain, number, size) == bytes([(copy * 41 + number) % 251]) * size
    assert [server.costs[number] for number in range(len(sizes))] == [
        number / 8 for number in range(len(sizes))
    ]
    assert list(server.groups) == groups


def test_a_file_that_moves_is_seen(descriptor: int) -> None:
    server, reader = LaneMemory(descriptor), LaneMemory(descriptor)
    before = reader.version
    server.move(1, PARKED)
    assert (list(reader.groups), reader.version) == ([0, PARKED, 0], before + 1)
    server.set_periods([9.0] * GROUPS)
    assert (list(reader.periods), reader.version) == ([9.0] * GROUPS, before + 2)


def test_negative_results_survive(descriptor: int) -> None:
    server, reader = LaneMemory(descriptor), LaneMemory(descriptor)
    reader.lengths[2][0] = -1013
    assert server.lengths[2][0] == -1013


def test_a_reading_is_intact_until_its_copy_is_begun_anew(descriptor: int) -> None:
    server, reader = LaneMemory(descriptor), LaneMemory(descriptor)
    for chain in range(1, 3 * DEPTH):
        reader.begun = chain
        reader.slots(chain % DEPTH)[0][:2] = b"%02d" % chain
        for earlier in range(1, chain + 1):
            whole = server.content(earlier, 0, 2) == b"%02d" % earlier
            assert server.intact(earlier) is whole


def test_the_size_is_sealed(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    for other in (0, size - 1, size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, other)
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    assert seals & fcntl.F_SEAL_GROW
    assert not os.get_inheritable(descriptor)


def test_a_record_is_forty_eight_bytes_and_keeps_its_fields() -> None:
    fields = (6, 1, 65535, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1, 1.5, 2.25)
    assert RECORD.unpack(RECORD.pack(*fields)) == fields


def memory_of(content: bytes) -> LaneMemory:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        return LaneMemory(descriptor)
    finally:
        os.close(descriptor)


def whole() -> bytearray:
    descriptor = create([64, 64])
    try:
        return bytearray(os.pread(descriptor, 1 << 20, 0))
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, 16, 191, 192, 300])
def test_memory_cut_short_is_a_value_error(size: int) -> None:
    with pytest.raises(ValueError):
        memory_of(bytes(whole()[:size]))


@pytest.mark.parametrize(
    ("offset", "format_", "value"),
    [
        (0, "=I", 2**32 - 1),  # more files than there is room for
        (0, "=I", 3),  # another number than the plan's
        (4, "=I", 2**31),  # a plan longer than the memory
        (4, "=I", 0),  # no plan
        (4, "=I", 5),  # half a plan
        (8, "=Q", 2**63),  # a plan beyond the memory
        (8, "=Q", 0),  # a plan that is the header
    ],
)
def test_a_header_that_lies_is_a_value_error(offset: int, format_: str, value: int) -> None:
    memory = whole()
    struct.pack_into(format_, memory, offset, value)
    with pytest.raises(ValueError):
        memory_of(bytes(memory))


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"1",
        b"{}",
        b'{"limits": 3}',
        b'{"limits": [64]}',
        b'{"limits": [64, 100000000]}',
        b'{"limits": [64, -1]}',
        b'{"limits": [64, "x"]}',
        b"\xff\xfe",
    ],
)
def test_a_plan_that_lies_is_a_value_error(text: bytes) -> None:
    memory = whole()
    (offset,) = struct.unpack_from("=Q", memory, 8)
    memory[offset:] = text
    struct.pack_into("=I", memory, 4, len(text))
    with pytest.raises(ValueError):
        memory_of(bytes(memory))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_a_value_error_or_memory(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        memory_of(content)
