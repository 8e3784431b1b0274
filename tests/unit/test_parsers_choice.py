"""Words and flags, frequencies, v3d's statistics."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.choice import any_bit, chosen, flag, holding, sentence
from gpudaemon.parsers.frequency import hertz, hertz_or_none, megahertz, megahertz_or_idle
from gpudaemon.parsers.v3d import queues

STATES = ("base", "power_saving")
WORDS = st.lists(st.sampled_from(["pl1", "thermal", "ratl"]), unique=True)

STATS = b"""queue\ttimestamp\tjobs\truntime
bin\t239043069420\t22620\t17438164056
render\t239043069420\t22619\t27284814161
cache_clean\t239043069420\t6127\t237375940
"""
"""From the comment in drivers/gpu/drm/v3d/v3d_sysfs.c."""


def refused(decode: Callable[[bytes], object], *contents: bytes) -> None:
    for content in contents:
        with pytest.raises(Malformed):
            decode(content)


def test_the_word_in_brackets_is_chosen() -> None:
    decode = chosen(STATES)
    assert decode(b"[base]    power_saving\n") == (1.0, 0.0)
    assert decode(b"base    [power_saving]\n") == (0.0, 1.0)
    refused(decode, b"", b"base power_saving\n", b"[base] [power_saving]\n", b"invalid", b"2\n", b"[turbo]\n")


@given(WORDS)
def test_words_that_hold(held: list[str]) -> None:
    decode = holding(("pl1", "ratl", "thermal"), none="none")
    content = (" ".join(held) or "none").encode() + b"\n"
    assert decode(content) == tuple(float(word in held) for word in ("pl1", "ratl", "thermal"))
    refused(decode, b"", b"\n", b"pl1 none\n", b"pl3\n", b"pl1,thermal\n", b"x" * 4097)


def test_a_sentence_in_any_case() -> None:
    decode = sentence(("in reset", "operational"), unknown=("unknown",))
    assert decode(b"In reset\n") == (1.0, 0.0)
    assert decode(b"operational") == (0.0, 1.0)
    assert decode(b"UNKNOWN\n") == (None, None)
    refused(decode, b"", b"In reset after device release\n", b"reset\n")


def test_flags_and_masks() -> None:
    assert flag(b"0\n") == (0.0,)
    assert flag(b"1\n") == (1.0,)
    refused(flag, b"2\n", b"-1\n", b"", b"Y\n")
    assert any_bit(b"0\n") == (0.0,)
    assert any_bit(b"1\n") == any_bit(b"ff\n") == (1.0,)
    refused(any_bit, b"", b"0x1\n", b"G\n", b"-1\n")


@given(st.integers(0, 100_000))
def test_megahertz(value: int) -> None:
    assert megahertz(b"%d\n" % value) == (value * 1e6,)
    assert hertz(b"%d\n" % (value * 10**6)) == (value * 1e6,)


def test_frequencies_no_clock_can_have_are_not_known() -> None:
    assert megahertz(b"627200\n") == (None,)  # rpa_freq of an Arc A380 under xe
    assert megahertz(b"0\n") == (0.0,)
    assert megahertz_or_idle(b"0\n") == hertz_or_none(b"0\n") == (None,)
    assert megahertz_or_idle(b"1300\n") == (1.3e9,)
    refused(megahertz, b"", b"-1\n", b"300 MHz\n")
    refused(hertz, b"", b"-1\n")


def test_v3d_statistics() -> None:
    assert queues(STATS)[0] == ("bin", 22620, 17438164056)
    assert [name for name, _, _ in queues(STATS)] == ["bin", "render", "cache_clean"]
    twice = STATS + b"bin\t1\t1\t1\n"
    refused(
        queues, b"", b"queue\n", STATS + b"x\t1\t2\n", STATS + b"x\t1\t-2\t3\n", twice, STATS + b"\t1\t1\t1\n"
    )


@given(st.binary(max_size=200) | st.integers(0, len(STATS)).map(lambda cut: STATS[:cut]))
def test_any_content_is_read_or_malformed(content: bytes) -> None:
    decoders = (chosen(STATES), holding(STATES, "none"), sentence(STATES), flag, any_bit, megahertz, queues)
    for decode in decoders:
        try:
            decode(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS
