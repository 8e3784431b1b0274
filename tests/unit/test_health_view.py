"""What a prolog, a monitor and a person are told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.model.health import REASONS, Finding, Report, Severity, Verdict
from gpudaemon.view.health import as_json, as_text, exit_status, expecting, from_json, no_answer, only

WELL = Verdict(device="0000:03:00.0", nodes=("card0", "renderD128"), name="MI300X")
HOT = Verdict(
    device="0000:23:00.0",
    nodes=("card1", "renderD129"),
    findings=(Finding("temperature_critical", "junction 111 C, limit 110 C"),),
)
STALE = Verdict(device="0000:43:00.0", findings=(Finding("stale", "no fresh data"),))
LOST = Verdict(
    device="0000:63:00.0", name="MI300X", present=False, findings=(Finding("missing", "not here, serial 7"),)
)


def report(*verdicts: Verdict) -> Report:
    return Report(verdicts=verdicts)


@pytest.mark.parametrize(
    ("verdicts", "status", "strict", "line"),
    [
        ((), 0, 0, "OK 0 GPUs"),
        ((WELL,), 0, 0, "OK 1 GPU"),
        ((WELL, WELL), 0, 0, "OK 2 GPUs"),
        ((WELL, HOT), 0, 1, "DEGRADED 0000:23:00.0 temperature_critical: junction 111 C, limit 110 C"),
        ((HOT, STALE), 2, 2, "UNKNOWN 0000:43:00.0 stale: no fresh data; 1 more"),
        ((HOT, STALE, LOST), 1, 1, "FAILED 0000:63:00.0 missing: not here, serial 7; 2 more"),
    ],
)
def test_status_and_first_line(verdicts: tuple[Verdict, ...], status: int, strict: int, line: str) -> None:
    found = report(*verdicts)
    assert exit_status(found) == status
    assert exit_status(found, strict=True) == strict
    assert as_text(found).split("\n")[0] == line


def test_a_line_for_each_finding() -> None:
    assert as_text(report(WELL, HOT, LOST)).split("\n")[1:] == [
        "0000:23:00.0 degraded temperature_critical: junction 111 C, limit 110 C",
        "0000:63:00.0 failed missing: not here, serial 7 (MI300X)",
    ]


def test_the_chief_finding_of_a_device_is_told_first() -> None:
    both = Verdict(
        device="0000:03:00.0", findings=(*HOT.findings, Finding("ras_uncorrected", "2 uncorrected errors"))
    )
    assert as_text(report(both)).startswith("FAILED 0000:03:00.0 ras_uncorrected: 2 uncorrected errors\n")


@pytest.mark.parametrize(
    "asked", ["0000:23:00.0", "23:00.0", "0000:23:00.0 ", "card1", "renderD129", "/dev/dri/renderD129"]
)
def test_a_device_by_any_of_its_names(asked: str) -> None:
    assert only(report(WELL, HOT), asked).verdicts == (HOT,)


def test_the_name_of_a_missing_device_is_its_address() -> None:
    assert exit_status(only(report(WELL, LOST), "63:00.0")) == 1
    assert exit_status(only(report(WELL, LOST), "card0")) == 0


@pytest.mark.parametrize("asked", ["card7", "ff:00.0", "", "card", "3:00.0"])
def test_what_nobody_knows_is_not_fit(asked: str) -> None:
    found = only(report(WELL, HOT), asked)
    assert exit_status(found) == 1
    assert [finding.reason for verdict in found.verdicts for finding in verdict.findings] == ["no_such_device"]


def test_upper_case_addresses_are_understood() -> None:
    verdict = Verdict(device="0000:af:00.0")
    assert only(report(verdict), "AF:00.0").verdicts == (verdict,)


def test_a_number_to_expect() -> None:
    assert expecting(report(WELL, HOT), 2).host == ()
    short = expecting(report(WELL, LOST), 2)
    assert exit_status(short) == 1
    assert as_text(short).split("\n")[0] == "FAILED too_few: 1 of 2 GPUs are here; 1 more"


def test_nobody_could_say() -> None:
    found = no_answer("no daemon and no right")
    assert exit_status(found) == 2
    assert as_text(found).split("\n")[0] == "UNKNOWN no_answer: no daemon and no right"


FINDINGS = st.builds(Finding, st.sampled_from(sorted(REASONS)), st.text())
VERDICTS = st.builds(
    Verdict,
    device=st.text(min_size=1),
    nodes=st.lists(st.text()).map(tuple),
    name=st.text(),
    present=st.booleans(),
    findings=st.lists(FINDINGS, max_size=3).map(tuple),
)
REPORTS = st.builds(
    Report, verdicts=st.lists(VERDICTS, max_size=4).map(tuple), host=st.lists(FINDINGS, max_size=2).map(tuple)
)


@given(REPORTS)
def test_a_report_comes_back_from_json(found: Report) -> None:
    assert from_json(json.loads(json.dumps(as_json(found)))) == found


@given(REPORTS)
def test_the_first_line_is_short_and_one_line_whatever_is_in_it(found: Report) -> None:
    lines = as_text(found).split("\n")
    assert len(lines[0]) <= 80
    assert lines[0].split(" ")[0] == found.severity.value.upper()
    findings = len(found.host) + sum(len(verdict.findings) for verdict in found.verdicts)
    assert len(lines) == 1 + findings
    assert all(line.isprintable() for line in lines)
    assert exit_status(found) in (0, 1, 2)
    assert (exit_status(found, strict=True) == 0) == (found.severity is Severity.OK)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["host", "devices", "findings", "nodes", "reason", "device"]), inner
            )
        ),
    )
)
def test_answers_of_others_are_refused(content: object) -> None:
    try:
        found = from_json(content)
    except Malformed:
        return
    assert from_json(as_json(found)) == found


def test_a_reason_of_another_version_is_refused() -> None:
    content = as_json(report(HOT))
    content["devices"][0]["findings"][0]["reason"] = "haunted"
    with pytest.raises(Malformed):
        from_json(content)
