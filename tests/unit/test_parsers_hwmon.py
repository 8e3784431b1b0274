"""hwmon file names, PCIe link words and AER lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.hwmon import DIVISORS, SensorName, is_chip_directory, sensor_name
from gpudaemon.parsers.pcie import aer_counters, link_speed, link_width


@given(
    st.sampled_from(sorted(DIVISORS)),
    st.integers(0, 9999),
    st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
)
def test_sensor_names_come_back(kind: str, channel: int, item: str) -> None:
    assert sensor_name(f"{kind}{channel}_{item}") == SensorName(kind, channel, item)


@given(st.text(max_size=30))
def test_any_name_is_a_sensor_or_none(name: str) -> None:
    parts = sensor_name(name)
    if parts is not None:
        assert name == f"{parts.kind}{parts.channel}" + (f"_{parts.item}" if parts.item else "")


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "uevent",
        "update_interval",
        "temp",
        "temp_input",
        "temp1",
        "xtemp1_input",
        "temp1_",
        "in\u0661_input",
    ],
)
def test_other_files_of_a_chip_are_no_sensors(name: str) -> None:
    assert sensor_name(name) is None


def test_pwm_is_a_value_without_an_item() -> None:
    assert sensor_name("pwm1") == SensorName("pwm", 1, "")


def test_chip_directories() -> None:
    assert is_chip_directory("hwmon12")
    assert not any(map(is_chip_directory, ("hwmon", "hwmonx", "power", "hwmon1/power")))


@given(st.integers(1, 128), st.integers(0, 9))
def test_link_speeds_come_back(whole: int, tenth: int) -> None:
    wanted = pytest.approx((whole * 10 + tenth) * 1e8)
    assert link_speed(b"%d.%d GT/s PCIe\n" % (whole, tenth)) == (wanted,)


def test_link_speed_words() -> None:
    assert link_speed(b"16.0 GT/s PCIe\n") == (16e9,)
    assert link_speed(b"2.5 GT/s PCIe\n") == (2.5e9,)
    assert link_speed(b"8 GT/s\n") == (8e9,)
    assert link_speed(b"Unknown\n") == link_speed(b"Unknown speed\n") == (None,)
    for content in (b"", b"16\n", b"GT/s PCIe\n", b"16.0 GT/s PCIe x\n", b"16.0GT/s\n"):
        with pytest.raises(Malformed):
            link_speed(content)


def test_link_width_255_is_not_known() -> None:
    assert link_width(b"16\n") == (16.0,)
    assert link_width(b"0\n") == (0.0,)
    assert link_width(b"255\n") == (None,)
    with pytest.raises(Malformed, match="out_of_range"):
        link_width(b"65\n")


NAMES = st.lists(
    st.from_regex(r"[A-Z][A-Za-z]{1,12}( [A-Za-z]{1,8})?", fullmatch=True).filter(
        lambda name: not name.startswith("TOTAL")
    ),
    unique=True,
    min_size=1,
    max_size=20,
)


@given(NAMES, st.integers(0, 2**64 - 1))
def test_aer_lists_come_back(names: list[str], total: int) -> None:
    content = "".join(f"{name} {number}\n" for number, name in enumerate(names)) + f"TOTAL_ERR_COR {total}\n"
    counters, found = aer_counters(content.encode())
    assert dict(counters) == {name: number for number, name in enumerate(names)}
    assert found == total


def test_aer_list_as_printed() -> None:
    counters, total = aer_counters(
        b"RxErr 0\nBadTLP 3\ndev_cor_errs_bit[3] 1\nReceiver Error 2\nTOTAL_ERR_COR 6\n"
    )
    assert counters == (("RxErr", 0), ("BadTLP", 3), ("dev_cor_errs_bit[3]", 1), ("Receiver Error", 2))
    assert total == 6


def test_aer_names_seen_twice_are_one_series() -> None:
    assert aer_counters(b"A 1\nA 2\n") == ((("A", 3),), None)


@given(st.binary(max_size=400))
def test_any_bytes_in_pcie_files(content: bytes) -> None:
    for decode in (link_speed, link_width, aer_counters):
        try:
            decode(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS
