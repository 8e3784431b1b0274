"""Configuration: what is refused and how, what wins, where notes go, what a preset means."""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.collectors import collectors
from gpudaemon.config import PRESETS, Config, load, options, sections
from gpudaemon.config.options import Collectors
from gpudaemon.config.text import effective, sample
from gpudaemon.errors import ConfigError

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(text: str) -> str:
        path = tmp_path / "gpudaemon.toml"
        path.write_text(text)
        return str(path)

    return made


def refused(file: str = "", flags: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, flags)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


CLASSES = {
    "a word that is none": (
        'engine = "thread"',
        'engine = "thread": allowed: auto, io_uring, threads; did you mean',
    ),
    "a word unlike any": ('preset = "xyz"', 'preset = "xyz": allowed: scrape, normal, fast'),
    "another type": ("engine = 3", "engine = 3: allowed: auto, io_uring, threads"),
    "text for a number": ('[read]\ndeadline = "1"', 'read.deadline = "1": allowed: numbers from 0.05 to 60'),
    "a number for text": ("[path]\nsysfs = 1", "path.sysfs = 1: allowed: a directory"),
    "too large": ("[read]\ndeadline = 90", "read.deadline = 90: allowed: numbers from 0.05 to 60"),
    "too small": ("[period]\nfast = 0.001", "period.fast = 0.001: allowed: numbers from 0.02 to 3600"),
    "not a number": ("[read]\ndeadline = nan", "read.deadline = nan: allowed"),
    "infinite": ("[read]\ndeadline = inf", "read.deadline = inf: allowed"),
    "a fraction for a count": ("[metric]\nlimit = 10.5", "metric.limit = 10.5: allowed: whole numbers from 10"),
    "a truth for a number": ("[metric]\nlimit = true", "metric.limit = true: allowed: whole numbers"),
    "a number for a truth": ("resting = 1", "resting = 1: allowed: true or false"),
    "text for a list": (
        '[web]\nlisten_address = ":1"',
        'web.listen_address = ":1": allowed: a list of HOST:PORT',
    ),
    "an empty list": ("[web]\nlisten_address = []", "web.listen_address = []: allowed: a list of HOST:PORT"),
    "a wrong item": (
        '[web]\nlisten_address = ["x"]',
        'web.listen_address = ["x"]: allowed: a list of HOST:PORT',
    ),
    "no expression": ('[metric]\nexclude = "("', 'metric.exclude = "(": allowed: a regular expression'),
    "no directory": (
        '[path]\nprocfs = "/nowhere"',
        'path.procfs = "/nowhere": allowed: a directory: there is none',
    ),
    "no processors": ('[cpu]\nreader = "a"', 'cpu.reader = "a": allowed: processors such as 0-3,8'),
    "no source": (
        '[uevent]\nsource = "dbus"',
        'uevent.source = "dbus": allowed: auto, udev, kernel, none or socket',
    ),
    "an unknown key": ("[read]\ndedline = 3", "unknown key read.dedline: did you mean read.deadline?"),
    "a key of another table": ("deadline = 3", "unknown key deadline: did you mean read.deadline?"),
    "an unknown table": ("[foo]\nx = 1", "unknown key foo: allowed: preset, engine"),
    "an unknown collector": (
        "[collector]\ngpus = true",
        "unknown key collector.gpus: did you mean collector.gpu?",
    ),
    "a table written as a value": ("read = 3", "read = 3: it is a table, write [read]"),
    "a value written as a table": ("[engine]\nx = 1", "engine = "),
    "no TOML": ("a b", "not TOML: Expected '=' after a key in a key/value pair (at line 1, column 3): \"a b\""),
    "a key twice": ('engine = "auto"\nengine = "auto"', "not TOML: Cannot overwrite a value"),
    "nested without end": ("x = " + "[" * 5000, "not TOML"),
    "a null byte": ('[path]\nstate = "a\\u0000b"', 'path.state = "a\\x00b": allowed: a path'),
}


@pytest.mark.parametrize("name", CLASSES)
def test_what_cannot_be_used_is_named(name: str, write: Write) -> None:
    text, message = CLASSES[name]
    file = write(text)
    said = refused(file)
    assert said.startswith(f"{file}: ")
    assert message in said


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a = 1\n\xff\n")
    assert "line 2 is not UTF-8 text" in refused(str(tmp_path / "x"))
    assert "No such file" in refused(str(tmp_path / "none"))
    assert "Is a directory" in refused(str(tmp_path))
    (tmp_path / "x").write_bytes(b"#" * (2 << 20))
    assert "longer than" in refused(str(tmp_path / "x"))


