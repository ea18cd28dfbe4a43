"""Link-state updates: the bytes of the C prototype, and what members of ours say to each other in other lengths."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ouroboros.errors import ProtocolError
from ouroboros.wire.unicast import lsu
from ouroboros.wire.unicast.lsu import Acknowledgement, LinkStateUpdate, Updates

#: `unicast-control.md` 13.3.
A, B, C = 0x5DE9D31B, 0x80ACF665, 0x07C0FBAC
VECTORS = {
    "000000005de9d31b 0000000080acf665 0000000000000000": LinkStateUpdate(A, B, 0),
    "0000000080acf665 000000005de9d31b 0000000000000000": LinkStateUpdate(B, A, 0),
    "0000000080acf665 000000005de9d31b 0000000000000001": LinkStateUpdate(B, A, 1),
    "000000005de9d31b 0000000080acf665 0000000000000002": LinkStateUpdate(A, B, 2),
    "0000000007c0fbac 0000000080acf665 0000000000000000": LinkStateUpdate(C, B, 0),
    "0000000080acf665 0000000007c0fbac 0000000000000000": LinkStateUpdate(B, C, 0),
}

_addresses = st.integers(lsu.LEAST_ADDRESS, lsu.MOST_ADDRESS)
_pairs = st.tuples(_addresses, _addresses).filter(lambda pair: pair[0] != pair[1])
_updates = st.builds(
    lambda pair, *rest: LinkStateUpdate(*pair, *rest),
    _pairs,
    st.integers(0, lsu.MOST_NUMBER),
    st.booleans(),
    st.integers(0, lsu.MOST_AGE),
    st.integers(0, lsu.MOST_LENGTH),
    st.integers(0, lsu.MOST_LENGTH),
)
_ids = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("text", VECTORS)
def test_golden_update(text: str) -> None:
    data, update = bytes.fromhex(text), VECTORS[text]
    assert lsu.decode(data) == update
    assert lsu.decode(data, ours=True) == update
    assert update.encode() == data


@given(st.builds(Updates, _ids, st.lists(_updates, min_size=1, max_size=lsu.MOST_UPDATES).map(tuple)))
def test_updates_come_back_as_they_were(message: Updates) -> None:
    assert lsu.decode(message.encode(), ours=True) == message


@given(st.builds(Acknowledgement, st.lists(_ids, min_size=1, max_size=lsu.MOST_IDS).map(tuple)))
def test_acknowledgement_comes_back_as_it_was(message: Acknowledgement) -> None:
    assert lsu.decode(message.encode(), ours=True) == message


def test_no_message_of_ours_is_as_long_as_an_update_of_the_prototype() -> None:
    update = LinkStateUpdate(A, B, 1)
    lengths = [len(Updates(0, (update,) * n).encode()) for n in range(1, lsu.MOST_UPDATES + 1)]
    lengths += [len(Acknowledgement((0,) * n).encode()) for n in range(1, lsu.MOST_IDS + 1)]
    assert lsu.LENGTH not in lengths


@pytest.mark.parametrize("room", [0, 37, 67, 68, 500, 1400])
def test_updates_fit_where_they_are_said_to(room: int) -> None:
    count = lsu.fitting(room)
    size = len(Updates(0, (LinkStateUpdate(A, B, 1),) * count).encode())
    assert size <= max(room, 37)
    assert count == lsu.MOST_UPDATES or size + 31 > room


@pytest.mark.parametrize(
    ("destination", "source", "text"),
    [
        (A, A, "source: 0x5de9d31b has itself as neighbour"),
        (0, A, "destination: 0x0 is no address"),
        (A, 0, "source: 0x0 is no address"),
        (A, 0xFFFF, "source: 0xffff is no address"),
        (1, A, "destination: 0x1 is no address"),
        (A, 1 << 32, "source: 0x100000000 is no address"),
    ],
)
def test_updates_that_harm_the_prototype_are_refused(destination: int, source: int, text: str) -> None:
    update = LinkStateUpdate(destination, source, 7)
    with pytest.raises(ProtocolError, match=text):
        lsu.decode(update.encode())
    with pytest.raises(ProtocolError, match=text):
        lsu.decode(Updates(1, (LinkStateUpdate(A, B, 1), update)).encode(), ours=True)


@pytest.mark.parametrize("length", [0, 1, 23, 25, 48])
def test_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"length: {length} bytes; a link-state update has 24"):
        lsu.decode(b"\1" * length)


def test_prototype_is_not_believed_in_messages_of_ours() -> None:
    with pytest.raises(ProtocolError, match="length"):
        lsu.decode(Updates(1, (LinkStateUpdate(A, B, 1),)).encode())


def test_a_withdrawal_is_never_said_as_a_link() -> None:
    with pytest.raises(ValueError, match="withdrawal"):
        LinkStateUpdate(A, B, 1, withdrawn=True).encode()


def test_messages_longer_than_a_receiver_takes_are_not_made() -> None:
    with pytest.raises(ValueError, match="49 updates; a message takes 48"):
        Updates(1, (LinkStateUpdate(A, B, 1),) * 49).encode()
    with pytest.raises(ValueError, match="257 ids; a message takes 256"):
        Acknowledgement((1,) * 257).encode()


@given(st.binary(max_size=1500), st.booleans())
def test_bytes_of_a_stranger_are_read_or_refused(data: bytes, ours: bool) -> None:
    try:
        message = lsu.decode(data, ours=ours)
    except ProtocolError:
        return
    assert ours or isinstance(message, LinkStateUpdate)
