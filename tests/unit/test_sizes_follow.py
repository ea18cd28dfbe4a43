"""What a member carries follows its lower flows, and so do flows that are there already."""

from __future__ import annotations

import pytest
from sim_world import toy
from unicast_world import COMPONENTS, Layer, line

from ouroboros.layers.effects import Address
from ouroboros.layers.face import Size
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.testing.sim import Node
from ouroboros.testing.sim.machine import VirtualMachine
from ouroboros.wire.control import DisconnectIpcp

RELIABLE = QoSSpec(loss=0)
#: What a flow that is encrypted adds to each packet.
SEALED = QoSSpec(cypher_s=256)
SEAL = 28
#: Of an Ethernet, and of a narrower path; and what of it is in front of a packet of the layer, its own header included.
WIDE, NARROW = 1500, 1000
FRONT = 28 + 4 + 15


def narrow(node: Node) -> None:
    """From now on, new paths of the node are narrow."""
    node._runtime._machine.path_mtu = lambda family, address: NARROW  # type: ignore[method-assign]


def flows_of(node: Node, ipcp: int) -> list[Size]:
    """Sizes of the flows that an IPC process carries."""
    return [flow.size for flow in node._runtime._held.flows.values() if flow.ipcp == ipcp]


def test_a_reliable_flow_sends_shorter_packets_when_a_narrow_way_comes_and_longer_ones_when_it_goes() -> None:
    layer = Layer(line(2))
    layer.offer("clock", 0)
    client, server = layer.flow("clock", 1, 0, RELIABLE)
    node, ipcp = layer.nodes[1], layer.ids[1]

    def longest() -> int:
        capture = node.capture(layer.udp[1])
        client.write(bytes(20_000))
        assert len(server.read()) == 20_000
        capture.stop()
        return max(record.length for record in capture.records if record.outward)

    wide = longest()
    assert WIDE - 28 - 8 < wide <= WIDE - 28
    assert layer.member(1).adjacencies.size.whole == WIDE - FRONT
    narrow(node)
    layer.add([1])
    assert layer.member(1).adjacencies.size.whole == NARROW - FRONT
    assert wide - longest() == WIDE - NARROW
    for component in COMPONENTS:
        layer.nodes[2].manage(DisconnectIpcp(layer.ids[2], component, "m1")).wait().value  # noqa: B018 - or its error
    layer.network.run(2)
    assert layer.member(1).adjacencies.size.whole == WIDE - FRONT
    assert longest() == wide
    assert flows_of(node, ipcp)


def test_a_change_reaches_layers_over_layers() -> None:
    layer = Layer(line(2))
    near, far = layer.nodes[1], layer.nodes[0]
    toys = [
        toy(node, name, "toys", id)
        for node, name, id in ((far, "far-toy", layer.ids[0]), (near, "near-toy", layer.ids[1]))
    ]
    layer.connect_ipcp(near, toys[1], "Data Transfer", "far-toy", RELIABLE).wait().value  # noqa: B018 - or its error
    far.offer("clock", toys[0])
    accepting = far.program("server").accept("clock")
    client = near.program("client").alloc("clock", QOS_RAW).wait().flow
    server = accepting.wait().flow
    (before,), (top,) = flows_of(near, layer.ids[1]), flows_of(near, toys[1])
    narrow(near)
    layer.add([1])
    layer.network.run(1)
    (after,), (above,) = flows_of(near, layer.ids[1]), flows_of(near, toys[1])
    assert before.whole - after.whole == top.whole - above.whole == WIDE - NARROW
    client.write(bytes(900))
    assert len(server.read()) == 900


def paths(monkeypatch: pytest.MonkeyPatch, mtus: dict[tuple[str, str], int]) -> None:
    """Paths between nodes that carry something else than others."""
    by_pair = {frozenset(pair): mtu for pair, mtu in mtus.items()}

    def path_mtu(machine: VirtualMachine, family: str, address: Address) -> int:
        peer = next(node.name for node in machine._network.nodes if node.address == address[0])
        return by_pair.get(frozenset((machine._name, peer)), WIDE)

    monkeypatch.setattr(VirtualMachine, "path_mtu", path_mtu)


def dropped(layer: Layer) -> int:
    """Packets that members had to drop on the way because of their length."""
    return sum(node.counters(id)["too_long"] for node, id in zip(layer.nodes, layer.ids, strict=True))


