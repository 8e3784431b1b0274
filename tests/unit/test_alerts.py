"""The alerts, judged by promtool: each fires on its fault and stays quiet beside it.

A case gives series as promtool writes them (`1x8` is nine samples, `_` none, `stale` a failed scrape), a sample
every 15 seconds, a moment, and who fires then.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from gpudaemon.export.alerts import ALERTS, alerting_rules, recording_rules
from gpudaemon.export.promql import UP
from gpudaemon.metrics import daemon, gpu, gpu_links, gpu_parts, pcie, table, trouble
from gpudaemon.model.metric import Metric

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILES = os.path.join(TOP, "config", "prometheus")
RULES = os.path.join(FILES, "gpudaemon-alerts.yml")

GPU, PORT, ROOT = "0000:03:00.0", "0000:02:00.0", "0000:00:01.1"
BY_NAME = {alert.name: alert for alert in ALERTS}

Labels = dict[str, str]


@dataclass(frozen=True)
class Case:
    """`fires`: labels of each alert expected, less those of the host, and the value shown in its text."""

    alert: str
    what: str
    series: dict[str, str]
    at: str
    fires: tuple[Labels, ...] = ()
    value: str = ""
    product: str = "device"


def of(row: Metric, host: str = "h1", **labels: str) -> str:
    """A series; labels the row has and that are not given are `x`, the device is the GPU."""
    given = {name: labels.pop(name, GPU if name == "device" else "x") for name in row.labels}
    assert not labels, f"{row.name} has no {labels}"
    pairs = {"job": "gpudaemon", "instance": host, **given}
    inner = ",".join(f'{name}="{value}"' for name, value in pairs.items())
    return f"{row.name}{{{inner}}}"


def state(now: str, values: str = "1x100", host: str = "h1") -> dict[str, str]:
    return {of(daemon.DEVICE_STATE, host, state=now): values}


INFO = {of(gpu.INFO, product_name="MI300X"): "1x100"}
ASLEEP = {**INFO, **state("suspended"), **state("ok", "0x100"), **state("hung", "0x100")}
AT_GPU: Labels = {"device": GPU}


def link(width: int, most: int, above: int, busy: float = 0.9) -> dict[str, str]:
    """A GPU right below a root port: its width, the most it can do, the most of the port."""
    series = {
        of(pcie.INFO, **{"parent": ROOT, "class": "0x038000"}): "1x100",
        of(pcie.INFO, **{"device": ROOT, "parent": "", "class": "0x060400"}): "1x100",
        of(gpu.BUSY, engine="gfx"): f"{busy}x100",
    }
    series |= {of(pcie.LINK_WIDTH): f"{width}x100", of(pcie.LINK_MAX_WIDTH): f"{most}x100"}
    series[of(pcie.LINK_WIDTH, device=ROOT)] = f"{width}x100"
    return series | {of(pcie.LINK_MAX_WIDTH, device=ROOT): f"{above}x100"}


def speed(now: str, most: str, above: str, busy: float) -> dict[str, str]:
    series = link(16, 16, 16, busy)
    series |= {of(pcie.LINK_TRANSFERS): f"{now}x100", of(pcie.LINK_MAX_TRANSFERS): f"{most}x100"}
    return series | {of(pcie.LINK_MAX_TRANSFERS, device=ROOT): f"{above}x100"}


def switch(upper: int, inner: int) -> dict[str, str]:
    """A GPU behind the switch on its card: lanes of the card's edge, and of what is not a link inside it."""
    up, down = "0000:01:00.0", PORT
    series = {}
    for device, parent, kind, width in (
        (ROOT, "", "0x060400", upper),
        (up, ROOT, "0x060400", upper),
        (down, up, "0x060400", inner),
        (GPU, down, "0x030000", 16),
    ):
        series[of(pcie.INFO, **{"device": device, "parent": parent, "class": kind})] = "1x100"
        series[of(pcie.LINK_WIDTH, device=device)] = f"{width}x100"
        series[of(pcie.LINK_MAX_WIDTH, device=device)] = "16x100"
    return series


