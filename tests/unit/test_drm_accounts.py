"""What clients used, added up: engine time of each kind of driver, sums that never fall, owners."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.collectors.drm_client.accounts import OTHERS, Accounts, Reading
from gpudaemon.collectors.drm_client.compute import Compute, ComputeReading, measure_of
from gpudaemon.metrics import drm_client as rows
from gpudaemon.model.metric import Kind, Metric
from gpudaemon.parsers.fdinfo import Client, Engine

GPU = "0000:03:00.0"
S = 1_000_000_000


def reading(
    at: float, client: int, *, owner: str = "unit/a", pid: int = 1, memory: int = 0, **engines: Engine
) -> Reading:
    one = Client("x", client, engines=engines, memory={"vram": {"total": memory}} if memory else {})
    return Reading(at, (pid, 100 + pid), f"app{pid}", owner, one)


def busy(seconds: float) -> Engine:
    return Engine(busy=round(seconds * S))


def page(accounts: Accounts | Compute) -> dict[tuple[Metric, tuple[str, ...]], float]:
    found: dict[tuple[Metric, tuple[str, ...]], float] = {}
    for metric, labels, value in accounts.rows():
        assert (metric, labels) not in found, "each series once"
        assert len(labels) == len(metric.labels)
        found[metric, labels] = value
    return found


def begun(readings: Iterable[Reading] = (), **options: int) -> Accounts:
    accounts = Accounts(GPU, **options)
    accounts.update(0.0, readings)
    return accounts


def test_increments_are_added_and_the_past_before_the_daemon_is_not() -> None:
    accounts = begun([reading(0, 7, gfx=busy(1000))])
    accounts.update(5.0, [reading(5, 7, gfx=busy(1002.5))])
    found = page(accounts)
    assert found[rows.ENGINE_BUSY, (GPU, "gfx")] == 2.5
    assert found[rows.ENGINE_RATIO, (GPU, "gfx")] == 0.5
    assert found[rows.OWNER_ENGINE_BUSY, (GPU, "unit/a", "gfx")] == 2.5


def test_a_client_that_came_later_counts_from_its_beginning() -> None:
    accounts = begun()
    accounts.update(5.0, [reading(5, 7, gfx=busy(1.25))])
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "gfx")] == 1.25


def test_the_time_of_dead_clients_stays() -> None:
    accounts = begun()
    accounts.update(5.0, [reading(5, 7, gfx=busy(3))])
    accounts.update(10.0, [], ended=[7])
    found = page(accounts)
    assert found[rows.ENGINE_BUSY, (GPU, "gfx")] == 3
    assert found[rows.OWNER_ENGINE_BUSY, (GPU, "unit/a", "gfx")] == 3
    assert found[rows.CLIENTS, (GPU,)] == 0
    assert found[rows.OWNER_CLIENTS, (GPU, "unit/a")] == 0
    assert found[rows.ENGINE_RATIO, (GPU, "gfx")] == 0


def test_a_counter_that_steps_back_is_held() -> None:
    accounts = begun()
    accounts.update(5.0, [reading(5, 7, gfx=busy(3))])
    accounts.update(10.0, [reading(10, 7, gfx=busy(2.9))])
    accounts.update(15.0, [reading(15, 7, gfx=busy(3.5))])
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "gfx")] == 3.5


def test_capacity_is_what_a_ratio_is_of() -> None:
    accounts = begun([reading(0, 7, video=Engine(busy=0, capacity=2))])
    accounts.update(5.0, [reading(5, 7, video=Engine(busy=5 * S, capacity=2))])
    found = page(accounts)
    assert found[rows.ENGINE_RATIO, (GPU, "video")] == 0.5
    assert found[rows.ENGINE_CAPACITY, (GPU, "video")] == 2
    assert found[rows.ENGINE_BUSY, (GPU, "video")] == 5


def xe(cycles: int, total: int, capacity: int = 1) -> Engine:
    return Engine(cycles=cycles, total_cycles=total, capacity=capacity)


def test_cycles_against_a_clock_are_seconds() -> None:
    """19.2 MHz, as xe's timestamps run; 30 % busy."""
    hertz = 19_200_000
    accounts = begun([reading(0, 7, rcs=xe(100, 10 * hertz))])
    for turn in range(1, 4):
        at = 5.0 * turn
        accounts.update(at, [reading(at, 7, rcs=xe(100 + int(1.5 * turn * hertz), (10 + 5 * turn) * hertz))])
    found = page(accounts)
    assert found[rows.ENGINE_BUSY, (GPU, "rcs")] == pytest.approx(4.5)
    assert found[rows.ENGINE_RATIO, (GPU, "rcs")] == pytest.approx(0.3)
    assert found[rows.ENGINE_CYCLES, (GPU, "rcs")] == pytest.approx(4.5 * hertz)


