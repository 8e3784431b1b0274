"""Verdicts: what each kind of trouble makes of a GPU, and that what is in order makes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gpudaemon.discovery.scan import scan
from gpudaemon.metrics import gpu, gpu_parts, hwmon, pcie
from gpudaemon.mock import build
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.health import REASONS, STATES, Finding, Report, Severity, Verdict, worst
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Block, Samples
from gpudaemon.pipeline.health import Health, Standing, labels_of
from gpudaemon.pipeline.plan import facts_needed, make_plan

ID, PORT, UPSTREAM, ROOT = "0000:03:00.0", "0000:02:00.0", "0000:01:00.0", "0000:00:01.1"
GPU = Device(
    id=ID,
    kind=DeviceKind.GPU,
    path=f"devices/pci0000:00/{ROOT}/{UPSTREAM}/{PORT}/{ID}",
    driver="amdgpu",
    nodes=("card0", "renderD128"),
    parents=(PORT, UPSTREAM, ROOT),
)
WELL = Standing(state=Outcome.OK)
Values = dict[tuple[Metric, tuple[str, ...]], float | None]


def part(device: str, values: Values, errors: Mapping[tuple[str, str], float] | None = None) -> Samples:
    """A device's share of a snapshot; labels are those after `device`."""
    by_metric: dict[Metric, list[tuple[str, int]]] = {}
    for place, (metric, labels) in enumerate(values):
        by_metric.setdefault(metric, []).append((Series(metric, (device, *labels)).prefix(), place))
    blocks = {
        metric: Block(tuple(prefix for prefix, _ in found), tuple(place for _, place in found))
        for metric, found in by_metric.items()
    }
    rows = tuple(
        (Series(pcie.AER_ERRORS, (device, severity, kind)).prefix(), count)
        for (severity, kind), count in (errors or {}).items()
    )
    return Samples(device, blocks, tuple(values.values()), {pcie.AER_ERRORS: rows})


def link(width: float | None, best: float | None, speed: float = 32e9, top: float = 32e9) -> Values:
    return {
        (pcie.LINK_WIDTH, ()): width,
        (pcie.LINK_MAX_WIDTH, ()): best,
        (pcie.LINK_TRANSFERS, ()): speed,
        (pcie.LINK_MAX_TRANSFERS, ()): top,
    }


def reasons(verdict: Verdict) -> list[str]:
    return [finding.reason for finding in verdict.findings]


