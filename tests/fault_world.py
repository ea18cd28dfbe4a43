"""A unicast layer of a few nodes in virtual time, for ten minutes in which members die, start anew, stand still, leave, are
cut off, and move; in which links get bad; and in which two members have one address.

All of it follows from a seed: `python tests/fault_world.py SEED` says what happens, and has it happen.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import msgspec
import networkx as nx
from sim_world import RELIABLE
from unicast_world import COMPONENTS

from ouroboros.control.names import ROUND_ROBIN
from ouroboros.layers.effects import Route
from ouroboros.layers.members.links import MOST_ALIKE
from ouroboros.layers.unicast.flooding import LEAST_REPETITION, QUESTIONS, WINDOW
from ouroboros.layers.unicast.graph import NOT_EQUAL
from ouroboros.layers.unicast.link_state import LAST_PAUSE
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.qos import QOS_RAW
from ouroboros.settings import (
    DhtConfig,
    DirConfig,
    DtConfig,
    LinkStateConfig,
    LinkStatePolicy,
    RoutingConfig,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.testing.sim import Asked, Flow, Network, Node
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    ChangePeers,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    DisconnectIpcp,
    EnrollIpcp,
    Failed,
    KeepAliveIpcp,
    RegisterName,
    Request,
    UnregisterName,
)

ROUNDS = 5
#: Seconds of a burst, and of the quiet behind it.
BURST, QUIET = 30.0, 90.0
#: Seconds in which all is well again when it is quiet.
SETTLING = 75.0
#: After that, for what is in the directory.
SPREAD = 5.0
#: And in which no packet goes in circles any more: routes are computed once a second while much changes; a neighbour of a
#: member that died waits for its answer, and tells it all again twice; the rest is for news to cross the layer. It waits
#: longer where round trips take more than 17 ms or none was measured, and several times where news passes several such
#: neighbours: no plan of the first 300 comes to that.
LOOP = LAST_PAUSE + (2**QUESTIONS - 1) * LEAST_REPETITION + 0.1
PACE = 2.0
DELAY = 0.001
T_TIMEO = 10
BAD = ["loss=5%,delay=3ms,jitter=2ms", "loss=20%,duplicate=5%,reorder=10%,jitter=10ms,delay=10ms", "partition"]
#: Of flows that have to go on: for as long as their ends are there.
PATIENT = msgspec.structs.replace(QOS_RAW, timeout=0)

Edge = tuple[int, int]
#: Time, what, and arguments of a fault.
_Told = tuple[float, str, tuple[int | str, ...]]


class Fault(NamedTuple):
    """What happens at that time after the beginning: the method of `World` that does it, and its arguments."""

    at: float
    what: str
    arguments: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.at:9.4f}  {self.what}{self.arguments}"


class Plan:
    """All that happens to a layer, by a seed. Of the members, the last ones come later."""

    def __init__(self, seed: int) -> None:
        self._chance = chance = random.Random(f"faults {seed}")
        self.seed = seed
        self.members = chance.randint(4, 7)
        self.count = self.members + chance.randint(0, 1)
        self.edges = [(chance.randrange(each), each) for each in range(1, self.count)]
        others = [pair for pair in combinations(range(self.count), 2) if pair not in self.edges]
        self.edges += chance.sample(others, min(len(others), chance.randint(0, self.count)))
        #: Everything is as before when it is quiet.
        self.gentle = chance.random() < 0.5
        self.keepalive = chance.choice([0.2, 1.0, 3.0])
        ls = LinkStateConfig(chance.choice(list(LinkStatePolicy)), t_update=5, t_timeo=T_TIMEO)
        dht = DhtConfig(k=chance.choice([1, 2, 3, 8]))
        self.config = UnicastConfig(DtConfig(routing=RoutingConfig(ls=ls)), DirConfig(dht=dht))
        faults = sorted(fault for number in range(ROUNDS) for fault in self._burst(number * (BURST + QUIET)))
        self.rounds = [[each for each in faults if each.at // (BURST + QUIET) == number] for number in range(ROUNDS)]

    def __str__(self) -> str:
        settings = f"edges {self.edges}, gentle {self.gentle}, keepalive {self.keepalive}, {self.config}"
        return "\n".join([f"{self.count} members, {settings}", *(str(each) for burst in self.rounds for each in burst)])

    def _burst(self, begin: float) -> Iterator[Fault]:
        for _ in range(self._chance.randint(1, 5)):
            trouble = self._chance.choice(TROUBLES)
            at = begin + self._chance.random() * BURST * 0.8
            until = at + min(self._chance.expovariate(1 / 8), begin + BURST - at)
            if not self.gentle and trouble.__name__ in LASTING and self._chance.random() < 0.3:
                until = begin + BURST + QUIET + self._chance.random() * BURST
            yield from (Fault(*each) for each in trouble(self, at, until))

    def one(self) -> int:
        return self._chance.randrange(self.count)

    def edge(self) -> Edge:
        return self._chance.choice(self.edges)

    # --- troubles

    def crash(self, at: float, until: float) -> Iterator[_Told]:
        one = self.one()
        yield at, "crash", (one,)
        yield until, "start", (one,)

    def leave(self, at: float, until: float) -> Iterator[_Told]:
        one = self.one()
        yield at, "leave", (one,)
        yield until, "start", (one,)

    def interrupted(self, at: float, until: float) -> Iterator[_Told]:
        """A member starts, and is interrupted at some step of its enrollment."""
        one = self._chance.randrange(1, self.count)
        other = next(a + b - one for a, b in self.edges if one in (a, b))
        yield at, "crash", (one,)
        yield at + 1.0, "start", (one,)
        step = at + 1.0 + self._chance.randrange(20) * DELAY / 2
        match self._chance.choice(["crash", "member", "cut", "cancel"]):
            case "crash":
                yield step, "crash", (one,)
                yield until + 1.0, "start", (one,)
            case "member":
                yield step, "crash", (other,)
                yield until + 1.0, "start", (other,)
            case "cut":
                yield step, "cut", (one, other)
                yield until + 1.0, "mend", (one, other)
            case "cancel":
                yield step, "cancel", (one,)

    def newcomer(self, at: float, until: float) -> Iterator[_Told]:
        yield at, "start", (self.count - 1,)

    def cut(self, at: float, until: float) -> Iterator[_Told]:
        edge = self.edge()
        yield at, "cut", edge
        yield until, "mend", edge

    def flap(self, at: float, until: float) -> Iterator[_Told]:
        edge = self.edge()
        for turn in range(self._chance.randint(2, 4)):
            yield at + 4.0 * turn, "cut", edge
            yield at + 4.0 * turn + 2.0, "mend", edge

    def partition(self, at: float, until: float) -> Iterator[_Told]:
        part = self._chance.sample(range(self.count), self.count // 2)
        for edge in self.edges:
            if (edge[0] in part) != (edge[1] in part):
                yield at, "cut", edge
                yield until, "mend", edge

    def pause(self, at: float, until: float) -> Iterator[_Told]:
        one = self.one()
        yield at, "pause", (one,)
        yield until, "resume", (one,)

    def impair(self, at: float, until: float) -> Iterator[_Told]:
        one = self.one()
        yield at, "impair", (one, self._chance.choice(BAD))
        yield until, "impair", (one, "")

    def twins(self, at: float, until: float) -> Iterator[_Told]:
        """A member that was elsewhere for a while has picked the address of another."""
        one, other = self._chance.sample(range(self.count), 2)
        yield at, "crash", (one,)
        yield at, "pick", (one, other)
        yield until, "start", (one,)

    def move(self, at: float, until: float) -> Iterator[_Told]:
        yield at, "move", (self.one(),)

    def rename(self, at: float, until: float) -> Iterator[_Told]:
        one = self.one()
        yield at, "unregister", (one,)
        yield until, "register", (one,)

    def disconnect(self, at: float, until: float) -> Iterator[_Told]:
        edge = self.edge()
        yield at, "disconnect", edge
        yield until, "connect", edge


TROUBLES = [
    Plan.crash,
    Plan.leave,
    Plan.interrupted,
    Plan.newcomer,
    Plan.cut,
    Plan.flap,
    Plan.partition,
    Plan.pause,
    Plan.impair,
    Plan.twins,
    Plan.move,
    Plan.rename,
    Plan.disconnect,
]
#: Those that may go on while it is quiet.
LASTING = {"crash", "leave", "cut", "partition", "pause"}


class Loops:
    """Packets that go in circles, by what members have in their tables."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Since when, by destination and members on the way.
        self._since: dict[tuple[int, frozenset[int]], float] = {}

    def look(self, *, forget: bool = False) -> None:
        """Something changed. `forget`: something happened that a layer may need time for, from now on."""
        now = self._world.network.now
        found = {each: self._since.get(each, now) for each in self._found()}
        for (destination, members), since in found.items():
            assert now - since <= LOOP, f"packets for {destination:x} go in circles: {sorted(members)}"
        self._since = dict.fromkeys(found, now) if forget else found

    def _found(self) -> Iterator[tuple[int, frozenset[int]]]:
        running = list(self._world.members())
        members = {member.core.address: (number, member) for number, member in running}
        if len(members) < len(running):
            # Until one of two members of one address has another, nothing leads to one of them.
            return
        for destination in members:
            ways = {
                # What goes by a link that is cut goes no further.
                number: [
                    members[each][0]
                    for each in hops(member, destination)
                    if each in members and not self._world.is_cut(number, members[each][0])
                ]
                for number, member in members.values()
                if member.core.address != destination
            }
            for found in circles(ways):
                if all(self._world.is_fine(number) for number in found):
                    yield destination, found


