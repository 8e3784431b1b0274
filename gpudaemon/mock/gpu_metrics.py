"""amdgpu's gpu_metrics tables, as the driver fills them: all ones, then what the firmware knows.

Layouts: drivers/gpu/drm/amd/include/kgd_pp_interface.h (gpu_metrics_v1_3, _v1_6, _v2_1); the filling with
all ones: drivers/gpu/drm/amd/pm/swsmu/smu_cmn.c (smu_cmn_init_soft_gpu_metrics). Linux 6.12.
"""

import struct
from collections.abc import Iterable, Mapping

from gpudaemon.mock.physics import State

__all__ = ["metrics_aldebaran", "metrics_v1_3", "metrics_v1_6", "metrics_v2_1"]

# name -> (offset, struct code of one element)
_V1_3: Mapping[str, tuple[int, str]] = {
    "temperature_edge": (4, "H"),
    "temperature_hotspot": (6, "H"),
    "temperature_mem": (8, "H"),
    "temperature_vrgfx": (10, "H"),
    "temperature_vrsoc": (12, "H"),
    "temperature_vrmem": (14, "H"),
    "average_gfx_activity": (16, "H"),
    "average_umc_activity": (18, "H"),
    "average_mm_activity": (20, "H"),
    "average_socket_power": (22, "H"),
    "energy_accumulator": (24, "Q"),
    "system_clock_counter": (32, "Q"),
    "average_gfxclk_frequency": (40, "H"),
    "average_uclk_frequency": (44, "H"),
    "current_gfxclk": (54, "H"),
    "current_socclk": (56, "H"),
    "current_uclk": (58, "H"),
    "current_vclk0": (60, "H"),
    "current_dclk0": (62, "H"),
    "throttle_status": (68, "I"),
    "current_fan_speed": (72, "H"),
    "pcie_link_width": (74, "H"),
    "pcie_link_speed": (76, "H"),
    "gfx_activity_acc": (80, "I"),
    "mem_activity_acc": (84, "I"),
    "temperature_hbm": (88, "H"),
    "firmware_timestamp": (96, "Q"),
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


def _clock_counter(boottime: float) -> int:
    # ktime_get_boottime_ns in each driver's get_gpu_metrics.
    return int(boottime * 1e9)


def _bits(*flags: tuple[bool, int]) -> int:
    return sum(1 << bit for is_set, bit in flags if is_set)


def metrics_v1_3(state: State, boottime: float, *, fan: int, lanes: int) -> bytes:
    """Table of a Navi 3x card, 120 bytes. boottime: seconds; fan: most rotations a minute; lanes: of PCIe.

    throttle_status has bits of this chip (pm/swsmu/inc/pmfw_if/smu13_driver_if_v13_0_0.h, THROTTLER_*),
    indep_throttle_status those of all (pm/swsmu/inc/amdgpu_smu.h).
    """
    clock, memory = int(state.clock) // 5 * 5, int(state.memory_clock)
    return _pack(
        120,
        (1, 3),
        _V1_3,
        {
            "temperature_edge": int(state.edge),
            "temperature_hotspot": int(state.hotspot),
            "temperature_mem": int(state.hbm),
            "temperature_vrgfx": int(state.regulator),
            "temperature_vrsoc": int(state.regulator) - 3,
            "average_gfx_activity": int(100 * state.busy),
            "average_umc_activity": int(100 * state.traffic),
            "average_mm_activity": int(100 * state.media),
            "average_socket_power": int(state.power),
            "system_clock_counter": _clock_counter(boottime),
            "average_gfxclk_frequency": clock,
            "average_uclk_frequency": memory,
            "current_gfxclk": clock,
            "current_socclk": 500 + int(1000 * state.busy),
            "current_uclk": memory,
            "throttle_status": _bits((state.thermal, 1), (state.ppt, 16)),
            "current_fan_speed": int(fan * state.fan),
            "pcie_link_width": lanes,
            "pcie_link_speed": 160,
            "voltage_gfx": int(1000 * state.volts),
            "indep_throttle_status": _bits((state.ppt, 0), (state.thermal, 36)),
        },
    )


def metrics_aldebaran(state: State, boottime: float, *, primary: bool) -> bytes:
    """Table v1.3 of one die of an MI250X. primary: the die that knows the module's power; the other says 0.

    pm/swsmu/smu13/aldebaran_ppt.c, aldebaran_get_gpu_metrics; energy in 2^-16 J, firmware_timestamp in 10 ns.
    """
    clock, memory = int(state.clock) // 5 * 5, int(state.memory_clock)
    words = 0xFFFFFFFF
    return _pack(
        120,
        (1, 3),
        _V1_3,
        {
            "temperature_edge": int(state.edge),
            "temperature_hotspot": int(state.hotspot),
            "temperature_mem": int(state.hbm),
            "temperature_vrgfx": int(state.regulator),
            "temperature_vrsoc": int(state.regulator) - 3,
            "temperature_vrmem": int(state.regulator) - 5,
            "average_gfx_activity": int(100 * state.busy),
            "average_umc_activity": int(100 * state.traffic),
            "average_socket_power": int(state.power) if primary else 0,
            "energy_accumulator": int(state.energy * 65_536) if primary else 0,
            "system_clock_counter": _clock_counter(boottime),
            "average_gfxclk_frequency": clock,
            "average_uclk_frequency": memory,
            "current_gfxclk": clock,
            "current_socclk": 666 + int(424 * state.busy),
            "current_uclk": memory,
            "current_vclk0": 914,
            "current_dclk0": 711,
            "throttle_status": 0,
            "current_fan_speed": 0,
            "pcie_link_width": 16,
            "pcie_link_speed": 160,
            "gfx_activity_acc": int(state.busy_sum) & words,
            "mem_activity_acc": int(state.traffic_sum) & words,
            "temperature_hbm": [int(state.hbm)] * 4,
            "firmware_timestamp": int(state.seconds * 1e8) + 86_400 * 10**8,
            "indep_throttle_status": _bits((state.ppt, 0), (state.thermal, 36)),
        },
    )


def metrics_v1_6(state: State, boottime: float, *, partitions: int) -> bytes:
    """Table of an MI300X, 1664 bytes. boottime: seconds. Partition statistics stay all ones."""
    words = 0xFFFFFFFF
    links = 7  # of 8; the first element is the GPU's own
    clock = int(state.clock) // 5 * 5
    return _pack(
        1664,
        (1, 6),
        _V1_6,
        {
            "temperature_hotspot": int(state.hotspot),
            "temperature_mem": int(state.hbm),
            "temperature_vrsoc": int(state.regulator),
            "curr_socket_power": int(state.power),
            "average_gfx_activity": int(100 * state.busy),
            "average_umc_activity": int(100 * state.traffic),
            "energy_accumulator": int(state.energy * 65_536),  # 2^-16 J
            "system_clock_counter": _clock_counter(boottime),
            "accumulation_counter": int(state.samples) & words,
            "prochot_residency_acc": 0,
            "ppt_residency_acc": int(state.ppt_sum) & words,
            "socket_thm_residency_acc": int(state.thermal_sum) & words,
            "vr_thm_residency_acc": 0,
            "hbm_thm_residency_acc": int(state.memory_thermal_sum) & words,
            "gfxclk_lock_status": 0,
            "pcie_link_width": 16,
            "pcie_link_speed": 320,
            "xgmi_link_width": 16,
            "xgmi_link_speed": 32,
            "gfx_activity_acc": int(state.busy_sum) & words,
            "mem_activity_acc": int(state.traffic_sum) & words,
            "pcie_bandwidth_acc": int((state.received + state.sent) / 1e9),
            "pcie_bandwidth_inst": int((state.inbound + state.outbound) / 1e9),
            "pcie_l0_to_recov_count_acc": state.recoveries,
            "pcie_replay_count_acc": state.replays,
            "pcie_replay_rover_count_acc": 0,
            "pcie_nak_sent_count_acc": 0,
            "pcie_nak_rcvd_count_acc": state.replays,
            "xgmi_read_data_acc": [0] + [int(state.fabric_read) // 1024] * links,
            "xgmi_write_data_acc": [0] + [int(state.fabric_written) // 1024] * links,
            "firmware_timestamp": int(state.seconds * 1e8) + 86_400 * 10**8,
            "current_gfxclk": [clock] * 8,
            "current_socclk": [800 + int(343 * state.busy)] * 4,
            "current_vclk0": [31] * 4,
            "current_dclk0": [25] * 4,
            "current_uclk": int(state.memory_clock),
            "num_partition": partitions,
        },
    )


def metrics_v2_1(state: State, boottime: float) -> bytes:
    """Table of a Phoenix APU, 120 bytes. boottime: seconds.

    Temperatures are hundredths of °C, powers mW and the activity hundredths of a percent; the current clocks,
    the CPU's power as a whole and the fan stay all ones (pm/swsmu/smu13/smu_v13_0_4_ppt.c).
    """
    clock, memory = int(state.clock) // 5 * 5, int(state.memory_clock)
    cpu = 1400 + int(2000 * state.busy)
    return _pack(
        120,
        (2, 1),
        _V2_1,
        {
            "temperature_gfx": int(100 * state.edge),
            "temperature_soc": int(100 * (state.edge + 2)),
            "temperature_core": [int(100 * (state.edge + core % 3)) for core in range(8)],
            "temperature_l3": int(100 * state.edge),
            "average_gfx_activity": int(10_000 * state.busy),
            "average_mm_activity": 0,
            "system_clock_counter": _clock_counter(boottime),
            "average_socket_power": int(1000 * state.power),
            "average_soc_power": int(250 * state.power),
            "average_gfx_power": int(500 * state.power),
            "average_core_power": [int(1000 * state.power / 40)] * 8,
            "average_gfxclk_frequency": clock,
            "average_socclk_frequency": 400 + int(800 * state.busy),
            "average_uclk_frequency": memory,
            "average_fclk_frequency": 2 * memory - 400,
            "average_vclk_frequency": 800,
            "average_dclk_frequency": 800,
            "current_coreclk": [cpu] * 8,
            "current_l3clk": cpu,
            "throttle_status": 0,
        },
    )
