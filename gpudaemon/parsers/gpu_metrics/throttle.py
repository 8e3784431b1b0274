"""Why the firmware holds clocks down, as a gpu_metrics table names it.

`indep_throttle_status`, in tables 1.3 and 2.2 to 2.4, has bits that mean the same on every chip;
`throttle_status` before it does not, and says nothing without the chip's own list. 1.6 and later have counters
instead: in how many of `accumulation_counter`'s ticks the clocks were held down for a reason.

drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h (SMU_THROTTLER_*_BIT),
drivers/gpu/drm/amd/include/kgd_pp_interface.h (*_residency_acc).
"""

__all__ = ["REASONS", "RESIDENCIES", "throttle_values"]

_BITS = {
    "power": {0: "ppt0", 1: "ppt1", 2: "ppt2", 3: "ppt3", 4: "spl", 5: "fppt", 6: "sppt", 7: "sppt_apu"},
    "current": {
        **{16: "tdc_gfx", 17: "tdc_soc", 18: "tdc_mem", 19: "tdc_vdd", 20: "tdc_cvip"},
        **{21: "edc_cpu", 22: "edc_gfx", 23: "apcc"},
    },
    "thermal": {
        **{32: "temp_gpu", 33: "temp_core", 34: "temp_mem", 35: "temp_edge", 36: "temp_hotspot"},
        **{37: "temp_soc", 38: "temp_vr_gfx", 39: "temp_vr_soc", 40: "temp_vr_mem0", 41: "temp_vr_mem1"},
        **{42: "temp_liquid0", 43: "temp_liquid1", 44: "vrhot0", 45: "vrhot1"},
        **{46: "prochot_cpu", 47: "prochot_gfx"},
    },
    "other": {56: "ppm", 57: "fit"},
}
"""cause -> bit -> the kernel's name of it"""

REASONS = tuple((cause, reason) for cause, bits in _BITS.items() for reason in bits.values())
"""(cause, reason) of every bit, in their order."""

RESIDENCIES = (
    *(("thermal", "prochot"), ("power", "ppt"), ("thermal", "socket_thm"), ("thermal", "vr_thm")),
    ("thermal", "hbm_thm"),
)
"""(cause, reason) with a counter `<reason>_residency_acc` in tables 1.6 and later."""

_MASKS = tuple(1 << bit for bits in _BITS.values() for bit in bits)
_NOTHING: tuple[float | None, ...] = (0.0,) * len(_MASKS)
_UNKNOWN: tuple[float | None, ...] = (None,) * len(_MASKS)


def throttle_values(status: int) -> tuple[float | None, ...]:
    """1.0 for each of REASONS that holds clocks down, 0.0 for the others.

    status: `indep_throttle_status`; all ones: not known, None for each.
    """
    if not status:
        return _NOTHING
    if status == 0xFFFFFFFFFFFFFFFF:
        return _UNKNOWN
    return tuple(float(status & mask != 0) for mask in _MASKS)
