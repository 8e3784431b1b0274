"""hwmon chips: names, units, and series that stay unique whatever the labels are."""

from collections.abc import Iterable
from pathlib import Path

from gpudaemon.collectors import collectors
from gpudaemon.model.attribute import Attribute, Cadence
from gpudaemon.model.device import Device, DeviceKind
from tests import captures
from tests import node_exporter_equivalents as node_exporter

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
        found = {key.partition('sensor="')[2].partition('"')[0] for key in sensors}
        assert found == {"foosensor temp1", "foosensor temp2", "foosensor temp1 temp3"}


def test_chips_that_share_name_and_labels_stay_apart() -> None:
    names = [
        *chip(9, "name", "temp1_input"),
        *chip(10, "name", "temp1_input"),
        *chip(11, "name", "temp1_input"),
    ]
    contents = filled(names, b"5\n")
    for number in (9, 10, 11):
        contents[f"hwmon/hwmon{number}/name"] = b"mt7996\n"
        contents[f"hwmon/hwmon{number}/temp1_input"] = b"%d000\n" % number
    found = lines(board(*names), contents)
    chips = {key.partition('chip="')[2].partition('"')[0]: value for key, value in found.items()}
    assert chips == {"mt7996": 9.0, "mt7996 2": 10.0, "mt7996 3": 11.0}
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
    names = chip(0, "name", "temp1_label", "temp1_input", "temp1_reset_history", "uevent", "power/control")
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


CHIP = """
beep_enable=1 cpu0_vid=1200 curr1_crit_alarm=0 curr1_input=2000 curr1_lowest=1500 curr1_max=3000
energy1_input=777 fan1_beep=0 fan1_fault=1 fan1_input=1500 fan1_pulses=4 humidity1_input=60000
in0_average=1100 in0_crit_alarm=0 in0_min=900 intrusion0_alarm=1 power1_average=2000000
power1_average_interval=300000 power1_cap_alarm=0 power1_is_battery=5 power1_max=250000000 pwm1=128
pwm1_freq=25000 temp1_alarm=0 temp1_crit=90000 temp1_emergency_hyst=70000 temp1_fault=1
temp1_input=40000 temp1_lowest=30000 temp1_max_alarm=0 temp1_max_hyst=45000 temp1_offset=1000
temp1_type=4 update_interval=1000 vrm=90
"""
NODE_EXPORTER = """
beep_enabled{sensor="beep_enable0"} 1
chip_names{chip_name="foo"} 1
cpu_vid_volts{sensor="cpu0"} 1.2
curr_amps{sensor="curr1"} 2
curr_crit_alarm_amps{sensor="curr1"} 0
curr_lowest_amps{sensor="curr1"} 1.5
curr_max_amps{sensor="curr1"} 3
energy_joule_total{sensor="energy1"} 0.000777
fan_beep_enabled{sensor="fan1"} 0
fan_fault{sensor="fan1"} 1
fan_pulses{sensor="fan1"} 4
fan_rpm{sensor="fan1"} 1500
humidity{sensor="humidity1"} 0.06
in_average_volts{sensor="in0"} 1.1
in_crit_alarm_volts{sensor="in0"} 0
in_min_volts{sensor="in0"} 0.9
intrusion_alarm{sensor="intrusion0"} 1
power_average_interval_seconds{sensor="power1"} 300
power_average_watt{sensor="power1"} 2
power_cap_alarm_watt{sensor="power1"} 0
power_is_battery_watt{sensor="power1"} 5e-06
power_max_watt{sensor="power1"} 250
pwm{sensor="pwm1"} 128
pwm_freq{sensor="pwm1"} 25000
temp_alarm{sensor="temp1"} 0
temp_celsius{sensor="temp1"} 40
temp_crit_celsius{sensor="temp1"} 90
temp_emergency_hyst_celsius{sensor="temp1"} 70
temp_fault{sensor="temp1"} 1
temp_lowest_celsius{sensor="temp1"} 30
temp_max_alarm_celsius{sensor="temp1"} 0
temp_max_hyst_celsius{sensor="temp1"} 45
temp_offset_celsius{sensor="temp1"} 1
temp_type{sensor="temp1"} 4
update_interval_seconds{sensor="update_interval0"} 1
voltage_regulator_version{sensor="vrm0"} 90
"""
"""What prometheus-node-exporter 1.11.1 prints for a chip with the files of `CHIP`, prefix and chip cut off."""


def test_a_chip_with_every_sort_of_file_shows_what_node_exporter_shows(tmp_path: Path) -> None:
    chip_path = tmp_path / "devices/platform/foo.1/hwmon/hwmon0"
    chip_path.mkdir(parents=True)
    (chip_path / "name").write_text("foo\n")
    for file in CHIP.split():
        name, _, value = file.partition("=")
        (chip_path / name).write_text(f"{value}\n")
    captures.link_classes(str(tmp_path), str(tmp_path / "devices"))
    theirs = [
        (f"node_hwmon_{name}", {**labels, "chip": "platform_foo_1"}, value)
        for name, labels, value in node_exporter.parse(NODE_EXPORTER)
    ]
    page = captures.page_of(str(tmp_path))
    assert page.malformed == []
    compared, different = node_exporter.differences(theirs, page.samples)
    assert different == [] and compared == 36


def test_what_moves_fast_is_read_fast_where_that_is_cheap() -> None:
    names = chip(
        3,
        *("name", "power1_average", "power1_cap", "freq1_input", "in0_input", "fan1_input"),
        *("temp1_input", "temp1_label", "temp2_input", "temp2_label", "temp3_input", "temp3_label"),
    )
    base = "hwmon/hwmon3/"
    labels = {
        f"{base}temp1_label": b"edge\n",
        f"{base}temp2_label": b"junction\n",
        f"{base}temp3_label": b"mem\n",
    }

    def fast(device: Device, name: bytes) -> set[str]:
        planned = POWER.attributes(device, {**labels, f"{base}name": name})
        return {one.path.removeprefix(base) for one in planned if one.cadence is Cadence.FAST}

    wanted = {"power1_average", "freq1_input", "temp1_input", "temp2_input"}
    assert fast(gpu(*names), b"amdgpu\n") == wanted
    # Where there is a momentary value, the average beside it is not what power is known by.
    both = gpu(*names, f"{base}power1_input")
    assert fast(both, b"amdgpu\n") == wanted - {"power1_average"} | {"power1_input"}
    # A chip of another kind may sit on a slow bus, also below the same device.
    assert fast(gpu(*names), b"ina3221\n") == fast(gpu(*names), b"") == set()
    other = Device(id="x", kind=DeviceKind.GPU, path="devices/x", driver="nouveau", names=frozenset(names))
    assert fast(other, b"nouveau\n") == fast(board(*names), b"amdgpu\n") == set()
