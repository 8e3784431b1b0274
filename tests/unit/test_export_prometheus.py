"""The page against prometheus_client: same data, same samples, in both formats."""

import math
import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from gpudaemon.export.prometheus import CHUNK, Renderer, pages
from gpudaemon.metrics import table
from gpudaemon.model.metric import Kind, Metric, Series, Unit
from gpudaemon.model.snapshot import Block, Samples, Snapshot

WATTS = Metric(
    name="gpudaemon_test_power_watts",
    kind=Kind.GAUGE,
    unit=Unit.WATTS,
    help='Power "now" of C:\\board.\nSecond line.',
    labels=("device", "sensor"),
    abi="test",
)
ENERGY = Metric(
    name="gpudaemon_test_energy_joules_total",
    kind=Kind.COUNTER,
    unit=Unit.JOULES,
    help="Energy.",
    labels=("device",),
    abi="test",
)
BOARD = Metric(name="gpudaemon_test_board_info", kind=Kind.INFO, help="Board.", labels=("device",), abi="test")
STATE = Metric(
    name="gpudaemon_test_state", kind=Kind.STATESET, help="State.", labels=("device", "state"), abi="test"
)
BARE = Metric(name="gpudaemon_test_devices", kind=Kind.GAUGE, help="How many.", abi="test")
RESETS = Metric(name="gpudaemon_test_resets_total", kind=Kind.COUNTER, help="Resets.", abi="test")
TABLE = (WATTS, ENERGY, BOARD, STATE, BARE, RESETS)

Data = list[tuple[Metric, tuple[str, ...], float]]
Sample = tuple[str, frozenset[tuple[str, str]], float | str]


def snapshot(data: Data, device: str = "") -> Snapshot:
    """One device whose planned series are `data`, values in reverse so that indexes matter."""
    values = [value for _, _, value in reversed(data)]
    found: dict[Metric, list[tuple[str, int]]] = {}
    for place, (metric, labels, _) in enumerate(data):
        found.setdefault(metric, []).append((Series(metric, labels).prefix(), len(data) - 1 - place))
    blocks = {
        metric: Block(tuple(prefix for prefix, _ in series), tuple(index for _, index in series))
        for metric, series in found.items()
    }
    return of(Samples(device, blocks, tuple(values)))


def of(*samples: Samples) -> Snapshot:
    return Snapshot(at=1.0, version=1, samples=samples, devices=())


def as_published(value: str) -> str:
    """A label value after the rule that nothing unprintable but a line break leaves the daemon."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in value)


class SameData(Collector):
    """The same data, by prometheus_client's own means."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def collect(self) -> Iterator[Family]:
        families: dict[str, Any] = {}
        for metric, values, value in self.data:
            labels = [as_published(one) for one in values]
            if metric.kind is Kind.INFO:
                info = InfoMetricFamily(metric.family, metric.help)
                families.setdefault(metric.name, info).add_metric(
                    [], dict(zip(metric.labels, labels, strict=True))
                )
            else:
                kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                family = kind(metric.name, metric.help, labels=metric.labels, unit=metric.unit.value)
                families.setdefault(metric.name, family).add_metric(labels, value)
        yield from families.values()


def samples_of(families: Iterable[Family]) -> tuple[set[Sample], dict[str, tuple[str, str, str]]]:
    """(samples, family -> (type, help, unit)) of a parsed page; NaN as a word, so that it equals itself."""
    found: set[Sample] = set()
    heads = {}
    for family in families:
        heads[family.name] = (family.type, family.documentation, family.unit)
        for sample in family.samples:
            value = "NaN" if math.isnan(sample.value) else float(sample.value)
            one = (sample.name, frozenset(sample.labels.items()), value)
            assert one not in found, f"{one} twice"
            found.add(one)
    return found, heads


def registry_of(data: Data) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SameData(data))
    return registry


finite = st.one_of(st.integers(0, 2**64), st.floats(min_value=0, allow_infinity=False, allow_nan=False))
anything = st.one_of(finite, st.floats(), st.integers(-(2**63), 2**64))
hostile = st.one_of(
    st.text(max_size=20),
    st.text(alphabet='"\\\n\r\x00\ud800\udcff{}=, #\u2028n', max_size=12),
    st.sampled_from(["", "a" * 5000, "\x7f", "# EOF", "\\n", '\\"', "\ufeff", "é\u0301"]),
)


