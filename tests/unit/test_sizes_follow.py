"""What a member carries follows its lower flows, and so do flows that are there already."""

from __future__ import annotations

from sim_world import toy
from unicast_world import COMPONENTS, Layer, line

from ouroboros.layers.face import Size
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.testing.sim import Node
from ouroboros.wire.control import DisconnectIpcp

RELIABLE = QoSSpec(loss=0)
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
