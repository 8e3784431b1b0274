"""The amdgpu plan: what it takes of the names it is given, and how often."""

import struct

import pytest

from gpudaemon.drivers import driver_for, drivers
from gpudaemon.drivers.amdgpu import DRIVER
from gpudaemon.metrics import gpu, table
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.forbidden import FORBIDDEN, is_forbidden

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


def test_every_series_is_announced_and_every_row_announced_is_in_the_table() -> None:
    used = {
        series.metric
        for planned in plan({}, *NAMES).values()
        if isinstance(planned, Attribute)
        for series in planned.series
    }
    firmware = plan({}, *NAMES)["fw_version/smc_fw_version"]
    used |= {metric for metric, _, _ in firmware.decode(b"0x003a5600\n")}
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
        "gpu_metrics",
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


def test_the_firmware_table_is_read_where_its_bits_are_known() -> None:
    table = struct.pack("<HBB116x", 120, 1, 3)
    for facts, wanted in (
        ({}, True),
        ({"gpu_metrics": None}, True),
        ({"gpu_metrics": table}, True),
        ({"gpu_metrics": struct.pack("<HBB1660x", 1664, 1, 6)}, False),
        ({"gpu_metrics": struct.pack("<HBB116x", 120, 2, 1)}, False),
        ({"gpu_metrics": b"\x78"}, False),
    ):
        assert ("gpu_metrics" in plan(facts, "gpu_metrics")) is wanted, facts
    assert "gpu_metrics" not in plan({"gpu_metrics": table}, "vendor")
    planned = plan({}, "gpu_metrics")["gpu_metrics"]
    assert isinstance(planned, Attribute)
    assert [series.values for series in planned.series] == [
        ("0000:03:00.0", reason) for reason in ("power", "current", "thermal", "other")
    ]
    assert planned.limit > 4096  # a page that is full is no overflow
    assert DRIVER.needs(card("gpu_metrics")) == ["gpu_metrics"]


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
    assert DRIVER.needs(card(*names)) == ["available_compute_partition"]
    for facts in ({}, {"available_compute_partition": None}, {"available_compute_partition": b"\xff" * 5000}):
        everything = plan(facts, *names)["current_compute_partition"]
        assert isinstance(everything, Attribute) and len(everything.series) == 5


def test_error_counts_of_a_block() -> None:
    planned = plan({}, "ras/umc_err_count")["ras/umc_err_count"]
    assert isinstance(planned, Attribute)
    labels = [series.values for series in planned.series]
    assert labels == [("0000:03:00.0", "umc", word) for word in ("corrected", "uncorrected", "deferred")]
    assert planned.decode(b"ue: 1\nce: 2\nde: 3\n") == (2.0, 1.0, 3.0)
