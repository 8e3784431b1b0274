"""The profiles of one vendor each: what they have and lack, and the recordings they follow."""

import os
import re
import struct
import tarfile
from pathlib import Path

import pytest

from gpudaemon.mock import build, profiles
from gpudaemon.mock.demo import Mover
from gpudaemon.mock.live import LiveTree
from gpudaemon.mock.tree import File, Link, Tree
from gpudaemon.pipeline.plan import facts_needed, make_plan
from tests import captures

CAPTURES = os.environ.get("GPUDAEMON_CAPTURES", "")
needs_captures = pytest.mark.skipif(not CAPTURES, reason="GPUDAEMON_CAPTURES is not set")


def tree(name: str) -> Tree:
    return profiles()[name].tree()


def text(host: Tree, path: str, seconds: float = 0.0) -> str:
    entry = host.entries[host.resolve(path)]
    assert isinstance(entry, File)
    return entry.at(seconds).decode()


def binary(host: Tree, path: str, seconds: float = 0.0) -> bytes:
    entry = host.entries[host.resolve(path)]
    assert isinstance(entry, File)
    return entry.at(seconds)


def shape(content: str) -> str:
    return re.sub(r"-?\d+", "N", content)


def test_only_the_first_die_of_a_module_knows_its_power() -> None:
    host = tree("mi250x8")
    for number in range(8):
        card = f"sys/class/drm/card{number}/device"
        chip = host.resolve(f"sys/class/hwmon/hwmon{number}")
        table = binary(host, f"{card}/gpu_metrics", 30.0)
        watts, joules = struct.unpack_from("<H", table, 22)[0], struct.unpack_from("<Q", table, 24)[0]
        if number % 2 == 0:
            assert watts == int(text(host, f"{chip}/power1_average", 30.0)) // 10**6 > 0
            assert joules > 0
            assert text(host, f"{chip}/power1_cap") == "560000000\n"
        else:
            assert (watts, joules) == (0, 0)
            assert f"{chip}/power1_average" not in host.entries
            assert text(host, f"{chip}/power1_cap") == "0\n"
    serials = {text(host, f"sys/class/drm/card{number}/device/serial_number") for number in range(8)}
    assert len(serials) == 4  # one a module


def test_pcie_bw_takes_a_second_in_the_kernel() -> None:
    host = tree("mi250x8")
    entry = host.entries[host.resolve("sys/class/drm/card0/device/pcie_bw")]
    assert isinstance(entry, File)
    assert entry.delay == 1.0
    assert re.fullmatch(r"\d+ \d+ 256\n", entry.at(9.0).decode())


def test_gaudis_have_accel_nodes_only() -> None:
    host = tree("gaudi2x8")
    assert not [path for path in host.entries if path.startswith("sys/class/drm")]
    assert sum(path.startswith("sys/class/accel/accel") for path in host.entries) == 8
    modules = {text(host, f"sys/class/accel/accel{n}/device/module_id") for n in range(8)}
    assert modules == {f"{n}\n" for n in range(8)}
    live = LiveTree(host)
    device = live.device("accel3")
    status = live.paths[f"{device.path}/status"]
    sensor = next(node for node in device.nodes if node.path.endswith("/temp1_input"))
    assert status.content(1.0) == b"operational\n"
    device.refuses = 19
    assert status.content(1.0) == b"in reset\n"
    with pytest.raises(OSError, match="busy with a reset"):
        sensor.content(1.0)


