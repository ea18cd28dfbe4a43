"""What a neighbour or anybody behind it can send to a member of a unicast layer, from bytes. Property tests and the fuzz
target `fuzz/unicast.py` take it from here.

The first byte of an input says which decoder gets the rest: see `_TARGETS`. No input may cause anything but a
`ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate
from typing import Any

import msgspec
from unicast_world import Layer, line

from ouroboros.errors import ProtocolError
from ouroboros.layers.effects import Member
from ouroboros.layers.members.core import ALLOCATOR, DIRECTORY, PROBES
from ouroboros.qos import QoSSpec
from ouroboros.testing.sim import Node
from ouroboros.testing.sim.capture import Capture
from ouroboros.wire import tap
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest
from ouroboros.wire.unicast import cep, dht, enrollment, flow, lsu, probe
from ouroboros.wire.unicast.cep import Cep, Ours
from ouroboros.wire.unicast.dht import Contact
from ouroboros.wire.unicast.lsu import Acknowledgement, LinkStateUpdate, Updates

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
    probe.decode,
)
_LSU, _FLOW, _DHT, _PROBE = 4, 6, 7, 8


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
    found = dict.fromkeys(_said(record) for capture in captures for record in capture.records)
    return tuple((eid, data) for eid, data in found if eid < 2)


def _said(record: tap.Record) -> tuple[int, bytes]:
    return (-1, record.data) if record.control else (record.data[_EID], record.data[_HEADER:])


def say_again(layer: Layer, captures: list[Capture], order: Callable[[list[Any]], list[Any]]) -> int:
    """Let members get what they got from neighbours for control and for components, once more, by the flows by which it
    came, as far as they are still there. `captures`: of all members. Returns how many messages that were."""
    came = [(record.time, number, record) for number, capture in enumerate(captures) for record in capture.records]
    again = 0
    for _, number, record in order(sorted(came, key=lambda each: each[:2])):
        node, now = layer.nodes[number], layer.network.now
        below = node._runtime._held.flows.get(record.below)
        eid, data = _said(record)
        if record.outward or below is None or not isinstance(below.user, Member) or eid >= 2:
            continue
        if eid < 0:
            node.irm.message(layer.ids[number], below.user.fd, data, now)
        else:
            node.irm.heard(layer.ids[number], eid, data, below.user.fd, now)
        node._carry_out()
        again += 1
        layer.network.run(0.01)
    return again


def seeds() -> list[bytes]:
    """Inputs that are taken: what was recorded, each for the decoder that takes it."""
    found = [bytes([_FLOW if eid == 0 else _DHT]) + data for eid, data in recorded() if eid >= 0]
    found += [bytes([kind]) + data for eid, data in recorded() if eid < 0 for kind in range(_FLOW)]
    # As members of the prototype say it.
    found += [bytes([_LSU]) + LinkStateUpdate(0x5DE9D31B, 0x6DE9D31B, 3).encode()]
    # Nobody asks who is on the way in it.
    found += [bytes([_PROBE]) + each.data for each in messages() if each.eid == PROBES]
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


# --- every message with every field wrong


class Message(msgspec.Struct, frozen=True):
    """`eid`: of the component that gets it; -1 for what has no header of the layer. `widths`: bytes of its fields, if they
    have fixed places; else it is in protobuf."""

    name: str
    eid: int
    data: bytes
    widths: tuple[int, ...] = ()


_FLOW_WIDTHS = (8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 2, 1, 1, 1)


def messages(source: int = 0x5DE9D31B, other: int = 0x6DE9D31B, wall: int = 1_795_000_000) -> list[Message]:
    """One of each kind that members send, in the name of a member about another. `wall`: seconds since 1970."""
    key, contact = bytes(_DIGEST), Contact(bytes(_DIGEST), source)
    number, request, qos = wall << 16, b"12345678", QoSSpec()
    update = LinkStateUpdate(other, source, number)
    several = Updates(1, (update, LinkStateUpdate(other, source, number, withdrawn=True, age=3)))
    return [
        Message("greeting", -1, Cep("Management", "LSP", 1, 0, source, Ours(0, 1, 5, "x")).encode()),
        Message(
            "greeting of a newcomer", -1, Cep("Enrollment", "OEP", 1, 0, 0, Ours(0, 1, 5, request=request)).encode()
        ),
        Message("leaving", -1, Cep("Data Transfer", "dtp", 1, 2, source, Ours(cep.LEAVING, 1, 5)).encode()),
        Message("request to enroll", -1, enrollment.Request(request).encode()),
        Message("response", -1, enrollment.Response(request, wall * 10**9, None, "no").encode()),
        Message("acknowledgement of enrollment", -1, enrollment.Ack(request).encode()),
        Message("update", -1, update.encode(), (8, 8, 8)),
        Message("updates", -1, several.encode(), (1, 1, 4, *(1, 2, 8, 8, 8) * 2)),
        Message("acknowledgement of updates", -1, Acknowledgement((1, 2)).encode(), (1, 1, 4, 4)),
        Message("request for a flow", ALLOCATOR, flow.encode(FlowRequest(64, qos, key, b"oap"), source), _FLOW_WIDTHS),
        Message("reply", ALLOCATOR, flow.encode(FlowReply(64, 65, 0, b"oap"), source), _FLOW_WIDTHS),
        Message("refusal", ALLOCATOR, flow.encode(FlowReply(64, 0, -1003, b""), source), _FLOW_WIDTHS),
        Message("notice", ALLOCATOR, flow.encode(FlowDealloc(64, 65, died=True), source), _FLOW_WIDTHS),
        Message("acknowledgement of a notice", ALLOCATOR, flow.encode(FlowDeallocAck(64, 65), source), _FLOW_WIDTHS),
        # Those of the engine: how congested it is, and what came.
        Message("mark", ALLOCATOR, struct.pack(">QQ42xB2x", 0, 64, 2), _FLOW_WIDTHS),
        Message("report", ALLOCATOR, struct.pack(">QQQ34xB2x", 0, 64, 65, 0x73), _FLOW_WIDTHS),
        Message("store", DIRECTORY, dht.Store(contact, key, source, wall + 60).encode()),
        Message("replica", DIRECTORY, dht.Store(contact, key, other, wall + 60).encode()),
        Message("question for members", DIRECTORY, dht.FindNode(contact, 7, key).encode()),
        Message("members", DIRECTORY, dht.NodeFound(contact, 7, key, (contact,)).encode()),
        Message("question for a name", DIRECTORY, dht.FindValue(contact, 7, key).encode()),
        Message("values", DIRECTORY, dht.ValueFound(contact, 7, key, (contact,), (source, other)).encode()),
        Message(
            "probe", PROBES, probe.Probe(1, source, other, 1.0, 0, ((2, 0),)).encode(), (1, 1, 8, 2, 4, 4, 4, 1, 1, 4)
        ),
        Message("answer to a probe", PROBES, bytes([2]) + bytes(287), (1, 1, 8, 1, 1, 4, 4, 1)),
    ]


def spoiled(message: Message) -> Iterator[bytes]:
    """That message with each field wrong, and cut or lengthened anywhere."""
    data = message.data
    yield from (data[:length] for length in range(len(data)))
    yield from (data + more for more in (b"\0", data, bytes(1000), b"\xff" * 3000))
    yield from _of_fixed(data, message.widths) if message.widths else _of_protobuf(data)


def _of_fixed(data: bytes, widths: tuple[int, ...]) -> Iterator[bytes]:
    """Each field: nothing, one, the greatest, the least negative number, the other order of bytes; absent, and twice."""
    for end, width in zip(accumulate(widths), widths, strict=True):
        before, field, after = data[: end - width], data[end - width : end], data[end:]
        values = (bytes(width), (1).to_bytes(width), b"\xff" * width, (1 << 8 * width - 1).to_bytes(width), field[::-1])
        yield from (before + value + after for value in (*values, b"", field * 2))


def _of_protobuf(data: bytes) -> Iterator[bytes]:
    """Each field: absent, twice, of each other type, with extreme values; and the same of those in it."""
    fields = _fields(data)
    for at, (number, type, value) in enumerate(fields):
        before, after = b"".join(map(_field, fields[:at])), b"".join(map(_field, fields[at + 1 :]))
        others = [b"", _field((number, type, value)) * 2, *(_field((number, *each)) for each in _EXTREMES)]
        if type == _BYTES:
            others += [_field((number, type, inner)) for inner in _of_protobuf(value)]
        yield from (before + other + after for other in others)


_VARINT, _BYTES = 0, 2
_EXTREMES = (
    *((_VARINT, _v) for _v in (b"\0", b"\1", b"\xff" * 9 + b"\1", b"\xff\xff\xff\xff\x0f", b"\xff" * 11)),
    *((_BYTES, _v) for _v in (b"", b"\0", b"\xff" * 8, b"\xff" * 31, bytes(33), b"\n" * 200, b"\xff" * 5000)),
    (1, bytes(8)),
    (5, bytes(4)),
    (3, b""),
    (7, b""),
)


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Number, type and value of fields that are numbers or bytes; nothing, if it is not in protobuf."""
    found, at = [], 0
    while at < len(data):
        tag, value = data[at], b""
        at += 1
        # Numbers from 16 on have two bytes.
        if tag & 0x80 and at < len(data):
            tag, at = tag & 0x7F | data[at] << 7, at + 1
        start = at
        while at < len(data) and data[at] & 0x80:
            at += 1
        at += 1
        value = data[start:at]
        if tag & 7 == _BYTES:
            length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(value))
            value, at = data[at : at + length], at + length
        if tag & 7 not in (_VARINT, _BYTES) or at > len(data) or (not value and tag & 7 == _VARINT):
            return []
        found.append((tag >> 3, tag & 7, value))
    return found


def _field(field: tuple[int, int, bytes]) -> bytes:
    number, type, value = field
    head = _varint(number << 3 | type)
    return head + (_varint(len(value)) if type == _BYTES else b"") + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
