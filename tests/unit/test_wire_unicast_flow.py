"""Messages between flow allocators: bytes of the prototype, and bytes of anybody."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.errors import ProtocolError
from ouroboros.qos import UINT32_MAX, QoSSpec
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest, Message
from ouroboros.wire.unicast import flow

OURS, THEIRS = 0x8DF402C2, 0x1FD48C8B
RAW = QoSSpec(delay=UINT32_MAX, loss=1, ber=1, max_gap=UINT32_MAX)
DIGEST = hashlib.sha3_256(b"oping").digest()

#: Captured (`unicast-data.md` 10.1, 10.6).
REQUEST = bytes.fromhex(
    "000000008df402c2 0000000000000000 a3c1c94300000042 0000000000000000 00000000 ffffffff 00000001 00000001 ffffffff"
    "0001d4c0 0000 00 00 00 42dee3b0415b4f690fd91cbd99876f1e9bd8d9745ef7fa32b142773af0349d54"
    "9e5ffd8b373342c145fec1bc17d41bd9 18ec2252fcef2dda 000000000000000000000000"
)
REPLY = bytes.fromhex(
    "0000000000000000 a3c1c94300000042 f6888cef00000042 0000000000000000 00000000 00000000 00000000 00000000 00000000"
    "00000000 0000 01 00 00 9e5ffd8b373342c145fec1bc17d41bd9 18ec2252fcfefa6f 000000000000000000000000"
    "00fd0ebfc908e8ab6aec216d6d1d27533fa5e8f38c42d1ac9fbae4ddf6d9d08e4ac0a6ae56e6ba737de6ee63834e5294"
)
REFUSAL = bytes.fromhex(
    f"0000000000000000 a3c1c94300000042 0000000000000040 0000000000000000 fffffc15 {'00' * 20} 0000 01 00 00"
)
MESSAGES: list[tuple[Message, int, bytes]] = [
    (FlowRequest(0xA3C1C94300000042, RAW, DIGEST, REQUEST[93:]), OURS, REQUEST),
    (FlowReply(0xA3C1C94300000042, 0xF6888CEF00000042, 0, REPLY[61:]), 0, REPLY),
    (FlowReply(0xA3C1C94300000042, 0, -1003, b""), 0, REFUSAL),
]


@pytest.mark.parametrize(("message", "sender", "data"), MESSAGES, ids=["request", "reply", "refusal"])
def test_messages_are_those_of_the_prototype(message: Message, sender: int, data: bytes) -> None:
    assert flow.encode(message, OURS) == data
    assert flow.decode(data, 32) == (message, sender)


def test_an_update_of_the_engine_is_no_message_of_control() -> None:
    with pytest.raises(ProtocolError, match="code"):
        flow.decode(bytes(58) + b"\2\0\0", 32)


eids = st.integers(64, 2**64 - 2)
u32 = st.integers(0, 2**32 - 1)
specs = st.builds(
    QoSSpec,
    delay=u32,
    bandwidth=st.integers(0, 2**64 - 1),
    availability=st.integers(0, 255),
    loss=u32,
    ber=u32,
    in_order=st.integers(0, 1),
    max_gap=u32,
    timeout=u32,
)
messages = st.one_of(
    st.builds(FlowRequest, eids, specs, st.binary(min_size=28, max_size=28), st.binary(max_size=1959)),
    st.builds(FlowReply, eids, eids, st.just(0), st.binary(max_size=1987)),
    st.builds(FlowReply, eids, st.just(0), st.integers(-(2**31), -1), st.just(b"")),
    st.builds(FlowDealloc, eids, eids, st.booleans()),
    st.builds(FlowDeallocAck, eids, eids),
)


@given(messages, st.integers(1, 2**32 - 1))
def test_what_is_encoded_is_what_is_decoded(message: Message, address: int) -> None:
    decoded, sender = flow.decode(flow.encode(message, address), 28)
    assert decoded == message
    assert sender == (0 if isinstance(message, FlowReply) else address)


@given(st.binary(max_size=80) | st.builds(bytes.__add__, st.just(REQUEST), st.binary(max_size=8)))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message, address = flow.decode(data, 32)
    except ProtocolError:
        return
    assert address < 2**32
    if not isinstance(message, FlowReply):
        assert address > 0


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [
        (0, 0, "s_addr"),
        (0, 2**32, "s_addr"),
        (16, 63, "s_eid"),
        (16, 2**64 - 1, "s_eid"),
    ],
)
def test_a_request_of_nobody_is_refused(at: int, value: int, field: str) -> None:
    data = bytearray(REQUEST)
    struct.pack_into(">Q", data, at, value)
    with pytest.raises(ProtocolError, match=field):
        flow.decode(bytes(data), 32)


@pytest.mark.parametrize("length", [0, 60, 92, 2049])
def test_lengths_that_no_request_has(length: int) -> None:
    with pytest.raises(ProtocolError, match=r"length|digest"):
        flow.decode((REQUEST + bytes(2048))[:length], 32)


def test_what_a_receiver_cannot_take_is_not_sent() -> None:
    with pytest.raises(ValueError, match="2048"):
        flow.encode(FlowReply(64, 65, 0, bytes(1988)), OURS)


def test_a_positive_response_is_none() -> None:
    data = bytearray(REPLY)
    struct.pack_into(">i", data, 32, 7)
    with pytest.raises(ProtocolError, match="response"):
        flow.decode(bytes(data), 32)
