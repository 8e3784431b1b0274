"""xe's files of an Arc B580 (Battlemage G21), as Linux 7.3 shows them.

Names, labels, limits and formats are those of a recorded card (ilya-zlobintsev/LACT,
tests/snapshots/intel/b580); drivers/gpu/drm/xe/xe_hwmon.c, xe_gt_freq.c, xe_gt_idle.c, xe_gt_throttle.c,
xe_hw_engine_class_sysfs.c. There is no power reading: two energy counters, of the card and of the package. A GT
that has nothing to do is in C6 and runs at 0 MHz; the endpoint's own link says 2.5 GT/s, the one above it is
real.
"""

from gpudaemon.mock.amdgpu import add_nodes
from gpudaemon.mock.model import Chip, Gpu
from gpudaemon.mock.pci import Function, add_class_device
from gpudaemon.mock.physics import State
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Tree

__all__ = ["B580", "add_b580"]

B580 = Chip(
    idle=21, cap=190, peak=230, low=400, high=2850, memory_low=2375, memory_high=2375, memory=12_216 * 2**20,
    hot=84, limit=97, fan=True, link=14e9,
)  # fmt: skip

_CHANNELS = 12
_ENGINES = {0: ("bcs", "ccs", "rcs"), 1: ("vcs", "vecs")}
_ENGINE_FILES = {
    "job_timeout_max": 10_000,
    "job_timeout_min": 1,
    "job_timeout_ms": 5000,
    "preempt_timeout_max": 10_000_000,
    "preempt_timeout_min": 1,
    "preempt_timeout_us": 640_000,
    "timeslice_duration_max": 10_000_000,
    "timeslice_duration_min": 1,
    "timeslice_duration_us": 1000,
}
_WRITABLE = ("job_timeout_ms", "preempt_timeout_us", "timeslice_duration_us")
_OTHER_REASONS = ("pl2", "pl4", "prochot", "ratl", "vr_tdc", "vr_thermalert")
_FAN_CURVE = (
    *((30, 0), (45, 0), (46, 26), (50, 41), (60, 66)),
    *((68, 74), (72, 89), (75, 105), (80, 135), (85, 135)),
)
_MOST_ROTATIONS = 2160


def _idle(state: State, gt: int) -> bool:
    return state.asleep or (state.busy if gt == 0 else state.media) < 0.01


def _reasons(state: State) -> bytes:
    names = [name for name, on in (("pl1", state.ppt), ("thermal", state.thermal)) if on]
    return b"%s\n" % (" ".join(names) or "none").encode()


def _add_gt(tree: Tree, gpu: Gpu, path: str, gt: int) -> None:
    """One GT: 0 is the render GT, 1 the media GT."""
    highest, least = ((2850, 400), (1500, 1200))[gt]
    freq = f"{path}/freq0"
    tree.text(freq, rp0_freq=highest, rpa_freq=highest, rpe_freq=400, rpn_freq=400)
    tree.text(freq, 0o644, min_freq=least, max_freq=highest, power_profile="[base]    power_saving")

    def clock(state: State) -> float:
        return state.clock if gt == 0 else least + (highest - least) * state.media

    tree.file(f"{freq}/cur_freq", generate=shown(gpu, clock, 50))
    tree.file(f"{freq}/act_freq", generate=shown(gpu, lambda now: 0 if _idle(now, gt) else clock(now), 50))
    tree.file(f"{freq}/throttle/status", generate=shown(gpu, lambda now: now.ppt or now.thermal))
    tree.file(f"{freq}/throttle/reasons", generate=lambda t: _reasons(gpu.at(t)))
    tree.file(f"{freq}/throttle/reason_pl1", generate=shown(gpu, lambda now: now.ppt))
    tree.file(f"{freq}/throttle/reason_thermal", generate=shown(gpu, lambda now: now.thermal))
    tree.text(f"{freq}/throttle", **{f"reason_{name}": 0 for name in _OTHER_REASONS})
    tree.text(f"{path}/gtidle", name=("gt0-rc", "gt1-mc")[gt])
    tree.file(
        f"{path}/gtidle/idle_status", generate=lambda t: b"gt-c6\n" if _idle(gpu.at(t), gt) else b"gt-c0\n"
    )
    tree.file(
        f"{path}/gtidle/idle_residency_ms",
        generate=shown(
            gpu, lambda now: 1000 * (now.idle_seconds if gt == 0 else now.idle_seconds + now.worked)
        ),
    )
    for engine in _ENGINES[gt]:
        for name, value in _ENGINE_FILES.items():
            mode = 0o644 if name in _WRITABLE else 0o444
            tree.file(f"{path}/engines/{engine}/{name}", f"{value}\n", mode=mode)
            tree.file(f"{path}/engines/{engine}/.defaults/{name}", f"{value}\n")


