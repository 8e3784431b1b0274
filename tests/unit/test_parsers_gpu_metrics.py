"""gpu_metrics: every field of every revision where the kernel's structures have it, and no number out of range.

The structures are written here a second time, as C declares them, and laid out by ctypes: the offsets of the
parser are compared with what a compiler makes of the declarations.
"""

import ctypes
import os
import random
import re
import struct
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.gpu_metrics.layouts import TABLES, Layout
from gpudaemon.parsers.gpu_metrics.quantities import pick
from gpudaemon.parsers.gpu_metrics.stream import ATTRIBUTES, CODES
from gpudaemon.parsers.gpu_metrics.table import HEADER, Pick, decoder, layout_of, raw, unpacker
from gpudaemon.parsers.gpu_metrics.throttle import REASONS, throttle_values
from tests import captures

# drivers/gpu/drm/amd/include/kgd_pp_interface.h, member by member; `common_header` comes first in each.
_NAVI = """
u16 temperature_edge temperature_hotspot temperature_mem temperature_vrgfx temperature_vrsoc temperature_vrmem;
u16 average_gfx_activity average_umc_activity average_mm_activity;
"""
_NAVI_CLOCKS = """
u16 average_gfxclk_frequency average_socclk_frequency average_uclk_frequency;
u16 average_vclk0_frequency average_dclk0_frequency average_vclk1_frequency average_dclk1_frequency;
u16 current_gfxclk current_socclk current_uclk current_vclk0 current_dclk0 current_vclk1 current_dclk1;
u32 throttle_status; u16 current_fan_speed;
"""
_V1_1 = f"""{_NAVI} u16 average_socket_power; u64 energy_accumulator; u64 system_clock_counter; {_NAVI_CLOCKS}
u16 pcie_link_width pcie_link_speed padding; u32 gfx_activity_acc mem_activity_acc; u16 temperature_hbm[4];
"""
_MI300 = """
u16 temperature_hotspot temperature_mem temperature_vrsoc curr_socket_power;
u16 average_gfx_activity average_umc_activity;
"""
_LINKS = """
u16 pcie_link_width pcie_link_speed xgmi_link_width xgmi_link_speed; u32 gfx_activity_acc mem_activity_acc;
"""
_PCIE = """
u64 pcie_bandwidth_acc pcie_bandwidth_inst pcie_l0_to_recov_count_acc pcie_replay_count_acc;
u64 pcie_replay_rover_count_acc;
"""
_NAKS = "u32 pcie_nak_sent_count_acc pcie_nak_rcvd_count_acc;"
_XGMI = "u64 xgmi_read_data_acc[8] xgmi_write_data_acc[8];"
_CLOCKS = """
u64 firmware_timestamp; u16 current_gfxclk[8] current_socclk[4] current_vclk0[4] current_dclk0[4] current_uclk;
"""
_RESIDENCIES = """
u64 energy_accumulator system_clock_counter; u32 accumulation_counter prochot_residency_acc ppt_residency_acc;
u32 socket_thm_residency_acc vr_thm_residency_acc hbm_thm_residency_acc gfxclk_lock_status;
"""
_V1_7 = f"""{_MI300} u64 mem_max_bandwidth; {_RESIDENCIES} {_LINKS} {_PCIE} {_NAKS} {_XGMI}
u16 xgmi_link_status[8] padding; {_CLOCKS} u16 num_partition;"""
_APU = """
u16 temperature_gfx temperature_soc temperature_core[8] temperature_l3[2];
u16 average_gfx_activity average_mm_activity;
"""
_APU_POWER = (
    "u16 average_socket_power average_cpu_power average_soc_power average_gfx_power average_core_power[8];"
)
_APU_CLOCKS = """
u16 average_gfxclk_frequency average_socclk_frequency average_uclk_frequency average_fclk_frequency;
u16 average_vclk_frequency average_dclk_frequency current_gfxclk current_socclk current_uclk current_fclk;
u16 current_vclk current_dclk current_coreclk[8] current_l3clk[2]; u32 throttle_status; u16 fan_pwm;
"""
_V2_1 = f"{_APU} u64 system_clock_counter; {_APU_POWER} {_APU_CLOCKS} u16 padding[3];"
_V2_2 = f"{_V2_1} u64 indep_throttle_status;"
_V2_3 = f"""{_V2_2} u16 average_temperature_gfx average_temperature_soc average_temperature_core[8];
u16 average_temperature_l3[2];"""

