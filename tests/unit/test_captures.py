"""Real cards and hosts through discovery, plans and decoders, against what other programs read from them."""

import json
import os
import shutil
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.discovery.scan import is_gpu_class
from gpudaemon.parsers.gpu_metrics.layouts import TABLES
from gpudaemon.parsers.gpu_metrics.quantities import pick
from gpudaemon.parsers.gpu_metrics.table import HEADER, decoder, is_filled
from tests import captures, captures_lact
from tests import node_exporter_equivalents as node_exporter

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("lact/amd/rx7800xt", "busy_percent"): "files were copied one after the other: gpu_busy_percent said 2, "
    "gpu_metrics a moment later 24; ours is of the table, LACT's of the text file",
}
"""(capture, field) -> why it may differ; at most 2 % of the values compared in all captures."""

_compared = {"all": 0, "excepted": 0}


@pytest.fixture(scope="module", autouse=True)
def _at_most_two_percent() -> Iterator[None]:
    yield
    if _compared["all"] >= 100:  # fewer where only some tests were asked for
        assert _compared["excepted"] <= 0.02 * _compared["all"], _compared


def _report(capture: str, compared: int, differing: dict[str, object]) -> None:
    excepted = {field for field in differing if (capture, field) in EXCEPTIONS}
    print(f"{capture}: compared {compared}, agree {compared - len(differing)}, excepted {len(excepted)}")
    assert compared > 0
    _compared["all"] += compared
    _compared["excepted"] += len(excepted)
    assert {field: values for field, values in differing.items() if field not in excepted} == {}


@pytest.mark.parametrize("card", captures.names("lact", "amd"))
def test_lact_amd_card(card: str, tmp_path: Path) -> None:
    sysfs = str(tmp_path)
    captures.from_card_folder(captures.capture("lact", "amd", card), sysfs)
    page = captures.page_of(sysfs)
    assert page.malformed == []
    snapshot = captures_lact.load(captures.capture("lact", "expected", f"lact_daemon__tests__amd__{card}.snap"))
    fields = list(captures_lact.fields(snapshot, page))
    differing: dict[str, object] = {
        name: (theirs, ours) for name, theirs, ours in fields if not captures_lact.equal(theirs, ours)
    }
    _report(f"lact/amd/{card}", len(fields), differing)


@pytest.mark.parametrize("card", captures.names("lact", "intel"))
def test_lact_intel_card(card: str, tmp_path: Path) -> None:
    page = captures.page_of(_fresh(tmp_path, card, captures.capture("lact", "intel", card)))
    assert page.malformed == []
    expected = captures.capture("lact", "expected", f"lact_daemon__tests__intel__{card}.snap")
    fields = list(captures_lact.intel_fields(captures_lact.load(expected), page))
    assert len({name for name, _, _ in fields}) == len(fields)
    differing: dict[str, object] = {
        name: (theirs, ours) for name, theirs, ours in fields if not captures_lact.equal(theirs, ours)
    }
    _report(f"lact/intel/{card}", len(fields), differing)


def test_lact_nvidia_cards_run_clean(tmp_path: Path) -> None:
    for card in captures.names("lact", "nvidia"):
        source = captures.capture("lact", "nvidia", card)
        page = captures.page_of(_fresh(tmp_path, card, source))
        assert page.info("gpudaemon_gpu_info")["driver"] == "nvidia"
        assert page.malformed == []
        print(f"lact/nvidia/{card}: {len(page.samples)} samples, no malformed content")


def _fresh(tmp_path: Path, card: str, source: str) -> str:
    sysfs = str(tmp_path / card)
    captures.from_card_folder(source, sysfs)
    return sysfs


@pytest.mark.parametrize("card", captures.names("amdgpu-sysfs-rs", "tests", "data"))
def test_amdgpu_sysfs_card_runs_clean(card: str, tmp_path: Path) -> None:
    source = captures.capture("amdgpu-sysfs-rs", "tests", "data", card)
    if not os.path.exists(os.path.join(source, "uevent")):
        pytest.skip("only overdrive tables, which are configuration")
    captures.add_card(str(tmp_path), source, "card0")
    page = captures.page_of(str(tmp_path))
    assert page.malformed == []
    assert page.info("gpudaemon_gpu_info")["driver"] == "amdgpu"
    clock = page.value("gpudaemon_gpu_clock_max_hertz", clock="sclk")
    assert clock is not None and (1e9 <= clock <= 3e9 or card == "rx6950xt")  # that one was asleep: 0Mhz
    print(f"amdgpu-sysfs-rs/{card}: {len(page.samples)} samples, no malformed content")


