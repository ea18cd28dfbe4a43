"""What a laboratory is made of, as plain values: `Description` and its parts. All of it is checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ouroboros._checks import assembled
from ouroboros.control.configuration import setting_keys
from ouroboros.errors import IpcpBootstrapError, OuroborosError
from ouroboros.lab.errors import DescriptionError
from ouroboros.layers import impairment
from ouroboros.settings import UnicastSettings

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}", re.ASCII)

#: Types of layers that a description can have.
_LAYERS = ("unicast", "broadcast", "local")
#: Types of links: of layers over UDP, and over Ethernet.
LINKS = ("udp4", "udp6", "eth-dix", "eth-llc")
#: Seconds.
_LEAST_SILENCE, _MOST_SILENCE = 0.1, 3600.0
#: Stacks that a node can have.
STACKS = ("ours", "c")


def check_name(name: str, what: str) -> str:
    """The name, if it is one. Raises `DescriptionError`."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise DescriptionError(
            f"no name of a {what}: it begins with a letter, and has letters, digits and _ only, 31 at most",
            word=str(name),
        )
    return name


def check_impairment(text: str) -> str:
    """The words of an impairment in one way to write them. Raises `DescriptionError`."""
    try:
        return impairment.parse(text).text
    except IpcpBootstrapError as error:
        raise DescriptionError(str(error).removeprefix("impair: "), word=text) from error


@dataclass(frozen=True, slots=True)
class Node:
    """A host. `stack`: "ours", or "c" for the C prototype where that is installed."""

    name: str
    stack: str = "ours"

    def __post_init__(self) -> None:
        check_name(self.name, "node")
        if self.stack not in STACKS:
            raise DescriptionError(f"no stack: choose from {', '.join(STACKS)}", word=self.stack)


@dataclass(frozen=True, slots=True)
class Link:
    """A wire between two nodes. `forth`, `back`: what happens to packets from `one` to `other` and from there, in the
    words of `irm ipcp impair`. `type`: of the layer over the wire."""

    one: str
    other: str
    forth: str = "none"
    back: str = "none"
    type: str = "udp4"

    def __post_init__(self) -> None:
        check_name(self.one, "node")
        check_name(self.other, "node")
        if self.one == self.other:
            raise DescriptionError("a link leads to another node", word=f"{self.one} - {self.other}")
        if self.type not in LINKS:
            raise DescriptionError(f"no type of link: choose from {', '.join(LINKS)}", word=self.type)
        object.__setattr__(self, "forth", check_impairment(self.forth))
        object.__setattr__(self, "back", check_impairment(self.back))

    @property
    def is_ethernet(self) -> bool:
        return self.type.startswith("eth-")

    @property
    def name(self) -> str:
        return f"{self.one}-{self.other}"

    @property
    def ends(self) -> tuple[str, str]:
        return self.one, self.other


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer. `members`: nodes, by the names of their members. `adjacencies`: pairs of such names that are neighbours,
    in a layer between nodes: a unicast one, or a broadcast one that has some. `over`: the layer below; None: the links.
    `settings`: keys of the table in `docs/unicast.md`."""

    name: str
    type: str = "unicast"
    members: Mapping[str, str] = field(default_factory=dict)
    adjacencies: tuple[tuple[str, str], ...] = ()
    over: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "layer")
        for member in self.members:
            check_name(member, "member")
        if self.type not in _LAYERS:
            raise DescriptionError(f"no type of layer: choose from {', '.join(_LAYERS)}", word=self.type)
        if self.type == "local" and self.adjacencies:
            raise DescriptionError("a local layer is within a node, so it has no adjacencies", word=self.name)
        self.told()
        for pair in self.adjacencies:
            for member in pair:
                if member not in self.members:
                    raise DescriptionError(f"no member of layer {self.name}", word=member)

    @property
    def has_names(self) -> bool:
        """Between nodes, with routes and names."""
        return self.type == "unicast"

    @property
    def is_between(self) -> bool:
        """Its members are connected; else there is one in each of its nodes."""
        return self.has_names or bool(self.adjacencies)

    def ipcp(self, member: str) -> str:
        """The name of the IPC process of a member."""
        return f"{self.name}.{member}"

    def told(self) -> UnicastSettings:
        """The settings, as members are told. Raises `DescriptionError`."""
        keys = setting_keys(UnicastSettings)
        values = {}
        for key, value in self.settings.items():
            if key not in keys or self.type != "unicast":
                known = ", ".join(keys) if self.type == "unicast" else "none"
                raise DescriptionError(f"no setting of a {self.type} layer: there are {known}", word=key)
            setting = keys[key]
            try:
                values[setting.key] = setting(setting.check.read(value) if isinstance(value, str) else value)
            except ValueError as error:
                raise DescriptionError(str(error), word=key) from error
        return assembled(UnicastSettings, values)

    def member_on(self, node: str) -> str | None:
        """The member that a node has."""
        return next((member for member, each in self.members.items() if each == node), None)


@dataclass(frozen=True, slots=True)
class Program:
    """A program on a node, for real clocks. `serves`: a name to which it accepts flows."""

    node: str
    run: tuple[str, ...]
    serves: str | None = None

    def __post_init__(self) -> None:
        if not self.run:
            raise DescriptionError("a program has words: what is run, and its arguments", word="run")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that a node has, of an authority that all nodes of the network trust. `name`: whose it is. `to`:
    the service to whom it is shown, or a layer, to whose members it is; None: it is that of the service `name`."""

    node: str
    name: str
    to: str | None = None

    def __post_init__(self) -> None:
        from ouroboros.oap.issuing import check_name as check_name_of_certificate

        for name in (self.name, *([] if self.to is None else [self.to])):
            try:
                check_name_of_certificate(name)
            except ValueError as error:
                raise DescriptionError(str(error), word=name) from error


