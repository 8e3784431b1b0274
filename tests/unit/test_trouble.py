"""Trouble: each uevent and each rise of a counter raises exactly its own count."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.discovery.trouble import trouble_of
from gpudaemon.metrics import gpu, gpu_throttle, p2p, pcie
from gpudaemon.metrics import trouble as rows
from gpudaemon.model.device import Device, DeviceKind
from gpudaemon.model.metric import Metric, Series
from gpudaemon.model.trouble import KINDS, Severity, Trouble
from gpudaemon.parsers.kmsg import said
from gpudaemon.parsers.uevent import Uevent
from gpudaemon.pipeline.kernel_log import KernelLog
from gpudaemon.pipeline.trouble import Source, Troubles

GPU = "0000:03:00.0"
PATH = f"devices/pci0000:00/0000:00:01.0/{GPU}"
DEVICES = {
    GPU: Device(id=GPU, kind=DeviceKind.GPU, path=PATH, driver="amdgpu"),
    "0000:00:01.0": Device(id="0000:00:01.0", kind=DeviceKind.PCI, path="devices/pci0000:00/0000:00:01.0"),
}


def event(action: str = "change", path: str = f"{PATH}/drm/card0", **said: str) -> Uevent:
    return Uevent(action, f"/{path}", {"SUBSYSTEM": "drm", **said})


def told(one: Uevent, sysfs: str = "/nowhere") -> Trouble | None:
    return trouble_of(one, DEVICES, sysfs=sysfs, at=100.0)


@pytest.mark.parametrize(
    "said,kind,severity",
    [
        ({"WEDGED": "none"}, "reset", Severity.RECOVERED),
        ({"WEDGED": "rebind,bus-reset"}, "wedged", Severity.FATAL),
        ({"WEDGED": "vendor-specific"}, "wedged", Severity.FATAL),
        ({"WEDGED": "unknown"}, "wedged", Severity.FATAL),
        ({"ERROR": "1"}, "hang", Severity.RECOVERED),
        ({"RESET": "1"}, "reset", Severity.RECOVERED),
    ],
)
def test_what_drm_says(said: dict[str, str], kind: str, severity: Severity) -> None:
    found = told(event(**said))
    assert found is not None
    assert (found.device, found.kind, found.severity, found.at) == (GPU, kind, severity, 100.0)


@pytest.mark.parametrize("said", [{"ERROR": "0"}, {"HOTPLUG": "1"}, {"LEASE": "1"}, {}])
def test_what_is_no_trouble(said: dict[str, str]) -> None:
    assert told(event(**said)) is None
    assert told(event(path="devices/pci0000:00/0000:00:09.0/drm/card3", WEDGED="none")) is None


def test_the_process_the_kernel_names_is_kept() -> None:
    found = told(event(WEDGED="none", PID="178", TASK='a"\n b'))
    assert found is not None and (found.pid, found.task) == (178, 'a"\n b')
    for pid in ("", "-1", "٣", "9" * 40):
        bad = told(event(WEDGED="none", PID=pid, TASK="x" * 1000))
        assert bad is not None and bad.pid == 0 and len(bad.task) <= 64


@pytest.mark.parametrize(
    "word,severity",
    [
        ("BEGIN_RECOVERY", Severity.UNCORRECTED),
        ("SUCCESSFUL_RECOVERY", Severity.RECOVERED),
        ("FAILED_RECOVERY", Severity.FATAL),
    ],
)
def test_recovery_from_pci_errors(word: str, severity: Severity) -> None:
    found = told(event(path=PATH, SUBSYSTEM="pci", ERROR_EVENT=word, DEVICE_ONLINE="0"))
    assert found is not None and (found.kind, found.severity) == ("pci_recovery", severity)
    assert told(event(path=PATH, SUBSYSTEM="pci", ERROR_EVENT="SOMETHING_NEW")) is None


def test_a_driver_that_lets_go_of_a_gpu() -> None:
    found = told(event("unbind", PATH, SUBSYSTEM="pci"))
    assert found is not None and (found.kind, found.text) == ("unbound", "driver amdgpu")
    assert told(event("unbind", "devices/pci0000:00/0000:00:01.0", SUBSYSTEM="pci")) is None
    assert told(event("bind", PATH, SUBSYSTEM="pci")) is None


def test_a_core_dump_belongs_to_the_device_its_link_names(tmp_path: Path) -> None:
    """drivers/base/devcoredump.c: the device is a link; the dump is never opened."""
    dump = tmp_path / "devices/virtual/devcoredump/devcd1"
    dump.mkdir(parents=True)
    (tmp_path / PATH).mkdir(parents=True)
    (dump / "failing_device").symlink_to(os.path.relpath(tmp_path / PATH, dump))
    (dump / "data").mkdir()  # a file that could be opened would be a mistake nobody sees
    one = event("add", "devices/virtual/devcoredump/devcd1", SUBSYSTEM="devcoredump")
    found = told(one, str(tmp_path))
    assert found is not None and (found.device, found.kind) == (GPU, "core_dump")
    (dump / "failing_device").unlink()
    assert told(one, str(tmp_path)) is None


def note(troubles: Troubles, **more: Any) -> None:
    known = {"at": 1.0, "device": GPU, "kind": "reset", "severity": Severity.RECOVERED, **more}
    troubles.note(Trouble(**known))


def counts(troubles: Troubles) -> dict[str, float]:
    return dict(troubles.rows().get(rows.EVENTS, ()))


def series(kind: str, severity: str, device: str = GPU) -> str:
    return Series(rows.EVENTS, (device, kind, severity)).prefix()


def test_each_raises_its_own_count_and_no_other() -> None:
    troubles = Troubles()
    note(troubles)
    note(troubles, at=2.0, count=3)
    note(troubles, kind="aer", severity=Severity.FATAL, at=1.5)
    assert counts(troubles) == {series("reset", "recovered"): 4, series("aer", "fatal"): 1}
    last = dict(troubles.rows()[rows.LAST_SEEN])
    assert last[Series(rows.LAST_SEEN, (GPU, "reset", "recovered")).prefix()] == 2.0
    assert [one.at for one in troubles.events] == [1.0, 2.0, 1.5]


def test_nothing_happened_is_no_sample() -> None:
    assert Troubles().rows() == {}


def test_who_a_process_belongs_to_is_asked_where_the_kernel_names_one() -> None:
    troubles = Troubles(owner=lambda device, pid: f"{device} {pid}")
    note(troubles, pid=7)
    note(troubles)
    assert [one.owner for one in troubles.events] == [f"{GPU} 7", ""]


def test_memory_is_bounded() -> None:
    troubles = Troubles()
    for number in range(5000):
        note(troubles, device=f"0000:{number:04x}")
    assert len(troubles.events) == 512 and len(counts(troubles)) == 4096
    assert troubles.rows()[rows.EVENTS_DROPPED][0][1] == 904


def test_a_gpu_is_missed_once() -> None:
    troubles = Troubles()
    for missing in ((), (GPU,), (GPU,), (), (GPU,)):
        troubles.missing(missing)
    assert counts(troubles) == {series("missing", "fatal"): 2}


class Lane:
    """What `Troubles` looks at of a lane: one block and the rows of one file."""

    def __init__(self, metric: Metric = pcie.AER_ERRORS, **errors: float) -> None:
        labels = {name: (GPU, *name.split("__")) for name in errors}
        found = [(Series(metric, labels[name]).prefix(), value) for name, value in errors.items()]
        self.rows = {0: {metric: found}}
        self.values: list[float | None] = []
        self.plan = type("Plan", (), {"blocks": {}})()


class Entry:
    """calls: what is asked of the device, by kind."""

    def __init__(self, lane: Lane | None, **calls: Lane) -> None:
        self.shown = lane
        self.calls = {kind: type("Call", (), {"lane": called})() for kind, called in calls.items()}


def look(troubles: Troubles, **errors: float) -> None:
    troubles.look({GPU: Entry(Lane(**errors))}, {})  # type: ignore[dict-item]


def test_only_what_a_counter_rose_since_it_was_seen_is_trouble() -> None:
    troubles = Troubles()
    look(troubles, corrected__BadTLP=40, fatal__DLP=1)
    assert counts(troubles) == {}, "history"
    look(troubles, corrected__BadTLP=43, fatal__DLP=1)
    look(troubles, corrected__BadTLP=43, fatal__DLP=1)
    assert counts(troubles) == {series("aer", "corrected"): 3}
    assert [one.text for one in troubles.events] == ["BadTLP"]
    look(troubles, corrected__BadTLP=2, fatal__DLP=2)
    assert counts(troubles) == {series("aer", "corrected"): 3, series("aer", "fatal"): 1}, "a reset is no rise"
    look(troubles, corrected__BadTLP=4, fatal__DLP=2)
    assert counts(troubles)[series("aer", "corrected")] == 5


def test_a_device_that_was_away_begins_anew() -> None:
    troubles = Troubles()
    look(troubles, corrected__BadTLP=1)
    troubles.look({GPU: Entry(None)}, {})  # type: ignore[dict-item]
    look(troubles, corrected__BadTLP=9)
    assert counts(troubles) == {}


def test_a_link_that_loses_lanes() -> None:
    troubles = Troubles()
    prefix = Series(p2p.LINK_DOWNGRADED, (GPU,)).prefix()
    for value in (0.0, 1.0, 1.0, 0.0, 1.0):
        troubles.look({}, {p2p.LINK_DOWNGRADED: ((prefix, value),)})
    assert counts(troubles) == {series("link_downgraded", "uncorrected"): 2}
    # One that was so from the start is a state, which the gauge shows.
    other = Troubles()
    other.look({}, {p2p.LINK_DOWNGRADED: ((prefix, 1.0),)})
    assert counts(other) == {}


@given(
    st.sampled_from(("add", "change", "unbind", "remove")),
    st.dictionaries(
        st.sampled_from(("SUBSYSTEM", "WEDGED", "PID", "TASK", "ERROR", "RESET", "ERROR_EVENT")),
        st.text(max_size=80),
    ),
)
def test_any_event(action: str, said: dict[str, str]) -> None:
    found = trouble_of(Uevent(action, f"/{PATH}", said), DEVICES, sysfs="/nowhere", at=1.0)
    assert found is None or found.kind in KINDS


def test_what_rises_while_it_cannot_be_read_is_trouble() -> None:
    """A GPU slept, or a file failed once: the counter before that is what the next one is held against."""
    troubles = Troubles()
    look(troubles, corrected__BadTLP=1)
    look(troubles)
    look(troubles, corrected__BadTLP=9)
    assert counts(troubles) == {series("aer", "corrected"): 8}


def see(troubles: Troubles, metric: Metric, kind: str = "", **errors: float) -> None:
    """kind: of calls; empty: the device's own files give it."""
    lane = Lane(metric, **errors)
    entry = Entry(Lane(), **{kind: lane}) if kind else Entry(lane)
    troubles.look({GPU: entry}, {})  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", ["drm_ras", "nvml", ""])
