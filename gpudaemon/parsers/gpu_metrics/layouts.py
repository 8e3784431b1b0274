"""Where each field of a gpu_metrics table lies: the structures of every revision kernels have shipped, as data.

A field is `name@offset:type`, type as in the module struct (little endian, `[n]` for an array); padding is left
out. `xcp_stats` of 1.6 to 1.8 is an array of eight structures, one a partition, whose fields are
named `xcp0.gfx_busy_inst`. 1.9 is no structure: see `stream`.

drivers/gpu/drm/amd/include/kgd_pp_interface.h. 1.0 and 2.0 are not naturally aligned: where a 64-bit number is
aligned to four bytes (32-bit x86) all fields after their header are four bytes earlier.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

__all__ = ["TABLES", "Field", "Layout"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field: offset in bytes, type of an element (a code of `struct`), number of elements."""

    offset: int
    code: str
    count: int = 1

    def place(self, index: int) -> int:
        """Offset of an element."""
        return self.offset + index * struct.calcsize(f"<{self.code}")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is laid out.

    revision: (format, content). size: of the structure, as its header says. fields: by name.
    marks: (offset, number) that must stand there, of a stream whose layout is in its content.
    """

    revision: tuple[int, int]
    size: int
    fields: Mapping[str, Field]
    marks: tuple[tuple[int, int], ...] = field(default=())


_V1_0 = """
    system_clock_counter@8:Q temperature_edge@16:H temperature_hotspot@18:H temperature_mem@20:H
    temperature_vrgfx@22:H temperature_vrsoc@24:H temperature_vrmem@26:H average_gfx_activity@28:H
    average_umc_activity@30:H average_mm_activity@32:H average_socket_power@34:H energy_accumulator@36:I
    average_gfxclk_frequency@40:H average_socclk_frequency@42:H average_uclk_frequency@44:H
    average_vclk0_frequency@46:H average_dclk0_frequency@48:H average_vclk1_frequency@50:H
    average_dclk1_frequency@52:H current_gfxclk@54:H current_socclk@56:H current_uclk@58:H
    current_vclk0@60:H current_dclk0@62:H current_vclk1@64:H current_dclk1@66:H throttle_status@68:I
    current_fan_speed@72:H pcie_link_width@74:B pcie_link_speed@75:B
"""

_V1_1 = """
    temperature_edge@4:H temperature_hotspot@6:H temperature_mem@8:H temperature_vrgfx@10:H
    temperature_vrsoc@12:H temperature_vrmem@14:H average_gfx_activity@16:H average_umc_activity@18:H
    average_mm_activity@20:H average_socket_power@22:H energy_accumulator@24:Q system_clock_counter@32:Q
    average_gfxclk_frequency@40:H average_socclk_frequency@42:H average_uclk_frequency@44:H
    average_vclk0_frequency@46:H average_dclk0_frequency@48:H average_vclk1_frequency@50:H
    average_dclk1_frequency@52:H current_gfxclk@54:H current_socclk@56:H current_uclk@58:H
    current_vclk0@60:H current_dclk0@62:H current_vclk1@64:H current_dclk1@66:H throttle_status@68:I
    current_fan_speed@72:H pcie_link_width@74:H pcie_link_speed@76:H gfx_activity_acc@80:I
    mem_activity_acc@84:I temperature_hbm@88:H[4]
"""

_V1_2 = (
    _V1_1
    + """
    firmware_timestamp@96:Q
"""
)

_V1_3 = (
    _V1_2
    + """
    voltage_soc@104:H voltage_gfx@106:H voltage_mem@108:H indep_throttle_status@112:Q
"""
)

_V1_4 = """
    temperature_hotspot@4:H temperature_mem@6:H temperature_vrsoc@8:H curr_socket_power@10:H
    average_gfx_activity@12:H average_umc_activity@14:H vcn_activity@16:H[4] energy_accumulator@24:Q
    system_clock_counter@32:Q throttle_status@40:I gfxclk_lock_status@44:I pcie_link_width@48:H
    pcie_link_speed@50:H xgmi_link_width@52:H xgmi_link_speed@54:H gfx_activity_acc@56:I
    mem_activity_acc@60:I pcie_bandwidth_acc@64:Q pcie_bandwidth_inst@72:Q
    pcie_l0_to_recov_count_acc@80:Q pcie_replay_count_acc@88:Q pcie_replay_rover_count_acc@96:Q
    xgmi_read_data_acc@104:Q[8] xgmi_write_data_acc@168:Q[8] firmware_timestamp@232:Q
    current_gfxclk@240:H[8] current_socclk@256:H[4] current_vclk0@264:H[4] current_dclk0@272:H[4]
    current_uclk@280:H
