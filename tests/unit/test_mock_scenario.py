"""Scenario files and the table of commands: what is taken, and what is said of what is not."""

import inspect
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.mock.command_table import COMMANDS, FAULTS, error_number
from gpudaemon.mock.commands import Commands
from gpudaemon.mock.device_commands import DeviceCommands
from gpudaemon.mock.scenario import Scenario, ScenarioError, Step, parse, read

GOOD = """
[host]
profile = "mi300x8"
gpus = 4
seed = 3
workload = "training"

[[step]]
at = 10
do = "fault"
path = "0000:63:00.0"
kind = "read_errno"
errno = "EIO"

[[step]]
at = 12.5
every = 30
times = 3
do = "reset"
device = "card0"
seconds = 0.5
keys = { PID = "4242", TASK = "python3" }

[[step]]
at = 20
every = 1
do = "clear"
"""


def test_a_scenario_becomes_steps_with_values(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(GOOD)
    assert read(os.fspath(path)) == Scenario(
        {"profile": "mi300x8", "gpus": 4, "seed": 3, "workload": "training"},
        (
            Step(10, "fault", {"path": "0000:63:00.0", "kind": "read_errno", "errno": 5}),
            Step(
                12.5,
                "reset",
                {"device": "card0", "seconds": 0.5, "keys": {"PID": "4242", "TASK": "python3"}},
                every=30,
                times=3,
            ),
            Step(20, "clear", {}, every=1, times=0),
        ),
    )


STEP = {"at": 1, "do": "fault", "path": "card0", "kind": "hang"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"steps": []}, "no steps here: a scenario has host and step; did you mean step?"),
        ({"step": {}}, "steps are a list"),
        ({"host": {"gpu": 8}}, "host has no gpu: it has profile, gpus, seed, workload; did you mean gpus?"),
        ({"host": {"gpus": "8"}}, "host.gpus = '8': int is wanted"),
        ({"host": {"gpus": True}}, "host.gpus = True: int is wanted"),
        ({"step": [STEP, 3]}, "step 2: a table is wanted"),
        ({"step": [{**STEP, "do": "fualt"}]}, "step 1: do = 'fualt'.*did you mean fault?"),
        ({"step": [{**STEP, "do": "stats"}]}, "step 1: do = 'stats': allowed are"),
        ({"step": [{k: v for k, v in STEP.items() if k != "at"}]}, "step 1: needs at"),
        ({"step": [{**STEP, "at": -1}]}, "step 1: at = -1: a number from 0 on is wanted"),
        ({"step": [{**STEP, "at": True}]}, "at = True"),
        ({"step": [{**STEP, "times": 2}]}, "step 1: times without every"),
        ({"step": [{**STEP, "every": 0}]}, "every = 0"),
        ({"step": [{**STEP, "every": 1, "times": 1.5}]}, "times = 1.5: a whole number"),
        ({"step": [{**STEP, "kind": "hnag"}]}, "kind = hnag: there are latency.*did you mean hang?"),
        ({"step": [{**STEP, "kind": "latency"}]}, "step 1: latency needs seconds"),
        ({"step": [{**STEP, "seconds": 1}]}, "step 1: hang has no seconds"),
        ({"step": [{**STEP, "pth": "x"}]}, "fault has no pth .*did you mean path?"),
        ({"step": [{**STEP, "kind": "read_errno", "errno": "EIOO"}]}, "errno = EIOO.*did you mean EIO?"),
        ({"step": [{**STEP, "kind": "read_errno", "errno": 0}]}, "an errno is 1 to 4095"),
        ({"step": [{"at": 1, "do": "reset"}]}, "step 1: reset needs device: PCI address"),
        ({"step": [{"at": 1, "do": "reset", "device": 3}]}, "device = 3: text is wanted"),
        ({"step": [{"at": 1, "do": "wrap", "device": "card0", "lead": "x"}]}, "lead = 'x': a number is wanted"),
        ({"step": [{"at": 1, "do": "change", "device": "card0", "keys": "x"}]}, "keys = 'x': a table"),
    ],
)
def test_what_cannot_be_used_is_named(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        parse(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.toml: No such file"):
        read(os.fspath(tmp_path / "none.toml"))
    for content in (b"[[step]\n", b"\xff\xfe"):
        path = tmp_path / "bad.toml"
        path.write_bytes(content)
        with pytest.raises(ScenarioError, match=r"bad\.toml: "):
            read(os.fspath(path))


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["step", "at", "do", "path", "kind", "every"]), inner, max_size=5)
    ),
)


@given(st.dictionaries(st.sampled_from(["host", "step", "x"]), json, max_size=3))
def test_whatever_a_document_holds_the_answer_is_a_scenario_or_a_reason(content: dict[str, Any]) -> None:
    try:
        parse(content)
    except ScenarioError as error:
        assert str(error)


def test_the_table_has_every_command_with_its_arguments() -> None:
    methods = {
        name: method
        for owner in (Commands, DeviceCommands)
        for name, method in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }
    programmed = {"drive", "undrive"}  # values from a test, by its own clock
    assert set(COMMANDS) == set(methods) - programmed - {"line", "follow", "commands"}
    for name, command in COMMANDS.items():
        taken = inspect.signature(methods[name]).parameters
        named = {parameter for parameter in taken if parameter not in ("self", "arguments")}
        extra = {wanted[0] for wanted in FAULTS.values() if wanted} if name == "fault" else set()
        assert {argument.name for argument in command.arguments} == named | extra, name
        for argument in command.arguments:
            if argument.name not in extra and argument.name not in ("keys", "names"):
                assert argument.needed == (taken[argument.name].default is inspect.Parameter.empty), name


def test_error_numbers() -> None:
    assert error_number("ENODEV") == error_number(19) == error_number("19") == 19
    for wrong in ("errorcode", "EIOO", 0, 4096, True, None, "", 1.5):
        with pytest.raises(ValueError, match=r"errno"):
            error_number(wrong)
