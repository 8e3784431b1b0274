"""What sysfs says of perf counters: the kernel's own descriptions, any bytes, and values that do not fit."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers import pmu

XE = {
    "gt": b"config:60-63\n",
    "function": b"config:44-59\n",
    "engine_class": b"config:20-27\n",
    "engine_instance": b"config:12-19\n",
    "event": b"config:0-11\n",
}
"""drivers/gpu/drm/xe/xe_pmu.c, XE_PMU_FORMAT."""


def test_fields_of_xe_make_the_configuration_of_its_header() -> None:
    fields = {name: pmu.field(content) for name, content in XE.items()}
    values = {"event": 2, "engine_class": 3, "engine_instance": 1, "gt": 1}
    expected = 1 << 60 | 3 << 20 | 1 << 12 | 2
    assert pmu.configuration(values, fields) == (expected, 0, 0)


def test_an_event_of_i915_is_its_configuration() -> None:
    fields = {"i915_eventid": pmu.field(b"config:0-20\n")}
    values = pmu.terms(b"config=0x1000\n")
    assert values == {"config": 0x1000}
    assert pmu.configuration({"config": 0x1000}, fields) == (0x1000, 0, 0)


def test_bits_may_lie_apart_and_in_other_registers() -> None:
    fields = {"split": pmu.field(b"config1:0-3,32-35"), "hdm": pmu.field(b"config2:0-15")}
    assert pmu.configuration({"split": 0xAB, "hdm": 7}, fields) == (0, 0xA << 32 | 0xB, 7)


@pytest.mark.parametrize("values", [{"event": 1 << 12}, {"gt": 16}, {"unknown": 1}, {"config": 1 << 64}])
def test_what_does_not_fit_is_malformed(values: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        pmu.configuration(values, {name: pmu.field(content) for name, content in XE.items()})


def test_terms() -> None:
    assert pmu.terms(b"event=0x02,gt=?,edge\n") == {"event": 2, "gt": None, "edge": 1}
    for wrong in (b"", b"event=", b"event=x", b"=1", b"a,,b", b"a=1 b=2"):
        with pytest.raises(Malformed):
            pmu.terms(wrong)


@pytest.mark.parametrize(("mask", "first"), [(b"0\n", 0), (b"3-7\n", 3), (b"12,14\n", 12)])
def test_first_processor(mask: bytes, first: int) -> None:
    assert pmu.first_processor(mask) == first


def test_counts_are_64_bits_in_native_order() -> None:
    assert pmu.count(10**9)(struct.pack("=Q", 2_500_000_000)) == (2.5,)
    for wrong in (b"", b"1234567", bytes(24)):
        with pytest.raises(Malformed):
            pmu.count()(wrong)


@given(st.binary(max_size=80) | st.from_regex(rb"config[12]?:[0-9,-]{0,12}\n?", fullmatch=True))
def test_any_bytes(content: bytes) -> None:
    for parse in (pmu.field, pmu.terms, pmu.first_processor, pmu.kind, pmu.count()):
        try:
            parse(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS


@given(st.dictionaries(st.sampled_from(sorted(XE)), st.integers(0, 2**64), max_size=5))
def test_any_values_fit_or_are_malformed(values: dict[str, int]) -> None:
    try:
        found = pmu.configuration(values, {name: pmu.field(content) for name, content in XE.items()})
    except Malformed:
        return
    assert all(0 <= register < 1 << 64 for register in found)


def test_what_this_kernel_says_is_understood() -> None:
    """Whatever PMUs there are: every field, every event without a term to choose, has a place."""
    root = "/sys/bus/event_source/devices"
    if not os.path.isdir(root):
        pytest.skip("no event sources")
    seen = 0
    for name in os.listdir(root):
        read = {}
        for part in ("format", "events"):
            directory = f"{root}/{name}/{part}"
            for file in os.listdir(directory) if os.path.isdir(directory) else ():
                if not file.endswith((".unit", ".scale", ".per-pkg", ".snapshot")):
                    with open(f"{directory}/{file}", "rb") as stream:
                        read[part, file] = stream.read()
        fields = {file: pmu.field(content) for (part, file), content in read.items() if part == "format"}
        for (part, _), content in read.items():
            if part == "events":
                terms = {term: value for term, value in pmu.terms(content).items() if value is not None}
                pmu.configuration(terms, fields)
                seen += 1
    assert seen or not os.path.isdir(f"{root}/msr/events")
