"""Unicast layers over several layers, over each other, and over themselves, in virtual time."""

from __future__ import annotations

import functools
import operator

import pytest
from security_world import certified, trusting
from sim_world import RELIABLE, TYPES
from unicast_world import COMPONENTS

from ouroboros.errors import FlowPeerException, FlowTimeoutException, OuroborosError
from ouroboros.lab import Lab
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.settings import (
    DtConfig,
    LinkStateConfig,
    LinkStatePolicy,
    RoutingConfig,
    Udp4Config,
    Udp4Settings,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.wire.control import (
    BindProcess,
    ConnectIpcp,
    CreateIpcp,
    DestroyIpcp,
    DisconnectIpcp,
    EnrollIpcp,
    HopEntry,
    ImpairIpcp,
    KeepAliveIpcp,
    ListFlows,
    ProbeName,
    RegisterName,
    UnicastDetails,
)

#: Layers over UDP in which both nodes are, by their ports.
NETS = {"net4": 3435, "net6": 3436}
SETTLED = 5.0


class Both:
    """Members `a` and `b` of the layer `campus`, on nodes of their own that are in both layers of `NETS`."""

    def __init__(self, *over: str, keepalive: float = 0.1) -> None:
        self.network = Network(5, types=TYPES)
        self.a, self.b = self.network.add_node("a"), self.network.add_node("b")
        self.below: dict[str, tuple[int, int]] = {}
        for layer, port in NETS.items():
            ends = [(self.a, ()), (self.b, (f"campus@{self.a.address}:{port}",))]
            first, second = (self._udp(node, layer, port, peers) for node, peers in ends)
            self.below[layer] = first, second
        self.first = self.a.add_ipcp("unicast", "campus", name="a")
        self.a.manage(BindProcess(self.first, "campus")).value  # noqa: B018 - or its error
        for ipcp, _ in self.below.values():
            self.a.manage(RegisterName("campus", ipcp)).value  # noqa: B018
        id = self.b.manage(CreateIpcp("b", "unicast")).value
        assert isinstance(id, int)
        self.second = id
        self.b.manage(KeepAliveIpcp(self.second, keepalive)).value  # noqa: B018
        self.b.manage(EnrollIpcp(self.second, "campus", True, over=over)).wait().value  # noqa: B018
        for layer in over or ("",):
            self.connect(layer)
        self.network.run(SETTLED)

    def _udp(self, node: Node, layer: str, port: int, peers: tuple[str, ...]) -> int:
        return node.add_ipcp("udp4", layer, Udp4Settings(udp4=Udp4Config(node.address, port=port, peers=peers)))

    def connect(self, over: str = "", name: str = "campus") -> None:
        for component in COMPONENTS:
            self.b.manage(ConnectIpcp(self.second, component, name, QOS_RAW, over)).wait().value  # noqa: B018

    def impair(self, layer: str, words: str) -> None:
        for node, ipcp in zip((self.a, self.b), self.below[layer], strict=True):
            node.manage(ImpairIpcp(ipcp, words)).value  # noqa: B018

    @property
    def member(self) -> UnicastIpcp:
        ipcp = self.b.irm.ipcps[self.second]
        assert isinstance(ipcp, UnicastIpcp)
        return ipcp

    def shown(self) -> list[tuple[str, str, str]]:
        """Component, layer below and state of each connection of `b`."""
        entries = self.member.details().connections
        return sorted((each.component, each.over, each.state) for each in entries)

    def flow(self) -> tuple[Flow, Flow]:
        self.a.offer("clock", self.first)
        self.network.run(SETTLED)
        accepting = self.a.program("server").accept("clock")
        client = self.b.program("client").alloc("clock", RELIABLE).wait().flow
        return client, accepting.wait().flow


def everywhere(state: str = "up", **others: str) -> list[tuple[str, str, str]]:
    """What `shown` says when there is a connection over each layer. `others`: of data transfer, by layer."""
    rows = [("Management", layer, "up") for layer in NETS]
    return sorted(rows + [("Data Transfer", layer, others.get(layer, state)) for layer in NETS])


def test_a_member_is_connected_over_each_layer_that_is_said() -> None:
    both = Both("net4", "net6")
    assert both.shown() == everywhere()
    assert len(both.member.link_state.members()) == 1
    # Once more changes nothing.
    for layer in ("net6", ""):
        both.connect(layer)
    assert both.shown() == everywhere()


def test_without_a_word_one_layer_carries_the_connections() -> None:
    both = Both()
    assert both.shown() == [("Data Transfer", "net4", "up"), ("Management", "net4", "up")]
    both.connect("net6")
    assert both.shown() == everywhere()


@pytest.mark.parametrize("cut", NETS)
def test_a_flow_goes_on_over_the_other_layer_when_one_is_cut(cut: str) -> None:
    both = Both("net4", "net6")
    client, server = both.flow()
    for packet in (b"before", b"while it is cut", b"when that is known", b"after"):
        if packet == b"while it is cut":
            both.impair(cut, "partition")
        elif packet == b"when that is known":
            both.network.run(1.0)
            assert both.shown() == everywhere(**{cut: "silent"})
        elif packet == b"after":
            both.impair(cut, "none")
            both.network.run(1.0)
            assert both.shown() == everywhere()
        client.write(packet)
        assert server.read(2.0) == packet
        server.write(packet)
        assert client.read(2.0) == packet
        # The neighbour never was away: another link to it was there.
        assert both.member.core.counters["links_held_down"] == 0


def test_a_connection_over_a_layer_that_ended_is_made_again_there() -> None:
    both = Both("net4", "net6")
    both.a.manage(DestroyIpcp(both.below["net6"][0])).wait().value  # noqa: B018
    both.network.run(60.0)
    left = [row for row in everywhere() if row[1] == "net4"]
    missing = [(component, "net6", "missing") for component in COMPONENTS]
    assert both.shown() == sorted(left + missing)
    again = both._udp(both.a, "net6", NETS["net6"], ())
    both.a.manage(RegisterName("campus", again)).value  # noqa: B018
    both.network.run(60.0)
    assert both.shown() == everywhere()


def test_who_disconnects_ends_the_connections_over_all_layers() -> None:
    both = Both("net4", "net6")
    both.impair("net6", "partition")
    both.network.run(60.0)
    for component in reversed(COMPONENTS):
        both.b.manage(DisconnectIpcp(both.second, component, "campus")).wait().value  # noqa: B018
    both.impair("net6", "none")
    both.network.run(120.0)
    assert both.shown() == []
    assert both.member.connected() == []


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ("net5", "no flow to 'campus' over layer 'net5': this node is not in it, but in 'campus', 'net4', 'net6'"),
        ("", "'' is empty"),
        ("x" * 300, "layer to connect over"),
    ],
)
def test_a_layer_that_cannot_carry_it_is_an_error(over: str, why: str) -> None:
    both = Both("net4")
    if over:
        with pytest.raises(OuroborosError, match=why):
            both.connect(over)
    id = both.b.manage(CreateIpcp("c", "unicast")).value
    assert isinstance(id, int)
    with pytest.raises(OuroborosError, match=why if over == "net5" else "layer to enroll over"):
        both.b.manage(EnrollIpcp(id, "campus", over=(over,))).wait().value  # noqa: B018
    assert both.shown() == [("Data Transfer", "net4", "up"), ("Management", "net4", "up")]


