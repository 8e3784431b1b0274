"""Steady load, read and decode, against an inline pread loop in the same run.

    python tests/bench/bench_steady.py [--seconds 10] [--runs 5]

500 attributes at 1 Hz and 80 at 10 Hz of this machine's sysfs in 8 lanes. The baseline is what a simple
exporter does: one process, an asyncio timer, os.pread on open files, the same decoders. Ours is the reader
process with its kernel workers and a server process that takes every reading over. CPU time by the kernel's
clock of each process, each way in processes of its own, in turn.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time

import processor_time
import steady_load

MUST = {"io_uring": 2.3, "threads": 1.6}
_WARM_UP = 2.5


async def _inline(seconds: float) -> float:
    """CPU seconds of the inline loop over `seconds`."""
    from gpudaemon.parsers.integer import quotient

    decode = quotient()
    load = steady_load.lanes()
    values: dict[int, float] = {}

    def opened(paths: list[str]) -> list[int]:
        return [os.open(f"{steady_load.SYSFS}/{path}", os.O_RDONLY) for path in paths]

    async def every(period: float, descriptors: list[int]) -> None:
        due = time.monotonic()
        while True:
            for descriptor in descriptors:
                values[descriptor] = decode(os.pread(descriptor, 64, 0))[0]
            due += period
            await asyncio.sleep(due - time.monotonic())

    fast = opened([path for lane in load for path in lane[0]])
    normal = opened([path for lane in load for path in lane[1]])
    tasks = [asyncio.create_task(every(0.1, fast)), asyncio.create_task(every(1.0, normal))]
    await asyncio.sleep(_WARM_UP)
    before = processor_time.seconds([os.getpid()])
    await asyncio.sleep(seconds)
    used = processor_time.seconds([os.getpid()]) - before
    for task in tasks:
        task.cancel()
    return used


async def _engine(engine: str, seconds: float) -> float:
    """CPU seconds of server and reader over `seconds`; fails where readings are missing."""
    from gpudaemon.pipeline.holders import Holders
    from gpudaemon.pipeline.link import ReaderLink
    from gpudaemon.pipeline.sampler import Periods, Sampler

    link = ReaderLink(tier="base", engine=engine)
    periods = Periods(static=600, slow=60, normal=1.0, fast=0.1, deadline=1.0)
    sampler = Sampler(link, Holders("/nonexistent", "/sys"), sysfs=steady_load.SYSFS, periods=periods)
    link.attach(asyncio.get_running_loop())
    sampler.set_devices(steady_load.install(steady_load.lanes()))
    await asyncio.sleep(_WARM_UP)
    pids = [os.getpid(), link.pid]
    before = processor_time.seconds(pids)
    counted = _reads(sampler)
    await asyncio.sleep(seconds)
    used = processor_time.seconds(pids) - before
    rate = (_reads(sampler) - counted) / seconds
    if link.engine != engine or rate < 0.95 * (steady_load.NORMAL + 10 * steady_load.FAST):
        raise SystemExit(f"{link.engine} ({link.reason}) read {rate:.0f} attributes a second")
    await link.close()
    return used


def _reads(sampler: "object") -> int:
    return sum(sum(entry.figures.reads.values()) for entry in sampler.entries.values())  # type: ignore[attr-defined]


def _measure(way: str, seconds: float) -> float:
    command = [sys.executable, __file__, "--way", way, "--seconds", str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--way", choices=("inline", "io_uring", "threads"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way == "inline":
        print(asyncio.run(_inline(arguments.seconds)))
        return
    if arguments.way:
        print(asyncio.run(_engine(arguments.way, arguments.seconds)))
        return
    used: dict[str, list[float]] = {"inline": [], "io_uring": [], "threads": []}
    for _ in range(arguments.runs):
        for way, figures in used.items():
            figures.append(100 * _measure(way, arguments.seconds) / arguments.seconds)
    print(f"{'':10} {'% of a core':>12} {'min':>6} {'max':>6} {'ratio':>6}  must reach")
    for way, figures in used.items():
        ratios = [figure / base for figure, base in zip(figures, used["inline"], strict=True)]
        must = f"at most {MUST[way]} x" if way in MUST else "the baseline"
        print(
            f"{way:10} {statistics.median(figures):12.2f} {min(figures):6.2f} {max(figures):6.2f}"
            f" {statistics.median(ratios):6.2f}  {must}"
        )


if __name__ == "__main__":
    main()
