"""gpu_metrics 1.9: a stream of attributes that describes itself.

After the header a signed 32-bit count; then, without padding, that many records of a 64-bit word and its
values. The word says unit (bits 31 to 24), type (23 to 20), which attribute (19 to 10) and how many values
(9 to 0).
Records are in no order, and a driver may send others: those of an unknown attribute are stepped over.

drivers/gpu/drm/amd/include/kgd_pp_interface.h (AMDGPU_METRICS_ENC_ATTR, enum amdgpu_metrics_attr_id),
drivers/gpu/drm/amd/pm/swsmu/smu_cmn.h (DECLARE_SMU_METRICS_CLASS); SMU 13.0.6, 13.0.12, 13.0.14, 15.0.8.
"""

import struct

from gpudaemon.errors import Malformed
from gpudaemon.parsers.gpu_metrics.layouts import Field, Layout

__all__ = ["ATTRIBUTES", "CODES", "stream_layout"]

CODES = "BbHhIiQq"
"""Types 0 to 7: enum amdgpu_metrics_attr_type."""

ATTRIBUTES = (
    *("temperature_hotspot", "temperature_mem", "temperature_vrsoc", "curr_socket_power"),
    *("average_gfx_activity", "average_umc_activity", "mem_max_bandwidth", "energy_accumulator"),
    *("system_clock_counter", "accumulation_counter", "prochot_residency_acc", "ppt_residency_acc"),
    *("socket_thm_residency_acc", "vr_thm_residency_acc", "hbm_thm_residency_acc", "gfxclk_lock_status"),
    *("pcie_link_width", "pcie_link_speed", "xgmi_link_width", "xgmi_link_speed"),
    *("gfx_activity_acc", "mem_activity_acc", "pcie_bandwidth_acc", "pcie_bandwidth_inst"),
    *("pcie_l0_to_recov_count_acc", "pcie_replay_count_acc", "pcie_replay_rover_count_acc"),
    *("pcie_nak_sent_count_acc", "pcie_nak_rcvd_count_acc", "xgmi_read_data_acc", "xgmi_write_data_acc"),
    *("xgmi_link_status", "firmware_timestamp", "current_gfxclk", "current_socclk", "current_vclk0"),
    *("current_dclk0", "current_uclk", "num_partition", "pcie_lc_perf_other_end_recovery"),
    *("gfx_busy_inst", "jpeg_busy", "vcn_busy", "gfx_busy_acc", "gfx_below_host_limit_ppt_acc"),
    *("gfx_below_host_limit_thm_acc", "gfx_low_utilization_acc", "gfx_below_host_limit_total_acc"),
    *("temperature_hbm", "temperature_mid", "temperature_aid", "temperature_xcd"),
)
"""Attributes 0 to 51 by the name their field has in the structures: enum amdgpu_metrics_attr_id."""

_COUNT = struct.Struct("<i")
_WORD = struct.Struct("<Q")
_FIRST = 8
_MOST = 512


def stream_layout(content: bytes, size: int) -> Layout:
    """Where the values of a 1.9 stream of `size` bytes lie; raises Malformed.

    An attribute that comes twice counts where it comes first.
    """
    if size < _FIRST:
        raise Malformed("format")
    count = _COUNT.unpack_from(content, 4)[0]
    if not 0 <= count <= _MOST:
        raise Malformed("out_of_range")
    fields: dict[str, Field] = {}
    marks = []
    place = _FIRST
    for _ in range(count):
        if place + _WORD.size > size:
            raise Malformed("format")
        word = _WORD.unpack_from(content, place)[0]
        kind, values = word >> 20 & 0xF, word & 0x3FF
        if kind >= len(CODES) or not values or word >> 32:
            raise Malformed("format")
        marks.append((place, word))
        place += _WORD.size
        name, code = word >> 10 & 0x3FF, CODES[kind]
        if name < len(ATTRIBUTES):
            fields.setdefault(ATTRIBUTES[name], Field(place, code, values))
        place += values * struct.calcsize(f"<{code}")
    if place != size:
        raise Malformed("format")
    return Layout((1, 9), size, fields, tuple(marks))