def test_one_card_read_by_two_projects(tmp_path: Path) -> None:
    """The RX 7700S is in both collections, under two card and hwmon numbers: its limits are the same."""
    limits = []
    for name, source, card in (
        ("one", captures.capture("amdgpu-sysfs-rs", "tests", "data", "rx7700s"), "card0"),
        ("other", captures.capture("lact", "amd", "rx7700s", "card1", "device"), "card1"),
    ):
        captures.add_card(str(tmp_path / name), source, card)
        page = captures.page_of(str(tmp_path / name))
        limits.append(
            {
                (metric, labels["sensor"], labels["limit"]): value
                for metric, labels, value in page.samples
                if metric in ("gpudaemon_gpu_temperature_limit_celsius", "gpudaemon_gpu_fan_limit_rpm")
            }
        )
    assert limits[0] == limits[1] != {}


def _ttar(tmp_path: Path, *parts: str, sysfs: str) -> str:
    captures.unpack_ttar(captures.capture(*parts), str(tmp_path))
    root = str(tmp_path / sysfs)
    captures.straighten(root)
    return root


def _difference_name(difference: node_exporter.Difference) -> str:
    name, labels, _ = difference.theirs
    return f"{name} {labels.get('chip') or labels.get('device') or labels.get('card')}"


def test_node_exporter_fixture_shows_what_node_exporter_shows(tmp_path: Path) -> None:
    page = captures.page_of(_ttar(tmp_path, "node_exporter", "sys.ttar", sysfs="sys"), every_function=True)
    assert page.malformed == []
    expected = Path(captures.capture("node_exporter", "e2e-output.txt")).read_text(encoding="utf-8")
    compared, found = node_exporter.differences(node_exporter.parse(expected), page.samples)
    assert compared >= 185
    _report("node_exporter", compared, {_difference_name(difference): difference for difference in found})


PROCFS_DRM = """
node_drm_card_info{card="card0",memory_vendor="samsung",power_performance_level="manual",unique_id="0123456789abcdef",vendor="amd"} 1
node_drm_gpu_busy_percent{card="card0"} 4
node_drm_memory_gtt_size_bytes{card="card0"} 8.573157376e+09
node_drm_memory_gtt_used_bytes{card="card0"} 1.44560128e+08
node_drm_memory_vis_vram_size_bytes{card="card0"} 8.573157376e+09
node_drm_memory_vis_vram_used_bytes{card="card0"} 1.490378752e+09
node_drm_memory_vram_size_bytes{card="card0"} 8.573157376e+09
node_drm_memory_vram_used_bytes{card="card0"} 1.490378752e+09
node_pcidevice_current_link_transfers_per_second{bus="a2",device="00",function="0",segment="0000"} 1.6e+10
node_pcidevice_max_link_width{bus="00",device="02",function="1",segment="0000"} 8
node_pcidevice_numa_node{bus="a2",device="00",function="0",segment="0000"} 1
node_pcidevice_power_state{bus="a2",device="00",function="0",segment="0000",state="D0"} 1
node_pcidevice_sriov_totalvfs{bus="a2",device="00",function="0",segment="0000"} 128
node_pcidevice_sriov_vf_total_msix{bus="a2",device="00",function="0",segment="0000"} 4.294967033e+09
"""  # noqa: E501
"""Lines prometheus-node-exporter 1.11.1 (Debian 1.11.1-3) prints for this tree with drm and pcidevice on."""


def test_procfs_fixture_shows_what_node_exporter_shows(tmp_path: Path) -> None:
    root = _ttar(tmp_path, "prometheus-procfs", "fixtures.ttar", sysfs="fixtures/sys")
    page = captures.page_of(root, every_function=True)
    assert page.malformed == []
    compared, found = node_exporter.differences(node_exporter.parse(PROCFS_DRM), page.samples)
    _report("prometheus-procfs", compared, {_difference_name(difference): difference for difference in found})


@pytest.mark.parametrize("card", captures.names("lact", "amd"))
def test_lact_card_shows_what_node_exporter_shows(card: str, tmp_path: Path) -> None:
    """Runs the other exporter itself on the tree, where it is installed."""
    binary = os.environ.get("NODE_EXPORTER") or shutil.which("prometheus-node-exporter")
    if binary is None:
        pytest.skip("prometheus-node-exporter is not installed and NODE_EXPORTER does not name it")
    flags = subprocess.run([binary, "--help"], capture_output=True, text=True, check=False)
    if "collector.pcidevice" not in flags.stdout + flags.stderr:
        pytest.skip(f"{binary} is older than its pcidevice collector")
    address = captures.from_card_folder(captures.capture("lact", "amd", card), str(tmp_path))
    page = captures.page_of(str(tmp_path))
    expected = _node_exporter_page(binary, str(tmp_path))
    compared, found = node_exporter.differences(
        node_exporter.parse(expected), page.samples, frozenset({address})
    )
    _report(f"lact/amd/{card}", compared, {_difference_name(difference): difference for difference in found})


