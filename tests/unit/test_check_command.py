"""`gpudaemon check` as it is called."""

import json
from pathlib import Path

import pytest

from gpudaemon.cli import main
from gpudaemon.discovery.interfaces import CATALOGUE
from gpudaemon.mock import build


def check(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["check", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def host(tmp_path: Path) -> list[str]:
    build("mixed", str(tmp_path))
    return ["--path.sysfs", str(tmp_path / "sys"), "--path.procfs", str(tmp_path / "proc")]


def test_a_host_with_an_arc_and_a_gaudi(host: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*host) == 0
    usable, missing = capsys.readouterr().out.split("\nmissing:\n")
    assert "usable in tier base:" in usable
    for name in ("drm", "accel", "pcie-aer", "hwmon", "i915"):
        assert f"\n{name} " in usable
    for name in ("amdgpu", "xe", "cxl"):
        assert f"\n{name} " in missing


def test_as_json(host: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--json", *host) == 0
    found = json.loads(capsys.readouterr().out)
    states = {one["interface"]: one["state"] for one in found["interfaces"]}
    assert set(states) == {one.name for one in CATALOGUE}
    assert (states["accel"], states["amdgpu"]) == ("ok", "no_module")


def test_a_wrong_configuration_ends_with_status_1(
    host: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpudaemon.toml"
    file.write_text('presett = "fast"\n')
    assert check("--config.file", str(file), *host) == 1
    said = capsys.readouterr()
    assert str(file) in said.err and "presett" in said.err and "preset" in said.err
    assert said.out == ""
