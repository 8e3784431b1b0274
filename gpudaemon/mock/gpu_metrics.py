"""amdgpu's gpu_metrics tables, as the driver fills them: all ones, then what the firmware knows.

Layouts: drivers/gpu/drm/amd/include/kgd_pp_interface.h (gpu_metrics_v1_3, _v1_6, _v2_1); the filling with
all ones: drivers/gpu/drm/amd/pm/swsmu/smu_cmn.c (smu_cmn_init_soft_gpu_metrics). Linux 6.12.
"""

import struct
from collections.abc import Iterable, Mapping

from gpudaemon.mock.motion import Load

__all__ = ["metrics_v1_3", "metrics_v1_6", "metrics_v2_1"]

# name -> (offset, struct code of one element)
_V1_3: Mapping[str, tuple[int, str]] = {
    "temperature_edge": (4, "H"),
    "temperature_hotspot": (6, "H"),
    "temperature_mem": (8, "H"),
    "temperature_vrgfx": (10, "H"),
    "temperature_vrsoc": (12, "H"),
    "average_gfx_activity": (16, "H"),
    "average_umc_activity": (18, "H"),
    "average_mm_activity": (20, "H"),
    "average_socket_power": (22, "H"),
    "system_clock_counter": (32, "Q"),
    "average_gfxclk_frequency": (40, "H"),
    "average_uclk_frequency": (44, "H"),
    "current_gfxclk": (54, "H"),
    "current_socclk": (56, "H"),
    "current_uclk": (58, "H"),
    "throttle_status": (68, "I"),
    "current_fan_speed": (72, "H"),
    "pcie_link_width": (74, "H"),
    "pcie_link_speed": (76, "H"),
    "voltage_gfx": (106, "H"),
    "indep_throttle_status": (112, "Q"),
}

_V1_6: Mapping[str, tuple[int, str]] = {
    "temperature_hotspot": (4, "H"),
    "temperature_mem": (6, "H"),
    "temperature_vrsoc": (8, "H"),
    "curr_socket_power": (10, "H"),
    "average_gfx_activity": (12, "H"),
    "average_umc_activity": (14, "H"),
    "energy_accumulator": (16, "Q"),
    "system_clock_counter": (24, "Q"),
    "accumulation_counter": (32, "I"),
    "prochot_residency_acc": (36, "I"),
    "ppt_residency_acc": (40, "I"),
    "socket_thm_residency_acc": (44, "I"),
    "vr_thm_residency_acc": (48, "I"),
    "hbm_thm_residency_acc": (52, "I"),
    "gfxclk_lock_status": (56, "I"),
    "pcie_link_width": (60, "H"),
    "pcie_link_speed": (62, "H"),
    "xgmi_link_width": (64, "H"),
    "xgmi_link_speed": (66, "H"),
    "gfx_activity_acc": (68, "I"),
    "mem_activity_acc": (72, "I"),
    "pcie_bandwidth_acc": (80, "Q"),
    "pcie_bandwidth_inst": (88, "Q"),
    "pcie_l0_to_recov_count_acc": (96, "Q"),
    "pcie_replay_count_acc": (104, "Q"),
    "pcie_replay_rover_count_acc": (112, "Q"),
    "pcie_nak_sent_count_acc": (120, "I"),
    "pcie_nak_rcvd_count_acc": (124, "I"),
    "xgmi_read_data_acc": (128, "Q"),
    "xgmi_write_data_acc": (192, "Q"),
    "firmware_timestamp": (256, "Q"),
    "current_gfxclk": (264, "H"),
    "current_socclk": (280, "H"),
    "current_vclk0": (288, "H"),
    "current_dclk0": (296, "H"),
    "current_uclk": (304, "H"),
    "num_partition": (306, "H"),
}


_V2_1: Mapping[str, tuple[int, str]] = {
    "temperature_gfx": (4, "H"),
    "temperature_soc": (6, "H"),
    "temperature_core": (8, "H"),
    "temperature_l3": (24, "H"),
    "average_gfx_activity": (28, "H"),
    "average_mm_activity": (30, "H"),
    "system_clock_counter": (32, "Q"),
    "average_socket_power": (40, "H"),
    "average_soc_power": (44, "H"),
    "average_gfx_power": (46, "H"),
    "average_core_power": (48, "H"),
    "average_gfxclk_frequency": (64, "H"),
    "average_socclk_frequency": (66, "H"),
    "average_uclk_frequency": (68, "H"),
    "average_fclk_frequency": (70, "H"),
    "average_vclk_frequency": (72, "H"),
    "average_dclk_frequency": (74, "H"),
    "current_coreclk": (88, "H"),
    "current_l3clk": (104, "H"),
    "throttle_status": (108, "I"),
}


def _pack(
    size: int, version: tuple[int, int], layout: Mapping[str, tuple[int, str]], values: Mapping[str, object]
) -> bytes:
    table = bytearray(b"\xff" * size)
    struct.pack_into("<HBB", table, 0, size, *version)
    for name, value in values.items():
        offset, code = layout[name]
        elements = value if isinstance(value, Iterable) else (value,)
        for element in elements:
            struct.pack_into("<" + code, table, offset, element)
            offset += struct.calcsize(code)
    return bytes(table)


