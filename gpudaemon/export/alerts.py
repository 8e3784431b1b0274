"""Prometheus rules made of the metric table: the alerts and the few recording rules.

What every alert keeps to:

- its labels are `job`, `instance`, `device` and what tells two faults of one device apart; the product's name
  is looked up when the notification is written, so a GPU whose identity is not known alerts all the same, and
  one whose identity becomes known later does not alert anew;
- absent is no fault: a sleeping GPU has no temperature, and none of these fires on it;
- one failed scrape neither fires one nor ends one (`for`, `keep_firing_for`);
- a counter that starts again at zero (driver reloaded, daemon restarted) is no error.

docs/dashboards.md has a section for each, which the annotation `runbook` names.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from gpudaemon.export.promql import EVERYWHERE, KEY, UP, gpus_only, increase, select
from gpudaemon.metrics import daemon, gpu, gpu_links, gpu_parts, pcie, trouble
from gpudaemon.model.metric import Metric

__all__ = ["ALERTS", "RUNBOOK", "Alert", "alerting_rules", "recording_rules"]

RUNBOOK = "docs/dashboards.md"
"""The document with a section for each alert, as it is named in this project."""

_FATAL = ("fatal_error", "poison_consumption")
_SCRAPE_JOBS = (".*gpudaemon.*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert. holds: how long it must be so. keeps: how long it goes on after it is not seen any more."""

    name: str
    expression: str
    holds: str
    severity: str
    summary: str
    description: str
    keeps: str = ""


_PRODUCT = (
    '{{ with printf "'
    + gpu.INFO.name
    + "{job='%s',instance='%s',device='%s'}\" $labels.job $labels.instance $labels.device | query }}"
    + '{{ . | first | label "product_name" }}{{ else }}device{{ end }}'
)
"""Template of the product's name; `device` where there is no identity, as of a bridge."""
_DEVICE = _PRODUCT + " {{ $labels.device }} on {{ $labels.instance }}"


def _degraded(now: Metric, most: Metric) -> str:
    """Links that are worse than both of their ends can do.

    A link is known by the function at its lower end: any that is no bridge, and whatever is right below a
    root port, such as the switch inside many a GPU. Other bridges are left out, for between the two ports of a
    switch there is no link. Functions without a bridge above them (virtual machines) cannot be compared.
    """
    root = f'label_replace({select(pcie.INFO, parent="")}, "parent", "$1", "device", "(.+)")'
    top = f"{select(pcie.INFO)} * on (job, instance, parent) group_left () {root}"
    lower = f"{select(pcie.INFO, not_class=('0x0604.*',), not_parent='')} or {top}"
    upper = f'label_replace({select(most)}, "parent", "$1", "device", "(.+)")'
    can = f"max by ({KEY}) (({lower}) * on (job, instance, parent) group_left () {upper})"
    return f"({select(now)} < on ({KEY}) {select(most)}) < on ({KEY}) {can}"


def _per_device(expression: str, *more: str) -> str:
    return f"max by ({', '.join((KEY, *more))}) ({expression})"


