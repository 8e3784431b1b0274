"""Answers of calls as text: any bytes give numbers within their range or Malformed, and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.words import bits, numbers, optional, table

WORDS = st.none() | st.integers(-(2**63), 2**64 - 2).filter(lambda value: value != 0xFFFFFFFF)


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_numbers_come_back(values: list[int | None]) -> None:
    line = " ".join("-" if value is None else str(value) for value in values).encode()
    assert list(numbers(*[1] * len(values))(line)) == values


def test_scales_give_base_units() -> None:
    assert numbers(0.001, 0.01, 1e6)(b"312500 37 -") == (312.5, 0.37, None)


@pytest.mark.parametrize("nothing", [b"4294967295", b"18446744073709551615"])
def test_what_the_library_calls_not_available_is_no_value(nothing: bytes) -> None:
    assert optional(nothing) is None
    assert bits(1, 2)(nothing) == (None, None)


def test_bits_of_a_mask() -> None:
    assert bits(0x4, 0x40, 0x80)(b"68") == (1.0, 1.0, 0.0)
    assert bits(1)(b"0") == (0.0,)
    with pytest.raises(Malformed):
        bits(1)(b"-1")


@given(st.binary(max_size=200), st.integers(1, 5))
def test_any_bytes(content: bytes, fields: int) -> None:
    for decode in (numbers(*[1.0] * fields), bits(*range(1, fields + 1))):
        try:
            values = decode(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS
        else:
            assert len(values) == fields
            assert all(value is None or math.isfinite(value) for value in values)
    try:
        rows = list(table(content, fields))
    except Malformed as error:
        assert error.reason in Malformed.REASONS
    else:
        assert all(len(row) == fields and all(len(word) <= 128 for word in row) for row in rows)


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=100).filter(
    lambda t: t != "-"
)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=10))
def test_tables_come_back(rows: list[tuple[str, str]]) -> None:
    content = "".join(f"{first}\t{second}\n" for first, second in rows).encode()
    assert list(table(content, 2)) == rows


def test_a_table_needs_its_last_newline_and_all_fields() -> None:
    assert list(table(b"", 2)) == []
    assert list(table(b"1\t-\n", 2)) == [("1", "")]
    for wrong in (b"1\t2", b"1\n", b"1\t2\t3\n"):
        with pytest.raises(Malformed):
            list(table(wrong, 2))
