"""Formats, pages of the ring buffer and histograms of tracefs: what two kernels wrote, and anything at all."""

import contextlib
import struct
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.trace_format import Format, PageLayout, event_format, page_layout
from gpudaemon.parsers.trace_hist import histograms, power, signed, trigger
from gpudaemon.parsers.trace_page import Decoder
from gpudaemon.tracing.tracefs import Tracefs
from tests import captures

LAYOUT = PageLayout(0, 8, 8, 16, 4080)
FORMAT = b"""name: job
ID: 1656
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:u64 submit;\toffset:8;\tsize:8;\tsigned:0;
\tfield:s32 err;\toffset:16;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] ring;\toffset:20;\tsize:4;\tsigned:1;
\tfield:__rel_loc char[] dev;\toffset:24;\tsize:4;\tsigned:1;
\tfield:char comm[16];\toffset:28;\tsize:16;\tsigned:0;
\tfield:u8 data[0x03];\toffset:44;\tsize:3;\tsigned:0;

print fmt: "submit=%Lu", REC->submit
"""
FIELDS = ("submit", "err", "ring", "dev", "comm", "data", "gone", "common_pid")
_EVENTS = {
    "7.3.4": ("drm_sched_job_queue", "drm_sched_job_run", "drm_sched_job_done"),
    "6.12.95": ("drm_sched_job", "drm_run_job", "drm_sched_process_job"),
}
Order = Literal["little", "big"]


def record(order: Order, kind: int, delta: int, *words: int, data: bytes = b"") -> bytes:
    """One record of a page."""
    head = kind | delta << 5 if order == "little" else kind << 27 | delta
    mark = "<" if order == "little" else ">"
    return struct.pack(f"{mark}{1 + len(words)}I", head, *words) + data


def page(order: Order, stamp: int, *records: bytes, commit: int = 0, tail: bytes = b"") -> bytes:
    """A page of 4096 bytes. commit: flags."""
    body = b"".join(records)
    mark = "<" if order == "little" else ">"
    return (struct.pack(f"{mark}QQ", stamp, len(body) | commit) + body + tail).ljust(4096, b"\0")


