"""Scenarios: a file that says what happens to a live host, and when.

TOML: a table `host` with what `gpudaemon mock live` takes, and a list of steps. A step does one command
(`gpudaemon.mock.command_table`) `at` so many seconds after the host is up; with `every` again and again,
`times` in all or until the host ends:

    [host]
    profile = "mi300x8"
    workload = "training"

    [[step]]
    at = 10
    do = "fault"
    path = "0000:63:00.0"
    kind = "hang"
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpudaemon.errors import GpudaemonError
from gpudaemon.mock.command_table import COMMANDS, FAULTS, nearest

__all__ = ["Scenario", "ScenarioError", "Step", "parse", "read"]

_HOST: Mapping[str, type] = {"profile": str, "gpus": int, "seed": int, "workload": str}
_WHEN = ("at", "every", "times")
_MOST = 10_000


class ScenarioError(GpudaemonError):
    """The file cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens. at, every: seconds, 0 for not again; times: 0 for without end."""

    at: float
    command: str
    arguments: Mapping[str, Any]
    every: float = 0.0
    times: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """host: profile, gpus, seed, workload, as far as they are given. steps: in the order of the file."""

    host: Mapping[str, Any]
    steps: tuple[Step, ...]


def read(path: str) -> Scenario:
    """The scenario in a file. Raises ScenarioError."""
    try:
        with open(path, "rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    try:
        return parse(content)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def parse(content: Mapping[str, Any]) -> Scenario:
    """The scenario that a TOML document holds. Raises ScenarioError."""
    for name in content:
        if name not in ("host", "step"):
            raise ScenarioError(
                f"no {name} here: a scenario has host and step{nearest(name, ('host', 'step'))}"
            )
    host, steps = content.get("host", {}), content.get("step", [])
    if not isinstance(host, Mapping) or not isinstance(steps, list):
        raise ScenarioError("host is a table, [host], and steps are a list, [[step]]")
    if len(steps) > _MOST:
        raise ScenarioError(f"{len(steps)} steps: at most {_MOST}")
    for name, value in host.items():
        if name not in _HOST:
            raise ScenarioError(f"host has no {name}: it has {', '.join(_HOST)}{nearest(name, list(_HOST))}")
        if type(value) is not _HOST[name]:
            raise ScenarioError(f"host.{name} = {value!r}: {_HOST[name].__name__} is wanted")
    return Scenario(dict(host), tuple(_step(number, step) for number, step in enumerate(steps, start=1)))


def _step(number: int, step: object) -> Step:
    try:
        return _checked(step)
    except ValueError as error:
        raise ScenarioError(f"step {number}: {error}") from None


def _checked(step: object) -> Step:
    if not isinstance(step, Mapping):
        raise ValueError("a table is wanted")
    name = step.get("do")
    possible = [name for name, command in COMMANDS.items() if not command.asks]
    if not isinstance(name, str) or name not in possible:
        raise ValueError(f"do = {name!r}: allowed are {', '.join(possible)}{nearest(str(name), possible)}")
    when = {key: _moment(key, step[key]) for key in _WHEN if key in step}
    if "at" not in when:
        raise ValueError("needs at: seconds after the host is up")
    if "times" in when and "every" not in when:
        raise ValueError("times without every")
    given = {key: value for key, value in step.items() if key not in (*_WHEN, "do")}
    arguments = COMMANDS[name].values(given)
    if name == "fault":
        _check_fault(arguments)
    every = when.get("every", 0.0)
    return Step(when["at"], name, arguments, every, int(when.get("times", 0 if every else 1)))


def _moment(key: str, value: object) -> float:
    least = 0.0 if key == "at" else 0.01 if key == "every" else 1
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
        raise ValueError(f"{key} = {value!r}: a number from {least:g} on is wanted")
    if key == "times" and value != int(value):
        raise ValueError(f"times = {value!r}: a whole number is wanted")
    return float(value)


def _check_fault(arguments: Mapping[str, Any]) -> None:
    """A fault has the argument of its kind and no other. Raises ValueError."""
    kind = arguments["kind"]
    wanted = FAULTS[kind]
    extra = sorted(set(arguments) - {"path", "kind"} - ({wanted[0]} if wanted else set()))
    if extra:
        raise ValueError(f"{kind} has no {extra[0]}")
    if wanted and wanted[0] not in arguments:
        raise ValueError(f"{kind} needs {wanted[0]}")
