"""Messages of layers on an Ethernet segment: those of the prototype as they were captured, and ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.errors import ProtocolError
from ouroboros.qos import QOS_RAW, UINT32_MAX, QoSSpec
from ouroboros.wire.ethernet import DIX, LAYOUTS, LLC, Layout, Message, NameQuery, NameReply
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest

OPING = bytes.fromhex("42dee3b0415b4f690fd91cbd99876f1e9bd8d9745ef7fa32b142773af0349d54")
ZEROS = "00" * 28

# Captured (`shims.md` 8.2, 8.3), from the endpoint id of the frame on.
DIX_REQUEST_OAP = bytes.fromhex("ae26d438a22f9d3e389fb6275bc22e6e 18ea6d754b4dd939 000000000000000000000000")
DIX_REPLY_OAP = bytes.fromhex(
    "ae26d438a22f9d3e389fb6275bc22e6e 18ea6d754b7e7f87 000000000000000000000000"
    "a51f28737636a1f375e28970783b29109aa6f512405e93e0133661bdc4333cc7ee6b60cd04c58a6f3973529355772802"
)
LLC_OAP = bytes.fromhex("d3680d188609fbdda74056bcb63f605c 18ea6d7799eba557 000000000000000000000000")
_RAW = QoSSpec(delay=UINT32_MAX, loss=1, ber=1, in_order=0, max_gap=UINT32_MAX, timeout=120_000)
_QOS = "00000001 0000000000000000 00000001 ffffffff ffffffff 0001d4c0 00000000"

VECTORS = [
    pytest.param(DIX, NameQuery(OPING), bytes.fromhex(f"0000 0000 {ZEROS} 00000000 00 02 00") + OPING, id="dix query"),
    pytest.param(
        DIX, NameReply(OPING), bytes.fromhex(f"0000 0000 {ZEROS} 00000000 00 03 00") + OPING, id="dix query reply"
    ),
    pytest.param(
        DIX,
        FlowRequest(64, _RAW, OPING, DIX_REQUEST_OAP),
        bytes.fromhex(f"0040 0000 {_QOS} 00 00 00") + OPING + DIX_REQUEST_OAP,
        id="dix request",
    ),
    pytest.param(
        DIX,
        FlowReply(64, 64, 0, DIX_REPLY_OAP),
        bytes.fromhex(f"0040 0040 {ZEROS} 00000000 00 01 00") + DIX_REPLY_OAP,
        id="dix reply",
    ),
    pytest.param(LLC, NameQuery(OPING), bytes.fromhex("00 00 02 00") + bytes(33) + OPING, id="llc query"),
    pytest.param(
        LLC,
        FlowRequest(2, _RAW, OPING, LLC_OAP),
        bytes.fromhex(f"02 00 00 00 {_QOS} 00") + OPING + LLC_OAP,
        id="llc request",
    ),
    pytest.param(
        LLC, FlowReply(2, 3, 0, DIX_REPLY_OAP), bytes.fromhex("03 02 01 00") + bytes(33) + DIX_REPLY_OAP, id="llc reply"
    ),
]


@pytest.mark.parametrize(("layout", "message", "captured"), VECTORS)
def test_messages_are_those_of_the_prototype(layout: Layout, message: Message, captured: bytes) -> None:
    assert layout.encode(message) == bytes(4) + captured
    assert layout.decode(bytes(4) + captured, len(OPING)) == message


def messages(layout: Layout) -> st.SearchStrategy[Message]:
    eids = st.sampled_from(layout.eids)
    digests, rests = st.binary(min_size=32, max_size=32), st.binary(max_size=80)
    return st.one_of(
        st.builds(FlowRequest, eids, st.just(QOS_RAW), digests, rests),
        st.builds(FlowReply, eids, eids, st.just(0), rests, st.integers(0, 2**32 - 1)),
        st.builds(FlowReply, eids, st.just(0), st.integers(-(2**31), -1), st.just(b"")),
        st.builds(FlowDealloc, eids, eids, st.booleans()),
        st.builds(FlowDeallocAck, eids, eids),
        st.builds(NameQuery, digests),
        st.builds(NameReply, digests),
    )


@given(st.sampled_from([DIX, LLC]).flatmap(lambda layout: st.tuples(st.just(layout), messages(layout))))
def test_what_is_written_is_read(case: tuple[Layout, Message]) -> None:
    layout, message = case
    assert layout.decode(layout.encode(message), 32) == message


@given(st.sampled_from([DIX, LLC]), st.binary(max_size=120), st.integers(0, 255), st.booleans())
def test_no_message_does_harm(layout: Layout, data: bytes, code: int, known: bool) -> None:
    data = bytes(4) + data
    at = 4 + (37 if layout is DIX else 2)
    if known and len(data) > at:
        data = data[:at] + bytes([code % 4]) + data[at + 1 :]
    try:
        message = layout.decode(data, 32)
    except ProtocolError:
        return
    # Padding behind a query, and what a refusal has, mean nothing.
    assert layout.decode(layout.encode(message), 32) == message


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (bytes(4 + 38), "length"),
        (b"\0\0\0\x01" + bytes(39), "EID"),
        (bytes(4 + 37) + b"\x09\0", "code"),
        (bytes(4 + 37) + b"\0\0", "digest"),
        (bytes(4 + 37) + b"\0\0" + OPING, "seid"),
        (bytes(4 + 37) + b"\x01\0", "deid"),
        (b"\0\0\0\0\0\x01\0\x01" + bytes(28) + b"\0\0\0\x01" + b"\0\x01\0", "response"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, field: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{field}:"):
        DIX.decode(data, 32)


def test_ids_that_harm_the_prototype_are_never_given_away() -> None:
    assert set(LAYOUTS["eth-llc"].eids) == set(range(2, 64))
    assert 0 not in LAYOUTS["eth-dix"].eids
