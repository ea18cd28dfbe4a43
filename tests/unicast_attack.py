"""What a neighbour or anybody behind it can send to a member of a unicast layer, from bytes. Property tests and the fuzz
target `fuzz/unicast.py` take it from here.

The first byte of an input says which decoder gets the rest: see `_TARGETS`. No input may cause anything but a
`ProtocolError`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec
from unicast_world import Layer, line

from ouroboros.errors import ProtocolError
from ouroboros.layers.effects import Member
from ouroboros.qos import QoSSpec
from ouroboros.testing.sim import Node
from ouroboros.wire.unicast import cep, dht, enrollment, flow, lsu

#: Of names in the directory.
_DIGEST = 32
#: Bytes in front of a packet of the layer, and where its endpoint id stands: 0 is the flow allocator's, 1 the directory's.
_HEADER, _EID = 15, 7

_TARGETS: tuple[Callable[[bytes], object], ...] = (
    cep.decode,
    enrollment.decode_request,
    enrollment.decode_response,
    enrollment.decode_ack,
    lsu.decode,
    lambda data: lsu.decode(data, ours=True),
    lambda data: flow.decode(data, _DIGEST),
    lambda data: dht.decode(data, _DIGEST),
)
_LSU, _FLOW, _DHT = 4, 6, 7


def attack(input: bytes) -> bool:
    """Give an input to its decoder. Returns whether it was taken for a message."""
    kind, message = input[:1] or b"\0", input[1:]
    try:
        found = _TARGETS[kind[0] % len(_TARGETS)](message)
    except ProtocolError:
        return False
    assert isinstance(found, msgspec.Struct | tuple)
    return True


@cache
def recorded() -> tuple[tuple[int, bytes], ...]:
    """What members of a small layer say to each other, and by which endpoint id; -1 for what has no header of the layer."""
    layer = Layer([])
    captures = [layer.nodes[0].capture(layer.ids[0])]
    for number in range(1, 4):
        layer.add([number - 1])
        captures.append(layer.nodes[number].capture(layer.ids[number]))
    layer.offer("clock", 0)
    client, server = layer.flow("clock", 3, 0, QoSSpec(cypher_s=256))
    client.write(b"tick")
    server.read()
    client.dealloc()
    layer.network.run(30)
    found = dict.fromkeys(
        (-1, record.data) if record.control else (record.data[_EID], record.data[_HEADER:])
        for capture in captures
        for record in capture.records
    )
    return tuple((eid, data) for eid, data in found if eid < 2)


def seeds() -> list[bytes]:
    """Inputs that are taken: what was recorded, each for the decoder that takes it."""
    found = [bytes([_FLOW if eid == 0 else _DHT]) + data for eid, data in recorded() if eid >= 0]
    found += [bytes([kind]) + data for eid, data in recorded() if eid < 0 for kind in range(_FLOW)]
    # As members of the prototype say it.
    found += [bytes([_LSU]) + lsu.LinkStateUpdate(0x5DE9D31B, 0x6DE9D31B, 3).encode()]
    return [each for each in found if attack(each)]


def deliver(layer: Layer, number: int, eid: int, data: bytes) -> None:
    """Let a member get bytes from a neighbour: for a component, or, for -1, by each of its flows for control."""
    node, ipcp = layer.nodes[number], layer.ids[number]
    now = layer.network.now
    for fd in lower_flows(node, ipcp):
        if eid < 0:
            node.irm.message(ipcp, fd, data, now)
        else:
            node.irm.heard(ipcp, eid, data, fd, now)
    node._carry_out()


def lower_flows(node: Node, ipcp: int) -> list[int]:
    users = [each.user for each in node._runtime._held.flows.values()]
    return [user.fd for user in users if isinstance(user, Member) and user.ipcp == ipcp]


def small_layer() -> Layer:
    return Layer(line(3))
