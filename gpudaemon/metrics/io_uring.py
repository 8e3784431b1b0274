"""Rows of the io_uring rings of this host, by owner."""

from gpudaemon.model.metric import Kind, Metric, Unit

__all__ = [
    "COMPLETIONS",
    "DISABLED",
    "OVERFLOW",
    "POLLERS",
    "POLL_BUSY",
    "POLL_TIME",
    "PROCESSES",
    "RINGS",
    "SUBMISSIONS",
    "UNKNOWN",
    "WORKERS",
]

_FDINFO = "io_uring/fdinfo.c"

DISABLED = Metric(
    name="gpudaemon_io_uring_disabled",
    kind=Kind.GAUGE,
    help="Who may make rings: 0 everybody, 1 root and kernel.io_uring_group, 2 nobody.",
    abi="Documentation/admin-guide/sysctl/kernel.rst: io_uring_disabled",
)
RINGS = Metric(
    name="gpudaemon_io_uring_rings",
    kind=Kind.GAUGE,
    help="Rings of an owner; one that several descriptors or processes hold counts once.",
    labels=("owner",),
    abi="/proc/PID/fd: anon_inode:[io_uring]",
)
PROCESSES = Metric(
    name="gpudaemon_io_uring_processes",
    kind=Kind.GAUGE,
    help="Processes of an owner that have rings.",
    labels=("owner",),
    abi="/proc/PID/fd: anon_inode:[io_uring]",
)
UNKNOWN = Metric(
    name="gpudaemon_io_uring_rings_unreadable",
    kind=Kind.GAUGE,
    help="Rings of an owner that told nothing, because they were locked or not permitted; not in the figures.",
    labels=("owner",),
    abi=_FDINFO,
)
SUBMISSIONS = Metric(
    name="gpudaemon_io_uring_submissions_waiting",
    kind=Kind.GAUGE,
    help="Entries in submission queues that the kernel has not taken yet.",
    labels=("owner",),
    abi=f"{_FDINFO}: SqHead, SqTail",
)
COMPLETIONS = Metric(
    name="gpudaemon_io_uring_completions_waiting",
    kind=Kind.GAUGE,
    help="Entries in completion queues that the program has not taken yet.",
    labels=("owner",),
    abi=f"{_FDINFO}: CqHead, CqTail",
)
OVERFLOW = Metric(
    name="gpudaemon_io_uring_completions_overflowed",
    kind=Kind.GAUGE,
    help="Completions that found their queue full and wait in the kernel; no sample where a ring does not say.",
    labels=("owner",),
    abi=f"{_FDINFO}: CqOverflowList",
)
POLLERS = Metric(
    name="gpudaemon_io_uring_poll_threads",
    kind=Kind.GAUGE,
    help="Kernel threads that poll submission queues (SQPOLL).",
    labels=("owner",),
    abi="io_uring/sqpoll.c: iou-sqp-*",
)
POLL_TIME = Metric(
    name="gpudaemon_io_uring_poll_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="Time the polling threads of an owner's present rings have run.",
    labels=("owner",),
    abi=f"{_FDINFO}: SqTotalTime",
)
POLL_BUSY = Metric(
    name="gpudaemon_io_uring_poll_busy_seconds",
    kind=Kind.GAUGE,
    unit=Unit.SECONDS,
    help="Time of that in which they had work.",
    labels=("owner",),
    abi=f"{_FDINFO}: SqWorkTime",
)
WORKERS = Metric(
    name="gpudaemon_io_uring_worker_threads",
    kind=Kind.GAUGE,
    help="Kernel threads that carry out operations that would block (io-wq).",
    labels=("owner",),
    abi="io_uring/io-wq.c: iou-wrk-*",
)
