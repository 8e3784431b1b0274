"""Every query of the dashboard and every rule, asked of a real Prometheus that scrapes hosts."""

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpudaemon.export.alerts import ALERTS
from gpudaemon.export.dashboard import DEVICE_STATES
from gpudaemon.mock import HostProcess, available
from tests.live.daemon import RunningDaemon, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = os.path.join(TOP, "config")

HUNG, GONE, ASLEEP, GARBAGE, IDLE = (f"0000:{bus}:00.0" for bus in ("03", "23", "43", "63", "83"))
DESKTOP = "0000:03:00.0"
STATES = {state.text: float(state.number) for state in DEVICE_STATES}

NEVER = {
    # Events that no host here has: their panels are right to be empty.
    "increase(gpudaemon_daemon_decoder_failures_total": "a bug",
    "increase(gpudaemon_daemon_ticks_missed_total": "a server that was late",
    "increase(gpudaemon_daemon_rows_dropped_total": "a file with rows beyond its bound",
    "increase(gpudaemon_daemon_reader_restarts_total": "a reader that died",
    "increase(gpudaemon_daemon_task_restarts_total": "a task that failed",
    "(gpudaemon_daemon_series_dropped": "a device beyond metric.limit",
    "increase(gpudaemon_pcie_aer_errors_total": "a link with errors",
    # What no AMD GPU has; tests/unit/test_captures.py has cards that do.
    "gpudaemon_gpu_idle_residency_seconds_total": "an Intel GPU",
    "gpudaemon_gpu_clock_requested_hertz": "an Intel GPU, or one with devfreq",
    "gpudaemon_gpu_clock_limit_hertz": "an Intel GPU, or one with devfreq",
    "gpudaemon_gpu_engine_busy_seconds_total": "an Intel GPU or NPU",
    "gpudaemon_gpu_health_indicator": "an Intel GPU with RAS",
    "gpudaemon_gpu_driver_status": "a Gaudi",
    "gpudaemon_gpu_resets_total": "a Gaudi",
    "gpudaemon_gpu_sriov_vram_quota_bytes": "an Intel GPU that is shared out",
    # The memory of the host, of which mocks have none; tests/unit/test_collectors_hmm.py has a kernel's.
    "gpudaemon_memory_": "a host with /proc/vmstat",
    # What no process on these hosts has open; tests/live/test_processes.py has some that do.
    "gpudaemon_drm_clients": "a client",
    "gpudaemon_drm_open_descriptors": "a client",
    "gpudaemon_drm_owner_": "a client",
    "gpudaemon_kfd_owner_": "a ROCm process",
    "gpudaemon_io_uring_": "a process with a ring",
}


class Prometheus:
    """The query API of a Prometheus that was started for the test."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def answers(self) -> bool:
        """Whether it listens already."""
        try:
            return bool(self.get("status/buildinfo"))
        except (OSError, AssertionError):
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; AssertionError with Prometheus's own words where it is none."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/{path}?{query}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def instant(self, query: str) -> list[tuple[dict[str, str], float]]:
        found = self.get("query", query=query)
        assert found["resultType"] == "vector", query
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def span(self, query: str, seconds: float) -> list[Any]:
        """What a panel gets: the query over the last so many seconds, step 1 s."""
        now = time.time()
        data = self.get("query_range", query=query, start=str(now - seconds), end=str(now), step="1")
        found: list[Any] = data["result"]
        return found


@contextmanager
def prometheus(folder: Path, targets: dict[str, int]) -> Iterator[Prometheus]:
    """Scrapes every second, with the rules this project ships; `instance` is the name of the host."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    static = [{"targets": [f"127.0.0.1:{at}"], "labels": {"instance": name}} for name, at in targets.items()]
    file = folder / "prometheus.json"  # JSON is YAML
    file.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": [os.path.join(CONFIG, "prometheus", "gpudaemon-*.yml")],
                "scrape_configs": [{"job_name": "gpudaemon", "static_configs": static}],
            }
        )
    )
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            until(Prometheus(port).answers, 30)
            yield Prometheus(port)
        except BaseException:
            print(log.read_text()[-4000:])
            raise
        finally:
            process.kill()
            process.wait(20)