def judge(
    values: Values, *, errors: Mapping[tuple[str, str], float] | None = None, standing: Standing = WELL
) -> Verdict:
    return Health().of(GPU, standing, part(ID, values, errors), now=0.0)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (WELL, None),
        (Standing(state=Outcome.SUSPENDED), None),
        (Standing(state=Outcome.RESTING), None),
        (Standing(state=Outcome.HUNG, stuck="gpu_metrics", stuck_for=9.9), "slow"),
        (Standing(state=Outcome.HUNG, stuck="gpu_metrics", stuck_for=10.0), "hung"),
        (Standing(state=Outcome.STALE, stuck="gpu_metrics", stuck_for=60.0), "hung"),
        (Standing(state=Outcome.GONE), "gone"),
        (Standing(state=Outcome.DENIED), "denied"),
        (Standing(state=Outcome.PAUSED), "paused"),
        (Standing(state=Outcome.STALE), "stale"),
        (Standing(state=Outcome.STALE, answered=False), "starting"),
        (Standing(state=Outcome.OK, wedged="rebind,bus-reset"), "wedged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_how_the_daemon_stands_with_it(standing: Standing, reason: str | None) -> None:
    assert reasons(Health().of(GPU, standing, None, now=0.0)) == ([reason] if reason else [])


def test_a_hang_says_where_and_how_long() -> None:
    verdict = judge({}, standing=Standing(state=Outcome.HUNG, stuck="gpu_busy_percent", stuck_for=12.3))
    assert verdict.severity is Severity.FAILED
    assert verdict.findings[0].text == "gpu_busy_percent has not answered for 12 s"


@pytest.mark.parametrize(
    ("pci_class", "had", "nodes", "driver", "reason"),
    [
        (0x120000, "", (), "", "unbound"),
        (0x030200, "", (), "", "unbound"),
        (0x038000, "", (), "", "unbound"),
        (None, "", ("card0",), "", "unbound"),
        (0x030000, "", (), "", "unused"),  # a server's management controller
        (0x030000, "amdgpu", (), "", "unbound"),  # once learnt with a driver
        (0x030000, "amdgpu", (), "vfio-pci", None),  # given to a guest
        (None, "", (), "xe", "no_node"),
        (None, "", (), "nvidia", None),  # makes none without nvidia-drm
        (None, "", ("card0",), "xe", None),
    ],
)
def test_its_driver(
    pci_class: int | None, had: str, nodes: tuple[str, ...], driver: str, reason: str | None
) -> None:
    device = Device(id=ID, kind=DeviceKind.GPU, path=GPU.path, driver=driver, nodes=nodes, pci_class=pci_class)
    verdict = Health().of(device, Standing(state=Outcome.OK, had_driver=had), None, now=0.0)
    assert reasons(verdict) == ([reason] if reason else [])


def test_ras_errors_and_bad_pages() -> None:
    counts: Values = {
        (gpu.RAS_ERRORS, ("umc", "corrected")): 70.0,
        (gpu.RAS_ERRORS, ("umc", "uncorrected")): 0.0,
        (gpu.RAS_ERRORS, ("gfx", "uncorrected")): None,
        (gpu.RAS_ERRORS, ("umc", "deferred")): 3.0,
        (gpu.RAS_BAD_PAGES, ("reserved",)): 12.0,
        (gpu.RAS_BAD_PAGES, ("pending",)): 0.0,
        (gpu.RAS_BAD_PAGES, ("failed",)): 0.0,
    }
    assert judge(counts).findings == ()
    worse = counts | {(gpu.RAS_ERRORS, ("umc", "uncorrected")): 2.0}
    assert judge(worse).findings == (Finding("ras_uncorrected", "2 uncorrected errors in umc"),)
    assert judge(worse).severity is Severity.FAILED
    pending = judge(counts | {(gpu.RAS_BAD_PAGES, ("pending",)): 1.0})
    assert (reasons(pending), pending.severity) == (["pages_pending"], Severity.DEGRADED)
    failed = judge(counts | {(gpu.RAS_BAD_PAGES, ("failed",)): 1.0})
    assert (reasons(failed), failed.severity) == (["pages_unreservable"], Severity.FAILED)


@pytest.mark.parametrize(
    ("celsius", "found"),
    [
        (None, []),
        (109.0, []),
        (110.0, ["temperature_critical"]),
        (115.0, ["temperature_emergency", "temperature_critical"]),
    ],
)
def test_heat(celsius: float | None, found: list[str]) -> None:
    values: Values = {
        (gpu.TEMPERATURE, ("junction",)): celsius,
        (gpu.TEMPERATURE, ("mem",)): 90.0,
        (gpu.TEMPERATURE_LIMIT, ("junction", "crit")): 110.0,
        (gpu.TEMPERATURE_LIMIT, ("junction", "crit_hyst")): 40.0,
        (gpu.TEMPERATURE_LIMIT, ("junction", "emergency")): 115.0,
        (gpu.TEMPERATURE_LIMIT, ("mem", "crit")): 0.0,  # a firmware that does not say
        (gpu.TEMPERATURE_LIMIT, ("edge", "crit")): 1.0,
    }
    assert reasons(judge(values)) == found


@pytest.mark.parametrize(
    ("channel", "alarm", "reason"),
    [
        ("fan1", "alarm", "fan"),
        ("fan2", "fault", "fan"),
        ("temp1", "fault", "sensor"),
        ("temp1", "crit_alarm", "thermal_alarm"),
        ("temp3", "emergency_alarm", "thermal_alarm"),
        ("in0", "lcrit_alarm", "voltage_alarm"),
        ("temp1", "max_alarm", None),
        ("power1", "cap_alarm", None),
        ("curr1", "max_alarm", None),
    ],
)
def test_alarms_of_its_chip(channel: str, alarm: str, reason: str | None) -> None:
    for value in (0.0, 1.0):
        series: Values = {(hwmon.ALARM, ("amdgpu", channel, "a {0} b", alarm)): value}
        verdict = judge(series)
        assert reasons(verdict) == ([reason] if reason and value else [])
        if verdict.findings:
            assert verdict.findings[0].text == f"a {{0}} b: {alarm}"


def test_pcie_errors_of_its_own() -> None:
    assert judge({}, errors={("corrected", "BadTLP"): 900.0, ("fatal", "DLP"): 0.0}).findings == ()
    assert judge({}, errors={("nonfatal", "UnsupReq"): 4.0}).findings == ()
    fatal = judge({}, errors={("fatal", "SDES"): 1.0, ("fatal", "DLP"): 2.0})
    assert fatal.findings == (Finding("aer_fatal", "fatal PCIe errors: SDES 1, DLP 2"),)
    assert fatal.severity is Severity.FAILED
    nonfatal = judge({}, errors={("nonfatal", "CmpltTO"): 4.0})
    assert (reasons(nonfatal), nonfatal.severity) == (["aer_nonfatal"], Severity.DEGRADED)


def chain(*links: Values, errors: Mapping[tuple[str, str], float] | None = None) -> list[Samples | None]:
    """GPU first; errors are those of the port right above it."""
    ids = (ID, PORT, UPSTREAM, ROOT)
    return [part(id_, values, errors if id_ == PORT else None) for id_, values in zip(ids, links, strict=True)]


def along(functions: Sequence[Samples | None], health: Health | None = None, now: float = 0.0) -> Verdict:
    return (health or Health()).of(GPU, WELL, functions[0], above=functions[1:], now=now)


def test_pcie_errors_of_a_port_above() -> None:
    found = along(chain({}, {}, {}, {}, errors={("fatal", "SDES"): 1.0}))
    assert found.findings == (Finding("port_aer", f"fatal PCIe errors of {PORT}: SDES 1"),)
    assert found.severity is Severity.DEGRADED


@pytest.mark.parametrize(
    ("links", "text"),
    [
        ([(16, 16), (16, 16), (16, 16), (16, 16)], None),
        ([(16, 16), (16, 16), (8, 16), (8, 16)], f"link of {ROOT}: x8 of x16"),
        ([(8, 16), (8, 16), (16, 16), (16, 16)], f"link of {PORT}: x8 of x16"),
        ([(16, 16), (16, 16), (8, 8), (8, 16)], None),  # the card has no more
        ([(16, 16), (16, 16), (8, 16), (8, 8)], None),  # the slot has no more
        ([(1, 1), (16, 16), (16, 16), (16, 16)], None),  # an Arc card behind its own switch
        ([(16, 16), (8, 16), (16, 16), (16, 16)], None),  # the lower end knows
        ([(None, 16), (8, 16), (16, 16), (16, 16)], f"link of {PORT}: x8 of x16"),
        ([(8, None), (8, 16), (16, 16), (16, 16)], None),
        ([(8, 16), (8, None), (16, 16), (16, 16)], None),
    ],
)
def test_width_of_each_link(links: list[tuple[float | None, float | None]], text: str | None) -> None:
    found = along(chain(*(link(*ends) for ends in links)))
    assert found.findings == ((Finding("link_width", text),) if text else ())


def test_a_bridge_that_is_not_known_says_nothing_about_its_link() -> None:
    functions = chain(*(link(8, 16),) * 4)
    functions[1] = None
    assert [finding.text for finding in along(functions).findings] == [f"link of {ROOT}: x8 of x16"]
    assert along(functions[:1]).findings == ()


def test_a_slow_link_counts_under_load_that_lasts_only() -> None:
    def functions(busy: float) -> list[Samples | None]:
        slow = link(16, 16, speed=2.5e9)
        return chain(slow | {(gpu.BUSY, ("gfx",)): busy}, slow, link(16, 16), link(16, 16))

    health = Health()
    busy, idle = functions(0.9), functions(0.1)
    for now in (0.0, 60.0, 119.0):
        assert along(busy, health, now).findings == ()
    assert [finding.text for finding in along(busy, health, 121.0).findings] == [
        f"link of {PORT}: 2.5 of 32 GT/s under load"
    ]
    assert along(idle, health, 122.0).findings == ()
    assert along(busy, health, 123.0).findings == ()  # counted from here
    assert reasons(along(busy, health, 180.0)) == []
    assert reasons(along(busy, health, 300.0)) == []  # nobody looked for two minutes: from here again


def test_a_plan_made_anew_is_looked_up_anew() -> None:
    health = Health()
    first = part(ID, {(gpu.TEMPERATURE, ("a",)): 1.0, (gpu.RAS_ERRORS, ("umc", "uncorrected")): 1.0})
    assert reasons(health.of(GPU, WELL, first, now=0.0)) == ["ras_uncorrected"]
    second = part(ID, {(gpu.RAS_ERRORS, ("umc", "uncorrected")): 0.0, (gpu.TEMPERATURE, ("a",)): 1.0})
    assert reasons(health.of(GPU, WELL, second, now=1.0)) == []


def test_error_rows_that_change_are_seen() -> None:
    health = Health()
    plan = part(ID, {})
    for errors, found in (({}, []), ({("fatal", "DLP"): 1.0}, ["aer_fatal"]), ({}, [])):
        now = Samples(ID, plan.blocks, plan.values, part(ID, {}, errors).rows)
        assert reasons(health.of(GPU, WELL, now, now=0.0)) == found


def test_labels_come_back_as_they_were() -> None:
    values = (ID, 'um"c\\', "a\nb, {x=1}")
    assert labels_of(Series(gpu.RAS_ERRORS, values).prefix()) == dict(
        zip(gpu.RAS_ERRORS.labels, values, strict=True)
    )


def read(sysfs: Path, device: Device) -> Samples:
    """A device as a daemon would know it after one reading of its files."""

    def content(name: str) -> bytes | None:
        try:
            return (sysfs / device.path / name).read_bytes()
        except OSError:
            return None

    plan = make_plan(device, {name: content(name) for name in facts_needed(device)})
    values = list(plan.initial)
    rows: dict[Metric, list[tuple[str, float]]] = {}
    for file in plan.files:
        raw = content(file.path)
        if raw is None:
            continue
        if file.decode is not None:
            values[file.first : file.first + file.count] = file.decode(raw)
        if file.rows is not None:
            for metric, labels, value in file.rows(raw):
                rows.setdefault(metric, []).append((Series(metric, labels).prefix(), value))
    return Samples(
        device.id, plan.blocks, tuple(values), {metric: tuple(found) for metric, found in rows.items()}
    )


@pytest.mark.parametrize("profile", ["mi300x8", "mixed", "rx7900xtx"])
def test_hosts_that_are_well_are_said_to_be(profile: str, tmp_path: Path) -> None:
    build(profile, str(tmp_path))
    devices = scan(str(tmp_path / "sys"))
    parts = {device.id: read(tmp_path / "sys", device) for device in devices}
    health = Health()
    gpus = [device for device in devices if device.kind is DeviceKind.GPU]
    assert gpus
    for device in gpus:
        above = [parts.get(parent) for parent in device.parents]
        assert health.of(device, WELL, parts[device.id], above=above, now=0.0).findings == ()


def test_a_host_whose_files_say_so_is_not(tmp_path: Path) -> None:
    build("mi300x8", str(tmp_path))
    sysfs = tmp_path / "sys"
    device = next(device for device in scan(str(sysfs)) if device.kind is DeviceKind.GPU)
    here = sysfs / device.path
    (here / "ras/umc_err_count").write_text("ue: 3\nce: 0\nde: 0\n")
    (here.parent / "current_link_width").write_text("8\n")
    (here / "current_link_width").write_text("8\n")
    fatal = (here / "aer_dev_fatal").read_text()
    (here / "aer_dev_fatal").write_text(fatal.replace("CmpltTO 0", "CmpltTO 2"))
    parts = {one.id: read(sysfs, one) for one in scan(str(sysfs))}
    above = [parts.get(parent) for parent in device.parents]
    verdict = Health().of(device, WELL, parts[device.id], above=above, now=0.0)
    assert sorted(reasons(verdict)) == ["aer_fatal", "link_width", "ras_uncorrected"]
    assert verdict.name


def test_the_worst_of_all_counts() -> None:
    ok, degraded, failed, unknown = Severity
    assert worst([]) is ok
    assert worst([ok, degraded]) is degraded
    assert worst([degraded, unknown]) is unknown
    assert worst([unknown, failed, ok]) is failed
    report = Report(verdicts=(Verdict(device=ID),), host=(Finding("too_few", ""),))
    assert report.severity is failed
    assert STATES == ("ok", "degraded", "failed", "unknown")
    assert all(reason.meaning and reason.ends for reason in REASONS.values())


@pytest.mark.parametrize(
    ("series", "value", "reason"),
    [
        ((gpu_parts.STATUS, ("needs reset",)), 1.0, "not_operational"),
        ((gpu_parts.STATUS, ("disabled",)), 1.0, "not_operational"),
        ((gpu_parts.STATUS, ("in reset",)), 1.0, None),
        ((gpu_parts.STATUS, ("operational",)), 1.0, None),
        ((gpu_parts.STATUS, ("disabled",)), 0.0, None),
        ((gpu_parts.HEALTH_INDICATOR, ("critical",)), 1.0, "firmware_critical"),
        ((gpu_parts.HEALTH_INDICATOR, ("warning",)), 1.0, "firmware_warning"),
        ((gpu_parts.HEALTH_INDICATOR, ("ok",)), 1.0, None),
        ((gpu_parts.HEALTH_INDICATOR, ("critical",)), None, None),
        ((gpu_parts.SURVIVABILITY_INFO, ("Boot", "", "", "", "")), 1.0, "survivability"),
        ((gpu_parts.LINK_DOWNGRADED, ()), 1.0, "link_downgraded"),
        ((gpu_parts.LINK_DOWNGRADED, ()), 0.0, None),
    ],
)
def test_what_driver_and_firmware_say(
    series: tuple[Metric, tuple[str, ...]], value: float | None, reason: str | None
) -> None:
    assert reasons(judge({series: value})) == ([] if reason is None else [reason])
