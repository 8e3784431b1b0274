"""Units of gpu_metrics fields, revision by revision.

1.x: °C, W, percent, MHz, mV. 2.x and 3.0 (APUs): hundredths of °C, mW, MHz, mV, mA. What does not say which
unit it has gives no number here:

- the activities of APUs are percent or hundredths of one, by chip and by firmware;
- `average_socket_power` of 2.x is W on some chips and mW on others (a Raphael's says 27 where its
  `average_gfx_power` says 4803), and all powers of 2.0 and 2.2 are either on Renoir;
- `energy_accumulator` of 1.0 to 1.3 has a unit of its own on each chip;
- `pcie_bandwidth_acc` and `_inst` were documented as GB/s and as Mb/s.

drivers/gpu/drm/amd/include/kgd_pp_interface.h; drivers/gpu/drm/amd/pm/swsmu/smu*/*_ppt.c, *_get_gpu_metrics.
"""

import re

from gpudaemon.parsers.gpu_metrics.layouts import Layout
from gpudaemon.parsers.gpu_metrics.table import Pick

__all__ = ["pick"]

_HOTTEST = 250
_MOST_WATTS = 20_000
_MOST_MEGAHERTZ = 20_000
_MOST_MILLIVOLTS = 20_000
_MOST_MILLIAMPERES = 65_534
_MOST_ROUNDS = 60_000
_LANES = 32
_KILOBYTE = 1024
_COUNTERS_IN_KILOBYTES = ("xgmi_read_data_acc", "xgmi_write_data_acc")
_ACTIVITY = re.compile(r"\w+_activity|\w+_busy|gfx_busy_inst", re.ASCII)
_CLOCK = re.compile(r"current_\w*clk\d?|\w+_frequency|\w+_maxfreq", re.ASCII)
_APU_POWERS_IN_DOUBT = ((2, 0), (2, 2))


def pick(layout: Layout, field: str, index: int = 0) -> Pick | None:
    """An element with its unit; None where the table has it not, or nobody can say in which unit it is."""
    found = layout.fields.get(field)
    if found is None or index >= found.count:
        return None
    unit = _unit(layout, field.partition(".")[2] or field)
    if unit is None:
        return None
    factor, divisor, least, most = unit
    return Pick(field, index, factor, divisor, least, most)


_Unit = tuple[int, int, int, int]
"""factor, divisor, least and most of the element"""


def _unit(layout: Layout, name: str) -> _Unit | None:
    apu = layout.revision[0] > 1
    if "temperature" in name:
        scale = 100 if apu else 1
        return 1, scale, -100 * scale, _HOTTEST * scale
    if name.endswith(("_power", "_power_limit")):
        return _power(layout, name)
    if _ACTIVITY.fullmatch(name):
        return None if apu else (1, 100, 0, 100)
    if _CLOCK.fullmatch(name):
        return 1_000_000, 1, 0, _MOST_MEGAHERTZ
    if "voltage" in name:
        return 1, 1000, 0, _MOST_MILLIVOLTS
    return _APU.get(name) if apu else _accumulated(layout, name)


def _power(layout: Layout, name: str) -> _Unit | None:
    if layout.revision[0] == 1:
        return 1, 1, 0, _MOST_WATTS
    if layout.revision in _APU_POWERS_IN_DOUBT or (layout.revision[0] == 2 and name == "average_socket_power"):
        return None
    return 1, 1000, 0, _MOST_WATTS * 1000


_COUNT: _Unit = (1, 1, 0, 0xFFFFFFFFFFFFFFFE)
_MEGABYTES_A_SECOND: _Unit = (1_000_000, 1, 0, 0xFFFE)
_CURRENT: _Unit = (1, 1000, 0, _MOST_MILLIAMPERES)

_APU: dict[str, _Unit] = {
    "average_dram_reads": _MEGABYTES_A_SECOND,
    "average_dram_writes": _MEGABYTES_A_SECOND,
    "average_ipu_reads": _MEGABYTES_A_SECOND,
    "average_ipu_writes": _MEGABYTES_A_SECOND,
    "average_cpu_current": _CURRENT,
    "average_soc_current": _CURRENT,
    "average_gfx_current": _CURRENT,
    **{
        f"throttle_residency_{name}": _COUNT
        for name in ("prochot", "spl", "fppt", "sppt", "thm_core", "thm_gfx", "thm_soc")
    },
}

_PLAIN: dict[str, _Unit] = {
    "current_fan_speed": (1, 1, 0, _MOST_ROUNDS),
    "pcie_link_width": (1, 1, 1, _LANES),
    "pcie_link_speed": (100_000_000, 1, 1, 1280),
    "xgmi_link_width": (1, 1, 0, 64),
    "xgmi_link_speed": (1_000_000_000, 1, 0, 1000),
    "xgmi_link_status": (1, 1, 0, 1),
    "num_partition": (1, 1, 0, 64),
}


def _accumulated(layout: Layout, name: str) -> _Unit | None:
    """Units of links and of counters of 1.x."""
    if name in _PLAIN:
        return _PLAIN[name]
    if name == "energy_accumulator":
        return (1, 65536, 0, 0xFFFFFFFFFFFFFFFE) if layout.revision[1] >= 4 else None
    if name in _COUNTERS_IN_KILOBYTES:
        return _KILOBYTE, 1, 0, 0xFFFFFFFFFFFFFFFE
    if name in ("gfx_activity_acc", "mem_activity_acc", "gfx_busy_acc"):
        return (1, 100, 0, 0xFFFFFFFFFFFFFFFE) if layout.revision[1] >= 4 else None
    counts = (
        "residency_acc",
        "_count_acc",
        "limit_acc",
        "_ppt_acc",
        "_thm_acc",
        "_total_acc",
        "utilization_acc",
    )
    if name in ("accumulation_counter", "pcie_lc_perf_other_end_recovery") or name.endswith(counts):
        return _COUNT
    return None
