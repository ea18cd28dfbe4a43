"""How a network looks: as text, and as a picture whose columns are nodes and whose rows are ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from ouroboros.lab.description import Description, Layer, Link, distances, neighbours, pairs_of


@dataclass(frozen=True)
class State:
    """How it is now: nodes that were killed or paused, links that are cut, by name; what happens on links, in both
    directions."""

    dead: frozenset[str] = frozenset()
    paused: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    impaired: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def words(self, link: Link) -> str:
        forth, back = self.impaired.get(link.name, (link.forth, link.back))
        if link.name in self.cut:
            return "cut"
        if forth == back:
            return "" if forth == "none" else forth
        return f"{forth} | {back}"


def as_text(description: Description, state: State) -> str:
    """A line for each node with its neighbours, then one for each layer."""
    width = max(len(name) for name in description.names)
    foreign = _foreign(description)
    lines = []
    for name in description.names:
        how = ["killed"] if name in state.dead else ["paused"] if name in state.paused else []
        words = [*(["C prototype"] if name in foreign else []), *how]
        mark = f" ({', '.join(words)})" if words else ""
        beside = [_beside(link, name, state) for link in description.links if name in link.ends]
        lines.append(f"{name:<{width}}{mark} - {', '.join(beside)}" if beside else f"{name}{mark}")
    for layer in reversed(description.layers):
        lines.append(_layer_line(layer))
    return "\n".join(lines)


def _foreign(description: Description) -> set[str]:
    return {node.name for node in description.nodes if node.stack != "ours"}


def _beside(link: Link, name: str, state: State) -> str:
    other = link.other if link.one == name else link.one
    words = state.words(link)
    return f"{other} ({words})" if words else other


def _layer_line(layer: Layer) -> str:
    members = [member if member == node else f"{member}@{node}" for member, node in layer.members.items()]
    below = f" over {layer.over}" if layer.over else ""
    return f"{layer.name}, {layer.type}{below}: {' '.join(members)}"


# --- the picture

_COLUMN, _ROW, _MARGIN, _WIDTH, _HEIGHT = 90, 70, 40, 56, 28


def as_svg(description: Description, state: State) -> str:
    """The picture, as SVG."""
    columns = {name: _MARGIN + 70 + _COLUMN * number for number, name in enumerate(_ordered(description))}
    layers = [layer for layer in description.layers if layer.members]
    bottom = _MARGIN + _ROW * len(layers)
    width, height = max(columns.values()) + _WIDTH // 2 + _MARGIN, bottom + _HEIGHT + _MARGIN + 30
    parts = []
    for link in description.links:
        parts.append(_arc(columns[link.one], columns[link.other], bottom, state.words(link), "link"))
    foreign = _foreign(description)
    for name, x in columns.items():
        kind = "dead" if name in state.dead else "paused" if name in state.paused else "node"
        parts.append(_box(x, bottom, name, f"{kind} prototype" if name in foreign else kind))
    parts.append(_label(bottom, "links"))
    for row, layer in enumerate(layers, 1):
        y = bottom - _ROW * row
        for one, other in layer.adjacencies:
            parts.append(_arc(columns[layer.members[one]], columns[layer.members[other]], y, "", "adjacency"))
        for member, node in layer.members.items():
            x = columns[node]
            parts.append(
                f'<line x1="{x}" y1="{y + _HEIGHT // 2}" x2="{x}" y2="{y + _ROW - _HEIGHT // 2}" class="rank"/>'
            )
            parts.append(_box(x, y, member, "member"))
        parts.append(_label(y, layer.name))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


_STYLE = (
    "text{font:12px sans-serif;text-anchor:middle;dominant-baseline:central}.label{text-anchor:start;fill:#666}"
    "rect{fill:#fff;stroke:#333}.member rect{stroke:#2a6}.dead rect{fill:#fcc;stroke-dasharray:3}.paused rect{fill:#ffc}"
    ".prototype rect{stroke:#06c;stroke-width:2}"
    "path{fill:none;stroke:#333}.adjacency path{stroke:#2a6}.cut path{stroke:#c00;stroke-dasharray:4}"
    "line.rank{stroke:#bbb;stroke-dasharray:2}.words{font-size:10px;fill:#666}"
)


def _ordered(description: Description) -> list[str]:
    """Neighbours beside each other where that is easy: a walk from a node at the end of the graph, or as described."""
    beside = neighbours(pairs_of(description.links))
    left = dict.fromkeys(description.names)
    order: list[str] = []
    while left:
        start = min(left, key=lambda name: (len(beside.get(name, ())), description.names.index(name)))
        for name in distances(start, beside):
            order.append(name)
            del left[name]
    return order


def _box(x: int, y: int, text: str, kind: str) -> str:
    return (
        f'<g class="{kind}"><rect x="{x - _WIDTH // 2}" y="{y - _HEIGHT // 2}" width="{_WIDTH}" height="{_HEIGHT}" rx="4"/>'
        f'<text x="{x}" y="{y}">{escape(text)}</text></g>'
    )


def _label(y: int, text: str) -> str:
    return f'<text class="label" x="8" y="{y}">{escape(text)}</text>'


def _arc(one: int, other: int, y: int, words: str, kind: str) -> str:
    left, right = sorted((one, other))
    down = 0 if right - left <= _COLUMN else min(_ROW - 20, 14 + (right - left) // 12)
    y += 0 if not down else _HEIGHT // 2
    middle = (left + right) // 2
    kind = f"{kind} cut" if words == "cut" else kind
    text = f'<text class="words" x="{middle}" y="{y + down // 2 + 8}">{escape(words)}</text>' if words else ""
    return f'<g class="{kind}"><path d="M {left} {y} Q {middle} {y + 2 * down} {right} {y}"/>{text}</g>'
