"""docs/health.md and docs/check.md: the table is the code's, the examples run."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from gpudaemon.discovery.interface_probe import Presence
from gpudaemon.model.health import REASONS
from gpudaemon.view.health import LINE

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEALTH = (DOCS / "health.md").read_text()
SCRIPTS = [block for block in re.findall(r"```sh\n(.*?)```", HEALTH, re.DOTALL) if block.startswith("#!")]


def test_every_reason_is_in_the_table() -> None:
    rows = set(re.findall(r"^\| (\w+) \| `(\w+)` \| (.*) \| (.*) \|$", HEALTH, re.MULTILINE))
    assert rows == {
        (reason.severity.value, word, reason.meaning, reason.ends) for word, reason in REASONS.items()
    }


def test_every_state_of_an_interface_is_explained() -> None:
    text = (DOCS / "check.md").read_text()
    assert {state.value for state in Presence} - {"ok"} == set(
        re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    )


def run(directory: Path, script: str, status: int) -> tuple[int, str]:
    """Exit status of a script beside a `gpudaemon` that answers `status`, and what scontrol was given."""
    commands = {
        "gpudaemon": f"#!/bin/sh\necho 'FAILED 0000:63:00.0 missing: not here'\necho more\nexit {status}\n",
        "scontrol": f'#!/bin/sh\nprintf "%s\\n" "$@" > {directory}/asked\n',
    }
    for name, text in commands.items():
        path = directory / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", "SLURMD_NODENAME": "n1"}
    done = subprocess.run(
        ["sh", "-c", script],
        env=environment, capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    asked = directory / "asked"
    return done.returncode, asked.read_text() if asked.exists() else ""


@pytest.mark.parametrize(("status", "fails"), [(0, False), (1, True), (2, False), (127, False)])
def test_the_prolog_fails_for_a_failed_gpu_only(tmp_path: Path, status: int, fails: bool) -> None:
    prolog = next(script for script in SCRIPTS if "Prolog=" in script)
    code, asked = run(tmp_path, prolog, status)
    assert (code != 0) is fails
    assert asked == ""


@pytest.mark.parametrize("status", [0, 1, 2, 127])
def test_the_health_check_drains_for_a_failed_gpu_only(tmp_path: Path, status: int) -> None:
    check = next(script for script in SCRIPTS if "HealthCheckProgram=" in script)
    code, asked = run(tmp_path, check, status)
    assert code == 0
    if status == 1:
        assert asked.splitlines() == [
            "update", "NodeName=n1", "State=DRAIN", "Reason=gpudaemon: FAILED 0000:63:00.0 missing: not here"
        ]  # fmt: skip
    else:
        assert asked == ""


def test_node_problem_detectors_file() -> None:
    found = json.loads(re.findall(r"```json\n(.*?)```", HEALTH, re.DOTALL)[0])
    assert found["plugin"] == "custom"
    assert found["pluginConfig"]["max_output_length"] == LINE
    conditions = {condition["type"] for condition in found["conditions"]}
    for rule in found["rules"]:
        assert rule["type"] == "permanent"
        assert rule["condition"] in conditions
        assert rule["path"].endswith("/gpudaemon") and rule["args"][0] == "health"
        assert seconds(rule["timeout"]) <= seconds(found["pluginConfig"]["timeout"])
    assert {rule["condition"] for rule in found["rules"]} == conditions


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))
