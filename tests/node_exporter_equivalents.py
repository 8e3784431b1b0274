"""What prometheus-node-exporter 1.11 shows of a GPU host, and where this project shows the same value.

The rules are data: a pattern of the other exporter's metric name, our row for it and the scale between them.
`differences` compares two pages with them; a test uses it on captures, a benchmark on a whole host. Collectors
covered: drm, hwmon, pcidevice (collector/drm_linux.go, hwmon_linux.go, pcidevice_linux.go).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Sample = tuple[str, dict[str, str], float]
"""name, labels, value"""

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)(?: -?\d+(?:\.\d+)?)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = re.compile(r"\\(.)")


def parse(page: str) -> list[Sample]:
    """Samples of a page in either text format, comments left out."""
    samples = []
    for line in page.splitlines():
        found = _LINE.fullmatch(line)
        if line.startswith("#") or found is None:
            continue
        name, labels, value = found.groups()
        pairs = {
            key: _ESCAPES.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], raw)
            for key, raw in _LABEL.findall(labels or "")
        }
        samples.append((name, pairs, float(value)))
    return samples


@dataclass(frozen=True)
class Rule:
    """theirs: pattern of the whole name. ours: row for chips that are no GPU's; gpu: row for those that are.

    labels: labels ours must have; `\\1` stands for the pattern's group. scale: ours = theirs * scale.
    """

    theirs: str
    ours: str
    gpu: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0


_LIMITS = "min|max|crit|lcrit|emergency|rated_min|rated_max|cap|cap_default|cap_min|cap_max|cap_hyst"
_HYST = "min_hyst|max_hyst|crit_hyst|lcrit_hyst|emergency_hyst"

DRM = (
    Rule("node_drm_gpu_busy_percent", "gpudaemon_gpu_busy_ratio", labels={"engine": "gfx"}, scale=0.01),
    Rule(
        "node_drm_memory_(vram|vis_vram|gtt)_used_bytes", "gpudaemon_gpu_memory_used_bytes", "", {"pool": r"\1"}
    ),
    Rule(
        "node_drm_memory_(vram|vis_vram|gtt)_size_bytes",
        "gpudaemon_gpu_memory_total_bytes",
        "",
        {"pool": r"\1"},
    ),
)
"""Keyed by `card`, which ours has in `gpudaemon_gpu_info`; `node_drm_card_info` is compared by its labels."""

DRM_INFO = {"unique_id": "unique_id", "memory_vendor": "memory_vendor", "vendor": "vendor"}
"""Labels of `node_drm_card_info` -> of `gpudaemon_gpu_info`; power_performance_level is a state set of ours."""


def _pair(thing: str) -> tuple[str, str]:
    return f"gpudaemon_hwmon_{thing}", f"gpudaemon_gpu_{thing}"


_ALARM = ("gpudaemon_hwmon_alarm", "gpudaemon_hwmon_alarm")
_ATTRIBUTE = ("gpudaemon_hwmon_attribute", "gpudaemon_hwmon_attribute")

HWMON = (
    Rule(r"node_hwmon_temp_celsius", *_pair("temperature_celsius")),
    Rule(
        rf"node_hwmon_temp_({_LIMITS}|{_HYST})_celsius", *_pair("temperature_limit_celsius"), {"limit": r"\1"}
    ),
    # the other exporter divides the flag by 1000 like a temperature
    Rule(r"node_hwmon_temp_(\w+_alarm)_celsius", *_ALARM, {"alarm": r"\1"}, 1000.0),
    Rule(r"node_hwmon_temp_(\w+)_celsius", *_ATTRIBUTE, {"attribute": r"\1"}, 1000.0),
    Rule(r"node_hwmon_in_volts", *_pair("voltage_volts")),
    Rule(rf"node_hwmon_in_({_LIMITS})_volts", *_pair("voltage_limit_volts"), {"limit": r"\1"}),
    Rule(r"node_hwmon_curr_amps", *_pair("current_amperes")),
    Rule(rf"node_hwmon_curr_({_LIMITS})_amps", *_pair("current_limit_amperes"), {"limit": r"\1"}),
    Rule(r"node_hwmon_power_watt", *_pair("power_watts")),
    Rule(r"node_hwmon_power_average_watt", *_pair("power_average_watts")),
    Rule(rf"node_hwmon_power_({_LIMITS})_watt", *_pair("power_limit_watts"), {"limit": r"\1"}),
    Rule(r"node_hwmon_energy_joule_total", *_pair("energy_joules_total")),
    Rule(r"node_hwmon_fan_rpm", *_pair("fan_rpm")),
    Rule(r"node_hwmon_fan_target_rpm", *_pair("fan_target_rpm")),
    Rule(r"node_hwmon_fan_(min|max)_rpm", *_pair("fan_limit_rpm"), {"limit": r"\1"}),
    Rule(r"node_hwmon_fan_enable", "gpudaemon_hwmon_attribute", "gpudaemon_gpu_fan_enable"),
    Rule(r"node_hwmon_pwm", *_pair("pwm_ratio"), {}, 1 / 255),
    Rule(r"node_hwmon_pwm_(min|max)", *_pair("pwm_limit_ratio"), {"limit": r"\1"}, 1 / 255),
    Rule(r"node_hwmon_pwm_enable", *_pair("pwm_enable")),
    Rule(r"node_hwmon_freq_freq_mhz", "gpudaemon_hwmon_frequency_hertz", "gpudaemon_gpu_clock_hertz", {}, 1e6),
    # a ratio in millipercent, divided by a million like microwatts
    Rule(r"node_hwmon_humidity", *_pair("humidity_ratio"), {}, 10.0),
    Rule(r"node_hwmon_[a-z]+_(alarm|fault)", *_ALARM, {"alarm": r"\1"}),
    Rule(r"node_hwmon_[a-z]+_beep_enabled", *_ATTRIBUTE, {"attribute": "beep"}),
    Rule(r"node_hwmon_power_(average_interval)_seconds", *_ATTRIBUTE, {"attribute": r"\1"}, 1000.0),
    # flags, counts and milliseconds it takes for volts, amperes and watts
    Rule(r"node_hwmon_(?:in|curr|power)_(\w+_alarm)_(?:volts|amps|watt)", *_ALARM, {"alarm": r"\1"}),
    Rule(r"node_hwmon_(?:in|curr|cpu)_(\w+)_(?:volts|amps)", *_ATTRIBUTE, {"attribute": r"\1"}, 1000.0),
    Rule(r"node_hwmon_power_(\w+)_watt", *_ATTRIBUTE, {"attribute": r"\1"}, 1e6),
    Rule(r"node_hwmon_[a-z]+_(\w+)", *_ATTRIBUTE, {"attribute": r"\1"}),
)
"""Keyed by `chip` and `sensor` (a channel such as temp1), which ours has in `gpudaemon_hwmon_sensor_info`."""

CHIP_NUMBERS = {
    "node_hwmon_beep_enabled": ("beep_enable", 1.0),
    "node_hwmon_voltage_regulator_version": ("vrm", 1.0),
    "node_hwmon_update_interval_seconds": ("update_interval", 1000.0),
}
"""Numbers of a whole chip -> attribute of the channel `chip` in ours, and the scale."""

PCIDEVICE = (
    Rule("node_pcidevice_current_link_transfers_per_second", "gpudaemon_pcie_link_transfers_per_second"),
    Rule("node_pcidevice_max_link_transfers_per_second", "gpudaemon_pcie_link_max_transfers_per_second"),
    Rule("node_pcidevice_current_link_width", "gpudaemon_pcie_link_width"),
    Rule("node_pcidevice_max_link_width", "gpudaemon_pcie_link_max_width"),
    Rule("node_pcidevice_d3cold_allowed", "gpudaemon_pci_d3cold_allowed"),
    Rule("node_pcidevice_numa_node", "gpudaemon_device_numa_node"),
    Rule("node_pcidevice_power_state", "gpudaemon_pci_power_state"),
    Rule("node_pcidevice_sriov_drivers_autoprobe", "gpudaemon_pci_sriov_drivers_autoprobe"),
    Rule("node_pcidevice_sriov_numvfs", "gpudaemon_pci_sriov_vfs"),
    Rule("node_pcidevice_sriov_totalvfs", "gpudaemon_pci_sriov_max_vfs"),
    Rule("node_pcidevice_sriov_vf_total_msix", "gpudaemon_pci_sriov_vf_total_msix"),
)
"""Keyed by segment, bus, device, function; `state` is the same label in both."""

PCI_INFO = {
    "class_id": "class",
    "device_id": "device_id",
    "vendor_id": "vendor_id",
    "subsystem_device_id": "subsystem_device_id",
    "subsystem_vendor_id": "subsystem_vendor_id",
    "revision": "revision",
}
"""Labels of `node_pcidevice_info` -> of `gpudaemon_pci_info`."""

ANNOTATIONS = {
    "node_hwmon_chip_names": "gpudaemon_hwmon_chip_info",
    "node_hwmon_sensor_label": "gpudaemon_hwmon_sensor_info",
}
"""Names without a value; ours is there when a row with that name or label is."""

ZERO_FOR_ABSENT = re.compile(r"node_pcidevice_(?:sriov_\w+|d3cold_allowed)|node_drm_\w+")
"""The other exporter prints 0 where there is no such file; ours prints no sample then."""


@dataclass(frozen=True)
class Difference:
    """theirs: the line that has no equal; ours: our value, None where there is none; reason: in a word."""

    theirs: Sample
    ours: float | None
    reason: str


class _Ours:
    """Our page, searchable by name and part of the labels."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.by_name: dict[str, list[tuple[dict[str, str], float]]] = {}
        for name, labels, value in samples:
            self.by_name.setdefault(name, []).append((labels, value))

    def find(self, name: str, wanted: Mapping[str, str]) -> tuple[dict[str, str], float] | None:
        for labels, value in self.by_name.get(name, ()):
            if all(labels.get(key) == text for key, text in wanted.items()):
                return labels, value
        return None

    def all(self, name: str) -> list[tuple[dict[str, str], float]]:
        return self.by_name.get(name, [])