def test_a_flow_tells_what_fits_over_all_hops_at_both_ends() -> None:
    layer = Layer(line(5), qualities={(1, 2): SEALED})
    layer.converge()
    layer.offer("far", 0)
    layer.offer("near", 3)
    client, server = layer.flow("far", 4, 0)
    beside, _ = layer.flow("near", 4, 3)
    assert client.granted.max_packet == server.granted.max_packet == beside.granted.max_packet - SEAL
    for sender, receiver in ((client, server), (server, client)):
        sender.write(bytes(sender.granted.max_packet))
        assert len(receiver.read()) == client.granted.max_packet
    assert dropped(layer) == 0


def test_a_reliable_flow_cuts_its_messages_for_the_narrowest_of_several_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    paths(monkeypatch, {("n1", "n2"): NARROW})
    layer = Layer(line(4))
    layer.converge()
    layer.offer("clock", 0)
    client, server = layer.flow("clock", 3, 0, RELIABLE)
    for sender, receiver, node in ((client, server, 2), (server, client, 1)):
        capture = layer.nodes[node].capture(layer.udp[node])
        sender.write(bytes(20_000))
        assert len(receiver.read()) == 20_000
        capture.stop()
        longest = max(record.length for record in capture.records if record.outward)
        # Of the narrow path all is used, and no datagram is cut by IP.
        assert NARROW - 28 - 8 < longest <= NARROW - 28


@pytest.mark.parametrize("qos", [QOS_RAW, RELIABLE])
def test_flows_follow_what_the_way_carries_when_routes_change(monkeypatch: pytest.MonkeyPatch, qos: QoSSpec) -> None:
    """A short way, and a longer one over a narrow link."""
    paths(monkeypatch, {("n2", "n4"): NARROW})
    layer = Layer([(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)], qualities={(2, 4): SEALED})
    layer.converge()
    layer.offer("clock", 0)
    client, server = layer.flow("clock", 3, 0, qos)
    ((number, carried),) = [
        (number, flow)
        for number, flow in layer.nodes[3]._runtime._held.flows.items()
        if flow.ipcp == layer.ids[3] and flow.user is None
    ]
    longest = client.granted.max_packet

    def lengths() -> tuple[int, int]:
        return carried.size.most, carried.size.whole

    def exchange(length: int) -> bytes:
        client.write(bytes(length))
        client.write(b"behind it")
        layer.network.run(1)
        return server.read()

    before = lengths()
    assert len(exchange(longest)) == longest
    assert server.read() == b"behind it"
    for component in COMPONENTS:
        layer.nodes[3].manage(DisconnectIpcp(layer.ids[3], component, "m1")).wait().value  # noqa: B018 - or its error
    layer.network.run(2)
    after = lengths()
    if qos is RELIABLE:
        assert before[1] - after[1] == WIDE - NARROW + SEAL
        assert len(exchange(20_000)) == 20_000
        assert server.read() == b"behind it"
    else:
        assert before[0] - after[0] == SEAL
        # It does not leave, and the flow says so.
        assert exchange(longest) == b"behind it"
        assert len(exchange(longest - SEAL)) == longest - SEAL
        assert server.read() == b"behind it"
    _, flows = layer.nodes[3].engine.snapshot(layer.nodes[3]._runtime._held.members[layer.ids[3]])
    assert flows[number]["too_long"] == (qos is QOS_RAW)
    assert dropped(layer) == 0
    layer.connect(3, 1)
    layer.network.run(2)
    assert lengths() == before
    assert len(exchange(longest)) == longest
    assert server.read() == b"behind it"


def test_a_packet_that_is_too_long_for_a_later_way_is_dropped_and_counted() -> None:
    layer = Layer(line(2))
    layer.offer("clock", 0)
    client, server = layer.flow("clock", 1, 0)
    node = layer.nodes[1]
    (number,) = node._runtime._held.adjacent[layer.ids[1]]
    node.engine.resize(number, 1500, 1500, 500)
    client.write(bytes(500 - 15))
    assert len(server.read()) == 485
    client.write(bytes(500 - 14))
    client.write(b"behind it")
    assert server.read() == b"behind it"
    _, flows = node.engine.snapshot(node._runtime._held.members[layer.ids[1]])
    (counters,) = flows.values()
    assert (counters["too_long"], counters["sent"]) == (1, 2)
    assert layer.network.balance().missing == 0
