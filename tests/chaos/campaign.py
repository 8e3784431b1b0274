"""Three seeds, ten minutes each, both engines: python -m tests.chaos.campaign [--seconds 600] [SEED ...]

The engines of a seed run at the same time, the seeds one after the other (--together: all at once). The results
go to docs/chaos.md, between the lines that mark them. Status 1 where any rule was broken. Takes half an hour.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "bench")]

import processes  # noqa: E402

ENGINES = ("io_uring", "threads")
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/chaos.md"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"

Run = dict[str, Any]


def _start(seed: int, engine: str, seconds: float, nice: int, home: str) -> "subprocess.Popen[str]":
    words = ["--seed", str(seed), "--seconds", str(seconds), "--engine", engine, "--nice", str(nice)]
    words += ["--json", f"{home}/{seed}-{engine}.json"]
    output = open(f"{home}/{seed}-{engine}.txt", "w", encoding="utf-8")  # noqa: SIM115 - the child's own
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.run", *words],
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _results(home: str, seeds: list[int]) -> list[Run]:
    found = []
    for seed in seeds:
        for engine in ENGINES:
            path = Path(home, f"{seed}-{engine}.json")
            if path.exists():
                found.append(json.loads(path.read_text()))
            else:
                sys.exit(f"no result: {Path(home, f'{seed}-{engine}.txt').read_text()[-4000:]}")
    return found


def _rows(run: Run) -> dict[str, str]:
    loop, slack = run["loop"], run["seconds held up by the machine, median and most"]
    checked = run["checked"]
    passed = f"{checked.get('not looked at for the machine' + chr(39) + 's sake', 0)} of {checked['fresh']}"
    return {
        "**violated**": f"**{len(run['violations'])}**",
        "episodes": str(sum(run["episodes"].values())),
        "server restarts, readers killed": f"{run['server starts'] - 1}, {run['reader kills']}",
        "pages looked at": f"{run['pages']:,}",
        "scrapes by Prometheus, of these while the server was restarted": (
            f"{run['prometheus']['scrapes']}, {run['prometheus']['failed']}"
        ),
        "checks": f"{sum(checked.values()):,}",
        "of freshness; passed over for the machine's sake": passed,
        "slowest page": f"{1e3 * run['slowest page']:.0f} ms",
        "oldest data of a healthy device": f"{run['oldest data of a healthy device']:.2f} s",
        "loop, p99.9 / longest (at most 10 / 25 ms)": (
            f"{1e3 * loop['p99.9']:.1f} / {1e3 * loop['longest']:.1f} ms"
        ),
        "the same with what the machine added": (
            f"{1e3 * loop[f'p99.9 with the machine{chr(39)}s']:.0f} /"
            f" {1e3 * loop[f'longest with the machine{chr(39)}s']:.0f} ms"
        ),
        "an idle process beside it": (
            f"{1e3 * loop['machine p99.9']:.0f} / {1e3 * loop['machine longest']:.0f} ms"
        ),
        "seconds the machine may have held up a page, median / most": f"{slack[0]:.2f} / {slack[1]:.2f}",
    }


def table(runs: list[Run]) -> str:
    """Markdown: a column each run."""
    columns = [_rows(run) for run in runs]
    lines = ["| | " + " | ".join(f"{run['engine']}, {run['seed']}" for run in runs) + " |"]
    lines.append("|---|" + "---|" * len(runs))
    lines += [f"| {name} | " + " | ".join(column[name] for column in columns) + " |" for name in columns[0]]
    kinds = sorted({kind for run in runs for kind in run["episodes"]})
    counts = {kind: sum(run["episodes"].get(kind, 0) for run in runs) for kind in kinds}
    happened = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return "\n".join(lines) + f"\n\nWhat happened, all runs together: {happened}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[1, 2, 3], metavar="SEED")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument(
        "--nice", type=int, default=-10, help="priority, for a machine with other work (%(default)s)"
    )
    parser.add_argument("--together", action="store_true", help="all seeds at once")
    arguments = parser.parse_args()
    home = tempfile.mkdtemp(prefix="gpudaemon-campaign-")
    print(f"output in {home}", flush=True)
    groups = [arguments.seeds] if arguments.together else [[seed] for seed in arguments.seeds]
    for seeds in groups:
        running = [
            _start(seed, engine, arguments.seconds, arguments.nice, home)
            for seed in seeds
            for engine in ENGINES
        ]
        for one in running:
            one.wait()
    runs = _results(home, arguments.seeds)
    text = table(runs)
    words = f"{processes.machine()}, {time.strftime('%H:%M')} UTC; {arguments.seconds:.0f} s a run.\n\n"
    print(text)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{words}{text}{END}{rest.partition(END)[2]}")
    violations = [(run["engine"], run["seed"], one) for run in runs for one in run["violations"]]
    for engine, seed, one in violations:
        print(f"{engine}, {seed}: {one['at']:.2f} s {one['rule']} {one['device']} {one['what']}")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