STRUCTURES: Mapping[tuple[int, int], str] = {
    (
        1,
        0,
    ): f"""u64 system_clock_counter; {_NAVI} u16 average_socket_power; u32 energy_accumulator; {_NAVI_CLOCKS}
        u8 pcie_link_width pcie_link_speed;""",
    (1, 1): _V1_1,
    (1, 2): f"{_V1_1} u64 firmware_timestamp;",
    (1, 3): f"""{_V1_1} u64 firmware_timestamp; u16 voltage_soc voltage_gfx voltage_mem padding1;
        u64 indep_throttle_status;""",
    (1, 4): f"""{_MI300} u16 vcn_activity[4]; u64 energy_accumulator system_clock_counter;
        u32 throttle_status gfxclk_lock_status; {_LINKS} {_PCIE} {_XGMI} {_CLOCKS} u16 padding;""",
    (1, 5): f"""{_MI300} u16 vcn_activity[4] jpeg_activity[32]; u64 energy_accumulator system_clock_counter;
        u32 throttle_status gfxclk_lock_status; {_LINKS} {_PCIE} {_NAKS} {_XGMI} {_CLOCKS} u16 padding;""",
    (1, 6): f"""{_MI300} {_RESIDENCIES} {_LINKS} {_PCIE} {_NAKS} {_XGMI} {_CLOCKS} u16 num_partition;
        xcp0 xcp_stats[8]; u32 pcie_lc_perf_other_end_recovery;""",
    (1, 7): f"{_V1_7} xcp1 xcp_stats[8]; u32 pcie_lc_perf_other_end_recovery;",
    (1, 8): f"{_V1_7} xcp2 xcp_stats[8]; u32 pcie_lc_perf_other_end_recovery;",
    (2, 0): f"u64 system_clock_counter; {_APU} {_APU_POWER} {_APU_CLOCKS} u16 padding;",
    (2, 1): _V2_1,
    (2, 2): _V2_2,
    (2, 3): _V2_3,
    (2, 4): f"""{_V2_3} u16 average_cpu_voltage average_soc_voltage average_gfx_voltage average_cpu_current;
        u16 average_soc_current average_gfx_current;""",
    (3, 0): """u16 temperature_gfx temperature_soc temperature_core[16] temperature_skin average_gfx_activity;
        u16 average_vcn_activity average_ipu_activity[8] average_core_c0_activity[16] average_dram_reads;
        u16 average_dram_writes average_ipu_reads average_ipu_writes; u64 system_clock_counter;
        u32 average_socket_power; u16 average_ipu_power; u32 average_apu_power average_gfx_power;
        u32 average_dgpu_power average_all_core_power; u16 average_core_power[16] average_sys_power;
        u16 stapm_power_limit current_stapm_power_limit average_gfxclk_frequency average_socclk_frequency;
        u16 average_vpeclk_frequency average_ipuclk_frequency average_fclk_frequency average_vclk_frequency;
        u16 average_uclk_frequency average_mpipu_frequency current_coreclk[16] current_core_maxfreq;
        u16 current_gfx_maxfreq; u32 throttle_residency_prochot throttle_residency_spl throttle_residency_fppt;
        u32 throttle_residency_sppt throttle_residency_thm_core throttle_residency_thm_gfx;
        u32 throttle_residency_thm_soc time_filter_alphavalue;""",
}
_PARTITION = {
    "xcp0": "u32 gfx_busy_inst[8]; u16 jpeg_busy[32] vcn_busy[4]; u64 gfx_busy_acc[8];",
    "xcp1": """u32 gfx_busy_inst[8]; u16 jpeg_busy[32] vcn_busy[4];
        u64 gfx_busy_acc[8] gfx_below_host_limit_acc[8];""",
    "xcp2": """u32 gfx_busy_inst[8]; u16 jpeg_busy[40] vcn_busy[4]; u64 gfx_busy_acc[8];
        u64 gfx_below_host_limit_ppt_acc[8] gfx_below_host_limit_thm_acc[8] gfx_low_utilization_acc[8];
        u64 gfx_below_host_limit_total_acc[8];""",
}
_TYPES = {"u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64}


def _structure(name: str, declarations: str, *, header: bool) -> type[ctypes.Structure]:
    """The structure a C compiler makes of `type name[count] name; …` on a 64-bit machine."""
    members: list[tuple[str, type]] = []
    if header:
        parts = [("structure_size", ctypes.c_uint16), ("format", ctypes.c_uint8), ("content", ctypes.c_uint8)]
        members.append(("common_header", type("header", (ctypes.Structure,), {"_fields_": parts})))
    for declaration in declarations.split(";"):
        kind, *names = declaration.split() or [""]
        for found in (re.fullmatch(r"(\w+)(?:\[(\d+)\])?", one) for one in names):
            assert found is not None
            base = _TYPES.get(kind) or _structure(kind, _PARTITION[kind], header=False)
            members.append((found[1], base * int(found[2]) if found[2] else base))
    return type(name, (ctypes.Structure,), {"_fields_": members})


def _elements(instance: ctypes.Structure, prefix: str = "") -> Iterator[tuple[str, int, ctypes.Structure, str]]:
    """(field as the parser names it, index, the structure it is in, its own name) of every element."""
    for name, kind in instance._fields_:
        if name == "common_header" or name.startswith("padding"):
            continue
        value = getattr(instance, name)
        if name == "xcp_stats":
            for partition, inner in enumerate(value):
                yield from _elements(inner, f"xcp{partition}.")
        else:
            for index in range(len(value) if issubclass(kind, ctypes.Array) else 1):
                yield f"{prefix}{name}", index, instance, name


def _put(instance: ctypes.Structure, name: str, index: int, value: int) -> None:
    member = getattr(instance, name)
    if isinstance(member, ctypes.Array):
        member[index] = value
    else:
        setattr(instance, name, value)


def _filled(revision: tuple[int, int], seed: int) -> tuple[bytes, dict[tuple[str, int], int]]:
    """A table of this revision with another number in every element, and those numbers."""
    instance = _structure("gpu_metrics", STRUCTURES[revision], header=True)()
    size = ctypes.sizeof(instance)
    ctypes.memset(ctypes.addressof(instance), 0xFF, size)
    values = {}
    numbers = random.Random(seed)
    for field, index, owner, name in _elements(instance):
        kind = dict(owner._fields_)[name]
        width = ctypes.sizeof(kind._type_ if issubclass(kind, ctypes.Array) else kind)
        values[field, index] = number = numbers.randrange((1 << 8 * width) - 1)
        _put(owner, name, index, number)
    content = bytearray(bytes(instance))
    HEADER.pack_into(content, 0, size, *revision)
    return bytes(content), values


@pytest.mark.parametrize("revision", STRUCTURES)
def test_every_field_of_every_revision_round_trips(revision: tuple[int, int]) -> None:
    content, values = _filled(revision, 1)
    layout = layout_of(content)
    assert layout is not None
    assert {(name, index) for name, one in layout.fields.items() for index in range(one.count)} == set(values)
    assert {element: raw(layout, content, *element) for element in values} == values
    elements = list(values)
    random.Random(2).shuffle(elements)
    assert list(unpacker(layout, elements)(content)) == [values[element] for element in elements]
    print(f"gpu_metrics {revision[0]}.{revision[1]}: {len(content)} bytes, {len(values)} elements")


@pytest.mark.parametrize("revision", [(1, 0), (2, 0)])
def test_tables_of_32_bit_kernels(revision: tuple[int, int]) -> None:
    """There a 64-bit number is aligned to four bytes: what follows the header is four bytes earlier."""
    content, values = _filled(revision, 3)
    size = len(content) - 4
    shifted = HEADER.pack(size, *revision) + content[8:]
    layout = layout_of(shifted)
    assert layout is not None
    assert {element: raw(layout, shifted, *element) for element in values} == values


def test_all_ones_are_no_sample() -> None:
    for (major, minor, size), layout in TABLES.items():
        content = HEADER.pack(size, major, minor).ljust(size, b"\xff")
        for name, one in layout.fields.items():
            assert raw(layout, content, name) is None
            assert raw(layout, content, name, one.count) is None
        picks = _all_picks(layout)
        assert decoder(layout, picks)(content) == [None] * len(picks)


def _all_picks(layout: Layout) -> list[Pick]:
    """Every element whose unit is known."""
    found = (pick(layout, name, index) for name, one in layout.fields.items() for index in range(one.count))
    return [one for one in found if one is not None]


UNITS = {
    ((1, 3), "temperature_edge", 61): 61,
    ((1, 3), "average_socket_power", 355): 355,
    ((1, 3), "average_gfx_activity", 97): 0.97,
    ((1, 3), "average_gfx_activity", 101): None,
    ((1, 3), "current_gfxclk", 2011): 2.011e9,
    ((1, 3), "voltage_gfx", 814): 0.814,
    ((1, 3), "pcie_link_speed", 160): 16e9,
    ((1, 3), "pcie_link_width", 16): 16,
    ((1, 3), "energy_accumulator", 1 << 16): "no unit",
    ((1, 3), "gfx_activity_acc", 100): "no unit",
    ((1, 6), "energy_accumulator", 3 << 16): 3,
    ((1, 6), "curr_socket_power", 750): 750,
    ((1, 6), "xgmi_link_speed", 32): 32e9,
    ((1, 6), "xgmi_read_data_acc", 7): 7168,
    ((1, 6), "gfx_activity_acc", 5000): 50,
    ((1, 6), "ppt_residency_acc", 12): 12,
    ((1, 6), "pcie_bandwidth_inst", 40): "no unit",
    ((1, 6), "xcp3.gfx_busy_inst", 64): 0.64,
    ((1, 8), "xgmi_link_status", 1): 1,
    ((1, 8), "xgmi_link_status", 2): None,
    ((1, 8), "xcp7.gfx_below_host_limit_thm_acc", 9): 9,
    ((2, 1), "temperature_soc", 2793): 27.93,
    ((2, 1), "average_gfx_power", 585): 0.585,
    ((2, 1), "average_socket_power", 27): "no unit",
    ((2, 1), "average_gfx_activity", 4300): "no unit",
    ((2, 2), "average_gfx_power", 585): "no unit",
    ((2, 4), "average_cpu_voltage", 1100): 1.1,
    ((2, 4), "average_gfx_current", 1500): 1.5,
    ((3, 0), "temperature_skin", 4150): 41.5,
    ((3, 0), "average_apu_power", 28123): 28.123,
    ((3, 0), "average_dram_reads", 1200): 1.2e9,
    ((3, 0), "throttle_residency_spl", 77): 77,
}


@pytest.mark.parametrize(("revision", "field", "value"), UNITS)
def test_units(revision: tuple[int, int], field: str, value: int) -> None:
    layout = next(one for one in TABLES.values() if one.revision == revision)
    found = pick(layout, field)
    expected = UNITS[revision, field, value]
    if expected == "no unit":
        assert found is None
        return
    assert found is not None
    content = bytearray(HEADER.pack(layout.size, *revision).ljust(layout.size, b"\xff"))
    struct.pack_into(f"<{layout.fields[field].code}", content, layout.fields[field].offset, value)
    assert decoder(layout, [found])(bytes(content)) == [expected]


def test_a_table_of_another_size_is_malformed() -> None:
    whole, _ = _filled((1, 3), 4)
    long = HEADER.pack(128, 1, 3) + whole[4:] + bytes(8)
    for content in (b"", b"\x78\x00\x01", whole[:-1], long):
        with pytest.raises(Malformed):
            layout_of(content)
    layout = layout_of(whole + bytes(3976))  # some tools keep a page of every file
    assert layout is not None and layout.size == 120
    decode = decoder(layout, [Pick("temperature_edge")])
    other, _ = _filled((2, 1), 5)
    for content in (b"", whole[:119], other):
        with pytest.raises(Malformed):
            decode(content)
    assert layout_of(HEADER.pack(4, 9, 9)) is None


# 1.9


def stream(*records: tuple[int, int, int, list[int]]) -> bytes:
    """(attribute, type, unit, values) -> a 1.9 stream, packed as DECLARE_SMU_METRICS_CLASS packs it."""
    body = struct.pack("<i", len(records))
    for attribute, kind, unit, values in records:
        body += struct.pack("<Q", unit << 24 | kind << 20 | attribute << 10 | len(values))
        body += struct.pack(f"<{len(values)}{CODES[kind]}", *values)
    return HEADER.pack(4 + len(body), 1, 9) + body


def test_a_stream_says_itself_where_its_values_are() -> None:
    content = stream(
        (33, 2, 1, [2100, 0xFFFF, 132]),  # current_gfxclk
        (700, 0, 0, [1, 2, 3]),  # an attribute nobody knows here
        (0, 3, 2, [-5]),  # temperature_hotspot, signed
        (7, 6, 0, [3 << 16]),  # energy_accumulator
        (4, 2, 10, [55]),  # average_gfx_activity
        (0, 2, 2, [99]),  # a second time
    )
    layout = layout_of(content)
    assert layout is not None and set(layout.fields) == {
        *("current_gfxclk", "temperature_hotspot", "energy_accumulator", "average_gfx_activity")
    }
    picks = [pick(layout, "current_gfxclk", index) for index in range(3)]
    picks += [
        pick(layout, name) for name in ("temperature_hotspot", "energy_accumulator", "average_gfx_activity")
    ]
    decode = decoder(layout, [one for one in picks if one is not None])
    assert decode(content) == [2.1e9, None, 132e6, -5, 3, 0.55]
    with pytest.raises(Malformed):  # the same length, and other records
        decode(stream((33, 2, 1, [1] * 3), (700, 0, 0, [1, 2, 3]), (1, 3, 2, [1]), (7, 6, 0, [1]),
                      (4, 2, 10, [55]), (0, 2, 2, [99])))  # fmt: skip


def test_signed_all_ones_are_no_sample() -> None:
    content = stream((0, 3, 2, [-1]), (1, 5, 2, [-1]), (2, 3, 2, [-2]))
    layout = layout_of(content)
    assert layout is not None
    names = ("temperature_hotspot", "temperature_mem", "temperature_vrsoc")
    picks = [one for name in names if (one := pick(layout, name)) is not None]
    assert decoder(layout, picks)(content) == [None, None, -2]


@pytest.mark.parametrize(
    "content",
    [
        HEADER.pack(6, 1, 9) + b"\0\0",
        HEADER.pack(8, 1, 9) + struct.pack("<i", 1),
        HEADER.pack(8, 1, 9) + struct.pack("<i", -1),
        HEADER.pack(8, 1, 9) + struct.pack("<i", 1 << 30),
        HEADER.pack(16, 1, 9) + struct.pack("<iQ", 1, 8 << 20 | 1),
        HEADER.pack(16, 1, 9) + struct.pack("<iQ", 1, 2 << 20),
        HEADER.pack(18, 1, 9) + struct.pack("<iQ2x", 1, 2 << 20 | 1 | 1 << 32),
        HEADER.pack(20, 1, 9) + struct.pack("<iQ4x", 1, 2 << 20 | 1),
        HEADER.pack(17, 1, 9) + struct.pack("<iQ1x", 1, 2 << 20 | 1),
    ],
)
def test_a_broken_stream_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        layout_of(content)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1023), st.integers(0, 7), st.integers(0, 255), st.binary(min_size=1, max_size=64)
        ),
        max_size=40,
    )
)
def test_every_value_of_a_stream_round_trips(records: list[tuple[int, int, int, bytes]]) -> None:
    made = []
    for attribute, kind, unit, noise in records:
        width = struct.calcsize(CODES[kind])
        count = len(noise) // width
        if count:
            made.append(
                (attribute, kind, unit, list(struct.unpack(f"<{count}{CODES[kind]}", noise[: count * width])))
            )
    content = stream(*made)
    layout = layout_of(content)
    assert layout is not None
    first: dict[str, tuple[str, list[int]]] = {}
    for attribute, kind, _, values in made:
        if attribute < len(ATTRIBUTES):
            first.setdefault(ATTRIBUTES[attribute], (CODES[kind], values))
    assert set(layout.fields) == set(first)
    for name, (code, values) in first.items():
        unset = -1 if code.islower() else (1 << 8 * struct.calcsize(code)) - 1
        found = [raw(layout, content, name, index) for index in range(len(values))]
        assert found == [None if value == unset else value for value in values]


