"""What LACT read from its captures (`expected/*.snap`, JSON), as values of this project's rows.

Compared are fields whose source is a sysfs text file or gpu_metrics; LACT takes some from ioctls or computes
them from fan control files, and those are left out by name, here.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from tests.captures import Page

Field = tuple[str, float | str, float | str | None]
"""field of the snapshot, what it says, what ours is in the same unit (None: no sample)"""


def load(path: str) -> dict[str, Any]:
    """The JSON of a snapshot file, after its YAML header."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    loaded: dict[str, Any] = json.loads(text[text.index("{") :])
    return loaded


def _sensor(page: Page, channel: str) -> str:
    """Our name of a channel (`power1`)."""
    return page.info("gpudaemon_hwmon_sensor_info", channel=channel).get("sensor", "")


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


_THROTTLED = "gpudaemon_gpu_throttled"


def _power(stats: dict[str, Any], page: Page) -> Iterator[Field]:
    power = stats["power"]
    sensor = _sensor(page, "power1")
    if power.get("average") is not None:
        ours = page.value("gpudaemon_gpu_power_average_watts", sensor=sensor)
        yield "power.average", power["average"], ours
    if power.get("current") is not None:
        yield "power.current", power["current"], page.value("gpudaemon_gpu_power_watts", sensor=sensor)
    for key, limit in (
        ("cap_current", "cap"),
        ("cap_default", "cap_default"),
        ("cap_max", "cap_max"),
        ("cap_min", "cap_min"),
    ):
        if power.get(key) is not None:
            ours = page.value("gpudaemon_gpu_power_limit_watts", sensor=sensor, limit=limit)
            yield f"power.{key}", power[key], ours


def _parts(stats: dict[str, Any], page: Page) -> Iterator[Field]:
    """Power of an APU's parts, voltages and what throttles, of gpu_metrics."""
    for sensor in ("mem", "soc"):
        millivolts = stats["voltage"]["sensors"].get(sensor)
        if millivolts is not None:
            ours = page.value("gpudaemon_gpu_voltage_volts", sensor=sensor)
            yield f"voltage.sensors.{sensor}", millivolts, _scaled(ours, 1000)
    for domain, watts in stats["power"].get("sensors", {}).items():
        yield f"power.sensors.{domain}", watts, page.value("gpudaemon_gpu_domain_power_watts", domain=domain)
    reasons = [labels["reason"] for name, labels, value in page.samples if name == _THROTTLED and value]
    if any(name == _THROTTLED for name, _, _ in page.samples) and stats.get("throttle_info") is not None:
        theirs = sorted(reason.lower() for group in stats["throttle_info"].values() for reason in group)
        yield "throttle_info", ",".join(theirs), ",".join(sorted(reasons))


def _temperatures(stats: dict[str, Any], page: Page) -> Iterator[Field]:
    for sensor, temperature in stats["temps"].items():
        ours = page.value("gpudaemon_gpu_temperature_celsius", sensor=sensor)
        # what LACT shows only is of gpu_metrics; an APU's has hundredths of a degree, which LACT cuts off
        cut = ours is not None and temperature["display_only"]
        yield f"temps.{sensor}.current", temperature["current"], float(int(ours)) if cut and ours else ours
        for limit in ("crit", "crit_hyst"):
            if temperature[limit] is not None:
                ours = page.value("gpudaemon_gpu_temperature_limit_celsius", sensor=sensor, limit=limit)
                yield f"temps.{sensor}.{limit}", temperature[limit], ours


def _fan(stats: dict[str, Any], page: Page) -> Iterator[Field]:
    fan = stats["fan"]
    fields = {
        "speed_current": ("gpudaemon_gpu_fan_rpm", {}, 1),
        "speed_max": ("gpudaemon_gpu_fan_limit_rpm", {"limit": "max"}, 1),
        "speed_min": ("gpudaemon_gpu_fan_limit_rpm", {"limit": "min"}, 1),
        "pwm_current": ("gpudaemon_gpu_pwm_ratio", {}, 255),
    }
    if not fan["pmfw_info"]:  # else computed from gpu_od/fan_ctrl
        fields["pwm_max"] = ("gpudaemon_gpu_pwm_limit_ratio", {"limit": "max"}, 255)
        fields["pwm_min"] = ("gpudaemon_gpu_pwm_limit_ratio", {"limit": "min"}, 255)
    for key, (metric, labels, factor) in fields.items():
        if fan.get(key) is not None:
            yield f"fan.{key}", fan[key], _scaled(page.value(metric, **labels), factor)


def _clocks(snapshot: dict[str, Any], page: Page) -> Iterator[Field]:
    stats = snapshot["stats"]
    for key, clock in (("gpu_clockspeed", "sclk"), ("vram_clockspeed", "mclk")):
        if stats["clockspeed"].get(key) is not None:
            ours = page.value("gpudaemon_gpu_clock_hertz", clock=clock)
            # LACT cuts to whole megahertz
            yield f"clockspeed.{key}", stats["clockspeed"][key], None if ours is None else ours // 1e6
    active = stats.get("active_power_states", {})
    for kind, name, clock in (("core", "core", "sclk"), ("vram", "memory", "mclk")):
        levels = snapshot.get("power_states", {}).get(kind) or []
        if levels:
            ours = page.value("gpudaemon_gpu_clock_max_hertz", clock=clock)
            yield f"power_states.{kind}.max", max(level["value"] for level in levels), _scaled(ours, 1e-6)
        if name in active:
            value = next(level["value"] for level in levels if level["id"] == active[name])
            ours = page.value("gpudaemon_gpu_clock_level_hertz", clock=clock)
            yield f"active_power_states.{name}", value, _scaled(ours, 1e-6)


def _link(snapshot: dict[str, Any], page: Page) -> Iterator[Field]:
    for key, metric in (
        ("current_speed", "gpudaemon_pcie_link_transfers_per_second"),
        ("max_speed", "gpudaemon_pcie_link_max_transfers_per_second"),
    ):
        text = snapshot["info"]["link_info"].get(key)
        if text is not None:
            yield f"link_info.{key}", float(text.split()[0]), _scaled(page.value(metric), 1e-9)
    for key, metric in (
        ("current_width", "gpudaemon_pcie_link_width"),
        ("max_width", "gpudaemon_pcie_link_max_width"),
    ):
        text = snapshot["info"]["link_info"].get(key)
        if text is not None:
            yield f"link_info.{key}", float(text), page.value(metric)


def fields(snapshot: dict[str, Any], page: Page) -> Iterator[Field]:
    """Every field of a snapshot this project has a row for."""
    stats = snapshot["stats"]
    if stats.get("busy_percent") is not None:
        ours = page.value("gpudaemon_gpu_busy_ratio", engine="gfx")
        yield "busy_percent", stats["busy_percent"], _scaled(ours, 100)
    yield from _power(stats, page)
    yield from _parts(stats, page)
    yield from _temperatures(stats, page)
    yield from _fan(stats, page)
    yield from _clocks(snapshot, page)
    for key, sensor in (("gpu", "vddgfx"), ("northbridge", "vddnb")):
        voltage = stats["voltage"].get(key, stats["voltage"]["sensors"].get(key))
        if voltage is not None:
            ours = page.value("gpudaemon_gpu_voltage_volts", sensor=sensor)
            yield f"voltage.{key}", voltage, _scaled(ours, 1000)
    for key, metric in (("total", "memory_total_bytes"), ("used", "memory_used_bytes")):
        if stats["vram"].get(key) is not None:
            yield f"vram.{key}", stats["vram"][key], page.value(f"gpudaemon_gpu_{metric}", pool="vram")
    yield from _link(snapshot, page)
    if stats.get("performance_level") is not None:
        level = stats["performance_level"]
        ours = page.value("gpudaemon_gpu_performance_level", state=level)
        yield "performance_level", level, level if ours == 1 else None
    if snapshot["info"].get("vbios_version") is not None:
        labels = page.info("gpudaemon_gpu_info")
        yield "vbios_version", snapshot["info"]["vbios_version"], labels.get("vbios_version")
    identity = snapshot["info"]["pci_info"]["device_pci_info"]
    if page.info("gpudaemon_gpu_info").get("vendor_id"):
        ours_id = page.info("gpudaemon_gpu_info")["vendor_id"].removeprefix("0x").upper()
        yield "vendor_id", identity["vendor_id"], ours_id


def _intel_sensors(stats: dict[str, Any], page: Page) -> Iterator[Field]:
    for label, temperature in stats["temps"].items():
        sensor = _sensor(page, "temp1") if label == "gpu" else label  # LACT's name where there is no label
        ours = page.value("gpudaemon_gpu_temperature_celsius", sensor=sensor)
        yield f"temps.{label}.current", temperature["current"], ours
    if stats["fan"].get("speed_current") is not None:
        yield (
            "fan.speed_current",
            stats["fan"]["speed_current"],
            page.value("gpudaemon_gpu_fan_rpm", sensor="fan1"),
        )
    if stats["fan"].get("speed_max") is not None:
        ours = page.value("gpudaemon_gpu_fan_limit_rpm", sensor="fan1", limit="max")
        yield "fan.speed_max", stats["fan"]["speed_max"], ours
    if stats["voltage"].get("gpu") is not None:
        yield "voltage.gpu", stats["voltage"]["gpu"], _scaled(page.value("gpudaemon_gpu_voltage_volts"), 1000)
    if stats["power"].get("cap_current") is not None:  # its other caps are computed, where there is no file
        limits = {
            labels["limit"]: value
            for name, labels, value in page.samples
            if name == "gpudaemon_gpu_power_limit_watts"
        }
        yield "power.cap_current", stats["power"]["cap_current"], limits.get("max", limits.get("cap"))


def intel_fields(snapshot: dict[str, Any], page: Page) -> Iterator[Field]:
    """Every field of a snapshot of an Intel GPU this project has a row for; LACT looks at the first GT only."""

    def clock(row: str, **labels: str) -> float | None:
        return _scaled(page.value(f"gpudaemon_gpu_clock_{row}hertz", clock="gt0", **labels), 1e-6)

    def limit(name: str) -> float | None:
        return clock("limit_", limit=name)

    stats = snapshot["stats"]
    yield from _intel_sensors(stats, page)
    speeds = stats["clockspeed"]
    # a sleeping GT has no clock: LACT then shows the one asked for
    yield "clockspeed.gpu_clockspeed", speeds["gpu_clockspeed"], clock("") or clock("requested_")
    yield "clockspeed.target_gpu_clockspeed", speeds["target_gpu_clockspeed"], clock("requested_")
    table = snapshot["clocks_info"]["table"]["value"]
    yield "gt_freq.min", table["gt_freq"][0], limit("min")
    yield "gt_freq.max", table["gt_freq"][1], limit("max")
    yield "rp0_freq", table["rp0_freq"], clock("max_")
    efficient = limit("rpe")
    yield "rpe_freq", table["rpe_freq"], limit("rp1") if efficient is None else efficient
    yield "rpn_freq", table["rpn_freq"], limit("rpn")
    throttled = {
        labels["reason"]: []
        for name, labels, value in page.samples
        if name == "gpudaemon_gpu_throttled" and value
    }
    if stats.get("throttle_info") is not None:
        yield "throttle_info", json.dumps(stats["throttle_info"]), json.dumps(throttled)
    identity = snapshot["info"]["pci_info"]["device_pci_info"]
    info = page.info("gpudaemon_gpu_info")
    yield "driver", snapshot["info"]["driver"], info["driver"]
    if info["vendor_id"]:
        yield "vendor_id", identity["vendor_id"], info["vendor_id"].removeprefix("0x").upper()
    if info["device_id"]:
        yield "model_id", identity["model_id"], info["device_id"].removeprefix("0x").upper()


def equal(theirs: float | str, ours: float | str | None) -> bool:
    """LACT holds temperatures in 32-bit floats."""
    if isinstance(theirs, str) or isinstance(ours, str) or ours is None:
        return theirs == ours
    return math.isclose(theirs, ours, rel_tol=1e-6, abs_tol=1e-9)
