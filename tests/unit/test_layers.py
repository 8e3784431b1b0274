"""The rules that are checked by programs: layers, linter, format, types."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(program: str, *arguments: str) -> None:
    """Run a tool of the project's; without it the test is skipped, but never under CI."""
    beside = Path(sys.executable).with_name(program)
    path = str(beside) if beside.exists() else shutil.which(program)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [path, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_layers() -> None:
    check("lint-imports", "--no-cache")


def test_linter() -> None:
    check("ruff", "check", "--no-cache", "gpudaemon", "tests")


def test_format() -> None:
    check("ruff", "format", "--no-cache", "--check", "gpudaemon", "tests")


def test_types() -> None:
    check("mypy")


def test_the_reader_starts_without_network_and_decoders() -> None:
    """What import-linter cannot see: a library may bring asyncio or ssl along."""
    code = (
        "import sys, gpudaemon.reader.process, gpudaemon.reader.launcher, gpudaemon.reader.threads\n"
        "wrong = {'asyncio', 'ssl', 'http', 'aiohttp', 'prometheus_client', 'pyudev', 'pyroute2', 'psutil'}\n"
        "loaded = {name.split('.')[0] for name in sys.modules} & wrong\n"
        "loaded |= {name for name in sys.modules if name.startswith(('gpudaemon.parsers', 'gpudaemon.drivers',"
        " 'gpudaemon.collectors', 'gpudaemon.metrics', 'gpudaemon.export'))}\n"
        "print(*sorted(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