# --- over themselves


def test_a_layer_does_not_carry_itself() -> None:
    both = Both("net4")
    for name in ("a", "z"):
        both.a.offer(name, both.first)
        both.a.manage(BindProcess(both.first, name)).value  # noqa: B018
    both.network.run(SETTLED)
    with pytest.raises(OuroborosError, match="no layer carries itself, so 'campus' was not asked"):
        both.connect("campus", "a")
    with pytest.raises(OuroborosError, match="no layer carries itself, so 'campus' was not asked"):
        both.connect("", "z")
    # One that is in no layer may ask over any, and finds out at the other end.
    twin = both.b.manage(CreateIpcp("twin", "unicast")).value
    assert isinstance(twin, int)
    with pytest.raises(OuroborosError, match="'twin' cannot enroll with 'a'"):
        both.b.manage(EnrollIpcp(twin, "a", over=("campus",))).wait().value  # noqa: B018
    assert both.shown() == [("Data Transfer", "net4", "up"), ("Management", "net4", "up")]
    assert len(both.member.link_state.members()) == 1


# --- within a node


def test_flows_of_one_node_take_each_way_through_a_layer_over_a_local_one() -> None:
    network = Network(3, types=TYPES)
    node = network.add_node("host")
    local = node.add_ipcp("local", "here")
    ecmp = RoutingConfig(ls=LinkStateConfig(LinkStatePolicy.ECMP))
    ids = [
        node.add_ipcp("unicast", "square", UnicastSettings(unicast=UnicastConfig(dt=DtConfig(routing=ecmp))), name="m0")
    ]
    for number, neighbours in enumerate([(0,), (0,), (1, 2)], start=1):
        before = ids[neighbours[0]]
        node.manage(BindProcess(before, f"m{neighbours[0]}")).value  # noqa: B018 - or its error
        node.manage(RegisterName(f"m{neighbours[0]}", local)).value  # noqa: B018
        id = node.manage(CreateIpcp(f"m{number}", "unicast")).value
        assert isinstance(id, int)
        node.manage(EnrollIpcp(id, f"m{neighbours[0]}")).wait().value  # noqa: B018
        ids.append(id)
        for each in neighbours:
            node.manage(BindProcess(ids[each], f"m{each}")).value  # noqa: B018
            node.manage(RegisterName(f"m{each}", local)).value  # noqa: B018
            for component in COMPONENTS:
                node.manage(ConnectIpcp(id, component, f"m{each}", QOS_RAW, "here")).wait().value  # noqa: B018
    network.run(SETTLED)
    node.offer("clock", ids[3])
    network.run(SETTLED)
    server, client = node.program("server"), node.program("client")
    for _ in range(16):
        accepting = server.accept("clock")
        flow = client.alloc("clock", layer="square").wait().flow
        flow.write(b"what time is it?")
        assert accepting.wait().flow.read() == b"what time is it?"
    carried = [node.counters(each)["forwarded"] for each in ids]
    assert (carried[0], carried[3]) == (0, 0)
    assert min(carried[1:3]) > 0, "one of two ways that are as good has all flows"
    hops = node.manage(ProbeName("clock", "square", True, 1.0)).wait().value
    assert isinstance(hops, list)
    assert all(isinstance(hop, HopEntry) for hop in hops)
    assert [(hop.layer, hop.rank) for hop in hops] == [("square", 1), ("here", 0)] * 2
    assert hops[2].member == "m3"


