"""A driver that comes and goes under the daemon: by module, by bind and unbind.

Every time the same series of the same devices, none of them while it is away; nothing grows. A complaint of the
kernel fails the test, as everywhere.
"""

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.vm.daemon import GuestDaemon
from tests.vm.guest import Guest
from tests.vm.testgpu import MODULE, TestGpus, load, present, unload

Measured = Callable[[str, float, str], None]

pytestmark = [pytest.mark.campaign, pytest.mark.guest(devices="minimal")]

_CYCLES = 50
_WARM = 8
"""Cycles after which caches are full: what is there then is compared with what is there at the end."""
_GROWTH = 1.5
"""MiB that a process may have more at the end than when it was warm: the allocator's, not the daemon's."""


def _footprint(pid: int) -> dict[str, list[float]]:
    """Descriptors, threads and MiB (Pss) of a process and of its descendants, by their place in the family."""
    import os

    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: dict[str, list[float]] = {}
    level = [pid]
    depth = 0
    while level:
        for place, process in enumerate(sorted(level)):
            with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
                pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
            counts = [len(os.listdir(f"/proc/{process}/{what}")) for what in ("fd", "task")]
            found[f"{depth}.{place}"] = [*counts, pss / 1024]
        level = [process for process, parent in parents.items() if parent in level]
        depth += 1
    return found


def _settled(guest: Guest, daemon: GuestDaemon) -> dict[str, list[float]]:
    """The least of ten looks in ten seconds: a scrape, a scan or a question to the scout takes descriptors.

    Lanes of what left are kept until the next page is made.
    """
    looks = []
    for _ in range(10):
        daemon.metrics()
        looks.append(guest.call(_footprint, daemon.pid))
        time.sleep(1.0)
    return {
        place: [min(values) for values in zip(*(look[place] for look in looks), strict=True)]
        for place in looks[-1]
        if all(place in look for look in looks)
    }


def _series(daemon: GuestDaemon, names: list[str]) -> dict[str, set[str]]:
    page = daemon.metrics()
    return {name: set(page.data(name)) for name in names}


def _whole(daemon: GuestDaemon, expected: dict[str, set[str]]) -> bool:
    return _series(daemon, list(expected)) == expected


def _has_left(daemon: GuestDaemon, name: str) -> bool:
    """Nothing of a device is left but who it is, which names a missing one."""
    return all(series.partition("{")[0].endswith("_info") for series in _series(daemon, [name])[name])


def _absent(daemon: GuestDaemon, names: list[str]) -> bool:
    page = daemon.metrics()
    return not any(page.states(name) for name in names)


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_module_loaded_and_unloaded(guest: Guest, measured: Measured, engine: str) -> None:
    with GuestDaemon(guest, "--engine", engine, "--preset", "normal", "--read.deadline", "3") as daemon:
        load(guest, devices=2)
        names = [gpu.name for gpu in present(guest)]
        daemon.until(lambda: all(len(found) > 10 for found in _series(daemon, names).values()), 60.0)
        time.sleep(3.0)
        expected = _series(daemon, names)
        unload(guest)
        daemon.until(lambda: _absent(daemon, names), what="until they are gone")
        warm: dict[str, list[float]] = {}
        came: list[float] = []
        went: list[float] = []
        for cycle in range(_CYCLES):
            load(guest, devices=2)
            came.append(daemon.until(lambda: _whole(daemon, expected), 30.0, f"until cycle {cycle} is whole"))
            unload(guest)
            went.append(daemon.until(lambda: _absent(daemon, names), 30.0, f"until cycle {cycle} is gone"))
            if cycle == _WARM:
                warm = _settled(guest, daemon)
        end = _settled(guest, daemon)
        assert set(end) == set(warm)
        for place, (descriptors, threads, mebibytes) in end.items():
            assert (descriptors, threads) == tuple(warm[place][:2]), f"{place}: {warm[place]} -> {end[place]}"
            assert mebibytes <= warm[place][2] + _GROWTH, f"{place}: {warm[place]} -> {end[place]}"
        measured(f"{_CYCLES} cycles of {len(names)} GPUs, whole again, median", sorted(came)[_CYCLES // 2], "s")
        measured("whole again, longest", max(came), "s")
        measured("gone, median", sorted(went)[_CYCLES // 2], "s")
        measured("gone, longest", max(went), "s")
        for place, (*_, mebibytes) in end.items():
            measured(f"growth of process {place} since cycle {_WARM}", mebibytes - warm[place][2], "MiB")


def test_bound_and_unbound(guest: Guest) -> None:
    with (
        TestGpus(guest, devices=2) as gpus,
        GuestDaemon(guest, "--preset", "normal", "--read.deadline", "3") as daemon,
    ):
        names = [gpu.name for gpu in gpus]
        daemon.until(lambda: all(len(found) > 10 for found in _series(daemon, names).values()), 60.0)
        time.sleep(3.0)
        whole = _series(daemon, names)
        for bus, gpu in (("platform", gpus.platform[1]), ("pci", gpus.pci[0])):
            others = {name: series for name, series in whole.items() if name != gpu.name}
            for _ in range(5):
                guest.write(f"/sys/bus/{bus}/drivers/{MODULE}/unbind", gpu.name)
                daemon.until(partial(_has_left, daemon, gpu.name), 30.0, f"until {gpu.name} has left")
                assert _whole(daemon, others)
                guest.write(f"/sys/bus/{bus}/drivers/{MODULE}/bind", gpu.name)
                daemon.until(lambda: _whole(daemon, whole), 30.0, f"until {gpu.name} is whole")
