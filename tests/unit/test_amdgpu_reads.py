"""How many reads a second a card costs: one of the firmware's table stands for all the files made of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudaemon.mock import build
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.pipeline.plan import DevicePlan, Selection, facts_needed, make_plan
from tests import captures

PERIODS = {"normal": (600.0, 60.0, 1.0, 1.0), "fast": (600.0, 15.0, 1.0, 0.1)}
"""The presets: seconds between readings of static, slow, normal and fast files."""


def reads(plan: DevicePlan, periods: tuple[float, ...]) -> float:
    """Reads a second of files that run the driver; the power state is the kernel's own."""
    files = plan.files[1 if plan.gated else 0 :]
    return sum(1 / periods[file.group] for file in files)


def plans(sysfs: str, fast: float) -> Iterator[tuple[Device, DevicePlan, DevicePlan]]:
    """(card, plan without the table, plan with it) of each amdgpu card of a tree."""
    for device in captures.devices(sysfs):
        if device.kind is DeviceKind.GPU and device.driver == "amdgpu" and "gpu_metrics" in device.names:
            facts = {path: captures.read(sysfs, device, path) for path in facts_needed(device)}
            selection = Selection(fast=fast)
            yield (
                device,
                make_plan(device, {**facts, "gpu_metrics": None}, selection),
                make_plan(device, facts, selection),
            )


CARDS = {"rx6900xt": 5, "rx7800xt": 5, "rx9070": 5}
"""Real cards with a table 1.3: how many times fewer reads the fast preset makes with it, at least."""


@pytest.mark.parametrize("card", CARDS)
def test_a_real_card_is_read_less_and_says_more(card: str, tmp_path: Path) -> None:
    captures.from_card_folder(captures.capture("lact", "amd", card), str(tmp_path))
    _compare(card, str(tmp_path), CARDS[card])


def test_an_instinct_is_read_less_and_says_more(tmp_path: Path) -> None:
    build("mi300x8", str(tmp_path), gpus=1)
    _compare("mi300x8 of the mock", os.path.join(tmp_path, "sys"), 3)


def _compare(name: str, sysfs: str, least: float) -> None:
    for preset, periods in PERIODS.items():
        ((_, before, after),) = plans(sysfs, periods[-1])
        was, now = reads(before, periods), reads(after, periods)
        print(f"{name}, preset {preset}: {was:.1f} reads a second before, {now:.1f} after")
        assert now < was
        if preset == "fast":
            assert was - now >= 10 * (least - 1)
        lost = {
            prefix
            for block in before.blocks.values()
            for prefix in block.prefixes
            if not any(prefix in other.prefixes for other in after.blocks.values())
        }
        assert {
            prefix for prefix in lost if "joules_total" not in prefix
        } == set()  # there is a counter for it now
        assert sum(len(block.prefixes) for block in after.blocks.values()) > sum(
            len(block.prefixes) for block in before.blocks.values()
        )


def test_the_text_files_of_what_the_table_gives_are_not_read(tmp_path: Path) -> None:
    captures.from_card_folder(captures.capture("lact", "amd", "rx6900xt"), str(tmp_path))
    ((device, before, after),) = plans(str(tmp_path), 0.1)
    gone = {file.path.rpartition("/")[2] for file in before.files} - {
        file.path.rpartition("/")[2] for file in after.files
    }
    assert gone == {
        *(
            "gpu_busy_percent",
            "mem_busy_percent",
            "temp1_input",
            "temp2_input",
            "temp3_input",
            "power1_average",
        ),
        *("freq1_input", "freq2_input", "in0_input", "fan1_input", "pp_dpm_pcie"),
    }
    assert gone <= {name.rpartition("/")[2] for name in device.names}
    only = make_plan(device, {}, Selection(frozenset({"power"})))
    assert any(file.path.endswith("temp1_input") for file in only.files)