# --- over each other


def test_a_link_that_is_cut_below_three_ranks_is_felt_by_the_lowest_only() -> None:
    over = ["a@n0 - b@n2 - c@n3", "ring 5"]
    with Lab("p@a - q@c", over=over, clock="virtual", seed=4, silence=1) as lab:
        near, far = lab.ground.node("n0"), lab.ground.node("n3")  # type: ignore[attr-defined]
        lab.n3.offer("clock")
        lab.wait(SETTLED)
        accepting = far.program("server").accept("clock")
        client = near.program("client").alloc("clock", RELIABLE).wait().flow
        server = accepting.wait().flow
        server.sink()
        client.source(100, 1000, 0.1)
        lab.wait(1.0)
        lab.link("n0", "n1").cut()
        states = set()
        for _ in range(60):
            lab.wait(0.2)
            for layer in ("net2", "net3"):
                details = lab.n0.member(layer).details
                assert isinstance(details, UnicastDetails)
                states |= {each.state for each in details.connections}
        assert states == {"up"}
        assert lab.n0.routes("net1")["n1"].hops == 4
        assert server.tally()["read"] == 100
        assert [(hop.layer, hop.rank) for hop in lab.n0.trace("n3").hops if len(hop.within) < 3 and hop.rank > 1] == [
            ("net3", 3),
            ("net2", 2),
            ("net2", 2),
        ]


