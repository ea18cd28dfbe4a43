"""A network in one line.

::

    a - b - c                   three nodes in a row
    a - b - c - a, c - d        several rows, with a comma or a line end between
    ring 5, n0 - x              shapes: line, ring, star, full, grid 3x2, tree 2^3, random 20/4/7 (degree, seed)
    ring 5 as r                 nodes r0 to r4, in place of n0 to n4
    a -(delay=5ms,loss=1%)- b   a bad link, in both directions; -(delay=5ms|none)- in one
    a@x - b@y                   of a layer over others: member a is on node x
    a - b(stack=c) - c          a node with the C prototype

A node is the same wherever its name stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ouroboros.lab.description import Description, Layer, Link, Node, check_impairment, check_name, pairs_of
from ouroboros.lab.errors import DescriptionError
from ouroboros.lab.shapes import SHAPES

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)|(?P<end>[,;\n])|(?P<wire>-(?:\([^()\n]*\)-)?)|(?P<words>\([^()\n]*\))|(?P<at>@)"
    r"|(?P<number>\d[\dx^/]*)|(?P<name>[A-Za-z_]\w*)",
    re.ASCII,
)
_NUMBERS = {
    "COUNT": re.compile(r"(\d{1,9})"),
    "WIDTHxHEIGHT": re.compile(r"(\d{1,9})x(\d{1,9})"),
    "DEPTH^CHILDREN": re.compile(r"(\d{1,9})\^(\d{1,9})"),
    "COUNT[/DEGREE[/SEED]]": re.compile(r"(\d{1,9})(?:/(\d{1,9})(?:/(\d{1,18}))?)?"),
}


@dataclass(frozen=True, slots=True)
class Graph:
    """What a text says. `places`: nodes of members that have one said. `stacks`: of nodes that have one said."""

    nodes: tuple[str, ...]
    links: tuple[Link, ...] = ()
    places: tuple[tuple[str, str], ...] = ()
    stacks: tuple[tuple[str, str], ...] = ()


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse(text: str) -> Graph:
    """Read a network. Raises `DescriptionError`, which names the line, if there are several, and the word."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._several = "\n" in text.strip()
        self._tokens = list(self._split(text))
        self._nodes: dict[str, None] = {}
        self._links: dict[frozenset[str], Link] = {}
        self._places: dict[str, str] = {}
        self._stacks: dict[str, str] = {}

    def read(self) -> Graph:
        item: list[_Token] = []
        for token in [*self._tokens, _Token("end", "", 0)]:
            if token.kind != "end":
                item.append(token)
            elif item:
                try:
                    self._item(item)
                except DescriptionError as error:
                    raise error if error.line or not self._several else error.at(item[0].line) from None
                item = []
        if not self._nodes:
            raise DescriptionError("a network has one node at least, such as: a - b - c")
        places, stacks = tuple(self._places.items()), tuple(self._stacks.items())
        return Graph(tuple(self._nodes), tuple(self._links.values()), places, stacks)

    def _split(self, text: str) -> Iterator[_Token]:
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                # White space that separates nothing here is a word of its own.
                word = text[at] if text[at].isspace() else text[at:].split()[0]
                raise DescriptionError(_instead_of(word), word=word, line=self._at(line))
            kind, found = str(match.lastgroup), match[0]
            if kind != "space":
                yield _Token(kind, found, line)
            line += found.count("\n")
            at = match.end()

    def _at(self, line: int) -> int:
        return line if self._several else 0

    def _item(self, tokens: list[_Token]) -> None:
        if len(tokens) > 1 and tokens[0].kind == "name" and tokens[1].kind in ("number", "name"):
            self._shape(tokens)
        else:
            self._chain(tokens)

    def _shape(self, tokens: list[_Token]) -> None:
        word, numbers, *rest = (token.text for token in tokens)
        if word not in SHAPES:
            raise DescriptionError(f"no shape: choose from {', '.join(SHAPES)}, or put - between two nodes", word=word)
        usage, make = SHAPES[word]
        match = _NUMBERS[usage].fullmatch(numbers)
        if match is None:
            raise DescriptionError(f"say {word} {usage}", word=numbers)
        prefix = "n"
        if rest:
            if len(rest) != 2 or rest[0] != "as":
                raise DescriptionError(f"after {word} {numbers} comes nothing, or as NAME", word=" ".join(rest))
            prefix = check_name(rest[1], "shape")
        count, edges = make([int(number) for number in match.groups() if number is not None])
        names = [check_name(f"{prefix}{number}", "node") for number in range(count)]
        for name in names:
            if name in self._nodes:
                raise DescriptionError(
                    f"is there already: name the nodes of the shape with {word} {numbers} as NAME", word=name
                )
        self._nodes.update(dict.fromkeys(names))
        for one, other in edges:
            self._link(Link(names[one], names[other]))

    def _chain(self, tokens: list[_Token]) -> None:
        here, rest = self._place(tokens)
        while rest:
            wire, *rest = rest
            if wire.kind != "wire":
                raise DescriptionError("between two nodes stands -", word=wire.text)
            there, rest = self._place(rest, after=wire.text)
            self._link(_wire(here, there, wire.text))
            here = there

    def _place(self, tokens: list[_Token], after: str = "") -> tuple[str, list[_Token]]:
        if not tokens or tokens[0].kind != "name":
            if not tokens:
                raise DescriptionError("a node is missing after it", word=after)
            if tokens[0].kind == "words":
                raise DescriptionError(_instead_of(tokens[0].text), word=tokens[0].text)
            names = "; its name begins with a letter" if tokens[0].kind == "number" else ""
            raise DescriptionError(f"a node stands here, not {tokens[0].text}{names}", word=tokens[0].text)
        name, rest = check_name(tokens[0].text, "node"), tokens[1:]
        self._nodes[name] = None
        if rest and rest[0].kind == "at":
            if len(rest) < 2 or rest[1].kind != "name":
                raise DescriptionError("a node is missing after it", word=f"{name}@")
            node, rest = check_name(rest[1].text, "node"), rest[2:]
            if self._places.setdefault(name, node) != node:
                raise DescriptionError(f"is on node {self._places[name]} already", word=f"{name}@{node}")
        if rest and rest[0].kind == "words":
            self._stacks[name], rest = _stack(rest[0].text), rest[1:]
        return name, rest

    def _link(self, link: Link) -> None:
        pair = frozenset(link.ends)
        if pair in self._links:
            raise DescriptionError("a link between the two is there already", word=f"{link.one} - {link.other}")
        self._links[pair] = link


