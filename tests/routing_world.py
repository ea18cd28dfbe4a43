"""Parts of members of a unicast layer, alone and in virtual time: link states joined by management flows.

A `World` has members and links between them that delay, lose, double and reorder. `Prototype` does what a member of the C
prototype does, as `unicast-control.md` 6 tells it: enough for those of ours to live with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol, cast

import networkx as nx
from timed_world import TimedWorld

from ouroboros.layers.agenda import Alarm
from ouroboros.layers.effects import Effect, SendMessage, Warn
from ouroboros.layers.face import Size
from ouroboros.layers.members.core import Core
from ouroboros.layers.unicast.graph import MOST_HOPS, Table
from ouroboros.layers.unicast.link_state import LinkState
from ouroboros.settings import LinkStateConfig, LinkStatePolicy, UnicastConfig, UnicastSettings
from ouroboros.wire.unicast.lsu import LENGTH, LinkStateUpdate

#: When worlds begin, seconds since 1970.
EPOCH = 1_795_000_000

Pair = tuple[int, int]


@dataclass(eq=False)
class Flow:
    """One end of a lower flow, as the component knows it."""

    fd: int
    address: int
    ours: bool
    size: Size = Size(1400, 1400)  # noqa: RUF009


class Part(Protocol):
    """What a member consists of here."""

    def connected(self, connection: Any, now: float) -> None: ...
    def disconnected(self, connection: Any, now: float) -> None: ...
    def state(self, connection: Any, up: bool, now: float) -> None: ...
    def heard(self, connection: Any, data: bytes, now: float) -> None: ...
    def adjacency_up(self, address: int, now: float) -> None: ...
    def adjacency_down(self, address: int, now: float) -> None: ...
    def deadline(self) -> float | None: ...
    def timeout(self, now: float) -> None: ...


def make_core(address: int, seed: int, clock: Callable[[], float], config: UnicastConfig | None = None) -> Core:
    """A core whose effects nobody carries out yet."""
    effects: list[Effect] = []
    host = SimpleNamespace(
        effects=effects, random=Random(seed), wall=lambda: int((EPOCH + clock()) * 10**9), alarm=Alarm()
    )
    core = Core(address, f"member{address}", cast("Any", host))
    core.address = address
    core.settings = UnicastSettings(unicast=config or UnicastConfig())
    return core


class Member:
    """A member in a world. `ours`: it is none of the prototype."""

    def __init__(self, world: World, address: int, *, ours: bool) -> None:
        self.address = address
        self.ours = ours
        self.table: Table = {}
        self.spread: bool | None = None
        self.tables = 0
        self.collisions = 0
        self.core = make_core(address, world.seed * 1009 + address, lambda: world.now, world.config)
        self.part: Part
        if ours:
            self.link_state = LinkState(self.core, self._changed, self._collided)
            self.part = self.link_state
        else:
            self.part = Prototype(self.core, world.config.dt.routing.ls)
        self.flows: dict[int, tuple[Flow, Link]] = {}

    def _changed(self, table: Table, spread: bool, now: float) -> None:
        self.table, self.spread = table, spread
        self.tables += 1

    def _collided(self, now: float) -> None:
        self.collisions += 1


@dataclass(eq=False)
class Link:
    """Two management flows' ends, and a data-transfer adjacency."""

    ends: tuple[Member, Member]
    fds: tuple[int, int]
    up: bool = True

    def far(self, member: Member) -> tuple[Member, int]:
        side = 1 if member is self.ends[0] else 0
        return self.ends[side], self.fds[side]


