"""A device becomes a plan: pure, gate first, nothing forbidden, no series twice."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.discovery.scan import scan
from gpudaemon.metrics import gpu, pcie
from gpudaemon.mock import build
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.forbidden import GATED, is_forbidden
from gpudaemon.model.metric import Kind
from gpudaemon.pipeline.derived import ALIASES
from gpudaemon.pipeline.plan import (
    GATE,
    DevicePlan,
    Selection,
    facts_needed,
    facts_plan,
    make_plan,
    reader_plan,
)

PATH = "devices/pci0000:00/0000:03:00.0"


def device(*names: str, driver: str = "amdgpu", kind: DeviceKind = DeviceKind.GPU) -> Device:
    return Device(
        id="0000:03:00.0", kind=kind, path=PATH, subsystem="pci", driver=driver, names=frozenset(names)
    )


def test_facts_come_first_and_each_once() -> None:
    needed = facts_needed(device("vbios_version", "unique_id", "vendor", "gpu_busy_percent", GATE))
    assert set(needed) >= {"vbios_version", "unique_id", "vendor"}
    assert "gpu_busy_percent" not in needed
    assert len(set(needed)) == len(needed)
    assert facts_needed(device()) == ()
    plan = facts_plan(device(*needed, GATE), needed)
    assert [file.path for file in plan.files] == [GATE, *needed]
    assert plan.gated
    assert plan.blocks == {}


def test_the_gate_is_file_zero_where_there_is_one() -> None:
    gated = make_plan(device("gpu_busy_percent", GATE), {})
    assert gated.gated
    assert [file.path for file in gated.files] == [GATE, "gpu_busy_percent"]
    free = make_plan(device("gpu_busy_percent"), {})
    assert not free.gated
    assert [file.path for file in free.files] == ["gpu_busy_percent"]


def test_collectors_that_are_off_plan_nothing() -> None:
    one = device("gpu_busy_percent", "vbios_version", "current_link_speed", GATE)
    assert facts_needed(one, Selection(frozenset())) == ()
    plan = make_plan(one, {}, Selection(frozenset()))
    assert (plan.blocks, [file.path for file in plan.files]) == ({}, [GATE])
    some = make_plan(one, {}, Selection(frozenset({"pcie"})))
    assert "gpu_busy_percent" not in [file.path for file in some.files]
    assert gpu.INFO not in some.blocks


def test_the_reader_gets_whole_paths() -> None:
    plan = make_plan(device("gpu_busy_percent", GATE), {})
    told = reader_plan(plan, 9, "/mock/sys", 0.5)
    assert told["paths"] == [f"/mock/sys/{PATH}/{GATE}", f"/mock/sys/{PATH}/gpu_busy_percent"]
    assert (told["lane"], told["deadline"], told["gate"], len(told["limits"])) == (9, 0.5, True, 2)


@pytest.mark.parametrize("profile", ["mi300x8", "rx7900xtx", "mixed"])
def test_plans_of_whole_hosts_hold_together(profile: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = str(tmp_path_factory.mktemp(profile))
    build(profile, directory)
    devices = scan(f"{directory}/sys")
    assert devices
    everything: set[str] = set()
    for one in devices:
        plan = make_plan(one, {})
        paths = [file.path for file in plan.files]
        assert len(set(paths)) == len(paths)
        assert set(paths) <= one.names
        assert not [path for path in paths if is_forbidden(path)]
        # Files lie one behind the other in the list of values, each value in one series but for second names.
        places = [at for file in plan.files for at in range(file.first, file.first + file.count)]
        assert len(set(places)) == len(places)
        second = {alias.row for alias in ALIASES}
        used = [at for metric, block in plan.blocks.items() for at in block.indexes if metric not in second]
        assert len(set(used)) == len(used)
        assert max(used, default=0) < max(1, len(plan.initial))
        prefixes = [prefix for block in plan.blocks.values() for prefix in block.prefixes]
        assert len(set(prefixes)) == len(prefixes)
        assert not everything & set(prefixes)
        everything |= set(prefixes)
        kinds = {metric for metric in plan.blocks if metric.kind is Kind.COUNTER}
        assert {prefix for prefix, _ in plan.counters} == {
            prefix for metric in kinds for prefix in plan.blocks[metric].prefixes
        }


NAMES = [
    GATE,
    "gpu_busy_percent",
    "mem_busy_percent",
    "pp_dpm_sclk",
    "vbios_version",
    "xgmi_error",
    "pcie_bw",
    "rom",
    "aer_dev_fatal",
    "current_link_speed",
    "ras/umc_err_count",
    "fw_version/smc_fw_version",
    "hwmon/hwmon0/name",
    "hwmon/hwmon0/temp1_input",
    "hwmon/hwmon0/temp1_label",
    "hwmon/hwmon0/power1_average",
    "hwmon/hwmon1/temp1_input",
    "power/control",
    "power/autosuspend_delay_ms",
    "numa_node",
]


@given(
    st.frozensets(st.sampled_from(NAMES)),
    st.sampled_from(list(DeviceKind)),
    st.sampled_from(["amdgpu", "i915", "", "unheard-of"]),
    st.dictionaries(st.sampled_from(NAMES), st.none() | st.binary(max_size=20)),
)
def test_any_device_with_any_facts_can_be_planned(
    names: frozenset[str], kind: DeviceKind, driver: str, facts: dict[str, bytes | None]
) -> None:
    one = device(*names, driver=driver, kind=kind)
    # `config` is never listed, and a fact only where the power state can be looked at before.
    gated = {GATED} if "power/runtime_status" in names else set()
    assert set(facts_needed(one)) <= names | gated
    plan = make_plan(one, facts)
    paths = [file.path for file in plan.files]
    assert set(paths) <= names
    assert len(set(paths)) == len(paths)
    assert not {"xgmi_error", "pcie_bw", "rom"} & set(paths)
    assert (paths[:1] == [GATE]) is (GATE in names) or not plan.gated
    prefixes = [prefix for block in plan.blocks.values() for prefix in block.prefixes]
    assert len(set(prefixes)) == len(prefixes)


HWMON = "hwmon/hwmon0/"
CARD = [
    *(GATE, "gpu_busy_percent", "mem_busy_percent", "current_link_speed", "aer_dev_fatal", "vendor"),
    *(HWMON + name for name in ("name", "power1_average", "power1_cap", "temp1_input", "temp1_crit")),
    *("power/control", "power/autosuspend_delay_ms", "power/runtime_active_time"),
]
CARD_FACTS = {HWMON + "name": b"amdgpu\n"}
RESTING = {"gpu_busy_percent", "mem_busy_percent", "power/control", "power/autosuspend_delay_ms"}


def paths(plan: DevicePlan) -> set[str]:
    return {file.path for file in plan.files} - {GATE}


def names_of(plan: DevicePlan) -> set[str]:
    return {metric.name for metric in plan.blocks}


def chosen(expression: str, limit: int = 1_000_000) -> DevicePlan:
    wanted = re.compile(expression).fullmatch
    return make_plan(device(*CARD), CARD_FACTS, Selection(None, lambda name: wanted(name) is not None, limit))


def test_files_nobody_wants_anything_of_are_not_read() -> None:
    plan = chosen("gpudaemon_gpu_power_watts")
    assert names_of(plan) == {"gpudaemon_gpu_power_watts"}
    assert paths(plan) == {HWMON + "power1_average"} | RESTING
    nothing = chosen("nothing")
    assert (nothing.blocks, paths(nothing)) == ({}, RESTING)
    assert nothing.windows == nothing.integrals == nothing.updates == ()


def test_what_is_derived_keeps_the_files_it_is_made_of() -> None:
    energy = chosen("gpudaemon_gpu_energy_joules_total")
    assert names_of(energy) == {"gpudaemon_gpu_energy_joules_total"}
    assert paths(energy) == {HWMON + "power1_average"} | RESTING
    capped = chosen("gpudaemon_gpu_power_above_cap_seconds_total")
    assert paths(capped) == {HWMON + "power1_average", HWMON + "power1_cap"} | RESTING
    windows = chosen("gpudaemon_gpu_power_window_maximum_watts")
    assert len(windows.blocks[gpu.POWER_WINDOW.maximum].prefixes) == 2
    assert paths(windows) == {HWMON + "power1_average"} | RESTING
    updates = chosen("gpudaemon_gpu_power_sensor_update_seconds")
    assert paths(updates) == {HWMON + "power1_average"} | RESTING


def test_rows_found_in_contents_are_wanted_or_not() -> None:
    both = chosen("gpudaemon_pcie_aer_.*")
    assert paths(both) == {"aer_dev_fatal"} | RESTING
    one = chosen("gpudaemon_pcie_aer_errors_total")
    file = next(file for file in one.files if file.path == "aer_dev_fatal")
    assert file.unwanted == {pcie.AER_MESSAGES}


def test_a_limit_drops_the_same_series_each_time() -> None:
    whole = make_plan(device(*CARD), CARD_FACTS)
    count = sum(len(block.prefixes) for block in whole.blocks.values())
    assert (whole.dropped, whole.room) == (0, 1_000_000 - count)
    for limit in (0, 1, 5, count - 1, count, count + 3):
        plan = make_plan(device(*CARD), CARD_FACTS, Selection(limit=limit))
        served = [prefix for block in plan.blocks.values() for prefix in block.prefixes]
        assert len(served) == min(limit, count)
        assert plan.dropped == count - len(served)
        assert plan.room == limit - len(served)
        assert plan.blocks == make_plan(device(*CARD), CARD_FACTS, Selection(limit=limit)).blocks
    # What is made of other series goes first, then the collectors from behind: gpu stays longest.
    base = make_plan(device(*CARD), CARD_FACTS, Selection(limit=12))
    assert not any("window" in name or name.endswith("joules_total") for name in names_of(base))
    few = make_plan(device(*CARD), CARD_FACTS, Selection(limit=3))
    assert names_of(few) == {"gpudaemon_gpu_info", "gpudaemon_gpu_busy_ratio"}
    assert HWMON + "temp1_input" not in paths(few)


@pytest.mark.parametrize(
    ("fast", "lengths"), [(0.1, {"15s", "60s"}), (3, {"15s", "60s"}), (3.1, {"60s"}), (15, set())]
)
def test_windows_exist_where_enough_readings_fit(fast: float, lengths: set[str]) -> None:
    plan = make_plan(device(*CARD), CARD_FACTS, Selection(fast=fast))
    rows = plan.blocks.get(gpu.POWER_WINDOW.mean)
    found = set() if rows is None else {re.findall('window="([^"]+)"', prefix)[0] for prefix in rows.prefixes}
    assert found == lengths
    # mem_busy_percent is not read fast: no windows of it
    busy = plan.blocks.get(gpu.BUSY_WINDOW.mean)
    assert len(busy.prefixes if busy is not None else ()) == len(lengths)
