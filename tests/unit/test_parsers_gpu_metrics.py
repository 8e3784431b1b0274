"""amdgpu's binary table: throttling of the revisions that name it the same way, nothing of the others."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.gpu_metrics import THROTTLE_REASONS, has_throttle_status, throttle_reasons
from tests import captures

SIZES = {(1, 3): (120, 112), (2, 2): (128, 120), (2, 3): (152, 120), (2, 4): (168, 120)}
OTHERS = {(1, 0): 80, (1, 1): 96, (1, 2): 104, (1, 4): 288, (1, 6): 1664, (2, 1): 120, (3, 0): 264}

# SMU_THROTTLER_*_BIT of drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h
BITS = {
    "power": {"PPT0": 0, "PPT3": 3, "SPL": 4, "FPPT": 5, "SPPT": 6, "SPPT_APU": 7},
    "current": {"TDC_GFX": 16, "TDC_SOC": 17, "TDC_MEM": 18, "EDC_CPU": 21, "EDC_GFX": 22, "APCC": 23},
    "thermal": {"TEMP_GPU": 32, "TEMP_HOTSPOT": 36, "TEMP_MEM": 34, "VRHOT1": 45, "PROCHOT_GFX": 47},
    "other": {"PPM": 56, "FIT": 57},
}


def table(revision: tuple[int, int], status: int, *, size: int = 0) -> bytes:
    length, offset = SIZES[revision]
    content = bytearray(b"\xff" * length)
    struct.pack_into("<HBB", content, 0, size or length, *revision)
    struct.pack_into("<Q", content, offset, status)
    return bytes(content)


@pytest.mark.parametrize("revision", SIZES)
def test_every_bit_has_its_reason(revision: tuple[int, int]) -> None:
    assert has_throttle_status(table(revision, 0))
    assert throttle_reasons(table(revision, 0)) == (0.0,) * 4
    for reason, bits in BITS.items():
        for name, bit in bits.items():
            found = dict(zip(THROTTLE_REASONS, throttle_reasons(table(revision, 1 << bit)), strict=True))
            assert found == {one: float(one == reason) for one in THROTTLE_REASONS}, name
    assert throttle_reasons(table(revision, 1 | 1 << 36)) == (1.0, 0.0, 1.0, 0.0)
    assert throttle_reasons(table(revision, (1 << 64) - 1)) == (None,) * 4


@pytest.mark.parametrize("revision", OTHERS)
def test_other_revisions_give_nothing(revision: tuple[int, int]) -> None:
    content = struct.pack("<HBB", OTHERS[revision], *revision).ljust(OTHERS[revision], b"\x01")
    assert not has_throttle_status(content)
    assert throttle_reasons(content) == (None,) * 4


def test_a_table_of_another_size_is_malformed() -> None:
    whole = table((1, 3), 0)
    for content in (b"", b"\x78\x00\x01", whole[:-1], table((1, 3), 0, size=128), table((2, 4), 0)[:120]):
        with pytest.raises(Malformed):
            throttle_reasons(content)
    assert throttle_reasons(whole + bytes(3976)) == (0.0,) * 4  # some tools keep a page of every file


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"\x78\x00\x01\x03" + rest))
def test_any_content_is_decoded_or_malformed(content: bytes) -> None:
    try:
        values = throttle_reasons(content)
    except Malformed:
        return
    assert len(values) == 4
    assert set(values) <= {0.0, 1.0, None}


def test_real_tables() -> None:
    """Cards at rest of the captures: Navi and RDNA4 tables are 1.3 and say that nothing throttles."""
    seen = {}
    for card in captures.names("lact", "amd"):
        source = captures.capture("lact", "amd", card)
        for directory, _, files in os.walk(source):
            if "gpu_metrics" in files:
                with open(os.path.join(directory, "gpu_metrics"), "rb") as file:
                    content = file.read()
                seen[card] = (content[2:4], throttle_reasons(content))
    assert seen["rx7800xt"] == seen["rx9070"] == seen["rx6900xt"] == (b"\x01\x03", (0.0,) * 4)
    assert seen["phoenix"] == (b"\x02\x01", (None,) * 4)
