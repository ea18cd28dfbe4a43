"""Messages between flow allocators, the components 0 of members of a unicast layer. Source: `unicast-data.md` 4.

61 bytes are the same for all messages, and what the message adds follows:

::

    s_addr | r_eid | s_eid | bandwidth | response | delay | loss | ber | max_gap | timeout | ece | code | availability
    0        8       16      24          32         36      40     44    48        52        56    58     59
    in_order
    60

Numbers are big-endian. A request adds the hash of a name and OAP, a reply OAP; of the QoS a reply has the timeout, where
the acceptor shortened it and tells a member of ours. What messages say is the same in all layers (`wire.udp`); here endpoint
ids have 64 bits, and what the prototype does not know begins with its sender's address, too. `ece`, and the message that has
one, are the engine's.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from ouroboros.errors import ProtocolError
from ouroboros.qos import QoSSpec
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest, Message, qos_of

#: The longest message. A member of the C prototype loses memory with longer ones, and with shorter ones than the fixed part.
MESSAGE_LENGTH = 2048
_FIXED = struct.Struct(">QQQQiIIIIIHBBB")
#: Room for the bytes of OAP in a reply; in a request the hash takes some of it.
REPLY_OAP_LENGTH = MESSAGE_LENGTH - _FIXED.size

#: Endpoint ids below are those of components; the last one is what the prototype uses for "not set".
FIRST_EID = 64
NO_EID = 2**64 - 1
_LAST_ADDRESS = 2**32 - 1


class Code(IntEnum):
    """What a message is. The prototype drops those from 3 on, with a warning, so only members of ours get them."""

    FLOW_REQUEST = 0
    FLOW_REPLY = 1
    #: Of the engine.
    FLOW_UPDATE = 2
    FLOW_DEALLOC = 0x71
    FLOW_DEALLOC_ACK = 0x72


#: The `response` of a `FlowDealloc` when the program died (`flows.md` 11: EFLOWPEER).
_DIED = -1006


_NO_QOS = QoSSpec(delay=0, bandwidth=0, availability=0, loss=0, ber=0, in_order=0, max_gap=0, timeout=0)


def encode(message: Message, address: int) -> bytes:
    """`address`: of the sender. Raises `ValueError` when it is too long for a receiver."""
    match message:
        case FlowRequest(eid=eid, qos=qos):
            data = _fixed(Code.FLOW_REQUEST, address, 0, eid, qos=qos) + message.digest + message.oap
        case FlowReply():
            # A member of the prototype does not look at an id of ours in a refusal, but it is never "not set".
            fixed = _fixed(
                Code.FLOW_REPLY,
                0,
                message.eid,
                message.peer_eid or FIRST_EID,
                message.response,
                timeout=message.timeout,
            )
            data = fixed + message.oap
        case FlowDealloc(eid=eid, peer_eid=peer_eid, died=died):
            data = _fixed(Code.FLOW_DEALLOC, address, peer_eid, eid, _DIED if died else 0)
        case FlowDeallocAck(eid=eid, peer_eid=peer_eid):
            data = _fixed(Code.FLOW_DEALLOC_ACK, address, peer_eid, eid)
    if len(data) > MESSAGE_LENGTH:
        raise ValueError(f"a message of {len(data)} bytes; a receiver takes {MESSAGE_LENGTH}")
    return data


def _fixed(
    code: int, s_addr: int, r_eid: int, s_eid: int, response: int = 0, *, qos: QoSSpec = _NO_QOS, timeout: int = 0
) -> bytes:
    q, timeout = qos, timeout or qos.timeout
    numbers = (q.bandwidth, response, q.delay, q.loss, q.ber, q.max_gap, timeout, 0, code, q.availability, q.in_order)
    return _FIXED.pack(s_addr, r_eid, s_eid, *numbers)


def decode(data: bytes, hash_length: int) -> tuple[Message, int]:
    """The message, and the address of its sender; 0 when it does not say. `hash_length`: of names in the layer. Raises
    `ProtocolError` naming the field."""
    if not _FIXED.size <= len(data) <= MESSAGE_LENGTH:
        raise ProtocolError(f"length: {len(data)} bytes; a message has from {_FIXED.size} to {MESSAGE_LENGTH}")
    s_addr, r_eid, s_eid, bandwidth, response, *qos, _, code, availability, in_order = _FIXED.unpack_from(data)
    rest = data[_FIXED.size :]
    match code:
        case Code.FLOW_REQUEST:
            if len(rest) < hash_length:
                raise ProtocolError(f"digest: {len(rest)} bytes of {hash_length}")
            spec = qos_of([bandwidth, *qos], availability, in_order)
            return FlowRequest(_eid("s_eid", s_eid), spec, rest[:hash_length], rest[hash_length:]), _address(s_addr)
        case Code.FLOW_REPLY if response < 0:
            return FlowReply(_eid("r_eid", r_eid), 0, response, b""), 0
        case Code.FLOW_REPLY if response == 0:
            # The QoS in it means nothing, but for a shorter timeout of the acceptor to a member of ours.
            return FlowReply(_eid("r_eid", r_eid), _eid("s_eid", s_eid), 0, rest, qos[-1]), 0
        case Code.FLOW_REPLY:
            raise ProtocolError(f"response: {response} is neither 0 nor a negative code")
        case Code.FLOW_DEALLOC if response <= 0:
            # Whatever the reason is: only 0 says that nothing is missing.
            message = FlowDealloc(_eid("s_eid", s_eid), _eid("r_eid", r_eid), response != 0)
            return message, _address(s_addr)
        case Code.FLOW_DEALLOC_ACK:
            return FlowDeallocAck(_eid("s_eid", s_eid), _eid("r_eid", r_eid)), _address(s_addr)
    raise ProtocolError(f"code: {code:#x}, response {response}: none that is known")


def _eid(field: str, value: int) -> int:
    if not FIRST_EID <= value < NO_EID:
        raise ProtocolError(f"{field}: {value:#x} stands for no flow")
    return value


def _address(value: int) -> int:
    if not 0 < value <= _LAST_ADDRESS:
        raise ProtocolError(f"s_addr: {value:#x} is no address")
    return value
