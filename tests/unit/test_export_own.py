"""The daemon's own instruments."""

import pytest
from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gpudaemon.export.own import instruments, own_text, private_registry
from gpudaemon.model.metric import Kind, Metric, Unit

REQUESTS = Metric(
    name="gpudaemon_daemon_test_requests_total",
    kind=Kind.COUNTER,
    help="Requests.",
    labels=("code",),
    abi="test",
)
SPENT = Metric(
    name="gpudaemon_daemon_test_seconds_total", kind=Kind.COUNTER, unit=Unit.SECONDS, help="Spent.", abi="test"
)
SIZE = Metric(name="gpudaemon_daemon_test_bytes", kind=Kind.GAUGE, unit=Unit.BYTES, help="Size.", abi="test")


def test_rows_become_instruments_of_exactly_their_names() -> None:
    registry = private_registry()
    made = instruments(registry, (REQUESTS, SPENT, SIZE))
    assert isinstance(made[REQUESTS], Counter)
    size = made[SIZE]
    assert isinstance(size, Gauge)
    made[REQUESTS].labels(code="200").inc(3)
    made[SPENT].inc(0.5)
    size.set(7)
    text, openmetrics = own_text(registry, openmetrics=False), own_text(registry, openmetrics=True)
    assert "# EOF" not in openmetrics
    for families in (parse_text(text), parse_openmetrics(openmetrics + "# EOF\n")):
        found = {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
        assert found[REQUESTS.name, "200"] == 3
        assert found[SPENT.name,] == 0.5
        assert found[SIZE.name,] == 7
    assert f"# UNIT {SPENT.family} seconds\n" in openmetrics
    assert f"# HELP {SIZE.name} Size.\n" in text


def test_the_registry_describes_this_process_and_is_not_the_global_one() -> None:
    registry = private_registry()
    instruments(registry, (SIZE,))
    text = own_text(registry, openmetrics=False)
    for name in ("process_resident_memory_bytes ", "python_gc_collections_total{", "python_info{"):
        assert f"\n{name}" in text
    assert SIZE.name not in {name for family in REGISTRY.collect() for name in [family.name]}


def test_one_name_twice_is_refused() -> None:
    registry = private_registry()
    instruments(registry, (SIZE,))
    with pytest.raises(ValueError, match=SIZE.name):
        instruments(registry, (SIZE,))