"""

_V1_5 = """
    temperature_hotspot@4:H temperature_mem@6:H temperature_vrsoc@8:H curr_socket_power@10:H
    average_gfx_activity@12:H average_umc_activity@14:H vcn_activity@16:H[4] jpeg_activity@24:H[32]
    energy_accumulator@88:Q system_clock_counter@96:Q throttle_status@104:I gfxclk_lock_status@108:I
    pcie_link_width@112:H pcie_link_speed@114:H xgmi_link_width@116:H xgmi_link_speed@118:H
    gfx_activity_acc@120:I mem_activity_acc@124:I pcie_bandwidth_acc@128:Q pcie_bandwidth_inst@136:Q
    pcie_l0_to_recov_count_acc@144:Q pcie_replay_count_acc@152:Q pcie_replay_rover_count_acc@160:Q
    pcie_nak_sent_count_acc@168:I pcie_nak_rcvd_count_acc@172:I xgmi_read_data_acc@176:Q[8]
    xgmi_write_data_acc@240:Q[8] firmware_timestamp@304:Q current_gfxclk@312:H[8]
    current_socclk@328:H[4] current_vclk0@336:H[4] current_dclk0@344:H[4] current_uclk@352:H
"""

_V1_6 = """
    temperature_hotspot@4:H temperature_mem@6:H temperature_vrsoc@8:H curr_socket_power@10:H
    average_gfx_activity@12:H average_umc_activity@14:H energy_accumulator@16:Q
    system_clock_counter@24:Q accumulation_counter@32:I prochot_residency_acc@36:I
    ppt_residency_acc@40:I socket_thm_residency_acc@44:I vr_thm_residency_acc@48:I
    hbm_thm_residency_acc@52:I gfxclk_lock_status@56:I pcie_link_width@60:H pcie_link_speed@62:H
    xgmi_link_width@64:H xgmi_link_speed@66:H gfx_activity_acc@68:I mem_activity_acc@72:I
    pcie_bandwidth_acc@80:Q pcie_bandwidth_inst@88:Q pcie_l0_to_recov_count_acc@96:Q
    pcie_replay_count_acc@104:Q pcie_replay_rover_count_acc@112:Q pcie_nak_sent_count_acc@120:I
    pcie_nak_rcvd_count_acc@124:I xgmi_read_data_acc@128:Q[8] xgmi_write_data_acc@192:Q[8]
    firmware_timestamp@256:Q current_gfxclk@264:H[8] current_socclk@280:H[4] current_vclk0@288:H[4]
    current_dclk0@296:H[4] current_uclk@304:H num_partition@306:H xcp_stats@312:xcp0[8]
    pcie_lc_perf_other_end_recovery@1656:I
"""

_V1_7 = """
    temperature_hotspot@4:H temperature_mem@6:H temperature_vrsoc@8:H curr_socket_power@10:H
    average_gfx_activity@12:H average_umc_activity@14:H mem_max_bandwidth@16:Q energy_accumulator@24:Q
    system_clock_counter@32:Q accumulation_counter@40:I prochot_residency_acc@44:I
    ppt_residency_acc@48:I socket_thm_residency_acc@52:I vr_thm_residency_acc@56:I
    hbm_thm_residency_acc@60:I gfxclk_lock_status@64:I pcie_link_width@68:H pcie_link_speed@70:H
    xgmi_link_width@72:H xgmi_link_speed@74:H gfx_activity_acc@76:I mem_activity_acc@80:I
    pcie_bandwidth_acc@88:Q pcie_bandwidth_inst@96:Q pcie_l0_to_recov_count_acc@104:Q
    pcie_replay_count_acc@112:Q pcie_replay_rover_count_acc@120:Q pcie_nak_sent_count_acc@128:I
    pcie_nak_rcvd_count_acc@132:I xgmi_read_data_acc@136:Q[8] xgmi_write_data_acc@200:Q[8]
    xgmi_link_status@264:H[8] firmware_timestamp@288:Q current_gfxclk@296:H[8] current_socclk@312:H[4]
    current_vclk0@320:H[4] current_dclk0@328:H[4] current_uclk@336:H num_partition@338:H
    xcp_stats@344:xcp1[8] pcie_lc_perf_other_end_recovery@2200:I