@pytest.mark.parametrize("qos", [QOS_RAW, RELIABLE], ids=["raw", "reliable"])
@pytest.mark.parametrize("end", ["node", "net2", "net1", "a-b"])
def test_over_two_ranks_a_program_hears_that_the_other_end_went(end: str, qos: QoSSpec) -> None:
    """At once, if the node of its peer is told to end, or the layer of the flow. One below may come again, or another way:
    that is waited for, as long as the peer may be silent."""
    with Lab("p@a - q@b", over="a - b", clock="virtual", seed=5) as lab:
        near, far = lab.ground.node("a"), lab.ground.node("b")  # type: ignore[attr-defined]
        lab.b.offer("clock")
        lab.wait(SETTLED)
        accepting = far.program("server").accept("clock")
        client = near.program("client").alloc("clock", qos).wait().flow
        server = accepting.wait().flow
        client.write(b"what time is it?")
        assert server.read() == b"what time is it?"
        server.write(b"late")
        assert client.read() == b"late"
        if end == "node":
            far._do(lambda: far.irm.shut_down(lab.now))
        else:
            far.manage(DestroyIpcp(lab.b.member(end).id)).value  # noqa: B018 - or its error
        if end in ("net1", "a-b"):
            with pytest.raises(FlowTimeoutException):
                client.read(0.9 * qos.timeout / 1000)
        with pytest.raises(FlowPeerException):
            client.read(0.1 if end in ("node", "net2") else 0.2 * qos.timeout / 1000)


@pytest.mark.parametrize("impair", ["partition", "loss=20%"])
def test_over_two_ranks_a_reliable_flow_outlives_what_happens_to_the_lowest_link(impair: str) -> None:
    with Lab("p@a - q@b", over="a - b", clock="virtual", seed=5) as lab:
        near, far = lab.ground.node("a"), lab.ground.node("b")  # type: ignore[attr-defined]
        lab.b.offer("clock")
        lab.wait(SETTLED)
        accepting = far.program("server").accept("clock")
        client = near.program("client").alloc("clock", RELIABLE).wait().flow
        accepting.wait().flow.echo()
        for number in range(60):
            if number == 20:
                lab.link("a", "b").change(impair)
            packet = bytes([number]) * 800
            client.write(packet)
            if number == 20:
                lab.wait(1.0)
            if number == 40 or impair == "partition":
                lab.link("a", "b").change("none")
            assert client.read() == packet


def test_a_layer_over_another_waits_longer_until_a_neighbour_is_silent() -> None:
    both = Both("net4", keepalive=10.0)
    both.a.add_ipcp("unicast", "top", name="top")
    (top,) = (each.id for each in both.a.irm.ipcps.values() if each.layer == "top")
    both.a.manage(BindProcess(top, "top")).value  # noqa: B018 - or its error
    both.a.manage(RegisterName("top", both.first)).value  # noqa: B018
    both.network.run(SETTLED)
    id = both.b.manage(CreateIpcp("upper", "unicast")).value
    assert isinstance(id, int)
    both.b.manage(EnrollIpcp(id, "top", True)).wait().value  # noqa: B018
    both.network.run(SETTLED)
    flows = both.b.manage(ListFlows()).value
    assert isinstance(flows, list)
    timeouts = {each.layer: each.qos.timeout for each in flows if each.qos.timeout != QOS_RAW.timeout}
    assert timeouts == {"net4": 29_000, "campus": 58_000}


def carried(ranks: int) -> int:
    """Bytes of a reliable flow in half a second, over 10 ms there and back, with 1 % of the packets lost."""
    link = "a -(delay=5ms,loss=1%)- b"
    with Lab("p@a - q@b" if ranks > 1 else link, over=[link] * (ranks > 1), clock="virtual", seed=6) as lab:
        lab.b.offer("sink")
        lab.wait(SETTLED)
        near, far = lab.ground.node("a"), lab.ground.node("b")  # type: ignore[attr-defined]
        accepting = far.program("sink").accept("sink")
        source, sink = near.program("source").alloc("sink", RELIABLE).wait().flow, accepting.wait().flow
        sink.sink()
        source.source(1 << 40, 1400)
        lab.wait(0.5)
        return int(sink.tally()["bytes"])


def test_a_reliable_flow_over_a_rank_more_has_most_of_the_rate() -> None:
    over_one, over_two = carried(1), carried(2)
    assert over_two >= 0.8 * over_one
    # Neither begins with a window that is narrow for long: 64 packets in each round trip are half a million bytes a second.
    assert over_one > 10_000_000


# --- who may be a member of each

