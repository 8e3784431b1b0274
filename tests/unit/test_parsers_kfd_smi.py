"""KFD's event stream: every format of every kernel, split anywhere, and hostile content.

Lines are made with the kernel's own format strings: kfd_smi_events.c of 6.1 and 6.12, KFD_EVENT_FMT_* of
include/uapi/linux/kfd_ioctl.h of 7.x.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.kfd_smi import KINDS, SmiEvent, SmiLines, smi_event

AT, PID, PAGE, SIZE, GPU = 5_123_456_789, 4711, 0x7F12_3456_7, 0x200, 0x1002

MIGRATE = {"at": AT, "pid": PID, "start": PAGE, "pages": SIZE, "gpu": GPU}
FORMS: dict[str, tuple[bytes, SmiEvent]] = {
    "6.1 vm fault": (b"1 1267:python3\n", SmiEvent("vm_fault", pid=PID, text="python3")),
    "6.1 throttle": (b"2 a0:15\n", SmiEvent("thermal_throttle", numbers=(0xA0, 0x15))),
    "6.1 reset": (b"3 1a\n", SmiEvent("pre_reset", numbers=(0x1A,))),
    "6.12 reset": (b"4 1a job hang\n", SmiEvent("post_reset", numbers=(0x1A,), text="job hang")),
    "start": (
        b"5 %d -%d @%x(%x) %x->%x %x:%x %d\n" % (AT, PID, PAGE, SIZE, 0, GPU, GPU, 0xFFFFFFFF, 1),
        SmiEvent("migrate_start", **MIGRATE, source=0, target=GPU, trigger=1),  # type: ignore[arg-type]
    ),
    "6.12 end": (
        b"6 %d -%d @%x(%x) %x->%x %d\n" % (AT, PID, PAGE, SIZE, GPU, 0, 2),
        SmiEvent("migrate_end", **MIGRATE, source=GPU, target=0, trigger=2),  # type: ignore[arg-type]
    ),
    "7.x end": (
        b"6 %d -%d @%x(%x) %x->%x %d %d\n" % (AT, PID, PAGE, SIZE, GPU, 0, 3, -12),
        SmiEvent("migrate_end", **MIGRATE, source=GPU, trigger=3, error=-12),  # type: ignore[arg-type]
    ),
    "fault": (
        b"7 %d -%d @%x(%x) %c\n" % (AT, PID, PAGE, GPU, ord("W")),
        SmiEvent("page_fault_start", at=AT, pid=PID, start=PAGE, gpu=GPU, flag="W"),
    ),
    "fault over": (
        b"8 %d -%d @%x(%x) %c\n" % (AT, PID, PAGE, GPU, ord("U")),
        SmiEvent("page_fault_end", at=AT, pid=PID, start=PAGE, gpu=GPU, flag="U"),
    ),
    "eviction": (
        b"9 %d -%d %x %d\n" % (AT, PID, GPU, 2),
        SmiEvent("queue_eviction", at=AT, pid=PID, gpu=GPU, trigger=2),
    ),
    "6.1 restored": (b"a %d -%d %x\n" % (AT, PID, GPU), SmiEvent("queue_restore", at=AT, pid=PID, gpu=GPU)),
    "6.18 restored": (
        b"a %d -%d %x \0\n" % (AT, PID, GPU),
        SmiEvent("queue_restore", at=AT, pid=PID, gpu=GPU),
    ),
    "7.x restored": (b"a %d -%d %x 0\n" % (AT, PID, GPU), SmiEvent("queue_restore", at=AT, pid=PID, gpu=GPU)),
    "rescheduled": (
        b"a %d -%d %x R\n" % (AT, PID, GPU),
        SmiEvent("queue_restore", at=AT, pid=PID, gpu=GPU, flag="R"),
    ),
    "unmap": (
        b"b %d -%d @%x(%x) %x %d\n" % (AT, PID, PAGE, SIZE, GPU, 0),
        SmiEvent("unmap", at=AT, pid=PID, start=PAGE, pages=SIZE, gpu=GPU, trigger=0),
    ),
    "7.x process": (b"c 1267 my app\n", SmiEvent("process_start", pid=PID, text="my app")),
    "7.x process over": (b"d 1267 \xff\n", SmiEvent("process_end", pid=PID, text="\ufffd")),
    "unknown": (b"1f whatever 17\n", SmiEvent("31")),
}
STREAM = b"".join(line for line, _ in FORMS.values())
EVENTS = [event for _, event in FORMS.values()]


@pytest.mark.parametrize("form", FORMS)
def test_every_form(form: str) -> None:
    line, event = FORMS[form]
    assert smi_event(line[:-1]) == event


def test_every_kind_has_a_form() -> None:
    assert {event.kind for event in EVENTS} == {*KINDS.values(), "31"}


@pytest.mark.parametrize("place", range(len(STREAM) + 1))
def test_split_at_every_byte(place: int) -> None:
    lines = SmiLines()
    assert lines.feed(STREAM[:place]) + lines.feed(STREAM[place:]) == EVENTS
    assert lines.malformed == 0


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_split_anywhere(places: list[int]) -> None:
    lines, found, before = SmiLines(), [], 0
    for place in [*sorted(places), len(STREAM)]:
        found += lines.feed(STREAM[before:place])
        before = place
    assert (found, lines.malformed) == (EVENTS, 0)


@given(st.integers(0, len(STREAM) - 1), st.binary(max_size=3))
def test_a_broken_line_costs_no_other(place: int, noise: bytes) -> None:
    """Each line stands for itself; with what is put there, two or three are concerned."""
    lines = SmiLines()
    found = lines.feed(STREAM[:place] + noise + STREAM[place + 1 :] + b"\n" + FORMS["7.x end"][0])
    assert found[-1] == FORMS["7.x end"][1]
    kept = sum(1 for event in found if event in EVENTS)
    assert kept >= len(EVENTS) - 2


@given(st.binary(max_size=100) | st.text("0123456789abcdef @()->:-R\n", max_size=100).map(str.encode))
def test_any_content(content: bytes) -> None:
    try:
        smi_event(content)
    except Malformed as error:
        assert error.reason in ("format", "empty")
    SmiLines().feed(content)


def test_a_stream_without_lines_is_bounded() -> None:
    lines = SmiLines()
    for _ in range(10):
        assert lines.feed(b"7" * 4000) == []
    assert lines.malformed >= 3
    assert lines.feed(b"\n" + FORMS["fault"][0]) == [FORMS["fault"][1]]