def ras(severity: str, values: str, block: str = "umc") -> dict[str, str]:
    return {of(gpu.RAS_ERRORS, block=block, severity=severity): values}


def heat(now: str, limit: str = "crit") -> dict[str, str]:
    return {
        of(gpu.TEMPERATURE, sensor="junction"): now,
        of(gpu.TEMPERATURE_LIMIT, sensor="junction", limit=limit): "100x100",
    }


def up(values: str, host: str = "h1", job: str = "gpudaemon") -> dict[str, str]:
    return {f'{UP.name}{{job="{job}",instance="{host}"}}': values}


RESTARTS = of(daemon.READER_RESTARTS, reason="died")
ABOVE = of(gpu.TEMPERATURE_ABOVE_CRITICAL, sensor="junction")
CREATED = of(gpu.RAS_EVENTS, event="poison_creation")
POISON = of(gpu.RAS_EVENTS, event="poison_consumption")
LINK = of(gpu_links.XGMI_LINK_UP, link="3")
FATAL = of(pcie.AER_MESSAGES, severity="fatal")
NONFATAL = of(pcie.AER_MESSAGES, severity="nonfatal")
CXL = of(trouble.LAST_SEEN, kind="cxl", severity="uncorrected")
CXL_CORRECTED = of(trouble.LAST_SEEN, kind="cxl", severity="corrected")
HOT = of(gpu.THROTTLED_SECONDS, cause="thermal")

