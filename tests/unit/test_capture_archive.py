"""A capture is laid down, packed and read again; what is none is refused whatever it contains."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.capture import Capture, load, pack, record, redacted, write
from gpudaemon.capture.recording import Unread
from gpudaemon.errors import GpudaemonError
from gpudaemon.mock import build


def captured(profile: str, tmp_path: Path) -> Capture:
    build(profile, str(tmp_path / "host"))
    sysfs, procfs = str(tmp_path / "host/sys"), str(tmp_path / "host/proc")
    recording = record(sysfs=sysfs, procfs=procfs, deadline=5.0, runtime=str(tmp_path / "run"))
    return redacted(recording, b"key")


@pytest.mark.parametrize("profile", ["laptop", "mixed"])
def test_written_or_packed_it_reads_back_the_same(profile: str, tmp_path: Path) -> None:
    made = captured(profile, tmp_path)
    write(made, str(tmp_path / "tree"))
    pack(made, str(tmp_path / "one.tar.gz"))
    for place in ("tree", "one.tar.gz"):
        again = load(str(tmp_path / place))
        assert again.files == made.files
        assert again.links == made.links
        assert again.manifest == made.manifest


def test_modes_and_links_are_those_of_the_host(tmp_path: Path) -> None:
    made = captured("mixed", tmp_path)
    write(made, str(tmp_path / "tree"))
    for path, target in made.links.items():
        assert os.readlink(tmp_path / "tree" / path) == os.readlink(tmp_path / "host" / path) == target
    for path in made.files:
        ours, theirs = ((tmp_path / root / path).stat().st_mode & 0o777 for root in ("tree", "host"))
        assert ours | 0o400 == theirs | 0o400, path


def test_the_manifest_says_why_a_file_is_not_there(tmp_path: Path) -> None:
    made = captured("laptop", tmp_path)
    unread = made.unread
    asleep = "sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"
    assert Unread(f"{asleep}/gpu_busy_percent", "suspended") in unread
    assert f"{asleep}/gpu_busy_percent" not in made.files
    assert made.files[f"{asleep}/vendor"] == b"0x1002\n"
    assert made.manifest["devices"]["0000:03:00.0"]["state"] == "suspended"
    assert made.manifest["kernel"]["release"].startswith("6.12")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made = Capture({}, {}, {"unread": [], "modes": {}})
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("mine")
    with pytest.raises(FileExistsError):
        write(made, str(tmp_path / "there"))
    with pytest.raises(FileExistsError):
        pack(made, str(tmp_path / "there/file"))
    assert (tmp_path / "there/file").read_text() == "mine"


def _archive(place: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(place, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(place)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "sys/../../outside", "sys//x", "./../x"])
def test_a_path_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    place = _archive(tmp_path / "bad.tar.gz", (tarfile.TarInfo(name), b"x"))
    with pytest.raises(GpudaemonError):
        load(place)


def test_no_file_is_written_through_a_link_of_the_capture(tmp_path: Path) -> None:
    link = tarfile.TarInfo("sys/a")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "victim")
    (tmp_path / "victim").mkdir()
    manifest = {"format": 1, "unread": [], "modes": {}}
    members = [(link, b""), (tarfile.TarInfo("sys/a/file"), b"x")]
    members.append((tarfile.TarInfo("manifest.json"), json.dumps(manifest).encode()))
    capture = load(_archive(tmp_path / "bad.tar.gz", *members))
    with pytest.raises(OSError):
        write(capture, str(tmp_path / "tree"))
    assert list((tmp_path / "victim").iterdir()) == []


@given(content=st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_whatever_is_given_as_a_manifest_or_an_archive(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("any")
    (place / "manifest.json").write_bytes(content)
    (place / "any.tar.gz").write_bytes(content)
    for name in (place, place / "any.tar.gz"):
        with pytest.raises(GpudaemonError):
            load(str(name))
