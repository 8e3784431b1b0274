"""Files made from code are fresh, and what the README says of the command line is there."""

import argparse
import os
import re

import pytest

from gpudaemon.cli import _manual, _parser
from gpudaemon.config import options
from gpudaemon.config.text import sample
from gpudaemon.config.text import table as option_table
from gpudaemon.export.provenance import claims, rows
from gpudaemon.export.reference import reference
from gpudaemon.metrics import table
from gpudaemon.model.forbidden import FORBIDDEN
from gpudaemon.model.metric import Metric
from gpudaemon.pipeline.publish import STATES

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN, END = "tests/unit/test_generated.py prints it when it is not fresh -->\n", "<!-- end -->\n"


def read(path: str) -> str:
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def forbidden_table() -> str:
    lines = ["| file | why |", "|---|---|", *(f"| `{pattern}` | {why} |" for pattern, why in FORBIDDEN)]
    return "\n".join(lines) + "\n"


def flags() -> set[str]:
    """Every long option of every command."""
    found: set[str] = set()
    parsers: list[argparse.ArgumentParser] = [_parser()]
    while parsers:
        for action in parsers.pop()._actions:
            found.update(option for option in action.option_strings if option.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                parsers.extend(action.choices.values())
    return found


def test_metrics_reference_is_fresh() -> None:
    fresh = "python -m gpudaemon.cli metrics > docs/metrics.md"
    assert read("docs/metrics.md") == reference(rows(), claims()), f"make it anew: {fresh}"


def test_the_sample_configuration_is_fresh() -> None:
    assert read("config/gpudaemon.toml") == sample(), "make it anew: gpudaemon config --sample"


def test_the_manual_page_is_fresh() -> None:
    assert read("docs/gpudaemon.8") == _manual(), "make it anew: gpudaemon config --manual"


def test_every_option_says_the_same_everywhere() -> None:
    """The README's table, `--help`, the sample and the manual page: one text, from one declaration."""
    readme, said = read("README.md"), help_of("run")
    _, _, rest = readme.partition("<!-- options: ")
    assert rest.partition("-->\n")[2].partition("<!-- end -->\n")[0] == option_table(), (
        "make it anew: gpudaemon config --table"
    )
    sample_text = " ".join(read("config/gpudaemon.toml").replace("\n# ", " ").split())
    manual_text = read("docs/gpudaemon.8").replace("\\-", "-")
    for option in options():
        for place, text in (
            ("README", readme),
            ("--help", said),
            ("sample", sample_text),
            ("manual", manual_text),
        ):
            assert " ".join(option.description.split()) in text, f"{place}: {option.key}"
            assert option.flag in text, f"{place}: {option.flag}"
        assert f"#{option.key.rpartition('.')[2]} = " in sample_text


def help_of(command: str) -> str:
    """What `--help` of a command says, its line breaks taken away."""
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    # Wide enough that no word with a hyphen is broken.
    width = {"COLUMNS": "10000"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in width.items():
            patch.setenv(name, value)
        return " ".join(commands.choices[command].format_help().split())


def test_forbidden_files_are_fresh() -> None:
    _, _, rest = read("docs/devices-left-alone.md").partition(BEGIN)
    assert rest.partition(END)[0] == forbidden_table()


def test_readme_names_flags_that_exist() -> None:
    # Flags of gpudaemon are dotted or are in the table of flags; those of pip and others are neither.
    text = read("README.md")
    named = set(re.findall(r"(--[a-z]+(?:\.[a-z0-9-]+)+)", text))
    named.discard("--read.dedline")  # an example of what is refused
    named.update(re.findall(r"^\| `(--[a-z0-9.-]+)", text, re.MULTILINE))
    assert named, "the README names no flag any more"
    assert named <= flags()


def test_readme_names_every_state() -> None:
    text = read("README.md")
    assert [state for state in STATES if f"`{state}`" not in text] == []


def test_documents_name_metrics_that_exist() -> None:
    known = {name for row in table() if isinstance(row, Metric) for name in (row.name, row.family)}
    for path in ("README.md", "docs/hung-devices.md", "docs/devices-left-alone.md", "docs/design.md"):
        # A name with braces in it (`gpudaemon_gpu_*`) or a prefix of names ends in an underscore.
        for name in re.findall(r"\bgpudaemon_[a-z0-9_]+\b(?![.*/])", read(path)):
            assert name in known or name.endswith("_"), f"{path}: {name}"


def test_links_between_documents_lead_somewhere() -> None:
    names = [f"docs/{name}" for name in os.listdir(os.path.join(TOP, "docs")) if name.endswith(".md")]
    for path in ["README.md", "CONTRIBUTING.md", *names]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(path)):
            assert os.path.exists(os.path.join(TOP, os.path.dirname(path), target)), f"{path}: {target}"
