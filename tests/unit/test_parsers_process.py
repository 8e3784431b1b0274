"""/proc/PID/stat, rings of io_uring, KFD's files and the dmem controller."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudaemon.errors import Malformed
from gpudaemon.parsers.dmem import dmem
from gpudaemon.parsers.io_uring import Ring, is_poller, is_worker, ring
from gpudaemon.parsers.kfd import properties, queue_type
from gpudaemon.parsers.kfd_topology import topology
from gpudaemon.parsers.process import process_stat

STAT = b" S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0 18446744073709551615 0 0 0\n"


def test_stat_of_this_process() -> None:
    stat = process_stat(Path("/proc/self/stat").read_bytes())
    assert stat.pid == os.getpid()
    assert stat.name == Path("/proc/self/comm").read_text().rstrip("\n")
    assert 0 < stat.started < float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK") + 1


@settings(deadline=None)
@given(
    st.binary(max_size=16).filter(lambda name: b"\0" not in name), st.integers(0, 2**63), st.integers(1, 2**22)
)
def test_any_name_leaves_the_start_alone(name: bytes, started: int, pid: int) -> None:
    stat = process_stat(b"%d (" % pid + name + b")" + STAT % started)
    assert (stat.pid, stat.started, stat.state) == (pid, started, "S")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_content_of_the_others(content: bytes) -> None:
    for parse in (process_stat, ring, properties, queue_type, dmem):
        with suppress(Malformed):
            parse(content)


RING = """pos:\t0
SqMask:\t0x7
SqHead:\t%d
SqTail:\t%d
CachedSqHead:\t24
CqMask:\t0xf
CqHead:\t%d
CqTail:\t%d
CachedCqTail:\t16
SQEs:\t1
    0: opcode:NOP, fd:0, flags:0, off:0, addr:0x0, rw_flags:0x0, buf_index:0 user_data:24
CQEs:\t0
"""
TAIL = """SqThread:\t26957
SqThreadCpu:\t1
SqTotalTime:\t52022
SqWorkTime:\t12
UserFiles:\t0
UserBufs:\t0
PollList:
  op=6, task_works=0
CqOverflowList:
  user_data=16, res=0, flags=0
  user_data=17, res=-125, flags=1f
NAPI:\tdisabled
"""


def test_a_ring_as_6_18_prints_it() -> None:
    found = ring((RING % (4, 7, 0, 16) + TAIL).encode())
    assert found == Ring(3, 16, 8, 16, 2, 26957, 0.052022, 12e-6)


def test_before_6_9_there_are_no_times_and_no_thread() -> None:
    found = ring((RING % (0, 0, 0, 0) + "UserFiles:\t0\nPollList:\nCqOverflowList:\n").encode())
    assert found is not None
    assert (found.overflow, found.poller, found.poll_seconds) == (0, None, None)


def test_without_the_lock_lists_are_not_known() -> None:
    found = ring((RING % (0, 1, 0, 2)).encode())
    assert found is not None
    assert (found.submissions, found.completions, found.overflow) == (1, 2, None)
    assert ring(b"pos:\t0\nflags:\t02000002\n") is None, "7.3 tells nothing at all then"


def test_a_cut_list_has_no_count() -> None:
    found = ring((RING % (0, 0, 0, 0) + TAIL).encode(), complete=False)
    assert found is not None
    assert found.overflow is None


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_heads_and_tails_wrap(head: int, waiting: int) -> None:
    found = ring((RING % (head, (head + waiting) % 2**32, 0, 0)).encode())
    assert found is not None
    assert found.submissions == waiting


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_race_never_gives_what_a_ring_cannot_hold(head: int, tail: int) -> None:
    found = ring((RING % (head, tail, head, tail)).encode())
    assert found is not None
    assert 0 <= found.submissions <= 8
    assert 0 <= found.completions <= 16


def test_threads_of_rings() -> None:
    assert is_worker(b"iou-wrk-123\n")
    assert is_poller(b"iou-sqp-123\n")
    assert not is_worker(b"iou-wrk-12x\n")
    assert not is_worker(b"iou-sqp-123\n")


def test_kfd_nodes() -> None:
    def device(node: dict[str, int]) -> str:
        return topology({1: node})[1].device

    node = properties(
        b"cpu_cores_count 0\nsimd_count 256\nlocation_id 768\ndomain 1\nunique_id 18446744073709551615\n"
    )
    assert device(node) == "0001:03:00.0"
    assert device(properties(b"simd_count 4\nlocation_id 17153\n")) == "0000:43:00.1"
    assert device(properties(b"cpu_cores_count 8\nsimd_count 0\nlocation_id 0\n")) == ""


@pytest.mark.parametrize(("content", "name"), [(b"0", "compute"), (b"1", "sdma"), (b"4", "other")])
def test_kfd_queues_have_no_newline(content: bytes, name: str) -> None:
    assert queue_type(content) == name


def test_dmem_as_documented() -> None:
    content = b"drm/0000:03:00.0/vram0 12550144\ndrm/0000:03:00.0/stolen 8650752\n"
    assert dmem(content) == (("0000:03:00.0", "vram0", 12550144), ("0000:03:00.0", "stolen", 8650752))
    assert dmem(b"drm/0000:03:00.0/vram0 max\n") == (("0000:03:00.0", "vram0", None),)
    assert dmem(b"odd 3\n") == (("", "odd", 3),)
    assert dmem(b"") == ()
