"""Management datagrams of a layer over UDP: what asks for a flow, answers, and tells of its end. Source: `shims.md` 3.

A datagram begins with an endpoint id (EID), four bytes. Any but 0 stands for a flow of the receiver, and its packet follows.
EID 0 is for management: 47 bytes that are the same for all messages, and what the message adds.

::

    EID 0 | s_eid | d_eid | response | bandwidth | delay | loss | ber | max_gap | timeout | code | availability | in_order
    0       4       8       12         16          24      28     32    36        40        44     45             46

Numbers are big-endian. Between two nodes of ours the eight bytes at 8 are for a cookie, in a request and in the answer that
asks for it once more, and those at 16 for the checksum of a reply.

`decode` takes the bytes of a stranger and gives one of the messages below, or raises `ProtocolError` naming the field.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from enum import IntEnum
from functools import lru_cache

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


class Code(IntEnum):
    """The kind of a management datagram. The prototype ignores kinds from 0x71 on."""

    FLOW_REQUEST = 1
    FLOW_REPLY = 2
    FLOW_DEALLOC = 0x71
    FLOW_DEALLOC_ACK = 0x72
    #: Credit of raw flows is no message for `decode`: the engine sends and takes it.
    RAW_CREDIT = 0x73
    #: The engine sends it, to those that have to prove their address.
    FLOW_RETRY = 0x74


#: The `response` of a `FlowDealloc` when the program died (`flows.md` 11: EFLOWPEER).
DIED = -1006

_FIXED = struct.Struct(">IIIiQIIIIIBBB")
_COOKIE = struct.Struct(">Q")
_COOKIE_AT = 8
#: The part of a reply in front of its checksum.
_CHECKED = int.from_bytes(b"pyO7") << 32
_CHECK_AT = 16
_DIGEST_LENGTH = 16
#: Room that is left for the bytes of OAP.
REQUEST_OAP_LENGTH = MANAGEMENT_LENGTH - _FIXED.size - _DIGEST_LENGTH
REPLY_OAP_LENGTH = MANAGEMENT_LENGTH - _FIXED.size


@lru_cache(4096)
def digest_of(name: str) -> bytes:
    """The digest that stands for a name in a request. Its hexadecimal digits are the host name for its lookup."""
    return hashlib.md5(name.encode(), usedforsecurity=False).digest()


class FlowRequest(msgspec.Struct, frozen=True):
    """`eid`: of the requester. `qos` travels without `cypher_s`. `digest`: of the name. `oap`: opaque here. `cookie`: proves
    the address of the requester; 0 without one. On the wire it is mixed with the checksum of the rest."""

    eid: int
    qos: QoSSpec
    digest: bytes
    oap: bytes
    cookie: int = 0

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
            Code.FLOW_REQUEST,
            qos.availability,
            qos.in_order,
        )
        data = _checked(fixed + self.digest + self.oap)
        return _with(data, _COOKIE_AT, self.cookie ^ zlib.crc32(data)) if self.cookie else data


class FlowReply(msgspec.Struct, frozen=True):
    """`eid`: of the requester. `response`: 0, or the negative code of a refusal, which has neither `peer_eid`, the
    acceptor's, nor `oap`. `timeout`: of the flow, milliseconds, where the acceptor shortened it and tells a node of
    ours; else 0. `checked`: with a checksum, which is right."""

    eid: int
    peer_eid: int
    response: int
    oap: bytes
    timeout: int = 0
    checked: bool = False

    def encode(self) -> bytes:
        data = _checked(_fixed(Code.FLOW_REPLY, self.eid, self.peer_eid, self.response, self.timeout) + self.oap)
        return _with(data, _CHECK_AT, _CHECKED | zlib.crc32(data)) if self.checked else data


class FlowDealloc(msgspec.Struct, frozen=True):
    """The program of the sender deallocated a flow, or `died`. `eid`: of the sender of the message. `peer_eid`: of its
    receiver."""

    eid: int
    peer_eid: int
    died: bool = False

    def encode(self) -> bytes:
        return _fixed(Code.FLOW_DEALLOC, self.eid, self.peer_eid, DIED if self.died else 0)


class FlowDeallocAck(msgspec.Struct, frozen=True):
    """A `FlowDealloc` arrived. `eid`: of the sender of this message. `peer_eid`: of its receiver."""

    eid: int
    peer_eid: int

    def encode(self) -> bytes:
        return _fixed(Code.FLOW_DEALLOC_ACK, self.eid, self.peer_eid)


class FlowRetry(msgspec.Struct, frozen=True):
    """A request has to come again, with this cookie. `eid`: of the requester."""

    eid: int
    cookie: int

    def encode(self) -> bytes:
        return _with(_fixed(Code.FLOW_RETRY, self.eid, 0), _COOKIE_AT, self.cookie)


#: Messages in all layers with flows; a `FlowRetry` only over UDP.
Message = FlowRequest | FlowReply | FlowDealloc | FlowDeallocAck


def _fixed(code: int, s_eid: int, d_eid: int, response: int = 0, timeout: int = 0) -> bytes:
    return _FIXED.pack(0, s_eid, d_eid, response, 0, 0, 0, 0, 0, timeout, code, 0, 0)


def _with(data: bytes, at: int, value: int) -> bytes:
    """The same with a number of eight bytes in that place."""
    return data[:at] + _COOKIE.pack(value) + data[at + _COOKIE.size :]


def _checked(data: bytes) -> bytes:
    if len(data) > MANAGEMENT_LENGTH:
        raise ValueError(f"a management datagram of {len(data)} bytes; a receiver takes {MANAGEMENT_LENGTH}")
    return data


# --- decoding


def decode(data: bytes) -> Message | FlowRetry:
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
        case Code.FLOW_REQUEST:
            cookie = _number(data, _COOKIE_AT)
            cookie ^= zlib.crc32(_with(data, _COOKIE_AT, 0)) if cookie else 0
            return _decode_request(_eid("s_eid", s_eid), qos_of(qos, availability, in_order), rest, cookie)
        case Code.FLOW_REPLY:
            checked = _check(data)
            return _decode_reply(_eid("s_eid", s_eid), d_eid, response, rest, qos[-1], checked)
        case Code.FLOW_DEALLOC:
            # Whatever the reason is: only 0 says that nothing is missing.
            return FlowDealloc(_eid("s_eid", s_eid), _eid("d_eid", d_eid), _response(response) != 0)
        case Code.FLOW_DEALLOC_ACK:
            return FlowDeallocAck(_eid("s_eid", s_eid), _eid("d_eid", d_eid))
        case Code.FLOW_RETRY:
            return FlowRetry(_eid("s_eid", s_eid), _number(data, _COOKIE_AT))
    raise ProtocolError(f"code: {code:#x} is none that is known")


def _number(data: bytes, at: int) -> int:
    (number,) = _COOKIE.unpack_from(data, at)
    return int(number)


def _check(data: bytes) -> bool:
    """Whether a reply has a checksum."""
    check = _number(data, _CHECK_AT)
    if check >> 32 != _CHECKED >> 32:
        return False
    if check != _CHECKED | zlib.crc32(_with(data, _CHECK_AT, 0)):
        raise ProtocolError("checksum: it is another one, so the reply was damaged")
    return True


def _decode_request(eid: int, qos: QoSSpec, rest: bytes, cookie: int) -> FlowRequest:
    if len(rest) < _DIGEST_LENGTH:
        raise ProtocolError(f"digest: {len(rest)} bytes of {_DIGEST_LENGTH}")
    return FlowRequest(eid, qos, rest[:_DIGEST_LENGTH], rest[_DIGEST_LENGTH:], cookie)


def _decode_reply(eid: int, peer_eid: int, response: int, rest: bytes, timeout: int, checked: bool) -> FlowReply:
    if _response(response) < 0:
        # The prototype puts an EID of its own here that it never uses; bytes behind a refusal mean nothing.
        return FlowReply(eid, 0, response, b"", checked=checked)
    return FlowReply(eid, _eid("d_eid", peer_eid), 0, rest, timeout, checked)


def _response(value: int) -> int:
    if value > 0:
        raise ProtocolError(f"response: {value} is neither 0 nor a negative code")
    return value


def _eid(field: str, value: int) -> int:
    if value in RESERVED_EIDS:
        raise ProtocolError(f"{field}: {value:#x} stands for no endpoint")
    return value


def qos_of(values: list[int], availability: int, in_order: int) -> QoSSpec:
    """The QoS of a request: its words in the order bandwidth, delay, loss, ber, max_gap, timeout, and its two bytes."""
    return _qos_of(*values, availability, int(in_order != 0))


@lru_cache(256)
def _qos_of(
    bandwidth: int, delay: int, loss: int, ber: int, max_gap: int, timeout: int, availability: int, in_order: int
) -> QoSSpec:
    """Most requests have one of a few, and each new one is checked."""
    return QoSSpec(
        delay=delay,
        bandwidth=bandwidth,
        availability=availability,
        loss=loss,
        ber=ber,
        in_order=in_order,
        max_gap=max_gap,
        timeout=timeout,
    )


# --- QoS: what the wire means by it


def outgoing_qos(qos: QoSSpec) -> QoSSpec:
    """The QoS as a request carries it: on the wire, only `in_order` turns FRCP on, and `loss=0` alone means both."""
    return changed(qos, in_order=int(qos.ordered), cypher_s=0)


def changed(qos: QoSSpec, **values: int) -> QoSSpec:
    """The same with other values. Most have them already, and all are checked when there is a new one."""
    for field, value in values.items():
        if getattr(qos, field) != value:
            return msgspec.structs.replace(qos, **values)
    return qos


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