"""

_V1_8 = """
    temperature_hotspot@4:H temperature_mem@6:H temperature_vrsoc@8:H curr_socket_power@10:H
    average_gfx_activity@12:H average_umc_activity@14:H mem_max_bandwidth@16:Q energy_accumulator@24:Q
    system_clock_counter@32:Q accumulation_counter@40:I prochot_residency_acc@44:I
    ppt_residency_acc@48:I socket_thm_residency_acc@52:I vr_thm_residency_acc@56:I
    hbm_thm_residency_acc@60:I gfxclk_lock_status@64:I pcie_link_width@68:H pcie_link_speed@70:H
    xgmi_link_width@72:H xgmi_link_speed@74:H gfx_activity_acc@76:I mem_activity_acc@80:I
    pcie_bandwidth_acc@88:Q pcie_bandwidth_inst@96:Q pcie_l0_to_recov_count_acc@104:Q
    pcie_replay_count_acc@112:Q pcie_replay_rover_count_acc@120:Q pcie_nak_sent_count_acc@128:I
    pcie_nak_rcvd_count_acc@132:I xgmi_read_data_acc@136:Q[8] xgmi_write_data_acc@200:Q[8]
    xgmi_link_status@264:H[8] firmware_timestamp@288:Q current_gfxclk@296:H[8] current_socclk@312:H[4]
    current_vclk0@320:H[4] current_dclk0@328:H[4] current_uclk@336:H num_partition@338:H
    xcp_stats@344:xcp2[8] pcie_lc_perf_other_end_recovery@3864:I
"""

_V2_0 = """
    system_clock_counter@8:Q temperature_gfx@16:H temperature_soc@18:H temperature_core@20:H[8]
    temperature_l3@36:H[2] average_gfx_activity@40:H average_mm_activity@42:H average_socket_power@44:H
    average_cpu_power@46:H average_soc_power@48:H average_gfx_power@50:H average_core_power@52:H[8]
    average_gfxclk_frequency@68:H average_socclk_frequency@70:H average_uclk_frequency@72:H
    average_fclk_frequency@74:H average_vclk_frequency@76:H average_dclk_frequency@78:H
    current_gfxclk@80:H current_socclk@82:H current_uclk@84:H current_fclk@86:H current_vclk@88:H
    current_dclk@90:H current_coreclk@92:H[8] current_l3clk@108:H[2] throttle_status@112:I fan_pwm@116:H
"""

_V2_1 = """
    temperature_gfx@4:H temperature_soc@6:H temperature_core@8:H[8] temperature_l3@24:H[2]
    average_gfx_activity@28:H average_mm_activity@30:H system_clock_counter@32:Q
    average_socket_power@40:H average_cpu_power@42:H average_soc_power@44:H average_gfx_power@46:H
    average_core_power@48:H[8] average_gfxclk_frequency@64:H average_socclk_frequency@66:H
    average_uclk_frequency@68:H average_fclk_frequency@70:H average_vclk_frequency@72:H
    average_dclk_frequency@74:H current_gfxclk@76:H current_socclk@78:H current_uclk@80:H
    current_fclk@82:H current_vclk@84:H current_dclk@86:H current_coreclk@88:H[8] current_l3clk@104:H[2]
    throttle_status@108:I fan_pwm@112:H
"""

_V2_2 = (
    _V2_1
    + """
    indep_throttle_status@120:Q
"""
)

_V2_3 = (
    _V2_2
    + """
    average_temperature_gfx@128:H average_temperature_soc@130:H average_temperature_core@132:H[8]
    average_temperature_l3@148:H[2]
"""
)

_V2_4 = (
    _V2_3
    + """
    average_cpu_voltage@152:H average_soc_voltage@154:H average_gfx_voltage@156:H
    average_cpu_current@158:H average_soc_current@160:H average_gfx_current@162:H