def test_a_new_client_of_a_clock_counts_when_the_clock_is_known() -> None:
    hertz = 1000
    accounts = begun()
    accounts.update(5.0, [reading(5, 7, rcs=xe(2 * hertz, 100 * hertz))])
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "rcs")] == 0
    accounts.update(10.0, [reading(10, 7, rcs=xe(3 * hertz, 105 * hertz))])
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "rcs")] == pytest.approx(3)
    accounts.update(
        15.0, [reading(15, 7, rcs=xe(3 * hertz, 110 * hertz)), reading(15, 8, rcs=xe(hertz, 110 * hertz))]
    )
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "rcs")] == pytest.approx(4)


def test_a_clock_that_began_anew_gives_no_nonsense() -> None:
    accounts = begun([reading(0, 7, rcs=xe(0, 10**9))])
    accounts.update(5.0, [reading(5, 7, rcs=xe(500, 1000))])
    accounts.update(10.0, [reading(10, 7, rcs=xe(1500, 6000))])
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "rcs")] == pytest.approx(1.0)


def test_panfrost_and_msm_have_time_cycles_and_frequency() -> None:
    fragment = Engine(busy=0, cycles=0, max_hertz=800_000_000)
    accounts = begun([reading(0, 7, fragment=fragment)])
    later = Engine(busy=2 * S, cycles=1_200_000_000, max_hertz=800_000_000)
    accounts.update(5.0, [reading(5, 7, fragment=later)])
    found = page(accounts)
    assert found[rows.ENGINE_BUSY, (GPU, "fragment")] == 2
    assert found[rows.ENGINE_CYCLES, (GPU, "fragment")] == 1_200_000_000
    assert found[rows.ENGINE_MAX_HERTZ, (GPU, "fragment")] == 800_000_000


def test_cycles_and_frequency_alone_are_time_at_full_speed() -> None:
    accounts = begun([reading(0, 7, gpu=Engine(cycles=0, max_hertz=1000))])
    accounts.update(5.0, [reading(5, 7, gpu=Engine(cycles=2500, max_hertz=1000))])
    assert page(accounts)[rows.ENGINE_BUSY, (GPU, "gpu")] == 2.5


def test_memory_is_of_the_clients_that_are_there() -> None:
    accounts = begun()
    accounts.update(
        5.0, [reading(5, 7, memory=100), reading(5, 8, memory=20), reading(5, 9, owner="b", memory=3)]
    )
    found = page(accounts)
    assert found[rows.OWNER_MEMORY, (GPU, "unit/a", "vram", "total")] == 120
    assert found[rows.OWNER_MEMORY, (GPU, "b", "vram", "total")] == 3
    accounts.update(10.0, [reading(10, 8, memory=20)], ended=[7, 9])
    found = page(accounts)
    assert found[rows.OWNER_MEMORY, (GPU, "unit/a", "vram", "total")] == 20
    assert (rows.OWNER_MEMORY, (GPU, "b", "vram", "total")) not in found


def test_a_client_passed_on_counts_for_whoever_has_it() -> None:
    accounts = begun([reading(0, 7, owner="a", gfx=busy(0))])
    accounts.update(5.0, [reading(5, 7, owner="a", gfx=busy(1))])
    accounts.update(10.0, [reading(10, 7, owner="b", pid=2, gfx=busy(4))])
    found = page(accounts)
    assert found[rows.OWNER_ENGINE_BUSY, (GPU, "a", "gfx")] == 1
    assert found[rows.OWNER_ENGINE_BUSY, (GPU, "b", "gfx")] == 3


def test_owners_are_bounded_and_end_but_sums_do_not() -> None:
    accounts = begun(owners=2)
    accounts.update(5.0, [reading(5, number, owner=f"o{number}", gfx=busy(1)) for number in range(5)])
    found = page(accounts)
    assert found[rows.OWNER_ENGINE_BUSY, (GPU, OTHERS, "gfx")] == 3
    assert found[rows.OWNER_CLIENTS, (GPU, OTHERS)] == 3
    accounts.update(10.0, [], ended=range(5))
    accounts.update(10.0 + 901, [])
    found = page(accounts)
    assert {metric for metric, _ in found} == {
        rows.CLIENTS,
        rows.CLIENTS_SEEN,
        rows.ENGINE_BUSY,
        rows.ENGINE_CAPACITY,
        rows.ENGINE_RATIO,
    }
    assert found[rows.ENGINE_BUSY, (GPU, "gfx")] == 5