class World(TimedWorld[Member]):
    """Members, links, and time."""

    def __init__(self, seed: int = 0, config: UnicastConfig | None = None, **ls: Any) -> None:
        super().__init__(seed, 0.001)
        self.config = config or UnicastConfig()
        if ls:
            self.config.dt.routing.ls = LinkStateConfig(**ls)
        self.links: dict[Pair, Link] = {}
        #: After so many seconds a cut is noticed.
        self.notice = 0.5
        #: What every packet on the way is shown to: sender, receiver, bytes.
        self.watch: Callable[[Member, Member, bytes], None] = lambda sender, receiver, data: None
        self._fds = count(1)

    # --- building

    def add(self, address: int, *, ours: bool = True) -> Member:
        self._timers.pop(address, None)
        self.members[address] = Member(self, address, ours=ours)
        return self.members[address]

    def connect(self, one: int, other: int) -> Link:
        """Management, then data transfer, at both ends at once."""
        ends = self.members[one], self.members[other]
        link = Link(ends, (next(self._fds), next(self._fds)))
        self.links[min(one, other), max(one, other)] = link
        for member, peer, fd in ((*ends, link.fds[0]), (*ends[::-1], link.fds[1])):
            flow = Flow(fd, peer.address, member.ours and peer.ours)
            member.flows[fd] = flow, link
        for member, fd in zip(ends, link.fds, strict=True):
            flow, _ = member.flows[fd]
            self.do(member, lambda part, flow=flow: part.connected(flow, self.now))  # type: ignore[misc]
            self.do(member, lambda part, flow=flow: part.adjacency_up(flow.address, self.now))  # type: ignore[misc]
        return link

    def disconnect(self, one: int, other: int) -> None:
        """Both ends let go."""
        link = self.links.pop((min(one, other), max(one, other)))
        link.up = False
        for member, fd in zip(link.ends, link.fds, strict=True):
            flow, _ = member.flows.pop(fd)
            self.do(member, lambda part, flow=flow: part.adjacency_down(flow.address, self.now))  # type: ignore[misc]
            self.do(member, lambda part, flow=flow: part.disconnected(flow, self.now))  # type: ignore[misc]

    def move(self, address: int, new: int) -> None:
        """A member takes another address: it connects anew to its neighbours."""
        neighbours = [one if other == address else other for one, other in self.links if address in (one, other)]
        for each in neighbours:
            self.disconnect(address, each)
        self._timers.pop(address, None)
        member = self.members.pop(address)
        member.address = member.core.address = new
        self.members[new] = member
        self.do(member, lambda part: part.moved(self.now))
        for each in neighbours:
            self.connect(new, each)

    def cut(self, one: int, other: int) -> None:
        """Nothing passes any more, which is noticed by and by."""
        link = self.links[min(one, other), max(one, other)]
        if link.up:
            link.up = False
            self.later(self.notice, lambda: self._noticed(link, up=False))

    def mend(self, one: int, other: int) -> None:
        link = self.links[min(one, other), max(one, other)]
        if not link.up:
            link.up = True
            self.later(self.notice, lambda: self._noticed(link, up=True))

    def _noticed(self, link: Link, *, up: bool) -> None:
        for member, fd in zip(link.ends, link.fds, strict=True):
            if link.up != up or fd not in member.flows:
                continue
            flow, _ = member.flows[fd]
            self.do(member, lambda part, flow=flow: part.state(flow, up, self.now))  # type: ignore[misc]
            verb = "adjacency_up" if up else "adjacency_down"
            self.do(member, lambda part, flow=flow, verb=verb: getattr(part, verb)(flow.address, self.now))  # type: ignore[misc]

    # --- packets

    def carry_out(self, member: Member, effect: Effect) -> None:
        match effect:
            case SendMessage(_, fd, data):
                self._send(member, fd, data)
            case Warn():
                pass
            case _:
                raise AssertionError(f"nobody carries out {effect}")

    def _send(self, member: Member, fd: int, data: bytes) -> None:
        if fd not in member.flows:
            return
        _, link = member.flows[fd]
        receiver, far = link.far(member)
        self.packets += 1
        self.watch(member, receiver, data)
        self.on_the_way(lambda: self._deliver(link, receiver, far, data))

    def _deliver(self, link: Link, receiver: Member, fd: int, data: bytes) -> None:
        if link.up and fd in receiver.flows:
            flow, _ = receiver.flows[fd]
            self.do(receiver, lambda part: part.heard(flow, data, self.now))

    # --- what is true

    def announced(self) -> list[Pair]:
        """Links that are up, in both directions."""
        return [each for pair, link in self.links.items() if link.up for each in (pair, pair[::-1])]

    def pieces(self) -> list[list[int]]:
        """Members between which there are paths."""
        network = nx.Graph(self.announced())
        network.add_nodes_from(self.members)
        return [sorted(piece) for piece in nx.connected_components(network)]

    def ours(self) -> list[Member]:
        return [member for member in self.members.values() if member.ours]


def lay(world: World, edges: Iterable[Pair], *, ours: Callable[[int], bool] = lambda address: True) -> None:
    """Members and links as in a graph."""
    for pair in edges:
        for address in pair:
            if address not in world.members:
                world.add(address, ours=ours(address))
        world.connect(*pair)


BASE = 1 << 20


