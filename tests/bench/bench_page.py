"""Time of a page of 10,000 series: ours against prometheus_client over a custom collector, same data.

Run by hand: `python tests/bench/bench_page.py`. Prints; never fails by wall time.
"""

import gzip
import io
import random
import statistics
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gpudaemon.export.prometheus import Renderer
from gpudaemon.model.metric import Kind, Metric, Series, Unit
from gpudaemon.model.snapshot import Block, Samples, Snapshot

RUNS = 15
DEVICES = 64
SENSORS = ("edge", "junction", "mem", "soc")
WANTED = 15


def rows() -> list[Metric]:
    """40 families: 38 with one or four series a device, two counters with one."""
    made = [
        Metric(
            name=f"gpudaemon_gpu_thing{number}_watts",
            kind=Kind.GAUGE,
            unit=Unit.WATTS,
            help=f"Thing {number} of the board.",
            labels=("device", "sensor"),
            abi="Documentation/hwmon/sysfs-interface.rst",
        )
        for number in range(38)
    ]
    made += [
        Metric(
            name=f"gpudaemon_gpu_energy{number}_joules_total",
            kind=Kind.COUNTER,
            unit=Unit.JOULES,
            help="Energy.",
            labels=("device", "sensor"),
            abi="Documentation/hwmon/sysfs-interface.rst",
        )
        for number in range(2)
    ]
    return made


def snapshot(table: list[Metric], version: int, plans: list[dict[Metric, Block]]) -> Snapshot:
    """Values as sysfs gives them: integers of small units divided into base units, and counters."""
    chance = random.Random(version)
    samples = tuple(
        Samples(
            f"0000:{device:02x}:00.0",
            blocks,
            tuple(
                chance.randrange(10**12) if chance.random() < 0.3 else chance.randrange(400_000_000) / 1_000_000
                for _ in range(len(table) * len(SENSORS))
            ),
        )
        for device, blocks in enumerate(plans)
    )
    return Snapshot(at=0.0, version=version, samples=samples, devices=())


def plan(table: list[Metric], device: int) -> dict[Metric, Block]:
    """Blocks of one device: every family, one to four sensors each, 156 or 157 series."""
    blocks = {}
    place = 0
    for number, metric in enumerate(table):
        sensors = SENSORS if number < 38 else SENSORS[: 2 + (device < 16) * (number == 39)]
        series = [Series(metric, (f"0000:{device:02x}:00.0", sensor)) for sensor in sensors]
        blocks[metric] = Block(tuple(one.prefix() for one in series), tuple(range(place, place + len(series))))
        place += len(series)
    return blocks


class SameData(Collector):
    """What somebody would write with prometheus_client: families filled from the same snapshot."""

    def __init__(self, of: Snapshot) -> None:
        self.of = of

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        families: dict[Metric, GaugeMetricFamily | CounterMetricFamily] = {}
        for samples in self.of.samples:
            for metric, block in samples.blocks.items():
                family = families.get(metric)
                if family is None:
                    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                    family = families[metric] = kind(metric.name, metric.help, labels=metric.labels)
                for index, sensor in zip(block.indexes, SENSORS, strict=False):
                    value = samples.values[index]
                    if value is not None:
                        family.add_metric([samples.device, sensor], value)
        yield from families.values()


def milliseconds(of: Callable[[], object]) -> float:
    """Median of RUNS."""
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        of()
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def page_of(renderer: Renderer, of: Snapshot, openmetrics: bool) -> bytes:
    """The page as the HTTP server puts it together."""
    page = io.BytesIO()
    for chunk in renderer.chunks(of, openmetrics):
        page.write(chunk.encode())
    return page.getvalue()


def main() -> None:
    """Print the table."""
    table = rows()
    plans = [plan(table, device) for device in range(DEVICES)]
    shots = [snapshot(table, version, plans) for version in range(2)]
    renderer = Renderer(table)
    series = sum(len(block.prefixes) for blocks in plans for block in blocks.values())
    registry = CollectorRegistry()
    registry.register(SameData(shots[1]))

    def ours(openmetrics: bool = False) -> bytes:
        return page_of(renderer, shots[1], openmetrics)

    first = milliseconds(lambda: page_of(Renderer(table), shots[0], False))
    page = milliseconds(ours)
    openmetrics = milliseconds(lambda: ours(True))
    longest = max(_chunk_times(renderer, shots[0]))
    theirs = milliseconds(lambda: generate_latest(registry))
    text = ours()
    packed = milliseconds(lambda: gzip.compress(text, 1))
    print(f"series                     {series:10d}")
    print(f"prometheus_client          {theirs:10.2f} ms  {theirs / series * 1e3:6.2f} us a sample")
    print(f"ours, text                 {page:10.2f} ms  {page / series * 1e3:6.2f} us a sample")
    print(f"ours, OpenMetrics          {openmetrics:10.2f} ms  {openmetrics / series * 1e3:6.2f} us a sample")
    print(f"ours, plans just changed   {first:10.2f} ms")
    print(f"ours, longest chunk        {longest:10.2f} ms")
    print(f"ratio, text                {theirs / page:10.1f} x   >= {WANTED} x")
    print(f"ratio, OpenMetrics         {theirs / openmetrics:10.1f} x   >= {WANTED} x")
    print(f"bytes                      {len(text):10d}")
    print(f"bytes, gzip level 1        {len(gzip.compress(text, 1)):10d}     in {packed:.2f} ms, off the loop")


def _chunk_times(renderer: Renderer, of: Snapshot) -> Iterator[float]:
    started = time.perf_counter()
    for _ in renderer.chunks(of, False):
        now = time.perf_counter()
        yield (now - started) * 1e3
        started = now


if __name__ == "__main__":
    main()