def test_errors_that_calls_count_are_trouble_as_those_of_files(kind: str) -> None:
    troubles = Troubles()
    see(troubles, gpu.RAS_ERRORS, kind, core__corrected=3, core__uncorrected=0)
    see(troubles, gpu.RAS_ERRORS, kind, core__corrected=5, core__uncorrected=1)
    assert counts(troubles) == {series("ras", "corrected"): 2, series("ras", "uncorrected"): 1}


def test_what_files_and_calls_both_give_counts_once() -> None:
    troubles = Troubles()
    for value in (0, 4):
        entry = Entry(
            Lane(gpu.RAS_ERRORS, a__corrected=value), drm_ras=Lane(gpu.RAS_ERRORS, a__corrected=value)
        )
        troubles.look({GPU: entry}, {})  # type: ignore[dict-item]
    assert counts(troubles) == {series("ras", "corrected"): 4}


def test_memory_that_is_taken_out_of_use() -> None:
    troubles = Troubles()
    see(troubles, gpu.RAS_BAD_PAGES, "nvml", reserved=1, pending=0, failed=0)
    see(troubles, gpu.RAS_BAD_PAGES, "nvml", reserved=1, pending=2, failed=0)
    assert counts(troubles) == {}, "pending is not yet retired"
    see(troubles, gpu.RAS_BAD_PAGES, "nvml", reserved=3, pending=0, failed=1)
    assert counts(troubles) == {series("retired", "uncorrected"): 2, series("retired", "fatal"): 1}


