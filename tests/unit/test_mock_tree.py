"""The mock hosts as data: links as kernfs spells them, contents as the drivers print them, always the same."""

import itertools
import os
import re
import stat
import struct

import pytest

from gpudaemon.mock import build, profiles
from gpudaemon.mock.demo import Mover
from gpudaemon.mock.tree import File, Link, Tree, kernfs_target, write
from gpudaemon.model.forbidden import is_forbidden

GPU = "sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"


@pytest.fixture(scope="module", params=sorted(profiles()))
def tree(request: pytest.FixtureRequest) -> Tree:
    return profiles()[request.param].tree()


@pytest.fixture(scope="module")
def mi300x8() -> Tree:
    return profiles()["mi300x8"].tree()


@pytest.fixture(scope="module")
def rx7900xtx() -> Tree:
    return profiles()["rx7900xtx"].tree()


def text(tree: Tree, path: str, seconds: float = 0.0) -> str:
    entry = tree.entries[tree.resolve(path)]
    assert isinstance(entry, File)
    return entry.at(seconds).decode()


def test_profiles_are_found_by_listing_the_folder() -> None:
    assert list(profiles()) == [
        *("apu", "arcb580", "cxltiers", "empty", "gaudi2x8", "laptop", "mi250x8", "mi300x8", "mixed"),
        *("nvidiax8", "rx7900xtx", "vfguest"),
    ]


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        ("class/drm/card0", "devices/pci0/dev/drm/card0", "../../devices/pci0/dev/drm/card0"),
        ("devices/pci0/up/dev/drm/card0/device", "devices/pci0/up/dev", "../../../dev"),
        ("devices/pci0/dev/subsystem", "bus/pci", "../../../bus/pci"),
        ("devices/a/peer", "devices/b", "../b"),
        ("a", "b", "b"),
    ],
)
def test_kernfs_target(link: str, target: str, expected: str) -> None:
    assert kernfs_target(link, target) == expected


def test_every_link_leads_somewhere(tree: Tree) -> None:
    directories = tree.directories()
    checked = 0
    for path, entry in tree.entries.items():
        if isinstance(entry, Link) and not entry.target.startswith("/"):
            goal = tree.resolve(path)
            # Bus, class and driver directories exist as soon as they hold a link.
            assert goal in tree.entries or goal in directories, path
            checked += 1
    assert checked > 10


def test_links_are_spelled_as_sysfs_spells_them(mi300x8: Tree) -> None:
    expected = {
        "sys/class/drm/card0": f"../../{GPU[4:]}/drm/card0",
        f"{GPU}/drm/card0/device": "../../../0000:03:00.0",
        f"{GPU}/drm/card0/subsystem": "../../../../../../../../class/drm",
        f"{GPU}/hwmon/hwmon0/device": "../../../0000:03:00.0",
        f"{GPU}/driver": "../../../../../../bus/pci/drivers/amdgpu",
        f"{GPU}/subsystem": "../../../../../../bus/pci",
        f"{GPU}/iommu_group": "../../../../../../kernel/iommu_groups/3",
        "sys/bus/pci/devices/0000:03:00.0": f"../../../{GPU[4:]}",
        "sys/bus/pci/drivers/amdgpu/0000:03:00.0": f"../../../../{GPU[4:]}",
        "sys/class/hwmon/hwmon0": f"../../{GPU[4:]}/hwmon/hwmon0",
        "sys/dev/char/226:128": f"../../{GPU[4:]}/drm/renderD128",
    }
    for path, target in expected.items():
        assert mi300x8.entries[path] == Link(target)