def metrics_v1_3(
    load: Load, seconds: float, *, power: float, cap: float, clocks: tuple[int, int], fan: int, lanes: int
) -> bytes:
    """Table of a Navi 3x card, 120 bytes.

    power, cap: watts; clocks: gfx and memory, MHz; fan: revolutions a minute; lanes: of PCIe.
    """
    busy = load.busy(seconds)
    hot = 45 + int(40 * load.warm(seconds))
    limited = 1 if power > 0.97 * cap else 0  # SMU_THROTTLER_PPT0_BIT
    return _pack(
        120,
        (1, 3),
        _V1_3,
        {
            "temperature_edge": hot - 10,
            "temperature_hotspot": hot,
            "temperature_mem": hot - 4,
            "temperature_vrgfx": hot - 6,
            "temperature_vrsoc": hot - 9,
            "average_gfx_activity": int(100 * busy),
            "average_umc_activity": int(45 * busy),
            "average_mm_activity": 0,
            "average_socket_power": int(power),
            "system_clock_counter": int(seconds * 1e9) + 86_400 * 10**9,
            "average_gfxclk_frequency": clocks[0],
            "average_uclk_frequency": clocks[1],
            "current_gfxclk": clocks[0],
            "current_socclk": 1500,
            "current_uclk": clocks[1],
            "throttle_status": limited,
            "current_fan_speed": fan,
            "pcie_link_width": lanes,
            "pcie_link_speed": 160,
            "voltage_gfx": 680 + int(400 * busy),
            "indep_throttle_status": limited,
        },
    )


def metrics_v1_6(load: Load, seconds: float, *, power: float, clock: int, partitions: int) -> bytes:
    """Table of an MI300X, 1664 bytes. power: watts; clock: gfx, MHz. Partition statistics stay all ones."""
    busy = load.busy(seconds)
    ticks = 100_000 + int(seconds * 1000)
    mean = (load.low + load.high) / 2
    return _pack(
        1664,
        (1, 6),
        _V1_6,
        {
            "temperature_hotspot": 40 + int(50 * load.warm(seconds)),
            "temperature_mem": 36 + int(40 * load.warm(seconds)),
            "temperature_vrsoc": 42 + int(35 * load.warm(seconds)),
            "curr_socket_power": int(power),
            "average_gfx_activity": int(100 * busy),
            "average_umc_activity": int(60 * busy),
            # 2^-16 J; the mean power will do, the integral of the sines is bounded
            "energy_accumulator": int((86_400 + seconds) * (140 + 610 * mean) * 65_536),
            "system_clock_counter": int(seconds * 1e9) + 86_400 * 10**9,
            "accumulation_counter": ticks,
            "prochot_residency_acc": 0,
            "ppt_residency_acc": int(ticks * 0.02),
            "socket_thm_residency_acc": int(ticks * 0.001),
            "vr_thm_residency_acc": 0,
            "hbm_thm_residency_acc": 0,
            "gfxclk_lock_status": 0,
            "pcie_link_width": 16,
            "pcie_link_speed": 320,
            "xgmi_link_width": 16,
            "xgmi_link_speed": 32,
            "gfx_activity_acc": int(ticks * mean * 100) & 0xFFFFFFFF,
            "mem_activity_acc": int(ticks * mean * 60) & 0xFFFFFFFF,
            "pcie_bandwidth_acc": int((86_400 + seconds) * 3),
            "pcie_bandwidth_inst": int(40 * busy),
            "pcie_l0_to_recov_count_acc": 4,
            "pcie_replay_count_acc": 0,
            "pcie_replay_rover_count_acc": 0,
            "pcie_nak_sent_count_acc": 0,
            "pcie_nak_rcvd_count_acc": 0,
            "xgmi_read_data_acc": [0] + [int((86_400 + seconds) * mean * 2_000_000)] * 7,
            "xgmi_write_data_acc": [0] + [int((86_400 + seconds) * mean * 1_900_000)] * 7,
            "firmware_timestamp": int(seconds * 1e8) + 86_400 * 10**8,
            "current_gfxclk": [clock] * 8,
            "current_socclk": [1143] * 4,
            "current_vclk0": [31] * 4,
            "current_dclk0": [25] * 4,
            "current_uclk": 1300 if busy > 0.1 else 900,
            "num_partition": partitions,
        },
    )


def metrics_v2_1(load: Load, seconds: float, *, power: float, clocks: tuple[int, int]) -> bytes:
    """Table of a Phoenix APU, 120 bytes. power: watts of the package; clocks: gfx and memory, MHz.

    Temperatures are hundredths of °C, powers mW and the activity hundredths of a percent; the current clocks,
    the CPU's power as a whole and the fan stay all ones (pm/swsmu/smu13/smu_v13_0_4_ppt.c).
    """
    busy = load.busy(seconds)
    warm = 25 + 55 * load.warm(seconds)
    return _pack(
        120,
        (2, 1),
        _V2_1,
        {
            "temperature_gfx": int(100 * warm),
            "temperature_soc": int(100 * (warm + 2)),
            "temperature_core": [int(100 * (warm + core % 3)) for core in range(8)],
            "temperature_l3": int(100 * warm),
            "average_gfx_activity": int(10_000 * busy),
            "average_mm_activity": 0,
            "system_clock_counter": int(seconds * 1e9) + 86_400 * 10**9,
            "average_socket_power": int(1000 * power),
            "average_soc_power": int(250 * power),
            "average_gfx_power": int(500 * power),
            "average_core_power": [int(1000 * power / 40)] * 8,
            "average_gfxclk_frequency": clocks[0],
            "average_socclk_frequency": 400 + int(800 * busy),
            "average_uclk_frequency": clocks[1],
            "average_fclk_frequency": 2 * clocks[1] - 400,
            "average_vclk_frequency": 800,
            "average_dclk_frequency": 800,
            "current_coreclk": [1400 + int(2000 * busy)] * 8,
            "current_l3clk": 1400 + int(2000 * busy),
            "throttle_status": 0,
        },
    )
