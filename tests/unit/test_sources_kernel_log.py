"""The kernel's log read as a stream, from a pipe that keeps records apart as /dev/kmsg does."""

import os
from collections.abc import Callable, Iterator

import pytest

from gpudaemon.sources.kernel_log import KernelLog

Write = Callable[[str], None]


@pytest.fixture
def pipe() -> Iterator[tuple[str, Write]]:
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)  # pipe(2): each write is a packet
    yield f"/proc/self/fd/{reader}", lambda text: os.write(writer, text.encode()) and None
    os.close(writer)
    os.close(reader)


def test_only_the_kernels_own_records_are_given(pipe: tuple[str, Write]) -> None:
    path, write = pipe
    log = KernelLog(path)
    write("6,1,10,-;from the kernel\n SUBSYSTEM=pci\n")
    write("12,2,11,-;NVRM: Xid (PCI:0000:01:00): 79, by a process\n")
    write("nonsense")
    write("3,3,12,-;from the kernel too\n")
    assert [one.text for one in log.take()] == ["from the kernel", "from the kernel too"]
    assert (log.records, log.lost, log.sequence) == (3, 0, 3)
    assert log.take() == []
    log.close()


def test_what_was_overwritten_is_counted(pipe: tuple[str, Write]) -> None:
    path, write = pipe
    log = KernelLog(path)
    write("6,100,10,-;first seen\n")
    write("6,104,10,-;next\n")
    assert len(log.take()) == 2
    assert (log.records, log.lost) == (2, 3)
    log.close()


def test_a_later_reader_goes_on_where_another_was(pipe: tuple[str, Write]) -> None:
    path, write = pipe
    log = KernelLog(path, after=7)
    for number in (6, 7, 10):
        write(f"6,{number},10,-;{number}\n")
    assert [one.text for one in log.take()] == ["10"]
    assert (log.records, log.lost) == (1, 2)
    log.close()


def test_what_was_there_before_is_history() -> None:
    """On this host's own log."""
    try:
        log = KernelLog()
    except OSError as error:
        pytest.skip(f"/dev/kmsg: {error.strerror}")
    assert log.take() == [] or log.sequence > 0
    before = log.records
    try:
        with open("/dev/kmsg", "wb", buffering=0) as stream:
            stream.write(b"<7>written by a test of gpudaemon\n")
    except OSError:
        pytest.skip("/dev/kmsg cannot be written")
    assert not [one for one in log.take() if "written by a test" in one.text]
    assert log.records > before, "it was read, and not believed"
    log.close()