def _add_temperatures(tree: Tree, gpu: Gpu, chip: str) -> None:
    def package(state: State) -> float:
        return 1000 * state.hotspot

    def memory(state: State) -> float:
        return 1000 * state.hbm

    channels = {2: "pkg", 3: "vram", 4: "mctrl", 5: "pcie"}
    channels |= {6 + number: f"vram_ch_{number}" for number in range(_CHANNELS)}
    for channel, label in channels.items():
        hot = label.startswith("vram")
        tree.text(chip, **{f"temp{channel}_label": label})
        tree.text(chip, **{f"temp{channel}_crit": 105_000 if hot else 100_000})
        tree.text(chip, **{f"temp{channel}_emergency": 120_000 if hot else 125_000})
        tree.file(f"{chip}/temp{channel}_input", generate=shown(gpu, memory if hot else package, 1000))
    tree.text(chip, temp2_max=60_000)


def _add_hwmon(tree: Tree, gpu: Gpu, chip: str) -> None:
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="xe", power1_label="card", energy1_label="card", energy2_label="pkg")
    tree.text(chip, 0o644, power1_cap=190_000_000, power1_cap_interval=15, power1_crit=380_000_000)
    tree.file(f"{chip}/energy1_input", generate=shown(gpu, lambda now: 1e6 * now.driver_energy))
    tree.file(f"{chip}/energy2_input", generate=shown(gpu, lambda now: 0.8e6 * now.driver_energy))
    _add_temperatures(tree, gpu, chip)
    for fan in (1, 2, 3):
        tree.file(f"{chip}/fan{fan}_input", generate=shown(gpu, lambda now: _MOST_ROTATIONS * now.fan))
        tree.text(chip, **{f"fan{fan}_max": _MOST_ROTATIONS})
        tree.text(chip, 0o644, **{f"pwm{fan}": 0, f"pwm{fan}_enable": 2})
        for point, (degrees, pwm) in enumerate(_FAN_CURVE, start=1):
            tree.text(chip, 0o644, **{f"pwm{fan}_auto_point{point}_temp": 1000 * degrees})
            tree.text(chip, 0o644, **{f"pwm{fan}_auto_point{point}_pwm": pwm})


def add_b580(tree: Tree, function: Function, gpu: Gpu, *, card: int, render: int, hwmon: int) -> None:
    """Everything below the function's own files. card, render, hwmon: numbers of its nodes and chip."""
    path = function.path
    add_nodes(tree, path, card, render)
    for gt in (0, 1):
        _add_gt(tree, gpu, f"{path}/tile0/gt{gt}", gt)
    tree.text(f"{path}/tile0/gt0", num_cslices=2)
    tree.file(f"{path}/tile0/gt0/ccs_mode", b"1\n", mode=0o644)
    tree.file(f"{path}/vram_d3cold_threshold", b"300\n", mode=0o644)
    for name, value in (
        ("auto_link_downgrade_capable", "0"),
        ("auto_link_downgrade_status", "0"),
        ("lb_fan_control_version", "0.0.0.0"),
        ("lb_voltage_regulator_version", "0.0.0.0"),
    ):
        tree.file(f"{path}/{name}", f"{value}\n", mode=0o400)
    _add_hwmon(tree, gpu, f"{path}/hwmon/hwmon{hwmon}")
