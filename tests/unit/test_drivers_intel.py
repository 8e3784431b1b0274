"""The plans of i915, xe, habanalabs, intel_vpu and qaic: what each file comes to, and which are not read."""

from collections.abc import Mapping

import pytest

from gpudaemon.collectors.power import COLLECTOR as POWER
from gpudaemon.drivers import drivers
from gpudaemon.metrics import gpu, gpu_parts
from gpudaemon.model.attribute import Attribute, Cadence, Rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric
from gpudaemon.pipeline.plan import GATE, make_plan

ID = "0000:03:00.0"
Values = dict[tuple[Metric, tuple[str, ...]], float | None]


def device(driver: str, names: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Device:
    return Device(
        id=ID,
        kind=DeviceKind.GPU,
        path="devices/x",
        driver=driver,
        names=frozenset(names),
        links=tuple((links or {}).items()),
    )


def plan(driver: str, names: Mapping[str, bytes]) -> dict[str, Attribute | Rows]:
    return {one.path: one for one in drivers()[driver].attributes(device(driver, names), {})}


def read(driver: str, names: Mapping[str, bytes]) -> Values:
    """Every value, by row and labels without the device."""
    found: Values = {}
    for path, planned in plan(driver, names).items():
        if isinstance(planned, Attribute):
            values = planned.decode(names[path])
            found |= {
                (one.metric, one.values[1:]): value for one, value in zip(planned.series, values, strict=True)
            }
        else:
            found |= {(metric, labels[1:]): value for metric, labels, value in planned.decode(names[path])}
    return found


OLD = {
    "drm/card0/gt_act_freq_mhz": b"300\n",
    "drm/card0/gt_cur_freq_mhz": b"350\n",
    "drm/card0/gt_RP0_freq_mhz": b"1150\n",
    "drm/card0/gt_max_freq_mhz": b"1100\n",
    "drm/card0/power/rc6_residency_ms": b"2500\n",
    "drm/card0/power/rc6_enable": b"1\n",
}
NEW = {
    "drm/card0/gt/gt0/rps_act_freq_mhz": b"900\n",
    "drm/card0/gt/gt1/rps_act_freq_mhz": b"0\n",
    "drm/card0/gt/gt1/rc6_residency_ms": b"7000\n",
    "drm/card0/gt/gt0/throttle_reason_status": b"1\n",
    "drm/card0/gt/gt0/throttle_reason_pl1": b"1\n",
    "drm/card0/gt/gt0/throttle_reason_vr_tdc": b"0\n",
    "drm/card0/gt/gt0/.defaults/rps_max_freq_mhz": b"1\n",
    "drm/card0/gt/gt0/slpc_power_profile": b"base    [power_saving]\n",
    "drm/card0/engine/rcs0/preempt_timeout_ms": b"640\n",
    "drm/card0/engine/rcs0/.defaults/preempt_timeout_ms": b"1\n",
    "drm/card0/error": b"",
}


def test_i915_without_directories_of_gts_has_one() -> None:
    assert read("i915", OLD) == {
        (gpu.CLOCK, ("gt0",)): 3e8,
        (gpu_parts.CLOCK_REQUESTED, ("gt0",)): 3.5e8,
        (gpu.CLOCK_MAX, ("gt0",)): 1.15e9,
        (gpu_parts.CLOCK_LIMIT, ("gt0", "max")): 1.1e9,
        (gpu_parts.IDLE_SECONDS, ("gt0", "rc6")): 2.5,
        (gpu_parts.RC6_ENABLED, ("gt0",)): 1,
    }


def test_i915_with_directories_reads_those_and_not_what_repeats_them() -> None:
    assert read("i915", {**OLD, **NEW}) == {
        (gpu.CLOCK, ("gt0",)): 9e8,
        (gpu.CLOCK, ("gt1",)): 0,
        (gpu_parts.IDLE_SECONDS, ("gt1", "rc6")): 7,
        (gpu.THROTTLED, ("gt0", "power", "pl1")): 1,
        (gpu.THROTTLED, ("gt0", "current", "vr_tdc")): 0,
        (gpu_parts.POWER_PROFILE, ("gt0", "base")): 0,
        (gpu_parts.POWER_PROFILE, ("gt0", "power_saving")): 1,
        (gpu_parts.ENGINE_TIMEOUT, ("", "rcs0", "preempt")): 0.64,
    }


THROTTLE = {
    "tile0/gt0/freq0/throttle/reason_pl1": b"0\n",
    "tile0/gt0/freq0/throttle/reason_soc_thermal": b"1\n",
    "tile1/gt2/freq0/throttle/reason_pl4": b"1\n",
    "tile1/gt2/freq0/throttle/status": b"1\n",
}


def test_xe_takes_reasons_from_one_file_where_there_is_one() -> None:
    expected: Values = {
        (gpu.THROTTLED, ("gt0", "power", "pl1")): 0,
        (gpu.THROTTLED, ("gt0", "thermal", "soc_thermal")): 1,
        (gpu.THROTTLED, ("gt2", "power", "pl4")): 1,
    }
    assert read("xe", THROTTLE) == expected
    newer = {**THROTTLE, "tile0/gt0/freq0/throttle/reasons": b"soc_thermal\n"}
    assert read("xe", newer) == expected
    assert set(plan("xe", newer)) == {
        "tile0/gt0/freq0/throttle/reasons",
        "tile1/gt2/freq0/throttle/reason_pl4",
    }


def test_xe_asks_seldom_for_what_wakes_or_asks_the_firmware() -> None:
    names = dict.fromkeys(drivers()["xe"].example, b"1\n")
    planned = plan("xe", names)
    for path in ("tile0/gt0/freq0/cur_freq", "tile0/gt0/freq0/max_freq", "gpu_health"):
        assert planned[path].cadence is Cadence.SLOW
    assert planned["tile0/memory/freq0/max_freq"].cadence is Cadence.STATIC
    assert planned["tile0/gt0/freq0/act_freq"].cadence is Cadence.FAST
    assert "survivability_mode" not in planned


def test_xe_device_files() -> None:
    found = read(
        "xe",
        {
            "gpu_health": b"warning\n",
            "vram_d3cold_threshold": b"300\n",
            "auto_link_downgrade_status": b"1\n",
            "lb_fan_control_version": b"203.0.0.0\n",
            "lb_voltage_regulator_version": b"0.0.0.0\n",
            "tile0/gt0/gtidle/idle_status": b"unknown\n",
            "tile0/gt0/gtidle/idle_residency_ms": b"308607\n",
        },
    )
    assert found[gpu_parts.HEALTH_INDICATOR, ("warning",)] == 1
    assert found[gpu_parts.HEALTH_INDICATOR, ("ok",)] == 0
    assert found[gpu_parts.D3COLD_THRESHOLD, ()] == 300 << 20
    assert found[gpu_parts.LINK_DOWNGRADED, ()] == 1
    assert found[gpu.FIRMWARE_INFO, ("fan_control", "203.0.0.0")] == 1
    assert not any(metric is gpu.FIRMWARE_INFO and "regulator" in labels[0] for metric, labels in found)
    assert found[gpu_parts.IDLE_STATE, ("gt0", "gt-c6")] is None
    assert found[gpu_parts.IDLE_SECONDS, ("gt0", "gt-c6")] == 308.607


def test_a_power_limit_of_zero_is_none() -> None:
    chip = {
        "hwmon/hwmon2/name": b"i915\n",
        "hwmon/hwmon2/power1_max": b"0\n",
        "hwmon/hwmon2/power1_rated_max": b"0\n",
        "hwmon/hwmon2/power1_crit": b"190000000\n",
        "hwmon/hwmon2/energy1_input": b"25637161804\n",
    }
    facts: dict[str, bytes | None] = {"hwmon/hwmon2/name": b"i915\n"}
    found = {}
    for planned in POWER.attributes(device("i915", chip), facts):
        assert isinstance(planned, Attribute)
        found[planned.series[0].values[1:]] = planned.decode(chip[planned.path])[0]
    assert found["power1", "max"] is found["power1", "rated_max"] is None
    assert found["power1", "crit"] == 190
    assert found["energy1", "hardware"] == 25637.161804


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (b"Operational\n", "operational"),
        (b"In reset\n", "in reset"),
        (b"Needs reset\n", "needs reset"),
        (b"In reset after device release\n", "in reset after device release"),
        (b"Disabled\n", "disabled"),
    ],
)
def test_gaudi_says_whether_it_can_be_used(content: bytes, state: str) -> None:
    found = read("habanalabs", {"status": content})
    assert {labels[0] for (_, labels), value in found.items() if value} == {state}
    assert len(found) == 6