# Any content


def in_range(layout: Layout, content: bytes) -> None:
    """Nothing a decoder gives is beyond what its quantity can be."""
    picks = _all_picks(layout)
    for found, value in zip(picks, decoder(layout, picks)(content), strict=True):
        if value is None:
            continue
        name = found.field.partition(".")[2] or found.field
        if "temperature" in name:
            assert -100 <= value <= 250
        elif name.endswith(("_activity", "_busy", "busy_inst")):
            assert 0 <= value <= 1
        elif name.endswith("_power"):
            assert 0 <= value <= 20_000
        elif "clk" in name or name.endswith("_frequency"):
            assert 0 <= value <= 20e9
        elif name == "xgmi_link_status":
            assert value in (0, 1)
        else:
            assert 0 <= value < 2**64 * 1024


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400)
    | st.tuples(st.sampled_from(sorted(TABLES)), st.randoms(use_true_random=False)).map(
        lambda both: HEADER.pack(both[0][2], *both[0][:2]) + both[1].randbytes(both[0][2] - 4)
    )
    | st.binary(max_size=300).map(lambda rest: HEADER.pack(4 + len(rest), 1, 9) + rest)
)
def test_random_bytes_never_raise_and_give_nothing_out_of_range(content: bytes) -> None:
    try:
        layout = layout_of(content)
    except Malformed:
        return
    if layout is not None:
        in_range(layout, content)


