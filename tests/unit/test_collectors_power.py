"""hwmon chips: names, units, and series that stay unique whatever the labels are."""

from collections.abc import Iterable

from gpudaemon.collectors import collectors
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.device import Device, DeviceKind

POWER = collectors()["power"]


def gpu(*names: str) -> Device:
    return Device(
        id="0000:03:00.0", kind=DeviceKind.GPU, path="devices/x", driver="amdgpu", names=frozenset(names)
    )


def board(*names: str) -> Device:
    return Device(id="nct6775.656", kind=DeviceKind.HWMON, path="devices/y", names=frozenset(names))


def chip(number: int, *files: str) -> list[str]:
    return [f"hwmon/hwmon{number}/{file}" for file in files]


def lines(device: Device, contents: dict[str, bytes]) -> dict[str, float | None]:
    """Series as text -> value; every planned file must be in `contents`."""
    found: dict[str, float | None] = {}
    for planned in POWER.attributes(device, contents):
        assert isinstance(planned, Attribute)
        for series, value in zip(planned.series, planned.decode(contents[planned.path]), strict=True):
            assert series.prefix() not in found
            found[series.prefix().strip()] = value
    return found


def filled(names: Iterable[str], content: bytes = b"1\n") -> dict[str, bytes]:
    return dict.fromkeys(names, content)


def test_a_gpu_chip_fills_gpu_rows() -> None:
    base = "hwmon/hwmon3/"
    contents = {
        f"{base}name": b"amdgpu\n",
        f"{base}temp2_label": b"junction\n",
        f"{base}temp2_input": b"61000\n",
        f"{base}temp2_crit": b"110000\n",
        f"{base}temp2_crit_hyst": b"-273150\n",
        f"{base}power1_label": b"PPT\n",
        f"{base}power1_average": b"68000000\n",
        f"{base}power1_cap": b"\n",
        f"{base}fan1_input": b"945\n",
        f"{base}pwm1": b"51\n",
        f"{base}pwm1_enable": b"2\n",
        f"{base}in0_label": b"vddgfx\n",
        f"{base}in0_input": b"814\n",
        f"{base}freq1_label": b"sclk\n",
        f"{base}freq1_input": b"31000000\n",
    }
    device = 'device="0000:03:00.0"'
    assert lines(gpu(*contents), contents) == {
        f'gpudaemon_gpu_temperature_celsius{{{device},sensor="junction"}}': 61.0,
        f'gpudaemon_gpu_temperature_limit_celsius{{{device},sensor="junction",limit="crit"}}': 110.0,
        f'gpudaemon_gpu_temperature_limit_celsius{{{device},sensor="junction",limit="crit_hyst"}}': -273.15,
        f'gpudaemon_gpu_power_watts{{{device},sensor="PPT"}}': 68.0,
        f'gpudaemon_gpu_power_average_watts{{{device},sensor="PPT"}}': 68.0,
        f'gpudaemon_gpu_power_limit_watts{{{device},sensor="PPT",limit="cap"}}': None,
        f'gpudaemon_gpu_fan_rpm{{{device},sensor="fan1"}}': 945.0,
        f'gpudaemon_gpu_pwm_ratio{{{device},sensor="pwm1"}}': 0.2,
        f'gpudaemon_gpu_pwm_enable{{{device},sensor="pwm1"}}': 2.0,
        f'gpudaemon_gpu_voltage_volts{{{device},sensor="vddgfx"}}': 0.814,
        f'gpudaemon_gpu_clock_hertz{{{device},clock="sclk"}}': 31e6,
    }


def test_momentary_power_takes_the_plain_row_where_both_exist() -> None:
    contents = {"hwmon/hwmon1/power1_input": b"3142000\n", "hwmon/hwmon1/power1_average": b"3103000\n"}
    found = lines(gpu(*contents), contents)
    assert found == {
        'gpudaemon_gpu_power_watts{device="0000:03:00.0",sensor="power1"}': 3.142,
        'gpudaemon_gpu_power_average_watts{device="0000:03:00.0",sensor="power1"}': 3.103,
    }


