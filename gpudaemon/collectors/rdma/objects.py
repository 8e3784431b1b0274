"""What an RDMA device has in use and who holds it, asked by netlink (`gpudaemon.calls.rdma`). Pure."""

from collections.abc import Iterator

from gpudaemon.metrics import rdma
from gpudaemon.model.attribute import Cadence, Row, Rows
from gpudaemon.model.metric import Metric
from gpudaemon.parsers.rdma_objects import QP_STATES, holders, objects, statistics

__all__ = ["HOLDERS", "OBJECTS", "calls"]

OBJECTS = (rdma.OBJECTS, rdma.OBJECTS_MAX)
HOLDERS = (rdma.OBJECTS_LEFT_OUT, rdma.QUEUE_PAIRS, rdma.OWNER_OBJECTS, rdma.OWNER_REGISTERED)


def calls(device: str, name: str) -> Iterator[Rows]:
    """What is asked of an RDMA device by netlink."""
    labels = (device, name)

    def of_objects(content: bytes) -> Iterator[Row]:
        for one in objects(content):
            yield rdma.OBJECTS, (*labels, one.sort), float(one.count)
            if one.most is not None:
                yield rdma.OBJECTS_MAX, (*labels, one.sort), float(one.most)

    def of_holders(content: bytes) -> Iterator[Row]:
        found = holders(content)
        for sort, count in found.left_out.items():
            yield rdma.OBJECTS_LEFT_OUT, (*labels, sort), float(count)
        if "qp" not in found.left_out:
            for state in QP_STATES:
                yield rdma.QUEUE_PAIRS, (*labels, state), float(found.states.get(state, 0))
        # Processes of one owner whose names differ beyond what is kept of them are one.
        sums: dict[tuple[Metric, tuple[str, ...]], float] = {}

        def add(metric: Metric, who: tuple[str, ...], value: int) -> None:
            sums[metric, who] = sums.get((metric, who), 0.0) + value

        for holder in found.holders:
            who = (*labels, holder.owner, holder.process)
            for sort, count in holder.counts.items():
                add(rdma.OWNER_OBJECTS, (*who, sort), count)
            if "mr" in holder.counts:
                add(rdma.OWNER_REGISTERED, who, holder.octets)
        for (metric, values), value in sums.items():
            yield metric, values, value

    def of_statistics(content: bytes) -> Iterator[Row]:
        for port, counter_, value in statistics(content):
            yield rdma.HARDWARE, (*labels, port, counter_), float(value)

    for what, decode, metrics, limit in (
        ("objects", of_objects, OBJECTS, 4096),
        ("holders", of_holders, HOLDERS, 65536),
        ("statistics", of_statistics, (rdma.HARDWARE,), 16384),
    ):
        yield Rows(f"rdma/{what} {name}", Cadence.SLOW, decode, metrics, limit, 512, call="rdma")
