"""A host is recorded, and its recording read instead of it: the same page, and nothing of it that names it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpudaemon.capture import load
from gpudaemon.cli import main
from gpudaemon.mock import HostProcess, Tree, available, build, profiles
from gpudaemon.mock.tree import File
from gpudaemon.model.forbidden import is_forbidden
from gpudaemon.model.identifiers import form_of
from tests.captures_replay import page, static
from tests.live.daemon import RunningDaemon

pytestmark = pytest.mark.live
live = pytest.mark.skipif(not available(), reason="FUSE cannot be used here")
PROFILES = sorted(profiles())


def capture(to: Path, sysfs: str, procfs: str, *words: str) -> None:
    flags = ["--path.sysfs", sysfs, "--path.procfs", procfs, "--path.runtime", str(to.parent / "run")]
    with pytest.raises(SystemExit) as ended:
        main(["capture", str(to), *flags, *words])
    assert ended.value.code == 0


def identifiers(tree: Tree) -> set[str]:
    """What the profile has put into the places of identifiers, as it stands there."""
    found = set()
    for path, entry in tree.entries.items():
        if isinstance(entry, File) and form_of(path) is not None:
            text = entry.content.decode().strip()
            if text.strip("0") and len(text) > 6:  # a shorter one stands in other numbers by chance
                found.add(text)
    return found


def search(directory: Path, words: set[str]) -> list[str]:
    """Where any of `words` stands in names, links and contents below `directory`."""
    places = []
    for path in sorted(directory.rglob("*")):
        texts = [str(path.relative_to(directory))]
        if path.is_symlink():
            texts.append(os.readlink(path))
        elif path.is_file():
            texts.append(path.read_bytes().decode("latin-1"))
        places += [f"{path}: {word}" for word in words for text in texts if word.lower() in text.lower()]
    return places


def device_of(host: HostProcess, number: int) -> str:
    """Directory of the card number so and so, relative to the mount."""
    cards = [path for path in Path(host.sysfs, "class/drm").iterdir() if re.fullmatch(r"card\d+", path.name)]
    cards.sort(key=lambda path: int(path.name[4:]))
    return os.path.relpath(os.path.realpath(cards[number] / "device"), host.directory)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_recorded_and_replayed_gives_the_same_page(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = build(profile, str(tmp_path / "host"))
    sysfs, procfs = str(tmp_path / "host/sys"), str(tmp_path / "host/proc")
    capture(tmp_path / "copy", sysfs, procfs)
    live_page, copy = page(sysfs, procfs), page(str(tmp_path / "copy/sys"), str(tmp_path / "copy/proc"))
    assert copy == live_page
    words = identifiers(tree)
    assert search(tmp_path / "copy", words) == []
    with capsys.disabled():
        print(f"\n{profile}: {len(copy)} series the same, {len(words)} identifiers searched for")


@live
@pytest.mark.parametrize("profile", PROFILES)
def test_a_live_host_recorded_gives_the_same_page_for_what_stands_still(profile: str, tmp_path: Path) -> None:
    with HostProcess(profile) as host:
        live_page = page(host.sysfs, host.procfs)
        capture(tmp_path / "copy", host.sysfs, host.procfs)
        after = page(host.sysfs, host.procfs)
    copy = page(str(tmp_path / "copy/sys"), str(tmp_path / "copy/proc"))
    still = static(str(tmp_path / "copy/sys"), str(tmp_path / "copy/proc")) & set(live_page)
    assert {series: copy.get(series) for series in still} == {series: live_page[series] for series in still}
    # Whatever moves is there as well, with some value.
    assert set(live_page) & set(after) - set(copy) == set()
    assert len(still) >= 5


def test_this_machine_recorded_gives_the_same_page_and_does_not_name_itself(tmp_path: Path) -> None:
    before = page("/sys", "/proc")
    capture(tmp_path / "copy", "/sys", "/proc")
    after = page("/sys", "/proc")
    copy = page(str(tmp_path / "copy/sys"), str(tmp_path / "copy/proc"))
    still = {series: value for series, value in before.items() if after.get(series) == value}
    assert {series: copy.get(series) for series in still} == still
    words = {Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    for address in Path("/sys/class/net").glob("*/address"):
        text = address.read_text().strip()
        if text.strip("0:"):
            words |= {text, text.replace(":", "")}
    for name in ("product_uuid", "product_serial", "board_serial"):
        try:
            words.add(Path("/sys/class/dmi/id", name).read_text().strip())
        except OSError:
            continue
    words = {word for word in words if len(word) >= 6}
    assert words
    assert search(tmp_path / "copy", words) == []


@live
def test_a_device_that_sleeps_is_left_alone(tmp_path: Path) -> None:
    with HostProcess("laptop") as host:
        capture(tmp_path / "copy", host.sysfs, host.procfs)
        stats = host.control.stats()["devices"]["0000:03:00.0"]
    assert (stats["suspended_accesses"], stats["runtime_status"]) == (0, "suspended")


@live
def test_no_file_with_side_effects_is_opened(tmp_path: Path) -> None:
    with HostProcess("mi300x8", 2) as host:
        capture(tmp_path / "copy", host.sysfs, host.procfs)
        opened = host.control.accesses("sys/*")
    assert len(opened) > 300
    assert [path for path in opened if is_forbidden(path)] == []


@live
def test_a_device_that_hangs_costs_one_deadline_and_the_rest_is_recorded(tmp_path: Path) -> None:
    with HostProcess("mi300x8", 3) as host:
        hung = f"{device_of(host, 1)}/gpu_busy_percent"
        host.control.fault(hung, "hang")
        began = time.monotonic()
        command = [sys.executable, "-P", "-m", "gpudaemon.cli", "capture", str(tmp_path / "copy")]
        command += ["--path.sysfs", host.sysfs, "--path.procfs", host.procfs]
        command += ["--path.runtime", str(tmp_path / "run"), "--read.deadline", "1"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        took = time.monotonic() - began
        (note,) = (tmp_path / "run").glob("stuck-reader-*")
        pid = int(note.name.rsplit("-", 1)[1])
        assert Path(f"/proc/{pid}/comm").exists(), "the child that is stuck stays behind, the command does not"
        # While it is there the device is left alone.
        capture(tmp_path / "second", host.sysfs, host.procfs, "--read.deadline", "1")
        waiting = [one["path"] for one in host.control.stats()["waiting"]]
        host.control.release(hung)
    assert waiting == [hung]
    assert "1 hung" in done.stdout
    first, second = (load(str(tmp_path / name)) for name in ("copy", "second"))
    states = [one["state"] for one in first.manifest["devices"].values() if one["driver"] == "amdgpu"]
    assert sorted(states) == ["hung", "read", "read"]
    assert [one.path for one in first.unread if one.why == "deadline"] == [hung]
    states = [one["state"] for one in second.manifest["devices"].values() if one["driver"] == "amdgpu"]
    assert sorted(states) == ["held", "read", "read"]
    assert took < 30


@live
def test_the_errno_of_a_read_is_in_the_manifest(tmp_path: Path) -> None:
    with HostProcess("rx7900xtx") as host:
        base = device_of(host, 0)
        host.control.fault(f"{base}/gpu_busy_percent", "read_errno", errno=16)
        host.control.fault(f"{base}/mem_busy_percent", "open_errno", errno=13)
        capture(tmp_path / "copy", host.sysfs, host.procfs)
    unread = {one.path: (one.why, one.error, one.stage) for one in load(str(tmp_path / "copy")).unread}
    assert unread[f"{base}/gpu_busy_percent"] == ("errno", 16, "read")
    assert unread[f"{base}/mem_busy_percent"] == ("errno", 13, "open")


@live
def test_a_bundle_has_the_log_and_the_page_of_the_daemon_that_runs(tmp_path: Path) -> None:
    with HostProcess("mi300x8", 2) as host, RunningDaemon(host, runtime=str(tmp_path / "run")) as daemon:
        capture(tmp_path / "bug.tar.gz", host.sysfs, host.procfs)
        served = daemon.metrics()
        serials = {
            match for series in served for match in re.findall(r'(?:serial_number|unique_id)="([^"]+)"', series)
        }
    bundle = load(str(tmp_path / "bug.tar.gz"))
    text = bundle.files["daemon/metrics.prom"].decode()
    assert "gpudaemon_daemon_engine_info" in text or "gpudaemon_build_info" in text
    assert re.search(r'gpudaemon_device_state\{device="0000:05:00.0",state="ok"\} 1|state="ok"\} 1', text)
    assert "device" in bundle.files["daemon/log.txt"].decode()
    assert json.loads(bundle.files["daemon/check.json"])["interfaces"]
    assert b"[path]" in bundle.files["daemon/config.toml"] or b"sysfs" in bundle.files["daemon/config.toml"]
    assert len(serials) >= 4
    whole = b"\n".join(bundle.files.values()).decode("latin-1")
    assert [serial for serial in serials if serial in whole] == []


def test_without_a_daemon_a_bundle_says_so(tmp_path: Path) -> None:
    build("empty", str(tmp_path / "host"))
    capture(tmp_path / "bug.tar.gz", str(tmp_path / "host/sys"), str(tmp_path / "host/proc"))
    assert b"no daemon is running" in load(str(tmp_path / "bug.tar.gz")).files["daemon/none.txt"]


def test_a_key_makes_two_captures_comparable(tmp_path: Path) -> None:
    build("rx7900xtx", str(tmp_path / "host"))
    (tmp_path / "key").write_text("secret")
    for name in ("a", "b"):
        words = ("--key", str(tmp_path / "key"))
        capture(tmp_path / name, str(tmp_path / "host/sys"), str(tmp_path / "host/proc"), *words)
    assert load(str(tmp_path / "a")).files == load(str(tmp_path / "b")).files
