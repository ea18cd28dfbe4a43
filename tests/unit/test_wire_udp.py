"""Management datagrams: the bytes of the C prototype, and that anything else is refused with the field named."""

from __future__ import annotations

import zlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ouroboros.errors import ProtocolError
from ouroboros.qos import QOS_DATA, QOS_RAW, UINT32_MAX, UINT64_MAX, QoSSpec
from ouroboros.wire import udp
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest, Message

#: `shims.md` 8.1, captured between two nodes of the prototype.
RAW = QoSSpec(delay=UINT32_MAX, loss=1, ber=1, max_gap=UINT32_MAX)
OPING = bytes.fromhex("7862c6fec5ecaef4aa2e3934725e23b3")
REQUEST_OAP = bytes.fromhex("264e2156178babc280fb77f61368afef 18ea6d6c4a4d1fd2 000000000000000000000000")
REQUEST = (
    bytes.fromhex(
        "00000000 00000040 00000000 00000000"
        "0000000000000000 ffffffff 00000001"
        "00000001 ffffffff 0001d4c0"
        "01 00 00"
        "7862c6fec5ecaef4aa2e3934725e23b3"
    )
    + REQUEST_OAP
)
REPLY_OAP = bytes.fromhex(
    "264e2156178babc280fb77f61368afef 18ea6d6c4a99739d 000000000000000000000000"
    "d199c8e203eae15ca4fdb960c278425300dc64f23192ad24e98903fbde7191ce62c0c64318c88ed0e4fffe1466efbf28"
)
REPLY = (
    bytes.fromhex(
        "00000000 00000040 00000040 000000000000000000000000 00000000 0000000000000000 00000000 0000000002 00 00"
    )
    + REPLY_OAP
)
REFUSAL = bytes.fromhex("00000000 00000011 00000042 fffffc0f" + "00" * 28 + "02 00 00")


def test_golden_request() -> None:
    message = FlowRequest(64, RAW, OPING, REQUEST_OAP)
    assert len(REQUEST) == 99
    assert udp.decode(REQUEST) == message
    assert message.encode() == REQUEST


def test_golden_request_in_order() -> None:
    data = REQUEST[:46] + b"\x01" + REQUEST[47:]
    message = udp.decode(data)
    assert isinstance(message, FlowRequest)
    assert message.qos == QoSSpec(delay=UINT32_MAX, loss=1, ber=1, in_order=1, max_gap=UINT32_MAX)
    assert message.encode() == data


def test_golden_reply() -> None:
    message = FlowReply(64, 64, 0, REPLY_OAP)
    assert len(REPLY) == 131
    assert udp.decode(REPLY) == message
    assert message.encode() == REPLY


def test_golden_refusal_whose_endpoint_id_and_trailing_bytes_mean_nothing() -> None:
    message = FlowReply(17, 0, -1009, b"")
    assert len(REFUSAL) == 47
    assert udp.decode(REFUSAL) == message
    assert udp.decode(REFUSAL + b"more") == message
    assert udp.decode(message.encode()) == message


def test_the_digest_of_a_name_is_that_of_its_bytes() -> None:
    assert udp.digest_of("oping") == OPING


def test_notices_of_ours() -> None:
    notice, receipt = FlowDealloc(0xDEADBEEF, 7), FlowDeallocAck(7, 0xDEADBEEF)
    assert notice.encode() == bytes.fromhex("00000000 deadbeef 00000007" + "00" * 32 + "71 0000")
    assert receipt.encode() == bytes.fromhex("00000000 00000007 deadbeef" + "00" * 32 + "72 0000")
    assert len(notice.encode()) == len(receipt.encode()) == 47


def test_a_notice_says_that_the_program_died() -> None:
    notice = FlowDealloc(0xDEADBEEF, 7, died=True)
    assert notice.encode() == bytes.fromhex("00000000 deadbeef 00000007 fffffc12" + "00" * 28 + "71 0000")
    assert udp.decode(notice.encode()) == notice


@given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=100))
def test_only_a_notice_without_a_reason_is_of_a_deallocation(reason: int, rest: bytes) -> None:
    data = fixed(0x71, response=reason % 2**32) + rest
    if reason > 0:
        with pytest.raises(ProtocolError, match=r"^response: "):
            udp.decode(data)
    else:
        assert udp.decode(data) == FlowDealloc(64, 64, died=reason != 0)


@given(st.integers(-(2**31), 2**31 - 1))
def test_the_reason_of_a_receipt_is_not_looked_at(reason: int) -> None:
    assert udp.decode(fixed(0x72, response=reason % 2**32)) == FlowDeallocAck(64, 64)


EIDS = st.integers(1, UINT32_MAX - 1)
UINT32 = st.integers(0, UINT32_MAX)
QOS = st.builds(
    QoSSpec,
    delay=UINT32,
    bandwidth=st.integers(0, UINT64_MAX),
    availability=st.integers(0, 255),
    loss=UINT32,
    ber=UINT32,
    in_order=st.integers(0, 1),
    max_gap=UINT32,
    timeout=UINT32,
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(FlowRequest, EIDS, QOS, st.binary(min_size=16, max_size=16), st.binary(max_size=udp.REQUEST_OAP_LENGTH)),
    st.builds(FlowReply, EIDS, EIDS, st.just(0), st.binary(max_size=udp.REPLY_OAP_LENGTH)),
    st.builds(FlowReply, EIDS, st.just(0), st.integers(-(2**31), -1), st.just(b"")),
    st.builds(FlowDealloc, EIDS, EIDS, st.booleans()),
    st.builds(FlowDeallocAck, EIDS, EIDS),
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    data = message.encode()
    assert len(data) <= udp.MANAGEMENT_LENGTH
    assert data[:4] == bytes(4)
    assert udp.decode(data) == message


@given(MESSAGES, st.data())
def test_a_message_cut_short_is_refused_or_has_less_oap(message: Message, data: st.DataObject) -> None:
    whole = message.encode()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    least = 63 if isinstance(message, FlowRequest) else 47
    if len(cut) < least:
        with pytest.raises(ProtocolError, match=r"^(length|digest): "):
            udp.decode(cut)
    else:
        assert isinstance(udp.decode(cut), FlowRequest | FlowReply)


@given(st.binary(max_size=2100))
def test_bytes_of_a_stranger_are_a_message_or_a_protocol_error(data: bytes) -> None:
    decode_any(data)


@given(MESSAGES, st.integers(0, 62), st.integers(1, 255))
def test_a_changed_byte_is_a_message_or_a_protocol_error(message: Message, where: int, change: int) -> None:
    data = bytearray(message.encode())
    data[where % len(data)] ^= change
    decode_any(bytes(data))


def decode_any(data: bytes) -> None:
    """Whatever comes out is what its own bytes say."""
    try:
        message = udp.decode(data)
    except ProtocolError:
        return
    assert udp.decode(message.encode()) == message


def fixed(code: int, s_eid: int = 64, d_eid: int = 64, response: int = 0) -> bytes:
    return bytes.fromhex(f"00000000 {s_eid:08x} {d_eid:08x} {response:08x} {'00' * 28} {code:02x} 0000")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "length"),
        (REQUEST[:46], "length"),
        (REQUEST + bytes(2048 - 98), "length"),
        (b"\0\0\0\1" + REQUEST[4:], "EID"),
        (REQUEST[:62], "digest"),
        (fixed(1, s_eid=0) + bytes(16), "s_eid"),
        (fixed(1, s_eid=0xFFFFFFFF) + bytes(16), "s_eid"),
        (fixed(2, s_eid=0), "s_eid"),
        (fixed(2, d_eid=0), "d_eid"),
        (fixed(2, d_eid=0xFFFFFFFF), "d_eid"),
        (fixed(2, response=1), "response"),
        (fixed(0x71, s_eid=0), "s_eid"),
        (fixed(0x71, d_eid=0), "d_eid"),
        (fixed(0x71, response=1), "response"),
        (fixed(0x72, s_eid=0xFFFFFFFF), "s_eid"),
        (fixed(0x72, d_eid=0xFFFFFFFF), "d_eid"),
        (fixed(0), "code"),
        (fixed(3), "code"),
        (fixed(0x73), "code"),
        (fixed(0xFF), "code"),
    ],
)
def test_malformed_datagrams_are_refused_and_the_field_is_named(data: bytes, field: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{field}: "):
        udp.decode(data)


def test_nothing_is_encoded_that_would_harm_a_receiver() -> None:
    assert len(FlowRequest(64, RAW, OPING, bytes(1985)).encode()) == 2048
    with pytest.raises(ValueError, match="2049 bytes"):
        FlowRequest(64, RAW, OPING, bytes(1986)).encode()
    assert len(FlowReply(64, 64, 0, bytes(2001)).encode()) == 2048
    with pytest.raises(ValueError, match="2049 bytes"):
        FlowReply(64, 64, 0, bytes(2002)).encode()


def test_loss_0_alone_asks_for_order_on_the_wire() -> None:
    sent = udp.outgoing_qos(QoSSpec(loss=0, cypher_s=256))
    assert (sent.in_order, sent.loss, sent.cypher_s) == (1, 0, 0)
    assert udp.outgoing_qos(QOS_RAW) == QOS_RAW


def test_a_request_without_order_gets_a_flow_without_frcp() -> None:
    assert not udp.incoming_qos(QoSSpec(loss=0)).ordered
    assert udp.incoming_qos(QOS_DATA) == QOS_DATA


def test_flows_in_order_ask_the_prototype_for_no_crc() -> None:
    assert udp.without_crc(QOS_DATA).ber == 1
    assert udp.without_crc(QoSSpec(ber=0)).ber == 0


def test_what_only_nodes_of_ours_say() -> None:
    retry = udp.FlowRetry(0xDEADBEEF, 0x0123456789ABCDEF)
    assert retry.encode() == bytes.fromhex("00000000 deadbeef 0123456789abcdef" + "00" * 28 + "74 0000")
    assert udp.decode(retry.encode()) == retry
    proven = FlowRequest(64, RAW, OPING, REQUEST_OAP, cookie=0x1122334400000000)
    data = proven.encode()
    assert data == REQUEST[:8] + b"\x11\x22\x33\x44" + zlib.crc32(REQUEST).to_bytes(4) + REQUEST[16:]
    assert udp.decode(data) == proven
    checked = FlowReply(64, 64, 0, REPLY_OAP, timeout=600_000, checked=True)
    plain = REPLY[:40] + (600_000).to_bytes(4) + REPLY[44:]
    assert checked.encode() == plain[:16] + b"pyO7" + zlib.crc32(plain).to_bytes(4) + plain[24:]
    assert udp.decode(checked.encode()) == checked


@given(st.integers(8, 8 * len(REQUEST) - 1), st.integers(1, UINT64_MAX))
def test_a_damaged_request_has_another_cookie(bit: int, cookie: int) -> None:
    data = bytearray(FlowRequest(64, RAW, OPING, REQUEST_OAP, cookie=cookie).encode())
    data[bit // 8] ^= 1 << bit % 8
    try:
        message = udp.decode(bytes(data))
    except ProtocolError:
        return
    assert not isinstance(message, FlowRequest) or message.cookie != cookie


@given(st.integers(8, 8 * len(REPLY) - 1))
def test_a_damaged_reply_is_refused_or_has_no_checksum(bit: int) -> None:
    data = bytearray(FlowReply(64, 64, 0, REPLY_OAP, checked=True).encode())
    data[bit // 8] ^= 1 << bit % 8
    try:
        message = udp.decode(bytes(data))
    except ProtocolError:
        return
    assert not isinstance(message, FlowReply) or not message.checked