@pytest.mark.parametrize("metric", [gpu.THROTTLED, gpu_throttle.THROTTLED_TICKS])
def test_heat_is_an_episode(metric: Metric) -> None:
    """A flag that flips each second and a counter of ticks are one episode, until a minute is quiet."""
    now = 1000.0
    troubles = Troubles(clock=lambda: now)
    flag = metric is gpu.THROTTLED
    ticks = 0.0

    def look(hot: bool, seconds: float) -> None:
        nonlocal now, ticks
        for _ in range(round(seconds)):
            now += 1
            ticks += 50 * hot
            value = float(hot) if flag else ticks
            see(troubles, metric, __thermal__prochot=value, __power__pl1=value)

    look(hot=False, seconds=1)
    look(hot=True, seconds=100)
    look(hot=False, seconds=30)
    look(hot=True, seconds=1)
    look(hot=False, seconds=59)
    look(hot=True, seconds=1)
    assert counts(troubles) == {series("throttled", "corrected"): 1}
    assert [one.text for one in troubles.events] == ["prochot"]
    look(hot=False, seconds=61)
    look(hot=True, seconds=5)
    assert counts(troubles) == {series("throttled", "corrected"): 2}


def reset(at: float, **more: Any) -> Trouble:
    return Trouble(at=at, device=GPU, kind="reset", severity=Severity.RECOVERED, **more)


def test_a_reset_told_in_the_log_and_by_uevent_counts_once() -> None:
    troubles = Troubles()
    troubles.note(reset(10.0), Source.LOG)
    troubles.note(reset(10.2, pid=7, task="python"))
    assert counts(troubles) == {series("reset", "recovered"): 1}
    assert [(one.pid, one.task) for one in troubles.events] == [(7, "python")]
    troubles.note(reset(11.0))
    troubles.note(reset(11.2), Source.LOG)
    assert counts(troubles) == {series("reset", "recovered"): 2}


