"""Which pairs of functions are looked at, and what is known of each: verdict, path and ceiling. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpudaemon.collectors.p2p.paths import Ceiling, PathClass, ceiling, path_class
from gpudaemon.collectors.p2p.reachability import Verdict, verdict
from gpudaemon.model.topology import ENDS, Role, Topology

__all__ = ["MOST_PAIRS", "Pair", "Pairs", "judge", "nearest", "pairs"]

MOST_PAIRS = 2048
"""16 GPUs, 16 NICs, 32 drives and 8 CXL devices make 1,400."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two functions and what lies between them; the GPU comes first, else the NIC."""

    src: str
    dst: str
    verdict: Verdict
    path: PathClass
    ceiling: Ceiling | None


def pairs(topology: Topology) -> Iterator[tuple[str, str]]:
    """Every pair of which one is a GPU or a NIC: drives and CXL devices among themselves move no GPU's data."""
    ends = topology.of(*ENDS)
    for place, one in enumerate(ends):
        for other in ends[place + 1 :]:
            if one.role in (Role.GPU, Role.NIC):
                yield one.id, other.id


def judge(topology: Topology, src: str, dst: str) -> Pair:
    """What lies between two functions. Raises KeyError for unknown ones."""
    return Pair(
        src, dst, verdict(topology, src, dst), path_class(topology, src, dst), ceiling(topology, src, dst)
    )


def nearest(topology: Topology, pairs: Iterable[Pair]) -> dict[str, tuple[Pair, ...]]:
    """GPU -> its pairs with the NICs that are best for it, several where they are equally good.

    Best is the nearest path, then that the kernel lets them reach each other, then the widest way.
    """
    best: dict[str, tuple[tuple[int, int, float], list[Pair]]] = {}
    order = list(PathClass)
    for pair in pairs:
        if (
            topology.functions[pair.src].role is not Role.GPU
            or topology.functions[pair.dst].role is not Role.NIC
        ):
            continue
        answers = (True, None, False)
        rate = pair.ceiling.bytes_per_second if pair.ceiling is not None else 0.0
        rank = order.index(pair.path), answers.index(pair.verdict.reachable), -rate
        known = best.get(pair.src)
        if known is None or rank < known[0]:
            best[pair.src] = (rank, [pair])
        elif rank == known[0]:
            known[1].append(pair)
    return {gpu: tuple(found) for gpu, (_, found) in best.items()}


class Pairs:
    """What is known of all pairs; after a change only those are judged anew that it can have touched.

    A pair rests on the functions of both chains, and through the host bridge on the processor and the root
    devices: where those change, all are judged anew.
    """

    def __init__(self) -> None:
        self._topology: Topology | None = None
        self._known: dict[tuple[str, str], Pair] = {}
        self.left_out = 0
        self.judged = 0

    def update(self, topology: Topology) -> tuple[Pair, ...]:
        """Pairs of `topology`, MOST_PAIRS at most; left_out: how many are beyond, judged: how many anew."""
        before = self._topology
        changed = self._changed(before, topology) if before is not None else None
        known = self._known
        found: dict[tuple[str, str], Pair] = {}
        self.judged = self.left_out = 0
        for src, dst in pairs(topology):
            if len(found) >= MOST_PAIRS:
                self.left_out += 1
                continue
            pair = known.get((src, dst))
            if pair is None or changed is None or self._touched(topology, (src, dst), changed):
                self.judged += 1
                pair = judge(topology, src, dst)
            found[src, dst] = pair
        self._topology, self._known = topology, found
        return tuple(found.values())

    @staticmethod
    def _touched(topology: Topology, ends: tuple[str, str], changed: frozenset[str]) -> bool:
        return any(not changed.isdisjoint(topology.chain(end)) for end in ends)

    @staticmethod
    def _changed(before: Topology, after: Topology) -> frozenset[str] | None:
        """Functions that came, went or are not what they were; None where everything may have changed."""
        host = (before.cpu_vendor, before.cpu_family, before.nodes)
        if host != (after.cpu_vendor, after.cpu_family, after.nodes):
            return None
        changed = {
            id_
            for id_ in before.functions.keys() | after.functions.keys()
            if before.functions.get(id_) != after.functions.get(id_)
        }
        roots = (topology.functions.get(id_) for topology in (before, after) for id_ in changed)
        return None if any(one is not None and not one.parents for one in roots) else frozenset(changed)
