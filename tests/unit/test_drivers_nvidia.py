"""The nvidia driver: what is asked exists, every answer fits, any content gives rows or Malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.calls import nvml as calls
from gpudaemon.collectors import collectors
from gpudaemon.drivers import nvidia
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Attribute, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric
from gpudaemon.pipeline.plan import Selection, call_plans, make_plan

GPU = Device(id="0000:3b:00.0", kind=DeviceKind.GPU, path="devices/x", driver="nvidia")
PLANNED = {
    one.path: one
    for name in ("gpu", "power")
    for one in collectors()[name].attributes(GPU, {})
    if one.call == "nvml"
}


def test_what_is_asked_is_what_can_be_asked() -> None:
    asked = {path.removeprefix("nvml/") for path in PLANNED}
    assert asked == set(nvidia.QUESTIONS) == set(calls.QUESTIONS) | set(calls.TABLES)


def test_no_series_is_filled_twice() -> None:
    series = [one for planned in PLANNED.values() if isinstance(planned, Attribute) for one in planned.series]
    assert len(set(series)) == len(series)


NUMBERS = st.lists(st.integers(-5, 2**64 - 1).map(str) | st.just("-"), min_size=1, max_size=20)
LINES = NUMBERS.map(lambda words: " ".join(words).encode())
TABLES = st.lists(st.lists(st.sampled_from(["0", "7", "-", "x", "MIG-1", "-1"]), min_size=1, max_size=8)).map(
    lambda rows: "".join("\t".join(row) + "\n" for row in rows).encode()
)


@given(st.sampled_from(sorted(PLANNED)), st.binary(max_size=64) | LINES | TABLES)
def test_any_content(path: str, content: bytes) -> None:
    planned = PLANNED[path]
    try:
        found = list(planned.decode(content))
    except Malformed as error:
        assert error.reason in Malformed.REASONS
        return
    if isinstance(planned, Rows):
        for metric, labels, _ in found:
            assert metric in planned.metrics
            assert len(labels) == len(metric.labels)
    else:
        assert len(found) == len(planned.series)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"1 2 1 0 - - -", {"reserved": 3, "pending": 1, "failed": 0, "corrected": 1, "uncorrected": 2}),
        (b"- - - - 4 1 0", {"reserved": 5, "pending": 0, "single_bit": 4, "double_bit": 1}),
    ],
)
def test_rows_and_pages_come_to_the_same(answer: bytes, found: dict[str, float]) -> None:
    planned = PLANNED["nvml/bad_memory"]
    assert isinstance(planned, Attribute)
    values = zip(planned.series, planned.decode(answer), strict=True)
    assert {series.values[-1]: value for series, value in values if value is not None} == found


def _asked(selection: Selection) -> set[str]:
    plans = call_plans(GPU, {}, selection, make_plan(GPU, {}, selection))
    return {file.path.removeprefix("nvml/") for plan in plans.values() for file in plan.files}


def test_a_metric_that_is_not_wanted_is_not_asked_for() -> None:
    nvml = frozenset({"nvml"})
    assert _asked(Selection(calls=nvml)) == set(nvidia.QUESTIONS)
    assert _asked(Selection()) == set()
    only = Selection(None, lambda name: name == "gpudaemon_gpu_energy_joules_total", calls=nvml)
    assert _asked(only) == {"energy"}
    assert _asked(Selection(frozenset({"power"}), calls=nvml)) == {
        "power", "power_limits", "energy", "temperatures", "temperature_limits",
    }  # fmt: skip


def test_the_limit_of_series_holds_for_files_and_calls_together() -> None:
    selection = Selection(limit=12, calls=frozenset({"nvml"}))
    files = make_plan(GPU, {}, selection)
    plans = call_plans(GPU, {}, selection, files)
    shown = sum(len(block.indexes) for plan in (files, *plans.values()) for block in plan.blocks.values())
    assert shown <= 12


def test_energy_is_not_summed_up_where_the_gpu_counts_it() -> None:
    selection = Selection(calls=frozenset({"nvml"}))
    plan = call_plans(GPU, {}, selection, make_plan(GPU, {}, selection))["nvml"]
    energy = next(block for metric, block in plan.blocks.items() if _is(metric, "gpudaemon_gpu_energy"))
    assert [prefix for prefix in energy.prefixes if "integrated" in prefix] == []
    assert any(_is(metric, "gpudaemon_gpu_throttled_seconds") for metric in plan.blocks)
    assert any(_is(metric, "gpudaemon_gpu_power_above_cap") for metric in plan.blocks)


def _is(metric: Metric, name: str) -> bool:
    return metric.name.startswith(name)