def test_nvidia_without_its_library_has_proc_and_pci() -> None:
    host = tree("nvidiax8")
    assert not [path for path in host.entries if re.match(r"sys/class/(drm|hwmon)", path)]
    information = text(host, "proc/driver/nvidia/gpus/0000:03:00.0/information")
    values = dict(line.split(":", 1) for line in information.splitlines())
    assert values["Bus Location"].strip() == "0000:03:00.0"
    assert values["Model"].strip() == "NVIDIA H100 80GB HBM3"
    live = LiveTree(host)
    device = live.device("0000:03:00.0")
    node = live.paths["proc/driver/nvidia/gpus/0000:03:00.0/information"]
    assert (node.device, node.touching, node.alive) == (device, True, True)
    live.unbind(device)
    assert "proc/driver/nvidia/gpus/0000:03:00.0" not in live.paths
    live.bind(device, {})
    assert live.paths["proc/driver/nvidia/gpus/0000:03:00.0/information"].alive
    live.remove(device)
    assert not live.paths["proc/driver/nvidia/gpus/0000:03:00.0"].alive
    assert live.paths["proc/driver/nvidia/gpus/0000:23:00.0"].alive


@needs_captures
def test_nvidia_information_is_printed_as_real_machines_print_it() -> None:
    lines = (Path(CAPTURES) / "nvidia-proc" / "information_a10g.txt").read_text().splitlines()
    names = [line.split(":", 1)[0] for line in lines if line]
    ours = [
        line.split(":", 1)[0]
        for line in text(tree("nvidiax8"), "proc/driver/nvidia/gpus/0000:03:00.0/information").splitlines()
    ]
    assert [name for name in ours if name != "GPU Firmware"] == names


def test_a_guest_has_no_power_management_and_no_errors_to_count() -> None:
    host = tree("vfguest")
    names = {inside for inside, _ in host.below("sys/devices/pci0000:00/0000:00:05.0")}
    assert names >= {"mem_info_vram_used", "vbios_version", "fw_version/smc_fw_version", "drm/card0"} - {
        "drm/card0"
    }
    absent = {"gpu_busy_percent", "gpu_metrics", "pp_dpm_sclk", "aer_dev_fatal", "iommu_group"}
    assert not names & absent
    assert not [name for name in names if name.startswith("hwmon")]
    assert text(host, "sys/bus/pci/devices/0000:00:05.0/current_link_speed") == "Unknown\n"
    assert text(host, "sys/bus/pci/devices/0000:00:05.0/current_link_width") == "0\n"


def test_an_idle_gt_is_in_c6_and_runs_at_nothing() -> None:
    host = profiles()["arcb580"].tree(workload="idle")
    gt = "sys/class/drm/card1/device/tile0/gt0"
    for second in range(1, 40):
        idle = text(host, f"{gt}/gtidle/idle_status", second)
        frequency = int(text(host, f"{gt}/freq0/act_freq", second))
        assert (idle == "gt-c6\n") == (frequency == 0)
    busy = profiles()["arcb580"].tree(workload="thermal")
    seconds = next(
        second for second in range(10, 300) if "thermal" in text(busy, f"{gt}/freq0/throttle/reasons", second)
    )
    assert text(busy, f"{gt}/freq0/throttle/reason_thermal", seconds) == "1\n"
    assert text(busy, f"{gt}/freq0/throttle/status", seconds) == "1\n"
    assert text(busy, f"{gt}/gtidle/idle_status", seconds) == "gt-c0\n"


@needs_captures
def test_b580_has_the_files_of_a_recorded_card() -> None:
    card = Path(CAPTURES) / "lact/intel/b580/card1/device"
    host = tree("arcb580")
    path = host.resolve("sys/class/drm/card1/device")
    # Not modelled: devices of other drivers below the GPU, wake-up sources, ASPM.
    left_out = re.compile(r"xe\.(mei|nvm)|intel_vsec|(.*/)?power/|link/|config$|driver_override|.*wakeup")
    compared = 0
    for file in sorted(card.rglob("*")):
        inside = file.relative_to(card).as_posix()
        if not file.is_file() or left_out.match(inside):
            continue
        entry = host.entries.get(f"{path}/{inside}")
        assert isinstance(entry, File), inside
        content = file.read_text()
        if not re.search(r"local_cpu|uevent|idle_status|reasons$", inside):
            assert shape(entry.at(3.0).decode()) == shape(content), inside
        fixed = ("_label", "_crit", "_emergency", "/name", "_cap", "rp0_freq", "rpn_freq", "_max")
        if inside.endswith(fixed):
            assert entry.content.decode() == content, inside
        compared += 1
    assert compared > 200


