"""What a collector plans is among the rows it says it emits: `?collect[]=` and `--collector` rest on that."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gpudaemon.collectors import collectors, subjects
from gpudaemon.metrics import gpu, table
from gpudaemon.mock import build
from gpudaemon.model.device import Device
from gpudaemon.model.metric import Metric
from gpudaemon.pipeline.plan import Selection, facts_needed, make_plan
from tests import captures


def _devices(directory: str) -> Iterator[tuple[Device, Mapping[str, bytes | None]]]:
    for device in captures.devices(directory, every_function=True):
        facts = {path: captures.read(directory, device, path) for path in facts_needed(device)}
        yield device, facts


def _check(directory: str) -> set[str]:
    """Each collector alone plans its own rows only; the rows seen."""
    seen = set()
    for device, facts in _devices(directory):
        for name, emitted in subjects().items():
            plan = make_plan(device, facts, Selection(frozenset({name})))
            planned = {metric.name for metric in plan.blocks}
            assert planned <= emitted, (device.id, name)
            for file in plan.files:
                content = captures.read(directory, device, file.path)
                if file.rows is not None and content is not None:
                    rows = {metric.name for metric, _, _ in file.rows(content)}
                    assert rows <= emitted, file.path
                    planned |= rows
            seen |= planned
    return seen


@pytest.mark.parametrize("profile", ["mi300x8", "rx7900xtx", "mixed", "laptop"])
def test_mock_hosts(profile: str, tmp_path: Path) -> None:
    build(profile, str(tmp_path))
    seen = _check(str(tmp_path / "sys"))
    assert {"gpudaemon_gpu_info", "gpudaemon_pci_info"} <= seen
    if profile != "mixed":  # its GPUs have chips of other drivers
        assert {"gpudaemon_gpu_power_window_mean_watts", "gpudaemon_gpu_energy_joules_total"} <= seen


@pytest.mark.parametrize("card", captures.names("lact", "intel"))
def test_real_intel_cards(card: str, tmp_path: Path) -> None:
    captures.from_card_folder(captures.capture("lact", "intel", card), str(tmp_path))
    assert {"gpudaemon_gpu_clock_hertz", "gpudaemon_gpu_clock_limit_hertz"} <= _check(str(tmp_path))


@pytest.mark.parametrize("card", captures.names("lact", "amd"))
def test_real_cards(card: str, tmp_path: Path) -> None:
    captures.from_card_folder(captures.capture("lact", "amd", card), str(tmp_path))
    seen = _check(str(tmp_path))
    assert {"gpudaemon_gpu_info", "gpudaemon_gpu_temperature_window_mean_celsius"} <= seen


def test_every_row_of_a_device_belongs_to_one_collector_or_is_neutral() -> None:
    """Quantities of a GPU may come from a sensor chip or from a file of its driver: the row is the same."""
    owners: dict[str, list[str]] = {}
    for name, emitted in subjects().items():
        for metric in emitted:
            owners.setdefault(metric, []).append(name)
    of_gpus = {metric.name for metric in vars(gpu).values() if isinstance(metric, Metric)}
    windows = {metric.name for rows in gpu.WINDOWS.values() for metric in rows}
    assert {metric for metric, names in owners.items() if len(names) > 1} <= of_gpus | windows
    assert owners.keys() <= {metric.name for metric in table()}
    assert of_gpus <= owners.keys()
    assert set(subjects()) == set(collectors())