def hops(member: UnicastIpcp, destination: int) -> list[int]:
    """By which neighbours a member sends packets."""
    ways = member.link_state._graph._table.get(destination, ())
    alive = member.adjacencies.neighbours
    equal = ways[: ways.index(NOT_EQUAL)] if NOT_EQUAL in ways else ways
    found = [each for each in equal if each in alive] or [each for each in ways if each in alive]
    return found if member.link_state._policy is LinkStatePolicy.ECMP and found[:1] == list(equal[:1]) else found[:1]


def circles(ways: dict[int, list[int]]) -> Iterator[frozenset[int]]:
    """Those that a packet can go in: the strongly connected ones, by taking away what leads nowhere."""
    left = dict(ways)
    while ends := [each for each, next in left.items() if not any(other in left for other in next)]:
        for each in ends:
            del left[each]
    while starts := [each for each in left if not any(each in next for next in left.values())]:
        for each in starts:
            del left[each]
    if left:
        yield frozenset(left)


class Watched(NamedTuple):
    """A flow that has to go on as long as both of its ends are what they were."""

    ends: tuple[int, int]
    nodes: tuple[Node, Node]
    members: tuple[UnicastIpcp, UnicastIpcp]
    addresses: tuple[int, int]
    reliable: bool
    client: Flow
    server: Flow


