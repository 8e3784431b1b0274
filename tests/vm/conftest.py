"""Guests for tests: `guest` is a virtual machine that was booted for, or lent to, the test.

    @pytest.mark.guest()                                      # both kernels, all devices
    def test_one(guest): ...

    @pytest.mark.guest(kernels=("7.x",), devices="no-iommu", fresh=True)
    def test_two(guest): ...

Tests with the same devices share one guest a kernel; both kernels' are started together, before the first of
them. A test with `fresh=True` gets one of its own, which is thrown away: for what cannot be undone. After each
test the console is looked through, and a complaint of the kernel fails it; a guest that complained or died is
not lent again, nor one the test has closed. Tests run in the order of their device sets, so that no more than
one set's guests are up.

    @pytest.mark.guest()
    def test_three(guest, daemon): ...                        # once an engine: `daemon.VARIANTS`

`daemon` runs in the guest and is shared like it: a start takes ten seconds and more under emulation. Its log
must hold no traceback after the test. `measured("what", 0.2, "s")` puts a figure into the summary.

Without `tests/vm/setup` these tests skip; with CI=true they fail.
"""

import compileall
import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.vm.daemon import VARIANTS, GuestDaemon
from tests.vm.devices import SETS
from tests.vm.guest import Guest, GuestError
from tests.vm.store import KERNELS, ROOT, Store

_SECONDS = 600
"""of a test, where it does not say; booting counts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a test asks for."""

    kernel: str
    devices: str
    fresh: bool


class Pool:
    """The guests that are up: those of one device set."""

    def __init__(self) -> None:
        self._store = Store()
        self._tenants: dict[Guest, tuple[str, GuestDaemon, contextlib.ExitStack]] = {}
        self._devices = ""
        self._coming: dict[str, Future[Guest]] = {}
        self._boots = ThreadPoolExecutor(len(KERNELS))
        self.booted: list[tuple[Guest, str]] = []

    def get(self, wanted: Wanted, others: tuple[str, ...]) -> Guest:
        """A guest that is well. others: keys of kernels the tests to come want with the same devices."""
        if wanted.fresh:
            return self._boot(wanted.kernel, wanted.devices, "fresh")
        if wanted.devices != self._devices:
            self.close()
            self._devices = wanted.devices
        for key in (wanted.kernel, *others):
            if key not in self._coming:
                self._coming[key] = self._boots.submit(self._boot, key, wanted.devices, "shared")
        guest = self._coming[wanted.kernel].result()
        for other in [other for other in self._tenants if other is not guest]:
            self.end_daemon(other)
        if not guest.is_well():
            self.discard(guest)
            return self.get(wanted, ())
        return guest

    def daemon(self, guest: Guest, variant: str) -> GuestDaemon:
        """The daemon of a guest; one that runs in another way, or no more, is replaced."""
        if guest in self._tenants:
            running, daemon, _ = self._tenants[guest]
            if running == variant and guest.ended(daemon.pid) is None:
                return daemon
            self.end_daemon(guest)
        with contextlib.ExitStack() as stack:
            if variant.endswith("udev"):
                stack.enter_context(guest.udevd())
            daemon = stack.enter_context(GuestDaemon(guest, *VARIANTS[variant]))
            self._tenants[guest] = (variant, daemon, stack.pop_all())
        return daemon

    def end_daemon(self, guest: Guest) -> None:
        """End the daemon of a guest, if it has one: SIGTERM must do, with status 0."""
        if guest in self._tenants:
            self._tenants.pop(guest)[2].close()

    def discard(self, guest: Guest) -> None:
        """End a guest; the next test gets another."""
        self._tenants.pop(guest, None)
        for key, coming in list(self._coming.items()):
            if coming.done() and coming.exception() is None and coming.result() is guest:
                del self._coming[key]
        guest.close()

    def close(self) -> None:
        """End all."""
        self._tenants.clear()
        for coming in self._coming.values():
            if coming.exception() is None:
                coming.result().close()
        self._coming.clear()

    def _boot(self, key: str, devices: str, how: str) -> Guest:
        # A module that was not compiled yet would be compiled in each guest anew.
        compileall.compile_dir(ROOT / "gpudaemon", quiet=2)
        guest = Guest(self._store, key, devices)
        guest.boot()
        self.booted.append((guest, how))
        return guest


_POOL = pytest.StashKey[Pool]()
_TIMES = pytest.StashKey[dict[tuple[str, str], float]]()
_FIGURES = pytest.StashKey[list[tuple[str, str, object]]]()


def _wanted(item: pytest.Item) -> Wanted | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("guest") if callspec is not None else None


