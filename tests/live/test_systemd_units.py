"""The units as systemd itself judges them: no mistake, and how much is left open in each tier."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpudaemon.model.rights import TIERS
from tests.systemd.machine import ROOT

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"),
]

MOST = {"base": 1.5, "processes": 2.0}
_SYSTEM = Path("/lib/systemd/system")


@pytest.fixture(params=TIERS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """(tier, a root directory with the units installed and the tier's drop-in beside them)."""
    units = tmp_path / "etc/systemd/system"
    drop_ins = units / "gpudaemon.service.d"
    drop_ins.mkdir(parents=True)
    shutil.copytree(_SYSTEM, tmp_path / "lib/systemd/system", symlinks=True)
    for name in ("gpudaemon.service", "gpudaemon.socket"):
        shutil.copy(ROOT / "systemd" / name, units)
    if request.param != "base":
        shutil.copy(ROOT / f"systemd/tiers/{request.param}.conf", drop_ins / "tier.conf")
    for program in ("opt/gpudaemon/bin/gpudaemon", "bin/kill"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    return request.param, tmp_path


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


def settings(path: Path) -> dict[str, str]:
    """Key -> value of a unit file; of a key given twice the last."""
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.M))


def test_systemd_finds_nothing_wrong(root: tuple[str, Path]) -> None:
    done = analyze("verify", f"--root={root[1]}", "gpudaemon.service", "gpudaemon.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_left_open(root: tuple[str, Path]) -> None:
    tier, directory = root
    words = ("security", "--offline=true", f"--root={directory}", "--no-pager", "gpudaemon.service")
    text = analyze(*words).stdout
    exposure = float(re.findall(r"exposure level for gpudaemon.service: ([\d.]+)", text)[0])
    print(f"{tier}: {exposure}")
    assert exposure <= MOST.get(tier, 10.0)
    # Every point is explained: docs/service.md names it, in the column of this tier.
    document = (ROOT / "docs/service.md").read_text()
    table = {row[0].replace("\\|", "|"): row for row in _rows(document)}
    # Newer versions weigh and ask differently; what is open here is explained in any case.
    same = analyze("--version").stdout.startswith("systemd 252 ")
    column = 1 + list(TIERS).index(tier)
    for point in json.loads(analyze(*words, "--json=short").stdout):
        if point["exposure"]:
            row = table.get(f"`{point['name']}`")
            assert row is not None, f"docs/service.md does not explain {point['name']}"
            assert row[column] == point["exposure"] or not same, f"{point['name']} is {point['exposure']}"
    assert table["all"][column] == f"{exposure}" or not same


def _rows(document: str) -> list[list[str]]:
    lines = [line.removeprefix("|").removesuffix("|") for line in document.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


@pytest.mark.parametrize("tier", [tier for tier in TIERS if tier != "base"])
def test_a_tier_grants_what_its_reader_asks_for(tier: str) -> None:
    path = ROOT / f"systemd/tiers/{tier}.conf"
    found = settings(path)
    assert found["Environment"] == f"GPUDAEMON_TIER={tier}"
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"]
    assert sorted(found["AmbientCapabilities"].split()) == sorted(TIERS[tier])
    comment = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    for name in TIERS[tier]:
        assert name in comment, f"{path}: {name} is not explained"