def dashboard() -> dict[str, Any]:
    with open(os.path.join(CONFIG, "grafana", "gpudaemon-host.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def targets(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and query of every panel and mark."""
    for panel in board["panels"]:
        for one in panel["panels"] if panel["type"] == "row" else [panel]:
            for target in one["targets"]:
                yield one["title"], target["expr"]
    for mark in board["annotations"]["list"]:
        yield mark["name"], mark["expr"]


def chosen(query: str, host: str, devices: str) -> str:
    """The query as Grafana sends it once its variables are filled in."""
    for name, value in (
        ("$__rate_interval", "10s"),
        ("$__range", "2m"),
        ("$window", "15s"),
        ("$job", "gpudaemon"),
        ("$instance", host),
        ("$device", devices),
    ):
        query = query.replace(name, value)
    assert "$_" not in query
    return query


def devices_of(api: Prometheus, host: str) -> dict[str, str]:
    """What the drop-down of devices shows: value and text, by the dashboard's own query and expression."""
    choice = next(one for one in dashboard()["templating"]["list"] if one["name"] == "device")
    inner = re.fullmatch(r"query_result\((.*)\)", choice["query"])
    assert inner is not None
    pattern = re.compile(choice["regex"].strip("/").replace("(?<", "(?P<"))
    found = {}
    for labels, _ in api.instant(chosen(inner[1], host, "")):
        line = "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "} 1 1"
        match = pattern.search(line)
        assert match is not None, line
        found[match["value"]] = match["text"]
    return found


@contextmanager
def hosts(folder: Path) -> Iterator[tuple[Prometheus, int]]:
    """The demo, a sick host, a desktop read by threads, a target that never answers; the port of the first."""
    with (
        HostProcess("mi300x8", gpus=5) as sick,
        HostProcess("rx7900xtx") as desktop,
    ):
        # Asleep before its daemon is there it would have no values, and on a busy machine it would be.
        desktop.control.autosuspend(DESKTOP, 10**6)
        desktop.control.resume(DESKTOP)
        sick.control.fault("sys/class/drm/card0/device/*", "hang")
        for card, busy in (("card3", b"lots\n"), ("card4", b"0\n")):
            base = f"sys/class/drm/{card}/device"
            # Without the table of the firmware the load comes of a file of its own, whose content is a text.
            sick.control.fault(f"{base}/gpu_metrics", "read_errno", errno=errno.EOPNOTSUPP)
            sick.control.fault(f"{base}/gpu_busy_percent", "content", content=busy)
        sick.control.fault("sys/class/drm/card4/device/ras/umc_err_count", "content", content=b"ue: 1\nce: 4\n")
        with (
            RunningDaemon(None, "--demo", sysfs="/sys") as shown,
            RunningDaemon(sick, "--read.deadline", "0.5", uevents=f"socket:{sick.uevents}", wait=0) as ill,
            RunningDaemon(desktop, "--engine", "threads", "--no-resting") as small,
            socket.create_server(("127.0.0.1", 0)) as silent,
            prometheus(
                folder,
                {
                    "demo": shown.port,
                    "sick": ill.port,
                    "desktop": small.port,
                    "dead": silent.getsockname()[1],
                },
            ) as api,
        ):
            try:
                ill.until(lambda: ill.metrics().states(HUNG) == ["hung"], 20)
                ill.until(lambda: ill.metrics().states(ASLEEP) == ["ok"], 20)
                sick.control.autosuspend(ASLEEP, 1000)
                sick.control.suspend(ASLEEP)
                sick.control.remove(GONE)
                ill.until(lambda: f'gpudaemon_device_missing{{device="{GONE}"}}' in ill.metrics(), 20)
                yield api, shown.port
            finally:
                sick.control.clear()


def test_queries_of_the_dashboard_and_rules(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        assert not os.environ.get("CI"), "prometheus belongs to CI"
        pytest.skip("prometheus is not installed")
    if not available():
        pytest.skip("no FUSE here")
    with hosts(tmp_path) as (api, port):
        until(lambda: len(api.instant("sum_over_time(up[1h]) > 20")) == 3, 90)
        devices = {host: devices_of(api, host) for host in ("demo", "sick", "desktop", "dead")}
        check_devices(devices)
        check_states(api, devices["sick"])
        check_values(api)
        check_every_query(api, devices)
        check_rules(api)
        check_two_rates(port)


def check_two_rates(port: int) -> None:
    """The two jobs of the example give every series once, and none is lost between them."""
    with open(os.path.join(CONFIG, "prometheus", "scrape-two-rates.yml"), encoding="utf-8") as file:
        slow, fast = yaml.safe_load(file)["scrape_configs"]
    dropped = re.compile(fast["metric_relabel_configs"][0]["regex"])

    def series(parameters: dict[str, list[str]]) -> set[str]:
        query = urllib.parse.urlencode(parameters, doseq=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics?{query}", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}

    seldom, often = series(slow["params"]), series(fast["params"])
    often = {one for one in often if not dropped.fullmatch(one.partition("{")[0])}
    assert often and not often & seldom
    assert not series({}) - often - seldom


def check_devices(devices: dict[str, dict[str, str]]) -> None:
    """The drop-downs hold GPUs only, also one that never answered and one that is gone."""
    assert len(devices["demo"]) == 8 and devices["demo"][HUNG] == f"{HUNG} AMD Instinct MI300X OAM"
    assert set(devices["sick"]) == {HUNG, GONE, ASLEEP, GARBAGE, IDLE}
    assert devices["sick"][HUNG].strip() == HUNG, "of it nothing is known but the address"
    assert len(devices["desktop"]) == 1 and not devices["dead"]


def check_states(api: Prometheus, devices: dict[str, str]) -> None:
    """The strip tells hung from missing from asleep from well."""
    strip = dict(targets_of("Why values are there or not"))
    query = chosen(strip["{{device}}"], "sick", "|".join(devices))
    now = {labels["device"]: value for labels, value in api.instant(query)}
    assert now[HUNG] == STATES["hung"]
    assert now[GONE] == STATES["missing"]
    assert now[ASLEEP] in (STATES["suspended"], STATES["resting"])
    assert now[GARBAGE] == now[IDLE] == STATES["ok"]
    assert [value for _, value in api.instant(chosen(strip["scrape"], "sick", ""))] == [101.0]
    assert [value for _, value in api.instant(chosen(strip["scrape"], "dead", ""))] == [100.0]
    assert api.instant(chosen(strip["{{device}}"], "dead", ".*")) == []


def targets_of(title: str) -> Iterator[tuple[str, str]]:
    """Legend and query of one panel."""
    board = dashboard()
    for panel in [*board["panels"], *(one for row in board["panels"] for one in row.get("panels", []))]:
        if panel["title"] == title and panel["type"] != "row":
            for target in panel["targets"]:
                yield target["legendFormat"], target["expr"]


def check_values(api: Prometheus) -> None:
    """Zero is a value; of hung, missing, sleeping devices and of garbage there is none."""
    busy = next(query for _, query in targets_of("Busy"))
    now = {labels["device"]: value for labels, value in api.instant(chosen(busy, "sick", ".*")) if
           labels["engine"] == "gfx"}  # fmt: skip
    assert now == {IDLE: 0.0}
    lost = next(query for _, query in targets_of("Missing"))
    assert [value for _, value in api.instant(chosen(lost, "sick", ".*"))] == [1.0]
    assert [value for _, value in api.instant(chosen(lost, "demo", ".*"))] == [0.0]
    assert api.instant(chosen(lost, "nobody", ".*")) == []
    assert api.instant(chosen(lost, "dead", ".*")) == [], "a host that is not scraped has no zero"
    stuck = next(query for _, query in targets_of("Stuck reads"))
    assert {labels["device"] for labels, _ in api.instant(chosen(stuck, "sick", ""))} == {HUNG}


def check_every_query(api: Prometheus, devices: dict[str, dict[str, str]]) -> None:
    """No query is wrong, and each finds something on one of the hosts."""
    empty = []
    marks = {mark["name"] for mark in dashboard()["annotations"]["list"]}
    asked = 0
    for title, expression in targets(dashboard()):
        found = 0
        for host, known in devices.items():
            series = api.span(chosen(expression, host, "|".join(known)), 60)
            found += len(series)
            if title in marks:
                values = [float(value) for one in series for _, value in one["values"]]
                assert all(value > 0 for value in values), f"{title}: Grafana marks nothing at zero"
            asked += 1
        if not found and not any(re.sub(r"\{[^}]*\}", "", expression).find(start) >= 0 for start in NEVER):
            empty.append((title, expression))
    assert asked > 200
    assert not empty, "\n".join(f"{title}: {query}" for title, query in empty)


def check_rules(api: Prometheus) -> None:
    """Every rule can be evaluated on these hosts, and the sick one's faults are on their way to an alert."""
    groups = api.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= len(ALERTS) + 5
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    active = {
        (rule["name"], alert["labels"].get("device")) for rule in rules for alert in rule.get("alerts", [])
    }
    assert active == {
        ("GpudaemonDown", None),
        ("GpuDeviceHung", HUNG),
        ("GpuMissing", GONE),
        ("GpuUncorrectedErrors", IDLE),
    }
    recorded = {labels["__name__"] for labels, _ in api.instant('{__name__=~"instance.*:.*",instance="sick"}')}
    assert len(recorded) == 5, recorded
