"""Messages of layers on an Ethernet segment, which ask for flows and for names. Source: `shims.md` 4 and 5.

The engine takes frames apart. What it brings, and gets, begins with an endpoint id of four bytes, 0 for messages. Then, of
DIX and of LLC::

    seid | deid | loss | bandwidth | ber | max_gap | delay | timeout | response | in_order | code | availability
    0      2      4      8           16    20        24      28        32         36         37     38             39 bytes

    ssap | dsap | code | availability | loss | bandwidth | ber | max_gap | delay | timeout | response | in_order
    0      1      2      3              4      8           16    20        24      28        32         36          37 bytes

`seid` and `ssap` are those of the sender of the message. A digest and the bytes of OAP follow, as each message has them.

`Layout.decode` takes the bytes of a stranger and gives a message, or raises `ProtocolError` naming the field.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.qos import QoSSpec
from ouroboros.wire.udp import DIED, EID_LENGTH, FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest, qos_of
from ouroboros.wire.udp import Message as FlowMessage

#: Endpoint ids of frames that carry messages.
_MANAGEMENT = bytes(EID_LENGTH)


class Code(IntEnum):
    """What a message is. The prototype ignores those from 0x71 on."""

    FLOW_REQUEST = 0
    FLOW_REPLY = 1
    NAME_QUERY = 2
    NAME_REPLY = 3
    FLOW_DEALLOC = 0x71
    FLOW_DEALLOC_ACK = 0x72


class NameQuery(msgspec.Struct, frozen=True):
    """Who has the name with that digest?"""

    digest: bytes


class NameReply(msgspec.Struct, frozen=True):
    """The sender has it. `data`: for a node of ours, in an answer that no other node gets."""

    digest: bytes
    data: bytes = b""


Message = FlowMessage | NameQuery | NameReply


class _Fixed(msgspec.Struct, frozen=True):
    """The part that all messages have. `ours`: the endpoint id of the sender, `theirs`: of the receiver."""

    code: int
    ours: int = 0
    theirs: int = 0
    loss: int = 0
    bandwidth: int = 0
    ber: int = 0
    max_gap: int = 0
    delay: int = 0
    timeout: int = 0
    response: int = 0
    in_order: int = 0
    availability: int = 0


class Layout:
    """How messages of one type of layer are written."""

    def __init__(
        self,
        layout: str,
        order: tuple[str, ...],
        *,
        header: int,
        longest: int,
        eids: range,
        valid: range,
        management: int,
    ) -> None:
        """`layout` and `order`: of the fixed part. `header`: bytes of a frame before it that the MTU counts.
        `longest`: the largest MTU. `eids`: endpoint ids to give away, `valid`: those that peers may have. `management`: the
        SAP of stations that messages are sent to."""
        self._struct = struct.Struct(layout)
        self._order = order
        self._places = tuple(order.index(field) for field in _Fixed.__struct_fields__)
        self._header = header
        self._longest = longest
        self.eids = eids
        self._valid = valid
        self.management = management

    @property
    def has_credit(self) -> bool:
        """Whether the engine can say how many packets it takes: it has no place for SAPs."""
        return not self.management

    def most(self, mtu: int) -> int:
        """Bytes of the longest packet that a frame carries. `mtu`: of the device."""
        return max(min(mtu, self._longest) - self._header, 0)

    @property
    def length(self) -> int:
        """Bytes of the fixed part."""
        return self._struct.size

    def encode(self, message: Message) -> bytes:
        """A message for the engine, endpoint id included."""
        fixed, rest = _parts(message)
        values = msgspec.structs.astuple(fixed)
        ordered = (values[_Fixed.__struct_fields__.index(field)] for field in self._order)
        return _MANAGEMENT + self._struct.pack(*ordered) + rest

    def decode(self, data: bytes, digest: int) -> Message:
        """`digest`: bytes of the digest of a name."""
        if len(data) < EID_LENGTH + self.length:
            raise ProtocolError(f"length: {len(data)} bytes; a message has at least {EID_LENGTH + self.length}")
        if data[:EID_LENGTH] != _MANAGEMENT:
            raise ProtocolError("EID: it is not 0")
        values = self._struct.unpack_from(data, EID_LENGTH)
        fixed = _Fixed(*(values[place] for place in self._places))
        return self._message(fixed, data[EID_LENGTH + self.length :], digest)

    def _message(self, fixed: _Fixed, rest: bytes, digest: int) -> Message:
        match fixed.code:
            case Code.FLOW_REQUEST:
                named, oap = _split(rest, digest)
                return FlowRequest(self._eid("seid", fixed.ours), _qos(fixed), named, oap)
            case Code.FLOW_REPLY:
                return self._reply(fixed, rest)
            case Code.NAME_QUERY:
                return NameQuery(_split(rest, digest)[0])
            case Code.NAME_REPLY:
                return NameReply(*_split(rest, digest))
            case Code.FLOW_DEALLOC:
                died = _response(fixed.response) != 0
                return FlowDealloc(self._eid("seid", fixed.ours), self._eid("deid", fixed.theirs), died)
            case Code.FLOW_DEALLOC_ACK:
                return FlowDeallocAck(self._eid("seid", fixed.ours), self._eid("deid", fixed.theirs))
        raise ProtocolError(f"code: {fixed.code:#x} is none that is known")

    def _reply(self, fixed: _Fixed, rest: bytes) -> FlowReply:
        requester = self._eid("deid", fixed.theirs)
        if _response(fixed.response) < 0:
            # The prototype puts an endpoint id here that it never uses; bytes behind a refusal mean nothing.
            return FlowReply(requester, 0, fixed.response, b"")
        return FlowReply(requester, self._eid("seid", fixed.ours), 0, rest, fixed.timeout)

    def _eid(self, field: str, value: int) -> int:
        if value not in self._valid:
            raise ProtocolError(f"{field}: {value} stands for no endpoint")
        return value


DIX = Layout(
    ">HHIQIIIIiBBB",
    (
        "ours",
        "theirs",
        "loss",
        "bandwidth",
        "ber",
        "max_gap",
        "delay",
        "timeout",
        "response",
        "in_order",
        "code",
        "availability",
    ),
    header=4,
    longest=0xFFFF,
    eids=range(1, 0x10000),
    valid=range(1, 0x10000),
    management=0,
)
LLC = Layout(
    ">BBBBIQIIIIiB",
    (
        "ours",
        "theirs",
        "code",
        "availability",
        "loss",
        "bandwidth",
        "ber",
        "max_gap",
        "delay",
        "timeout",
        "response",
        "in_order",
    ),
    header=3,
    # Longer frames cannot say how long they are.
    longest=1500,
    # The prototype has a table of 64, which it overruns.
    eids=range(2, 64),
    valid=range(2, 128),
    management=1,
)

#: By type of layer.
LAYOUTS = {"eth-dix": DIX, "eth-llc": LLC}


def _parts(message: Message) -> tuple[_Fixed, bytes]:
    """The fixed part, and what follows."""
    match message:
        case FlowRequest():
            qos = message.qos
            fixed = _Fixed(
                Code.FLOW_REQUEST,
                message.eid,
                loss=qos.loss,
                bandwidth=qos.bandwidth,
                ber=qos.ber,
                max_gap=qos.max_gap,
                delay=qos.delay,
                timeout=qos.timeout,
                in_order=qos.in_order,
                availability=qos.availability,
            )
            return fixed, message.digest + message.oap
        case FlowReply():
            fixed = _Fixed(
                Code.FLOW_REPLY, message.peer_eid, message.eid, timeout=message.timeout, response=message.response
            )
            return fixed, message.oap
        case NameQuery():
            return _Fixed(Code.NAME_QUERY), message.digest
        case NameReply():
            return _Fixed(Code.NAME_REPLY), message.digest + message.data
        case FlowDealloc():
            died = DIED if message.died else 0
            return _Fixed(Code.FLOW_DEALLOC, message.eid, message.peer_eid, response=died), b""
        case FlowDeallocAck():
            return _Fixed(Code.FLOW_DEALLOC_ACK, message.eid, message.peer_eid), b""


def _split(rest: bytes, digest: int) -> tuple[bytes, bytes]:
    if len(rest) < digest:
        raise ProtocolError(f"digest: {len(rest)} bytes of {digest}")
    return rest[:digest], rest[digest:]


def _response(value: int) -> int:
    if value > 0:
        raise ProtocolError(f"response: {value} is neither 0 nor a negative code")
    return value


def _qos(fixed: _Fixed) -> QoSSpec:
    words = [fixed.bandwidth, fixed.delay, fixed.loss, fixed.ber, fixed.max_gap, fixed.timeout]
    return qos_of(words, fixed.availability, fixed.in_order)