@st.composite
def data_sets(draw: st.DrawFn) -> Data:
    """Series with labels that differ also after unprintable characters are gone."""
    data: Data = []
    seen = set()
    for metric in TABLE:
        for _ in range(draw(st.integers(0, 4))):
            labels = tuple(draw(hostile) for _ in metric.labels)
            key = (metric.name, tuple(as_published(one) for one in labels))
            if key in seen:
                continue
            seen.add(key)
            values = {Kind.COUNTER: finite, Kind.INFO: st.just(1), Kind.STATESET: st.integers(0, 1)}
            data.append((metric, labels, draw(values.get(metric.kind, anything))))
    return data


@settings(deadline=None)
@given(data_sets())
def test_text_has_the_samples_of_prometheus_client(data: Data) -> None:
    ours = "".join(pages(snapshot(data), openmetrics=False))
    theirs = generate_latest(registry_of(data)).decode()
    assert samples_of(parse_text(ours)) == samples_of(parse_text(theirs))


@settings(deadline=None)
@given(data_sets())
def test_openmetrics_has_the_samples_of_prometheus_client(data: Data) -> None:
    ours = "".join(pages(snapshot(data), openmetrics=True))
    theirs = generate_openmetrics(registry_of(data)).decode()
    assert samples_of(parse_openmetrics(ours)) == samples_of(parse_openmetrics(theirs))
    assert ours.endswith("# EOF\n")
    assert ours.count("\n# EOF\n") <= 1


@given(data_sets())
def test_every_page_is_utf8_with_only_line_feeds_as_control_characters(data: Data) -> None:
    page = "".join(pages(snapshot(data), openmetrics=False)).encode()
    assert not [one for one in page.decode() if ord(one) < 32 and one != "\n"]


def test_a_whole_page_of_text() -> None:
    data: Data = [
        (BARE, (), 2),
        (WATTS, ("0000:03:00.0", "edge"), 12.5),
        (ENERGY, ("0000:03:00.0",), 2**64 - 1),
        (WATTS, ("0000:83:00.0", "edge"), 1e-7),
        (BOARD, ("0000:03:00.0",), 1),
    ]
    assert "".join(Renderer(TABLE).chunks(snapshot(data), openmetrics=False)) == (
        '# HELP gpudaemon_test_power_watts Power "now" of C:\\\\board.\\nSecond line.\n'
        "# TYPE gpudaemon_test_power_watts gauge\n"
        'gpudaemon_test_power_watts{device="0000:03:00.0",sensor="edge"} 12.5\n'
        'gpudaemon_test_power_watts{device="0000:83:00.0",sensor="edge"} 1e-07\n'
        "# HELP gpudaemon_test_energy_joules_total Energy.\n"
        "# TYPE gpudaemon_test_energy_joules_total counter\n"
        'gpudaemon_test_energy_joules_total{device="0000:03:00.0"} 18446744073709551615\n'
        "# HELP gpudaemon_test_board_info Board.\n"
        "# TYPE gpudaemon_test_board_info gauge\n"
        'gpudaemon_test_board_info{device="0000:03:00.0"} 1\n'
        "# HELP gpudaemon_test_devices How many.\n"
        "# TYPE gpudaemon_test_devices gauge\n"
        "gpudaemon_test_devices 2\n"
    )


def test_openmetrics_escapes_quotes_in_help() -> None:
    page = "".join(pages(snapshot([(WATTS, ("a", "x"), 1)]), openmetrics=True))
    assert page.startswith(
        '# HELP gpudaemon_test_power_watts Power \\"now\\" of C:\\\\board.\\nSecond line.\n'
        "# TYPE gpudaemon_test_power_watts gauge\n"
        "# UNIT gpudaemon_test_power_watts watts\n"
    )


