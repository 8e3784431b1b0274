"""The hosts without a big GPU: what a Phoenix APU has and lacks, where other chips hang, what sleeps."""

import re
import struct

import pytest

from gpudaemon.mock import profiles
from gpudaemon.mock.live import LiveTree
from gpudaemon.mock.tree import File, Tree

APU = "sys/devices/pci0000:00/0000:00:08.1/0000:c4:00.0"
DISCRETE = "sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"


@pytest.fixture(scope="module")
def tree() -> Tree:
    return profiles()["laptop"].tree()


def text(tree: Tree, path: str, seconds: float = 0.0) -> str:
    entry = tree.entries[tree.resolve(path)]
    assert isinstance(entry, File)
    return entry.at(seconds).decode()


def test_an_apu_has_no_fan_no_cap_and_one_temperature(tree: Tree) -> None:
    chip = {inside for inside, _ in tree.below(f"{APU}/hwmon/hwmon4") if "/" not in inside}
    assert chip >= {"in0_input", "in1_input", "power1_input", "power1_average", "freq1_input", "temp1_input"}
    assert not [name for name in chip if re.match(r"fan|pwm|power1_cap|temp[23]|temp1_crit|freq2", name)]
    names = {inside for inside, _ in tree.below(APU)}
    absent = {"mem_busy_percent", "mem_info_vram_vendor", "pcie_replay_count", "serial_number", "board_info"}
    assert not names & absent
    assert "vcn_busy_percent" in names
    assert text(tree, f"{APU}/pp_dpm_pcie") == text(tree, f"{APU}/unique_id") == ""


@pytest.mark.parametrize("seconds", [0.0, 20.0, 41.0])
def test_apu_clocks(tree: Tree, seconds: float) -> None:
    mhz = int(text(tree, f"{APU}/hwmon/hwmon4/freq1_input", seconds)) // 10**6
    starred = re.findall(r"(\d+)Mhz \*", text(tree, f"{APU}/pp_dpm_sclk", seconds))
    assert [int(clock) for clock in starred] == [mhz]
    for name in ("mclk", "fclk", "socclk", "vclk", "dclk"):
        levels = text(tree, f"{APU}/pp_dpm_{name}", seconds)
        assert re.fullmatch(r"(\d: \d+Mhz \*?\n){4,8}", levels), levels
        assert len(set(re.findall(r"(\d+)Mhz \*", levels))) == 1, levels


def test_apu_table_agrees_with_the_text_files(tree: Tree) -> None:
    for seconds in (0.0, 33.0):
        entry = tree.entries[f"{APU}/gpu_metrics"]
        assert isinstance(entry, File)
        table = entry.at(seconds)
        assert (len(table), *struct.unpack_from("<HBB", table)) == (120, 120, 2, 1)
        degrees, milliwatts = (struct.unpack_from("<H", table, offset)[0] for offset in (4, 40))
        assert degrees // 100 * 1000 == int(text(tree, f"{APU}/hwmon/hwmon4/temp1_input", seconds))
        assert milliwatts * 1000 == int(text(tree, f"{APU}/hwmon/hwmon4/power1_input", seconds))
        (gfx,) = struct.unpack_from("<H", table, 64)
        assert gfx * 10**6 == int(text(tree, f"{APU}/hwmon/hwmon4/freq1_input", seconds))
        assert table[76:88] == b"\xff" * 12  # the firmware gives averages only


def test_carve_out_and_shared_memory(tree: Tree) -> None:
    for seconds in range(0, 600, 31):
        for pool in ("vram", "vis_vram", "gtt"):
            total = int(text(tree, f"{APU}/mem_info_{pool}_total"))
            assert 0 < int(text(tree, f"{APU}/mem_info_{pool}_used", seconds)) < total
    memory = int(text(tree, "proc/meminfo").split()[1]) * 1024
    assert int(text(tree, f"{APU}/mem_info_gtt_total")) == memory // 2


def test_chips_hang_where_the_kernel_hangs_them(tree: Tree) -> None:
    chips = {
        text(tree, f"sys/class/hwmon/hwmon{number}/name").strip(): tree.resolve(
            f"sys/class/hwmon/hwmon{number}"
        )
        for number in range(6)
    }
    assert set(chips) == {"acpitz", "BAT1", "nvme", "k10temp", "amdgpu"}
    assert chips["nvme"].endswith("/0000:c2:00.0/nvme/nvme0/hwmon2")
    assert chips["BAT1"].endswith("/PNP0C0A:00/power_supply/BAT1/hwmon1")
    assert chips["k10temp"].endswith("/0000:00:18.3/hwmon/hwmon3")
    assert chips["acpitz"] == "sys/devices/virtual/thermal/thermal_zone0/hwmon0"
    assert tree.resolve("sys/class/hwmon/hwmon2/device").endswith("/nvme/nvme0")
    assert f"{chips['k10temp'][: -len('/hwmon/hwmon3')]}/current_link_speed" not in tree.entries


def test_the_discrete_gpu_sleeps_with_all_above_it(tree: Tree) -> None:
    live = LiveTree(tree)
    chain = ("0000:00:01.1", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0")
    for address in chain:
        assert text(tree, f"sys/bus/pci/devices/{address}/power/runtime_status") == "suspended\n"
        assert live.device(address).power.read("power/runtime_status", 60) == b"suspended\n"
        assert live.device(address).power.read("power/control", 60) == b"auto\n"
    live.device(chain[-1]).power.touch(70)
    for address in chain:
        assert live.device(address).power.read("power/runtime_status", 71) == b"active\n"
    for address in ("0000:c4:00.0", "0000:00:08.1"):
        assert live.device(address).power.read("power/runtime_status", 71) == b"active\n"


def test_a_host_without_gpus() -> None:
    empty = profiles()["empty"].tree()
    assert not [path for path in empty.entries if path.startswith(("sys/class/drm", "sys/class/accel"))]
    classes = {text(empty, path) for path in empty.entries if re.fullmatch(r"sys/devices/pci.*/class", path)}
    assert classes == {"0x060400\n", "0x010802\n", "0x020000\n"}
    assert sorted(text(empty, f"sys/class/hwmon/hwmon{n}/name") for n in range(3)) == [
        "coretemp\n",
        "coretemp\n",
        "nvme\n",
    ]