PROVEN = UnicastSettings(unicast=UnicastConfig(enroll=("bob",)))
#: The layers that take only who proves to be bob, the lower one first. Members are asked for by the name of their layer.
RANKS = ("campus", "top")
MARKED = b"nobody below is to read this"


class Proven:
    """Nodes `a` and `b`, over UDP. `a` has begun both layers of `RANKS`, one over the other, and proves its name."""

    def __init__(self, *shown: str) -> None:
        """`shown`: the layers for which `b` has a certificate."""
        self.network = Network(7, types=TYPES)
        files = [certified(f"server/{name}", name) | {f"server/{name}/enc.conf": b""} for name in RANKS]
        self.a = self.network.add_node("a", security=functools.reduce(operator.or_, files, trusting()))
        files = [certified(f"client/{name}", "bob") for name in shown]
        files += [
            {f"client/{name}/policy.conf": b"require=certificate", f"client/{name}/enc.conf": b""} for name in RANKS
        ]
        self.b = self.network.add_node("b", security=functools.reduce(operator.or_, files, trusting()))
        below = self.a.over_udp()
        self.begun: dict[str, int] = {"net": below}
        for name in RANKS:
            id = self.begun[name] = self.a.add_ipcp("unicast", name, PROVEN)
            self.a.manage(BindProcess(id, name)).value  # noqa: B018 - or its error
            self.a.manage(RegisterName(name, below)).value  # noqa: B018
            below = id
        self.udp = self.b.over_udp(peers=[f"campus@{self.a.address}"])
        self.joined: dict[str, int] = {"net": self.udp}

    def join(self, name: str) -> None:
        """`b` enrolls in a layer, and is connected by a flow for packets that loses nothing. Raises why it is not let in."""
        id = self.b.manage(CreateIpcp(f"b-{name}", "unicast")).value
        assert isinstance(id, int)
        self.b.manage(EnrollIpcp(id, name)).wait().value  # noqa: B018 - or its error
        for component, qos in zip(COMPONENTS, (QOS_RAW, RELIABLE), strict=True):
            self.b.manage(ConnectIpcp(id, component, name, qos)).wait().value  # noqa: B018
        self.joined[name] = id
        self.network.run(SETTLED)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_layer_that_demands_certificates_admits_nobody_without_at_any_rank(rank: int) -> None:
    *before, refusing = RANKS[:rank]
    # The certificate for the layer below proves nothing in the one above it.
    nodes = Proven(*before)
    for name in before:
        nodes.join(name)
    with pytest.raises(OuroborosError, match=f"layer '{refusing}' takes only members that prove who they are"):
        nodes.join(refusing)
    nodes.network.run(SETTLED)
    ipcp = nodes.a.irm.ipcps[nodes.begun[refusing]]
    assert isinstance(ipcp, UnicastIpcp)
    assert (ipcp.entry().counters["enrollments_refused"], ipcp.connections.rows()) == (1, [])


def test_flows_of_any_kind_go_over_neighbours_that_are_proven_encrypted_and_reliable_at_each_rank() -> None:
    nodes = Proven(*RANKS)
    for name in RANKS:
        nodes.join(name)
    entries = nodes.b.manage(ListFlows()).value
    assert isinstance(entries, list)
    by_layer = {each.layer: each.qos for each in entries if each.qos.reliable}
    assert {layer: qos.cypher_s for layer, qos in by_layer.items()} == {"net": 256, "campus": 256}
    seen = {layer: nodes.b.capture(id) for layer, id in nodes.joined.items()}
    for node in (nodes.a, nodes.b):
        node.impair("loss=5%,seed=4")
    nodes.a.offer("clock", nodes.begun["top"])
    nodes.network.run(SETTLED)
    for qos in (QOS_RAW, RELIABLE):
        accepting = nodes.a.program("server").accept("clock")
        client, server = nodes.b.program("client").alloc("clock", qos).wait().flow, accepting.wait().flow
        for number in range(100):
            client.write(b"%d %s" % (number, MARKED))
            nodes.network.run(0.01)
        assert [server.read() for _ in range(100)] == [b"%d %s" % (number, MARKED) for number in range(100)]
    readable = {layer: MARKED in capture.pcapng() for layer, capture in seen.items()}
    assert readable == {"net": False, "campus": False, "top": True}
