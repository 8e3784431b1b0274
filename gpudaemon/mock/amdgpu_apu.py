"""amdgpu's files of a Phoenix APU (gc 11.0.1), as Linux 6.12 shows them.

An APU has no memory, fan, power cap, critical temperature and serial number of its own: its VRAM is a carve-out
of the host's memory, its power the package's, its one temperature `edge`. hwmon has both power1_average and
power1_input; two files are there and empty (pp_dpm_pcie, pp_dpm_dcefclk). Sources: pm/amdgpu_pm.c and
pm/swsmu/smu13/smu_v13_0_4_ppt.c in drivers/gpu/drm/amd.
"""

from gpudaemon.mock.amdgpu import Card, add_nodes
from gpudaemon.mock.gpu_metrics import metrics_v2_1
from gpudaemon.mock.model import Chip
from gpudaemon.mock.pci import add_class_device
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Generate, Tree

__all__ = ["PHOENIX", "add_apu"]

PHOENIX = Chip(
    idle=4, cap=45, peak=52, low=800, high=2700, memory_low=400, memory_high=800, memory=2**32, hot=92,
    limit=100, link=28e9,
)  # fmt: skip

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
        now = levels[_level(card, seconds, len(levels))] if moving else levels[0]
        return "".join(_line(level, clock, now) for level, clock in enumerate(levels)).encode()

    return content


def _sclk(card: Card) -> Generate:
    low, high = card.gpu.chip.low, card.gpu.chip.high

    def content(seconds: float) -> bytes:
        now = card.clock(card.gpu.at(seconds))
        middle = _PEAK if now in (low, high) else now
        return "".join(_line(level, clock, now) for level, clock in enumerate((low, middle, high))).encode()

    return content


def _level(card: Card, seconds: float, count: int) -> int:
    """Which of so many levels: the lowest while the memory runs at its lowest clock, else by the load."""
    state = card.gpu.at(seconds)
    if state.memory_clock <= card.gpu.chip.memory_low:
        return 0
    return max(1, int(state.busy * count * 0.999))


def add_apu(tree: Tree, card: Card, gtt: int) -> None:
    """The GPU of a Phoenix. vram of the card: its carve-out; gtt: bytes of the host's memory it may map."""
    path, gpu = card.function.path, card.gpu
    tree.file(f"{path}/gpu_busy_percent", generate=shown(gpu, lambda now: 100 * now.busy))
    for pool in ("vram", "vis_vram"):
        tree.file(f"{path}/mem_info_{pool}_used", generate=shown(gpu, card.used, 4096))
        tree.text(path, **{f"mem_info_{pool}_total": gpu.chip.memory})
    tree.file(f"{path}/mem_info_gtt_used", generate=shown(gpu, lambda now: gtt * now.filled / 8, 4096))
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
        generate=lambda t: metrics_v2_1(gpu.at(t), tree.clock.boottime(t)),
    )
    add_nodes(tree, path, card.index, card.render)
    _add_hwmon(tree, card)


def _add_hwmon(tree: Tree, card: Card) -> None:
    chip, gpu = f"{card.function.path}/hwmon/hwmon{card.hwmon}", card.gpu
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="amdgpu", power1_label="PPT", freq1_label="sclk", temp1_label="edge")
    tree.text(chip, in0_label="vddgfx", in1_label="vddnb")
    tree.file(f"{chip}/temp1_input", generate=shown(gpu, lambda now: 1000 * now.edge, 1000))
    tree.file(f"{chip}/in0_input", generate=shown(gpu, lambda now: 1000 * now.volts))
    tree.file(f"{chip}/in1_input", generate=shown(gpu, lambda now: 615 + 200 * now.busy))
    # The average trails the input by about the firmware's filter.
    tree.file(f"{chip}/power1_input", generate=shown(gpu, lambda now: 1e6 * now.power, 1000))
    tree.file(f"{chip}/power1_average", generate=shown(gpu, lambda now: 1e6 * now.slow_power, 1000))
    tree.file(f"{chip}/freq1_input", generate=shown(gpu, card.clock, end=b"000000\n"))
