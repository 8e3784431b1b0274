"""Captures and the pages the daemon makes of them; docs/capture.md says how one is added."""

import difflib
from pathlib import Path

import pytest

from tests.captures_replay import page_of_capture

pytestmark = pytest.mark.live

CAPTURES = sorted(path.parent for path in Path(__file__).parents[1].glob("captures/*/capture.tar.gz"))


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
def test_the_page_of_a_capture_is_the_one_that_was_reviewed(capture: Path) -> None:
    expected = (capture / "page.prom").read_text()
    found = page_of_capture(str(capture / "capture.tar.gz"))
    difference = list(difflib.unified_diff(expected.splitlines(), found.splitlines(), lineterm="", n=0))
    assert difference == [], f"read it, then: python -m tests.captures_replay {capture}/capture.tar.gz"


def test_each_capture_says_where_it_comes_from() -> None:
    assert [path.name for path in CAPTURES if not (path / "SOURCE").read_text().strip()] == []
    assert CAPTURES