CASES = (
    Case("GpudaemonDown", "down", up("1x4 0x40"), "6m", ({},)),
    Case("GpudaemonDown", "one of two hosts", {**up("1x4 0x40"), **up("1x100", "h2")}, "6m", ({},)),
    Case("GpudaemonDown", "one failed scrape", up("1x10 0 1x40"), "150s"),
    Case("GpudaemonDown", "one failed scrape, later", up("1x10 0 1x40"), "8m"),
    Case("GpudaemonDown", "another job is down", {**up("1x40"), **up("0x40", job="node")}, "8m"),
    Case("GpudaemonDown", "no target left", up("1x40", job="node"), "8m", ({"job": "", "instance": ""},)),
    Case("GpudaemonReaderUnstable", "no reader", {of(daemon.READER_UP): "1x4 0x20"}, "5m", ({},)),
    Case("GpudaemonReaderUnstable", "replaced", {RESTARTS: "0x4 1x4 2x4 3x4 4x40"}, "10m", ({},)),
    Case("GpudaemonReaderUnstable", "replaced once",
         {RESTARTS: "1x8 2x60", of(daemon.READER_UP): "1x60"}, "10m"),
    Case("GpudaemonReaderUnstable", "a moment away", {of(daemon.READER_UP): "1x8 0x4 1x60"}, "3m"),
    Case("GpudaemonReaderUnstable", "daemon restarted", {RESTARTS: "9x20 0x60"}, "15m"),
    Case("GpudaemonConfigRejected", "rejected", {of(daemon.CONFIG_RELOAD_SUCCESS): "1x4 0x40"}, "8m", ({},)),
    Case("GpudaemonConfigRejected", "mended", {of(daemon.CONFIG_RELOAD_SUCCESS): "1x4 0x8 1x40"}, "8m"),
    Case("GpudaemonConfigRejected", "a daemon that does not say", up("1x40"), "8m"),
    Case("GpudaemonSeriesDropped", "dropped",
         {of(daemon.SERIES_DROPPED): "12x80", **INFO}, "18m", (AT_GPU,), "12",
         "MI300X"),
    Case("GpudaemonSeriesDropped", "for a moment", {of(daemon.SERIES_DROPPED): "12x20 0x80"}, "18m"),
    Case("GpuMissing", "missing",
         {of(daemon.DEVICE_MISSING): "0x4 1x40", **INFO}, "5m", (AT_GPU,), "", "MI300X"),
    Case("GpuMissing", "missing, nameless", {of(daemon.DEVICE_MISSING): "1x40"}, "5m", (AT_GPU,)),
    Case("GpuMissing", "a failed scrape meanwhile",
         {of(daemon.DEVICE_MISSING): "1x19 stale 1x40"}, "5m", (AT_GPU,)),
    Case("GpuMissing", "driver reloaded", {of(daemon.DEVICE_MISSING): "0x4 1x4 0x40"}, "135s"),
    Case("GpuMissing", "driver reloaded, later", {of(daemon.DEVICE_MISSING): "0x4 1x4 0x40"}, "5m"),
    Case("GpuMissing", "asleep", {of(daemon.DEVICE_MISSING): "0x80", **ASLEEP}, "5m"),
    Case("GpuDeviceHung", "hung", {**state("hung", "0x4 1x40"), **INFO}, "5m", (AT_GPU,), "", "MI300X"),
    Case("GpuDeviceHung", "hung from the start", state("hung", "1x40"), "5m", (AT_GPU,)),
    Case("GpuDeviceHung", "on one of two hosts",
         {**state("hung"), **state("hung", "0x40", "h2")}, "5m", (AT_GPU,)),
    Case("GpuDeviceHung", "a failed scrape meanwhile", state("hung", "1x19 stale 1x40"), "5m", (AT_GPU,)),
    Case("GpuDeviceHung", "a slow moment", state("hung", "0x4 1x2 0x40"), "5m"),
    Case("GpuDeviceHung", "asleep", ASLEEP, "10m"),
    Case("GpuDeviceSilent", "denied", state("denied"), "12m", ({**AT_GPU, "state": "denied"},)),
    Case("GpuDeviceSilent", "stale",
         {**state("stale"), **INFO}, "12m", ({**AT_GPU, "state": "stale"},), "", "MI300X"),
    Case("GpuDeviceSilent", "stale for five minutes", state("stale", "1x20 0x60"), "12m"),
    Case("GpuDeviceSilent", "asleep", {**ASLEEP, **state("resting"), **state("paused")}, "12m"),
    Case("GpuDeviceSilent", "hung is the other alert's", state("hung"), "12m"),
    Case("GpuUncorrectedErrors", "two blocks",
         {**ras("uncorrected", "0x4 2x40"), **ras("uncorrected", "1x40", "gfx")},
         "5m", (AT_GPU,), "3"),
    Case("GpuUncorrectedErrors", "there when the daemon came", {**ras("uncorrected", "1x40"), **INFO}, "1m",
         (AT_GPU,), "1", "MI300X"),
    Case("GpuUncorrectedErrors", "a failed scrape", ras("uncorrected", "1x19 stale 1x9"), "5m", (AT_GPU,), "1"),
    Case("GpuUncorrectedErrors", "corrected",
         {**ras("corrected", "0x4 90x40"), **ras("uncorrected", "0x40")}, "5m"),
    Case("GpuUncorrectedErrors", "driver reloaded", ras("uncorrected", "2x4 0x60"), "8m"),
    Case("GpuUncorrectedErrors", "no RAS", ASLEEP, "5m"),
    Case("GpuBadPages", "pending", {of(gpu.RAS_BAD_PAGES, state="pending"): "3x80"}, "12m",
         ({**AT_GPU, "state": "pending"},), "3"),
    Case("GpuBadPages", "failed", {of(gpu.RAS_BAD_PAGES, state="failed"): "1x80"}, "12m",
         ({**AT_GPU, "state": "failed"},), "1"),
    Case("GpuBadPages", "taken out long ago", {of(gpu.RAS_BAD_PAGES, state="reserved"): "40x80",
                                               of(gpu.RAS_BAD_PAGES, state="pending"): "0x80"}, "12m"),
    Case("GpuPcieLinkDegraded", "half its lanes", link(8, 16, 16), "18m", (AT_GPU,), "8"),
    Case("GpuPcieLinkDegraded", "a slot with eight", link(8, 16, 8), "18m"),
    Case("GpuPcieLinkDegraded", "a card with eight", link(8, 8, 16), "18m"),
    Case("GpuPcieLinkDegraded", "slow at work", speed("8e9", "32e9", "32e9", 0.9), "18m", (AT_GPU,), "8e+09"),
    Case("GpuPcieLinkDegraded", "slow when idle", speed("2.5e9", "32e9", "32e9", 0.02), "18m"),
    Case("GpuPcieLinkDegraded", "a slow slot", speed("16e9", "32e9", "16e9", 0.9), "18m"),
    Case("GpuPcieLinkDegraded", "the edge of a card with a switch", switch(4, 16), "18m",
         ({"device": "0000:01:00.0"},), "4"),
    Case("GpuPcieLinkDegraded", "between the ports of a switch is no link", switch(16, 8), "18m"),
    Case("GpuPcieLinkDegraded", "asleep, nothing known", ASLEEP, "18m"),
    Case("GpuPcieErrors", "fatal", {FATAL: "0x8 1x40"}, "5m", ({**AT_GPU, "error": "fatal"},), "1"),
    Case("GpuPcieErrors", "of both sorts", {FATAL: "0x8 1x40", NONFATAL: "0x8 1x40"}, "5m",
         ({**AT_GPU, "error": "fatal"}, {**AT_GPU, "error": "nonfatal"}), "1"),
    Case("GpuPcieErrors", "since boot, none new", {FATAL: "7x40"}, "5m"),
    Case("GpuPcieErrors", "counter starts again", {FATAL: "7x20 0x40"}, "8m"),
    Case("GpuPcieErrors", "corrected", {of(pcie.AER_MESSAGES, severity="corrected"): "0+5x40"}, "5m"),
    Case("GpuFatalError", "poison met", {POISON: "0x8 1x40", **INFO}, "5m",
         ({**AT_GPU, "event": "poison_consumption"},), "1", "MI300X"),
    Case("GpuFatalError", "poison created, not met", {CREATED: "0x8 1x40"}, "5m"),
    Case("GpuFatalError", "before the daemon", {POISON: "3x40"}, "5m"),
    Case("CxlDeviceErrors", "poison", {CXL: "120x60"}, "5m", ({**AT_GPU, "error": "uncorrected"},), "180"),
    Case("CxlDeviceErrors", "long ago", {CXL: "120x200"}, "30m"),
    Case("CxlDeviceErrors", "corrected", {CXL_CORRECTED: "120x60"}, "5m"),
    Case("GpuXgmiLinkDown", "down", {LINK: "1x20 0x60", **INFO}, "14m",
         ({**AT_GPU, "link": "3"},), "0", "MI300X"),
    Case("GpuXgmiLinkDown", "not wired", {LINK: "0x80"}, "14m"),
    Case("GpuXgmiLinkDown", "up again", {LINK: "1x20 0x8 1x60"}, "14m"),
    Case("GpuTemperatureCritical", "at crit", {**heat("90x4 100x40"), **INFO}, "5m",
         ({**AT_GPU, "sensor": "junction"},), "100", "MI300X"),
    Case("GpuTemperatureCritical", "between scrapes", {**heat("97x40"), ABOVE: "0+5x40"}, "8m",
         ({**AT_GPU, "sensor": "junction"},), "100"),
    Case("GpuTemperatureCritical", "just below", heat("99x40"), "5m"),
    Case("GpuTemperatureCritical", "a limit of another name", heat("104x40", "emergency"), "5m"),
    Case("GpuTemperatureCritical", "fell asleep", {**heat("99x8 _x80"), **ASLEEP}, "8m"),
    Case("GpuTemperatureCritical", "daemon restarted", {**heat("60x80"), ABOVE: "500x20 0x60"}, "10m"),
    Case("GpuNeedsRepair", "to be flashed", {of(gpu_parts.SURVIVABILITY_INFO): "1x40", **INFO}, "5m",
         (AT_GPU,), product="MI300X"),
    Case("GpuNeedsRepair", "all is well", {**INFO}, "5m"),
    Case("GpuNotOperational", "needs a reset", {of(gpu_parts.STATUS, state="needs reset"): "1x40"}, "5m",
         ({**AT_GPU, "state": "needs reset"},)),
    Case("GpuNotOperational", "in reset", {of(gpu_parts.STATUS, state="in reset"): "1x40",
         of(gpu_parts.STATUS, state="disabled"): "0x40"}, "5m"),
    Case("GpuFirmwareHealth", "warning", {of(gpu_parts.HEALTH_INDICATOR, state="warning"): "1x80"}, "8m",
         ({**AT_GPU, "state": "warning"},)),
    Case("GpuFirmwareHealth", "ok", {of(gpu_parts.HEALTH_INDICATOR, state="ok"): "1x80",
         of(gpu_parts.HEALTH_INDICATOR, state="critical"): "0x80"}, "8m"),
    Case("GpuThermalThrottling", "throttled", {HOT: "0+5x80", **INFO}, "18m", (AT_GPU,), "200", "MI300X"),
    Case("GpuThermalThrottling", "by power", {of(gpu.THROTTLED_SECONDS, cause="power"): "0+15x80"}, "18m"),
    Case("GpuThermalThrottling", "daemon restarted", {HOT: "900x20 0x60"}, "18m"),
    Case("GpuThermalThrottling", "a moment", {HOT: "0x20 15 30 30x60"}, "8m"),
)  # fmt: skip


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        assert not os.environ.get("CI"), "promtool belongs to CI"
        pytest.skip("promtool is not installed")
    return found