def _clean(name: str) -> str:
    """The other exporter's spelling of a device name (cleanMetricName)."""
    return re.sub(r"[^a-z0-9:_]", "_", name.lower()).strip("_")


def _chip_matches(chip: str, labels: Mapping[str, str]) -> bool:
    names = (_clean(labels["device"]), _clean(labels["chip"]), _clean(labels["device"].rpartition("/")[2]))
    return any(chip == name or chip.endswith(f"_{name}") for name in names)


def _apply(rules: Sequence[Rule], name: str) -> tuple[Rule, dict[str, str]] | None:
    for rule in rules:
        found = re.fullmatch(rule.theirs, name)
        if found is not None:
            return rule, {key: found.expand(value) for key, value in rule.labels.items()}
    return None


def _hwmon_value(ours: _Ours, sample: Sample, rule: Rule, labels: dict[str, str]) -> list[float]:
    """Our values for one of theirs; several where their chip name is not unique."""
    _, their_labels, _ = sample
    gpus = {found["device"] for found, _ in ours.all("gpudaemon_gpu_info")}
    values = []
    for info, _ in ours.all("gpudaemon_hwmon_sensor_info"):
        if not _chip_matches(their_labels["chip"], info):
            continue
        by_label = rule.theirs.startswith("node_hwmon_freq") and their_labels["sensor"] == info["label"]
        if their_labels["sensor"] != info["channel"] and not by_label:
            continue
        is_gpu = info["device"] in gpus
        name = (rule.gpu if is_gpu else rule.ours) or rule.ours
        wanted = {"device": info["device"], **labels}
        if name.startswith("gpudaemon_hwmon_"):
            wanted["chip"] = info["chip"]
        if name in _ATTRIBUTE or name in _ALARM:
            wanted["channel"] = info["channel"]
        else:
            wanted["clock" if name == "gpudaemon_gpu_clock_hertz" else "sensor"] = info["sensor"]
        found = ours.find(name, wanted)
        if found is not None:
            values.append(found[1])
    return values


