"""Unicast layers whose members and links fail, in virtual time: what is lost, and for how long."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from sim_world import RELIABLE
from unicast_world import Edges, Layer, ring

from ouroboros.layers.effects import Route
from ouroboros.layers.members.core import KEEPALIVE, MISSED
from ouroboros.layers.members.links import SILENT_PATIENCE
from ouroboros.layers.members.upkeep import FIRST_PAUSE, SILENT_PAUSE
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.settings import DtConfig, LinkStateConfig, LinkStatePolicy, RoutingConfig, UnicastConfig, UnicastSettings
from ouroboros.wire.control import (
    ChangePeers,
    CreateIpcp,
    DestroyIpcp,
    DisconnectIpcp,
    EnrollIpcp,
    KeepAliveIpcp,
    RegisterName,
)

SETTLED = 5.0
#: Of the keepalives here, and the silence after which a neighbour is passed round.
OFTEN = 0.1
SILENCE = MISSED * OFTEN
#: Packets a second of a flow.
RATE = 1000
#: Seconds that links take, with some for the packets of a second node.
NEARLY = 0.005

TRIANGLE: Edges = [(0, 1), (1, 2), (0, 2)]
#: Above 0 1 2 3, below 4 5 6 7, with a rung for each.
LADDER: Edges = [(0, 1), (1, 2), (2, 3), (0, 4), (1, 5), (2, 6), (3, 7), (4, 5), (5, 6), (6, 7)]


def routed(policy: LinkStatePolicy) -> UnicastSettings:
    return UnicastSettings(unicast=UnicastConfig(DtConfig(routing=RoutingConfig(ls=LinkStateConfig(policy)))))


class Cut(NamedTuple):
    """What became of packets, one a millisecond. `lost`: of them. `gaps`: packets that did not follow the one before.
    `known`: seconds from the cut until the first node knew; None: it was told."""

    lost: int
    gaps: int
    known: float | None


class Scene:
    """A flow from member 0 to another, and a failure while packets are on their way."""

    def __init__(self, edges: Edges, far: int, policy: LinkStatePolicy = LinkStatePolicy.SIMPLE) -> None:
        self.layer = Layer(edges, keepalive=OFTEN, log=True, settings=routed(policy))
        self.network = self.layer.network
        self.layer.converge()
        self.layer.offer("clock", far)
        self.network.run(SETTLED)
        self.far = far

    def via(self) -> int:
        """The member that has forwarded most."""
        return max(range(len(self.layer.nodes)), key=self.forwarded)

    def forwarded(self, number: int) -> int:
        return self.layer.nodes[number].counters(self.layer.ids[number])["forwarded"]

    def deafen(self) -> None:
        """From now on, the engine of node 0 hears of no route that its control side finds."""
        self.layer.nodes[0]._handlers[Route] = lambda effect: None

    def die(self, number: int) -> None:
        """Nothing that a node sends arrives any more, and nobody is told."""
        self.layer.nodes[number].impair("partition")

    def send(self, qos: QoSSpec, fail: object, seconds: float = 1.5) -> Cut:
        client, server = self.layer.flow("clock", 0, self.far, qos)
        server.sink()
        client.source(round(RATE * seconds), 200, 1 / RATE)
        self.network.run(seconds / 3)
        cut, seen = self.network.now, len(self.network.log or ())
        assert callable(fail)
        fail()
        self.network.run(seconds + 2 * SILENCE)
        sent, got = client.tally(), server.tally()
        assert sent["written"] == RATE * seconds
        lines = (line.split() for line in (self.network.log or ())[seen:])
        states = [int(time) / 1e9 - cut for time, node, what, *_ in lines if (node, what) == ("n0", "state")]
        return Cut(sent["written"] - got["read"], got["disordered"], min(states, default=None))

    def count(self, counter: str) -> int:
        return sum(node.counters(id)[counter] for node, id in zip(self.layer.nodes, self.layer.ids, strict=True))


# --- another way at hand


@pytest.mark.parametrize("policy", list(LinkStatePolicy))
def test_the_engine_passes_a_silent_neighbour_round_without_the_control_side(policy: LinkStatePolicy) -> None:
    scene = Scene(ring(4), 2, policy)
    scene.deafen()
    cut = scene.send(QOS_RAW, lambda: scene.die(scene.via()))
    assert cut.known is not None
    assert SILENCE / 2 < cut.known <= SILENCE + NEARLY
    # All that was sent until then, and what was on its way; not one packet after it.
    assert abs(cut.lost - RATE * cut.known) <= RATE * NEARLY
    assert cut.gaps == 1


@pytest.mark.parametrize("policy", list(LinkStatePolicy))
def test_in_a_triangle_the_next_packet_goes_by_the_third_member(policy: LinkStatePolicy) -> None:
    scene = Scene(TRIANGLE, 2, policy)
    scene.deafen()
    node, id = scene.layer.nodes[0], scene.layer.ids[0]
    cut = scene.send(QOS_RAW, lambda: node.manage(DisconnectIpcp(id, "Data Transfer", "m2")))
    assert cut.lost <= RATE * NEARLY
    assert scene.forwarded(1) >= RATE - RATE * NEARLY


def test_flows_keep_their_way_when_one_of_those_that_are_as_good_goes_and_comes() -> None:
    layer = Layer(ring(4), settings=routed(LinkStatePolicy.ECMP))
    layer.converge()
    layer.offer("clock", 2)
    layer.network.run(SETTLED)
    flows = [layer.flow("clock", 0, 2) for _ in range(16)]
    for client, server in flows:
        server.sink()
        client.source(round(3 * RATE / 10), 100, 10 / RATE)
    node, id = layer.nodes[0], layer.ids[0]

    def through() -> list[int]:
        before = [layer.nodes[each].counters(layer.ids[each])["forwarded"] for each in (1, 3)]
        layer.network.run(0.5)
        after = [layer.nodes[each].counters(layer.ids[each])["forwarded"] for each in (1, 3)]
        return [late - early for late, early in zip(after, before, strict=True)]

    both = through()
    assert min(both) >= 3 * 50
    for component in ("Data Transfer", "Management"):
        node.manage(DisconnectIpcp(id, component, "m1"))
    one, other = through()
    # Receivers have a word with senders by the old way until they hear of it.
    assert one <= len(flows)
    assert other >= 15 * 50
    # It was asked for by the other end.
    layer.connect(1, 0)
    layer.network.run(0.2)
    assert through() == pytest.approx(both, abs=NEARLY * RATE)
    layer.network.run(3.0)
    lost = [client.tally()["written"] - server.tally()["read"] for client, server in flows]
    # What was on its way by the one that went, of those flows only that went by it.
    assert sum(lost) <= NEARLY * RATE
    assert lost.count(0) >= len(flows) // 4
    # A gap counts as one out of order, and so no flow has another one.
    assert all(
        server.tally()["disordered"] <= (1 if each else 0) for each, (_, server) in zip(lost, flows, strict=True)
    )


def test_a_reliable_flow_loses_nothing() -> None:
    scene = Scene(ring(4), 2)
    cut = scene.send(RELIABLE, lambda: scene.die(scene.via()))
    assert (cut.lost, cut.gaps) == (0, 0)


# --- none at hand


def test_without_an_alternate_routes_are_new_soon_and_nothing_goes_in_circles() -> None:
    scene = Scene(LADDER, 3)
    alternates = scene.layer.member(0).link_state.table()[scene.layer.member(3).core.address]
    assert len(alternates) == 1, "below it is one hop more: a packet could come back"
    before = scene.count("ttl"), scene.count("returned")
    cut = scene.send(QOS_RAW, lambda: scene.die(1))
    assert cut.known is not None
    assert RATE * cut.known - 2 <= cut.lost <= RATE * (cut.known + 0.25)
    assert cut.gaps == 1
    assert (scene.count("ttl"), scene.count("returned")) == before


def test_a_member_in_the_middle_that_dies_is_passed_round_by_the_ones_before_it() -> None:
    scene = Scene(LADDER, 3)
    cut = scene.send(QOS_RAW, lambda: scene.die(2))
    assert cut.lost <= RATE * (SILENCE + 0.25)
    assert scene.count("ttl") == 0


# --- how often neighbours let hear of themselves


def test_who_connects_says_how_often_and_a_person_has_the_last_word() -> None:
    layer = Layer([(0, 1)])
    layer.converge()
    flows = {each.component: each for each in layer.member(1).connections.rows()}
    held = layer.nodes[1].irm.flows.lower._held
    timeouts = {name: held[each.fd].qos.timeout for name, each in flows.items()}
    assert timeouts == {"Management": 120_000, "Data Transfer": MISSED * KEEPALIVE * 1000}
    node, id = layer.nodes[1], layer.ids[1]
    for told, qos, timeout in ((0.2, QOS_RAW, 580), (0.2, QoSSpec(timeout=777), 777)):
        node.manage(KeepAliveIpcp(id, told)).value  # noqa: B018 - or its error
        node.manage(DisconnectIpcp(id, "Data Transfer", "m0")).wait()
        layer.connect_ipcp(node, id, "Data Transfer", "m0", qos).wait().value  # noqa: B018
        (found,) = layer.member(1).connections.of("Data Transfer")
        assert held[found.fd].qos.timeout == timeout


def test_a_neighbour_that_is_started_anew_is_connected_again_as_soon_as_its_silence_is_noticed() -> None:
    """It was asked for the connections. So its neighbour has to ask, and does not wait until management is silent, too."""
    layer = Layer([(0, 1)], keepalive=OFTEN)
    layer.converge()
    address = layer.member(0).core.address
    layer.nodes[0].crash()
    layer.nodes[0] = layer.network.add_node("n0")
    layer.udp[0] = layer.nodes[0].over_udp()
    layer.ids[0] = layer.nodes[0].add_ipcp("unicast", "campus", name="m0")
    layer.bind(0)
    layer.converge(SILENCE + SILENT_PAUSE + 1.0)
    assert layer.member(0).core.address == address
    for number in (0, 1):
        assert [each.up for each in layer.member(number).connections.rows()] == [True, True]


@pytest.mark.parametrize("end", ["closed", "layer below destroyed", "member destroyed"])
def test_a_neighbour_that_says_that_it_ends_is_passed_round_at_once(end: str) -> None:
    layer = Layer(TRIANGLE)
    layer.converge()
    near, gone = layer.member(0), layer.member(2).core.address
    node = layer.nodes[2]
    match end:
        case "closed":
            node.manage(DisconnectIpcp(layer.ids[2], "Data Transfer", "m0"))
        case "layer below destroyed":
            node.manage(DestroyIpcp(layer.udp[2]))
        case "member destroyed":
            node.manage(DestroyIpcp(layer.ids[2]))
    layer.network.run(2 * NEARLY)
    assert gone not in near.adjacencies.neighbours
    layer.network.run(0.25)
    assert near.link_state.distance(gone) == (2 if end == "closed" else None)


def test_a_socket_that_fails_below_ends_the_adjacencies_at_once_and_they_are_made_anew() -> None:
    """An error of which the kernel says that it is for good: the layer over that socket begins again, without its flows."""
    layer = Layer(TRIANGLE)
    layer.converge()
    node, member = layer.nodes[2], layer.member(2)
    assert len(member.adjacencies.neighbours) == 2
    node.irm.member_broke(layer.udp[2], "recvmmsg: no such device", layer.network.now)
    node._carry_out()
    layer.network.run(NEARLY)
    assert not member.adjacencies.neighbours
    layer.converge(SILENCE + SILENT_PATIENCE + SILENT_PAUSE + MISSED * KEEPALIVE)


@pytest.mark.parametrize("qos", [QOS_RAW, RELIABLE])
def test_flows_go_on_when_a_member_has_another_address_in_the_layer_below(qos: QoSSpec) -> None:
    """Programs know names, flows addresses of the layer, and neither is another one."""
    layer = Layer([(0, 1), (1, 2)])
    layer.converge()
    layer.offer("clock", 2)
    layer.network.run(SETTLED)
    client, server = layer.flow("clock", 0, 2, qos)
    server.sink()
    client.source(10 * RATE, 100, 1 / RATE)
    layer.network.run(1.0)
    node, address, old = layer.nodes[1], layer.member(1).core.address, layer.nodes[1].address
    node.manage(DestroyIpcp(layer.udp[1])).value  # noqa: B018 - or its error
    node.address = "10.9.9.9"
    layer.udp[1] = node.over_udp(peers=[f"m{each}@{layer.nodes[each].address}" for each in (0, 2)])
    node.manage(RegisterName("m1", layer.udp[1])).value  # noqa: B018
    for each, before in ((0, []), (2, [f"m1@{old}"])):
        layer.nodes[each].manage(ChangePeers(layer.udp[each], [f"m1@{node.address}"], before)).value  # noqa: B018
    layer.network.run(20.0)
    assert layer.member(1).core.address == address
    sent, got = client.tally(), server.tally()
    assert sent["written"] == 10 * RATE
    lost = sent["written"] - got["read"]
    # A connection that ends is asked for again after half a second.
    assert (lost, got["disordered"]) == (0, 0) if qos is RELIABLE else lost <= (FIRST_PAUSE + 1.0) * RATE


def test_flows_go_on_when_a_member_of_the_unicast_layer_below_has_another_address() -> None:
    layer = Layer([(0, 1)])
    layer.converge()
    tops: list[int] = []
    for number, node in enumerate(layer.nodes):
        if tops:
            id = node.manage(CreateIpcp("top1", "unicast")).value
            assert isinstance(id, int)
            node.manage(EnrollIpcp(id, "top0", True)).wait().value  # noqa: B018 - or its error
        else:
            id = node.add_ipcp("unicast", "top", name="top0")
        layer.make_known(node, id, f"top{number}", layer.ids[number])
        layer.network.run(SETTLED)
        tops.append(id)
    layer.nodes[0].offer("clock", tops[0])
    layer.network.run(SETTLED)
    client, server = layer.flow("clock", 1, 0, RELIABLE)
    server.sink()
    client.source(10 * RATE, 100, 1 / RATE)
    layer.network.run(1.0)
    below, address = layer.member(0), layer.member(0).core.address
    below._collided(layer.network.now)
    # The silence of a neighbour is noticed the later the more layers are below.
    layer.network.run(100.0)
    assert below.core.address != address
    sent, got = client.tally(), server.tally()
    assert (sent["written"], got["read"], got["disordered"]) == (10 * RATE, 10 * RATE, 0)


def test_an_adjacency_that_is_silent_is_back_with_the_next_packet() -> None:
    layer = Layer([(0, 1)], keepalive=OFTEN)
    layer.converge()
    near = layer.member(0)
    layer.nodes[1].impair("partition")
    assert layer.network.run_until(lambda: not near.adjacencies.neighbours, 2 * SILENCE)
    layer.nodes[1].impair("none")
    assert layer.network.run_until(lambda: bool(near.adjacencies.neighbours), SILENCE)
    layer.converge()


@pytest.mark.parametrize(("keepalive", "seconds"), [(OFTEN, 10 * SILENCE), (None, 40.0), (None, 100.0)])
def test_a_member_that_stood_still_loses_no_neighbour(keepalive: float | None, seconds: float) -> None:
    """As on a host that was suspended: what came meanwhile is read before anybody is judged."""
    layer = Layer([(0, 1), (0, 2), (0, 3)], keepalive=keepalive, log=True)
    layer.converge()
    seen = len(layer.network.log or ())
    layer.nodes[0].pause()
    layer.network.run(seconds)
    layer.nodes[0].resume()
    layer.network.run(2 * MISSED * (keepalive or KEEPALIVE))
    judged = {line.split()[1] for line in (layer.network.log or ())[seen:] if line.split()[2] == "state"}
    assert judged == {"n1", "n2", "n3"}
    assert len(layer.member(0).adjacencies.neighbours) == 3
    layer.converge()


def test_a_flow_that_is_busy_needs_no_keepalives() -> None:
    layer = Layer([(0, 1)], keepalive=OFTEN)
    layer.converge()
    layer.offer("clock", 0)
    layer.network.run(SETTLED)
    client, server = layer.flow("clock", 1, 0)
    server.echo()
    client.source(200, 100, OFTEN / 5)
    layer.network.run(1.0)
    before = layer.network.counted()["sent"], client.tally()["written"], server.tally()["written"]
    layer.network.run(2.0)
    after = layer.network.counted()["sent"], client.tally()["written"], server.tally()["written"]
    datagrams, *packets = (late - early for late, early in zip(after, before, strict=True))
    # Those of the other connection, and words of receivers, are few.
    assert datagrams <= 1.2 * sum(packets)