def test_two_resets_are_two() -> None:
    troubles = Troubles()
    for at in (10.0, 10.1):
        troubles.note(reset(at), Source.LOG)
    troubles.note(reset(20.0))
    assert counts(troubles) == {series("reset", "recovered"): 3}, "so long after it is another one"
    for at in (20.1, 20.2):
        troubles.note(reset(at))
    assert counts(troubles) == {series("reset", "recovered"): 5}, "two of one source are two"


def heard(troubles: Troubles, *lines: str, devices: dict[str, Device] | None = None) -> KernelLog:
    log = KernelLog(troubles, lambda: DEVICES if devices is None else devices, lambda: 50.0)
    found = [one for one in map(said, lines) if one is not None]
    log.message({"trouble": [one.packed() for one in found]})
    return log


def test_a_line_raises_its_own_count_and_names_the_process() -> None:
    troubles = Troubles(owner=lambda _device, pid: f"unit/{pid}.service")
    log = heard(
        troubles,
        "NVRM: Xid (PCI:0000:03:00 GPU-I:02): 31, pid=77, name=py, Ch 00000008, MMU Fault",
        "NVRM: Xid (PCI:0000:03:00): 31, pid=77, name=py, Ch 00000009, MMU Fault",
        "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 28 sourcetrack timeout error (First)",
    )
    assert counts(troubles) == {
        series("xid", "recovered"): 2,
        series("sxid", "fatal", "0000:c3:00.0"): 1,
    }
    made = {prefix: value for lines in log.rows(lambda _: True).values() for prefix, value in lines}
    assert made == {
        Series(rows.XIDS, (GPU, "31")).prefix(): 2,
        Series(rows.SXIDS, ("0000:c3:00.0", "24007")).prefix(): 1,
    }
    first = troubles.events[0]
    assert (first.pid, first.task, first.owner) == (77, "py", "unit/77.service")
    assert first.text == "Xid 31 GPU-I 02: Ch 00000008, MMU Fault"


RING = "ring gfx timeout, signaled seq=1, emitted seq=3"
WHO = "Process information: process Xorg pid 3513 thread Xorg:cs0 pid 3514"


@pytest.mark.parametrize(
    "start", ["amdgpu 0000:03:00.0: amdgpu: ", "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* "]
)
def test_a_ring_that_timed_out_and_whose_it_was(start: str) -> None:
    troubles = Troubles()
    log = heard(troubles, start + RING, start + WHO, "amdgpu 0000:03:00.0: amdgpu: GPU reset(1) succeeded!")
    assert counts(troubles) == {series("hang", "recovered"): 1, series("reset", "recovered"): 1}
    assert [(one.kind, one.pid, one.task) for one in troubles.events] == [
        ("hang", 3513, "Xorg"),
        ("reset", 0, ""),
    ]
    assert not log.rows(lambda _: True)


def test_a_line_that_names_no_device_where_there_are_two() -> None:
    other = Device(id="0000:04:00.0", kind=DeviceKind.GPU, path=f"{PATH}x", driver="amdgpu")
    troubles = Troubles()
    start = "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* "
    log = heard(troubles, start + RING, start + WHO, devices={**DEVICES, other.id: other})
    assert counts(troubles) == {} and not troubles.events
    assert log.rows(lambda _: True) == {rows.UNPLACED: ((Series(rows.UNPLACED, ("amdgpu",)).prefix(), 1),)}


def test_a_process_is_nobodys_who_was_not_named_at_once() -> None:
    troubles = Troubles()
    troubles.note(Trouble(at=10.0, device=GPU, kind="hang", severity=Severity.RECOVERED))
    heard(troubles, f"amdgpu 0000:03:00.0: {WHO}")  # at 50
    assert [one.pid for one in troubles.events] == [0]


def test_numbers_are_bounded() -> None:
    troubles = Troubles()
    log = heard(troubles, *(f"NVRM: Xid (PCI:0000:03:00): {number}, " for number in range(2000)))
    (lines,) = log.rows(lambda _: True).values()
    assert len(lines) == 1024 and troubles.dropped == 976
    assert sum(counts(troubles).values()) == 2000


def test_figures_of_reading_go_on_with_another_scout() -> None:
    log = heard(Troubles())
    state = {"sequence": 40, "records": 10, "lost": 2, "why": ""}
    log.message({"log": state})
    assert (log.up, log.sequence, log.records, log.lost) == (True, 40, 10, 2)
    log.restarted()
    assert (log.up, log.sequence) == (False, 40)
    log.message({"log": {**state, "sequence": -1, "records": 0, "lost": 0, "why": "Operation not permitted"}})
    assert (log.up, log.sequence, log.records, log.lost) == (False, 40, 10, 2)