# What holds clocks down

# SMU_THROTTLER_*_BIT of drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h
BITS = {
    "power": {"ppt0": 0, "ppt3": 3, "spl": 4, "fppt": 5, "sppt": 6, "sppt_apu": 7},
    "current": {"tdc_gfx": 16, "tdc_soc": 17, "tdc_mem": 18, "edc_cpu": 21, "edc_gfx": 22, "apcc": 23},
    "thermal": {"temp_gpu": 32, "temp_hotspot": 36, "temp_mem": 34, "vrhot1": 45, "prochot_gfx": 47},
    "other": {"ppm": 56, "fit": 57},
}


def test_every_bit_has_its_reason() -> None:
    assert throttle_values(0) == (0.0,) * len(REASONS)
    assert throttle_values((1 << 64) - 1) == (None,) * len(REASONS)
    for cause, bits in BITS.items():
        for name, bit in bits.items():
            found = dict(zip(REASONS, throttle_values(1 << bit), strict=True))
            assert {one for one, value in found.items() if value} == {(cause, name)}
    assert sum(filter(None, throttle_values(1 | 1 << 36))) == 2


# Real tables


def tables() -> Iterator[tuple[str, bytes]]:
    """Every table in the captures."""
    root = captures.capture()
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort()
        if "gpu_metrics" in files:
            with open(os.path.join(directory, "gpu_metrics"), "rb") as file:
                yield os.path.relpath(directory, root), file.read()