def test_other_chips_fill_hwmon_rows_and_keep_what_has_no_row() -> None:
    contents = {
        "hwmon/hwmon0/name": b"nct6779\n",
        "hwmon/hwmon0/fan2_input": b"1098\n",
        "hwmon/hwmon0/fan2_alarm": b"1\n",
        "hwmon/hwmon0/pwm1_auto_point1_temp": b"30000\n",
        "hwmon/hwmon0/intrusion0_alarm": b"0\n",
        "hwmon/hwmon0/fan2_safe": b"\n",
    }
    front = 'device="nct6775.656",chip="nct6779"'
    assert lines(board(*contents), contents) == {
        f'gpudaemon_hwmon_fan_rpm{{{front},sensor="fan2"}}': 1098.0,
        f'gpudaemon_hwmon_alarm{{{front},channel="fan2",sensor="fan2",alarm="alarm"}}': 1.0,
        f'gpudaemon_hwmon_alarm{{{front},channel="intrusion0",sensor="intrusion0",alarm="alarm"}}': 0.0,
        f'gpudaemon_hwmon_attribute{{{front},channel="pwm1",attribute="auto_point1_temp"}}': 30000.0,
        f'gpudaemon_hwmon_attribute{{{front},channel="fan2",attribute="safe"}}': None,
    }


def test_a_label_that_repeats_gets_its_channel() -> None:
    names = chip(
        0, "name", *(f"temp{n}_{item}" for n in (1, 2, 3) for item in ("input", "label", "crit_alarm"))
    )
    contents = filled(names) | {name: b"foosensor\n" for name in names if name.endswith("_label")}
    contents["hwmon/hwmon0/temp3_label"] = b"foosensor temp1\n"
    for device in (board(*names), gpu(*names)):
        sensors = [key for key in lines(device, contents) if "temperature_celsius" in key]
        assert len(sensors) == 3
        assert any('sensor="foosensor temp1"' in key for key in sensors)
        assert any('sensor="foosensor temp2"' in key for key in sensors)


def test_chips_that_share_name_and_labels_stay_apart() -> None:
    names = [
        *chip(9, "name", "temp1_input"),
        *chip(10, "name", "temp1_input"),
        *chip(11, "name", "temp1_input"),
    ]
    contents = filled(names, b"5\n")
    for number in (9, 10, 11):
        contents[f"hwmon/hwmon{number}/name"] = b"mt7996\n"
    chips = [key.partition('chip="')[2].partition('"')[0] for key in lines(board(*names), contents)]
    assert chips == ["mt7996", "mt7996 2", "mt7996 3"]
    sensors = [key.partition('sensor="')[2].partition('"')[0] for key in lines(gpu(*names), contents)]
    assert sensors == ["temp1", "mt7996 2 temp1", "mt7996 3 temp1"]


def test_no_chip_number_is_in_any_series() -> None:
    names = chip(7, "name", "temp1_input", "temp1_crit", "fan1_alarm")
    renumbered = [name.replace("hwmon7", "hwmon12") for name in names]
    assert set(lines(board(*names), filled(names))) == set(lines(board(*renumbered), filled(renumbered)))


def test_files_of_a_driver_older_than_chip_directories() -> None:
    names = ["name", "fan1_input", "fan1_label", "hwmon/hwmon2/uevent"]
    contents = {"name": b"applesmc\n", "fan1_label": b"Left side\n", "fan1_input": b"2160\n"}
    assert lines(board(*names), contents) == {
        'gpudaemon_hwmon_fan_rpm{device="nct6775.656",chip="applesmc",sensor="Left side"}': 2160.0
    }
    assert not POWER.wants(gpu("fan1_input"))


def test_names_are_needed_and_never_sampled() -> None:
    names = chip(
        0, "name", "temp1_label", "temp1_input", "temp1_reset_history", "update_interval", "power/control"
    )
    assert set(POWER.needs(board(*names))) == {"hwmon/hwmon0/name", "hwmon/hwmon0/temp1_label"}
    assert [planned.path for planned in POWER.attributes(board(*names), {})] == ["hwmon/hwmon0/temp1_input"]


def test_values_are_read_often_and_limits_seldom() -> None:
    names = chip(
        0, "temp1_input", "temp1_crit", "power1_cap", "power1_average", "pwm1", "pwm1_enable", "energy1_input"
    )
    cadences = {
        planned.path.rpartition("/")[2]: planned.cadence for planned in POWER.attributes(gpu(*names), {})
    }
    often = {name for name, cadence in cadences.items() if cadence is Cadence.NORMAL}
    assert often == {"temp1_input", "power1_average", "pwm1", "energy1_input"}