FORMATS = {
    r"gpu_busy_percent|mem_busy_percent": r"\d{1,3}\n",
    r"mem_info_(vram|vis_vram|gtt)_(total|used)|mem_info_preempt_used": r"\d+\n",
    r"mem_info_vram_vendor": r"(samsung|hynix|micron)\n",
    r"pp_dpm_sclk": r"(S: \d+Mhz \*\n)?(\d: \d+Mhz ?\*?\n){2,3}",
    r"pp_dpm_(mclk|socclk|fclk|vclk|dclk)": r"(\d: \d+Mhz \*?\n)+",
    r"pp_dpm_pcie": r"(\d: \d+\.\dGT/s, x\d+ \d+Mhz \*?\n)+",
    r"unique_id": r"[0-9a-f]{16}\n",
    r"thermal_throttling_logging": (
        r"[0-9a-f:.]{12}: thermal throttling logging enabled, with interval 60 seconds\n"
    ),
    r"current_compute_partition": r"(SPX|DPX|QPX|CPX)\n",
    r"available_compute_partition": r"SPX, DPX, QPX, CPX\n",
    r"current_memory_partition": r"NPS1\n",
    r"ras/features": r"feature mask: 0x[0-9a-f]+\n",
    r"ras/umc_err_count": r"ue: \d+\nce: \d+\nde: \d+\n",
    r"ras/(sdma|gfx|mmhub|xgmi_wafl|vcn|jpeg)_err_count": r"ue: \d+\nce: \d+\n",
    r"ras/event_state": r"current seqno: \d+\n([A-Za-z ]+: count:\d+, last_seqno:\d+\n)+",
    r"fw_version/\w+_fw_version": r"0x[0-9a-f]{8}\n",
    r"xgmi_num_(hops|links)": r"([0-9a-f]{2} )+\n",
    r"hwmon/hwmon\d+/temp\d_(input|crit|emergency)": r"\d{2,3}000\n",
    r"hwmon/hwmon\d+/temp\d_crit_hyst": r"-273150\n",
    r"hwmon/hwmon\d+/power1_(input|average|cap|cap_max|cap_default)": r"\d+000000\n",
    r"hwmon/hwmon\d+/freq\d_input": r"\d+000000\n",
    r"hwmon/hwmon\d+/in0_input": r"\d{3,4}\n",
    r"(current|max)_link_speed": r"\d+\.\d GT/s PCIe\n",
    r"(current|max)_link_width": r"\d+\n",
    r"vendor|device|subsystem_vendor|subsystem_device": r"0x[0-9a-f]{4}\n",
    r"class": r"0x[0-9a-f]{6}\n",
    r"revision": r"0x[0-9a-f]{2}\n",
    r"resource": r"(0x[0-9a-f]{16} 0x[0-9a-f]{16} 0x[0-9a-f]{16}\n){7}",
    r"local_cpus": r"[0-9a-f]+(,[0-9a-f]{8})*\n",
    r"aer_dev_correctable": r"RxErr 0\nBadTLP 0\n(\w+ 0\n){6}TOTAL_ERR_COR 0\n",
    r"aer_dev_(nonfatal|fatal)": r"Undefined 0\nDLP 0\n(\w+ 0\n){16}TOTAL_ERR_(NON)?FATAL 0\n",
    r"power/runtime_status": r"active\n",
    r"power/control": r"(on|auto)\n",
    r"power_state": r"D0\n",
    r"uevent": (
        r"DRIVER=amdgpu\nPCI_CLASS=[0-9A-F]{5,6}\nPCI_ID=1002:[0-9A-F]{4}\nPCI_SUBSYS_ID=[0-9A-F:]{9}\n"
        r"PCI_SLOT_NAME=[0-9a-f:.]{12}\nMODALIAS=pci:v00001002d0000[0-9A-F]{4}sv\w+\n"
    ),
}


@pytest.mark.parametrize("seconds", [0.0, 12.5, 1000.0])
@pytest.mark.parametrize("name", ["mi300x8", "rx7900xtx"])
def test_amdgpu_files_have_the_documented_formats(name: str, seconds: float) -> None:
    tree = profiles()[name].tree()
    seen: set[str] = set()
    for inside, entry in tree.below(GPU):
        for pattern, content in FORMATS.items():
            if isinstance(entry, File) and re.fullmatch(pattern, inside):
                assert re.fullmatch(content, entry.at(seconds).decode()), (inside, entry.at(seconds))
                seen.add(pattern)
    only_here = {"mi300x8": {r"pp_dpm_pcie", r"hwmon/hwmon\d+/in0_input"}, "rx7900xtx": set()}[name]
    never = {pattern for pattern in FORMATS if re.match("ras|xgmi|current_|available", pattern)}
    missing = set(FORMATS) - seen - only_here
    assert missing <= (never if name == "rx7900xtx" else set())


def test_mi300x_has_what_linux_6_12_shows_of_it(mi300x8: Tree) -> None:
    names = {inside for inside, _ in mi300x8.below(GPU)}
    assert names >= {"gpu_busy_percent", "xgmi_error", "ras/umc_err_count", "vbios_version", "serial_number"}
    assert names >= {"hwmon/hwmon0/temp2_input", "hwmon/hwmon0/temp3_input", "hwmon/hwmon0/power1_input"}
    # gc 9.4.3 in default_attr_update and hwmon_attributes_visible (amdgpu_pm.c)
    absent = {"vcn_busy_percent", "pp_dpm_pcie", "pp_dpm_dcefclk", "pp_dpm_vclk1", "pcie_bw"}
    absent |= {f"hwmon/hwmon0/{name}" for name in ("temp1_input", "in0_input", "fan1_input", "power1_average")}
    assert not names & absent
    assert is_forbidden(f"{GPU}/xgmi_error")


