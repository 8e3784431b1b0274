"""Integers, words and text: strict about content, silent about nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.integer import hexadecimal, integer, percentage, quotient, quotient_or_unknown, words
from gpudaemon.parsers.power_state import RUNTIME_STATUSES, runtime_status
from gpudaemon.parsers.text import LONGEST, text, text_or_empty

I64 = st.integers(min_value=-(2**63), max_value=2**64 - 1).filter(
    lambda value: value not in (2**32 - 1, 2**64 - 1)
)


@given(I64, st.booleans())
def test_what_the_kernel_prints_comes_back(value: int, newline: bool) -> None:
    content = b"%d" % value + (b"\n" if newline else b"")
    assert integer(content) == value
    assert quotient()(content) == (float(value),)


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_hexadecimal_comes_back(value: int) -> None:
    assert hexadecimal(b"0x%x\n" % value) == value
    assert hexadecimal(b"0x%04X\n" % value) == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"1_0\n", "not_a_number"),
        (b"+1\n", "not_a_number"),
        (b" 1\n", "not_a_number"),
        (b"1 \n", "not_a_number"),
        (b"1\n\n", "not_a_number"),
        (b"1\0", "not_a_number"),
        (b"1 2\n", "not_a_number"),
        (b"--1\n", "not_a_number"),
        (b"-\n", "not_a_number"),
        (b"0x10\n", "not_a_number"),
        (b"1.5\n", "not_a_number"),
        (b"nan\n", "not_a_number"),
        ("\u0661\u0662\n".encode(), "not_a_number"),
        (b"\xb2\n", "not_a_number"),
        (b"9" * 21 + b"\n", "out_of_range"),
        (b"9" * 4096, "out_of_range"),
    ],
)
def test_what_int_would_accept_or_choke_on_is_malformed(content: bytes, reason: str) -> None:
    for decode in (integer, quotient(1000), quotient_or_unknown()):
        with pytest.raises(Malformed) as caught:
            decode(content)
        assert caught.value.reason == reason


@pytest.mark.parametrize("number", [2**32 - 1, 2**64 - 1])
def test_all_ones_is_no_measurement(number: int) -> None:
    for decode in (quotient(1000), quotient_or_unknown(1000)):
        assert decode(b"%d\n" % number) == decode(b"%d" % number) == (None,)
    assert quotient(1000)(b"%d\n" % (number - 1)) == ((number - 1) / 1000,)


@given(
    st.binary(max_size=80).filter(
        lambda content: content.strip() not in (b"4294967295", b"18446744073709551615")
    )
)
def test_any_bytes_give_a_number_or_malformed(content: bytes) -> None:
    results = []
    for decode in (integer, lambda data: quotient()(data)[0], lambda data: quotient_or_unknown()(data)[0]):
        try:
            results.append(decode(content))
        except Malformed:
            results.append(None)
    assert results[0] == results[1] == results[2], "the fast path and the strict one must agree"


@given(st.binary(max_size=40))
def test_any_bytes_in_the_other_scalars(content: bytes) -> None:
    for decode in (hexadecimal, percentage, words(("auto", "low")), runtime_status):
        try:
            decode(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS


def test_division_is_exact_where_multiplication_is_not() -> None:
    assert quotient(1000)(b"814\n") == (0.814,)
    assert 814 * 0.001 != 0.814


def test_unknown_values_are_none_and_not_zero() -> None:
    assert quotient_or_unknown(unknown=(-1,))(b"-1\n") == (None,)
    assert quotient_or_unknown(1_000_000, empty_is_unknown=True)(b"\n") == (None,)
    with pytest.raises(Malformed, match="empty"):
        quotient_or_unknown()(b"\n")


def test_percentage_is_a_ratio_within_its_bounds() -> None:
    assert percentage(b"0\n") == (0.0,)
    assert percentage(b"37\n") == (0.37,)
    assert percentage(b"100\n") == (1.0,)
    assert percentage(b"65535\n") == percentage(b"4294967295\n") == (None,)
    for content in (b"101\n", b"-1\n", b"65534\n"):
        with pytest.raises(Malformed, match="out_of_range"):
            percentage(content)


def test_words_light_one_state() -> None:
    decode = words(("SPX", "CPX"), unknown=("UNKNOWN",))
    assert decode(b"CPX\n") == (0.0, 1.0)
    assert decode(b"UNKNOWN\n") == (None, None)
    with pytest.raises(Malformed, match="format"):
        decode(b"QPX\n")
    with pytest.raises(Malformed, match="empty"):
        decode(b"\n")


def test_runtime_status_knows_every_word() -> None:
    for word in RUNTIME_STATUSES:
        assert runtime_status(f"{word}\n".encode()) == word
    with pytest.raises(Malformed):
        runtime_status(b"Active\n")


@given(st.binary(max_size=5000))
def test_text_is_short_printable_utf8_or_malformed(content: bytes) -> None:
    try:
        line = text(content)
    except Malformed as error:
        assert error.reason == "oversized" and len(content) > 4096
        assert text_or_empty(content) == ""
        return
    assert len(line) <= LONGEST and "\n" not in line and line == line.strip(" \t\r\0")
    assert text_or_empty(content) == line
    line.encode()


def test_text_of_firmware_and_fru_chips() -> None:
    assert text(b"junction\n") == "junction"
    assert text(b"") == text(b"\n") == text_or_empty(None) == ""
    assert text(b"AMD Instinct MI210  \n") == "AMD Instinct MI210"
    assert text(b"Caf\xe9\n") == "Caf\N{REPLACEMENT CHARACTER}"
