"""Calls to this kernel: perf counters and generic netlink, by the very code that asks GPUs."""

import errno
import os
import time

import pytest

from gpudaemon.calls.drm_ras import DrmRas, Family
from gpudaemon.calls.engine import Questions
from gpudaemon.calls.pmu import Pmu
from gpudaemon.parsers.drm_ras import messages
from gpudaemon.parsers.pmu import count

pytestmark = pytest.mark.live

CPU_CLOCK = "cpu-clock type=1 cpu=0 config=0x0,0x0,0x0"
"""PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK: nanoseconds, in every kernel with perf."""


def test_a_counter_counts_from_its_opening_on() -> None:
    try:
        counter = Pmu().open("", CPU_CLOCK)
    except OSError as error:
        pytest.skip(f"perf_event_open: {error}")
    try:
        first = count(10**9)(counter.ask())[0]
        began = time.monotonic()
        time.sleep(0.2)
        second = count(10**9)(counter.ask())[0]
        passed = time.monotonic() - began
    finally:
        counter.close()
    assert 0.15 < second - first < passed + 0.05


@pytest.mark.parametrize("question", ["", "x", "x type=1 cpu=0", "x type=1 cpu=0 config=1,2,3"])
def test_what_is_no_question_is_absent(question: str) -> None:
    with pytest.raises(OSError, match="no question") as raised:
        Pmu().open("", question)
    assert raised.value.errno == errno.ENOENT


def test_a_pmu_that_is_not_there_says_so() -> None:
    with pytest.raises(OSError) as raised:
        Pmu().open("", "x type=4294967290 cpu=0 config=0x0,0x0,0x0")
    assert raised.value.errno in (errno.ENOENT, errno.EACCES)


def test_without_the_right_it_is_denied() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: cannot give up what one has")
    with open("/proc/sys/kernel/perf_event_paranoid") as stream:
        if int(stream.read()) <= 0:
            pytest.skip("anybody may open counters here")
    child = os.fork()
    if not child:
        os.setresuid(65534, 65534, 65534)  # with the last uid that is 0 every capability goes
        try:
            Pmu().open("", CPU_CLOCK)
        except OSError as error:
            os._exit(error.errno or 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES


def test_questions_are_closed_like_files() -> None:
    questions = Questions(Pmu())
    number = questions.open("", b"pmu/" + CPU_CLOCK.encode())
    if number < 0:
        pytest.skip(f"perf_event_open: {os.strerror(-number)}")
    before = len(os.listdir("/proc/self/fd"))
    assert questions.ask(number, memoryview(bytearray(32))) == 8
    questions.release(number)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert questions.ask(number, memoryview(bytearray(32))) == -errno.EBADF


def test_a_kernel_without_the_family_does_not_support_it() -> None:
    try:
        DrmRas().open("0000:03:00.0", "errors")
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP
    else:
        pytest.skip("this kernel has drm-ras")


def test_a_dump_brings_the_kernels_messages_as_they_are() -> None:
    """Every kernel has nlctrl, whose answers have the same form: command 3 lists the families."""
    with Family("nlctrl") as family:
        raw = b"".join(one + b"\0" * (-len(one) % 4) for _, one in family.dump(3))
    names = [attributes[2].rstrip(b"\0").decode() for _, attributes in messages(raw)]
    assert "nlctrl" in names
    assert len(set(names)) == len(names)
