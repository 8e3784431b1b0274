"""What CXL devices report: the words and fields of both kernels, counts, what is trouble, any content."""

import re
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors import cxl
from gpudaemon.collectors.cxl import events
from gpudaemon.model.tracing import Context, Event
from gpudaemon.parsers.trace_format import event_format
from tests import captures

KERNELS = ("6.12.95+deb12", "7.3.4+deb13")
FIRST = "0000:21:00.0"
NOWHERE = (1 << 64) - 1


def reports() -> events.Reports:
    context = Context(owner=lambda _: "", comm=lambda _: "", unix=lambda at: at / 1e9 + 1000, settings={})
    made = events.Reports(context)
    made.armed(events.RECIPE)
    return made


def figures(one: events.Reports, now: int = 0) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for metric, labels, value in one.rows(now):
        assert len(labels) == len(metric.labels)
        assert isinstance(value, float)
        key = (metric.name.removeprefix("gpudaemon_cxl_"), *labels)
        assert key not in found
        found[key] = value
    return found


def media(  # a general media event's fields in the order of its tap
    kind: int = 0, log: int = 2, descriptor: int = 0, hpa: int | None = NOWHERE, region: str = ""
) -> Event:
    return 5 * 10**9, "cxl/cxl_general_media", (FIRST, "mem1", log, kind, 1, descriptor, 0x1000, hpa, region)


def formats(kernel: str) -> dict[str, bytes]:
    path = captures.capture("vm", "lane", f"trace-formats-{kernel}-amd64.tar.gz")
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            match = re.fullmatch(r".*/events/cxl/(\w+)/format", member.name)
            stream = archive.extractfile(member) if match else None
            if match and stream:
                found[match[1]] = stream.read()
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_event_of_a_kernel_is_taken_with_its_fields(kernel: str) -> None:
    here = formats(kernel)
    taps = {tap.event.removeprefix("cxl/"): tap for tap in events.RECIPE.taps}
    assert here and here.keys() <= taps.keys()
    for name, content in here.items():
        known = event_format(content).fields
        missing = [field for field in taps[name].fields if not field.endswith("?") and field not in known]
        assert not missing, name
        # What may be missing is in both, so that nobody has mistyped it.
        assert all(field.removesuffix("?") in known for field in taps[name].fields), name


def _words(text: str, field: str) -> dict[int, str]:
    """What the print format says of a field: number or bit -> word, as a label."""
    part = re.split(r"\}\s*\)", text.partition(f"REC->{field},")[2])[0] + "}"
    found = {}
    for number, bit, word in re.findall(r'\{ (?:(0x\w+|\d+)|\(+1UL\)+ << \((\d+)\)\)), "([^"]*)" \}', part):
        found[int(number or bit, 0)] = word.lower().replace(" ", "_")
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("event", "field", "table"),
    [
        ("cxl_general_media", "type", events.TYPES["general_media"]),
        ("cxl_dram", "type", events.TYPES["dram"]),
        ("cxl_memory_module", "event_type", events.TYPES["memory_module"]),
        ("cxl_poison", "source", events.TYPES["poison"]),
        ("cxl_aer_correctable_error", "status", events.TYPES["corrected"]),
        ("cxl_aer_uncorrectable_error", "status", events.TYPES["uncorrected"]),
        ("cxl_dram", "transaction_type", events.TRANSACTIONS),
        ("cxl_general_media", "transaction_type", events.TRANSACTIONS),
    ],
)
def test_words_are_the_kernels(kernel: str, event: str, field: str, table: tuple[str, ...]) -> None:
    text = formats(kernel)[event].decode()
    known = _words(text[text.index("print fmt") :], field)
    assert len(known) >= 3
    assert {number: table[number] for number in known} == known


def test_counts_by_what_happened() -> None:
    one = reports()
    one.take([media(), media(), media(kind=1), media(log=0)])
    one.take([(7 * 10**9, "cxl/cxl_memory_module", ("0000:26:00.0", "mem3", 1, 3))])
    found = figures(one)
    labels = ("events_total", FIRST, "mem1", "general_media")
    assert found[(*labels, "failure", "ecc_error", "host_read")] == 2
    assert found[(*labels, "failure", "invalid_address", "host_read")] == 1
    assert found[(*labels, "informational", "ecc_error", "host_read")] == 1
    name = ("events_total", "0000:26:00.0", "mem3", "memory_module", "warning", "temperature_change", "")
    assert found[name] == 1
    assert found["event_last_seen_timestamp_seconds", FIRST, "mem1", "general_media", "failure"] == 1005
    assert found["events_lower_bound",] == 0