def test_text_files_end_in_a_newline_and_fit_in_a_page(tree: Tree) -> None:
    # habanalabs prints these two as the firmware sent them.
    unfinished = {"armcp_ver", "uboot_ver"}
    for path, entry in tree.entries.items():
        if isinstance(entry, File) and path.startswith("sys/") and not path.endswith("gpu_metrics"):
            assert len(entry.content) < 4096
            if entry.content and path.rsplit("/", 1)[1] not in unfinished:
                assert entry.content.endswith(b"\n"), path


def test_trees_are_deterministic(tree: Tree) -> None:
    again = next(p for p in profiles().values() if p.tree().entries.keys() == tree.entries.keys()).tree()
    for path, entry in tree.entries.items():
        other = again.entries[path]
        if isinstance(entry, File) and isinstance(other, File):
            assert [entry.at(t) for t in (0.0, 7.0)] == [other.at(t) for t in (0.0, 7.0)], path
            assert (entry.mode, entry.error) == (other.mode, other.error)
        else:
            assert entry == other


def test_values_move_smoothly_within_their_limits(mi300x8: Tree) -> None:
    busy = [int(text(mi300x8, "sys/class/drm/card2/device/gpu_busy_percent", t)) for t in range(600)]
    assert min(busy) >= 0
    assert max(busy) <= 100
    assert max(busy) - min(busy) > 50
    assert max(abs(a - b) for a, b in itertools.pairwise(busy)) < 20
    total = int(text(mi300x8, f"{GPU}/mem_info_vram_total"))
    power_cap = int(text(mi300x8, f"{GPU}/hwmon/hwmon0/power1_cap"))
    for t in range(0, 600, 7):
        assert 0 < int(text(mi300x8, f"{GPU}/mem_info_vram_used", t)) <= total
        assert 0 < int(text(mi300x8, f"{GPU}/hwmon/hwmon0/power1_input", t)) <= power_cap
        assert 20_000 < int(text(mi300x8, f"{GPU}/hwmon/hwmon0/temp2_input", t)) < 100_000
    assert text(mi300x8, "sys/class/drm/card0/device/gpu_busy_percent", 9) != text(
        mi300x8, "sys/class/drm/card1/device/gpu_busy_percent", 9
    )


def test_the_starred_clock_is_the_one_hwmon_shows(mi300x8: Tree) -> None:
    between = 0
    for t in range(0, 200, 3):
        levels = text(mi300x8, f"{GPU}/pp_dpm_sclk", t).splitlines()
        (current,) = (line for line in levels if line.endswith("*"))
        mhz = int(text(mi300x8, f"{GPU}/hwmon/hwmon0/freq1_input", t)) // 10**6
        shown = int(re.sub(r".*: (\d+)Mhz.*", r"\1", current))
        assert abs(shown - mhz) <= 25  # EPSILON of smu_v13_0_6_freqs_in_same_level
        between += len(levels) == 3
    assert between > 10


def test_gpu_metrics_agree_with_the_text_files(mi300x8: Tree, rx7900xtx: Tree) -> None:
    for t in (0.0, 33.0):
        entry = mi300x8.entries[f"{GPU}/gpu_metrics"]
        assert isinstance(entry, File)
        table = entry.at(t)
        assert len(table) == 1664
        assert struct.unpack_from("<HBB", table) == (1664, 1, 6)
        hotspot, memory, vrsoc, power, busy = struct.unpack_from("<5H", table, 4)
        assert hotspot * 1000 == int(text(mi300x8, f"{GPU}/hwmon/hwmon0/temp2_input", t))
        assert memory * 1000 == int(text(mi300x8, f"{GPU}/hwmon/hwmon0/temp3_input", t))
        assert vrsoc < 100
        assert power * 10**6 == int(text(mi300x8, f"{GPU}/hwmon/hwmon0/power1_input", t))
        assert busy == int(text(mi300x8, f"{GPU}/gpu_busy_percent", t))
        assert table[312:1656] == b"\xff" * 1344  # partition statistics are not filled
        entry = rx7900xtx.entries[f"{GPU}/gpu_metrics"]
        assert isinstance(entry, File)
        table = entry.at(t)
        assert struct.unpack_from("<HBB", table) == (120, 1, 3)
        assert len(table) == 120
        assert struct.unpack_from("<H", table, 4)[0] * 1000 == int(
            text(rx7900xtx, f"{GPU}/hwmon/hwmon2/temp1_input", t)
        )
        assert struct.unpack_from("<Q", table, 24)[0] == 2**64 - 1  # no energy counter on this card


