"""Management datagrams of a layer over UDP: what asks for a flow, answers, and tells of its end. Source: `shims.md` 3.

A datagram begins with an endpoint id (EID), four bytes. Any but 0 stands for a flow of the receiver, and its packet follows.
EID 0 is for management: 47 bytes that are the same for all messages, and what the message adds.

::

    EID 0 | s_eid | d_eid | response | bandwidth | delay | loss | ber | max_gap | timeout | code | availability | in_order
    0       4       8       12         16          24      28     32    36        40        44     45             46

Numbers are big-endian. `decode` takes the bytes of a stranger and gives one of the messages below, or raises `ProtocolError`
naming the field.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.qos import QoSSpec

#: The largest management datagram. A node of the C prototype dies of more than 2056 bytes.
MANAGEMENT_LENGTH = 2048
#: The largest packet of a flow that arrives whole, without the EID, by family.
PACKET_LENGTH = {"udp4": 8976, "udp6": 8948}
#: Bytes in front of a packet.
EID_LENGTH = 4

#: No endpoint has one of these: 0 is management, the other is what the C prototype uses for "not set".
RESERVED_EIDS = (0, 0xFFFFFFFF)

FLOW_REQUEST = 1
FLOW_REPLY = 2
#: The prototype ignores these three. The last one is handled where packets are.
FLOW_DEALLOC = 0x71
FLOW_DEALLOC_ACK = 0x72
RAW_CREDIT = 0x73

#: The `response` of a `FlowDealloc` when the program died (`flows.md` 11: EFLOWPEER).
_DIED = -1006

_FIXED = struct.Struct(">IIIiQIIIIIBBB")
_DIGEST_LENGTH = 16
#: Room that is left for the bytes of OAP.
REQUEST_OAP_LENGTH = MANAGEMENT_LENGTH - _FIXED.size - _DIGEST_LENGTH
REPLY_OAP_LENGTH = MANAGEMENT_LENGTH - _FIXED.size


def digest_of(name: str) -> bytes:
    """What stands for a name in a request. Its hexadecimal digits are the host name under which the name is looked up."""
    return hashlib.md5(name.encode(), usedforsecurity=False).digest()


class FlowRequest(msgspec.Struct, frozen=True):
    """`eid`: of the requester. `qos` travels without `cypher_s`. `digest`: of the name. `oap`: opaque here."""

    eid: int
    qos: QoSSpec
    digest: bytes
    oap: bytes

    def encode(self) -> bytes:
        qos = self.qos
        fixed = _FIXED.pack(
            0,
            self.eid,
            0,
            0,
            qos.bandwidth,
            qos.delay,
            qos.loss,
            qos.ber,
            qos.max_gap,
            qos.timeout,
            FLOW_REQUEST,
            qos.availability,
            qos.in_order,
        )
        return _checked(fixed + self.digest + self.oap)


class FlowReply(msgspec.Struct, frozen=True):
    """`eid`: of the requester. `response`: 0, or the negative code of a refusal, which has neither `peer_eid`, the
    acceptor's, nor `oap`."""

    eid: int
    peer_eid: int
    response: int
    oap: bytes

    def encode(self) -> bytes:
        return _checked(_fixed(FLOW_REPLY, self.eid, self.peer_eid, self.response) + self.oap)


class FlowDealloc(msgspec.Struct, frozen=True):
    """The program of the sender deallocated a flow, or `died`. `eid`: of the sender of the message. `peer_eid`: of its
    receiver."""

    eid: int
    peer_eid: int
    died: bool = False

    def encode(self) -> bytes:
        return _fixed(FLOW_DEALLOC, self.eid, self.peer_eid, _DIED if self.died else 0)


class FlowDeallocAck(msgspec.Struct, frozen=True):
    """A `FlowDealloc` arrived. `eid`: of the sender of this message. `peer_eid`: of its receiver."""

    eid: int
    peer_eid: int

    def encode(self) -> bytes:
        return _fixed(FLOW_DEALLOC_ACK, self.eid, self.peer_eid)


Message = FlowRequest | FlowReply | FlowDealloc | FlowDeallocAck


