"""Who can reach whom without the CPU: a matrix and a tree for a terminal, JSON, and one pair explained. Pure.

The matrix is read like that of `nvidia-smi topo -m`; a mark behind each path says whether the kernel would let
the two reach each other: `+` yes, `-` no, `?` not known.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpudaemon.collectors.p2p.pairs import Pair, nearest
from gpudaemon.collectors.p2p.paths import PathClass, downgraded, link_between, link_bytes
from gpudaemon.collectors.p2p.reachability import REASONS, Reason
from gpudaemon.errors import ConfigError
from gpudaemon.model.topology import ENDS, Function, Link, Port, Topology
from gpudaemon.view.text import printable

__all__ = ["as_json", "as_text", "find", "labels", "why"]

_MARKS = {True: "+", False: "-", None: "?"}
_LEGEND = (
    "X     the function itself",
    "PIX   over at most one PCIe switch",
    "PXB   over several PCIe switches, not through a host bridge",
    "PHB   through a PCIe host bridge",
    "NODE  between host bridges of one NUMA node",
    "SYS   between NUMA nodes",
    "+ - ? the kernel lets peers reach each other, does not, not known",
)
_MOST_NAMED = 8
_GENERATIONS = {2.5e9: 1, 5e9: 2, 8e9: 3, 16e9: 4, 32e9: 5, 64e9: 6}
_PORTS: dict[Port | None, str] = {
    Port.ROOT_PORT: "root port",
    Port.UPSTREAM: "switch",
    Port.DOWNSTREAM: "switch port",
    Port.PCI_BRIDGE: "PCIe to PCI bridge",
    Port.PCIE_BRIDGE: "PCI to PCIe bridge",
}


def labels(topology: Topology) -> dict[str, str]:
    """Id -> short name of each end: GPU0, NIC0, NVME0, CXL0 in the order of their addresses."""
    named = {}
    for role in ENDS:
        for number, one in enumerate(topology.of(role)):
            named[one.id] = f"{role.value.upper()}{number}"
    return named


def find(topology: Topology, asked: str) -> str:
    """The function somebody means: an address, a short name, a node or device name. Raises ConfigError."""
    wanted = asked.strip().rsplit("/", 1)[-1]
    named = {name.lower(): id_ for id_, name in labels(topology).items()}
    for id_, one in topology.functions.items():
        if wanted in one.names or wanted.lower() in (id_, id_.partition(":")[2]):
            return id_
    if wanted.lower() in named:
        return named[wanted.lower()]
    known = ", ".join(f"{name} ({id_})" for id_, name in labels(topology).items())
    raise ConfigError(f"{asked}: no such function; there are {known or 'none'}")


# As text


def as_text(topology: Topology, pairs: Iterable[Pair]) -> str:
    """Matrix, legend, ends and tree."""
    named = labels(topology)
    if not named:
        return "no GPU, RDMA device, NVMe drive or CXL memory on PCI"
    pairs = tuple(pairs)
    parts = [_matrix(topology, named, pairs), "\n".join(f"  {line}" for line in _LEGEND)]
    parts += [_summary(topology, named, pairs), _ends(topology, named), tree(topology, named)]
    return "\n\n".join(filter(None, parts))


def _matrix(topology: Topology, named: Mapping[str, str], pairs: Iterable[Pair]) -> str:
    cells = {(pair.src, pair.dst): _cell(topology, pair) for pair in pairs}
    rows = [["", *named.values(), "NUMA"]]
    for one, name in named.items():
        row = [name]
        for other in named:
            row.append("X" if one == other else cells.get((one, other)) or cells.get((other, one), ""))
        rows.append([*row, _node(topology.functions[one])])
    return _aligned(rows)


def _summary(topology: Topology, named: Mapping[str, str], pairs: Sequence[Pair]) -> str:
    """How many pairs reach each other, why the others do not, and what else decides."""
    if not pairs:
        return ""
    joined = sum(bool(topology.joined(pair.src, pair.dst)) for pair in pairs)
    pairs = [pair for pair in pairs if not topology.joined(pair.src, pair.dst)]
    answers = Counter(pair.verdict.reachable for pair in pairs)
    line = f"pairs: {answers[True]} reach each other by PCI, {answers[False]} do not, {answers[None]} not known"
    lines = [line + (f", {joined} have a link of their own" if joined else "")]
    groups: dict[tuple[bool | None, Reason], list[Pair]] = {}
    for pair in pairs:
        if not pair.verdict.reachable:
            groups.setdefault((pair.verdict.reachable, pair.verdict.reason), []).append(pair)
    for (reachable, reason), found in sorted(groups.items(), key=lambda group: -len(group[1])):
        where = dict.fromkeys(
            id_ for pair in found for id_ in (*pair.verdict.redirecting, *pair.verdict.unread)
        )
        first = found[0]
        lines.append(f"  {_MARKS[reachable]} {len(found)}: {REASONS[reason]}")
        if where and reason in (Reason.ACS_REDIRECT, Reason.ACS_UNREADABLE):
            lines.append(f"    at {_some(list(where))}")
        lines.append(f"    gpudaemon topo --why {named[first.src]} {named[first.dst]}")
    if any(topology.functions[id_].driver == "nvidia" for id_ in named):
        lines.append("  NVIDIA's driver decides by itself: nvidia-smi topo -p2p r")
    for gpu, best in nearest(topology, pairs).items():
        cells = [f"{named[pair.dst]} ({_cell(topology, pair)})" for pair in best]
        lines.append(f"  nearest to {named[gpu]}: {_some(cells)}")
    return "\n".join(printable(line) for line in lines)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"


def _cell(topology: Topology, pair: Pair) -> str:
    fabric = topology.joined(pair.src, pair.dst)
    return fabric or pair.path.value + _MARKS[pair.verdict.reachable]


def _node(function: Function) -> str:
    return "-" if function.numa_node is None else str(function.numa_node)


def _ends(topology: Topology, named: Mapping[str, str]) -> str:
    rows = [["NAME", "ADDRESS", "DRIVER", "NODES", "LINK", "BARS"]]
    for id_, name in named.items():
        one = topology.functions[id_]
        sizes = ",".join(size(bar.size) for bar in one.bars if bar.size >= 1 << 20)
        rows.append(
            [name, id_, one.driver or "-", ",".join(one.names) or "-", link_words(topology, id_), sizes or "-"]
        )
    return _aligned(rows)


def link_words(topology: Topology, id_: str) -> str:
    """`gen4 x16, 31.5 GB/s`, with what is wrong with it; a dash where there is no link."""
    link = link_between(topology, id_)
    if link is None or not link.width:
        return "-"
    rate = link_bytes(link)
    speed = link.max_speed or link.speed or 0.0
    text = f"gen{_GENERATIONS.get(speed, '?')} x{link.width}" + (f", {rate / 1e9:.1f} GB/s" if rate else "")
    worse = downgraded(topology, id_)
    if worse and worse[0]:
        text += f" (DOWNGRADED, x{link.max_width} possible)"
    elif worse and worse[1]:
        text += f" (now gen{_GENERATIONS.get(link.speed or 0.0, '?')})"
    return text


def tree(topology: Topology, named: Mapping[str, str]) -> str:
    """Host bridges, and below them what leads to an end."""
    lines = []
    for bridge, children in _forest(topology, named):
        lines.append(bridge or "no host bridge")
        lines += _branches(topology, named, children, "")
    return "\n".join(lines)


_Tree = dict[str, "_Tree"]


def _forest(topology: Topology, named: Mapping[str, str]) -> list[tuple[str, _Tree]]:
    forest: dict[str, _Tree] = {}
    for id_ in sorted(named):
        place = forest.setdefault(topology.functions[id_].host_bridge, {})
        for one in reversed(topology.chain(id_)):
            place = place.setdefault(one, {})
    return sorted(forest.items())


def _branches(topology: Topology, named: Mapping[str, str], children: _Tree, indent: str) -> list[str]:
    lines = []
    for number, (id_, below) in enumerate(children.items()):
        last = number == len(children) - 1
        lines.append(f"{indent}{'└─' if last else '├─'} {_branch(topology, named, id_)}")
        lines += _branches(topology, named, below, indent + ("   " if last else "│  "))
    return lines


def _branch(topology: Topology, named: Mapping[str, str], id_: str) -> str:
    one = topology.functions.get(id_)
    if one is None:
        return f"{id_} (not read)"
    words = [named.get(id_, ""), id_, _PORTS.get(one.port, ""), *one.names]
    link = link_words(topology, id_)
    if link != "-":
        words.append(f"[{link}]")
    if one.acs is not None and one.acs.redirects:
        words.append("ACS redirects")
    if one.contained:
        words.append("CONTAINED by DPC")
    return printable(" ".join(filter(None, words)))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def size(count: int) -> str:
    """`256M`, `192G`: the largest unit that leaves a whole number."""
    for unit in ("", "K", "M", "G"):
        if count % 1024 or count < 1024:
            return f"{count}{unit}"
        count //= 1024
    return f"{count}T"


# One pair


def why(topology: Topology, pair: Pair) -> str:
    """The pair step by step: the way, the facts behind each step, the verdict, what could be changed."""
    verdict, named = pair.verdict, labels(topology)
    src, dst = (f"{named.get(id_, '')} {id_}".strip() for id_ in (pair.src, pair.dst))
    lines = [f"{src} -> {dst}", ""]
    step = 1
    for title, id_ in (("from", pair.src), ("to", pair.dst)):
        chain = topology.chain(id_)
        shown = chain[: chain.index(verdict.common) + 1] if verdict.common in chain else chain
        lines.append(f"{step}. {title} {id_}, upwards:")
        lines += [f"   {_facts(topology, one)}" for one in shown]
        step += 1
    met = f"they meet at {verdict.common}" if verdict.common else "no bridge is above both"
    lines.append(f"{step}. {met}: {_PATHS[pair.path]} ({pair.path.value}), distance {verdict.distance}")
    if fabric := topology.joined(pair.src, pair.dst):
        lines.append(f"   and {fabric} joins them directly, whatever PCI says")
    if verdict.redirecting:
        lines.append(f"   ACS redirects at {', '.join(verdict.redirecting)}")
    if verdict.unread:
        lines.append(f"   ACS not read at {', '.join(verdict.unread)}")
    step += 1
    answer = {True: "yes", False: "no", None: "not known"}[verdict.reachable]
    lines.append(
        f"{step}. peer-to-peer DMA: {answer} ({verdict.mapping.value}, {verdict.reason.value}): "
        f"{REASONS[verdict.reason]}"
    )
    if verdict.reason in _HOST_REASONS and topology.cpu_vendor:
        lines.append(f"   processor {topology.cpu_vendor or 'unknown'}, family {topology.cpu_family}")
    lines += [f"   {line}" for line in _iommu(topology, pair)]
    step += 1
    if pair.ceiling is not None:
        rate = pair.ceiling.bytes_per_second / 1e9
        lines.append(f"{step}. at most {rate:.1f} GB/s one way: the link above {pair.ceiling.at}")
        step += 1
    advice = _ADVICE.get(verdict.reason)
    lines += ["", f"what could be changed: {advice}"] if advice else []
    lines += [_MEMORY_ADVICE.format(id_) for id_ in (pair.src, pair.dst) if _is_small(topology.functions[id_])]
    return "\n".join(printable(line) for line in lines)


_PATHS = {
    PathClass.SELF: "one function",
    PathClass.PIX: "over at most one PCIe switch",
    PathClass.PXB: "over several PCIe switches",
    PathClass.PHB: "through one host bridge",
    PathClass.NODE: "between host bridges of one NUMA node",
    PathClass.SYS: "between NUMA nodes",
}
_HOST_REASONS = (
    *(Reason.AMD_HOST_BRIDGE, Reason.LISTED_HOST_BRIDGE, Reason.NEWER_KERNELS_LIST, Reason.ACS_REDIRECT),
    *(Reason.HOST_BRIDGE_NOT_LISTED, Reason.HOST_BRIDGES_DIFFER, Reason.NO_ROOT_DEVICE),
)
_ADVICE = {
    Reason.ACS_REDIRECT: (
        "ACS redirection isolates guests, and an IOMMU that is on switches it on. Where no device "
        "is handed to a guest: the kernel option pci=disable_acs_redir=ADDRESS for the functions named above."
    ),
    Reason.HOST_BRIDGE_NOT_LISTED: (
        "cards in slots below one PCIe switch reach each other; the kernel's list of root complexes grows with "
        "new kernels."
    ),
    Reason.HOST_BRIDGES_DIFFER: "cards in slots of the same processor, or better below one PCIe switch.",
    Reason.ACS_UNREADABLE: "run this as root.",
    Reason.NEWER_KERNELS_LIST: "run a kernel that has this root complex on its list.",
}
_MEMORY_ADVICE = (
    "{}: its BAR is smaller than its memory: resizable BAR (Above 4G Decoding in the firmware) would make all "
    "of it reachable."
)


def _is_small(one: Function) -> bool:
    return bool(one.memory_size and one.bars and max(bar.size for bar in one.bars) < one.memory_size)


def _facts(topology: Topology, id_: str) -> str:
    one = topology.functions.get(id_)
    if one is None:
        return f"{id_}: not read"
    known = [_PORTS.get(one.port, ""), link_words(topology, id_)]
    if one.acs is not None:
        known.append(f"ACS control 0x{one.acs.control:02x}" + (", redirects" if one.acs.redirects else ""))
    else:
        known.append("no ACS" if one.extended else "ACS not read")
    if one.iommu_group:
        kind = f" ({one.iommu_type})" if one.iommu_type else ""
        known.append(f"IOMMU group {one.iommu_group}{kind}")
    if one.numa_node is not None:
        known.append(f"NUMA node {one.numa_node}")
    return f"{id_}: " + ", ".join(word for word in known if word and word != "-")


def _iommu(topology: Topology, pair: Pair) -> list[str]:
    """What the IOMMU makes of it."""
    one, other = topology.functions[pair.src], topology.functions[pair.dst]
    if not one.iommu_group and not other.iommu_group:
        return ["no IOMMU"]
    if one.iommu_group and one.iommu_group == other.iommu_group:
        return [f"both are in IOMMU group {one.iommu_group}: nothing isolates them from each other"]
    kinds = {kind for kind in (one.iommu_type, other.iommu_type) if kind}
    return [f"IOMMU: {', '.join(sorted(kinds))}"] if kinds else []


# For programs


def as_json(topology: Topology, pairs: Iterable[Pair]) -> dict[str, Any]:
    """Functions and pairs; null where nothing is known."""
    named, pairs = labels(topology), tuple(pairs)
    return {
        "cpu": {"vendor": topology.cpu_vendor or None, "family": topology.cpu_family},
        "numa_nodes": topology.nodes,
        "functions": [_function(topology, one, named) for one in topology.functions.values()],
        "nearest_nics": {gpu: [pair.dst for pair in found] for gpu, found in nearest(topology, pairs).items()},
        "pairs": [
            {
                "src": pair.src,
                "dst": pair.dst,
                "path": pair.path.value,
                "reachable": pair.verdict.reachable,
                "mapping": pair.verdict.mapping.value,
                "reason": pair.verdict.reason.value,
                "distance": pair.verdict.distance,
                "common": pair.verdict.common or None,
                "ceiling_bytes_per_second": pair.ceiling and round(pair.ceiling.bytes_per_second),
                "ceiling_at": pair.ceiling and pair.ceiling.at,
                "fabric": topology.joined(pair.src, pair.dst) or None,
            }
            for pair in pairs
        ],
    }


def _function(topology: Topology, one: Function, named: Mapping[str, str]) -> dict[str, Any]:
    worse = downgraded(topology, one.id)
    return {
        "id": one.id,
        "name": named.get(one.id),
        "role": one.role.value,
        "driver": one.driver or None,
        "names": list(one.names),
        "vendor": one.vendor,
        "device": one.device,
        "parents": list(one.parents),
        "host_bridge": one.host_bridge or None,
        "port": one.port.name.lower() if one.port is not None else None,
        "numa_node": one.numa_node,
        "iommu_group": one.iommu_group or None,
        "iommu_type": one.iommu_type or None,
        "acs_control": one.acs.control if one.acs is not None else None,
        "acs_known": one.acs is not None or one.extended,
        "atomics": one.atomics,
        "relaxed_ordering": one.relaxed_ordering,
        "link": _link(link_between(topology, one.id)),
        "link_downgraded": worse[0] if worse is not None else None,
        "bars": [{"bar": bar.number, "size": bar.size, "resizable_to": list(bar.sizes)} for bar in one.bars],
    }


def _link(link: Link | None) -> dict[str, Any] | None:
    if link is None:
        return None
    return {
        "transfers_per_second": link.speed,
        "width": link.width,
        "max_transfers_per_second": link.max_speed,
        "max_width": link.max_width,
    }
