"""Programmed values: the truth and what a sensor shows of it."""

import math
import random

import pytest

from gpudaemon.mock.schedule import Schedule, Sensor, generate, parse

PULSES = Schedule(90.0, ((1.0, 0.25, 400.0), (1.25, 0.5, 300.0), (4.0, 0.1, 20.0)))


@pytest.mark.parametrize(
    ("seconds", "watts"),
    [(-5, 90), (0.999, 90), (1, 400), (1.249, 400), (1.25, 300), (1.74, 300), (1.75, 90), (4.05, 20), (9, 90)],
)
def test_value(seconds: float, watts: float) -> None:
    assert PULSES.at(seconds) == watts


def test_integral_of_known_pulses() -> None:
    assert PULSES.integral(0, 10) == pytest.approx(900 + 0.25 * 310 + 0.5 * 210 - 0.1 * 70)
    assert PULSES.integral(1.1, 1.3) == pytest.approx(0.15 * 400 + 0.05 * 300)
    assert PULSES.integral(-3, -1) == pytest.approx(180)
    assert Schedule(5.0).integral(2, 4) == 10


def test_integral_is_the_sum_of_values() -> None:
    source = random.Random(4)
    schedule = Schedule(
        100.0,
        [(n + source.random() / 2, source.uniform(0.07, 0.33), 100 + 300 * source.random()) for n in range(50)],
    )
    steps = 200_000
    total = math.fsum(schedule.at(3.3 + 40 * (n + 0.5) / steps) for n in range(steps)) * 40 / steps
    assert schedule.integral(3.3, 43.3) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    ("idle", "pulses", "message"),
    [
        (1.0, [(0, 0, 5)], "positive durations"),
        (1.0, [(0, 2, 5), (1, 1, 5)], "beyond the start"),
        (1.0, [(3, 1, 5), (1, 1, 5)], "beyond the start"),
        (math.nan, [], "finite"),
        (1.0, [(0, 1, math.inf)], "finite"),
    ],
)
def test_schedules_that_cannot_be(idle: float, pulses: list[tuple[float, float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(idle, pulses)


def test_sensor_holds_its_value_between_updates() -> None:
    sensor = Sensor(scale=1e6, update=0.1, phase=0.03)
    assert sensor.value(PULSES, 1.02) == 90_000_000  # updated at 0.93
    assert sensor.value(PULSES, 1.0301) == 400_000_000
    assert sensor.value(PULSES, 1.3299) == 400_000_000  # updated at 1.23, 0.08 s after the pulse has ended
    assert sensor.value(PULSES, 1.3301) == 300_000_000


def test_sensor_averages() -> None:
    sensor = Sensor(average=0.5)
    assert sensor.value(PULSES, 1.25) == 245  # half of the half second at 90, half at 400
    assert sensor.value(PULSES, 0.9) == 90


def test_sensor_rounds_down_to_its_step() -> None:
    assert Sensor(scale=1e6, step=1_000_000).value(Schedule(90.7), 0) == 90_000_000
    assert Sensor(scale=100).value(Schedule(0.57), 0) == 57


@pytest.mark.parametrize("wrong", [{"step": 0}, {"update": -1.0}, {"average": -0.1}, {"phase": math.nan}])
def test_sensors_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Sensor(**wrong)  # type: ignore[arg-type]


def test_content_is_counted_from_its_moment() -> None:
    content = generate(*parse({"idle": 90, "pulses": [[1, 0.25, 400]]}, {"scale": 1e6}), 7.0)
    assert (content(7.99), content(8.0), content(8.25)) == (b"90000000\n", b"400000000\n", b"90000000\n")
    with pytest.raises(TypeError):
        parse({"idle": 1, "pulses": []}, {"colour": 1})