def _instead_of(word: str) -> str:
    """What to say in the place of a word that is none."""
    if word[0] == "(" or re.match(r"=\w", word):
        return "what happens on a link stands between -( and )-, such as: a -(loss=1%)- b"
    if word[0] in "<>=~\N{EN DASH}\N{EM DASH}\N{RIGHTWARDS ARROW}":
        return "a link is -, such as: a - b"
    return "not understood here: say nodes, and links between them, such as: a - b - c"


def _stack(words: str) -> str:
    """Of `(stack=c)`."""
    key, equals, stack = words[1:-1].replace(" ", "").partition("=")
    if key != "stack" or not equals:
        raise DescriptionError(
            "of a node, say (stack=c); what happens on a link stands between -( and )-, such as: a -(loss=1%)- b",
            word=words,
        )
    return Node("a", stack).stack


def _wire(one: str, other: str, wire: str) -> Link:
    forth, bar, back = wire[1:].strip("()-").partition("|")
    if wire == "-":
        return Link(one, other)
    return Link(one, other, check_impairment(forth), check_impairment(back if bar else forth))


# --- the other way round


def text_of(graph: Graph) -> str:
    """A text that says the same, with nodes and links in the same order."""
    places = dict(graph.places)
    stacks = dict(graph.stacks)

    def place(name: str) -> str:
        where, stack = places.pop(name, None), stacks.pop(name, None)
        return f"{name}{f'@{where}' if where else ''}{f'(stack={stack})' if stack else ''}"

    order = dict.fromkeys(name for link in graph.links for name in link.ends)
    items = [] if tuple(order) == graph.nodes else [place(name) for name in graph.nodes]
    last = ""
    for link in graph.links:
        if link.one == last:
            items[-1] += f" {_words(link)} {place(link.other)}"
        else:
            items.append(f"{place(link.one)} {_words(link)} {place(link.other)}")
        last = link.other
    return ", ".join(items)


def _words(link: Link) -> str:
    if link.forth == link.back == "none":
        return "-"
    return f"-({link.forth})-" if link.forth == link.back else f"-({link.forth}|{link.back})-"


# --- a description of it


def describe(text: str, over: str | Sequence[str] = (), *, links: str = "udp4") -> Description:
    """The network of a text: its links, and a unicast layer over them. `over`: with ranks, what it lies over, from the
    highest to the lowest, which has the links. `links`: their type.

    A member of a layer over others is on the node that its name says, `a@x`, else on that of its own name, else on the
    first node of the layer below that has none yet. Layers are `net1`, the lowest, `net2` and so on."""
    texts = [text, *([over] if isinstance(over, str) else over)]
    *upper, lowest = [parse(each) for each in texts]
    if len(lowest.nodes) == 1 and (shape := SHAPES.get(lowest.nodes[0])) is not None:
        raise DescriptionError(f"say {lowest.nodes[0]} {shape[0]}", word=lowest.nodes[0])
    if lowest.places:
        raise DescriptionError("@ is for layers over others", word="@".join(lowest.places[0]))
    for graph in upper:
        for member, stack in graph.stacks:
            raise DescriptionError("is said of nodes, in the lowest network", word=f"{member}(stack={stack})")
    stacks = dict(lowest.stacks)
    nodes = tuple(Node(name, stacks.get(name, "ours")) for name in lowest.nodes)
    layers = [Layer("net1", members={name: name for name in lowest.nodes}, adjacencies=tuple(pairs_of(lowest.links)))]
    for number, graph in enumerate(reversed(upper), 2):
        layers.append(_rank(f"net{number}", graph, layers[-1]))
    return Description(nodes, tuple(replace(link, type=links) for link in lowest.links), tuple(layers))


def _rank(name: str, graph: Graph, below: Layer) -> Layer:
    for link in graph.links:
        if link.forth != "none" or link.back != "none":
            raise DescriptionError("only links of the lowest network can be bad", word=f"{link.one} - {link.other}")
    places = dict(graph.places)
    for member, place in places.items():
        if place not in below.members:
            raise DescriptionError(
                f"no member of the network below: there are {', '.join(below.members)}", word=f"{member}@{place}"
            )
    places |= {each: each for each in graph.nodes if each not in places and each in below.members}
    free = [each for each in below.members if each not in places.values()]
    for member in graph.nodes:
        if member not in places:
            if not free:
                raise DescriptionError(
                    f"no node of the network below is left for it: {len(below.members)} are there", word=member
                )
            places[member] = free.pop(0)
    members = {member: below.members[places[member]] for member in graph.nodes}
    doubled = [member for member in members if list(members.values()).count(members[member]) > 1]
    if doubled:
        raise DescriptionError(f"node {members[doubled[0]]} has another member of the layer already", word=doubled[-1])
    return Layer(name, members=members, adjacencies=tuple(pairs_of(graph.links)), over=below.name)


__all__ = ["Graph", "describe", "parse", "text_of"]