def _node_exporter_page(binary: str, sysfs: str) -> str:
    port = 20000 + os.getpid() % 20000
    flags = ["--collector.drm", "--collector.hwmon", "--collector.pcidevice", "--collector.disable-defaults"]
    with subprocess.Popen(
        [binary, f"--path.sysfs={sysfs}", *flags, f"--web.listen-address=127.0.0.1:{port}"],
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for _ in range(100):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                        content: bytes = answer.read()
                    return content.decode()
                except OSError:
                    time.sleep(0.05)
        finally:
            process.terminate()
    raise AssertionError("prometheus-node-exporter did not answer")


@pytest.mark.parametrize("host", captures.names("inference-snaps"))
def test_gpus_of_an_lspci_listing(host: str, tmp_path: Path) -> None:
    listing = os.path.join(captures.capture("inference-snaps", "" if host == "none" else host), "lspci.txt")
    classes = captures.from_lspci(listing, str(tmp_path))
    assert classes or host == "orange-pi-rv2"
    found = {device.id for device in captures.devices(str(tmp_path)) if device.kind.value == "gpu"}
    assert found == {address for address, code in classes.items() if is_gpu_class(code)}
    page = captures.page_of(str(tmp_path))
    assert page.malformed == []
    for address in found:
        assert page.info("gpudaemon_gpu_info", device=address)["vendor_id"].startswith("0x")
    print(f"inference-snaps/{host}: {len(classes)} functions, {len(found)} GPUs")


def test_arc_a580_host_has_its_two_gpus(tmp_path: Path) -> None:
    captures.from_lspci(captures.capture("inference-snaps", "i7-2600k+arc-a580", "lspci.txt"), str(tmp_path))
    page = captures.page_of(str(tmp_path))
    ids = {labels["device_id"] for name, labels, _ in page.samples if name == "gpudaemon_gpu_info"}
    assert "0x56a2" in ids


@pytest.mark.parametrize(
    ("archive", "gpus"),
    [
        ("linux-amd64-415ee03b8c4d1c4f07ae2e9d8b3d3d6d.tar.gz", {"0000:00:02.0"}),
        ("linux-amd64-accel.tar.gz", {"0000:00:01.0", "0000:00:04.0"}),
        ("linux-amd64-8581cf3a529e5d8b97ea876eade2f60d.tar.gz", {"0000:07:03.0"}),
        ("linux-amd64-offlineCPUs.tar.gz", set()),
        ("linux-s390x-snapshot.tar.gz", set()),
    ],
)
def test_gpus_of_a_ghw_snapshot(archive: str, gpus: set[str], tmp_path: Path) -> None:
    sysfs = captures.from_tarball(captures.capture("ghw", archive), str(tmp_path))
    found = {device.id for device in captures.devices(sysfs) if device.kind.value == "gpu"}
    assert found == gpus
    assert captures.page_of(sysfs).malformed == []


_TOP_FIELDS = {
    "temperature_gfx": ("Edge Temperature", 1),
    "average_gfxclk_frequency": ("GFX_SCLK", 1e-6),
    "average_uclk_frequency": ("GFX_MCLK", 1e-6),
}
"""field of the table -> what amdgpu_top shows of it, in its unit"""


def test_amdgpu_top_shows_what_a_table_says() -> None:
    """A Raphael: the raw fields of its table 2.1 are in the report, beside what amdgpu_top made of them."""
    with open(captures.capture("amdgpu_top", "sample.json"), encoding="utf-8") as file:
        (report,) = json.load(file)["devices"]
    raw = report["gpu_metrics"]
    header = raw["header"]
    size, revision = header["structure_size"], (header["format_revision"], header["content_revision"])
    layout = TABLES[*revision, size]
    content = bytearray(HEADER.pack(size, *revision).ljust(size, b"\xff"))
    for name, field in layout.fields.items():
        values = raw.get(name)
        for index, value in enumerate(values if isinstance(values, list) else [values]):
            if value is not None:
                struct.pack_into(f"<{field.code}", content, field.place(index), value)
    differing: dict[str, object] = {}
    for name, (theirs, scale) in _TOP_FIELDS.items():
        found = pick(layout, name)
        assert found is not None
        ours = decoder(layout, [found])(bytes(content))[0]
        if ours is None or ours * scale != report["Sensors"][theirs]["value"]:
            differing[name] = (report["Sensors"][theirs], ours)
    power = pick(layout, "average_soc_power")
    assert power is not None and decoder(layout, [power])(bytes(content)) == [12.846]
    # 27 is in watts what the two parts in milliwatts come to, and what hwmon says: of no known unit here.
    assert raw["average_socket_power"] == report["Sensors"]["Input Power"]["value"] == 27
    assert pick(layout, "average_socket_power") is None
    unset = [name for name, value in raw.items() if value is None and name in layout.fields]
    assert unset and not any(is_filled(layout, bytes(content), name) for name in unset)
    _report("amdgpu_top", len(_TOP_FIELDS), differing)
