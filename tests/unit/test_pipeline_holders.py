"""Notes of stuck readers: good as long as that very process exists, and no longer."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpudaemon.pipeline.holders import Holders, is_alive, start_time

SYSFS = "/sys"
STUCK = {"0000:03:00.0": "gpu_busy_percent"}


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.communicate()


def note(directory: Path, pid: int, started: int | None, sysfs: str = SYSFS) -> Path:
    path = directory / f"stuck-reader-{pid}"
    path.write_text(json.dumps({"pid": pid, "started": started, "sysfs": sysfs, "stuck": STUCK}))
    return path


def test_start_times_tell_processes_apart(other: subprocess.Popen[bytes]) -> None:
    started = start_time(other.pid)
    assert started is not None
    assert is_alive(other.pid, started)
    assert not is_alive(other.pid, started + 1)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    # A corpse that nobody fetched holds nothing.
    assert start_time(other.pid) is None
    other.wait()
    assert start_time(other.pid) is None


def test_a_note_is_found_by_the_next_server(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    directory = tmp_path / "run" / "gpudaemon"
    first = Holders(str(directory), SYSFS)
    first.note(other.pid, STUCK)
    assert first.held(but=other.pid) == {}
    second = Holders(str(directory), SYSFS)
    assert second.held(but=1) == {"0000:03:00.0": (other.pid, "gpu_busy_percent")}
    assert second.processes(but=1) == 1
    # The reader ends: so does what it held, and its note.
    other.kill()
    other.wait()
    assert second.held(but=1) == {}
    assert list(directory.iterdir()) == []


def test_a_note_is_taken_back(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    holders = Holders(str(tmp_path), SYSFS)
    holders.note(other.pid, STUCK)
    assert len(list(tmp_path.iterdir())) == 1
    holders.note(other.pid, {})
    assert list(tmp_path.iterdir()) == []
    assert Holders(str(tmp_path), SYSFS).held(but=1) == {}


def test_another_process_with_the_same_number_holds_nothing(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    started = start_time(other.pid)
    assert started is not None
    path = note(tmp_path, other.pid, started - 100)
    assert Holders(str(tmp_path), SYSFS).held(but=1) == {}
    assert not path.exists()


def test_notes_of_another_sysfs_are_left_alone(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    path = note(tmp_path, other.pid, start_time(other.pid), "/mock/sys")
    assert Holders(str(tmp_path), SYSFS).held(but=1) == {}
    assert path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b'{"pid": 1}',
        b'{"pid": "x", "started": 1}',
        b'{"pid": 1, "started": 1, "sysfs": "/sys", "stuck": []}',
        b'{"pid": 1e400, "started": 1}',
        b"[" * 5000,
    ],
)
def test_garbage_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stuck-reader-1").write_bytes(content)
    (tmp_path / "stuck-reader-dir").mkdir()
    assert Holders(str(tmp_path), SYSFS).held(but=0) == {}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pid=values, started=values, stuck=values, sysfs=values)
def test_any_json_is_ignored_or_understood(
    tmp_path: Path, pid: object, started: object, stuck: object, sysfs: object
) -> None:
    content = {"pid": pid, "started": started, "stuck": stuck, "sysfs": sysfs}
    (tmp_path / "stuck-reader-9").write_text(json.dumps(content))
    Holders(str(tmp_path), SYSFS).held(but=0)


def test_a_directory_that_cannot_be_had_costs_the_notes_only(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "file").touch()
    holders = Holders(str(tmp_path / "file" / "below"), SYSFS)
    holders.note(other.pid, STUCK)
    # This server still knows.
    assert holders.held(but=1) == {"0000:03:00.0": (other.pid, "gpu_busy_percent")}
