"""Which metrics real captures show, from which files: the data behind "seen in" of docs/metrics.md.

    GPUDAEMON_CAPTURES=DIR python -m tests.seen > gpudaemon/export/seen.json

Every capture is laid out as a sysfs tree, planned, read and decoded as the daemon would; a metric was seen
where a file gave a value for it. Mock hosts count for nothing. Takes half a minute.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from gpudaemon.capture import load, write
from gpudaemon.collectors import collectors
from gpudaemon.drivers import driver_for
from gpudaemon.errors import Malformed
from gpudaemon.export.provenance import file_pattern, provider
from gpudaemon.metrics import gpu, runtime_power
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import Device
from gpudaemon.pipeline.plan import GATE
from tests import captures

__all__ = ["seen"]

_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "captures")
_SHOWN = 3
"""Captures named for a metric and who gives it; the others are counted."""

Layout = Callable[[str], str]
"""Lays a capture out below a directory; the path of its sysfs."""


def _card(source: str) -> Layout:
    def layout(directory: str) -> str:
        captures.from_card_folder(source, directory)
        return directory

    return layout


def _device(source: str) -> Layout:
    def layout(directory: str) -> str:
        captures.add_card(directory, source, "card0")
        return directory

    return layout


def _text_archive(source: str, sysfs: str) -> Layout:
    def layout(directory: str) -> str:
        captures.unpack_ttar(source, directory)
        root = os.path.join(directory, sysfs)
        captures.straighten(root)
        return root

    return layout


def _topology(source: str) -> Layout:
    def layout(directory: str) -> str:
        captures.add_kfd(directory, source)
        return directory

    return layout


def _listing(source: str) -> Layout:
    def layout(directory: str) -> str:
        captures.from_lspci(source, directory)
        return directory

    return layout


def _own(source: str) -> Layout:
    def layout(directory: str) -> str:
        tree = os.path.join(directory, "host")
        write(load(source), tree)
        return os.path.join(tree, "sys")

    return layout


def _archive(source: str) -> Layout:
    return lambda directory: captures.from_tarball(source, directory)


def _archives(root: str, folder: str, prefix: str) -> Iterator[tuple[str, Layout]]:
    """Whole trees of a folder; those of booted kernels are called `sysfs-RELEASE`."""
    for name in sorted(os.listdir(os.path.join(root, folder))):
        short = name.removesuffix(".tar.gz")
        if short == name or (folder == "vm/lane" and not re.match(r"sysfs-\d", short)):
            continue
        short = short.removeprefix("sysfs-").removesuffix("-amd64")
        yield prefix + short, _archive(os.path.join(root, folder, name))


def _layouts(root: str) -> Iterator[tuple[str, Layout]]:
    """(name, layout) of every capture, booted kernels first."""
    for name in sorted(os.listdir(_OWN)):
        if not name.startswith("mock-"):
            yield f"tests/captures/{name}", _own(os.path.join(_OWN, name, "capture.tar.gz"))
    yield from _archives(root, "vm/lane", "kernel ")
    for vendor in ("amd", "intel", "nvidia"):
        for card in captures.names("lact", vendor):
            yield f"lact/{vendor}/{card}", _card(os.path.join(root, "lact", vendor, card))
    for card in captures.names("amdgpu-sysfs-rs", "tests", "data"):
        source = os.path.join(root, "amdgpu-sysfs-rs/tests/data", card)
        if os.path.exists(os.path.join(source, "uevent")):
            yield f"amdgpu-sysfs-rs/{card}", _device(source)
    yield "node_exporter", _text_archive(os.path.join(root, "node_exporter/sys.ttar"), "sys")
    yield (
        "prometheus-procfs",
        _text_archive(os.path.join(root, "prometheus-procfs/fixtures.ttar"), "fixtures/sys"),
    )
    for host in captures.names("inference-snaps"):
        listing = os.path.join(root, "inference-snaps", host, "lspci.txt")
        if os.path.exists(listing):
            yield f"inference-snaps/{host}", _listing(listing)
    yield from _archives(root, "ghw", "ghw/")
    for name in ("topo-mi210-xgmi-pcie", "topology-parsing/topology"):
        source = os.path.join(root, "rocm-k8s-device-plugin", name)
        yield f"rocm-k8s-device-plugin/{name.partition('/')[0]}", _topology(source)


def _values(sysfs: str, device: Device) -> Iterator[tuple[str, str, str]]:
    """(metric, who gives it, file) of every value of a device."""
    if GATE in device.names and captures.read(sysfs, device, GATE):
        yield runtime_power.POWER_STATE.name, "runtime_power", GATE
    for name, collector in collectors().items():
        if not collector.wants(device):
            continue
        by = provider(device, name)
        facts = {path: captures.read(sysfs, device, path) for path in collector.needs(device)}
        for series, _ in collector.constants(device, facts):
            own = driver_for(device).identity.values() if series.metric is gpu.INFO else ()
            files = [path for path in own if facts.get(path)]
            for path in files or [""]:
                yield series.metric.name, by, path
        for planned in collector.attributes(device, facts):
            content = captures.read(sysfs, device, planned.path)
            if content is None:
                continue
            try:
                if isinstance(planned, Attribute):
                    values = zip(planned.series, planned.decode(content), strict=True)
                    given = [series.metric for series, value in values if value is not None]
                else:
                    given = [metric for metric, _, _ in planned.decode(content)]
            except Malformed:
                continue
            for metric in dict.fromkeys(given):
                yield metric.name, by, planned.path


def seen(root: str) -> dict[str, dict[str, dict[str, Any]]]:
    """metric -> who gives it -> {"files": patterns, "in": names of captures, "more": how many others}."""
    found: dict[str, dict[str, tuple[set[str], dict[str, None]]]] = {}
    for name, layout in _layouts(root):
        with tempfile.TemporaryDirectory() as directory:
            sysfs = layout(directory)
            for device in captures.devices(sysfs, every_function=name.startswith(("node_", "prometheus"))):
                for metric, by, path in _values(sysfs, device):
                    files, where = found.setdefault(metric, {}).setdefault(by, (set(), {}))
                    where[name] = None
                    if path:
                        files.add(file_pattern(path))
    return {
        metric: {
            by: {"files": sorted(files), "in": list(where)[:_SHOWN], "more": max(len(where) - _SHOWN, 0)}
            for by, (files, where) in sorted(given.items())
        }
        for metric, given in sorted(found.items())
    }


def rendered(root: str) -> str:
    """The whole file."""
    return json.dumps(seen(root), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if not os.environ.get(captures.VARIABLE):
        sys.exit(f"{captures.VARIABLE} does not name a folder of captures")
    sys.stdout.write(rendered(os.environ[captures.VARIABLE]))
