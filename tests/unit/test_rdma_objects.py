"""RDMA objects by netlink: from the kernel's messages to rows, and whatever bytes come instead."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudaemon.calls import rdma as calls
from gpudaemon.collectors.rdma.objects import calls as planned
from gpudaemon.errors import Malformed
from gpudaemon.model.attribute import Rows
from gpudaemon.parsers.rdma_objects import QP_STATES, Holder, holders, objects, statistics

POD = "pod/55c6c714-b240-4dec-9a45-57b61696ab6e/" + "cd" * 6
CGROUP = (
    f"/kubepods.slice/kubepods-pod55c6c714_b240_4dec_9a45_57b61696ab6e.slice/cri-containerd-{'cd' * 32}.scope"
)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def u64(value: int) -> bytes:
    return struct.pack("=Q", value)


def table(sort: str, *entries: bytes) -> bytes:
    """One message of a dump: index and name of the device, then the table."""
    number = {"qp": 19, "cm_id": 30, "cq": 35, "mr": 40, "pd": 46, "ctx": 86}[sort]
    body = b"".join(attribute(number + 1, entry) for entry in entries)
    return attribute(1, u32(0)) + attribute(2, b"mlx5_0\0") + attribute(number, body)


def of_process(pid: int) -> bytes:
    return attribute(28, u32(pid))


def of_kernel(name: str) -> bytes:
    return attribute(29, name.encode() + b"\0")


def decoded(what: str, content: bytes) -> dict[tuple[str, ...], float]:
    (one,) = [one for one in planned("0000:05:00.0", "mlx5_0") if one.path == f"rdma/{what} mlx5_0"]
    assert isinstance(one, Rows) and one.call == "rdma"
    found = [((metric.name, *labels), value) for metric, labels, value in one.decode(content)]
    assert len(found) == len(dict(found)), "the same series twice"
    assert all(metric in one.metrics for metric, _, _ in one.decode(content))
    return dict(found)


class Kernel:
    """A socket that answers as nldev does. dumps: by command, None where it is refused."""

    def __init__(self, summary: bytes, dumps: dict[int, list[bytes] | None]) -> None:
        self._summary, self._dumps = summary, dumps
        self.asked: list[int] = []

    def summary(self, _: int) -> dict[str, tuple[int, int | None]]:
        return calls.summary(self._summary)

    def dump(self, command: int, **_: int) -> list[bytes] | None:
        self.asked.append(command)
        return self._dumps.get(command, [])


def counted(**counts: int) -> bytes:
    entries = (
        attribute(16, attribute(17, name.encode() + b"\0") + attribute(18, u64(count)))
        for name, count in counts.items()
    )
    return attribute(2, b"mlx5_0\0") + attribute(15, b"".join(entries))


def answer(lines: Any) -> bytes:
    return "".join("\t".join(map(str, words)) + "\n" for words in lines).encode()


def test_a_summary_with_and_without_maxima() -> None:
    entries = attribute(16, attribute(17, b"qp\0") + attribute(18, u64(7)) + attribute(118, u64(131072)))
    entries += attribute(16, attribute(17, b"mr\0") + attribute(18, u64(0)))
    found = calls.summary(attribute(15 | 0x8000, entries))
    assert found == {"qp": (7, 131072), "mr": (0, None)}
    content = answer((sort, count, "-" if most is None else most) for sort, (count, most) in found.items())
    labels = ("0000:05:00.0", "mlx5_0")
    assert decoded("objects", content) == {
        ("gpudaemon_rdma_objects", *labels, "qp"): 7,
        ("gpudaemon_rdma_objects_max", *labels, "qp"): 131072,
        ("gpudaemon_rdma_objects", *labels, "mr"): 0,
    }


def test_objects_go_to_the_owners_of_their_processes(tmp_path: Path) -> None:
    """Two ranks of one pod are one line; a part of the kernel has its name; one that ended is unknown."""
    for pid in (100, 101):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / f"{pid}/comm").write_text("train\n")
        (tmp_path / f"{pid}/cgroup").write_text(f"0::{CGROUP}\n")
    kernel = Kernel(
        counted(qp=4, mr=3, pd=1, cq=0),
        {
            10: [
                table("qp", *(of_process(pid) + attribute(27, b"\x03") for pid in (100, 101))),
                table("qp", of_kernel("ib_core") + attribute(27, b"\x02"), attribute(27, b"\x06")),
            ],
            13: [table("mr", *(of_process(pid) + attribute(45, u64(1 << 30)) for pid in (100, 101, 100)))],
            14: [table("pd", of_kernel("ib_core"))],
        },
    )
    holdings = calls.Holdings()
    lines = list(calls._holders(kernel, 0, 1))  # type: ignore[arg-type]
    assert kernel.asked == [10, 13, 14], "nothing is asked of what there is none of"
    # The names come from /proc of this host there: once more with the tree of this test.
    for sort, command in (("qp", 10), ("mr", 13), ("pd", 14)):
        for payload in kernel.dump(command) or ():
            holdings.take(sort, payload)
    content = answer([*(one for one in lines if one[0] == "state"), *calls._together(holdings, str(tmp_path))])  # type: ignore[index]
    found = holders(content)
    assert sorted(found.holders, key=lambda one: one.owner) == [
        Holder("kernel", "ib_core", 0, {"pd": 1, "qp": 1}),
        Holder(POD, "train", 3 << 30, {"mr": 3, "qp": 2}),
        Holder("unknown", "unknown", 0, {"qp": 1}),
    ]
    rows = decoded("holders", content)
    labels = ("0000:05:00.0", "mlx5_0")
    states = {state: rows["gpudaemon_rdma_queue_pairs", *labels, state] for state in QP_STATES}
    assert states == dict.fromkeys(QP_STATES, 0) | {"ready_to_send": 2, "ready_to_receive": 1, "error": 1}
    assert rows["gpudaemon_rdma_owner_registered_bytes", *labels, POD, "train"] == 3 << 30
    assert rows["gpudaemon_rdma_owner_objects", *labels, "kernel", "ib_core", "pd"] == 1
    assert ("gpudaemon_rdma_owner_registered_bytes", *labels, "kernel", "ib_core") not in rows


def test_too_many_queue_pairs_and_a_driver_that_refuses_are_not_zero() -> None:
    kernel = Kernel(counted(qp=5000, mr=2), {13: None})
    content = answer(calls._holders(kernel, 0, 1))  # type: ignore[arg-type]
    assert kernel.asked == [13]
    labels = ("0000:05:00.0", "mlx5_0")
    assert decoded("holders", content) == {
        ("gpudaemon_rdma_objects_left_out", *labels, "qp"): 5000,
        ("gpudaemon_rdma_objects_left_out", *labels, "mr"): 2,
    }


def test_many_holders_are_bounded_and_nothing_is_lost() -> None:
    holdings = calls.Holdings()
    for number in range(300):
        holdings.counts[("k", f"part{number}"), "cq"] = number + 1
    found = holders(answer(calls._together(holdings)))
    assert len(found.holders) == calls._MOST_HOLDERS + 1
    assert sum(one.counts["cq"] for one in found.holders) == sum(range(301))
    assert max(one.counts["cq"] for one in found.holders if one.owner != "others") == 300


def test_only_optional_counters_are_asked_for_and_only_where_there_are_any() -> None:
    def status(**counters: int | None) -> bytes:
        entries = (
            attribute(
                81, attribute(82, name.encode() + b"\0") + (b"" if on is None else attribute(95, bytes([on])))
            )
            for name, on in counters.items()
        )
        return attribute(80, b"".join(entries))

    def never() -> bytes:
        raise AssertionError("asked for nothing")

    def values() -> bytes:
        entries = (
            attribute(81, attribute(82, name + b"\0") + attribute(83, u64(value)))
            for name, value in ((b"out_of_sequence", 1), (b"cc_rx_ce_pkts", 2**63))
        )
        return attribute(80, b"".join(entries))

    assert calls.optional_counters(status(out_of_sequence=None, cc_rx_ce_pkts=0), never) == []
    found = calls.optional_counters(status(out_of_sequence=None, cc_rx_ce_pkts=1), values)
    assert found == [("cc_rx_ce_pkts", 2**63)]
    assert decoded("statistics", answer((1, *one) for one in found)) == {
        ("gpudaemon_rdma_hardware_statistics_total", "0000:05:00.0", "mlx5_0", "1", "cc_rx_ce_pkts"): 2.0**63
    }


NAMES = st.text(min_size=1, max_size=80)
OCTETS = st.integers(0, 2**59)
"""Of which 30 regions of one holder together are still a number of 64 bits."""


@given(st.lists(st.tuples(st.sampled_from(sorted(calls._TABLES)), NAMES, OCTETS), max_size=30))
def test_what_the_kernel_says_comes_back(held: list[tuple[str, str, int]]) -> None:
    """Names of every kind, tabs and line feeds included, never break a line or lose an object."""
    holdings = calls.Holdings()
    for sort, name, octets in held:
        holdings.take(sort, table(sort, of_kernel(name.replace("\0", "")) + attribute(45, u64(octets))))
    found = holders(answer(calls._together(holdings)))
    counts: dict[str, int] = {}
    for one in found.holders:
        for sort, count in one.counts.items():
            counts[sort] = counts.get(sort, 0) + count
    assert counts == {sort: sum(one[0] == sort for one in held) for sort in {one[0] for one in held}}


@given(st.binary(max_size=400), st.sampled_from(sorted(calls._TABLES)))
def test_any_message(content: bytes, sort: str) -> None:
    calls.summary(content)
    calls.optional_counters(content, lambda: content)
    calls.Holdings().take(sort, content)
    calls.Holdings().take(sort, attribute(calls._TABLES[sort][1], content))


LINES = ["objects", "qp\t1\t-", "left\tqp\t9", "state\t3\t1", "holder\tu\ttrain\t0::/a\t5\tqp=1", "1\tname\t5"]


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(LINES) | st.text(max_size=30), max_size=6).map(
        lambda found: "\n".join(found).encode()
    )
)
def test_any_answer(content: bytes) -> None:
    for decode in (objects, holders, statistics):
        try:
            decode(content)
        except Malformed as error:
            assert error.reason in Malformed.REASONS


@pytest.mark.parametrize("question", ["", "objects", "objects ", "nothing rxe0"])
def test_what_is_no_question_is_absent(question: str) -> None:
    with pytest.raises(OSError, match="no question"):
        calls.Rdma().open("rxe0", question)