def _turn(item: pytest.Item, wanted: Wanted) -> tuple[bool, int, int, str]:
    """What orders tests: device set, kernel, how the daemon runs, if it is the shared one."""
    variant = item.callspec.params.get("daemon", "")  # type: ignore[attr-defined]
    return wanted.fresh, list(SETS).index(wanted.devices), KERNELS.index(wanted.kernel), str(variant)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `guest` runs once a kernel."""
    if "guest" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("guest")
    given = dict(marker.kwargs) if marker is not None else {}
    kernels, devices = given.pop("kernels", KERNELS), given.pop("devices", "all")
    fresh = given.pop("fresh", False)
    assert not given and devices in SETS and set(kernels) <= set(KERNELS), (
        f"{metafunc.definition.nodeid}: {marker}"
    )
    wanted = [Wanted(key, devices, fresh) for key in kernels]
    metafunc.parametrize("guest", wanted, ids=list(kernels), indirect=True)
    if "daemon" in metafunc.fixturenames:
        metafunc.parametrize("daemon", list(VARIANTS), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by device set, fresh ones last; give time; skip, or fail, where the lane was not set up."""
    mine = [(place, item, wanted) for place, item in enumerate(items) if (wanted := _wanted(item)) is not None]
    if not mine:
        return
    ranked = sorted(mine, key=lambda entry: _turn(entry[1], entry[2]))
    for (place, _, _), (_, item, _) in zip(mine, ranked, strict=True):
        items[place] = item
    reason = Store().missing()
    for _, item, _ in mine:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SECONDS))
        if reason and os.environ.get("CI") != "true":
            item.add_marker(pytest.mark.skip(reason=reason))
    config.stash[_TIMES], config.stash[_FIGURES] = {}, []


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """See the module."""
    wanted: Wanted = request.param
    reason = Store().missing()
    assert not reason, reason
    stash = request.config.stash
    pool = stash.setdefault(_POOL, Pool())
    same = {w.kernel for item in request.session.items if (w := _wanted(item)) and w.devices == wanted.devices}
    lent = pool.get(wanted, tuple(sorted(same - {wanted.kernel})))
    request.node.stash[_GUEST] = lent
    yield lent
    if lent.is_closed:
        pool.discard(lent)
        return
    try:
        faults = lent.faults()
    except (GuestError, AssertionError) as error:
        faults = f"{error}\n{lent.console()[-6000:]}"
    if faults or wanted.fresh:
        pool.discard(lent)
    assert not faults, f"{lent.kernel.release} complained:\n{faults}"


@pytest.fixture
def daemon(request: pytest.FixtureRequest, guest: Guest) -> Iterator[GuestDaemon]:
    """See the module."""
    running = request.config.stash[_POOL].daemon(guest, request.param)
    yield running
    assert "Traceback" not in running.log, running.log[-6000:]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, float, str], None]:
    """Puts (what, number, unit) into the summary, behind the test's name."""
    return lambda what, number, unit: request.node.user_properties.append((what, f"{number:.3g} {unit}"))


_GUEST = pytest.StashKey[Guest]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The console goes with a failure; the time with the summary."""
    report = yield
    wanted = _wanted(item)
    if wanted is not None:
        lent = item.stash.get(_GUEST, None)
        if report.failed and lent is not None:
            report.sections.append(("console of the guest", lent.console()[-6000:] or "(gone)"))
        times = item.config.stash[_TIMES]
        key = (wanted.kernel, item.nodeid)
        times[key] = times.get(key, 0.0) + call.duration
        if call.when == "call":
            item.config.stash[_FIGURES] += [(item.name, *figure) for figure in item.user_properties]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the guests that are still up."""
    pool = session.config.stash.get(_POOL, None)
    if pool is not None:
        pool.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How long guests took to boot and tests to run, a kernel at a time; what was measured."""
    pool, times = config.stash.get(_POOL, None), config.stash.get(_TIMES, {})
    if pool is None:
        return
    terminalreporter.section("virtual machines")
    for guest, how in pool.booted:
        line = (
            f"{guest.kernel.release} {guest.devices} ({how}): {guest.boot_seconds:.1f} s to its first command"
        )
        terminalreporter.write_line(line)
    for key in KERNELS:
        mine = sorted(((spent, node) for (kernel, node), spent in times.items() if kernel == key), reverse=True)
        terminalreporter.write_line(f"{key}: {len(mine)} tests, {sum(spent for spent, _ in mine):.1f} s")
        for spent, node in mine:
            terminalreporter.write_line(f"  {spent:6.1f} s  {node.split('::', 1)[1]}")
    for test, what, figure in config.stash[_FIGURES]:
        terminalreporter.write_line(f"{test}: {what}: {figure}")
