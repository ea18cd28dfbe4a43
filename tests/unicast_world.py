"""Nodes with a member of one unicast layer each, in virtual time: the members and the connections form any graph."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec
from sim_world import TYPES

from ouroboros.errors import FlowDownException
from ouroboros.layers.base import Ipcp
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.settings import UnicastSettings
from ouroboros.testing.sim import Asked, Flow, Network, Node
from ouroboros.wire.control import (
    BindProcess,
    ChangePeers,
    ConnectIpcp,
    CreateIpcp,
    EnrollIpcp,
    KeepAliveIpcp,
    RegisterName,
)
from ouroboros.wire.unicast import cep
from ouroboros.wire.unicast.cep import Cep, Ours

COMPONENTS = ("Management", "Data Transfer")
Edges = Iterable[tuple[int, int]]


def line(count: int) -> Edges:
    return pairwise(range(count))


def ring(count: int) -> Edges:
    return [*line(count), (count - 1, 0)]


def grid(side: int, rows: int = 0) -> Edges:
    """`side`: members in a row. `rows`: by default as many."""
    rows = rows or side
    across = [(side * y + x, side * y + x + 1) for y in range(rows) for x in range(side - 1)]
    return [*across, *((side * y + x, side * y + x + side) for y in range(rows - 1) for x in range(side))]


def tree(count: int) -> Edges:
    """Each member has up to three below it."""
    return [((each - 1) // 3, each) for each in range(1, count)]


class Layer:
    """The layer `campus`: member i is `m<i>` on node i, over a layer over UDP that all nodes are in. Each of the edges, of
    which the first to a member is where it enrolls, is asked for by the second of the two."""

    def __init__(
        self,
        edges: Edges,
        *,
        seed: int = 1,
        settings: UnicastSettings | None = None,
        keepalive: float | None = None,
        log: bool = False,
        types: Mapping[str, type[Ipcp]] = TYPES,
        delay: float = 0.001,
        qualities: Mapping[tuple[int, int], QoSSpec] | None = None,
    ) -> None:
        """`qualities`: of the flows for packets of some edges; the others are raw."""
        self.network = Network(seed, types=types, log=log, delay=delay)
        self.keepalive = keepalive
        self.edges = [(min(pair), max(pair)) for pair in edges]
        self.settings = settings
        self.qualities = dict(qualities or {})
        self.nodes: list[Node] = []
        self.ids: list[int] = []
        self.udp: list[int] = []
        count = max(map(max, self.edges), default=0) + 1
        for each in range(count):
            self.add([one for one, other in self.edges if other == each])

    def add(self, neighbours: list[int]) -> UnicastIpcp:
        """One member more, which enrolls with the first of these and connects to all."""
        number = len(self.nodes)
        node = self.network.add_node(f"n{number}")
        self.nodes.append(node)
        self.udp.append(node.over_udp(peers=[f"m{each}@{self.nodes[each].address}" for each in neighbours]))
        if neighbours:
            id = node.manage(CreateIpcp(f"m{number}", "unicast")).value
            assert isinstance(id, int)
            assert node.manage(EnrollIpcp(id, f"m{neighbours[0]}")).wait().value == id
        else:
            id = node.add_ipcp("unicast", "campus", self.settings, name=f"m{number}")
        self.ids.append(id)
        if self.keepalive is not None:
            node.manage(KeepAliveIpcp(id, self.keepalive)).value  # noqa: B018 - or its error
        self.bind(number)
        for each in neighbours:
            self.connect(number, each, self.qualities.get((each, number), QOS_RAW))
        return self.member(number)

    def know(self, one: int, other: int) -> None:
        """A node knows where the member of another is."""
        peer = f"m{other}@{self.nodes[other].address}"
        self.nodes[one].manage(ChangePeers(self.udp[one], [peer], [])).value  # noqa: B018 - or its error

    def bind(self, number: int) -> None:
        """Others find the member by its name."""
        self.make_known(self.nodes[number], self.ids[number], f"m{number}", self.udp[number])

    def make_known(self, node: Node, id: int, name: str, below: int) -> None:
        node.manage(BindProcess(id, name)).value  # noqa: B018 - or its error
        node.manage(RegisterName(name, below)).value  # noqa: B018

    def connect(self, one: int, other: int, qos: QoSSpec = QOS_RAW) -> None:
        for component in COMPONENTS:
            self.ask_to_connect(one, other, component, qos).wait().value  # noqa: B018 - or its error

    def ask_to_connect(self, one: int, other: int, component: str, qos: QoSSpec = QOS_RAW) -> Asked:
        return self.connect_ipcp(self.nodes[one], self.ids[one], component, f"m{other}", qos)

    def connect_ipcp(self, node: Node, id: int, component: str, name: str, qos: QoSSpec = QOS_RAW) -> Asked:
        return node.manage(ConnectIpcp(id, component, name, qos if component == "Data Transfer" else QOS_RAW))

    def member(self, number: int) -> UnicastIpcp:
        ipcp = self.nodes[number].irm.ipcps[self.ids[number]]
        assert isinstance(ipcp, UnicastIpcp)
        return ipcp

    def offer(self, name: str, *numbers: int) -> None:
        for number in numbers:
            self.nodes[number].offer(name, self.ids[number])

    def flow(self, name: str, near: int, far: int, qos: QoSSpec = QOS_RAW) -> tuple[Flow, Flow]:
        """The ends of a new flow: of the client, of the server."""
        accepting = self.nodes[far].program("server").accept(name)
        client = self.nodes[near].program("client").alloc(name, qos).wait().flow
        return client, accepting.wait().flow

    def converge(self, seconds: float = 60.0) -> None:
        """Let time pass until each member has a way to all others."""
        count = len(self.nodes)
        done = self.network.run_until(
            lambda: all(len(self.member(each).link_state.members()) == count - 1 for each in range(count)), seconds
        )
        assert done, [len(self.member(each).link_state.members()) for each in range(count)]


class Liar:
    """A node with a member of its own making: a program with flows to one member of a layer, by which it says what it likes.
    `address`: what it says that its own is."""

    def __init__(self, layer: Layer, number: int, address: int = 0x66666666, *, ours: bool = True) -> None:
        self.layer = layer
        self.address = address
        self.ours = ours
        self.target = f"m{number}"
        node = layer.network.add_node(f"liar{len(layer.network.nodes)}")
        node.over_udp(peers=[f"{self.target}@{layer.nodes[number].address}"])
        self.program = node.program("liar")
        self.connections: dict[str, Flow] = {}

    def flow(self) -> Flow:
        """One on which nobody has greeted."""
        return self.program.alloc(self.target, QOS_RAW).wait().flow

    def greeting(self, component: str, **changes: object) -> Cep:
        name, syntax = {"Enrollment": ("OEP", 0), "Management": ("LSP", 0), "Data Transfer": ("dtp", 2)}[component]
        address = 0 if component == "Enrollment" else self.address
        said = Cep(component, name, 1, syntax, address, Ours(0, 1, 0xE71, "liar") if self.ours else None)
        return msgspec.structs.replace(said, **changes)

    def connect(self, component: str) -> Flow:
        """A connection of that component."""
        flow = self.flow()
        flow.write(self.greeting(component).encode())
        assert cep.decode(flow.read()).component == component
        return flow

    def join(self) -> None:
        """Be a neighbour, for management and for packets."""
        self.connections = {each: self.connect(each) for each in COMPONENTS}
        self.layer.network.run(0.5)

    def say(self, data: bytes, component: str = "Management") -> None:
        """To that component, by a new connection if the one before was ended."""
        try:
            self.connections[component].write(data)
        except FlowDownException:
            self.connections[component] = self.connect(component)
            self.connections[component].write(data)


def packet(destination: int, eid: int, data: bytes, *, cube: int = 0, ttl: int = 60, ecn: int = 0) -> bytes:
    """As members pass it on (`unicast-data.md` 2.1)."""
    return struct.pack("<IBBBQ", destination, cube, ttl, ecn, eid) + data
