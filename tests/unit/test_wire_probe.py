"""Probes byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.errors import ProtocolError
from ouroboros.wire.unicast import probe
from ouroboros.wire.unicast.probe import LENGTH, MOST_STEPS, TEXT_LENGTH, Answer, Probe

ADDRESSES = st.integers(1, 2**32 - 1)
PROBES = st.builds(
    Probe,
    id=st.integers(0, 2**64 - 1),
    source=ADDRESSES,
    target=ADDRESSES,
    wait=st.integers(0, 65535).map(lambda milliseconds: milliseconds / 1000),
    via=st.integers(0, 2**32 - 1),
    steps=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1)), max_size=MOST_STEPS).map(tuple),
)
TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=TEXT_LENGTH)
ANSWERS = st.builds(
    Answer,
    id=st.integers(0, 2**64 - 1),
    end=st.booleans(),
    answered=st.booleans(),
    rank=st.integers(0, 255),
    at=st.integers(0, 2**32 - 1),
    deeper=st.booleans(),
    asked=st.booleans(),
    round_trip=st.none() | st.integers(0, 2**32 - 1).map(lambda micros: micros / 1e6),
    layer=TEXTS,
    type=TEXTS,
    member=TEXTS,
    address=TEXTS,
)


def test_a_probe_is_these_bytes() -> None:
    message = Probe(0x0102030405060708, 0xA1B2C3D4, 0x1FD48C8B, 1.5, 0x99, ((3, 0x11), (255, 0)))
    fixed = "01 00 0102030405060708 05dc a1b2c3d4 1fd48c8b 00000099 02 03 00000011 ff 00000000"
    assert message.encode() == bytes.fromhex(fixed).ljust(LENGTH, b"\0")


def test_an_answer_is_these_bytes() -> None:
    message = Answer(7, True, True, 2, 0x1FD48C8B, True, True, 0.002, "campus", "unicast", "m1", "8b.8c.d4.1f")
    fixed = bytes.fromhex("02 00 0000000000000007 0f 02 1fd48c8b 000007d0")
    assert message.encode() == (fixed + b"\6campus\7unicast\2m1\x0b8b.8c.d4.1f").ljust(LENGTH, b"\0")


@given(PROBES | ANSWERS)
def test_what_is_said_is_what_is_heard(message: Probe | Answer) -> None:
    data = message.encode()
    assert len(data) == LENGTH
    assert probe.decode(data) == message


@given(
    st.binary(max_size=LENGTH + 8)
    | st.binary(min_size=LENGTH - 2, max_size=LENGTH - 2).map(lambda data: b"\2\0" + data)
)
def test_any_bytes_are_a_message_or_an_error_of_the_peer(data: bytes) -> None:
    try:
        message = probe.decode(data)
    except ProtocolError:
        return
    assert isinstance(message, Probe | Answer)


@pytest.mark.parametrize(
    ("at", "byte", "field"),
    [(0, 3, "kind"), (0, 0, "kind"), (1, 1, "version"), (24, 9, "count")],
)
def test_a_wrong_field_is_named(at: int, byte: int, field: str) -> None:
    data = bytearray(Probe(1, 2, 3, 1.0).encode())
    data[at] = byte
    with pytest.raises(ProtocolError, match=f"^{field}:"):
        probe.decode(bytes(data))


def test_nothing_is_asked_for_nobody_or_by_nobody() -> None:
    for source, target, field in ((0, 1, "source"), (1, 0, "target")):
        with pytest.raises(ProtocolError, match=f"^{field}:"):
            probe.decode(Probe(1, source, target, 1.0).encode())


def test_texts_are_cut_between_characters_and_hostile_ones_are_refused() -> None:
    long = Answer(1, True, True, member="é" * 40)
    decoded = probe.decode(long.encode())
    assert isinstance(decoded, Answer)
    assert decoded.member == "é" * 31
    for text in (b"\1\x1b", b"\2\xc3\x28", bytes((TEXT_LENGTH + 1,))):
        with pytest.raises(ProtocolError, match=r"^layer:"):
            probe.decode((Answer(1, True, True).encode()[:20] + text).ljust(LENGTH, b"\0"))


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="9 steps"):
        Probe(1, 2, 3, 1.0, steps=((1, 0),) * 9).encode()
