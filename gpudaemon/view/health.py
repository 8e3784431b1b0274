"""A report of verdicts for a scheduler, a monitor or a person, and back from what a daemon answered. Pure.

The first line is at most 80 characters, as node-problem-detector's custom plugins keep no more by default. It
begins with the verdict and names the worst device.

Exit status: 0 fit for work, 1 not, 2 nobody can say. Degraded is fit for work unless `strict`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gpudaemon.errors import Malformed
from gpudaemon.model.health import REASONS, Finding, Report, Severity, Verdict, worst
from gpudaemon.view.text import printable

__all__ = ["as_json", "as_text", "exit_status", "expecting", "from_json", "no_answer", "only"]

LINE = 80
_SHORT = re.compile(r"[0-9a-f]{2}:[01]?[0-9a-f]\.[0-7]")
_MOST = 4096


def only(report: Report, asked: str) -> Report:
    """The part of `report` about one GPU.

    asked: a PCI address with or without its domain, `cardN`, `renderDN`, `accelN`, or another id; a path such
    as `/dev/dri/renderD128` works as well. What nobody knows is not fit for work.
    """
    wanted = asked.strip()
    node = wanted.rsplit("/", 1)[-1]
    low = wanted.lower()
    ids = {wanted, low, f"0000:{low}" if _SHORT.fullmatch(low) else low}
    found = [verdict for verdict in report.verdicts if verdict.device in ids]
    found = found or [verdict for verdict in report.verdicts if node in verdict.nodes]
    if not found:
        missing = Finding("no_such_device", "neither here nor known")
        found = [Verdict(device=wanted, present=False, findings=(missing,))]
    return Report(verdicts=tuple(found))


def expecting(report: Report, count: int) -> Report:
    """`report`, with a finding where fewer than `count` GPUs are here."""
    here = sum(verdict.present for verdict in report.verdicts)
    if here >= count:
        return report
    return Report(
        verdicts=report.verdicts,
        host=(*report.host, Finding("too_few", f"{here} of {count} GPUs are here")),
    )


def no_answer(why: str) -> Report:
    """The report of a host that could not be looked at."""
    return Report(host=(Finding("no_answer", why),))


def exit_status(report: Report, *, strict: bool = False) -> int:
    """0, 1 or 2; see the module."""
    severity = report.severity
    if severity is Severity.UNKNOWN:
        return 2
    return int(severity is Severity.FAILED or (strict and severity is Severity.DEGRADED))


def as_text(report: Report) -> str:
    """One line for programs, then one for each finding; control characters of hostile names are escaped."""
    lines = [_first_line(report)]
    for finding in report.host:
        lines.append(f"host {finding.severity.value} {finding.reason}: {finding.text}")
    for verdict in report.verdicts:
        name = f" ({verdict.name})" if verdict.name else ""
        for finding in verdict.findings:
            lines.append(f"{verdict.device} {finding.severity.value} {finding.reason}: {finding.text}{name}")
    return "\n".join(printable(line) for line in lines)


def as_json(report: Report) -> dict[str, Any]:
    """The report as an object; `from_json` understands it."""
    return {
        "verdict": report.severity.value,
        "summary": _first_line(report),
        "host": [_finding(finding) for finding in report.host],
        "devices": [
            {
                "device": verdict.device,
                "verdict": verdict.severity.value,
                "present": verdict.present,
                "nodes": list(verdict.nodes),
                "name": verdict.name or None,
                "findings": [_finding(finding) for finding in verdict.findings],
            }
            for verdict in report.verdicts
        ],
    }


def from_json(content: object) -> Report:
    """What `as_json` gave. Raises Malformed for anything else, such as the answer of another version."""
    try:
        return Report(
            verdicts=tuple(_verdict(one) for one in _some(content, "devices")),
            host=tuple(_findings(_some(content, "host"))),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise Malformed("format") from error


def _some(content: Any, key: str) -> list[Any]:
    found = content[key]
    if not isinstance(found, list) or len(found) > _MOST:
        raise TypeError(key)
    return found


def _verdict(content: Mapping[str, Any]) -> Verdict:
    return Verdict(
        device=str(content["device"]),
        nodes=tuple(str(node) for node in _some(content, "nodes")),
        name=str(content["name"] or ""),
        present=bool(content["present"]),
        findings=tuple(_findings(_some(content, "findings"))),
    )


def _findings(content: Iterable[Mapping[str, Any]]) -> Iterable[Finding]:
    for one in content:
        if one["reason"] not in REASONS:
            raise KeyError(one["reason"])
        yield Finding(str(one["reason"]), str(one["text"]))


def _finding(finding: Finding) -> dict[str, str]:
    return {"severity": finding.severity.value, "reason": finding.reason, "text": finding.text}


def _first_line(report: Report) -> str:
    """`FAILED 0000:03:00.0 missing: not here, serial 4711; 2 more`, at most `LINE` characters."""
    severity = report.severity
    if severity is Severity.OK:
        count = len(report.verdicts)
        return f"OK {count} GPU{'' if count == 1 else 's'}"
    found = [(finding.severity, f"{finding.reason}: {finding.text}") for finding in report.host]
    for verdict in report.verdicts:
        if verdict.findings:
            chief = next(one for one in verdict.findings if one.severity is verdict.severity)
            found.append((verdict.severity, f"{verdict.device} {chief.reason}: {chief.text}"))
    text = next(text for bad, text in found if bad is worst(bad for bad, _ in found))
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    line = printable(f"{severity.value.upper()} {text}")
    room = LINE - len(more)
    return (line if len(line) <= room else line[: room - 3] + "...") + more