def test_real_tables_agree_with_the_text_files_beside_them() -> None:
    """The table and the sensors of the same card were copied within a moment: at rest they say the same."""
    compared = 0
    seen = []
    for card, content in tables():
        layout = layout_of(content)
        assert layout is not None
        in_range(layout, content)
        seen.append((card, layout.revision))
        pairs = _pairs(os.path.join(captures.capture(), card), layout)
        for name, (field, scale) in pairs.items():
            found = pick(layout, field)
            assert found is not None
            with open(os.path.join(captures.capture(), card, name), "rb") as file:
                text = int(file.read().rstrip(b"\0"))
            # the text files of APUs are whole degrees
            ours = decoder(layout, [found])(content)[0]
            assert ours == pytest.approx(text / scale, abs=0.999 if layout.revision[0] > 1 else 0), (card, name)
            compared += 1
        print(f"{card}: {layout.revision[0]}.{layout.revision[1]}, {len(pairs)} files agree")
    assert [revision for _, revision in seen].count((1, 3)) >= 3 and (2, 1) in [
        revision for _, revision in seen
    ]
    assert compared >= 30


def _pairs(card: str, layout: Layout) -> dict[str, tuple[str, float]]:
    """Text file -> field of the table that says the same, divisor of the text; files that are there."""
    chips = os.path.join(card, "hwmon")
    chip = f"hwmon/{os.listdir(chips)[0]}" if os.path.isdir(chips) else "hwmon"
    if layout.revision[0] == 1:
        wanted = {
            f"{chip}/temp1_input": ("temperature_edge", 1e3),
            f"{chip}/temp2_input": ("temperature_hotspot", 1e3),
            f"{chip}/temp3_input": ("temperature_mem", 1e3),
            f"{chip}/power1_average": ("average_socket_power", 1e6),
            f"{chip}/freq1_input": ("current_gfxclk", 1),
            f"{chip}/freq2_input": ("current_uclk", 1),
            f"{chip}/in0_input": ("voltage_gfx", 1e3),
            f"{chip}/fan1_input": ("current_fan_speed", 1),
            "mem_busy_percent": ("average_umc_activity", 100),
        }
    else:
        wanted = {f"{chip}/temp1_input": ("temperature_gfx", 1e3)}
    return {name: value for name, value in wanted.items() if os.path.exists(os.path.join(card, name))}
