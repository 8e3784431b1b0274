"""Files of a live host that follow a programme, as a reader meets them in real time."""

import os
import time
from collections.abc import Iterator

import pytest

from gpudaemon.mock import ControlError, HostProcess, Schedule, Sensor

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

POWER = "sys/class/drm/card0/device/hwmon/hwmon0/power1_input"
OTHER = "sys/class/drm/card1/device/hwmon/hwmon1/power1_input"


@pytest.fixture(scope="module")
def host() -> Iterator[HostProcess]:
    with HostProcess("mi300x8", gpus=2) as host:
        yield host


def samples(host: HostProcess, path: str, until: float) -> list[tuple[float, float, int]]:
    """(before, after, content) of reads on one descriptor, until a moment of CLOCK_MONOTONIC."""
    found = []
    with open(os.path.join(host.directory, path), "rb", buffering=0) as stream:
        while time.monotonic() < until:
            before = time.monotonic()
            content = os.pread(stream.fileno(), 64, 0)
            found.append((before, time.monotonic(), int(content)))
            time.sleep(0.002)
    return found


def test_values_are_those_of_the_moment_of_the_read(host: HostProcess) -> None:
    schedule = Schedule(140.0, [(n * 0.15, 0.07, 300.0 + n) for n in range(10)])
    began = time.monotonic() + 0.2
    assert host.control.drive(POWER, schedule, Sensor(scale=1e6), since=began) == 1
    read = samples(host, POWER, began + 1.7)
    for before, after, value in read:
        # The answer was made between these two moments; across an edge both sides are right. A busy machine may
        # let a whole pulse pass in between.
        if after - before < 0.07:
            assert value / 1e6 in (schedule.at(before - began), schedule.at(after - began))
    seen = {value // 1_000_000 for _, _, value in read}
    assert seen <= {140, *range(300, 310)}
    assert len(seen) > 6
    with open(os.path.join(host.directory, OTHER)) as stream:
        assert int(stream.read()) % 1_000_000 == 0  # the other card follows its profile
    assert host.control.undrive(POWER) == 1
    assert host.control.undrive(POWER) == 0


def test_a_sensor_that_updates_rarely_holds_its_value(host: HostProcess) -> None:
    ramp = Schedule(0.0, [(n * 0.001, 0.001, float(n)) for n in range(1, 2000)])
    began = time.monotonic()
    host.control.drive(POWER, ramp, Sensor(scale=1000, update=0.1), since=began)
    values = [value for _, _, value in samples(host, POWER, began + 1.05)]
    host.control.undrive(POWER)
    seen = sorted(set(values))
    assert values == sorted(values)
    # Only values of 0.1 s, 0.2 s and so on.
    assert all(value % 100_000 < 1001 or value % 100_000 > 98_999 for value in seen)
    assert 5 <= len(seen) <= 11


def test_jitter_delays_each_read_differently(host: HostProcess) -> None:
    host.control.fault(POWER, "latency", seconds=0.005)
    host.control.fault(POWER, "jitter", seconds=0.03)
    began = time.monotonic()
    took = sorted(after - before for before, after, _ in samples(host, POWER, began + 1.0))
    host.control.release(POWER)
    assert took[0] >= 0.005
    assert took[-1] - took[0] > 0.015


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("sys/class/drm/card0", {"schedule": {"idle": 1, "pulses": []}, "sensor": {}}),
        (POWER, {"schedule": {"idle": 1, "pulses": [[0, -1, 2]]}, "sensor": {}}),
        (POWER, {"schedule": {"idle": 1}, "sensor": {}}),
        (POWER, {"schedule": {"idle": 1, "pulses": []}, "sensor": {"colour": 1}}),
        ("sys/no/such", {"schedule": {"idle": 1, "pulses": []}, "sensor": {}}),
    ],
)
def test_what_cannot_be_driven_is_refused(host: HostProcess, path: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ControlError):
        host.control.request("drive", path=path, since=0.0, **arguments)
