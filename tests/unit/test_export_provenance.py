"""Who gives each row, from what, and where it was seen."""

import json
import os
import sys
from pathlib import Path

import pytest

from gpudaemon.collectors import collectors
from gpudaemon.drivers import drivers
from gpudaemon.export.provenance import claims, file_pattern, rows
from gpudaemon.export.reference import reference
from gpudaemon.metrics import gpu
from tests import captures
from tests import seen as survey

DATA = Path(sys.modules["gpudaemon.export.provenance"].__file__ or "").with_name("seen.json")


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("hwmon/hwmon12/temp2_input", "hwmon/hwmon*/temp*_input"),
        ("hwmon/hwmon0/pwm1", "hwmon/hwmon*/pwm*"),
        ("drm/card1/gt/gt0/rps_RP0_freq_mhz", "drm/card*/gt/gt*/rps_RP0_freq_mhz"),
        ("tile0/gt1/gtidle/idle_residency_ms", "tile*/gt*/gtidle/idle_residency_ms"),
        ("tile0/gt0/engines/rcs/job_timeout_ms", "tile*/gt*/engines/*/job_timeout_ms"),
        ("drm/card0/engine/vecs1/stop_timeout_ms", "drm/card*/engine/*/stop_timeout_ms"),
        ("devfreq/fde60000.gpu/cur_freq", "devfreq/*/cur_freq"),
        ("sriov_admin/vf3/profile/vram_quota", "sriov_admin/vf*/profile/vram_quota"),
        ("pp_dpm_vclk1", "pp_dpm_vclk1"),
        ("ras/mp0_err_count", "ras/mp0_err_count"),
    ],
)
def test_numbers_that_differ_from_host_to_host_are_left_out(path: str, pattern: str) -> None:
    assert file_pattern(path) == pattern


def test_every_row_somebody_announces_has_a_line() -> None:
    found = claims()
    assert set(found) == {row.name for row in rows()}
    for collector in collectors().values():
        for row in collector.emits:
            assert found[row.name], row.name


def test_every_row_a_driver_announces_is_claimed_by_it_or_made_of_others() -> None:
    found = claims()
    for driver in drivers().values():
        for row in driver.emits:
            by = {claim.by for claim in found[row.name]}
            made = any(claim.made_of for claim in found[row.name])
            assert (driver.kernel_driver or "generic") in by or made, (driver.kernel_driver, row.name)


def test_what_no_capture_shows_is_printed_as_a_claim() -> None:
    text = reference(rows(), claims())
    lines = [
        line for line in text.splitlines() if line.startswith("| `gpudaemon_gpu_driver_status` | habanalabs ")
    ]
    assert lines == ["| `gpudaemon_gpu_driver_status` | habanalabs | `status` | **claimed, never seen** |"]
    (seen,) = (line for line in text.splitlines() if line.startswith("| `gpudaemon_gpu_idle_state` | xe |"))
    assert seen.endswith("| `tile*/gt*/gtidle/idle_status` | lact/intel/a380-xe, lact/intel/b580 |")


def test_a_file_never_seen_is_told_from_one_that_was() -> None:
    (xe,) = [claim for claim in claims()["gpudaemon_gpu_clock_max_hertz"] if claim.by == "xe"]
    assert xe.shown == {"tile*/gt*/freq0/rp0_freq"}
    assert xe.files - xe.shown == {"tile*/memory/freq0/max_freq"}


def test_windows_and_counters_are_made_of_what_is_read() -> None:
    found = claims()
    assert [claim.made_of for claim in found[gpu.BUSY_WINDOW.mean.name]] == [gpu.BUSY.name]
    assert {(claim.by, claim.made_of) for claim in found[gpu.ENERGY.name]} >= {
        ("power", ""),
        ("the daemon", gpu.POWER.name),
    }


def test_the_data_names_rows_that_exist() -> None:
    data = json.loads(DATA.read_text(encoding="utf-8"))
    assert set(data) <= {row.name for row in rows()}
    assert all(said["in"] for given in data.values() for said in given.values())


def test_what_was_seen_is_fresh() -> None:
    """All captures are laid out and read again."""
    captures.capture("lact")
    fresh = f"make it anew: {captures.VARIABLE}=DIR python -m tests.seen > gpudaemon/export/seen.json"
    assert DATA.read_text(encoding="utf-8") == survey.rendered(os.environ[captures.VARIABLE]), fresh