def _pci_address(labels: Mapping[str, str]) -> str:
    return "{segment}:{bus}:{device}.{function}".format_map(labels)


def _card_device(ours: _Ours, card: str) -> str:
    for labels, _ in ours.all("gpudaemon_gpu_info"):
        if card in labels["card"].split(","):
            return labels["device"]
    return ""


def _values(ours: _Ours, sample: Sample) -> tuple[list[float], float] | None:
    """(our values, scale) for one of their samples; None where no rule knows the name."""
    name, labels, _ = sample
    if name in CHIP_NUMBERS:
        attribute, scale = CHIP_NUMBERS[name]
        rows = ours.all(_ATTRIBUTE[0])
        wanted = {"channel": "chip", "attribute": attribute}
        matching = [
            value for row, value in rows if wanted.items() <= row.items() and _chip_matches(labels["chip"], row)
        ]
        return matching, scale
    if name.startswith("node_hwmon_"):
        applied = _apply(HWMON, name)
        if applied is None:
            return None
        return _hwmon_value(ours, sample, *applied), applied[0].scale
    rules, key = (PCIDEVICE, _pci_address) if name.startswith("node_pcidevice_") else (DRM, None)
    applied = _apply(rules, name)
    if applied is None:
        return None
    rule, wanted = applied
    device = key(labels) if key else _card_device(ours, labels["card"])
    if "state" in labels:
        wanted["state"] = labels["state"]
    found = ours.find(rule.ours, {"device": device, **wanted})
    return ([found[1]] if found else []), rule.scale