@needs_captures
def test_cxl_has_the_files_and_formats_of_a_booted_kernel() -> None:
    host = tree("cxltiers")
    real: dict[str, set[str]] = {}
    archive = Path(CAPTURES) / "vm/lane/sysfs-7.3.4+deb13-amd64.tar.gz"
    with tarfile.open(archive) as opened:
        for member in opened:
            kind = generic(member.name)
            if member.isfile() and kind:
                stream = opened.extractfile(member)
                content = stream.read().decode("latin-1") if stream else ""
                real.setdefault(kind, set()).add(form(content))
    checked = 0
    for path, entry in host.entries.items():
        kind = generic(path)
        if kind and isinstance(entry, File) and entry.mode & 0o444 and "uevent" not in kind:
            assert kind in real, path
            assert form(entry.content.decode()) in real[kind], (path, entry.content, real[kind])
            checked += 1
    assert checked > 80


def generic(path: str) -> str:
    """The path without numbers, of what the CXL bus has; empty for anything else."""
    found = re.search(r"(ACPI0017:00/root0/.*|/mem\d+/.*)", path)
    if found is None or re.search(
        r"/power/|firmware/|pmem\d|nvdimm|port2|region1|label_storage|resource$", path
    ):
        return ""
    return re.sub(r"\d+", "N", found.group(1))


def form(content: str) -> str:
    """What a content looks like, its digits left aside."""
    joined = re.sub(r"0x[0-9a-f]+", "0xN", content)
    return re.sub(r"(region|decoder)[\d.]+", r"\1N", re.sub(r"\b\d+(,\d+)*\b", "N", joined)).rstrip("\n")


def test_tiers_have_a_node_without_processors() -> None:
    host = tree("cxltiers")
    assert text(host, "sys/devices/system/node/has_memory") == "0-2\n"
    assert text(host, "sys/devices/system/node/has_cpu") == "0-1\n"
    assert text(host, "sys/devices/virtual/memory_tiering/memory_tier4/nodelist") == "0-1\n"
    assert text(host, "sys/devices/virtual/memory_tiering/memory_tier271/nodelist") == "2\n"
    assert host.entries["sys/bus/dax/drivers/kmem/dax0.0"] == Link(
        "../../../../devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0"
    )
    names = re.findall(r"(pg(?:pro|de)mote_\w+) (\d+)", text(host, "proc/vmstat", 10.0))
    later = dict(re.findall(r"(pg(?:pro|de)mote_\w+) (\d+)", text(host, "proc/vmstat", 90.0)))
    assert len(names) == 6
    assert all(int(later[name]) >= int(value) for name, value in names)
    assert int(later["pgdemote_kswapd"]) > int(dict(names)["pgdemote_kswapd"])


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_profile_says_which_kernel_prints_it(name: str) -> None:
    profile = profiles()[name]
    assert profile.kernel in ("6.12", "7.3")
    assert text(profile.tree(), "proc/version").startswith(f"Linux version {profile.kernel}.")


@pytest.mark.parametrize("name", sorted(profiles()))
def test_the_daemon_understands_every_file_it_would_read(name: str, tmp_path: Path) -> None:
    """Decoders say Malformed of what is not in the documented format."""
    host = build(name, os.fspath(tmp_path))
    mover, sysfs = Mover(host, os.fspath(tmp_path)), os.fspath(tmp_path / "sys")
    decoded = 0
    for moment in (0.0, 41.0):
        mover.step(moment)
        for device in captures.devices(sysfs, every_function=True):
            facts = {path: captures.read(sysfs, device, path) for path in facts_needed(device)}
            for file in make_plan(device, facts).files:
                content = captures.read(sysfs, device, file.path)
                if content is None:
                    continue
                if file.decode is not None:
                    file.decode(content)
                if file.rows is not None:
                    list(file.rows(content))
                decoded += 1
    assert decoded > 20
