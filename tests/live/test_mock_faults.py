"""Every fault of the live mock host, as ordinary system calls meet it."""

import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from gpudaemon.mock import ControlError, HostProcess, profiles
from gpudaemon.mock.tree import File

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no /dev/fuse"),
]

CARD = "sys/class/drm/card0/device"
BUSY = f"{CARD}/gpu_busy_percent"


@pytest.fixture(scope="module")
def started() -> Iterator[HostProcess]:
    with HostProcess("mi300x8", gpus=2) as host:
        yield host


@pytest.fixture
def host(started: HostProcess) -> Iterator[HostProcess]:
    yield started
    started.control.clear()


def at(host: HostProcess, path: str) -> str:
    return os.path.join(host.directory, path)


def read(host: HostProcess, path: str) -> bytes:
    with open(at(host, path), "rb") as stream:
        return stream.read(1 << 16)


def failure(host: HostProcess, path: str) -> int | None:
    try:
        read(host, path)
    except OSError as error:
        return error.errno
    return None


def waiting(host: HostProcess, number: int) -> None:
    deadline = time.monotonic() + 10
    while len(host.control.stats()["waiting"]) != number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_mount_shows_the_tree(host: HostProcess) -> None:
    tree = profiles()["mi300x8"].tree(2)
    seen = set()
    for directory, _, names in os.walk(host.directory):
        seen |= {os.path.relpath(os.path.join(directory, name), host.directory) for name in names}
        seen |= {
            os.path.relpath(os.path.join(directory, name), host.directory)
            for name in os.listdir(directory)
            if os.path.islink(os.path.join(directory, name))
        }
    assert seen == set(tree.entries)
    for path, entry in tree.entries.items():
        if isinstance(entry, File):
            status = os.stat(at(host, path))
            assert (status.st_mode & 0o7777, status.st_uid) == (entry.mode, 0)
            if not entry.generate and not entry.error:
                assert read(host, path) == entry.content
            elif entry.error:
                assert failure(host, path) == entry.error
        else:
            assert os.readlink(at(host, path)) == entry.target


def test_values_move(host: HostProcess) -> None:
    first = read(host, "proc/uptime")
    time.sleep(0.05)
    assert read(host, "proc/uptime") != first
    assert 0 <= int(read(host, BUSY)) <= 100


def test_a_value_does_not_change_within_one_reading(host: HostProcess) -> None:
    # The second read of a file ends at what the first one printed, as in sysfs.
    descriptor = os.open(at(host, "proc/uptime"), os.O_RDONLY)
    try:
        content = os.read(descriptor, 4)
        while part := os.read(descriptor, 4):
            content += part
            time.sleep(0.02)
        assert content.endswith(b"\n")
        assert content.count(b"\n") == 1
        assert os.pread(descriptor, 64, 0) != content
    finally:
        os.close(descriptor)


def test_nothing_can_be_written(host: HostProcess) -> None:
    with pytest.raises(OSError, match="Read-only") as raised:
        os.open(at(host, f"{CARD}/power/control"), os.O_WRONLY)
    assert raised.value.errno == errno.EROFS


def test_latency_delays_one_file_and_no_other(host: HostProcess) -> None:
    assert host.control.fault(BUSY, "latency", seconds=0.3) == 1
    spent: list[float] = []

    def slow() -> None:
        began = time.monotonic()
        read(host, BUSY)
        spent.append(time.monotonic() - began)

    threads = [threading.Thread(target=slow) for _ in range(2)]
    for thread in threads:
        thread.start()
    waiting(host, 2)
    began = time.monotonic()
    read(host, f"{CARD}/mem_busy_percent")
    assert time.monotonic() - began < 0.2
    for thread in threads:
        thread.join(10)
    assert len(spent) == 2
    assert all(0.3 <= seconds < 2 for seconds in spent)


def test_a_hung_file_holds_its_reader_until_released(host: HostProcess) -> None:
    host.control.fault(BUSY, "hang")
    result: list[bytes] = []
    thread = threading.Thread(target=lambda: result.append(read(host, BUSY)))
    thread.start()
    try:
        waiting(host, 1)
        thread.join(0.3)
        assert thread.is_alive()
        # Lookups, listings, links and every other file go on.
        assert "gpu_busy_percent" in os.listdir(at(host, CARD))
        assert os.readlink(at(host, "sys/class/drm/card0")).startswith("../../devices/")
        assert os.stat(at(host, BUSY)).st_size == 4096
        assert int(read(host, "sys/class/drm/card1/device/gpu_busy_percent")) >= 0
        (entry,) = host.control.stats()["waiting"]
        assert entry["path"].endswith("0000:03:00.0/gpu_busy_percent")
        assert entry["hung"]
        assert 0.3 <= entry["seconds"] < 30
    finally:
        assert host.control.release(BUSY) == 1
    thread.join(10)
    assert 0 <= int(result[0]) <= 100
    assert failure(host, BUSY) is None


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY, errno.EIO, errno.ENODATA, errno.EOPNOTSUPP])
def test_errors_of_read(host: HostProcess, number: int) -> None:
    descriptor = os.open(at(host, BUSY), os.O_RDONLY)
    try:
        host.control.fault(BUSY, "read_errno", errno=number)
        with pytest.raises(OSError) as raised:
            os.pread(descriptor, 64, 0)
        assert raised.value.errno == number
        host.control.clear()
        assert os.pread(descriptor, 64, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENODEV, errno.EMFILE])
