"""Who is missing: named, learnt, seen; across restarts, moves, other machines and damaged files."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.discovery.expected import LEARN_AFTER, Expected, Known, full_id
from gpudaemon.discovery.inventory import Inventory
from gpudaemon.discovery.inventory_file import InventoryFile, machine
from gpudaemon.model.device import Device, DeviceKind

MODEL = {
    "vendor_id": "0x1002",
    "device_id": "0x74a1",
    "subsystem_vendor_id": "0x1002",
    "subsystem_device_id": "0x74a1",
}


def gpu(id_: str, driver: str = "amdgpu", **links: str) -> Device:
    root = f"devices/pci0000:00/0000:00:{id_[5:7]}.1"
    return Device(id=id_, kind=DeviceKind.GPU, path=f"{root}/{id_}", driver=driver, links=tuple(links.items()))


A, B, C = gpu("0000:03:00.0"), gpu("0000:04:00.0"), gpu("0000:05:00.0")


class Host:
    """One run of a daemon on a host: an inventory, what its GPUs say, and a clock of its own."""

    def __init__(
        self, learnt: tuple[Known, ...] = (), *, expect: tuple[str, ...] = (), learn: bool = True
    ) -> None:
        self.now = 1000.0
        self.expected = Expected(expect=expect, learn=learn, clock=lambda: self.now)
        self.expected.load(learnt)
        self.inventory = Inventory(self.expected)
        self.labels: dict[str, Mapping[str, str]] = {}

    def scan(self, *devices: Device, after: float = 1.0) -> set[str]:
        self.now += after
        self.inventory.update(devices)
        return self.compare(after=0.0)

    def compare(self, *, after: float = 1.0) -> set[str]:
        self.now += after
        self.inventory.compare(self.labels.get)
        return set(self.inventory.missing)

    def serials(self, **serials: str) -> None:
        for number, serial in serials.items():
            self.labels[f"0000:{number[1:]}:00.0"] = MODEL | {"serial_number": serial}

    def learnt(self) -> tuple[Known, ...]:
        return self.expected.learnt()


def learnt(*devices: Device, serials: tuple[str, ...] = ()) -> tuple[Known, ...]:
    """What a former run remembers of `devices`."""
    host = Host()
    for device, serial in zip(devices, serials or ("",) * len(devices), strict=True):
        host.labels[device.id] = MODEL | {"serial_number": serial}
    host.scan(*devices)
    host.compare(after=LEARN_AFTER)
    assert {known.id for known in host.learnt()} == {device.id for device in devices}
    return host.learnt()


def test_a_gpu_is_learnt_when_it_was_here_and_bound_long_enough() -> None:
    host = Host()
    host.scan(A, gpu(B.id, driver=""))
    host.compare(after=LEARN_AFTER - 1)
    assert host.learnt() == ()
    host.compare(after=1)
    assert [known.id for known in host.learnt()] == [A.id]
    host.scan(A, B)  # bound only now
    host.compare(after=LEARN_AFTER - 1)
    assert [known.id for known in host.learnt()] == [A.id]
    host.compare(after=1)
    assert sorted(known.id for known in host.learnt()) == [A.id, B.id]
    assert host.expected.changed


def test_a_test_card_is_missed_in_this_run_only() -> None:
    host = Host()
    host.scan(A, B)
    host.compare(after=LEARN_AFTER)
    host.scan(A, B, C)
    assert host.scan(A, B, after=LEARN_AFTER / 2) == {C.id}
    assert Host(host.learnt()).scan(A, B) == set()


def test_time_away_does_not_count() -> None:
    host = Host()
    host.scan(A)
    host.scan(after=LEARN_AFTER / 2)
    host.scan(A, after=LEARN_AFTER)
    host.compare(after=LEARN_AFTER - 1)
    assert host.learnt() == ()


def test_a_learnt_gpu_is_missed_after_a_restart_with_its_labels() -> None:
    host = Host(learnt(A, B, serials=("s1", "s2")))
    assert host.inventory.missing == {}  # nothing is known before a scan is complete
    assert host.scan(A) == {B.id}
    missing = host.inventory.missing[B.id]
    assert missing.path == B.path
    assert missing.parents == ("0000:00:04.1",)
    assert host.expected.known[B.id].info["serial_number"] == "s2"
    assert host.scan(A, B) == set()


def test_a_file_that_is_read_after_the_first_look_counts_the_same() -> None:
    known = learnt(A, B, serials=("s1", "s2"))
    host = Host()
    host.inventory.update([A])
    host.expected.load(known)
    assert host.compare() == {B.id}
    assert {one.id: (one.info, one.first_seen) for one in host.learnt()} == {
        one.id: (one.info, one.first_seen) for one in known
    }


def test_without_learning_nothing_is_kept_and_what_was_kept_still_counts() -> None:
    host = Host(learn=False)
    host.scan(A)
    host.compare(after=10 * LEARN_AFTER)
    assert host.learnt() == ()
    assert Host(learnt(A), learn=False).scan() == {A.id}


def test_the_configured_are_the_only_ones_missed() -> None:
    host = Host(learnt(A, C), expect=("03:00.0", "0000:0A:00.0"))
    assert host.scan(A) == {"0000:0a:00.0"}
    host.scan(A, B)
    assert host.scan(A) == {"0000:0a:00.0"}
    assert host.scan() == {A.id, "0000:0a:00.0"}


def test_virtual_functions_come_and_go() -> None:
    host = Host()
    host.scan(A, gpu(B.id, physfn="0000:03:00.0"))
    host.compare(after=LEARN_AFTER)
    assert host.scan(A) == set()
    assert [known.id for known in host.learnt()] == [A.id]


@pytest.mark.parametrize("serials", [("s1", "s2"), ("", "")], ids=["serials", "none"])
def test_addresses_renumbered_by_firmware_miss_nobody(serials: tuple[str, str]) -> None:
    host = Host(learnt(A, B, serials=serials))
    host.serials(b04=serials[0], b05=serials[1])
    assert host.scan(B, C) == set()
    assert sorted(known.id for known in host.learnt()) == [B.id, C.id]
    assert host.expected.moved
    assert Host(host.learnt()).scan(B) == {C.id}


def test_a_card_in_another_slot_has_moved_and_says_where() -> None:
    host = Host(learnt(A, B, serials=("s1", "s2")))
    host.serials(b03="s1", b05="s2")
    assert host.scan(A, C) == set()
    assert host.expected.moved == {B.id: C.id}


def test_another_card_in_another_slot_does_not_stand_for_it() -> None:
    host = Host(learnt(A, B, serials=("s1", "s2")))
    host.serials(b03="s1", b05="s3")
    assert host.scan(A, C) == {B.id}


def test_one_of_two_that_moved_is_still_missed() -> None:
    host = Host(learnt(A, B, serials=("s1", "s2")))
    host.serials(b05="s2")
    assert host.scan(C) == {A.id}


def test_a_card_at_a_new_address_gets_time_to_say_who_it_is() -> None:
    host = Host(learnt(A, serials=("s1",)))
    assert host.scan(C) == set()
    host.serials(b05="s1")
    assert host.compare() == set()
    assert host.expected.moved == {A.id: C.id}


def test_a_hung_card_at_a_new_address_hides_nobody_for_long() -> None:
    host = Host(learnt(A, serials=("s1",)))
    assert host.scan(C) == set()
    assert host.compare(after=20) == {A.id}


def test_cards_of_one_model_without_serials_that_were_here_all_along_hide_nobody() -> None:
    host = Host()
    host.labels = dict.fromkeys((A.id, B.id), MODEL)
    host.scan(A, B)
    assert host.scan(B) == {A.id}
    other = Host(learnt(A, B))
    other.labels = dict.fromkeys((A.id, B.id), MODEL)
    assert other.scan(B) == {A.id}


def test_a_wrong_clock_at_boot_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = learnt(A, serials=("s1",))
    monkeypatch.setattr("time.time", lambda: 12.0)
    host = Host(known)
    host.serials(b05="s1")
    assert host.scan(C) == set()


def test_forgetting_is_for_what_is_not_here() -> None:
    host = Host(learnt(A, B))
    assert host.scan(A) == {B.id}
    assert not host.inventory.forget(A.id)
    assert not host.inventory.forget("0000:ff:00.0")
    host.expected.changed = False
    assert host.inventory.forget(B.id)
    assert host.inventory.missing == {}
    assert host.expected.changed
    assert [known.id for known in host.learnt()] == [A.id]


@pytest.mark.parametrize(
    ("given_", "full"),
    [
        ("03:00.0", "0000:03:00.0"),
        ("0000:AF:00.0", "0000:af:00.0"),
        ("10000:01:00.0", "10000:01:00.0"),
        ("e8600000.GPU", "e8600000.GPU"),
    ],
)
def test_addresses_are_completed(given_: str, full: str) -> None:
    assert full_id(given_) == full


@given(st.lists(st.sets(st.sampled_from([A, B, C])), min_size=1))
def test_missing_and_here_exclude_each_other(steps: list[set[Device]]) -> None:
    host = Host(learnt(A, B))
    host.labels = dict.fromkeys((A.id, B.id, C.id), MODEL)
    for step in steps:
        missing = host.scan(*step)
        here = {device.id for device in step}
        assert not missing & here
        # addresses are accounted for one by one: nobody is lost, nobody is missed twice
        assert len(missing) + len(here) >= 2


# The file


def kept(directory: Path, identity: str = "m", sysfs: str = "/sys") -> InventoryFile:
    return InventoryFile(str(directory), identity, sysfs=sysfs)


def test_the_file_brings_back_what_was_learnt(tmp_path: Path) -> None:
    known = learnt(A, B, serials=("s1", "ß\n\"'"))
    file = kept(tmp_path / "state")
    assert file.load() == ()
    assert file.store(file.render(known))
    assert file.problem == ""
    back = kept(tmp_path / "state").load()
    assert [(one.id, one.driver, one.path, one.info, one.learnt) for one in back] == [
        (one.id, one.driver, one.path, one.info, True) for one in known
    ]
    assert all(abs(new.last_seen - old.last_seen) <= 1 for new, old in zip(back, known, strict=True))
    assert sorted(os.listdir(tmp_path / "state")) == ["inventory.json"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = kept(tmp_path)
    file.store(file.render(learnt(A)))

    def crash(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        assert not file.store(file.render(learnt(A, B)))
    assert "Input/output error" in file.problem
    assert [known.id for known in kept(tmp_path).load()] == [A.id]
    assert file.store(file.render(learnt(A, B)))  # what the crash left behind is in nobody's way
    assert file.problem == ""


def test_another_machines_file_is_not_believed_and_replaced(tmp_path: Path) -> None:
    file = kept(tmp_path, "one")
    file.store(file.render(learnt(A)))
    other = kept(tmp_path, "two")
    assert other.load() == ()
    assert other.problem == ""
    assert kept(tmp_path, "").load() != ()  # without a machine id there is nothing to compare
    assert other.store(other.render(learnt(B)))
    assert kept(tmp_path, "one").load() == ()


def test_a_mock_host_neither_believes_nor_replaces_the_real_ones_file(tmp_path: Path) -> None:
    real = kept(tmp_path)
    real.store(real.render(learnt(A)))
    mock = kept(tmp_path, sysfs="/tmp")
    assert mock.load() == ()
    assert not mock.store(mock.render(learnt(B)))
    assert [known.id for known in kept(tmp_path).load()] == [A.id]


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    path.write_text('{"schema": 2, "gpus": []}')
    file = kept(tmp_path)
    assert file.load() == ()
    assert "newer" in file.problem
    assert not file.store(file.render(learnt(A)))
    assert json.loads(path.read_text())["schema"] == 2


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"schema": 0}',
    b'{"schema": "1"}',
    b'{"schema": 1, "machine": "m", "sysfs": "/sys", "devices": 7}',
    b'{"schema": 1, "machine": "m", "sysfs": "/sys", "devices": [{"id": "x"}]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "inventory.json").write_bytes(content)
    file = kept(tmp_path)
    assert file.load() == ()
    assert "damaged" in file.problem
    assert (tmp_path / "inventory.json.damaged").read_bytes() == content
    assert len(caplog.records) == 1
    assert file.store(file.render(learnt(A)))
    assert len(kept(tmp_path).load()) == 1


ENTRY = {
    "id": A.id, "driver": "amdgpu", "path": A.path, "first_seen": 1, "last_seen": 2, "info": {"card": "card0"}
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"path": "devices/../../etc"},
        {"path": "/etc"},
        {"path": "devices/\0"},
        {"id": ""},
        {"id": 7},
        {"info": {"card": 0}},
        {"info": {"card": "\ud800"}},
        {"info": {"card": "x" * 5000}},
        {"first_seen": float("nan")},
        {"last_seen": float("inf")},
    ],
    ids=str,
)
def test_what_cannot_have_been_written_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    whole = {"schema": 1, "machine": "m", "sysfs": "/sys", "devices": [ENTRY]}
    (tmp_path / "inventory.json").write_text(json.dumps(whole))
    assert len(kept(tmp_path).load()) == 1
    (tmp_path / "inventory.json").write_text(json.dumps(whole | {"devices": [ENTRY | change]}))
    assert kept(tmp_path).load() == ()


KEYS = st.sampled_from(["schema", "machine", "sysfs", "devices", "id", "info"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(ANYTHING)
def test_any_json_gives_an_answer(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    directory = tmp_path_factory.mktemp("state", numbered=True)
    (directory / "inventory.json").write_text(json.dumps(content))
    assert isinstance(kept(directory).load(), tuple)


def test_a_pipe_or_a_directory_in_the_files_place_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "inventory.json")
    assert kept(tmp_path).load() == ()
    other = tmp_path / "other"
    (other / "inventory.json").mkdir(parents=True)
    file = kept(other)
    assert file.load() == ()
    assert not file.store(b"{}")
    assert "cannot be written" in file.problem


def test_trouble_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    file = kept(tmp_path / "state")
    for _ in range(3):
        file.load()
        assert not file.store(b"{}")
    assert len(caplog.records) <= 2
    assert "cannot" in file.problem


def test_without_a_directory_nothing_is_kept() -> None:
    file = InventoryFile("")
    assert file.load() == ()
    assert not file.store(b"{}")
    assert file.problem == ""


def test_one_gpu_can_be_forgotten_while_no_daemon_runs(tmp_path: Path) -> None:
    file = kept(tmp_path)
    file.store(file.render(learnt(A, B)))
    assert kept(tmp_path).forget(A.id)
    assert not kept(tmp_path).forget(A.id)
    assert [known.id for known in kept(tmp_path).load()] == [B.id]


def test_the_file_is_not_for_others_to_write(tmp_path: Path) -> None:
    file = kept(tmp_path)
    file.store(file.render(learnt(A)))
    assert stat.S_IMODE((tmp_path / "inventory.json").stat().st_mode) & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_belongs_to_the_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 61234, 61235)
    file = kept(tmp_path)
    assert file.store(file.render(learnt(A)))
    status = (tmp_path / "inventory.json").stat()
    assert (status.st_uid, status.st_gid) == (61234, 61235)


def test_the_machine_is_hashed(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    found = machine(str(path))
    assert len(found) == 32
    assert "0123456789abcdef" not in found
    path.write_text("fedcba9876543210fedcba9876543210\n")
    assert machine(str(path)) != found
    path.write_text("uninitialized\n")
    assert machine(str(path)) == ""
    assert machine(str(tmp_path / "none")) == ""