@dataclass(frozen=True, slots=True)
class Policy:
    """What a node demands of flows, as of its files `policy.conf` (`rules`) and `enc.conf` (`encryption`), a line each;
    None: it has no such file. `name`: of the service, or of a layer, for flows between its members. `side`: "server",
    for flows that the node accepts, or "client"."""

    node: str
    name: str
    side: str = "server"
    rules: tuple[str, ...] | None = None
    encryption: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        from ouroboros.oap.files import parse_encryption, parse_policy

        if self.side not in ("server", "client"):
            raise DescriptionError("no side: choose from server, client", word=self.side)
        for parse, lines in ((parse_policy, self.rules), (parse_encryption, self.encryption)):
            for line in lines or ():
                try:
                    parse("", line.encode())
                except OuroborosError as error:
                    raise DescriptionError(str(error), word=line) from error


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is done, `at` seconds after the network is ready. `do`: a command, as of the prompt."""

    at: float
    do: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """Something that is to be so, or to come about `within` seconds, `at` seconds after the network is ready. `that`: a
    question, as of the prompt, with `no` in front if it is not to be."""

    at: float
    that: str
    within: float = 60.0


@dataclass(frozen=True, slots=True)
class Description:
    """A network, what happens in it, and what is to be so. `layers`: from the lowest up. `silence`: seconds after which
    a neighbour that says nothing is down."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...] = ()
    layers: tuple[Layer, ...] = ()
    programs: tuple[Program, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    policies: tuple[Policy, ...] = ()
    events: tuple[Event, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    title: str = ""
    silence: float = 2.0

    def __post_init__(self) -> None:
        if not _LEAST_SILENCE <= self.silence <= _MOST_SILENCE:
            raise DescriptionError(
                f"from {_LEAST_SILENCE} to {_MOST_SILENCE:g} seconds", word=f"silence = {self.silence}"
            )
        if not self.nodes:
            raise DescriptionError("a network has one node at least, such as: a - b - c")
        _once((node.name for node in self.nodes), "node")
        _once((layer.name for layer in self.layers), "layer")
        _once((name for link in self.links for name in (link.name, f"{link.other}-{link.one}")), "link")
        known = {node.name for node in self.nodes}
        for link in self.links:
            for name in link.ends:
                if name not in known:
                    raise DescriptionError("no node of that name", word=name)
        self._check_layers()
        for node in (
            *(node for layer in self.layers for node in layer.members.values()),
            *(p.node for p in self.programs),
            *(each.node for each in self.certificates),
            *(each.node for each in self.policies),
        ):
            if node not in known:
                raise DescriptionError("no node of that name", word=node)

    def _check_layers(self) -> None:
        lower: dict[str, Layer] = {}
        for layer in self.layers:
            if layer.over is not None and layer.over not in lower:
                raise DescriptionError(f"no layer of that name stands before layer {layer.name}", word=layer.over)
            if layer.over is not None and not lower[layer.over].has_names:
                raise DescriptionError(
                    f"a {lower[layer.over].type} layer carries no layer between nodes", word=layer.over
                )
            for pair in layer.adjacencies if layer.over is None else ():
                self.link(*(layer.members[member] for member in pair))
            lower[layer.name] = layer

    @property
    def names(self) -> list[str]:
        """Of the nodes, in their order."""
        return [node.name for node in self.nodes]

    @property
    def ranks(self) -> dict[str, int]:
        """Of the layers: how many are below, the layer itself counted."""
        found: dict[str, int] = {}
        for layer in self.layers:
            found[layer.name] = 1 if layer.over is None else 1 + found[layer.over]
        return found

    def link(self, one: str, other: str) -> Link:
        """The link between two nodes. Raises `DescriptionError` when there is none."""
        for link in self.links:
            if set(link.ends) == {one, other}:
                return link
        raise DescriptionError(self._no_link(one, other), word=f"{one}-{other}")

    def _no_link(self, one: str, other: str) -> str:
        for name in (one, other):
            if name not in self.names:
                return f"there is no node {name!r}: there are {', '.join(self.names)}"
        beside = [next(end for end in link.ends if end != one) for link in self.links if one in link.ends]
        return f"there is no link between them: {one} is linked to {', '.join(beside) or 'nobody'}"


def _once(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DescriptionError(f"a {what} of that name is there already", word=name)
        seen.add(name)


def neighbours(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The neighbours of each, in the order of the pairs."""
    found: dict[str, list[str]] = {}
    for one, other in pairs:
        found.setdefault(one, []).append(other)
        found.setdefault(other, []).append(one)
    return found


def distances(start: str, beside: Mapping[str, list[str]]) -> dict[str, int]:
    """Hops to all that can be reached, the start included, the nearest first."""
    reached, waiting = {start: 0}, [start]
    for each in waiting:
        for other in beside.get(each, ()):
            if other not in reached:
                reached[other] = reached[each] + 1
                waiting.append(other)
    return reached


def rounds(pairs: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Pairs in the order in which few messages tell all of all: pieces of the graph are joined that are about as large as
    each other, and what one of them knows, the other is told in one go. A round halves the number of pieces at least; the
    last one has the pairs whose ends are in one piece already."""
    left = list(dict.fromkeys(pairs))
    piece, found = {node: node for pair in left for node in pair}, []
    while joined := _joined(piece, left):
        found.append(list(joined))
        left = [pair for pair in left if pair not in joined]
    return [*found, left] if left else found


def _joined(piece: dict[str, str], pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], None]:
    """Of a round: pieces have a partner each, and one that finds none goes to a neighbour and its partner. `piece`: the name
    of the piece by node, as it is then."""
    between = [(pair, piece[pair[0]], piece[pair[1]]) for pair in pairs if piece[pair[0]] != piece[pair[1]]]
    chosen, becomes = dict[tuple[str, str], None](), dict[str, str]()
    for pair, one, other in between:
        if not becomes.keys() & {one, other}:
            becomes[one] = becomes[other] = one
            chosen[pair] = None
    for pair, *ends in between:
        for alone in [each for each in ends if each not in becomes]:
            becomes[alone] = next(becomes[each] for each in ends if each != alone)
            chosen[pair] = None
    piece.update({node: becomes.get(name, name) for node, name in piece.items()})
    return chosen


def pairs_of(links: Iterable[Link]) -> Iterator[tuple[str, str]]:
    return ((link.one, link.other) for link in links)
