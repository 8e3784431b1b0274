"""What failures and slowness do to a file's cadence, and when a device is left alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.model.outcome import Outcome
from gpudaemon.pipeline.policy import DEMOTED_PERIODS, RETRY_GROUP, demoted_group, is_slow, retry_delay
from gpudaemon.pipeline.rest import Rest
from gpudaemon.reader.channel import DEMOTED, GROUPS

# Asking again


@pytest.mark.parametrize("outcome", [Outcome.ABSENT, Outcome.UNSUPPORTED, Outcome.DENIED])
def test_absent_files_are_asked_again_5_30_and_120_seconds_after_their_device_came(outcome: Outcome) -> None:
    moments, age = [], 0.1
    for times in range(1, 6):
        age += retry_delay(outcome, times, age)
        moments.append(round(age))
    assert moments == [5, 30, 120, 720, 1320]


def test_a_file_that_vanishes_late_waits_for_the_next_of_these_moments() -> None:
    assert retry_delay(Outcome.ABSENT, 1, 29.8) == pytest.approx(90.2)
    assert retry_delay(Outcome.ABSENT, 1, 5000.0) == 600


def test_a_busy_driver_is_asked_again_ever_more_seldom() -> None:
    delays = [retry_delay(Outcome.TRANSIENT, times, 10_000.0) for times in range(1, 12)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays == sorted(delays)
    assert delays[-1] == 60


@given(st.sampled_from(list(Outcome)), st.integers(1, 10_000), st.floats(0, 1e9))
def test_every_failure_is_asked_again_but_not_at_once(outcome: Outcome, times: int, age: float) -> None:
    assert 0.5 <= retry_delay(outcome, times, age) <= 600


# Slowness


@pytest.mark.parametrize(
    ("cost", "period", "slow"),
    [
        (0.019, 0.1, False),  # what a wake-up may take by chance
        (0.021, 0.1, True),
        (0.09, 1.0, False),
        (0.11, 1.0, True),
        (0.9, 60.0, False),
        (1.1, 60.0, True),  # a second in the driver is too much, however seldom
    ],
)
def test_slow_is_a_tenth_of_the_period(cost: float, period: float, slow: bool) -> None:
    assert is_slow(cost, period) is slow


@given(st.floats(0.02, 100), st.sampled_from([0.1, 1.0, 15.0, 60.0, 300.0, 600.0]))
def test_a_demoted_file_is_read_more_seldom_and_costs_two_percent_at_most(cost: float, period: float) -> None:
    group = demoted_group(cost, period)
    assert DEMOTED <= group < RETRY_GROUP < GROUPS
    longer = DEMOTED_PERIODS[group - DEMOTED]
    assert longer > period
    assert cost <= 0.02 * longer or longer == DEMOTED_PERIODS[-1]
    # No seldomer than needed.
    assert all(cost > 0.02 * other for other in DEMOTED_PERIODS if period < other < longer)


# Resting


def test_an_idle_device_is_rested_for_twice_its_delay() -> None:
    rest = Rest()
    until = rest.look(100.0, armed=True, delay=5.0, idle=True)
    assert 110.0 <= until <= 112.0


@pytest.mark.parametrize(("armed", "idle"), [(False, True), (True, False), (False, False)])
def test_a_busy_or_unarmed_device_is_never_rested(armed: bool, idle: bool) -> None:
    rest = Rest()
    assert all(rest.look(float(now), armed=armed, delay=5.0, idle=idle) == 0 for now in range(500))


def rests(rest: Rest, begin: float, end: float, *, delay: float = 5.0) -> list[float]:
    """Moments at which rests began, of a device that somebody else keeps awake."""
    found, now = [], begin
    while now < end:
        until = rest.look(now, armed=True, delay=delay, idle=True)
        if until:
            found.append(now)
            now = until
        now += 1.0
    return found


def test_a_device_that_others_keep_awake_is_rested_ever_more_seldom() -> None:
    began = rests(Rest(), 0.0, 7200.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 60
    assert 600 <= gaps[-1] < 640
    # Of two hours, it is read in all but a few minutes.
    assert len(began) < 25


def test_work_and_sleep_begin_the_count_anew() -> None:
    for event in ("work", "sleep"):
        rest = Rest()
        rests(rest, 0.0, 3600.0)
        assert rest.look(3601.0, armed=True, delay=5.0, idle=True) == 0
        if event == "work":
            rest.look(3602.0, armed=True, delay=5.0, idle=False)
        else:
            rest.slept()
        assert rest.look(3603.0, armed=True, delay=5.0, idle=True) > 3603


def test_a_client_ends_the_rest() -> None:
    rest = Rest()
    rest.look(0.0, armed=True, delay=5.0, idle=True)
    rest.disturbed()
    assert rest.until == 0.0