def filled(text: str, labels: Labels, case: Case) -> str:
    """A template of ours as Prometheus writes it; promtool says if Prometheus writes something else."""
    text = re.sub(r"\{\{ with .*?\{\{ end \}\}", case.product, text)
    text = re.sub(r"\{\{ if \$labels\.instance \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}",
                  lambda found: found[1] if labels.get("instance") else found[2], text)  # fmt: skip
    text = re.sub(r"\{\{ \$value.*?\}\}", case.value, text)
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)


def expected(case: Case) -> list[dict[str, Labels]]:
    alert = BY_NAME[case.alert]
    found = []
    for given in case.fires:
        labels = {"job": "gpudaemon", "instance": "h1", **given}
        inner = labels.pop("severity_", "")
        labels = {name: value for name, value in labels.items() if value}
        seen = {**labels, "severity": inner} if inner else labels
        notes = {
            "summary": filled(alert.summary, seen, case),
            "description": filled(alert.description, seen, case),
        }
        notes["runbook"] = f"docs/dashboards.md#{case.alert.lower()}"
        found.append({"exp_labels": {**labels, "severity": alert.severity}, "exp_annotations": notes})
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_alert(case: Case, tmp_path: Path) -> None:
    document = {
        "rule_files": [RULES],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected(case)}
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [promtool(), "test", "rules", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_made_to_fire_and_kept_from_it() -> None:
    for name in BY_NAME:
        mine = [case for case in CASES if case.alert == name]
        assert any(case.fires for case in mine) and any(not case.fires for case in mine), name


def test_rule_files_are_fresh_and_right() -> None:
    for name, text in (
        ("gpudaemon-alerts.yml", alerting_rules()),
        ("gpudaemon-recording.yml", recording_rules()),
    ):
        path = os.path.join(FILES, name)
        with open(path, encoding="utf-8") as file:
            assert file.read() == text, "make it anew, see docs/dashboards.md"
        done = subprocess.run(
            [promtool(), "check", "rules", path], check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_name_in_the_rules_is_a_row() -> None:
    known = {row.name for row in table()}
    names = re.findall(r"(?<!:)\bgpudaemon_\w+", alerting_rules() + recording_rules())
    assert names and set(names) <= known, set(names) - known


def test_every_alert_has_a_section_in_the_runbook() -> None:
    with open(os.path.join(TOP, "docs", "dashboards.md"), encoding="utf-8") as file:
        sections = set(re.findall(r"^### (\w+)$", file.read(), re.MULTILINE))
    assert sections == set(BY_NAME)
