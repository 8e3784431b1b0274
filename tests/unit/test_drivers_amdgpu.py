"""The amdgpu plan: what it takes of the names it is given, and how often."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given as example
from hypothesis import settings
from hypothesis import strategies as st

from gpudaemon.drivers import driver_for, drivers
from gpudaemon.drivers.amdgpu import DRIVER
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, table
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.forbidden import FORBIDDEN, is_forbidden
from gpudaemon.parsers.gpu_metrics.layouts import TABLES
from gpudaemon.parsers.gpu_metrics.table import HEADER

NAMES = [
    "gpu_busy_percent",
    "mem_busy_percent",
    "vcn_busy_percent",
    "mem_info_vram_total",
    "mem_info_vram_used",
    "mem_info_gtt_used",
    "mem_info_preempt_used",
    "pp_dpm_sclk",
    "pp_dpm_vclk1",
    "pp_dpm_pcie",
    "pcie_replay_count",
    "ras/umc_err_count",
    "ras/gpu_vram_bad_pages",
    "ras/features",
    "ras/event_state",
    "xgmi_num_hops",
    "xgmi_num_links",
    "xgmi_hive_info/xgmi_hive_id",
    "board/npm_status",
    "power_dpm_force_performance_level",
    "current_compute_partition",
    "available_compute_partition",
    "current_memory_partition",
    "apu_thermal_cap",
    "board/node_power",
    "board/cur_node_power_limit",
    "fw_version/smc_fw_version",
    "unique_id",
    "product_name",
    "xgmi_error",
    "pcie_bw",
    "pp_table",
    "gpu_metrics",
]


def card(*names: str) -> Device:
    return Device(
        id="0000:03:00.0", kind=DeviceKind.GPU, path="devices/x", driver="amdgpu", names=frozenset(names)
    )


def plan(facts: dict[str, bytes | None], *names: str) -> dict[str, Attribute | Rows]:
    return {planned.path: planned for planned in DRIVER.attributes(card(*names), facts)}


def test_found_by_listing_and_by_kernel_driver() -> None:
    assert {"amdgpu", ""} <= set(drivers())
    assert driver_for(card()) is DRIVER
    assert driver_for(Device(id="x", kind=DeviceKind.GPU, path="x", driver="nobody")).kernel_driver == ""


def test_nothing_is_planned_that_is_not_listed() -> None:
    assert plan({}) == {}
    assert set(plan({}, *NAMES)) <= set(NAMES)


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in FORBIDDEN])
def test_nothing_forbidden_is_planned_even_if_listed(pattern: str) -> None:
    name = pattern.replace("[0-9]*", "0").replace("*", "x")
    assert is_forbidden(name)
    assert name not in plan({}, *NAMES, name)
    assert name not in DRIVER.needs(card(*NAMES, name))


def _every_table() -> Iterator[Attribute]:
    """What is planned of a table of each revision in which everything is filled."""
    for (major, minor, size), layout in TABLES.items():
        content = HEADER.pack(size, major, minor).ljust(size, b"\x01")
        one = plan({"gpu_metrics": content}, "gpu_metrics").get("gpu_metrics")
        if layout.revision == (2, 0):
            assert one is None  # no unit of it is known but those of temperatures and clocks
            continue
        assert isinstance(one, Attribute), layout.revision
        assert len(one.decode(content)) == len(one.series)
        assert one.steady <= set(one.series)
        yield one


def test_every_series_is_announced_and_every_row_announced_is_in_the_table() -> None:
    used = {
        series.metric
        for planned in plan({}, *NAMES).values()
        if isinstance(planned, Attribute)
        for series in planned.series
    }
    firmware = plan({}, *NAMES)["fw_version/smc_fw_version"]
    used |= {metric for metric, _, _ in firmware.decode(b"0x003a5600\n")}
    used |= {series.metric for one in _every_table() for series in one.series}
    hive = {"xgmi_device_id": b"77\n"}
    used |= {series.metric for series, _ in DRIVER.constants(card(*NAMES), hive)}
    for path in ("ras/event_state", "xgmi_num_hops", "xgmi_num_links"):
        rows = plan({}, *NAMES)[path]
        assert isinstance(rows, Rows)
        used |= set(rows.metrics)
    derived = {*gpu.BUSY_WINDOW, gpu.THROTTLED_SECONDS}
    assert used | derived == set(DRIVER.emits)
    assert not used & derived
    assert set(DRIVER.emits) <= set(table())


def test_load_is_read_often_and_what_costs_or_rests_seldom() -> None:
    planned = plan({}, *NAMES)
    normal = {path for path, one in planned.items() if one.cadence is Cadence.NORMAL}
    assert {
        "mem_busy_percent",
        "mem_info_vram_used",
        "pp_dpm_sclk",
        "board/node_power",
    } <= normal
    assert {path for path, one in planned.items() if one.cadence is Cadence.FAST} == {"gpu_busy_percent"}
    for path in (
        "ras/umc_err_count",
        "pcie_replay_count",
        "mem_info_vram_total",
        "apu_thermal_cap",
        "pp_dpm_pcie",
    ):
        assert planned[path].cadence is Cadence.SLOW
    assert planned["fw_version/smc_fw_version"].cadence is Cadence.STATIC


def filled(revision: tuple[int, int], **fields: int | list[int]) -> bytes:
    """A table of all ones but for these fields."""
    layout = next(one for one in TABLES.values() if one.revision == revision)
    content = bytearray(HEADER.pack(layout.size, *revision).ljust(layout.size, b"\xff"))
    for name, value in fields.items():
        field = layout.fields[name.replace("__", ".")]
        for index, element in enumerate(value if isinstance(value, list) else [value]):
            struct.pack_into(f"<{field.code}", content, field.place(index), element)
    return bytes(content)


def given(content: bytes, *names: str, facts: dict[str, bytes | None] | None = None) -> dict[str, float | None]:
    """`metric{labels after the device}` -> value, of the table in both of its parts."""
    device = card("gpu_metrics", *names)
    known = {"gpu_metrics": content, **(facts or {})}
    found = {}
    for one in (*DRIVER.attributes(device, known), *DRIVER.sensors(device, known)):
        if one.path == "gpu_metrics" and isinstance(one, Attribute):
            for series, value in zip(one.series, one.decode(content), strict=True):
                name = f"{series.metric.name.removeprefix('gpudaemon_gpu_')}{{{','.join(series.values[1:])}}}"
                assert name not in found
                found[name] = value
    return found


def test_a_table_that_could_not_be_read_is_asked_for_again() -> None:
    none: tuple[bytes | None, ...] = (None, b"", b"\x78", HEADER.pack(8, 1, 3) + bytes(4), b"\x01" * 120)
    all_ones = filled((1, 3))
    for facts in ({}, *({"gpu_metrics": content} for content in (*none, all_ones))):
        again = plan(facts, "gpu_metrics")["gpu_metrics"]
        assert isinstance(again, Attribute) and again.settles and again.series == ()
        assert again.decode(filled((1, 3), average_gfx_activity=1)) == ()
        for content in (*none[1:], all_ones):
            assert content is not None
            with pytest.raises(Malformed):
                again.decode(content)
    # A revision nobody knows yet is a table: it will not become another.
    assert "gpu_metrics" not in plan({"gpu_metrics": HEADER.pack(8, 9, 9) + bytes(4)}, "gpu_metrics")
    assert "gpu_metrics" not in plan({"gpu_metrics": filled((1, 3), average_gfx_activity=1)}, "vendor")
    assert DRIVER.needs(card("gpu_metrics")) == DRIVER.sensor_needs(card("gpu_metrics")) == ["gpu_metrics"]
    assert DRIVER.sensor_needs(card("vendor")) == []


def test_a_table_of_a_discrete_card_gives_what_its_text_files_give() -> None:
    content = filled(
        (1, 3),
        temperature_edge=50, temperature_hotspot=61, temperature_mem=66, temperature_vrgfx=55,
        average_gfx_activity=7, average_umc_activity=3, average_mm_activity=0, average_socket_power=68,
        current_gfxclk=1500, current_uclk=1249, current_socclk=1200, voltage_gfx=686, current_fan_speed=900,
        pcie_link_width=16, pcie_link_speed=160,
    )  # fmt: skip
    chip = "hwmon/hwmon3/"
    names = [f"{chip}{one}" for one in ("name", "temp1_label", "temp1_input", "power1_average", "fan1_input")]
    found = given(content, *names, facts={f"{chip}name": b"amdgpu\n", f"{chip}temp1_label": b"edge\n"})
    assert found == {
        "busy_ratio{gfx}": 0.07,
        "busy_ratio{memory}": 0.03,
        "busy_ratio{mm}": 0.0,
        "pcie_level_transfers_per_second{}": 16e9,
        "pcie_level_width{}": 16.0,
        "temperature_celsius{edge}": 50.0,
        "temperature_celsius{junction}": 61.0,  # no channel: the driver's usual name
        "temperature_celsius{mem}": 66.0,
        "temperature_celsius{vrgfx}": 55.0,
        "power_watts{power1}": 68.0,  # a channel without a label
        "power_average_watts{power1}": 68.0,
        "clock_hertz{sclk}": 1.5e9,
        "clock_hertz{mclk}": 1.249e9,
        "clock_hertz{socclk}": 1.2e9,
        "voltage_volts{vddgfx}": 0.686,
        "fan_rpm{fan1}": 900.0,
    }
    device = card("gpu_metrics")
    for part in (
        DRIVER.attributes(device, {"gpu_metrics": content}),
        DRIVER.sensors(device, {"gpu_metrics": content}),
    ):
        table = next(one for one in part if one.path == "gpu_metrics")
        assert table.cadence is Cadence.FAST and table.limit > 4096  # a page that is full is no overflow
        assert isinstance(table, Attribute)
        followed = {series.values[1] for series in table.series if series not in table.steady}
        assert followed in ({"gfx"}, {"edge", "junction", "PPT", "sclk", "mclk"})
    planned = plan({"gpu_metrics": content}, "gpu_metrics", "pp_dpm_sclk", "pp_dpm_fclk")
    assert planned["pp_dpm_sclk"].cadence is Cadence.SLOW  # for its levels: the clock is in the table
    assert planned["pp_dpm_fclk"].cadence is Cadence.NORMAL


def test_throttling_by_its_bits() -> None:
    content = filled((1, 3), indep_throttle_status=1 | 1 << 36)
    found = given(content)
    assert {name for name, value in found.items() if value} == {
        "throttled{,power,ppt0}",
        "throttled{,thermal,temp_hotspot}",
    }
    assert set(given(filled((1, 3), indep_throttle_status=0)).values()) == {0.0}
    assert given(filled((1, 2), throttle_status=0xFF)) == {}  # means something else on each chip


def test_a_table_of_an_instinct() -> None:
    content = filled(
        (1, 8),
        curr_socket_power=700, energy_accumulator=65536 * 5, accumulation_counter=1000, ppt_residency_acc=250,
        prochot_residency_acc=0, gfx_activity_acc=50_000, pcie_nak_sent_count_acc=1, pcie_replay_count_acc=3,
        xgmi_read_data_acc=[1] * 8, xgmi_write_data_acc=[2] * 8, xgmi_link_status=[1, 0],
        current_gfxclk=[2100, 2050], num_partition=2, xcp0__gfx_busy_inst=[40], xcp1__gfx_busy_inst=[60],
        xcp1__gfx_busy_acc=[6000], xcp1__gfx_below_host_limit_ppt_acc=[9],
    )  # fmt: skip
    assert given(content, "pcie_replay_count") == {
        "power_watts{PPT}": 700.0,
        "energy_joules_total{PPT,hardware}": 5.0,
        "firmware_ticks_total{}": 1000.0,
        "throttled_ticks_total{,power,ppt}": 250.0,
        "throttled_ticks_total{,thermal,prochot}": 0.0,
        "busy_ticks_total{gfx}": 500.0,
        "pcie_naks_total{sent}": 1.0,
        "xgmi_link_up{0}": 1.0,
        "xgmi_link_up{1}": 0.0,
        "xgmi_read_bytes_total{0}": 1024.0,
        "xgmi_read_bytes_total{1}": 1024.0,  # links 2 to 7 have no state: they are not wired
        "xgmi_written_bytes_total{0}": 2048.0,
        "xgmi_written_bytes_total{1}": 2048.0,
        "clock_hertz{sclk}": 2.1e9,
        "clock_hertz{sclk1}": 2.05e9,
        "partitions{}": 2.0,
        "partition_busy_ratio{0,gfx,0}": 0.4,
        "partition_busy_ratio{1,gfx,0}": 0.6,
        "partition_busy_ticks_total{1,0}": 60.0,
        "partition_limited_ticks_total{1,0,power}": 9.0,
    }
    assert given(content)["pcie_replays_total{}"] == 3.0


def test_a_table_of_an_apu_gives_what_the_text_files_lack() -> None:
    content = filled(
        (2, 4),
        temperature_gfx=4512, temperature_soc=4650, temperature_core=[5012, 5100], average_socket_power=9000,
        average_gfx_activity=4000, average_gfx_power=3500, average_core_power=[250], current_gfxclk=1600,
        average_fclk_frequency=800, current_coreclk=[3200], average_cpu_voltage=900, average_gfx_voltage=800,
        average_gfx_current=2500,
    )  # fmt: skip
    chip = "hwmon/hwmon6/"
    names = [f"{chip}{one}" for one in ("name", "temp1_input", "power1_input", "freq1_input", "in0_input")]
    found = given(content, "gpu_busy_percent", *names, facts={f"{chip}name": b"amdgpu\n"})
    assert found == {
        "temperature_celsius{soc}": 46.5,
        "temperature_celsius{core0}": 50.12,
        "temperature_celsius{core1}": 51.0,
        "domain_power_watts{gfx}": 3.5,
        "domain_power_watts{core0}": 0.25,
        "clock_hertz{fclk}": 8e8,
        "clock_hertz{core0}": 3.2e9,
        "voltage_volts{cpu}": 0.9,
        "current_amperes{gfx}": 2.5,
    }
    assert given(content)["temperature_celsius{gfx}"] == 45.12
    table = next(one for one in DRIVER.sensors(card("gpu_metrics"), {"gpu_metrics": content}))
    assert table.cadence is Cadence.NORMAL


def test_identity_labels_are_those_of_the_info_row() -> None:
    for driver in drivers().values():
        assert set(driver.identity) <= set(gpu.INFO.labels), driver.kernel_driver


def test_busy_and_memory_say_whose() -> None:
    labels = {
        path: tuple(series.values for series in one.series)
        for path, one in plan({}, *NAMES).items()
        if isinstance(one, Attribute) and path.startswith(("gpu_busy", "mem_", "vcn_"))
    }
    assert labels == {
        "gpu_busy_percent": (("0000:03:00.0", "gfx"),),
        "mem_busy_percent": (("0000:03:00.0", "memory"),),
        "vcn_busy_percent": (("0000:03:00.0", "vcn"),),
        "mem_info_vram_used": (("0000:03:00.0", "vram"),),
        "mem_info_vram_total": (("0000:03:00.0", "vram"),),
        "mem_info_gtt_used": (("0000:03:00.0", "gtt"),),
        "mem_info_preempt_used": (("0000:03:00.0", "preempt"),),
    }


def test_partitions_offer_what_the_card_offers() -> None:
    names = ("current_compute_partition", "available_compute_partition")
    offered = plan({"available_compute_partition": b"SPX, CPX\n"}, *names)["current_compute_partition"]
    assert isinstance(offered, Attribute)
    assert [series.values[1] for series in offered.series] == ["SPX", "CPX"]
    assert offered.decode(b"CPX\n") == (0.0, 1.0)
    assert DRIVER.needs(card(*names)) == ["available_compute_partition", "current_compute_partition"]
    for facts in ({}, {"available_compute_partition": None}, {"available_compute_partition": b"\xff" * 5000}):
        everything = plan(facts, *names)["current_compute_partition"]
        assert isinstance(everything, Attribute) and len(everything.series) == 5


def test_error_counts_of_a_block() -> None:
    planned = plan({}, "ras/umc_err_count")["ras/umc_err_count"]
    assert isinstance(planned, Attribute)
    labels = [series.values for series in planned.series]
    assert labels == [("0000:03:00.0", "umc", word) for word in ("corrected", "uncorrected", "deferred")]
    assert planned.decode(b"ue: 1\nce: 2\nde: 3\n") == (2.0, 1.0, 3.0)


def rows(path: str, content: bytes) -> list[tuple[str, tuple[str, ...], float]]:
    one = plan({}, path)[path]
    assert isinstance(one, Rows)
    return [
        (metric.name.removeprefix("gpudaemon_gpu_"), labels[1:], value)
        for metric, labels, value in one.decode(content)
    ]


def test_the_hive_as_a_member_sees_it() -> None:
    """The numbers are printed "%02x ", a blank after the last one too (amdgpu_xgmi.c)."""
    assert rows("xgmi_num_hops", b"00 01 02 \n") == [
        ("xgmi_hops", ("0",), 0.0),
        ("xgmi_hops", ("1",), 1.0),
        ("xgmi_hops", ("2",), 2.0),
        ("xgmi_hive_members", (), 3.0),
    ]
    assert rows("xgmi_num_links", b"00 0a") == [("xgmi_links", ("0",), 0.0), ("xgmi_links", ("1",), 10.0)]
    for content in (b"", b"\n", b"0 1", b"xx", b"00 01\n02\n", b"00 " * 65):
        with pytest.raises(Malformed):
            rows("xgmi_num_hops", content)
    facts = {
        "xgmi_device_id": b"77\n",
        "xgmi_physical_id": b"3\n",
    }
    holder = card("xgmi_hive_info/xgmi_hive_id")
    ((series, value),) = DRIVER.constants(holder, facts)
    assert (series.values, value) == (("0000:03:00.0", "0000:03:00.0", "77", "3"), 1.0)
    member = replace(card(), links=(("xgmi_hive_info", "0000:43:00.0"),))
    ((series, value),) = DRIVER.constants(member, facts)
    assert (series.values, value) == (("0000:03:00.0", "0000:43:00.0", "77", "3"), 1.0)
    assert list(DRIVER.constants(card(), facts)) == list(DRIVER.constants(member, {})) == []
    assert "xgmi_hive_info/xgmi_hive_id" not in plan({}, *NAMES)  # one GPU's directory, read for every member
    assert "xgmi_error" not in plan({}, *NAMES, "xgmi_error")  # reading it clears it


def test_ras_events_by_kind() -> None:
    """amdgpu_ras.c, amdgpu_ras_sysfs_event_state_show."""
    content = b"current seqno: 9\nFatal Error: count:1, last_seqno:9\nPoison Creation: count:2, last_seqno:7\n"
    assert rows("ras/event_state", content) == [
        ("ras_events_total", ("fatal_error",), 1.0),
        ("ras_events_total", ("poison_creation",), 2.0),
    ]
    for broken in (
        b"",
        b"seqno: 1\n",
        content + b"more\n",
        b"current seqno: 9\n" + b"A: count:1, last_seqno:1\n" * 40,
    ):
        with pytest.raises(Malformed):
            rows("ras/event_state", broken)


def test_power_management_of_the_node() -> None:
    one = plan({}, "board/npm_status")["board/npm_status"]
    assert isinstance(one, Attribute)
    assert (list(one.decode(b"enabled\n")), list(one.decode(b"disabled\n"))) == ([1.0], [0.0])


@settings(deadline=None)
@example(st.binary(max_size=200) | st.from_regex(rb"([0-9a-f]{2} ?){0,70}\n?", fullmatch=True))
def test_any_bytes_of_rows(content: bytes) -> None:
    for path in ("xgmi_num_hops", "xgmi_num_links", "ras/event_state"):
        try:
            found = rows(path, content)
        except Malformed:
            continue
        assert all(value >= 0 for _, _, value in found)