class World:
    """A layer to which all of a plan happens."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.network = Network(plan.seed, delay=DELAY)
        self.chance = random.Random(f"checks {plan.seed}")
        self.nodes: dict[int, Node] = {}
        self.ids: dict[int, int] = {}
        self.udp: dict[int, int] = {}
        self.where = {number: f"10.0.{number}.1" for number in range(plan.count)}
        self.moves = 0
        self.drawn = 0
        self.cuts: set[Edge] = set()
        self.left: set[Edge] = set()
        self.paused: set[int] = set()
        self.impaired: set[int] = set()
        self.named: set[int] = set(range(plan.count))
        self.enrolling: dict[int, Asked] = {}
        self.watched: list[Watched] = []
        self.loops = Loops(self)
        #: Seconds that it took to settle.
        self.settled: list[float] = []

    # --- how it is

    def members(self) -> Iterator[tuple[int, UnicastIpcp]]:
        """Those of nodes that run, that are members."""
        for number, node in self.nodes.items():
            if number not in self.paused and not node.crashed and number in self.ids:
                ipcp = node.irm.ipcps.get(self.ids[number])
                if isinstance(ipcp, UnicastIpcp) and ipcp.core.address:
                    yield number, ipcp

    def member(self, number: int) -> UnicastIpcp:
        ipcp = self.nodes[number].irm.ipcps[self.ids[number]]
        assert isinstance(ipcp, UnicastIpcp)
        return ipcp

    def runs(self, number: int) -> bool:
        return self.is_there(number) and number not in self.paused

    def is_there(self, number: int) -> bool:
        """Also when it stands still: what it is asked for waits."""
        return number in self.ids and not self.nodes[number].crashed

    def is_fine(self, number: int) -> bool:
        """Nothing is bad about its links, but that some may be cut."""
        return number not in self.impaired

    def is_cut(self, one: int, other: int) -> bool:
        return (min(one, other), max(one, other)) in self.cuts

    def pieces(self) -> list[list[int]]:
        """Nodes between which links lead, and of which some is a member, so that all can be."""
        graph = nx.Graph()
        graph.add_nodes_from(number for number in range(self.plan.count) if self.runs(number))
        edges = (edge for edge in self.plan.edges if edge not in self.cuts and edge not in self.left)
        graph.add_edges_from(edge for edge in edges if self.runs(edge[0]) and self.runs(edge[1]))
        members = dict(self.members())
        return [sorted(piece) for piece in nx.connected_components(graph) if any(each in members for each in piece)]

    def neighbours(self, number: int) -> list[int]:
        return [a + b - number for a, b in self.plan.edges if number in (a, b)]

    # --- what happens

    def start(self, number: int) -> None:
        """As `irmd` with a configuration file: what cannot be done yet is tried again."""
        if number in self.ids or number in self.paused:
            return
        if number not in self.nodes or self.nodes[number].crashed:
            node = self.nodes[number] = self.network.add_node(f"n{number}")
            node.address = self.where[number]
            self._watch_routes(node)
            for pair in self.cuts:
                self._sever(*pair, cut=True)
            self._open(number)
        node = self.nodes[number]
        id = node.manage(CreateIpcp(f"m{number}", "unicast")).value
        assert isinstance(id, int)
        self.ids[number] = id
        node.manage(KeepAliveIpcp(id, self.plan.keepalive)).value  # noqa: B018 - or its error
        if number == 0:
            node.manage(BootstrapIpcp(id, "campus", UnicastSettings(unicast=self.plan.config))).value  # noqa: B018
            self._begin(number)
        else:
            self._enroll(number, 0)

    def _open(self, number: int) -> None:
        peers = [f"m{each}@{self.where[each]}" for each in self.neighbours(number)]
        self.udp[number] = self.nodes[number].over_udp(peers=peers)

    def _still(self, number: int) -> Callable[[], bool]:
        """Whether a member is what it is now, later."""
        node, id = self.nodes[number], self.ids.get(number)
        return lambda: self.nodes[number] is node and not node.crashed and self.ids.get(number) == id is not None

    def _enroll(self, number: int, turn: int) -> None:
        """Enroll with one neighbour after the other, until one is there."""
        node, still = self.nodes[number], self._still(number)
        neighbours = self.neighbours(number)
        other = neighbours[turn % len(neighbours)]
        asked = node.manage(EnrollIpcp(self.ids[number], f"m{other}", (other, number) in self.plan.edges))
        self.enrolling[number] = asked

        def answered() -> None:
            if isinstance(asked.answer, Failed):
                self.network.later(2.0, again)
            elif still():
                self._begin(number)

        def again() -> None:
            if still():
                self._enroll(number, turn + 1)

        _when_answered(asked, answered)

    def _begin(self, number: int) -> None:
        """It is a member."""
        self._pursue(number, BindProcess(self.ids[number], f"m{number}"))
        self._pursue(number, RegisterName(f"m{number}", self.udp[number]))
        for one, other in self.plan.edges:
            if other == number and (one, other) not in self.left:
                self.connect(one, other)
        self._pursue(number, CreateName(f"name{number}", ROUND_ROBIN))
        if number in self.named:
            self.register(number)

    def _pursue(self, number: int, request: Request) -> None:
        """Ask, and ask again until it is done, or is not wanted any more."""
        still = self._still(number)
        asked = self.nodes[number].manage(request)

        def answered() -> None:
            if isinstance(asked.answer, Failed):
                self.network.later(2.0, again)

        def again() -> None:
            left = isinstance(request, ConnectIpcp) and (int(request.name[1:]), number) in self.left
            if still() and not left:
                self._pursue(number, request)

        _when_answered(asked, answered)

    def _watch_routes(self, node: Node) -> None:
        route = node._handlers[Route]

        def watch(effect: Route) -> None:
            route(effect)
            self.loops.look()

        node._handlers[Route] = watch

    def crash(self, number: int) -> None:
        if number in self.nodes:
            self.nodes[number].crash()
            self.ids.pop(number, None)
            self.paused.discard(number)
            self.impaired.discard(number)

    def leave(self, number: int) -> None:
        if self.runs(number):
            self.nodes[number].manage(DestroyIpcp(self.ids.pop(number))).value  # noqa: B018

    def cancel(self, number: int) -> None:
        if self.runs(number) and number in self.enrolling:
            asked, still = self.enrolling[number], self._still(number)
            if asked.answer is None:
                asked.cancel()
                self.network.later(1.0, lambda: self._enroll(number, 1) if still() else None)

    def cut(self, one: int, other: int) -> None:
        self.cuts.add((min(one, other), max(one, other)))
        self._sever(one, other, cut=True)

    def mend(self, one: int, other: int) -> None:
        self.cuts.discard((min(one, other), max(one, other)))
        self._sever(one, other, cut=False)

    def _sever(self, one: int, other: int, *, cut: bool) -> None:
        if one in self.nodes and other in self.nodes:
            (self.network.cut if cut else self.network.mend)(self.nodes[one], self.nodes[other])

    def pause(self, number: int) -> None:
        if self.runs(number):
            self.nodes[number].pause()
            self.paused.add(number)

    def resume(self, number: int) -> None:
        if number in self.paused:
            self.paused.discard(number)
            self.nodes[number].resume()

    def impair(self, number: int, text: str) -> None:
        if number in self.nodes and not self.nodes[number].crashed:
            self.nodes[number].impair(text or None)
            (self.impaired.add if text else self.impaired.discard)(number)

    def pick(self, number: int, other: int) -> None:
        """In what it remembers it has the address of another."""
        keys = {each: f"unicast/m{each}/address" for each in (number, other)}
        kept = [self.network.memories.get(f"n{each}", {}).get(key) for each, key in keys.items()]
        if kept[0] is None or kept[1] is None or not self.nodes[number].crashed:
            return
        own, picked = msgspec.msgpack.decode(kept[0]), msgspec.msgpack.decode(kept[1])
        self.network.memories[f"n{number}"][keys[number]] = msgspec.msgpack.encode([*picked[:3], own[3]])
        self.drawn += 2

    def move(self, number: int) -> None:
        """The host has another address, and those of its neighbours know it."""
        if not self.runs(number):
            return
        self.moves += 1
        before, self.where[number] = self.where[number], f"10.0.{number}.{1 + self.moves}"
        node = self.nodes[number]
        node.manage(DestroyIpcp(self.udp[number])).value  # noqa: B018
        node.address = self.where[number]
        self._open(number)
        if number in self.impaired:
            self.impaired.discard(number)
        self._pursue(number, RegisterName(f"m{number}", self.udp[number]))
        for each in self.neighbours(number):
            if each in self.nodes and not self.nodes[each].crashed:
                peers = [f"m{number}@{self.where[number]}"], [f"m{number}@{before}"]
                self.nodes[each].manage(ChangePeers(self.udp[each], *peers))

    def unregister(self, number: int) -> None:
        self.named.discard(number)
        if self.is_there(number):
            self.nodes[number].manage(UnregisterName(f"name{number}", self.ids[number]))

    def register(self, number: int) -> None:
        self.named.add(number)
        if self.is_there(number):
            self._pursue(number, RegisterName(f"name{number}", self.ids[number]))

    def disconnect(self, one: int, other: int) -> None:
        self.left.add((one, other))
        for component in COMPONENTS if self.is_there(other) else ():
            self.nodes[other].manage(DisconnectIpcp(self.ids[other], component, f"m{one}"))

    def connect(self, one: int, other: int) -> None:
        self.left.discard((one, other))
        for component in COMPONENTS if self.is_there(other) else ():
            self._pursue(other, ConnectIpcp(self.ids[other], component, f"m{one}", QOS_RAW))

    # --- what has to be so

    def go_on(self) -> None:
        """All of the plan, from beginning to end."""
        for number in range(self.plan.members):
            self.start(number)
        self.settle()
        for turn, burst in enumerate(self.plan.rounds):
            begin = self.network.now
            for fault in burst:
                self.network.run(max(0.0, begin + fault.at - turn * (BURST + QUIET) - self.network.now))
                getattr(self, fault.what)(*fault.arguments)
                self.loops.look(forget=True)
                self.check_bounds()
            self.network.run(max(0.0, begin + BURST - self.network.now))
            self.settle()
            self.network.run(max(0.0, begin + BURST + QUIET - self.network.now))
            self.check_flows()
        self.check_end()

    def settle(self) -> None:
        begin = self.network.now
        assert self.network.run_until(lambda: not self.unsettled(), SETTLING), self.unsettled()
        self.settled.append(self.network.now - begin)
        self.network.run(SPREAD)
        self.loops.look()
        self.check_bounds()
        self.check_names()
        self.watch()

    def unsettled(self) -> str:
        """A node that is no member, or one that does not know the members of its piece, and no others."""
        now = dict(self.members())
        for piece in self.pieces():
            for number in piece:
                if number not in now:
                    return f"{number} of {piece} is no member"
                known = set(now[number].link_state.members())
                wanted = {now[each].core.address for each in piece if each in now} - {now[number].core.address}
                if known != wanted or len(wanted) != len(piece) - 1:
                    return f"{number} of {piece}: knows {known}, and there are {wanted}"
        return ""

    def check_bounds(self) -> None:
        """Of all that a member keeps, there is no more than the layer has."""
        assert self.network.balance().missing == 0
        edges, addresses = len(self.plan.edges), self.plan.count + self.drawn
        for number, member in self.members():
            state, directory = member.link_state, member.directory
            rows = member.connections.rows()
            alike = [each.address for each in rows]
            assert len(state._database) <= 2 * edges + 4 * self.drawn * self.plan.count
            for neighbour in state._neighbours.values():
                assert len(neighbour._queue) <= len(state._database) + 1
                assert len(neighbour._waiting) <= WINDOW
            assert max(map(alike.count, alike), default=0) <= 2 * MOST_ALIKE
            assert len(directory.entries()) <= self.plan.count * addresses
            assert len(directory._publisher._notices) <= 2 * self.plan.count * addresses
            assert len(member.connections._greetings) <= 8 * len(self.neighbours(number))
            flows = self.nodes[number].irm.flows.flows
            assert len(flows) <= len(rows) + 8 * len(self.neighbours(number)) + 8, (number, len(flows), len(rows))

    def check_names(self) -> None:
        """Names resolve at other members of the same piece, and packets go both ways. At the end all do."""
        for piece in self.pieces():
            for number in piece if len(piece) > 1 else ():
                near = self.chance.choice([each for each in piece if each != number])
                if number in self.named and self.chance.random() < 0.4:
                    self.exchange(near, number)

    def exchange(self, near: int, far: int) -> None:
        server = self.nodes[far].program("server")
        accepting = server.accept(f"name{far}")
        client = self.nodes[near].program("client").alloc(f"name{far}", QOS_RAW).wait(10.0).flow
        ends = client, accepting.wait(1.0).flow
        for one, other in (ends, ends[::-1]):
            one.write(b"are you there?")
            assert other.read(1.0) == b"are you there?"
        for end in ends:
            end.dealloc()

    def watch(self) -> None:
        """A flow more that has to go on."""
        pieces = [piece for piece in self.pieces() if len(piece) > 1]
        if not pieces:
            return
        near, far = self.chance.sample(self.chance.choice(pieces), 2)
        if far not in self.named:
            return
        reliable = self.plan.gentle and self.chance.random() < 0.5
        accepting = self.nodes[far].program("server").accept(f"name{far}")
        asked = self.nodes[near].program("client").alloc(f"name{far}", RELIABLE if reliable else PATIENT)
        client, server = asked.wait(10.0).flow, accepting.wait(1.0).flow
        server.sink()
        client.source(10_000, 200, PACE)
        members = self.member(near), self.member(far)
        addresses = members[0].core.address, members[1].core.address
        nodes = self.nodes[near], self.nodes[far]
        self.watched.append(Watched((near, far), nodes, members, addresses, reliable, client, server))

    def check_flows(self) -> None:
        """Those whose ends are what they were go on; reliable ones lost nothing."""
        pieces = self.pieces()
        self.watched = [each for each in self.watched if self._is_whole(each)]
        before = [each.server.tally()["read"] for each in self.watched]
        self.network.run(2 * PACE)
        for flow, read in zip(self.watched, before, strict=True):
            if any(flow.ends[0] in piece and flow.ends[1] in piece for piece in pieces):
                written, tally = flow.client.tally()["written"], flow.server.tally()
                assert tally["read"] > read, f"the flow between {flow.ends} stands still"
                assert not flow.reliable or (written - tally["read"], tally["disordered"]) in ((0, 0), (1, 0)), (
                    flow.ends
                )

    def _is_whole(self, flow: Watched) -> bool:
        for end, node, member, address in zip(flow.ends, flow.nodes, flow.members, flow.addresses, strict=True):
            if node.crashed or self.nodes[end] is not node or member.core.address != address:
                return False
            if self.ids.get(end) is None or node.irm.ipcps.get(self.ids[end]) is not member:
                return False
        return True

    def check_end(self) -> None:
        """Every pair, and what is left."""
        for piece in self.pieces():
            for near, far in combinations(piece, 2):
                if far in self.named:
                    self.exchange(near, far)
        assert self.network.counted()["stuck"] == 0
        assert all("bug" not in text for node in self.network.nodes for text in node.warnings)
        addresses = [member.core.address for _, member in self.members()]
        for piece in self.pieces():
            assert len({self.member(each).core.address for each in piece}) == len(piece), addresses


def _when_answered(asked: Asked, call: Callable[[], None]) -> None:
    asked.answered = call
    if asked.answer is not None:
        call()


if __name__ == "__main__":
    told = Plan(int(sys.argv[1]))
    print(told)
    World(told).go_on()