def test_a_flag_wins_and_is_named_when_it_is_wrong(write: Write) -> None:
    file = write("[read]\ndeadline = 3\n[metric]\nlimit = 20")
    config = load(file, {"read.deadline": "2.5", "web.listen_address": ["[::1]:0"], "resting": False})
    assert (config.read.deadline, config.metric.limit, config.resting) == (2.5, 20, False)
    assert config.web.listen_address == ("[::1]:0",)
    assert refused("", {"read.deadline": "x"}) == '--read.deadline = "x": allowed: numbers from 0.05 to 60'
    assert refused("", {"web.config_file": "\0"}).startswith("--web.config.file = ")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("read.deadline", "0.05", True),
        ("read.deadline", "60", True),
        ("read.deadline", "60.1", False),
        ("web.max_requests", "1", True),
        ("web.max_requests", "1000", True),
        ("web.max_requests", "1001", False),
        ("web.listen_address", [":9836"], True),
        ("web.listen_address", ["[::]:9836"], True),
        ("web.listen_address", ["a b:1"], False),
        ("cpu.server", "0-3,8", True),
        ("cpu.server", "0-", False),
        ("inventory.expect", ["0000:03:00.0"], True),
    ],
)
def test_bounds_themselves_are_allowed(key: str, value: str | list[str], allowed: bool) -> None:
    if allowed:
        load("", {key: value})
    else:
        refused("", {key: value})


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys").mkdir()
    monkeypatch.chdir(tmp_path)
    path = load("", {"path.sysfs": "sys/", "path.procfs": "./sys/../sys//"}).path
    assert (path.sysfs, path.procfs) == (str(tmp_path / "sys"), str(tmp_path / "sys"))


def test_notes_go_where_the_service_manager_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one:/run/two")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/x")
    assert (load().path.runtime, load().path.state) == ("/run/one", "/var/lib/x")
    assert load("", {"path.runtime": "/given"}).path.runtime == "/given"
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert load().path.runtime == "/run/user/1000/gpudaemon"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert load().path.runtime == "/tmp/gpudaemon-1000"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load().path.runtime == "/run/gpudaemon"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_never_reads_static_more_often_than_fast(name: str) -> None:
    periods = load("", {"preset": name}).periods
    assert list(periods) == sorted(periods, reverse=True)


def test_periods_of_ones_own_go_above_the_presets() -> None:
    assert load("", {"preset": "fast", "period.fast": "0.05"}).periods == (600.0, 15.0, 1.0, 0.05)


def test_collectors_are_those_of_the_package() -> None:
    assert set(Collectors.__struct_fields__) - {"disable_defaults"} == set(collectors())
    # debugfs belongs to root, and its list of buffers is not to be read for nothing. Others cost by the event.
    costly = {"dma_fence", "i915_request"}
    usual = set(collectors()) - {"dma_buf"} - costly
    assert load().collectors == usual
    assert load("", {"tier": "full"}).collectors == usual | {"dma_buf"}
    asked = load("", {"tier": "full", **{f"collector.{name}": True for name in costly}})
    assert asked.collectors == set(collectors())
    assert load("", {"collector.gpu": False}).collectors == usual - {"gpu"}
    only = load("", {"collector.disable_defaults": True, "collector.pcie": True})
    assert only.collectors == {"pcie"}


def test_the_sample_is_the_default(write: Write) -> None:
    """Every option of the sample, its comment sign taken away, is what holds without it."""
    text = re.sub(r"(?m)^#(\w+ = )", r"\1", sample())
    given = tomllib.loads(text)
    assert {key for table in given.values() if isinstance(table, dict) for key in table}
    del given["inventory"]["expect"]
    for name, value in given["period"].items():
        assert value == dict(zip(("static", "slow", "normal", "fast"), PRESETS["normal"], strict=True))[name]
    for table in given["collector"].items():
        assert table == ("disable_defaults", False) or table[1] is True
    lines = [line for line in text.splitlines() if not line.startswith("expect")]
    config = load(write("\n".join(lines)))
    assert (config.web, config.read, config.metric, config.path) == (
        load().web,
        load().read,
        load().metric,
        load().path,
    )
    assert tomllib.loads(sample()) == {name: {} for name in sections()}


def test_the_effective_configuration_can_be_read_again(write: Write) -> None:
    config = load("", {"metric.exclude": 'a"\\d+', "period.fast": "0.05", "inventory.expect": ["a", "b"]})
    assert load(write(effective(config))) == config


words = st.text(max_size=20)
scalars = st.one_of(st.integers(), st.floats(), st.booleans(), words, st.lists(st.one_of(words, st.integers())))


def toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return (
            '"'
            + "".join(f"\\U{ord(c):08x}" if ord(c) < 0xD800 or ord(c) > 0xDFFF else "?" for c in value)
            + '"'
        )
    if isinstance(value, list):
        return "[" + ",".join(toml(item) for item in value) + "]"
    return str(value)


@given(key=st.sampled_from([option.key for option in options()]), value=scalars)
def test_any_value_is_taken_or_named(key: str, value: object) -> None:
    import tempfile

    section, _, name = key.rpartition(".")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write((f"[{section}]\n" if section else "") + f"{name} = {toml(value)}\n")
        file.flush()
        try:
            assert isinstance(load(file.name), Config)
        except ConfigError as error:
            assert "\n" not in str(error)
            assert f"{file.name}: {key} = " in str(error)
            assert ": allowed: " in str(error)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(content)
        file.flush()
        try:
            load(file.name)
        except ConfigError as error:
            assert str(error).startswith(file.name)
            assert "\n" not in str(error)


lines = st.sampled_from(
    [
        *(f"[{name}]" for name in sections()),
        *(o.key.rpartition(".")[2] for o in options()),
        "=",
        "x",
        "1",
        '"',
        "[",
        "]",
    ]
)


@given(st.lists(lines, max_size=30).map(" ".join), st.lists(lines, max_size=30).map("\n".join))
def test_files_that_look_like_one_are_read_or_refused(one: str, other: str) -> None:
    import tempfile

    for text in (one, other):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            try:
                load(file.name)
            except ConfigError as error:
                assert "\n" not in str(error)
