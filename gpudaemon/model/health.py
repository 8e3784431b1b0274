"""Verdicts: whether a GPU is fit for work, and why not. Data only; `pipeline.health` makes them.

What fails and what degrades is chosen for whoever starts jobs: failed is where a job would not run, hang or may
compute nonsense, so a scheduler should drain the node; degraded is where it runs, but slower, hotter or nearer
to a failure than it should, so somebody should look. Unknown is neither: there is nothing to judge by.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["REASONS", "STATES", "Finding", "Reason", "Report", "Severity", "Verdict", "worst"]


class Severity(enum.Enum):
    """The value is the label value of `gpudaemon_device_health`."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


STATES = tuple(severity.value for severity in Severity)
"""Words of the state set, in the order of exposition."""
_RANK = (Severity.OK, Severity.DEGRADED, Severity.UNKNOWN, Severity.FAILED)


def worst(severities: Iterable[Severity]) -> Severity:
    """What a whole of these is: failed before unknown before degraded; ok where there are none."""
    return max(severities, key=_RANK.index, default=Severity.OK)


@dataclass(frozen=True, slots=True)
class Reason:
    """A kind of finding: the machine-readable word is its key in `REASONS`."""

    severity: Severity
    meaning: str
    ends: str


_F, _D, _U = Severity.FAILED, Severity.DEGRADED, Severity.UNKNOWN

REASONS: dict[str, Reason] = {
    "missing": Reason(_F, "it should be here and is not", "it returns, or is forgotten"),
    "gone": Reason(_F, "its driver says it is no more (ENODEV, ENXIO)", "it is read again"),
    "hung": Reason(_F, "a read of it has not come back for 10 s", "the read comes back"),
    "slow": Reason(_D, "a read of it has not come back, for less than 10 s", "the read comes back"),
    "wedged": Reason(_F, "its driver gave it up and asks for recovery (WEDGED uevent)", "it is bound again"),
    "unbound": Reason(_F, "no driver is bound to it", "a driver is bound"),
    "unused": Reason(_D, "a display controller to which no driver was ever seen bound", "a driver is bound"),
    "no_node": Reason(_F, "its driver is bound but made no DRM or accel node", "the node appears"),
    "survivability": Reason(
        _F, "its driver runs it only to have its firmware repaired", "it is flashed and powered off and on"
    ),
    "not_operational": Reason(_F, "its driver says it is disabled or needs a reset", "it is reset"),
    "firmware_critical": Reason(_F, "its own firmware calls it critical", "the firmware says otherwise"),
    "firmware_warning": Reason(_D, "its own firmware warns", "the firmware says otherwise"),
    "ras_uncorrected": Reason(
        _F, "uncorrected errors since its driver was loaded", "the driver is loaded anew"
    ),
    "pages_unreservable": Reason(_F, "bad memory pages that could not be taken out of use", "the GPU is reset"),
    "pages_pending": Reason(_D, "bad memory pages still in use until the GPU is reset", "the GPU is reset"),
    "aer_fatal": Reason(_F, "fatal PCIe errors of its own", "it is enumerated anew (reboot)"),
    "aer_nonfatal": Reason(_D, "nonfatal uncorrected PCIe errors of its own", "it is enumerated anew (reboot)"),
    "port_aer": Reason(
        _D, "uncorrected PCIe errors of a port above it", "the port is enumerated anew (reboot)"
    ),
    "link_width": Reason(
        _D, "a link above it uses fewer lanes than both its ends have", "the link is retrained"
    ),
    "link_speed": Reason(
        _D, "busy for two minutes on a link slower than both its ends can do", "the link is retrained"
    ),
    "link_downgraded": Reason(
        _D, "it fell back to a slower PCIe generation: the link was not stable", "the link is retrained"
    ),
    "temperature_emergency": Reason(_F, "at or above its emergency limit: it shuts down", "it cools down"),
    "temperature_critical": Reason(_D, "at or above its critical limit: it throttles", "it cools down"),
    "thermal_alarm": Reason(_D, "its hwmon chip signals critical or emergency temperature", "the alarm ends"),
    "fan": Reason(_D, "its hwmon chip signals a fan alarm or fault", "the alarm ends"),
    "sensor": Reason(_D, "its hwmon chip signals a broken sensor", "the fault ends"),
    "voltage_alarm": Reason(_D, "its hwmon chip signals a critical voltage", "the alarm ends"),
    "stale": Reason(_U, "no fresh data", "it is read again"),
    "starting": Reason(_U, "not read yet", "it is read"),
    "denied": Reason(_U, "its power state may not be read", "the reader gets the right"),
    "paused": Reason(_U, "sampling is paused", "it is resumed"),
    "too_few": Reason(_F, "fewer GPUs are here than --expect says", "they are"),
    "no_such_device": Reason(_F, "the device asked for is neither here nor known", "it is"),
    "inventory_not_kept": Reason(_D, "GPUs are not remembered across restarts", "path.state is writable"),
    "no_answer": Reason(_U, "nobody could say", "a daemon runs, or the host can be looked at"),
}
"""Every reason there is; docs/health.md shows this table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. reason: a key of `REASONS`; text: one short line."""

    reason: str
    text: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return REASONS[self.reason].severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is thought of one GPU. name: what people call it, empty where that is not known."""

    device: str
    nodes: tuple[str, ...] = ()
    name: str = ""
    present: bool = True
    findings: tuple[Finding, ...] = ()

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return worst(finding.severity for finding in self.findings) if self.findings else Severity.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All GPUs of a host, sorted by id, missing ones included, and what concerns the host as a whole."""

    verdicts: tuple[Verdict, ...] = ()
    host: tuple[Finding, ...] = field(default=())

    @property
    def severity(self) -> Severity:
        """The worst of all."""
        return worst(
            [*(verdict.severity for verdict in self.verdicts), *(finding.severity for finding in self.host)]
        )
