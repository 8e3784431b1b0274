"""One look of the daemon at a recorded host, as series and values: what a capture is compared by.

    python -m tests.captures_replay DIR|FILE.tar.gz > page.prom

prints the page of a capture, without what depends on the moment, in order.
"""

import asyncio
import os
import re
import sys
import tempfile

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gpudaemon.capture import load, write
from gpudaemon.config import load as configuration
from gpudaemon.daemon import Daemon
from gpudaemon.export.prometheus import pages
from gpudaemon.model.attribute import Cadence
from gpudaemon.model.device import PROC
from gpudaemon.parsers.integer import hexadecimal
from gpudaemon.pipeline.derived import RULES
from gpudaemon.pipeline.finder import survey
from gpudaemon.pipeline.plan import facts_needed, group_of, make_plan
from tests import captures

__all__ = ["page", "page_of_capture", "static"]

_MOMENT = (
    "gpudaemon_daemon_",
    "gpudaemon_build_",
    "gpudaemon_device_data_age",
    "gpudaemon_device_left_suspended",
)
"""What the daemon says of itself and of how long something took: nothing a host contains."""
_MADE = {rule.counter.name for rule in RULES}
"""Counters made of readings: when they begin depends on how often it is read."""
_SPECIMEN = re.compile(
    r'(serial_number|serial|node_guid|unique_id|uuid|pod_uid|container|container_id)="[^"]*"'
)
_HIVE = re.compile(r'\b(?:(hive)="\d+"|(device_id)="\d{6,}")')
"""Numbers of a hive (KFD's) and of a GPU in it; the `device_id` of PCI is four hexadecimal digits."""


def _key(sample: Sample) -> str:
    labels = ",".join(f'{name}="{text}"' for name, text in sorted(sample.labels.items()))
    labels = _HIVE.sub(r"\1\2", _SPECIMEN.sub(r"\1", labels))
    return f"{sample.name}{{{labels}}}"


def static(sysfs: str, procfs: str) -> set[str]:
    """Series of files that change only with the device or its driver, and of names alone."""
    found: set[str] = set()
    classes: dict[str, int | None] = {
        function.id: hexadecimal(_content(f"{sysfs}/{function.path}/class") or b"0")
        for function in survey(sysfs, {}, ())[1]
    }
    for device in survey(sysfs, classes, (), procfs)[0]:
        facts = {
            path: _content(
                f"{procfs}/{path.removeprefix(PROC)}"
                if path.startswith(PROC)
                else f"{sysfs}/{device.path}/{path}"
            )
            for path in facts_needed(device)
        }
        plan = make_plan(device, facts)
        indexes = {index for index, value in enumerate(plan.initial) if value is not None}
        for file in plan.files:
            if file.group == group_of(Cadence.STATIC):
                indexes |= set(range(file.first, file.first + file.count))
        for block in plan.blocks.values():
            for prefix, index in zip(block.prefixes, block.indexes, strict=True):
                if index in indexes:
                    (family,) = text_string_to_metric_families(f"{prefix}1\n")
                    found.add(_key(family.samples[0]))
    return found


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read(4096)
    except OSError:
        return None


def page(sysfs: str, procfs: str) -> dict[str, float]:
    """Series -> value of one look, identifiers cut out of the labels."""
    with tempfile.TemporaryDirectory() as runtime:
        flags = {"path.sysfs": sysfs, "path.procfs": procfs, "path.runtime": runtime, "path.state": ""}
        # Nothing hangs in a tree of files; a busy machine takes its time.
        flags["read.deadline"] = "10"
        snapshot = asyncio.run(
            Daemon(configuration("", {**flags, "uevent.source": "none", "resting": False})).look(30.0)
        )[0]
    samples = [
        sample
        for family in text_string_to_metric_families("".join(pages(snapshot, False)))
        for sample in family.samples
    ]
    found = {}
    for sample in captures.without_rates(samples):
        if sample.name in _MADE and sample.labels.get("source") != "hardware":
            continue
        if sample.name.startswith(_MOMENT) and sample.name != "gpudaemon_daemon_malformed_total":
            continue
        found[_key(sample)] = sample.value
    return found


def page_of_capture(place: str) -> str:
    """The page of a capture, a directory or one file, as text: one sample a line, in order."""
    with tempfile.TemporaryDirectory() as directory:
        tree = os.path.join(directory, "host")
        write(load(place), tree)
        found = page(f"{tree}/sys", f"{tree}/proc")
    return "".join(f"{series} {value:.17g}\n" for series, value in sorted(found.items()))


if __name__ == "__main__":
    sys.stdout.write(page_of_capture(sys.argv[1]))