def job(order: Order, pid: int, submit: int, err: int, *names: bytes) -> bytes:
    """The data of one event of FORMAT. names: of ring and device."""
    ring, dev = names
    mark = "<" if order == "little" else ">"
    ring, dev = ring + b"\0", dev + b"\0"
    fixed = 48
    fields = struct.pack(
        f"{mark}HBBiQiII16s3sx",
        *(1656, 0, 0, pid, submit, err),
        len(ring) << 16 | fixed,
        len(dev) << 16 | (fixed + len(ring) - 28),
        *(b"a comm\0rest", b"\1\2\3"),
    )
    return (fields + ring + dev).ljust(-(-(fixed + len(ring) + len(dev)) // 4) * 4, b"\0")


def decoder(order: Order = "little", form: Format | None = None) -> Decoder:
    return Decoder(LAYOUT, {"job": (form or event_format(FORMAT), FIELDS)}, order=order)


@pytest.mark.parametrize("order", ["little", "big"])
def test_records_of_every_kind(order: Order) -> None:
    data = job(order, -5, 1 << 63, -62, b"gfx", b"0000:03:00.0")
    words = len(data) // 4
    found = decoder(order).decode(
        page(
            order,
            (3 << 59) + 1000,
            record(order, words, 7, data=data),
            record(order, 30, 5, 1),  # 2^27 + 5 later
            record(order, 0, 0, len(data) + 4, data=data),
            record(order, 29, 3, 12, data=b"given up"),  # whose length does not count its own word
            record(order, words, 1, data=data),
            record(order, 31, 9, 64),  # absolute; the upper bits are the page's
            record(order, words, 0, data=data),
            record(order, 29, 0),
        )
    )
    base = (3 << 59) + 1007
    later = base + (1 << 27) + 5
    absolute = (3 << 59) + (64 << 27) + 9
    assert [time for time, _, _ in found.events] == [base, later, later + 4, absolute]
    value = (1 << 63, -62, "gfx", "0000:03:00.0", "a comm", b"\1\2\3", None, -5)
    assert {values for _, _, values in found.events} == {value}
    assert (found.others, found.missed, found.malformed) == (0, 0, 0)


def test_losses_are_told() -> None:
    data = job("little", 1, 2, 0, b"r", b"d")
    one = record("little", len(data) // 4, 0, data=data)
    flags = 1 << 31
    assert decoder().decode(page("little", 1, one, commit=flags)).missed is None
    stored = page("little", 1, one, commit=flags | 1 << 30, tail=struct.pack("<Q", 4711))
    assert decoder().decode(stored).missed == 4711


def test_what_lies_beyond_its_event_is_left_out() -> None:
    data = bytearray(job("little", 1, 2, 0, b"ring", b"dev"))
    struct.pack_into("<I", data, 20, 500 << 16 | 48)
    found = decoder().decode(page("little", 1, record("little", len(data) // 4, 0, data=bytes(data))))
    assert (found.events, found.malformed) == ([], 1)


@given(st.binary(max_size=4096))
def test_any_page(content: bytes) -> None:
    try:
        found = decoder().decode(content)
    except Malformed:
        return
    assert len(found.events) + found.others + found.malformed <= len(content) / 4


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 31), st.integers(0, 1 << 27), st.binary(max_size=64)), max_size=30))
def test_any_records(parts: list[tuple[int, int, bytes]]) -> None:
    """Pages that begin as pages do, with the id of a known event where one may be."""
    records = [
        record("little", kind, delta % (1 << 27), data=struct.pack("<H", 1656) + data)
        for kind, delta, data in parts
    ]
    content = page("little", 5, *records)[:4096]
    try:
        found = decoder().decode(content)
    except Malformed:
        return
    assert all(len(values) == len(FIELDS) for _, _, values in found.events)


@given(st.binary(max_size=2000) | st.text(max_size=500).map(str.encode))
def test_any_content(content: bytes) -> None:
    for parse in (event_format, page_layout, histograms):
        with contextlib.suppress(Malformed):
            parse(content)


@given(st.data())
def test_any_change_of_a_format(data: st.DataObject) -> None:
    """A format with bytes changed is refused or makes a decoder that takes any page."""
    content = bytearray(FORMAT)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        form = event_format(bytes(content))
        known = decoder(form=form)
    except Malformed:
        return
    body = job("little", 1, 2, 0, b"r", b"d")
    known.decode(page("little", 1, record("little", len(body) // 4, 0, data=body)))


def test_a_format() -> None:
    form = event_format(FORMAT)
    assert (form.name, form.id, form.size) == ("job", 1656, 47)
    assert [one.name for one in form.fields.values() if one.text] == ["ring", "dev", "comm"]
    assert form.fields["err"].signed and not form.fields["submit"].signed


HIST = b"""# event histogram
#
# trigger info: hist:keys=ring,client,run.log2:vals=hitcount,run,wait:sort=ring,run:size=2048 [active]
#

{ ring: gfx                                               , client:          2, run: ~ 2^11 } hitcount: 2  \
run:       3045  wait:   58196166

Totals:
    Hits: 200
    Entries: 17
    Dropped: 3
# event histogram
#
# trigger info: hist:keys=common_pid.execname,flags:vals=hitcount:size=2048:onchange($x).trace(a,$x) [active]
#

{ common_pid: a } b, c: d     [       139], flags: 18446744073709551554 } hitcount:          4
\tchanged:     434926

Totals:
    Hits: 4
    Entries: 1
    Dropped: 0
"""


def test_a_histogram() -> None:
    first, second = histograms(HIST)
    assert (first.hits, first.entries, first.dropped) == (200, 17, 3)
    (row,) = first.rows
    assert dict(row.keys) == {"ring": "gfx", "client": "2", "run": "~ 2^11"}
    assert dict(row.values) == {"hitcount": 2, "run": 3045, "wait": 58196166}
    assert power(row.keys["run"]) == 11
    assert first.trigger.startswith("hist:keys=ring,client,run.log2:")
    (row,) = second.rows
    assert row.keys["flags"] == "18446744073709551554" and signed(row.keys["flags"]) == -62
    assert row.values["hitcount"] == 4


@pytest.mark.parametrize(
    "printed,written",
    [
        # As 7.3.4 prints them.
        (
            "hist:keys=common_cpucommon_cpu:vals=hitcount:t=common_timestamp:sort=hitcount:size=4096:clock=global"
            ":onchange($t).trace(gpudaemon_job,$t) if err==0 && submit!=0 [active]",
            "hist:keys=common_cpu:vals=hitcount:t=common_timestamp:sort=hitcount:size=4096:clock=global"
            ":onchange($t).trace(gpudaemon_job,$t) if err==0 && submit!=0",
        ),
        (
            "hist:keys=op.buckets=16384:vals=hitcount:took=common_timestamp-$began:size=64 [paused]",
            "hist:keys=op.buckets=16384:vals=hitcount:took=common_timestamp-$began:size=64",
        ),
    ],
)
def test_triggers_as_they_were_written(printed: str, written: str, tmp_path: Path) -> None:
    """So they are known by their keys, and can be removed: the kernel takes nothing else for the same."""
    totals = "Totals:\n    Hits: 0\n    Entries: 0\n    Dropped: 0\n"
    (one,) = histograms(f"# event histogram\n#\n# trigger info: {printed}\n#\n\n{totals}".encode())
    assert one.trigger == written == trigger(printed)
    tracefs = Tracefs(str(tmp_path))
    file = Path(tracefs.instance, "events/gpudaemon/job/trigger")
    file.parent.mkdir(parents=True)
    file.write_text(f"{printed}\n")
    tracefs.remove_triggers("gpudaemon/job")
    assert file.read_text() == f"{printed}\n!{written}\n"


@pytest.mark.parametrize("error", [0, -1, -16, -(2**31), 2**31 - 1])
def test_signed_keys(error: int) -> None:
    """A field of 32 bits, widened to 64 with its sign (hist_field_s32) or printed as it is."""
    assert signed(str(error & (2**64 - 1)), 32) == error
    assert signed(str(error & (2**32 - 1)), 32) == error
    assert signed(str(error & (2**64 - 1))) == error


@pytest.mark.parametrize("kernel", captures.names("vm", "test-gpu"))
def test_pages_of_real_kernels(kernel: str) -> None:
    """Every record of the raw pages is understood, and there are as many as `stats` says."""
    folder = Path(captures.capture("vm", "test-gpu", kernel, "raw-binary"))
    layout = page_layout((folder / "header_page").read_bytes())
    wanted: dict[str, Any] = {}
    for name in _EVENTS[kernel]:
        form = event_format((folder / f"{name}.format").read_bytes())
        wanted[name] = (form, [field for field in form.fields if not field.startswith("common")])
    decode = Decoder(layout, wanted, order="little").decode
    entries = 0
    counted: Counter[str] = Counter()
    for cpu in (0, 1):
        lines = (folder / f"stats{cpu}").read_text().splitlines()
        entries += int(lines[0].split()[1])
        content = (folder / f"cpu{cpu}.bin").read_bytes()
        before = 0
        for at in range(0, len(content), layout.size):
            found = decode(content[at : at + layout.size])
            assert (found.others, found.missed, found.malformed) == (0, 0, 0)
            for time, name, _ in found.events:
                assert time >= before
                before = time
                counted[name] += 1
    assert counted == dict.fromkeys(_EVENTS[kernel], 12000)
    assert entries == 36000


@pytest.mark.parametrize("kernel", captures.names("vm", "test-gpu"))
def test_histograms_of_real_kernels(kernel: str) -> None:
    folder = Path(captures.capture("vm", "test-gpu", kernel))
    found = histograms((folder / "t10-combined.txt").read_bytes())
    assert [(one.hits, one.entries == len(one.rows)) for one in found] == [
        (200, True),
        (200, True),
        (202, True),
    ]
    assert sum(row.values["hitcount"] for row in found[0].rows) == 200
    assert {signed(row.keys["err"]) for row in found[2].rows} == {0, -62 if kernel == "7.3.4" else -125}