def test_the_first_processes_by_use_and_the_rest_together() -> None:
    accounts = begun(top=2)
    for turn in range(1, 4):
        at = 5.0 * turn
        accounts.update(
            at, [reading(at, pid, pid=pid, memory=pid, gfx=busy(turn * pid)) for pid in range(1, 6)]
        )
    found = page(accounts)
    shown = {labels[1] for metric, labels in found if metric is rows.PROCESS_ENGINE_BUSY}
    assert shown == {"5", "4", ""}
    assert found[rows.PROCESS_ENGINE_BUSY, (GPU, "5", "gfx")] == 15
    assert found[rows.PROCESS_MEMORY, (GPU, "", "vram", "total")] == 1 + 2 + 3
    assert found[rows.PROCESS_INFO, (GPU, "4", "app4", "unit/a")] == 1
    accounts.update(20.0, [], ended=range(6))
    assert {labels[1] for metric, labels in page(accounts) if metric is rows.PROCESS_ENGINE_BUSY} == {""}


_STEP = st.dictionaries(
    st.integers(1, 6), st.tuples(st.integers(0, 3), st.integers(0, 10 * S), st.integers(0, 10**6)), max_size=6
)


@settings(deadline=None)
@given(st.lists(_STEP, max_size=12), st.integers(1, 4), st.integers(0, 3))
def test_no_sum_ever_falls_and_owners_add_up(
    steps: list[dict[int, tuple[int, int, int]]], owners: int, top: int
) -> None:
    accounts = Accounts(GPU, owners=owners, top=top)
    before: dict[tuple[Metric, tuple[str, ...]], float] = {}
    for turn, step in enumerate(steps):
        at = 5.0 * turn
        readings = [
            reading(at, client, owner=f"o{owner}", pid=client, memory=size, gfx=Engine(busy=value))
            for client, (owner, value, size) in step.items()
        ]
        accounts.update(at, readings, ended=accounts.clients - set(step))
        found = page(accounts)
        for series, value in found.items():
            if (
                series[0].kind is Kind.COUNTER
                and series[0] is not rows.PROCESS_ENGINE_BUSY
                and series in before
            ):
                assert value >= before[series]
        by_owner = sum(value for (metric, _), value in found.items() if metric is rows.OWNER_ENGINE_BUSY)
        assert by_owner == pytest.approx(found.get((rows.ENGINE_BUSY, (GPU, "gfx")), 0.0))
        assert found[rows.CLIENTS, (GPU,)] == len(step)
        assert len({labels[1] for metric, labels in found if metric is rows.OWNER_CLIENTS}) <= owners + 1
        before = found


def test_kfd_adds_increments_and_ends_with_the_process() -> None:
    compute = Compute(GPU)
    values = {
        "vram": 1 << 30,
        "sdma": 5_000_000,
        "evicted": 100,
        "units": 12,
        "faults": 3,
        "page_in": 8,
        "page_out": 1,
    }
    one = ComputeReading((1, 100), "slurm/7/0", values, {"compute": 2, "sdma": 1})
    compute.update(0.0, [one])
    compute.update(
        5.0,
        [ComputeReading((1, 100), "slurm/7/0", values | {"sdma": 6_500_000, "evicted": 350}, {"compute": 2})],
    )
    found = page(compute)
    key = (GPU, "slurm/7/0")
    assert found[rows.KFD_VRAM, key] == 1 << 30
    assert found[rows.KFD_SDMA, key] == 1.5
    assert found[rows.KFD_EVICTED, key] == 0.25
    assert found[rows.KFD_CU_OCCUPANCY, key] == 12
    assert found[rows.KFD_FAULTS, key] == 0
    assert found[rows.KFD_PAGES, (*key, "in")] == 0
    assert found[rows.KFD_QUEUES, (*key, "compute")] == 2
    compute.update(10.0, [])
    found = page(compute)
    assert (rows.KFD_VRAM, key) not in found
    assert found[rows.KFD_SDMA, key] == 1.5


@pytest.mark.parametrize(
    ("path", "measure"),
    [
        ("vram_51366", "vram"),
        ("sdma_51366", "sdma"),
        ("stats_51366/evicted_ms", "evicted"),
        ("stats_51366/cu_occupancy", "units"),
        ("counters_51366/page_in", "page_in"),
        ("pasid", ""),
        ("queues/0/type", ""),
    ],
)
def test_kfd_files(path: str, measure: str) -> None:
    assert measure_of(path) == measure
