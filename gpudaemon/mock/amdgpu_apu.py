"""amdgpu's files of a Phoenix APU (gc 11.0.1), as Linux 6.12 shows them.

An APU has no memory, fan, power cap, critical temperature and serial number of its own: its VRAM is a carve-out
of the host's memory, its power the package's, its one temperature `edge`. hwmon has both power1_average and
power1_input; two files are there and empty (pp_dpm_pcie, pp_dpm_dcefclk). Sources: pm/amdgpu_pm.c and
pm/swsmu/smu13/smu_v13_0_4_ppt.c in drivers/gpu/drm/amd.
"""

from gpudaemon.mock.amdgpu import Card, add_nodes
from gpudaemon.mock.gpu_metrics import metrics_v2_1
from gpudaemon.mock.motion import integer
from gpudaemon.mock.pci import add_class_device
from gpudaemon.mock.tree import Generate, Tree

__all__ = ["add_apu"]

_PEAK = 1100  # MHz, the level in the middle of pp_dpm_sclk while the clock is at one of its ends
_LEVELS = {
    "mclk": (400, 800, 800, 800),
    "fclk": (400, 800, 1200, 1600),
    "socclk": (400, 600, 720, 800, 900, 1028, 1028, 1200),
    "vclk": (800, 800, 1200, 1309, 1440, 1600, 2057, 2400),
    "dclk": (800, 800, 900, 1028, 1107, 1200, 1600, 2057),
}
_FIRMWARE = {
    "asd": 0x2100_0104,
    "dmcub": 0x0800_5400,
    "imu": 0x0B01_2D00,
    "me": 0x63,
    "mec": 0x43,
    "mes": 0x80,
    "mes_kiq": 0x106,
    "pfp": 0x67,
    "rlc": 0x8A,
    "sdma": 0x17,
    "smc": 0x4C_6000,
    "vcn": 0x0911_801B,
}


def _line(level: int, clock: int, now: int) -> str:
    return f"{level}: {clock}Mhz {'*' if clock == now else ''}\n"


def _levels(card: Card, levels: tuple[int, ...], moving: bool) -> Generate:
    """Levels of a clock; one that is listed twice is starred twice (smu_v13_0_4_print_clk_levels)."""

    def content(seconds: float) -> bytes:
        now = levels[int(card.load.busy(seconds) * len(levels) * 0.999)] if moving else levels[0]
        return "".join(_line(level, clock, now) for level, clock in enumerate(levels)).encode()

    return content


def _sclk(card: Card) -> Generate:
    low, high = card.clocks

    def content(seconds: float) -> bytes:
        now = card.clock(seconds)
        middle = _PEAK if now in (low, high) else now
        return "".join(_line(level, clock, now) for level, clock in enumerate((low, middle, high))).encode()

    return content


def _memory_clock(card: Card, seconds: float) -> int:
    levels = _LEVELS["mclk"]
    return levels[int(card.load.busy(seconds) * len(levels) * 0.999)]


def add_apu(tree: Tree, card: Card, gtt: int) -> None:
    """The GPU of a Phoenix. vram of the card: its carve-out; gtt: bytes of the host's memory it may map."""
    path = card.function.path
    tree.file(f"{path}/gpu_busy_percent", generate=integer(lambda t: 100 * card.load.busy(t)))
    for pool in ("vram", "vis_vram"):
        tree.file(f"{path}/mem_info_{pool}_used", generate=integer(card.used, 4096))
        tree.text(path, **{f"mem_info_{pool}_total": card.vram})
    tree.file(f"{path}/mem_info_gtt_used", generate=integer(lambda t: gtt * card.load.filled(t) / 8, 4096))
    tree.text(
        path,
        mem_info_gtt_total=gtt,
        mem_info_preempt_used=0,
        vcn_busy_percent=0,
        vbios_version="113-PHXGENERIC-001",
        vbios_build="00132130",
        pp_num_states="states: 1\n0 default",
        pp_cur_state=0,
    )
    tree.file(f"{path}/unique_id", b"")
    tree.text(
        path, 0o644, power_dpm_force_performance_level="auto", power_dpm_state="performance", pp_force_state=""
    )
    tree.file(
        f"{path}/thermal_throttling_logging",
        f"{card.function.address}: thermal throttling logging enabled, with interval 60 seconds\n",
        mode=0o644,
    )
    tree.text(f"{path}/fw_version", **{f"{name}_fw_version": f"0x{v:08x}" for name, v in _FIRMWARE.items()})
    tree.file(f"{path}/pp_dpm_sclk", generate=_sclk(card), mode=0o644)
    for name, levels in _LEVELS.items():
        moving = name in ("mclk", "fclk", "socclk")
        tree.file(f"{path}/pp_dpm_{name}", generate=_levels(card, levels, moving), mode=0o644)
    for name in ("pcie", "dcefclk"):
        tree.file(f"{path}/pp_dpm_{name}", b"", mode=0o644)
    tree.file(
        f"{path}/gpu_metrics",
        generate=lambda t: metrics_v2_1(
            card.load, t, power=card.power(t), clocks=(card.clock(t), _memory_clock(card, t))
        ),
    )
    add_nodes(tree, path, card.index, card.render)
    _add_hwmon(tree, card)


def _add_hwmon(tree: Tree, card: Card) -> None:
    chip = f"{card.function.path}/hwmon/hwmon{card.hwmon}"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="amdgpu", power1_label="PPT", freq1_label="sclk", temp1_label="edge")
    tree.text(chip, in0_label="vddgfx", in1_label="vddnb")
    tree.file(f"{chip}/temp1_input", generate=integer(lambda t: 1000 * (25 + 55 * card.load.warm(t)), 1000))
    tree.file(f"{chip}/in0_input", generate=integer(lambda t: 700 + 450 * card.load.busy(t)))
    tree.file(f"{chip}/in1_input", generate=integer(lambda t: 615 + 200 * card.load.busy(t)))
    # The average trails the input by about the firmware's filter.
    tree.file(f"{chip}/power1_input", generate=integer(lambda t: 1e6 * card.power(t), 1000))
    tree.file(f"{chip}/power1_average", generate=integer(lambda t: 1e6 * card.power(t - 1), 1000))
    tree.file(f"{chip}/freq1_input", generate=lambda t: b"%d000000\n" % card.clock(t))
