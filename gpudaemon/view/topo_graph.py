"""The tree of functions as a drawing: Graphviz's language, and SVG that needs no other program. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape

from gpudaemon.collectors.p2p.pairs import Pair
from gpudaemon.model.topology import Role, Topology
from gpudaemon.view.text import printable
from gpudaemon.view.topo import labels, link_words

__all__ = ["as_dot", "as_svg"]

_COLOURS = {Role.GPU: "#cfe8cf", Role.NIC: "#cfdcf3", Role.NVME: "#f3e6cf", Role.CXL: "#e6d3ef"}
_WIDTH, _HEIGHT, _GAP, _STEP, _MARGIN = 190, 40, 12, 215, 12
_LETTERS = 30


@dataclass(frozen=True, slots=True)
class _Box:
    """A function or host bridge; above: the key of what it hangs from, empty for none."""

    key: str
    above: str
    title: str
    text: str
    colour: str
    depth: int


def _boxes(topology: Topology) -> Iterator[_Box]:
    """What leads to an end, from the host bridges down, each once."""
    named = labels(topology)
    seen: set[str] = set()
    for id_ in sorted(named, key=lambda one: (topology.functions[one].host_bridge, topology.chain(one)[::-1])):
        host = topology.functions[id_].host_bridge or "no host bridge"
        above = ""
        for depth, key in enumerate((host, *reversed(topology.chain(id_)))):
            if key not in seen:
                seen.add(key)
                yield _box(topology, named, key, above, depth)
            above = key


def _box(topology: Topology, named: Mapping[str, str], key: str, above: str, depth: int) -> _Box:
    one = topology.functions.get(key)
    if one is None:
        return _Box(key, above, key, "", "#eeeeee", depth)
    link = link_words(topology, key)
    words = [*one.names[:2], "" if link == "-" else link]
    title = f"{named[key]} {key}" if key in named else key
    text = printable(" ".join(filter(None, words)))
    return _Box(key, above, title, text, _COLOURS.get(one.role, "#ffffff"), depth)


def as_dot(topology: Topology, pairs: Iterable[Pair]) -> str:
    """A graph for `dot -Tsvg`; ends that can reach each other are joined by dashed edges."""
    lines = ["graph topology {", "  rankdir=LR;", '  node [shape=box, style=filled, fontname="sans"];']
    for box in _boxes(topology):
        label = f"{box.title}\n{box.text}" if box.text else box.title
        lines.append(f'  {_quoted(box.key)} [label={_quoted(label)}, fillcolor="{box.colour}"];')
        if box.above:
            lines.append(f"  {_quoted(box.above)} -- {_quoted(box.key)};")
    for pair in pairs:
        if pair.verdict.reachable:
            label = topology.joined(pair.src, pair.dst) or pair.path.value
            ends = f"{_quoted(pair.src)} -- {_quoted(pair.dst)}"
            lines.append(f"  {ends} [style=dashed, constraint=false, label={_quoted(label)}];")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def as_svg(topology: Topology) -> str:
    """The tree from left to right."""
    boxes = list(_boxes(topology))
    rows = _rows(boxes)
    width = _MARGIN * 2 + _WIDTH + _STEP * max((box.depth for box in boxes), default=0)
    height = _MARGIN * 2 + (_HEIGHT + _GAP) * (max(rows.values(), default=0) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    at = {box.key: (_MARGIN + _STEP * box.depth, _MARGIN + (_HEIGHT + _GAP) * rows[box.key]) for box in boxes}
    for box in boxes:
        x, y = at[box.key]
        if box.above:
            left, top = at[box.above]
            middle = x - (_STEP - _WIDTH) // 2
            path = f"M{left + _WIDTH} {top + _HEIGHT // 2}H{middle}V{y + _HEIGHT // 2}H{x}"
            lines.append(f'<path d="{path}" fill="none" stroke="#666"/>')
    for box in boxes:
        x, y = at[box.key]
        size = f'width="{_WIDTH}" height="{_HEIGHT}"'
        rect = f'<rect x="{x}" y="{y}" {size} rx="4" fill="{box.colour}" stroke="#666"/>'
        lines += [rect, _text(x, y + 16, box.title, 12), _text(x, y + 31, box.text, 10)]
    return "\n".join([*lines, "</svg>"])


def _text(x: int, y: int, text: str, size: int) -> str:
    cut = text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
    return f'<text x="{x + 6}" y="{y}" font-size="{size}">{escape(cut)}</text>'


def _rows(boxes: list[_Box]) -> dict[str, int]:
    """Row of each box: what hangs from nothing further gets the next one, what is above the first below it."""
    below: dict[str, list[str]] = {}
    for box in boxes:
        below.setdefault(box.above, []).append(box.key)
    rows: dict[str, int] = {}
    free = 0
    # Children stand behind what they hang from: from the last to the first every box finds its children placed.
    for box in boxes:
        if box.key not in below:
            rows[box.key] = free
            free += 1
    for box in reversed(boxes):
        if box.key in below:
            rows[box.key] = rows[below[box.key][0]]
    return rows
