"""Decoding of the trace ring buffer: events a second on one core, of both generations of drm_sched's events.

    GPUDAEMON_CAPTURES=../shared/fixtures python tests/bench/bench_trace.py [--quick]

Raw pages of real kernels (captures `vm/test-gpu`: 12,000 jobs of four clients on three rings, 36,000 events)
are taken apart, put in order and, in the second line, followed job by job, as the tracer does. The baseline is
what reading `trace_pipe` as text would cost: one regular expression a line of the same events as the kernel
prints them (printing them costs the kernel as well, which is not counted). Processor time of this process.
"""

import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from figures import flags, heading, show, spread

from gpudaemon.collectors.drm_sched.account import Jobs
from gpudaemon.model.tracing import Context, Event
from tests.captures import VARIABLE, capture, names
from tests.traces import RawTrace

_LINE = re.compile(
    r"\s*(?P<task>.+)-(?P<pid>\d+)\s+\[(?P<cpu>\d+)\] [^ ]+\s+(?P<at>\d+\.\d+): (?P<event>\w+): "
    r"(?P<fields>.*)"
)
_FIELD = re.compile(r"(\w[\w ]*)[=:]([^,]+)")
LEAST = 150_000


def _text(events: list[Event]) -> list[str]:
    """Lines as `trace_pipe` has them (print_trace_line), of the fields that are taken."""
    lines = []
    for at, name, values in events:
        fields = ", ".join(f"field{place}={value}" for place, value in enumerate(values))
        event = name.split("/")[1]
        lines.append(f"          client-174     [000] .....  {at / 1e9:.6f}: {event}: {fields}")
    return lines


def _parse(lines: list[str]) -> int:
    taken = 0
    for line in lines:
        found = _LINE.match(line)
        if found:
            fields = dict(_FIELD.findall(found["fields"]))
            taken += bool(fields) and float(found["at"]) >= 0
    return taken


def _rate(events: int, work: Callable[[], object], runs: int) -> list[float]:
    rates = []
    for _ in range(runs):
        began = time.process_time()
        work()
        rates.append(events / (time.process_time() - began))
    return rates


def _follow(trace: RawTrace) -> None:
    jobs = Jobs(Context(owner=lambda _: "unknown", comm=lambda _: "", unix=float, settings={}))
    jobs.armed(trace.recipe)
    events = trace.events()
    jobs.take(events)
    rows = list(jobs.rows(events[-1][0]))
    assert rows


def main() -> None:
    """The bench."""
    parser, arguments = flags(__doc__, runs=9, seconds=0, quick=(3, 0), engines=("none",))
    versions = names("vm", "test-gpu")
    if versions == ["none"]:
        parser.error(f"{VARIABLE} is not set: no raw pages")
    for version in versions:
        _compare(RawTrace(Path(capture("vm", "test-gpu", version, "raw-binary"))), version, arguments.runs)


def _compare(trace: RawTrace, version: str, runs: int) -> None:
    pages, events = list(trace.pages()), trace.events()
    lines = _text(events)
    assert _parse(lines) == len(events)
    heading(f"{version}, {trace.recipe.name}: {len(events)} events in {len(pages)} pages")
    decoded = _rate(len(events), lambda: [trace.decoder.decode(page) for page in pages], runs)
    text = _rate(len(events), lambda: _parse(lines), runs)
    spread("decoded", decoded, "/s", f">= {LEAST}")
    spread("decoded, ordered and followed", _rate(len(events), lambda: _follow(trace), runs), "/s")
    spread("baseline: text, a regular expression a line", text, "/s")
    show("decoded against baseline", statistics.median(decoded) / statistics.median(text), "times")


if __name__ == "__main__":
    main()
