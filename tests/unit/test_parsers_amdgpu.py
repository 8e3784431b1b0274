"""amdgpu's level lists and RAS files, in the shapes real cards print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.dpm import clock_levels, pcie_levels
from gpudaemon.parsers.ras import bad_pages, error_counts


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=16), st.data())
def test_clock_lists_come_back(clocks: list[int], data: st.DataObject) -> None:
    active = data.draw(st.integers(0, len(clocks) - 1))
    lines = [f"{level}: {clock}Mhz {'*' if level == active else ''}\n" for level, clock in enumerate(clocks)]
    assert clock_levels("".join(lines).encode()) == (clocks[active] * 1e6, max(clocks) * 1e6)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"0: 500Mhz \n1: 31Mhz *\n2: 2219Mhz \n", (31e6, 2219e6)),
        (b"0: 300Mhz \n1: 1900Mhz \n", (None, 1900e6)),
        (b"0: 0Mhz *\n1: 0Mhz *\n", (0.0, 0.0)),
        (b"0: 800Mhz *\n1: 900Mhz *\n", (None, 900e6)),
        (b"S: 19Mhz *\n0: 500Mhz \n1: 2070Mhz \n", (19e6, 2070e6)),
        (b"S: 19Mhz *\n", (19e6, None)),
        (b"\n", (None, None)),
        (b"", (None, None)),
    ],
)
def test_clock_lists_as_printed(content: bytes, wanted: tuple[float | None, float | None]) -> None:
    assert clock_levels(content) == wanted


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"0: 2.5GT/s, x8 81Mhz \n1: 16.0GT/s, x16 619Mhz *\n", (16e9, 16.0)),
        (b"0: 2.5GT/s, x8 \n1: 8.0GT/s, x16 *\n", (8e9, 16.0)),
        (b"0: 2.5GT/s, x1 78Mhz \n1: 5.0GT/s, x4 156Mhz \n", (None, None)),
        (b"1: 8.0GT/s, x8 619Mhz *\n2: 16.0GT/s, x8 619Mhz *\n", (None, None)),
        (b"\n", (None, None)),
    ],
)
def test_pcie_lists_as_printed(content: bytes, wanted: tuple[float | None, float | None]) -> None:
    assert pcie_levels(content) == wanted


@given(*[st.integers(0, 2**53)] * 3)  # beyond it a sample, a double, is no longer exact
def test_error_counts_come_back(corrected: int, uncorrected: int, deferred: int) -> None:
    content = f"ue: {uncorrected}\nce: {corrected}\n"
    assert error_counts(content.encode()) == (corrected, uncorrected, None)
    content += f"de: {deferred}\n"
    assert error_counts(content.encode()) == (corrected, uncorrected, deferred)


def test_the_sentence_is_not_known() -> None:
    assert error_counts(b"Query currently inaccessible\n") == (None, None, None)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"ue: 0\n", b"ue: 0\nce: x\n", b"ue: -1\nce: 0\n", b"ue: 1\nue: 2\nce: 0\n"]
)
def test_other_sentences_are_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        error_counts(content)


def test_bad_pages_are_counted_by_flag() -> None:
    content = b"0x00000001 : 0x00001000 : R\n0x0000000a : 0x00001000 : P\n0x0000000b : 0x00001000 : R\n"
    assert bad_pages(content) == (2.0, 1.0, 0.0)
    assert bad_pages(b"") == (0.0, 0.0, 0.0)
    with pytest.raises(Malformed, match="format"):
        bad_pages(b"0x00000001 : 0x00001000 : X\n")


@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    for decode in (clock_levels, pcie_levels, error_counts, bad_pages):
        try:
            decode(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS


def test_endless_lists_are_oversized() -> None:
    for decode, line in ((clock_levels, b"1: 1Mhz\n"), (pcie_levels, b"1: 8.0GT/s, x16\n")):
        with pytest.raises(Malformed, match="oversized"):
            decode(line * 65)