def test_openmetrics_heads_and_created_lines() -> None:
    blocks = {
        ENERGY: Block(
            (
                'gpudaemon_test_energy_joules_total{device="a"} ',
                'gpudaemon_test_energy_joules_total{device="b"} ',
            ),
            (0, 1),
        ),
        RESETS: Block(("gpudaemon_test_resets_total ",), (2,)),
    }
    created = {
        'gpudaemon_test_energy_joules_total{device="b"} ': 1700000000.25,
        "gpudaemon_test_resets_total ": 3,
    }
    page = "".join(pages(of(Samples("a", blocks, (1.5, 2.5, 0), created=created)), openmetrics=True))
    assert page == (
        "# HELP gpudaemon_test_energy_joules Energy.\n"
        "# TYPE gpudaemon_test_energy_joules counter\n"
        "# UNIT gpudaemon_test_energy_joules joules\n"
        'gpudaemon_test_energy_joules_total{device="a"} 1.5\n'
        'gpudaemon_test_energy_joules_total{device="b"} 2.5\n'
        'gpudaemon_test_energy_joules_created{device="b"} 1700000000.25\n'
        "# HELP gpudaemon_test_resets Resets.\n"
        "# TYPE gpudaemon_test_resets counter\n"
        "gpudaemon_test_resets_total 0\n"
        "gpudaemon_test_resets_created 3\n"
        "# EOF\n"
    )
    assert len(samples_of(parse_openmetrics(page))[0]) == 5


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (True, "1"),
        (False, "0"),
        (0, "0"),
        (-0.0, "-0.0"),
        (1e300 * 10, "1e+301"),
        (2**70, "1180591620717411303424"),
    ],
)
@pytest.mark.parametrize("openmetrics", [False, True])
def test_spelling_of_values(value: float, written: str, openmetrics: bool) -> None:
    data: Data = [(WATTS, ("a", "x"), 1.5), (WATTS, ("a", "y"), value), (WATTS, ("a", "z"), 2)]
    page = "".join(pages(snapshot(data), openmetrics))
    assert 'sensor="x"} 1.5\n' in page
    assert f'sensor="y"}} {written}\n' in page
    assert 'sensor="z"} 2\n' in page


def test_values_whose_sum_overflows_stay_themselves() -> None:
    data: Data = [(WATTS, ("a", str(number)), 1.7e308) for number in range(4)]
    data += [(WATTS, ("b", str(number)), value) for number, value in enumerate((0.5, 10**400))]
    page = "".join(pages(snapshot(data), openmetrics=False))
    assert page.count(" 1.7e+308\n") == 4
    assert page.endswith(f" 0.5\n{Series(WATTS, ('b', '1')).prefix()}1{'0' * 400}\n")


def test_unknown_values_have_no_line_and_a_family_without_lines_no_head() -> None:
    series = [Series(WATTS, ("a", sensor)) for sensor in ("x", "y")]
    blocks = {
        WATTS: Block(tuple(one.prefix() for one in series), (0, 1)),
        BARE: Block((Series(BARE).prefix(),), (2,)),
    }
    page = "".join(pages(of(Samples("a", blocks, (None, 3.0, None))), openmetrics=False))
    assert [line for line in page.splitlines() if not line.startswith("#")] == [
        'gpudaemon_test_power_watts{device="a",sensor="y"} 3.0'
    ]
    assert BARE.name not in page
    empty = of(Samples("a", blocks, (None, None, None)))
    assert "".join(pages(empty, openmetrics=False)) == ""
    assert "".join(pages(empty, openmetrics=True)) == "# EOF\n"


def test_rows_stand_with_the_planned_series_of_their_family_and_unknown_metrics_last() -> None:
    late = Metric(name="gpudaemon_aaa_late_watts", kind=Kind.GAUGE, unit=Unit.WATTS, help="Late.", abi="test")
    planned = Series(WATTS, ("a", "x")).prefix()
    found = Series(WATTS, ("a", "found")).prefix()
    snap = of(
        Samples(
            "a",
            {WATTS: Block((planned,), (0,))},
            (1,),
            rows={late: ((f"{late.name} ", 5),), WATTS: ((found, 2),)},
        ),
        Samples("b", {BARE: Block((Series(BARE).prefix(),), (0,))}, (4,), rows={}),
        Samples("c", {}, (), rows={WATTS: ((Series(WATTS, ("c", "x")).prefix(), 3),)}),
    )
    page = "".join(Renderer(TABLE).chunks(snap, openmetrics=True)) + "# EOF\n"
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["1", "2", "3", "4", "5"]
    assert page.count(f"# TYPE {WATTS.name} ") == 1
    assert len(samples_of(parse_openmetrics(page))[0]) == 5


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_big_family_comes_in_bounded_chunks_with_one_head(openmetrics: bool) -> None:
    series = [Series(WATTS, ("a", str(number))).prefix() for number in range(3 * CHUNK + 1)]
    rows = tuple((Series(WATTS, ("b", str(number))).prefix(), float(number)) for number in range(CHUNK + 5))
    # The first thousand and one are unknown: the head must come with the first sample there is.
    values = (None,) * (CHUNK + 1) + (1.0,) * (2 * CHUNK)
    snap = of(
        Samples("a", {WATTS: Block(tuple(series), tuple(range(len(series))))}, values, rows={WATTS: rows})
    )
    chunks = list(Renderer(TABLE).chunks(snap, openmetrics))
    counts = [sum(not line.startswith("#") for line in chunk.splitlines()) for chunk in chunks]
    assert max(counts) <= CHUNK
    assert sum(counts) == 2 * CHUNK + CHUNK + 5
    assert "".join(chunks).count("# TYPE") == 1
    assert chunks[0].startswith("# HELP")


