"""Real cards and hosts through the whole daemon: reader, channel, lanes, snapshot and page, with both engines.

What the parts give without a daemon is compared with upstream's own expected output in
tests/unit/test_captures.py; here the whole pipeline must give the same, sample for sample.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpudaemon.config import load
from gpudaemon.daemon import Daemon
from gpudaemon.export.prometheus import pages
from gpudaemon.pipeline.derived import RULES
from tests import captures

pytestmark = pytest.mark.live

Sample = tuple[str, tuple[tuple[str, str], ...]]
_OWN = ("gpudaemon_daemon_", "gpudaemon_device_", "gpudaemon_build_", "gpudaemon_memory_page_size_bytes")
"""What the daemon says about itself and about how it stands with a device: nothing a tree contains."""

_PAIRS = ("reachable", "path_info", "distance", "ceiling_bytes_per_second", "pairs_left_out")
"""What the daemon says about pairs of devices: no device's part says it (`gpudaemon_p2p_*`)."""

_MADE = {rule.counter.name for rule in RULES}
"""Counters made of readings: no tree contains them, and when they begin depends on how often it is read."""


def _trees(tmp_path: Path) -> dict[str, Callable[[], str]]:
    """Capture -> what makes a sysfs tree of it and returns its root."""
    trees: dict[str, Callable[[], str]] = {}

    def lact(vendor: str, card: str) -> str:
        root = str(tmp_path / vendor / card)
        captures.from_card_folder(captures.capture("lact", vendor, card), root)
        return root

    def amdgpu_sysfs(card: str, source: str) -> str:
        root = str(tmp_path / f"amdgpu-sysfs-{card}")
        captures.add_card(root, source, "card0")
        return root

    def ttar(name: str, below: str, *parts: str) -> str:
        captures.unpack_ttar(captures.capture(*parts), str(tmp_path / name))
        root = str(tmp_path / name / below)
        captures.straighten(root)
        return root

    def lspci(host: str) -> str:
        root = str(tmp_path / f"lspci-{host}")
        captures.from_lspci(captures.capture("inference-snaps", host, "lspci.txt"), root)
        return root

    def ghw(archive: str) -> str:
        return captures.from_tarball(captures.capture("ghw", archive), str(tmp_path / archive))

    for vendor in ("amd", "intel", "nvidia"):
        for card in captures.names("lact", vendor):
            trees[f"lact/{vendor}/{card}"] = lambda vendor=vendor, card=card: lact(vendor, card)
    for card in captures.names("amdgpu-sysfs-rs", "tests", "data"):
        source = captures.capture("amdgpu-sysfs-rs", "tests", "data", card)
        if Path(source, "uevent").exists():
            trees[f"amdgpu-sysfs-rs/{card}"] = lambda card=card, source=source: amdgpu_sysfs(card, source)
    trees["node_exporter"] = lambda: ttar("node_exporter", "sys", "node_exporter", "sys.ttar")
    trees["prometheus-procfs"] = lambda: ttar("procfs", "fixtures/sys", "prometheus-procfs", "fixtures.ttar")
    for host in captures.names("inference-snaps"):
        if Path(captures.capture("inference-snaps"), host, "lspci.txt").exists():
            trees[f"inference-snaps/{host}"] = lambda host=host: lspci(host)
    for archive in sorted(path.name for path in Path(captures.capture("ghw")).glob("*.tar.gz")):
        trees[f"ghw/{archive}"] = lambda archive=archive: ghw(archive)
    return trees


def _daemon_page(sysfs: str, engine: str, runtime: str) -> dict[Sample, float]:
    """What one look of the daemon publishes of a tree, without what it says about itself."""
    # Captures hold no procfs, and this host's own is not theirs.
    procfs = os.path.join(runtime, "no-procfs")
    os.makedirs(procfs, exist_ok=True)
    flags = {
        "path.sysfs": sysfs,
        "path.procfs": procfs,
        "engine": engine,
        "uevent.source": "none",
        "path.runtime": runtime,
    }
    config = load("", flags)
    snapshot = asyncio.run(Daemon(config).look())[0]
    found: dict[Sample, float] = {}
    malformed = []
    families = text_string_to_metric_families("".join(pages(snapshot, False)))
    for sample in captures.without_rates([sample for family in families for sample in family.samples]):
        if sample.name == "gpudaemon_daemon_malformed_total":
            malformed.append(sample)
        elif sample.name.removeprefix("gpudaemon_p2p_") in _PAIRS or (
            sample.name in _MADE and sample.labels.get("source") != "hardware"
        ):
            continue
        elif not sample.name.startswith(_OWN) or sample.name == "gpudaemon_device_numa_node":
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} twice on one page"
            found[key] = sample.value
    # Empty files, which upstream left in one tree, are no number to the daemon and no file to the parts.
    assert [sample for sample in malformed if sample.labels["reason"] != "empty"] == []
    assert {device.state for device in snapshot.devices} <= {"ok", "suspended"}
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_the_whole_daemon_says_of_captures_what_its_parts_say(engine: str, tmp_path: Path) -> None:
    captures.capture()
    compared = 0
    for name, make in _trees(tmp_path).items():
        sysfs = make()
        os.makedirs(sysfs, exist_ok=True)  # a host without a PCI function leaves nothing to write
        parts = captures.page_of(sysfs)
        assert parts.malformed == [], name
        expected = {
            (metric, tuple(sorted(labels.items()))): value
            for metric, labels, value in parts.samples
            if not metric.startswith(_OWN) or metric == "gpudaemon_device_numa_node"
        }
        assert _daemon_page(sysfs, engine, str(tmp_path / "run")) == expected, name
        compared += len(expected)
        print(f"{engine} {name}: {len(expected)} samples, the same")
    assert compared >= 1800