def _info_found(ours: _Ours, sample: Sample) -> bool:
    name, labels, _ = sample
    if name == "node_drm_card_info":
        wanted = {key: labels[their] for their, key in DRM_INFO.items()}
        device = _card_device(ours, labels["card"])
        level = ours.find(
            "gpudaemon_gpu_performance_level", {"device": device, "state": labels["power_performance_level"]}
        )
        return (
            ours.find("gpudaemon_gpu_info", {"device": device, **wanted}) is not None
            and level is not None
            and level[1] == 1
        )
    if name == "node_pcidevice_info":
        wanted = {key: labels[their] for their, key in PCI_INFO.items()}
        return ours.find("gpudaemon_pci_info", {"device": _pci_address(labels), **wanted}) is not None
    if name == "node_hwmon_chip_names":
        chips = ours.all("gpudaemon_hwmon_chip_info")
        return any(
            info["name"] == labels["chip_name"] and _chip_matches(labels["chip"], info) for info, _ in chips
        )
    sensors = ours.all("gpudaemon_hwmon_sensor_info")
    return any(
        info["channel"] == labels["sensor"]
        and info["label"] == labels["label"]
        and _chip_matches(labels["chip"], info)
        for info, _ in sensors
    )


def differences(
    theirs: Iterable[Sample], ours: Iterable[Sample], devices: frozenset[str] | None = None
) -> tuple[int, list[Difference]]:
    """(samples compared, those that have no equal in ours).

    devices: PCI addresses to look at in the pcidevice families, None for all: the other exporter lists every
    PCI function of a host, we those of GPUs, their bridges and devices with sensors.
    """
    page = _Ours(ours)
    compared = 0
    found: list[Difference] = []
    for sample in theirs:
        name, labels, value = sample
        if not name.startswith(("node_drm_", "node_hwmon_", "node_pcidevice_")):
            continue
        if name.startswith("node_pcidevice_") and devices is not None and _pci_address(labels) not in devices:
            continue
        compared += 1
        if name in ANNOTATIONS or name in ("node_drm_card_info", "node_pcidevice_info"):
            if not _info_found(page, sample):
                found.append(Difference(sample, None, "no such info"))
            continue
        mine = _values(page, sample)
        if mine is None:
            found.append(Difference(sample, None, "no rule"))
            continue
        values, scale = mine
        if not values:
            if value == 0 and ZERO_FOR_ABSENT.fullmatch(name):
                compared -= 1
                continue
            found.append(Difference(sample, None, "missing"))
        elif not any(math.isclose(mine_value, value * scale, rel_tol=1e-9) for mine_value in values):
            found.append(Difference(sample, values[0], "other value"))
    return compared, found
