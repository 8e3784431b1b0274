"""A driver nobody has heard of takes one file: what it gives is on page and dashboard and in the reference.

Run in a process of its own, where the folder of drivers is one file longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import captures

TOP = Path(__file__).parents[2]

DRIVER = '''\
"""A made-up GPU: load, and a quantity no other driver has."""

from gpudaemon.drivers import GpuDriver
from gpudaemon.metrics import gpu
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.metric import Kind, Metric, Series, Unit
from gpudaemon.parsers.integer import percentage, quotient

MANA = Metric(
    name="gpudaemon_gpu_mana_joules",
    kind=Kind.GAUGE,
    unit=Unit.JOULES,
    help="Mana left.",
    labels=("device", "well"),
    abi="drivers/gpu/drm/madeup/madeup_sysfs.c: mana_mj",
)


def _attributes(device, _facts):
    found = {
        "busy": Attribute("busy", Cadence.NORMAL, (Series(gpu.BUSY, (device.id, "gfx")),), percentage),
        "mana_mj": Attribute("mana_mj", Cadence.NORMAL, (Series(MANA, (device.id, "deep")),), quotient(1000)),
    }
    return [attribute for path, attribute in found.items() if path in device.names]


DRIVER = GpuDriver(
    kernel_driver="madeup",
    vendor="nobody",
    identity={"vendor_id": "vendor"},
    emits=(gpu.BUSY, MANA),
    needs=lambda _device: (),
    attributes=_attributes,
    example=("busy", "mana_mj"),
)
'''

BEFORE = "import sys, gpudaemon.drivers as d; d.__path__.append(sys.argv[1])\n"
REFERENCE = """
from gpudaemon.export.provenance import claims, rows
from gpudaemon.export.reference import reference
print(reference(rows(), claims()))
"""
DASHBOARD = """
from gpudaemon.export.dashboard import host_dashboard
print(host_dashboard())
"""
PAGE = """
from tests.captures_replay import page
for series, value in sorted(page(sys.argv[2], sys.argv[3]).items()):
    print(series, value)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "madeup.py").write_text(DRIVER)
    return tmp_path / "drivers"


def run(folder: Path, code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + code, str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_reference_says_what_it_gives_and_from_what(folder: Path) -> None:
    text = run(folder, REFERENCE)
    assert "| `gpudaemon_gpu_mana_joules` | gauge | joules | `device`, `well` | Mana left. |" in text
    assert "| `gpudaemon_gpu_mana_joules` | madeup | `mana_mj` | **claimed, never seen** |" in text
    assert "| `gpudaemon_gpu_busy_ratio` | madeup | `busy` | **claimed, never seen** |" in text
    assert "madeup" not in (TOP / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_the_dashboard_has_a_panel_for_what_it_alone_knows(folder: Path) -> None:
    text = run(folder, DASHBOARD)
    assert "What one driver alone knows" in text and "Mana left." in text
    assert "gpudaemon_gpu_mana_joules{" in text
    committed = (TOP / "config" / "grafana" / "gpudaemon-host.json").read_text(encoding="utf-8")
    assert "gpu_mana" not in committed and "What one driver alone knows" not in committed


def test_the_page_of_the_daemon_has_its_values(folder: Path, tmp_path: Path) -> None:
    sysfs = tmp_path / "sys"
    path = captures.add_pci(str(sysfs), "0000:03:00.0", "madeup")
    for name, content in (("vendor", "0xdead"), ("class", "0x030000"), ("busy", "42"), ("mana_mj", "1500")):
        captures._write(os.path.join(path, name), content.encode() + b"\n")
    os.makedirs(os.path.join(path, "drm", "card0"))
    captures.link_classes(str(sysfs), path)
    (tmp_path / "proc").mkdir()
    lines = run(folder, PAGE, str(sysfs), str(tmp_path / "proc")).splitlines()
    assert 'gpudaemon_gpu_busy_ratio{device="0000:03:00.0",engine="gfx"} 0.42' in lines
    assert 'gpudaemon_gpu_mana_joules{device="0000:03:00.0",well="deep"} 1.5' in lines
    (info,) = (line for line in lines if line.startswith("gpudaemon_gpu_info"))
    assert 'driver="madeup"' in info and 'vendor="nobody"' in info and 'vendor_id="0xdead"' in info
