"""Configuration: what is refused and how, where notes go, what a preset means."""

import dataclasses
import os
from pathlib import Path

import pytest

from gpudaemon.config import PRESETS, Config, preset_periods
from gpudaemon.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"engine": "epoll"}, ["--engine", "'epoll'", "auto, io_uring, threads"]),
        ({"tier": "root"}, ["--tier", "'root'", "base, processes, tracing, full"]),
        ({"preset": "faster"}, ["--preset", "'faster'", "scrape, normal, fast"]),
        ({"deadline": 0.01}, ["--read.deadline", "0.01", "0.05 to 60"]),
        ({"deadline": 60.1}, ["--read.deadline", "60.1"]),
        ({"deadline": float("nan")}, ["--read.deadline", "nan"]),
        ({"scrapes": 0}, ["--web.max-requests", "0", "1 to 1000"]),
        ({"sysfs": "/nowhere/sys"}, ["--path.sysfs", "'/nowhere/sys'", "not a directory"]),
        ({"procfs": "/nowhere"}, ["--path.procfs", "'/nowhere'"]),
        ({"log_level": "loud"}, ["--log.level", "'loud'"]),
    ],
)
def test_what_cannot_be_used_is_named(change: dict[str, object], names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(Config(), **change).checked()
    text = str(caught.value)
    assert "\n" not in text
    for name in names:
        assert name in text


@pytest.mark.parametrize("change", [{"deadline": 0.05}, {"deadline": 60}, {"scrapes": 1}, {"scrapes": 1000}])
def test_bounds_themselves_are_allowed(change: dict[str, object]) -> None:
    dataclasses.replace(Config(), **change).checked()


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys").mkdir()
    monkeypatch.chdir(tmp_path)
    checked = Config(sysfs="sys/", procfs="./sys/../sys//").checked()
    assert (checked.sysfs, checked.procfs) == (str(tmp_path / "sys"), str(tmp_path / "sys"))


def test_notes_go_where_the_service_manager_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one:/run/two")
    assert Config().checked().runtime_directory == "/run/one"
    assert Config(runtime_directory="/given").checked().runtime_directory == "/given"
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Config().checked().runtime_directory == "/run/user/1000/gpudaemon"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Config().checked().runtime_directory == "/tmp/gpudaemon-1000"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Config().checked().runtime_directory == "/run/gpudaemon"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_never_reads_static_more_often_than_fast(name: str) -> None:
    periods = preset_periods(name)
    assert list(periods) == sorted(periods, reverse=True)