ALERTS = (
    Alert(
        name="GpudaemonDown",
        expression=f"{select(UP, job=_SCRAPE_JOBS)} == 0 or absent({select(UP, job=_SCRAPE_JOBS)})",
        holds="3m",
        severity="critical",
        summary="{{ if $labels.instance }}gpudaemon on {{ $labels.instance }} is not scraped"
        "{{ else }}no gpudaemon is scraped{{ end }}",
        description="Prometheus has had no answer for 3 minutes, or has no target of this job at all. "
        "Nothing is known about the GPUs of this host.",
    ),
    Alert(
        name="GpudaemonReaderUnstable",
        expression=f"{select(daemon.READER_UP)} == 0 or "
        f"sum by (job, instance) ({increase(daemon.READER_RESTARTS, EVERYWHERE, '30m')}) > 2",
        holds="2m",
        severity="warning",
        summary="the reader of gpudaemon on {{ $labels.instance }} does not answer or does not last",
        description="Values age while there is no reader; it has been away for 2 minutes, or was replaced "
        "three times in 30.",
    ),
    Alert(
        name="GpudaemonConfigRejected",
        expression=f"{select(daemon.CONFIG_RELOAD_SUCCESS)} == 0",
        holds="5m",
        severity="warning",
        summary="gpudaemon on {{ $labels.instance }} could not use its configuration",
        description="It goes on with the one before, and a restart would fail. `gpudaemon check` says why.",
    ),
    Alert(
        name="GpudaemonSeriesDropped",
        expression=f"{_per_device(select(daemon.SERIES_DROPPED))} > 0",
        holds="15m",
        severity="warning",
        summary=f"{_DEVICE} has more series than metric.limit allows",
        description="{{ $value }} series are not served, and what watches them is blind.",
    ),
    Alert(
        name="GpuMissing",
        expression=f"{_per_device(select(daemon.DEVICE_MISSING))} == 1",
        holds="2m",
        keeps="5m",
        severity="critical",
        summary=f"{_DEVICE} is missing",
        description="It was here, or is expected here, and is not on its bus.",
    ),
    Alert(
        name="GpuDeviceHung",
        expression=f"{_per_device(select(daemon.DEVICE_STATE, state='hung'))} == 1",
        holds="1m",
        keeps="5m",
        severity="critical",
        summary=f"the driver of {_DEVICE} does not answer",
        description="A read has not come back. The device is quarantined and its values are absent; "
        "it resumes by itself when the driver answers.",
    ),
    Alert(
        name="GpuDeviceSilent",
        expression=_per_device(select(daemon.DEVICE_STATE, state=("stale", "denied", "gone")), "state")
        + " == 1",
        holds="10m",
        severity="warning",
        summary=f"no data of {_DEVICE}: {{{{ $labels.state }}}}",
        description="Neither asleep nor hung, and yet there has been no fresh data for 10 minutes.",
    ),
    Alert(
        name="GpuUncorrectedErrors",
        expression=f"sum by ({KEY}) ({select(gpu.RAS_ERRORS, severity='uncorrected')}) > 0",
        holds="0s",
        keeps="5m",
        severity="critical",
        summary=f"{_DEVICE} has had uncorrected errors",
        description="{{ $value }} uncorrected errors since its driver was loaded: results may be wrong. "
        "Ends with a reset of the GPU or a reload of its driver.",
    ),
    Alert(
        name="GpuBadPages",
        expression=f"{_per_device(select(gpu.RAS_BAD_PAGES, state=('pending', 'failed')), 'state')} > 0",
        holds="10m",
        severity="warning",
        summary=f"{_DEVICE} has {{{{ $value }}}} memory pages {{{{ $labels.state }}}}",
        description="pending: they are still in use until the GPU is reset. failed: the driver could not take "
        "them out of use, and a reset does not help.",
    ),
    Alert(
        name="GpuPcieLinkDegraded",
        expression=_per_device(_degraded(pcie.LINK_WIDTH, pcie.LINK_MAX_WIDTH))
        # An idle GPU slows its link down by itself.
        + f" or {_per_device(_degraded(pcie.LINK_TRANSFERS, pcie.LINK_MAX_TRANSFERS))} "
        + f"and on ({KEY}) {select(gpu.BUSY, engine='gfx')} > 0.5",
        holds="15m",
        severity="warning",
        summary="PCIe link of {{ $labels.device }} on {{ $labels.instance }} is degraded",
        description="Narrower than both ends can do, or slower while the GPU is more than half busy: "
        "{{ $value }} (lanes or transfers a second).",
    ),
    Alert(
        name="GpuPcieErrors",
        # The rule has a label `severity` of its own, which would make one of two.
        expression=f"sum by ({KEY}, error) (label_replace("
        f"{increase(pcie.AER_MESSAGES, EVERYWHERE, '15m', severity=('nonfatal', 'fatal'))}, "
        '"error", "$1", "severity", "(.+)")) > 0',
        holds="0s",
        keeps="15m",
        severity="critical",
        summary="{{ $labels.error }} PCIe errors at {{ $labels.device }} on {{ $labels.instance }}",
        description='{{ $value | printf "%.0f" }} uncorrected error messages in 15 minutes.',
    ),
    Alert(
        name="GpuFatalError",
        expression=f"sum by ({KEY}, event) ({increase(gpu.RAS_EVENTS, EVERYWHERE, '15m', event=_FATAL)}) > 0",
        holds="0s",
        keeps="15m",
        severity="critical",
        summary=f"{_DEVICE}: {{{{ $labels.event }}}}",
        description="Work has met data that could not be corrected, or the whole GPU stopped for it.",
    ),
    Alert(
        name="CxlDeviceErrors",
        # A counter that appears with its first event has no increase; the time of the last is there at once.
        expression=f"time() - max by ({KEY}, error) (label_replace("
        f"{select(trouble.LAST_SEEN, kind='cxl', severity=('uncorrected', 'fatal'))}, "
        '"error", "$1", "severity", "(.+)")) < 900',
        holds="0s",
        keeps="5m",
        severity="critical",
        summary="{{ $labels.error }} errors of the CXL device {{ $labels.device }} on {{ $labels.instance }}",
        description='The last {{ $value | printf "%.0f" }} seconds ago: memory of it may hold wrong data.',
    ),
    Alert(
        name="GpuXgmiLinkDown",
        # A link that was never up is one that is not wired.
        expression=f"{_per_device(select(gpu_links.XGMI_LINK_UP), 'link')} == 0 and on ({KEY}, link) "
        f"max by ({KEY}, link) (max_over_time({select(gpu_links.XGMI_LINK_UP)}[1d])) == 1",
        holds="5m",
        severity="critical",
        summary=f"{_DEVICE}: xGMI link {{{{ $labels.link }}}} is down",
        description="It was up within the last day. Jobs over several GPUs lose that way, or fail.",
    ),
    Alert(
        name="GpuTemperatureCritical",
        expression=_per_device(
            f"{select(gpu.TEMPERATURE)} >= on ({KEY}, sensor) {select(gpu.TEMPERATURE_LIMIT, limit='crit')}",
            "sensor",
        )
        + f" or {_per_device(increase(gpu.TEMPERATURE_ABOVE_CRITICAL, EVERYWHERE, '5m'), 'sensor')} > 30",
        holds="1m",
        keeps="5m",
        severity="critical",
        summary=f"{_DEVICE}: {{{{ $labels.sensor }}}} at its critical limit",
        description="At crit the GPU throttles, at emergency it shuts down.",
    ),
    Alert(
        name="GpuNeedsRepair",
        expression=f"{_per_device(select(gpu_parts.SURVIVABILITY_INFO))} > 0",
        holds="2m",
        keeps="5m",
        severity="critical",
        summary=f"the firmware of {_DEVICE} must be repaired",
        description="The driver runs it in survivability mode: it does no work until its firmware is flashed.",
    ),
    Alert(
        name="GpuNotOperational",
        expression=_per_device(select(gpu_parts.STATUS, state=("disabled", "needs reset")), "state") + " == 1",
        holds="2m",
        keeps="5m",
        severity="critical",
        summary=f"{_DEVICE}: {{{{ $labels.state }}}}",
        description="Its driver says that it cannot be used.",
    ),
    Alert(
        name="GpuFirmwareHealth",
        expression=_per_device(select(gpu_parts.HEALTH_INDICATOR, state=("warning", "critical")), "state")
        + " == 1",
        holds="5m",
        severity="warning",
        summary=f"{_DEVICE}: its firmware says {{{{ $labels.state }}}}",
        description="warning: minor trouble, it works on. critical: it may not work.",
    ),
    Alert(
        name="GpuThermalThrottling",
        expression=f"{_per_device(increase(gpu.THROTTLED_SECONDS, EVERYWHERE, '10m', cause='thermal'))} > 60",
        holds="5m",
        severity="warning",
        summary=f"{_DEVICE} is slowed down by heat",
        description='{{ $value | printf "%.0f" }} of the last 600 seconds.',
    ),
)
"""The alerts, in the order of the file."""