def test_errors_of_open(host: HostProcess, number: int) -> None:
    descriptor = os.open(at(host, BUSY), os.O_RDONLY)
    try:
        host.control.fault(BUSY, "open_errno", errno=number)
        with pytest.raises(OSError) as raised:
            os.open(at(host, BUSY), os.O_RDONLY)
        assert raised.value.errno == number
        assert os.pread(descriptor, 64, 0)  # what is open stays good
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("content", [b"", b"\xff\x00garbage\n", b"4", b"7" * 10_000])
def test_content_is_replaced(host: HostProcess, content: bytes) -> None:
    host.control.fault(BUSY, "content", content=content)
    descriptor = os.open(at(host, BUSY), os.O_RDONLY)
    try:
        assert os.pread(descriptor, 20_000, 0) == content
        assert os.pread(descriptor, 64, 0) == content[:64]
        assert os.pread(descriptor, 64, 4096) == content[4096 : 4096 + 64]
    finally:
        os.close(descriptor)
    host.control.clear()
    assert read(host, BUSY) != content


def test_a_vanished_file_is_missed_at_once(host: HostProcess) -> None:
    descriptor = os.open(at(host, BUSY), os.O_RDONLY)
    try:
        assert os.path.exists(at(host, BUSY))
        host.control.fault(BUSY, "vanish")
        assert failure(host, BUSY) == errno.ENOENT
        assert "gpu_busy_percent" not in os.listdir(at(host, CARD))
        for _ in range(2):
            with pytest.raises(OSError, match="No such device") as raised:
                os.pread(descriptor, 64, 0)
            assert raised.value.errno == errno.ENODEV
            host.control.clear()  # it is a new file then, to which the old descriptor does not lead
        assert failure(host, BUSY) is None
        assert "gpu_busy_percent" in os.listdir(at(host, CARD))
    finally:
        os.close(descriptor)


def test_faults_add_up(host: HostProcess) -> None:
    host.control.fault(BUSY, "latency", seconds=0.2)
    host.control.fault(BUSY, "read_errno", errno=errno.EIO)
    began = time.monotonic()
    assert failure(host, BUSY) == errno.EIO
    assert time.monotonic() - began >= 0.2


def test_patterns(host: HostProcess) -> None:
    assert host.control.fault("*/gpu_busy_percent", "read_errno", errno=errno.EIO) == 2
    assert failure(host, "sys/class/drm/card1/device/gpu_busy_percent") == errno.EIO
    assert host.control.release("sys/class/drm/card1/device/*") == 0
    assert failure(host, "sys/class/drm/card1/device/gpu_busy_percent") is None
    assert failure(host, BUSY) == errno.EIO


@pytest.mark.parametrize(
    ("path", "kind", "arguments"),
    [
        ("sys/nothing/here", "hang", {}),
        (BUSY, "explode", {}),
        (BUSY, "latency", {}),
        (BUSY, "latency", {"seconds": -1}),
        (BUSY, "hang", {"seconds": 1}),
        (BUSY, "read_errno", {"errno": 0}),
        (BUSY, "content", {"content": 7}),
    ],
)
def test_a_fault_that_cannot_be_is_refused(
    host: HostProcess, path: str, kind: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(ControlError):
        host.control.fault(path, kind, **arguments)
    assert failure(host, BUSY) is None


def test_opens_and_reads_are_counted(host: HostProcess) -> None:
    path = f"{CARD}/vbios_version"
    before = host.control.accesses(path)
    read(host, path)
    descriptor = os.open(at(host, path), os.O_RDONLY)
    os.pread(descriptor, 64, 0)
    os.pread(descriptor, 64, 0)
    os.close(descriptor)
    ((name, (opens, reads)),) = host.control.accesses(path).items()
    old_opens, old_reads = before.get(name, (0, 0))
    assert (opens - old_opens, reads - old_reads) == (2, 3)


def test_a_healthy_read_is_cheap(host: HostProcess) -> None:
    def spent() -> float:
        with open(f"/proc/{host.pid}/stat", "rb") as stream:
            fields = stream.read().rsplit(b")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    number = 4000
    descriptor = os.open(at(host, BUSY), os.O_RDONLY)
    try:
        began = spent()
        for _ in range(number):
            os.pread(descriptor, 64, 0)
        assert (spent() - began) / number < 100e-6
    finally:
        os.close(descriptor)