def test_gaudi_files() -> None:
    found = read(
        "habanalabs",
        {
            "clk_cur_freq_mhz": b"1600\n",
            "clk_max_freq_mhz": b"1650\n",
            "max_power": b"600000\n",
            "hard_reset_cnt": b"2\n",
            "soft_reset_cnt": b"0\n",
            "module_id": b"3\n",
            "security_enabled": b"1\n",
            "cpucp_ver": b"hl-gaudi2-1.14.0-fw-48.0.1-sec-6\n",
            "thermal_ver": b"",
            "eeprom": b"\0" * 4096,
            "hard_reset": b"",
        },
    )
    assert found == {
        (gpu.CLOCK, ("device",)): 1.6e9,
        (gpu_parts.CLOCK_LIMIT, ("device", "max")): 1.65e9,
        (gpu.POWER_LIMIT, ("device", "max")): 600,
        (gpu_parts.RESETS, ("hard",)): 2,
        (gpu_parts.RESETS, ("soft",)): 0,
        (gpu_parts.MODULE, ()): 3,
        (gpu_parts.SECURITY, ()): 1,
        (gpu.FIRMWARE_INFO, ("cpucp", "hl-gaudi2-1.14.0-fw-48.0.1-sec-6")): 1,
    }
    goya = read("habanalabs", {"mme_clk_curr": b"900000000\n", "mme_clk": b"1000000000\n"})
    assert goya == {(gpu.CLOCK, ("mme",)): 9e8, (gpu_parts.CLOCK_LIMIT, ("mme", "max")): 1e9}


