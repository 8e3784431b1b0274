"""What holds for every driver of the folder, whatever it drives: its example is what it claims, and no more."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudaemon.collectors import collectors
from gpudaemon.drivers import GpuDriver, drivers
from gpudaemon.errors import Malformed
from gpudaemon.metrics import gpu, table
from gpudaemon.model.attribute import Attribute
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.forbidden import is_forbidden
from gpudaemon.model.metric import Kind, Metric
from gpudaemon.pipeline.derived import RULES

EVERY = sorted(drivers().values(), key=lambda driver: driver.kernel_driver)
WITH_EXAMPLE = [driver for driver in EVERY if driver.example]


def device(driver: GpuDriver, names: frozenset[str] | None = None) -> Device:
    return Device(
        id="0000:03:00.0",
        kind=DeviceKind.GPU,
        path="devices/x",
        driver=driver.kernel_driver,
        names=frozenset(driver.example) if names is None else names,
    )


def claimed(driver: GpuDriver) -> set[Metric]:
    """What comes of the driver's example, with what is made of it."""
    whole = device(driver)
    found = {series.metric for series, _ in driver.constants(whole, dict.fromkeys(whole.names, b"1.2.3.4\n"))}
    for planned in (one for facts in driver.example_facts for one in driver.attributes(whole, facts)):
        metrics = (
            [series.metric for series in planned.series] if isinstance(planned, Attribute) else planned.metrics
        )
        found.update(metrics)
        if isinstance(planned, Attribute) and planned.cadence.value == "fast":
            found.update(row for metric in metrics for row in gpu.WINDOWS.get(metric, ()))
    return found | {rule.counter for rule in RULES if rule.of in found and rule.against is None}


@pytest.mark.parametrize("driver", EVERY, ids=lambda driver: driver.kernel_driver or "generic")
def test_a_driver_names_its_file_and_its_rows_are_in_the_table(driver: GpuDriver) -> None:
    assert len(set(driver.emits)) == len(driver.emits)
    assert set(driver.emits) <= set(table())
    assert not set(driver.identity) - set(gpu.INFO.labels)
    assert driver.vendor or not driver.kernel_driver


@pytest.mark.parametrize("driver", WITH_EXAMPLE, ids=lambda driver: driver.kernel_driver or "generic")
def test_the_example_gives_what_is_announced(driver: GpuDriver) -> None:
    if driver.emits:
        assert claimed(driver) - {gpu.ENERGY} == set(driver.emits) - set(driver.called)
    planned = [one.path for one in driver.attributes(device(driver), {})]
    assert len(set(planned)) == len(planned)
    assert set(planned) <= set(driver.example)
    assert not any(is_forbidden(path) for path in driver.example)


@pytest.mark.parametrize("driver", EVERY, ids=lambda driver: driver.kernel_driver or "generic")
def test_nothing_is_planned_that_is_not_listed(driver: GpuDriver) -> None:
    bare = device(driver, frozenset())
    files = [one for one in driver.attributes(bare, {}) if not one.call]
    assert list(driver.needs(bare)) == files == list(driver.constants(bare, {})) == []


NUMBERS = st.integers(-(2**70), 2**70).map(lambda value: f"{value}\n".encode())
CONTENT = st.binary(max_size=64) | NUMBERS | st.sampled_from([b"", b"\n", b"none\n", b"[base] x\n", b"pl1 x\n"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(WITH_EXAMPLE), st.data())
def test_any_part_of_the_example_with_any_content_raises_malformed_only(
    driver: GpuDriver, data: st.DataObject
) -> None:
    names = frozenset(data.draw(st.sets(st.sampled_from(driver.example))))
    some = device(driver, names)
    facts = {path: data.draw(st.none() | CONTENT) for path in driver.needs(some)}
    assert set(facts) <= names
    seen = [series for series, _ in driver.constants(some, facts)]
    for planned in driver.attributes(some, facts):
        assert planned.path in names
        try:
            values = list(planned.decode(data.draw(CONTENT)))
        except Malformed as error:
            assert error.reason in Malformed.REASONS
            values = None
        if not isinstance(planned, Attribute):
            for metric, labels, _ in values or ():
                assert metric in planned.metrics
                assert len(labels) == len(metric.labels)
            continue
        seen += planned.series
        assert values is None or len(values) == len(planned.series)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("driver", EVERY, ids=lambda driver: driver.kernel_driver or "generic")
def test_no_state_set_is_all_zero_without_a_reason(driver: GpuDriver) -> None:
    """A file that names one state names one of those that are published."""
    for planned in driver.attributes(device(driver), {}):
        if isinstance(planned, Attribute) and planned.series and planned.series[0].metric.kind is Kind.STATESET:
            states = [series.values[-1] for series in planned.series]
            for state in states:
                listed = " ".join(f"[{one}]" if one == state else one for one in states)
                for content in (state, listed):
                    try:
                        values = planned.decode(content.encode() + b"\n")
                    except Malformed:
                        continue
                    assert list(values) == [float(one == state) for one in states], planned.path
                    break
                else:
                    raise AssertionError(f"{planned.path} does not know {state}")


def test_the_gpu_collector_announces_every_driver() -> None:
    announced = set(collectors()["gpu"].emits)
    for driver in EVERY:
        assert set(driver.emits) <= announced
