"""Messages between members of a layer: what we make comes out as it went in; bytes of strangers are a message or a
`ProtocolError`."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from ouroboros._arguments import NAME_LENGTH
from ouroboros.errors import ProtocolError
from ouroboros.settings import (
    AddressAuthPolicy,
    BroadcastSettings,
    CongestionAvoidPolicy,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    LinkStateConfig,
    LinkStatePolicy,
    RoutingConfig,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.wire.unicast import cep, dht, enrollment
from ouroboros.wire.unicast.cep import Cep, Ours
from ouroboros.wire.unicast.dht import Contact, FindNode, FindValue, NodeFound, Store, ValueFound
from ouroboros.wire.unicast.enrollment import Ack, Configuration, Request, Response

UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
ADDRESS = st.integers(1, 2**32 - 1)
SECONDS = st.integers(1, 2**32 - 1)
KEY_LENGTH = 28
KEY = st.binary(min_size=KEY_LENGTH, max_size=KEY_LENGTH)
ID = st.binary(min_size=8, max_size=8)
NAME = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=NAME_LENGTH).filter(
    lambda text: len(text.encode()) <= NAME_LENGTH and text.isprintable()
)

CEP = st.builds(
    Cep,
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    ADDRESS | st.just(0),
    st.none()
    | st.builds(Ours, UINT32, UINT32, UINT64, st.just("") | st.text("aé", max_size=9), st.integers(1, 2**32 - 1)),
)


def fits(names: tuple[str, ...]) -> bool:
    """Whether so many may enroll."""
    return sum(4 + len(name.encode()) for name in names) <= 512


UNICAST = st.builds(
    UnicastConfig,
    st.builds(
        DtConfig,
        st.just(4),
        st.just(8),
        st.integers(1, 255),
        st.builds(
            RoutingConfig,
            ls=st.builds(LinkStateConfig, st.sampled_from(LinkStatePolicy), SECONDS, SECONDS, SECONDS),
        ),
    ),
    st.builds(
        DirConfig,
        dht=st.builds(
            DhtConfig,
            st.integers(1, 10),
            st.integers(1, 20),
            st.integers(10, 86400),
            st.integers(3, 3600),
            st.integers(3, 3600),
        ),
    ),
    st.sampled_from(AddressAuthPolicy),
    st.sampled_from(CongestionAvoidPolicy),
    st.sampled_from([("anyone",), ("certified",), ("nobody",)])
    | st.lists(NAME, min_size=1, max_size=9).map(tuple).filter(fits),
)
HASH = st.sampled_from(DirectoryHashAlgo)
CONFIGURATION = st.builds(Configuration, NAME, st.builds(UnicastSettings, HASH, unicast=UNICAST), ADDRESS) | st.builds(
    Configuration, NAME, st.builds(BroadcastSettings, HASH), st.none()
)
WALL = st.integers(-(10**18), 10**19)
RESPONSE = st.builds(Response, ID, WALL, CONFIGURATION) | st.builds(Response, ID, WALL, st.none(), NAME)

CONTACT = st.builds(Contact, KEY, ADDRESS)
CONTACTS = st.lists(CONTACT, min_size=1, max_size=dht.MOST_CONTACTS).map(tuple)
ADDRESSES = st.lists(ADDRESS, max_size=dht.MOST_VALUES).map(tuple)
DHT = (
    st.builds(Store, CONTACT, KEY, ADDRESS, UINT32)
    | st.builds(FindNode, CONTACT, UINT64, KEY)
    | st.builds(FindValue, CONTACT, UINT64, KEY)
    | st.builds(NodeFound, CONTACT, UINT64, KEY, CONTACTS)
    | st.builds(ValueFound, CONTACT, UINT64, KEY, CONTACTS, ADDRESSES)
)

_Decode = Callable[[bytes], msgspec.Struct]

#: Messages, and how each is decoded.
KINDS: dict[str, tuple[st.SearchStrategy[msgspec.Struct], _Decode]] = {
    "cep": (CEP, cep.decode),
    "request": (st.builds(Request, ID), enrollment.decode_request),
    "response": (RESPONSE, enrollment.decode_response),
    "ack": (st.builds(Ack, ID, INT32), enrollment.decode_ack),
    "dht": (DHT, lambda data: dht.decode(data, KEY_LENGTH)),
}
ALL = pytest.mark.parametrize("kind", KINDS)


@ALL
@given(st.data())
def test_messages_come_out_as_they_went_in(kind: str, data: st.DataObject) -> None:
    messages, decode = KINDS[kind]
    message = data.draw(messages)
    assert decode(message.encode()) == message  # type: ignore[attr-defined]


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[msgspec.Struct]) -> bytes:
    """A message of which some bytes are missing, others or more."""
    message = bytearray(draw(messages).encode())  # type: ignore[attr-defined]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(message)))
        message[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=12))
    return bytes(message)


@ALL
@given(st.data())
def test_bytes_of_strangers_are_a_message_or_refused(kind: str, data: st.DataObject) -> None:
    messages, decode = KINDS[kind]
    try:
        message = decode(data.draw(damaged(messages) | st.binary(max_size=200)))
    except ProtocolError:
        return
    # What we took we could say ourselves, but for answers of the directory without a contact that can be.
    if getattr(message, "contacts", True) and getattr(message, "note", "") == "":
        assert decode(message.encode()) == message  # type: ignore[attr-defined]