def test_errors_of_the_link_are_counted_by_bit() -> None:
    one = reports()
    status = 1 << 1 | 1 << 6
    one.take([(1, "cxl/cxl_aer_correctable_error", (FIRST, "mem1", status))])
    one.take([(2, "cxl/cxl_port_aer_uncorrectable_error", ("0000:20:00.0", 1 << 16 | 1 << 12))])
    found = figures(one)
    assert found["events_total", FIRST, "mem1", "aer", "corrected", "", ""] == 1
    errors = {key[1:]: value for key, value in found.items() if key[0] == "protocol_errors_total"}
    assert errors == {
        (FIRST, "mem1", "corrected", "memory_data_ecc_error"): 1,
        (FIRST, "mem1", "corrected", "received_error_from_physical_layer"): 1,
        ("0000:20:00.0", "", "uncorrected", "ide_rx_error"): 1,
        ("0000:20:00.0", "", "uncorrected", "12"): 1,
    }
    assert [(note.device, note.severity) for note in one.notes()] == [
        (FIRST, "corrected"),
        ("0000:20:00.0", "uncorrected"),
    ]


def test_what_the_device_had_no_room_for_is_told() -> None:
    one = reports()
    one.take([(1, "cxl/cxl_overflow", (FIRST, "mem1", 3, 17)), (2, "cxl/cxl_overflow", (FIRST, "mem1", 3, 4))])
    found = figures(one)
    assert found["events_overflowed_total", FIRST, "mem1", "fatal"] == 21
    assert found["events_total", FIRST, "mem1", "overflow", "fatal", "", ""] == 2
    assert not list(one.notes())


@pytest.mark.parametrize(
    ("log", "descriptor", "severity"),
    [
        *((0, 0, ""), (0, 1, "uncorrected"), (1, 0, "corrected"), (1, 1, "uncorrected")),
        *((2, 0, "uncorrected"), (3, 0, "fatal"), (3, 1, "fatal"), (9, 0, "")),
    ],
)
def test_what_is_trouble(log: int, descriptor: int, severity: str) -> None:
    one = reports()
    one.take([media(log=log, descriptor=descriptor)])
    assert [note.severity for note in one.notes()] == ([severity] if severity else [])


def test_a_burst_is_one_note_with_the_place_of_the_last() -> None:
    one = reports()
    one.take([media() for _ in range(99)] + [media(hpa=0x690001000, region="region0")])
    (note,) = one.notes()
    assert (note.device, note.kind, note.severity, note.count) == (FIRST, "cxl", "uncorrected", 100)
    assert note.text == (
        "mem1: general media, failure: ecc error host read"
        " at 0x1000 of the device, 0x690001000 of the host in region0"
    )
    assert not list(one.notes())


def test_poison_that_is_cleared_is_no_trouble() -> None:
    one = reports()
    one.take([(1, "cxl/cxl_poison", (FIRST, "mem1", 2, 0, 0x2000, None, None))])
    (note,) = one.notes()
    assert note.text == "mem1: poison, list: internal at 0x2000 of the device"
    one.take([(1, "cxl/cxl_poison", (FIRST, "mem1", 3, 2, 0x2000, NOWHERE, ""))])
    assert not list(one.notes())
    found = figures(one)
    assert found["events_total", FIRST, "mem1", "poison", "", "internal", "list"] == 1
    assert found["events_total", FIRST, "mem1", "poison", "", "injected", "clear"] == 1


def test_a_loss_makes_a_lower_bound_and_nothing_is_said_before_anything_is_watched() -> None:
    one = reports()
    one.lost(0)
    assert figures(one)["events_lower_bound",] == 1
    context = Context(owner=lambda _: "", comm=lambda _: "", unix=float, settings={})
    assert not list(events.Reports(context).rows(1))


_NUMBER = st.integers(0, (1 << 64) - 1)
_TEXT = st.text(max_size=20)


def _values(field: str) -> st.SearchStrategy[Any]:
    name = field.removesuffix("?")
    kind = _TEXT if name in ("host", "memdev", "device", "region", "region_name") else _NUMBER
    return kind | st.none() if field.endswith("?") else kind


_ANY = st.one_of(
    [st.tuples(_NUMBER, st.just(tap.event), st.tuples(*map(_values, tap.fields))) for tap in events.RECIPE.taps]
)


@given(st.lists(_ANY, max_size=50))
def test_any_event(many: list[Event]) -> None:
    one = reports()
    one.take(many)
    found = figures(one)
    assert sum(value for key, value in found.items() if key[0] == "events_total") == len(many)
    severities = ("corrected", "uncorrected", "fatal")
    assert all(note.kind == "cxl" and note.severity in severities for note in one.notes())


def test_many_kinds_are_bounded() -> None:
    one = reports()
    for number in range(6000):
        one.take([(1, "cxl/cxl_generic_event", (FIRST, f"mem{number}", 0))])
    found = figures(one)
    assert sum(key[0] == "events_total" for key in found) == 4096
    assert found["events_lower_bound",] == 1


def test_it_is_a_subject_of_the_collector() -> None:
    assert cxl.STREAM is events.STREAM
    emitted = {metric.name for metric in cxl.COLLECTOR.emits}
    one = reports()
    one.take([media(), (1, "cxl/cxl_overflow", (FIRST, "mem1", 3, 17))])
    assert {metric.name for metric, _, _ in one.rows(0)} <= emitted