def _fixed(code: int, s_eid: int, d_eid: int, response: int = 0) -> bytes:
    return _FIXED.pack(0, s_eid, d_eid, response, 0, 0, 0, 0, 0, 0, code, 0, 0)


def _checked(data: bytes) -> bytes:
    if len(data) > MANAGEMENT_LENGTH:
        raise ValueError(f"a management datagram of {len(data)} bytes; a receiver takes {MANAGEMENT_LENGTH}")
    return data


# --- decoding


def decode(data: bytes) -> Message:
    """The message in a datagram, its EID included."""
    if len(data) > MANAGEMENT_LENGTH:
        raise ProtocolError(f"length: {len(data)} bytes; a management datagram has at most {MANAGEMENT_LENGTH}")
    if len(data) < _FIXED.size:
        raise ProtocolError(f"length: {len(data)} bytes; a management datagram has at least {_FIXED.size}")
    eid, s_eid, d_eid, response, *qos, code, availability, in_order = _FIXED.unpack_from(data)
    if eid != 0:
        raise ProtocolError(f"EID: {eid} where a management datagram has 0")
    rest = data[_FIXED.size :]
    match code:
        case 1:
            return _decode_request(_eid("s_eid", s_eid), _qos(qos, availability, in_order), rest)
        case 2:
            return _decode_reply(_eid("s_eid", s_eid), d_eid, response, rest)
        case 0x71:
            # Whatever the reason is: only 0 says that nothing is missing.
            return FlowDealloc(_eid("s_eid", s_eid), _eid("d_eid", d_eid), _response(response) != 0)
        case 0x72:
            return FlowDeallocAck(_eid("s_eid", s_eid), _eid("d_eid", d_eid))
    raise ProtocolError(f"code: {code:#x} is none that is known")


def _decode_request(eid: int, qos: QoSSpec, rest: bytes) -> FlowRequest:
    if len(rest) < _DIGEST_LENGTH:
        raise ProtocolError(f"digest: {len(rest)} bytes of {_DIGEST_LENGTH}")
    return FlowRequest(eid, qos, rest[:_DIGEST_LENGTH], rest[_DIGEST_LENGTH:])


def _decode_reply(eid: int, peer_eid: int, response: int, rest: bytes) -> FlowReply:
    if _response(response) < 0:
        # The prototype puts an EID of its own here that it never uses; bytes behind a refusal mean nothing.
        return FlowReply(eid, 0, response, b"")
    return FlowReply(eid, _eid("d_eid", peer_eid), 0, rest)


def _response(value: int) -> int:
    if value > 0:
        raise ProtocolError(f"response: {value} is neither 0 nor a negative code")
    return value


def _eid(field: str, value: int) -> int:
    if value in RESERVED_EIDS:
        raise ProtocolError(f"{field}: {value:#x} stands for no endpoint")
    return value


def _qos(values: list[int], availability: int, in_order: int) -> QoSSpec:
    bandwidth, delay, loss, ber, max_gap, timeout = values
    return QoSSpec(
        delay=delay,
        bandwidth=bandwidth,
        availability=availability,
        loss=loss,
        ber=ber,
        in_order=int(in_order != 0),
        max_gap=max_gap,
        timeout=timeout,
    )


# --- QoS: what the wire means by it


def outgoing_qos(qos: QoSSpec) -> QoSSpec:
    """The QoS as a request carries it: on the wire, only `in_order` turns FRCP on, and `loss=0` alone means both."""
    return msgspec.structs.replace(qos, in_order=int(qos.ordered), cypher_s=0)


def incoming_qos(qos: QoSSpec) -> QoSSpec:
    """The QoS of a flow for which that came: without `in_order` its packets have no FRCP header, whatever `loss` is."""
    if qos.in_order == 0 and qos.loss == 0:
        return msgspec.structs.replace(qos, loss=1)
    return qos


def without_crc(qos: QoSSpec) -> QoSSpec:
    """In order without `ber=0`: a node of the prototype puts no CRC on bare acknowledgements and retransmissions, and drops
    those of ours when it is asked for CRCs (`frcp.md` F9)."""
    if qos.ordered and qos.ber == 0:
        return msgspec.structs.replace(qos, ber=1)
    return qos