def shape(kind: str, size: int) -> list[Pair]:
    """The links of a layer of so many members."""
    match kind:
        case "line":
            graph = nx.path_graph(size)
        case "ring":
            graph = nx.cycle_graph(size)
        case "grid":
            side = round(size**0.5)
            graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, -(-size // side)))
        case "tree":
            graph = nx.full_rary_tree(3, size)
        case "star":
            graph = nx.star_graph(size - 1)
        case _:
            raise ValueError(kind)
    return [(BASE + 7 * one, BASE + 7 * other) for one, other in graph.edges]


def oracle(announced: Iterable[Pair], root: int, policy: LinkStatePolicy) -> Table:
    """The table, from the definitions. `announced`: source and destination of each."""
    announced, network = dict.fromkeys(announced), nx.Graph()
    network.add_node(root)
    network.add_edges_from(edge for edge in announced if edge[::-1] in announced)
    near = nx.single_source_shortest_path_length(network, root)
    neighbours = sorted(network[root])
    from_neighbour = {each: nx.single_source_shortest_path_length(network, each) for each in neighbours}
    table: Table = {}
    primary: dict[int, int] = {}
    for vertex, distance in sorted(near.items(), key=lambda item: item[1]):
        if vertex == root:
            continue
        before = [each for each in network[vertex] if near.get(each) == distance - 1]
        primary[vertex] = vertex if distance == 1 else primary[min(before)]
        reach = {each: from_neighbour[each].get(vertex, 1 << 30) for each in neighbours}
        nearest = [each for each in neighbours if reach[each] + 1 == distance]
        # Loop-free alternates: d(N, X) < d(N, own) + d(own, X).
        alternates = [each for each in neighbours if each not in nearest and reach[each] < 1 + distance]
        if policy is LinkStatePolicy.ECMP:
            kept = [*nearest, *alternates][:MOST_HOPS]
            spare = [each for each in kept if each in alternates]
            table[vertex] = (*(each for each in kept if each in nearest), *((0, *spare) if spare else ()))
        else:
            others = [each for each in nearest if each != primary[vertex]]
            table[vertex] = (primary[vertex], *others, *alternates)[:MOST_HOPS]
    return table


class Prototype:
    """Link-state routing of the C prototype. Its routes are those of the database at the last computation (N17)."""

    def __init__(self, core: Core, config: LinkStateConfig) -> None:
        self._core = core
        self._config = config
        self._flows: dict[int, Any] = {}
        #: Number, and when it was accepted.
        self.database: dict[Pair, tuple[int, float]] = {}
        self._refresh_at = 0.5 + core.host.random.getrandbits(16) / 65536 * config.t_update
        self.computed: dict[Pair, None] = {}
        self.refused = 0

    def connected(self, connection: Any, now: float) -> None:
        self._flows[connection.fd] = connection
        for source, destination in sorted(self.database, key=lambda pair: pair[::-1]):
            self._core.message(connection.fd, self._update((source, destination)))

    def disconnected(self, connection: Any, now: float) -> None:
        del self._flows[connection.fd]

    def state(self, connection: Any, up: bool, now: float) -> None:
        """Nothing."""

    def adjacency_up(self, address: int, now: float) -> None:
        pair = self._core.address, address
        if pair not in self.database:
            self.database[pair] = 0, now
            self._compute()
        self._flood(LinkStateUpdate(address, self._core.address, 0).encode(), None)

    def adjacency_down(self, address: int, now: float) -> None:
        """It does not notice."""

    def heard(self, connection: Any, data: bytes, now: float) -> None:
        if len(data) != LENGTH:
            self.refused += 1
            return
        destination, source, number = (int.from_bytes(data[at : at + 8]) for at in (0, 8, 16))
        known = self.database.get((source, destination))
        if known is not None and number <= known[0]:
            return
        self.database[source, destination] = number, now
        if known is None:
            self._compute()
        self._flood(data, connection.fd)

    def deadline(self) -> float | None:
        return self._refresh_at

    def timeout(self, now: float) -> None:
        self._refresh_at = now + self._config.t_update
        for pair, (number, stamp) in list(self.database.items()):
            if pair[0] == self._core.address:
                self.database[pair] = number + 1, now
                self._flood(self._update(pair), None)
            elif now - stamp > self._config.t_timeo:
                del self.database[pair]

    def links(self) -> list[Pair]:
        """Those it would make paths of."""
        return sorted(pair for pair in self.computed if pair[::-1] in self.computed and pair[0] < pair[1])

    def _compute(self) -> None:
        self.computed = dict.fromkeys(self.database)

    def _update(self, pair: Pair) -> bytes:
        return LinkStateUpdate(pair[1], pair[0], self.database[pair][0]).encode()

    def _flood(self, data: bytes, via: int | None) -> None:
        for fd in self._flows:
            if fd != via:
                self._core.message(fd, data)