def test_npu_of_both_generations_of_files() -> None:
    older = {
        "npu_busy_time_us": b"2500000\n",
        "npu_current_frequency_mhz": b"0\n",
        "npu_max_frequency_mhz": b"1400\n",
        "sched_mode": b"HW\n",
    }
    expected: Values = {
        (gpu_parts.BUSY_SECONDS, ("npu",)): 2.5,
        (gpu.CLOCK, ("npu",)): None,
        (gpu.CLOCK_MAX, ("npu",)): 1.4e9,
        (gpu_parts.SCHEDULER, ("HW",)): 1,
        (gpu_parts.SCHEDULER, ("OS",)): 0,
    }
    assert read("intel_vpu", older) == expected
    newer = {**older, "freq/current_freq": b"0\n", "freq/hw_max_freq": b"1400\n"}
    assert read("intel_vpu", newer) == expected
    assert "npu_max_frequency_mhz" not in plan("intel_vpu", newer)


def test_error_counts_of_qaic() -> None:
    assert read("qaic", {"ce_count": b"3\n", "ue_count": b"0\n"}) == {
        (gpu.RAS_ERRORS, ("device", "corrected")): 3,
        (gpu.RAS_ERRORS, ("device", "uncorrected")): 0,
    }


@pytest.mark.parametrize("driver", ["xe", "i915", "habanalabs", "intel_vpu", "panfrost"])
def test_all_of_a_device_is_read_behind_its_power_state(driver: str) -> None:
    """Nearly every file of xe resumes a device that sleeps (xe_pm_runtime)."""
    names = dict.fromkeys((GATE, *drivers()[driver].example), b"1\n")
    made = make_plan(device(driver, names), {})
    assert made.gated
    assert made.files[0].path == GATE
    assert {file.path for file in made.files[1:]} & set(drivers()[driver].example)
