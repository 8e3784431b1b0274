"""What is known of a GPU becomes a verdict. Pure: a snapshot's parts in, findings out; no clock of its own.

Made for every snapshot, so it must cost little: where a device's values stand is settled once for each plan,
the error rows of PCIe are looked at when they change, and what is in order makes no object.

Links are judged pairwise. From the GPU upwards the functions are endpoint, downstream port, upstream port,
downstream or root port, and so on: the first and second share a link, the third and fourth share one, while
second and third are inside a switch, where an AMD card reports a link it does not have. A link should be as
wide as both its ends can be. An idle GPU slows its link down: speed counts only after two minutes of work.

The reasons and their severities are the table in `model.health`; kernel facts are those of `metrics.pcie`,
`metrics.hwmon` and `metrics.gpu`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpudaemon.discovery.inventory import Inventory
from gpudaemon.metrics import gpu, gpu_parts, hwmon, pcie
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.health import Finding, Report, Verdict
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.outcome import Outcome
from gpudaemon.model.snapshot import Block, Samples
from gpudaemon.pipeline.sampler import Entry

__all__ = ["Health", "Standing", "Thresholds", "info_prefix", "infos", "labels_of"]

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_MAKERS_NODES = frozenset({"amdgpu", "i915", "nouveau", "radeon", "xe"})
"""Drivers that make a DRM node for every device they serve; xe in survivability mode makes none."""
_VGA = 0x0300
_NO_ROWS: Mapping[Metric, tuple[tuple[str, float], ...]] = {}
_MOST = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where a reading becomes a finding.

    hung: seconds until a read that has not come back fails its GPU; a reset takes a few.
    busy, busy_seconds: how busy for how long before a slow link counts; look_gap: a longer one begins anew.
    harmless: PCIe errors that say nothing about the hardware: software asked for what is not there.
    """

    hung: float = 10.0
    busy: float = 0.5
    busy_seconds: float = 120.0
    look_gap: float = 65.0
    harmless: frozenset[str] = frozenset({"UnsupReq"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the daemon stands with a device. stuck: the file whose read has not come back; stuck_for: seconds.

    had_driver: a driver was bound to it earlier. wedged: recovery methods its driver asks for.
    """

    state: Outcome
    answered: bool = True
    stuck: str = ""
    stuck_for: float = 0.0
    had_driver: str = ""
    wedged: str = ""


@dataclass(slots=True)
class _Watch:
    """Where the values that matter stand in one device's list; good for one plan.

    counts: (index, reason, text) of what must be zero. hot: (value, limit, reason, sensor).
    link: indexes of width, best width, speed, best speed. busy: of the busy ratios.
    """

    blocks: Mapping[Metric, Block]
    counts: tuple[tuple[int, str, str], ...]
    hot: tuple[tuple[int, int, str, str], ...]
    link: tuple[int, int, int, int]
    busy: tuple[int, ...]
    name: str
    rows: Mapping[Metric, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()


class Health:
    """Keeps, by device, where to look and since when it is busy. Owner: the publisher."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._thresholds = thresholds or Thresholds()
        self._watches: dict[str, _Watch] = {}
        self._busy: dict[str, tuple[float, float]] = {}

    def report(
        self,
        entries: Mapping[str, Entry],
        parts: Mapping[str, Samples],
        inventory: Inventory,
        now: float,
        *,
        wedged: Mapping[str, str] | None = None,
        not_kept: str = "",
    ) -> Report:
        """The whole host. parts: a snapshot's, by device. now: CLOCK_MONOTONIC.

        wedged: recovery methods by device. not_kept: why the inventory does not outlive this run.
        """
        known = inventory.expected.known
        verdicts = []
        for id_, entry in entries.items():
            if entry.device.kind is not DeviceKind.GPU:
                continue
            had = known[id_].driver if id_ in known else ""
            standing = _standing(entry, now, had, (wedged or {}).get(id_, ""))
            above = [parts.get(parent) for parent in entry.device.parents]
            verdicts.append(self.of(entry.device, standing, parts.get(id_), above=above, now=now))
        for id_ in inventory.missing:
            info = known[id_].info if id_ in known else {}
            verdicts.append(_missing(id_, info, inventory.expected.moved.get(id_, "")))
        for id_ in [id_ for id_ in self._busy if id_ not in entries]:
            del self._busy[id_]
        host = (Finding("inventory_not_kept", not_kept),) if not_kept else ()
        return Report(verdicts=tuple(sorted(verdicts, key=lambda verdict: verdict.device)), host=host)

    def of(
        self,
        device: Device,
        standing: Standing,
        part: Samples | None,
        *,
        above: Sequence[Samples | None] = (),
        now: float,
    ) -> Verdict:
        """One GPU. part: its share of a snapshot; above: those of the PCI functions above, nearest first."""
        found: list[Finding] = []
        self._stands(device, standing, found)
        name = ""
        if part is not None:
            watch = self._watch(part)
            name = watch.name
            _values(watch, part.values, found)
            if standing.state is Outcome.OK:
                under_load = self._under_load(device.id, watch, part.values, now)
                self._links(device.parents, (part, *above), under_load, found)
            self._errors(watch, part, above, found)
        return Verdict(device=device.id, nodes=device.nodes, name=name, findings=tuple(found))

    def _stands(self, device: Device, standing: Standing, found: list[Finding]) -> None:
        if not device.driver:
            if standing.had_driver:
                found.append(Finding("unbound", f"no driver bound, was {standing.had_driver}"))
            elif device.pci_class is not None and device.pci_class >> 8 == _VGA:
                found.append(Finding("unused", "display controller without a driver"))
            else:
                found.append(Finding("unbound", "no driver bound"))
        elif device.driver in _MAKERS_NODES and not device.nodes:
            found.append(Finding("no_node", f"{device.driver} made no DRM node"))
        if standing.wedged:
            found.append(Finding("wedged", f"driver asks for recovery: {standing.wedged}"))
        state = standing.state
        if standing.stuck or state is Outcome.HUNG:
            reason = "hung" if standing.stuck_for >= self._thresholds.hung else "slow"
            text = f"{standing.stuck or 'a file'} has not answered for {standing.stuck_for:.0f} s"
            found.append(Finding(reason, text))
        elif state is Outcome.GONE:
            found.append(Finding("gone", "driver says it is gone"))
        elif state is Outcome.DENIED:
            found.append(Finding("denied", "power state may not be read"))
        elif state is Outcome.PAUSED:
            found.append(Finding("paused", "sampling is paused"))
        elif state is Outcome.STALE:
            word = ("stale", "no fresh data") if standing.answered else ("starting", "not read yet")
            found.append(Finding(*word))

    def _watch(self, part: Samples) -> _Watch:
        known = self._watches.get(part.device)
        if known is None or known.blocks is not part.blocks:
            if len(self._watches) >= _MOST:
                self._watches.clear()
            known = self._watches[part.device] = _look_up(part.blocks)
        return known

    def _links(
        self,
        parents: Sequence[str],
        chain: Sequence[Samples | None],
        under_load: bool,
        found: list[Finding],
    ) -> None:
        """Links of the functions of `chain`, the GPU first, then `parents`."""
        for place in range(0, len(chain) - 1, 2):
            child, port = chain[place], chain[place + 1]
            if child is None or port is None:
                continue
            ends = (self._watch(child).link, child.values), (self._watch(port).link, port.values)
            width, best = _of_link(ends, 0)
            if width is not None and best is not None and width < best:
                text = f"link of {parents[place]}: x{width:.0f} of x{best:.0f}"
                found.append(Finding("link_width", text))
            speed, best = _of_link(ends, 2)
            if under_load and speed is not None and best is not None and speed < best:
                text = f"link of {parents[place]}: {speed / 1e9:g} of {best / 1e9:g} GT/s under load"
                found.append(Finding("link_speed", text))

    def _under_load(self, id_: str, watch: _Watch, values: Sequence[float | None], now: float) -> bool:
        """Whether every look for long enough saw the GPU busy; the link's speed is read once a minute."""
        limits = self._thresholds
        if not any((value := values[index]) is not None and value >= limits.busy for index in watch.busy):
            self._busy.pop(id_, None)
            return False
        since, last = self._busy.get(id_, (now, now))
        if now - last > limits.look_gap:
            since = now
        self._busy[id_] = (since, now)
        return now - since >= limits.busy_seconds

    def _errors(
        self, own: _Watch, part: Samples, above: Sequence[Samples | None], found: list[Finding]
    ) -> None:
        for severity, text in self._uncorrected(own, part):
            found.append(Finding(f"aer_{severity}", f"{severity} PCIe errors: {text}"))
        for port in above:
            if port is not None:
                for severity, text in self._uncorrected(self._watch(port), port):
                    found.append(Finding("port_aer", f"{severity} PCIe errors of {port.device}: {text}"))

    def _uncorrected(self, watch: _Watch, part: Samples) -> tuple[tuple[str, str], ...]:
        """(severity, kinds and counts); made anew when the rows are others than the last time."""
        if watch.rows is not part.rows:
            watch.rows = part.rows
            kinds: dict[str, list[str]] = {}
            for prefix, value in part.rows.get(pcie.AER_ERRORS, ()):
                if value:
                    labels = labels_of(prefix)
                    if labels["severity"] != "corrected" and labels["kind"] not in self._thresholds.harmless:
                        kinds.setdefault(labels["severity"], []).append(f"{labels['kind']} {value:.0f}")
            watch.errors = tuple((severity, ", ".join(texts)) for severity, texts in sorted(kinds.items()))
        return watch.errors


def labels_of(prefix: str) -> dict[str, str]:
    """The labels of a rendered series (`name{a="b"} `), unescaped."""
    return {
        name: _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
        for name, value in _LABEL.findall(prefix)
    }


def infos(entries: Mapping[str, Entry]) -> Callable[[str], Mapping[str, str] | None]:
    """For `Inventory.compare`: labels of `gpudaemon_gpu_info` of a device, None until its facts are read."""

    def info(id_: str) -> Mapping[str, str] | None:
        entry = entries.get(id_)
        lane = entry.shown if entry is not None else None
        if entry is None or lane is None or entry.facts is None:
            return None
        block = lane.plan.blocks.get(gpu.INFO)
        return labels_of(block.prefixes[0]) if block is not None else None

    return info


def info_prefix(info: Mapping[str, str]) -> str:
    """The `gpudaemon_gpu_info` series of labels that were kept: a label of a newer version is empty."""
    return Series(gpu.INFO, tuple(info.get(label, "") for label in gpu.INFO.labels)).prefix()


def _standing(entry: Entry, now: float, had_driver: str, wedged: str) -> Standing:
    lane, stuck, since = entry.lane, "", now
    if entry.held is not None:
        stuck, since = entry.held[1], entry.held_since
    elif lane is not None and lane.hung_file:
        stuck, since = lane.hung_file, lane.hung_since
    return Standing(
        state=entry.state,
        answered=entry.told > 0,
        stuck=stuck,
        stuck_for=max(0.0, now - since),
        had_driver=had_driver,
        wedged=wedged,
    )


def _missing(id_: str, info: Mapping[str, str], moved: str) -> Verdict:
    name = info.get("product_name", "")
    serial = info.get("serial_number") or info.get("unique_id") or ""
    text = "not here" + (f", serial {serial}" if serial else "") + (f", now at {moved}" if moved else "")
    return Verdict(device=id_, name=name, present=False, findings=(Finding("missing", text),))


def _values(watch: _Watch, values: Sequence[float | None], found: list[Finding]) -> None:
    """What must be zero and is not, and what is hotter than its limit."""
    for index, reason, text in watch.counts:
        value = values[index]
        if value:
            found.append(Finding(reason, text.format(value)))
    for index, limit, reason, sensor in watch.hot:
        value, most = values[index], values[limit]
        # A limit of zero is a firmware that does not say.
        if value is not None and most and value >= most:
            found.append(Finding(reason, f"{sensor} {value:.0f} C, limit {most:.0f} C"))


def _of_link(
    ends: tuple[tuple[tuple[int, int, int, int], Sequence[float | None]], ...], place: int
) -> tuple[float | None, float | None]:
    """(present, best of both ends) of a link; present from the lower end, where that says anything."""
    present: float | None = None
    best: float | None = None
    for link, values in ends:
        now, most = link[place], link[place + 1]
        if most < 0 or values[most] is None:
            return None, None
        if present is None and now >= 0:
            present = values[now]
        ceiling = values[most]
        best = ceiling if best is None or (ceiling is not None and ceiling < best) else best
    return present, best


def _look_up(blocks: Mapping[Metric, Block]) -> _Watch:
    """Where in a plan's values the ones that matter stand."""
    labelled = {metric: _labelled(blocks, metric) for metric in _LABELLED}
    counts = [
        (index, "ras_uncorrected", f"{{:.0f}} uncorrected errors in {_plain(labels['block'])}")
        for labels, index in labelled[gpu.RAS_ERRORS]
        if labels["severity"] == "uncorrected"
    ]
    for labels, index in labelled[gpu.RAS_BAD_PAGES]:
        if labels["state"] in _PAGES:
            reason, text = _PAGES[labels["state"]]
            counts.append((index, reason, text))
    for metric, texts in _SAYS.items():
        for labels, index in _labelled(blocks, metric):
            if found := texts.get(labels.get("state", "")):
                counts.append((index, *found))
    for labels, index in labelled[hwmon.ALARM]:
        kind = labels["channel"].rstrip("0123456789")
        reason = _alarm(kind, labels["alarm"])
        if reason:
            counts.append((index, reason, f"{_plain(labels['sensor'])}: {_plain(labels['alarm'])}"))
    info = next(iter(_labelled(blocks, gpu.INFO)), ({}, 0))[0]
    return _Watch(
        blocks=blocks,
        counts=tuple(counts),
        hot=tuple(_hot(labelled[gpu.TEMPERATURE], labelled[gpu.TEMPERATURE_LIMIT])),
        link=(
            _single(blocks, pcie.LINK_WIDTH),
            _single(blocks, pcie.LINK_MAX_WIDTH),
            _single(blocks, pcie.LINK_TRANSFERS),
            _single(blocks, pcie.LINK_MAX_TRANSFERS),
        ),
        busy=blocks[gpu.BUSY].indexes if gpu.BUSY in blocks else (),
        name=info.get("product_name", ""),
        rows=_NO_ROWS,
    )


_LABELLED = (gpu.RAS_ERRORS, gpu.RAS_BAD_PAGES, hwmon.ALARM, gpu.TEMPERATURE, gpu.TEMPERATURE_LIMIT)
_PAGES = {
    "pending": ("pages_pending", "{:.0f} bad pages wait for a reset"),
    "failed": ("pages_unreservable", "{:.0f} bad pages cannot be taken out of use"),
}
_SAYS: Mapping[Metric, Mapping[str, tuple[str, str]]] = {
    gpu_parts.STATUS: {
        "disabled": ("not_operational", "its driver says: disabled"),
        "needs reset": ("not_operational", "its driver says: needs reset"),
    },
    gpu_parts.HEALTH_INDICATOR: {
        "critical": ("firmware_critical", "gpu_health is critical"),
        "warning": ("firmware_warning", "gpu_health is warning"),
    },
    gpu_parts.SURVIVABILITY_INFO: {"": ("survivability", "firmware must be flashed (survivability mode)")},
    gpu_parts.LINK_DOWNGRADED: {"": ("link_downgraded", "link fell back from PCIe Gen5 to Gen4")},
}
"""Rows in which driver or firmware say that something is wrong: state (empty for none) -> finding."""
_LIMITS = {"emergency": "temperature_emergency", "crit": "temperature_critical"}


def _alarm(kind: str, alarm: str) -> str:
    """The reason an alarm or fault of a channel is, empty where it says nothing about health.

    Alarms of power and current are a limit at work, and `max` is where a fan speeds up.
    """
    if kind == "fan":
        return "fan"
    if alarm == "fault":
        return "sensor"
    if kind == "temp" and alarm in ("crit_alarm", "emergency_alarm"):
        return "thermal_alarm"
    if kind == "in" and alarm in ("crit_alarm", "lcrit_alarm"):
        return "voltage_alarm"
    return ""


_Labelled = Sequence[tuple[dict[str, str], int]]


def _hot(temperatures: _Labelled, limits: _Labelled) -> Iterable[tuple[int, int, str, str]]:
    by_sensor: dict[str, dict[str, int]] = {}
    for labels, index in limits:
        by_sensor.setdefault(labels["sensor"], {})[labels["limit"]] = index
    for labels, index in temperatures:
        for limit, reason in _LIMITS.items():
            at = by_sensor.get(labels["sensor"], {}).get(limit)
            if at is not None:
                yield index, at, reason, labels["sensor"]


def _labelled(blocks: Mapping[Metric, Block], metric: Metric) -> _Labelled:
    block = blocks.get(metric)
    if block is None:
        return ()
    return [(labels_of(prefix), index) for prefix, index in zip(block.prefixes, block.indexes, strict=True)]


def _single(blocks: Mapping[Metric, Block], metric: Metric) -> int:
    block = blocks.get(metric)
    return block.indexes[0] if block is not None else -1


def _plain(text: str) -> str:
    """A label as part of a format: braces of a firmware's sensor name are no fields."""
    return text.replace("{", "{{").replace("}", "}}")
