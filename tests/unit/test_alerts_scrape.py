"""The scrape examples, judged by promtool."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = os.path.join(TOP, "config")
SCRAPES = sorted(one for one in os.listdir(f"{CONFIG}/prometheus") if one.startswith("scrape-"))
EXAMPLES = ("prometheus.yml", *(f"prometheus/{name}" for name in SCRAPES))

# Debian's Prometheus is built without it: the rest of the example is checked with another discovery instead.
KUBERNETES = "    kubernetes_sd_configs:\n      - role: pod\n"
INSTEAD = '    static_configs:\n      - targets: ["127.0.0.1:9836"]\n'


@pytest.mark.parametrize("name", EXAMPLES)
def test_promtool_accepts(name: str, tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        assert not os.environ.get("CI"), "promtool belongs to CI"
        pytest.skip("promtool is not installed")
    shutil.copytree(CONFIG, tmp_path / "config")
    file = tmp_path / "config" / name
    text = file.read_text()
    for secret in re.findall(r"^ +(?:ca|cert|key|password)_file: (\S+)", text, re.MULTILINE):
        (file.parent / secret).write_text("x")
    if KUBERNETES in text:
        done = subprocess.run([tool, "check", "config", str(file)], check=False, capture_output=True, text=True)
        if "field kubernetes_sd_configs not found" in done.stderr + done.stdout:
            file.write_text(text.replace(KUBERNETES, INSTEAD))
    command = [tool, "check", "config", "--lint=all", "--lint-fatal", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_jobs_are_those_the_alerts_look_for(name: str) -> None:
    with open(os.path.join(CONFIG, name), encoding="utf-8") as file:
        document = yaml.safe_load(file)
    assert all("gpudaemon" in job["job_name"] for job in document["scrape_configs"])
    assert any(job["job_name"] == "gpudaemon" for job in document["scrape_configs"])


def test_every_example_is_in_the_manual() -> None:
    with open(os.path.join(TOP, "docs", "dashboards.md"), encoding="utf-8") as file:
        text = file.read()
    assert [name for name in EXAMPLES if f"config/{name}" not in text] == []