def _recordings() -> list[tuple[str, str]]:
    gpus = gpus_only(select(daemon.DEVICE_STATE), EVERYWHERE)

    def instance(row: Metric, way: str, **labels: str) -> tuple[str, str]:
        return f"instance:{row.name}:{way}", f"{way} by (job, instance) ({select(row, EVERYWHERE, **labels)})"

    return [
        (f"instance_state:{daemon.DEVICE_STATE.name}:sum", f"sum by (job, instance, state) ({gpus})"),
        instance(daemon.DEVICE_MISSING, "sum"),
        instance(gpu.POWER, "sum"),
        instance(gpu.TEMPERATURE, "max"),
        instance(gpu.BUSY, "avg", engine="gfx"),
    ]


def alerting_rules(runbook: str = RUNBOOK) -> str:
    """YAML of the alerts. runbook: address of the document whose sections are
    named like them, where it is published."""
    rules = []
    for alert in ALERTS:
        rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expression, "for": alert.holds}
        if alert.keeps:
            rule["keep_firing_for"] = alert.keeps
        rule["labels"] = {"severity": alert.severity}
        rule["annotations"] = {
            "summary": alert.summary,
            "description": alert.description,
            "runbook": f"{runbook}#{alert.name.lower()}",
        }
        rules.append(rule)
    return _document("Alerts", [{"name": "gpudaemon", "rules": rules}])


def recording_rules() -> str:
    """YAML of the recording rules: one figure a host, for views of many hosts."""
    rules = [{"record": name, "expr": expression} for name, expression in _recordings()]
    return _document("Recording rules", [{"name": "gpudaemon-hosts", "rules": rules}])


def _document(title: str, groups: list[dict[str, Any]]) -> str:
    text = yaml.safe_dump({"groups": groups}, sort_keys=False, width=110, allow_unicode=True)
    return f"# {title}, made from the metric table; do not edit. docs/dashboards.md tells how and why.\n{text}"