def test_engine_time_and_residencies_never_step_back(tree: Tree) -> None:
    checked = 0
    for path, entry in tree.entries.items():
        if isinstance(entry, File) and re.search(
            r"energy1_input|residency_ms|runtime_active_time|fdinfo/", path
        ):
            values = [
                [int(n) for n in re.findall(rb"\t(\d+) ns|^(\d+)\n", entry.at(t))[0] if n] for t in range(90)
            ]
            assert values == sorted(values), path
            checked += 1
    assert checked


def test_numa_nodes_and_the_gpus_on_them(mi300x8: Tree) -> None:
    assert text(mi300x8, "sys/devices/system/node/node0/distance") == "10 32\n"
    assert text(mi300x8, "sys/devices/system/node/node1/distance") == "32 10\n"
    assert text(mi300x8, "sys/devices/system/node/node1/cpulist") == "96-191\n"
    nodes = [text(mi300x8, f"sys/class/drm/card{n}/device/numa_node").strip() for n in range(8)]
    assert nodes == ["0"] * 4 + ["1"] * 4
    assert text(mi300x8, "sys/class/drm/card7/device/local_cpulist") == "96-191\n"
    assert text(mi300x8, "sys/class/drm/card0/device/local_cpus") == (
        "00000000,00000000,00000000,ffffffff,ffffffff,ffffffff\n"
    )


@pytest.mark.parametrize("gpus", [1, 2, 64])
def test_a_host_with_any_number_of_gpus(gpus: int) -> None:
    tree = profiles()["mi300x8"].tree(gpus)
    assert sum(bool(re.fullmatch(r"sys/class/drm/card\d+", path)) for path in tree.entries) == gpus
    addresses = {tree.resolve(f"sys/class/drm/card{n}/device") for n in range(gpus)}
    assert len(addresses) == gpus
    assert len({text(tree, f"sys/class/drm/card{n}/device/unique_id") for n in range(gpus)}) == gpus


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        *(("mi300x8", 0), ("mi300x8", 129), ("rx7900xtx", 2), ("mixed", 1), ("laptop", 1), ("empty", 1)),
        *(("mi250x8", 3), ("gaudi2x8", 9), ("nvidiax8", 0), ("vfguest", 9), ("apu", 2), ("arcb580", 2)),
        ("cxltiers", 1),
    ],
)
def test_a_number_of_gpus_that_cannot_be(name: str, gpus: int) -> None:
    with pytest.raises(ValueError, match=f"gpus is {gpus}"):
        profiles()[name].tree(gpus)


def test_processes(mi300x8: Tree) -> None:
    stat_line = text(mi300x8, "proc/4242/stat")
    assert len(stat_line.rsplit(")", 1)[1].split()) == 50  # fields 3 to 52, fs/proc/array.c do_task_stat
    assert mi300x8.entries["proc/4242/fd/3"] == Link("/dev/dri/renderD128")
    assert "drm-pdev:\t0000:03:00.0\n" in text(mi300x8, "proc/4242/fdinfo/3")
    assert text(mi300x8, "proc/4242/cgroup").startswith("0::/kubepods.slice/")


def test_a_written_tree_is_the_tree(tmp_path: os.PathLike[str], tree: Tree) -> None:
    write(tree, os.fspath(tmp_path))
    write(tree, os.fspath(tmp_path))  # over an old one
    for path, entry in tree.entries.items():
        place = os.path.join(tmp_path, path)
        if isinstance(entry, Link):
            assert os.readlink(place) == entry.target
        elif entry.error:
            assert not os.path.lexists(place)
        else:
            with open(place, "rb") as stream:
                assert stream.read() == entry.content
            assert stat.S_IMODE(os.stat(place).st_mode) | 0o200 == entry.mode | 0o200
    for link, entry in tree.entries.items():
        if isinstance(entry, Link) and not entry.target.startswith("/"):
            assert os.path.realpath(os.path.join(tmp_path, link)) == os.path.join(tmp_path, tree.resolve(link))


def test_moving_files_of_a_written_tree_move_in_place(tmp_path: os.PathLike[str]) -> None:
    tree = build("mi300x8", os.fspath(tmp_path), gpus=1)
    path = os.path.join(tmp_path, "sys/class/drm/card0/device/gpu_busy_percent")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        seen = set()
        mover = Mover(tree, os.fspath(tmp_path))
        for t in range(0, 60, 6):
            mover.step(t)
            content = os.pread(descriptor, 64, 0)
            assert content.decode() == text(tree, "sys/class/drm/card0/device/gpu_busy_percent", t)
            seen.add(content)
        assert len(seen) > 5
    finally:
        os.close(descriptor)
