"""Histograms: what the kernel's `.log2` keys mean, and pages with them as Prometheus' own parsers read them."""

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gpudaemon.export.prometheus import pages
from gpudaemon.metrics import drm_sched, table
from gpudaemon.model.metric import Kind, Metric, Tally, powers_of_two
from gpudaemon.model.snapshot import Snapshot
from gpudaemon.model.tracing import StreamRow
from gpudaemon.pipeline.rendered import Rendered

TIMES = st.lists(st.integers(min_value=0, max_value=1 << 40), max_size=50)


def page_of(rows: Iterable[StreamRow], openmetrics: bool, most: int = 100_000) -> list[Family]:
    rendered = Rendered(1.0)
    rendered.take(rows, most)
    snapshot = Snapshot(at=2.0, version=1, samples=(rendered.samples("one"),), devices=())
    text = "".join(pages(snapshot, openmetrics))
    return list(parse_openmetrics(text) if openmetrics else parse_text(text))


def kernel_bucket(nanoseconds: int) -> int:
    """hist_field_log2 (kernel/trace/trace_events_hist.c): ilog2(roundup_pow_of_two(value))."""
    power = 0
    while 1 << power < nanoseconds:
        power += 1
    return power


@given(TIMES)
def test_a_tally_counts_as_the_kernel_and_as_le_says(times: list[int]) -> None:
    first, last = 3, 12
    bounds = powers_of_two(first, last)
    one, other = Tally(first, last), Tally(first, last)
    for time in times:
        one.observe(time)
        other.add(kernel_bucket(time), 1, time)
    assert one.counts == other.counts
    cumulative = list(one.distribution().lines())
    for bound, count in zip(bounds, cumulative[: len(bounds)], strict=True):
        assert count == sum(time <= round(bound * 1e9) for time in times)
    assert cumulative[len(bounds)] == cumulative[-1] == len(times) == one.total
    assert math.isclose(cumulative[-2], sum(times) / 1e9, abs_tol=1e-12)


@pytest.mark.parametrize("openmetrics", [False, True])
@given(TIMES)
def test_pages_parse(openmetrics: bool, times: list[int]) -> None:
    tally = Tally(drm_sched.FIRST_POWER, drm_sched.LAST_POWER)
    for time in times:
        tally.observe(time)
    labels = ("0000:03:00.0", 'a "ring"\\\n')
    (family,) = page_of([(drm_sched.RUN_TIME, labels, tally.distribution())], openmetrics)
    assert (family.name, family.type) == ("gpudaemon_drm_sched_run_seconds", "histogram")
    buckets = [one for one in family.samples if one.name.endswith("_bucket")]
    assert [float(one.labels["le"]) for one in buckets] == [*drm_sched.RUN_TIME.buckets, math.inf]
    assert {one.labels["ring"] for one in family.samples} == {labels[1]}
    (count,) = (one.value for one in family.samples if one.name.endswith("_count"))
    (total,) = (one.value for one in family.samples if one.name.endswith("_sum"))
    assert buckets[-1].value == count == len(times)
    assert math.isclose(total, sum(times) / 1e9, abs_tol=1e-12)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_every_histogram_of_the_table_parses(openmetrics: bool) -> None:
    histograms = [row for row in table() if row.kind is Kind.HISTOGRAM]
    assert histograms

    def series(row: Metric) -> Iterable[StreamRow]:
        tally = Tally(0, len(row.buckets) - 1)
        tally.observe(5)
        for number in range(2):
            yield row, tuple(f"{label}-{number}" for label in row.labels), tally.distribution()

    families = page_of((one for row in histograms for one in series(row)), openmetrics)
    assert {family.name for family in families} == {row.name for row in histograms}
    assert {family.type for family in families} == {"histogram"}


def test_a_histogram_is_served_whole_or_not_at_all() -> None:
    tally = Tally(drm_sched.FIRST_POWER, drm_sched.LAST_POWER)
    rows = [(drm_sched.RUN_TIME, ("gpu", str(number)), tally.distribution()) for number in range(3)]
    lines = len(drm_sched.RUN_TIME.buckets) + 3
    (family,) = page_of(rows, False, most=2 * lines + 1)
    assert len(family.samples) == 2 * lines


def test_buckets_belong_to_histograms_only() -> None:
    with pytest.raises(AssertionError):
        Metric(name="gpudaemon_x_seconds", kind=Kind.GAUGE, help="x", abi="x", buckets=(1.0,))
    with pytest.raises(AssertionError):
        Metric(name="gpudaemon_x_seconds", kind=Kind.HISTOGRAM, help="x", abi="x", buckets=(2.0, 1.0))