"""
)

_V3_0 = """
    temperature_gfx@4:H temperature_soc@6:H temperature_core@8:H[16] temperature_skin@40:H
    average_gfx_activity@42:H average_vcn_activity@44:H average_ipu_activity@46:H[8]
    average_core_c0_activity@62:H[16] average_dram_reads@94:H average_dram_writes@96:H
    average_ipu_reads@98:H average_ipu_writes@100:H system_clock_counter@104:Q
    average_socket_power@112:I average_ipu_power@116:H average_apu_power@120:I average_gfx_power@124:I
    average_dgpu_power@128:I average_all_core_power@132:I average_core_power@136:H[16]
    average_sys_power@168:H stapm_power_limit@170:H current_stapm_power_limit@172:H
    average_gfxclk_frequency@174:H average_socclk_frequency@176:H average_vpeclk_frequency@178:H
    average_ipuclk_frequency@180:H average_fclk_frequency@182:H average_vclk_frequency@184:H
    average_uclk_frequency@186:H average_mpipu_frequency@188:H current_coreclk@190:H[16]
    current_core_maxfreq@222:H current_gfx_maxfreq@224:H throttle_residency_prochot@228:I
    throttle_residency_spl@232:I throttle_residency_fppt@236:I throttle_residency_sppt@240:I
    throttle_residency_thm_core@244:I throttle_residency_thm_gfx@248:I throttle_residency_thm_soc@252:I
    time_filter_alphavalue@256:I
"""

_STRUCTURES = {
    (1, 0): (80, _V1_0),
    (1, 1): (96, _V1_1),
    (1, 2): (104, _V1_2),
    (1, 3): (120, _V1_3),
    (1, 4): (288, _V1_4),
    (1, 5): (360, _V1_5),
    (1, 6): (1664, _V1_6),
    (1, 7): (2208, _V1_7),
    (1, 8): (3872, _V1_8),
    (2, 0): (120, _V2_0),
    (2, 1): (120, _V2_1),
    (2, 2): (128, _V2_2),
    (2, 3): (152, _V2_3),
    (2, 4): (168, _V2_4),
    (3, 0): (264, _V3_0),
}

_PARTITION = {
    "xcp0": (168, "gfx_busy_inst@0:I[8] jpeg_busy@32:H[32] vcn_busy@96:H[4] gfx_busy_acc@104:Q[8]"),
    "xcp1": (
        232,
        "gfx_busy_inst@0:I[8] jpeg_busy@32:H[32] vcn_busy@96:H[4] gfx_busy_acc@104:Q[8]"
        " gfx_below_host_limit_acc@168:Q[8]",
    ),
    "xcp2": (
        440,
        "gfx_busy_inst@0:I[8] jpeg_busy@32:H[40] vcn_busy@112:H[4] gfx_busy_acc@120:Q[8]"
        " gfx_below_host_limit_ppt_acc@184:Q[8] gfx_below_host_limit_thm_acc@248:Q[8]"
        " gfx_low_utilization_acc@312:Q[8] gfx_below_host_limit_total_acc@376:Q[8]",
    ),
}
"""Size and fields of amdgpu_xcp_metrics, _v1_1 and _v1_2."""

_LINE = re.compile(r"(\w+)@(\d+):(\w+)(?:\[(\d+)\])?")


def _fields(text: str) -> Iterator[tuple[str, Field]]:
    for name, offset, code, count in _LINE.findall(text):
        if code in _PARTITION:
            size, inner = _PARTITION[code]
            for partition in range(int(count)):
                start = int(offset) + partition * size
                for part, one in _fields(inner):
                    yield f"xcp{partition}.{part}", replace(one, offset=start + one.offset)
        else:
            yield name, Field(int(offset), code, int(count or 1))


def _tables() -> Iterator[Layout]:
    for revision, (size, text) in _STRUCTURES.items():
        fields = dict(_fields(text))
        yield Layout(revision, size, fields)
        if revision[1] == 0 and revision[0] < 3:
            earlier = {name: replace(one, offset=one.offset - 4) for name, one in fields.items()}
            yield Layout(revision, size - 4, earlier)


TABLES: Mapping[tuple[int, int, int], Layout] = {
    (*layout.revision, layout.size): layout for layout in _tables()
}
"""(format, content revision, size) -> layout."""