def test_a_renderer_follows_changes_of_plans_and_devices() -> None:
    """One renderer over changing snapshots always gives what a new renderer gives."""
    chance = random.Random(3)
    renderer = Renderer(TABLE)
    blocks = [
        {
            WATTS: Block(
                tuple(Series(WATTS, (str(device), str(n))).prefix() for n in range(device + 1)),
                tuple(range(device + 1)),
            )
        }
        for device in range(4)
    ]
    for _ in range(60):
        devices = chance.sample(range(4), chance.randrange(5))
        if chance.random() < 0.2:
            blocks[chance.randrange(4)] = {BARE: Block((Series(BARE).prefix(),), (1,))}
        samples = []
        for device in devices:
            size = 6 if chance.random() < 0.1 else 5
            samples.append(Samples(str(device), blocks[device], tuple(chance.random() for _ in range(size))))
        for openmetrics in (False, True):
            ours = "".join(renderer.chunks(of(*samples), openmetrics))
            assert ours == "".join(Renderer(TABLE).chunks(of(*samples), openmetrics))


def test_a_device_with_another_number_of_values_moves_those_after_it() -> None:
    renderer = Renderer(TABLE)
    first = {WATTS: Block((Series(WATTS, ("a", "x")).prefix(),), (0,))}
    second = {WATTS: Block((Series(WATTS, ("b", "x")).prefix(),), (0,))}
    for before in ((1,), (1, 8, 9), (1, 8)):
        snap = of(Samples("a", first, before), Samples("b", second, (2,)))
        lines = "".join(renderer.chunks(snap, openmetrics=False)).splitlines()
        assert [line.rsplit(" ", 1)[1] for line in lines if not line.startswith("#")] == ["1", "2"]


def test_a_snapshot_rendered_in_pieces_is_not_touched_by_the_next_one() -> None:
    def shot(value: float, sensors: int) -> Snapshot:
        return snapshot([(WATTS, ("a", str(number)), value) for number in range(sensors)])

    renderer = Renderer(TABLE)
    first = renderer.chunks(shot(1, 2 * CHUNK), openmetrics=False)
    begun = next(first)
    other = "".join(renderer.chunks(shot(2, 3), openmetrics=False))
    rest = begun + "".join(first)
    assert rest.count(" 1\n") == 2 * CHUNK
    assert " 2\n" not in rest
    assert other.count(" 2\n") == 3


def test_families_whose_names_would_meet_in_openmetrics_stay_apart() -> None:
    gauge = Metric(name="gpudaemon_x_bytes", kind=Kind.GAUGE, unit=Unit.BYTES, help="Now.", abi="test")
    counter = Metric(
        name="gpudaemon_x_bytes_total", kind=Kind.COUNTER, unit=Unit.BYTES, help="Ever.", abi="test"
    )
    page = "".join(pages(snapshot([(gauge, (), 1), (counter, (), 2)]), openmetrics=True))
    samples, heads = samples_of(parse_openmetrics(page))
    assert {(name, value) for name, _, value in samples} == {(gauge.name, 1.0), (counter.name, 2.0)}
    assert heads["gpudaemon_x_bytes"][0] == "gauge"


def every_row() -> Data:
    """Two series of each row of the real table; histograms have a test of their own (test_histograms.py)."""
    return [
        (metric, tuple(f"{label}-{number}" for label in metric.labels), 1)
        for metric in table()
        if metric.kind is not Kind.HISTOGRAM
        for number in range(2 if metric.labels else 1)
    ]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_real_table_parses(openmetrics: bool) -> None:
    data = every_row()
    page = "".join(pages(snapshot(data), openmetrics))
    samples, heads = samples_of(parse_openmetrics(page) if openmetrics else parse_text(page))
    assert len(samples) == len(data)
    assert len(heads) == len({metric for metric, _, _ in data})
    assert "unknown" not in {kind for kind, _, _ in heads.values()}


def test_promtool_accepts_the_real_table() -> None:
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "promtool belongs to CI"
        pytest.skip("promtool is not installed")
    data = every_row() or [(WATTS, ("a", "b"), 1)]
    page = "".join(pages(snapshot(data), openmetrics=False))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
