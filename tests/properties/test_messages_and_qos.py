"""Whatever the pieces that a stream arrives in, and whatever is in it: messages come out whole, or a ProtocolError."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from ouroboros.errors import ProtocolError
from ouroboros.qos import UINT32_MAX, UINT64_MAX, QoSSpec
from ouroboros.wire import control as messages
from ouroboros.wire.control import (
    Accept,
    Alloc,
    BindProgram,
    Dealloc,
    Done,
    Failed,
    Granted,
    Hello,
    ListNames,
    MessageReader,
    Request,
)

UINT32 = st.integers(0, UINT32_MAX)
QOS = st.builds(
    QoSSpec,
    delay=UINT32,
    bandwidth=st.integers(0, UINT64_MAX),
    availability=st.integers(0, 255),
    loss=UINT32,
    ber=UINT32,
    in_order=st.booleans() | st.integers(0, 1),
    max_gap=UINT32,
    cypher_s=st.integers(0, 65535),
    timeout=UINT32,
)
#: Text that has UTF-8: no surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
TIMEOUT = st.none() | st.floats(allow_nan=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.builds(Hello, INT64, TEXT, INT64),
    st.builds(Alloc, TEXT, QOS, TIMEOUT),
    st.builds(Accept, st.none() | TEXT, TIMEOUT),
    st.builds(Dealloc, INT64, INT64),
    st.builds(BindProgram, TEXT, TEXT, st.booleans(), st.lists(TEXT)),
    st.just(ListNames()),
)
ANSWERS = st.one_of(
    st.builds(Done, st.none() | INT64 | TEXT),
    st.builds(Failed, TEXT, TEXT),
    st.builds(Granted, INT64, QOS, INT64, INT64),
)


def read(reader: MessageReader) -> list[bytes]:
    bodies = []
    while (body := reader.next()) is not None:
        bodies.append(body)
    return bodies


@given(requests=st.lists(REQUESTS, max_size=8), data=st.data())
def test_any_split_of_the_stream_gives_the_same_messages(requests: list[Request], data: st.DataObject) -> None:
    stream = b"".join(map(messages.encode, requests))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = MessageReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        found += [messages.decode_request(body) for body in read(reader)]
    assert found == requests


@given(answer=ANSWERS)
def test_any_answer_survives_its_trip(answer: Done | Failed | Granted) -> None:
    reader = MessageReader()
    reader.feed(messages.encode(answer))
    (body,) = read(reader)
    assert messages.decode_answer(body) == answer


def damage(body: bytes, position: int, byte: int) -> bytes:
    position %= len(body)
    return body[:position] + bytes([byte]) + body[position + 1 :]


GARBAGE = st.one_of(
    st.binary(),
    st.recursive(
        st.none() | st.booleans() | INT64 | st.floats() | TEXT | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=10,
    ).map(msgspec.msgpack.encode),
    st.builds(
        damage, REQUESTS.map(lambda request: messages.encode(request)[4:]), st.integers(0, 1000), st.integers(0, 255)
    ),
    st.builds(
        lambda tag, fields: msgspec.msgpack.encode([tag, *fields]),
        st.sampled_from(["Alloc", "Accept", "Dealloc", "Done", "Granted", "BindProgram"]),
        st.lists(st.none() | INT64 | TEXT | st.lists(st.none() | INT64 | TEXT), max_size=6),
    ),
)


@given(body=GARBAGE)
def test_anything_is_a_message_or_a_protocol_error(body: bytes) -> None:
    for decode in (messages.decode_request, messages.decode_answer):
        try:
            message = decode(body)
        except ProtocolError:
            continue
        assert isinstance(message, msgspec.Struct)


@given(stream=st.binary(), limit=st.integers(0, 64), cut=st.integers(0, 200))
def test_any_stream_is_cut_or_refused_alike_in_one_piece_and_in_two(stream: bytes, limit: int, cut: int) -> None:
    def outcome(pieces: list[bytes]) -> tuple[list[bytes], bool]:
        reader, bodies = MessageReader(limit), []
        try:
            for piece in pieces:
                reader.feed(piece)
                while (body := reader.next()) is not None:
                    bodies.append(body)
        except ProtocolError:
            return bodies, True
        return bodies, False

    bodies, refused = outcome([stream])
    assert all(len(body) <= limit for body in bodies)
    assert outcome([stream[:cut], stream[cut:]]) == (bodies, refused)


# --- quality of service


@given(spec=QOS)
def test_any_spec_survives_its_trip(spec: QoSSpec) -> None:
    data = msgspec.msgpack.encode(spec)
    assert msgspec.msgpack.decode(data, type=QoSSpec) == spec
    assert msgspec.msgpack.decode(data) == [getattr(spec, field) for field in QoSSpec.__struct_fields__]


@given(field=st.sampled_from(QoSSpec.__struct_fields__), value=st.integers())
def test_a_number_is_kept_or_refused_by_the_name_of_its_field(field: str, value: int) -> None:
    try:
        spec = QoSSpec(**{field: value})
    except ValueError as error:
        refusal = str(error)
    else:
        assert getattr(spec, field) == value
        assert 0 <= value <= UINT64_MAX
        return
    assert refusal.startswith(f"QoSSpec: {field} must be from 0 to ")
    assert refusal.endswith(f"not {value}")


@given(values=st.lists(st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none() | st.text(), max_size=9))
def test_a_spec_from_the_wire_passes_the_same_checks(values: list[object]) -> None:
    fields = dict(zip(QoSSpec.__struct_fields__, values, strict=False))
    try:
        spec = msgspec.msgpack.decode(msgspec.msgpack.encode(values), type=QoSSpec)
    except msgspec.ValidationError:
        booleans = any(isinstance(value, bool) for value in values)
        if not booleans:
            with pytest.raises((TypeError, ValueError)):
                QoSSpec(**fields)  # type: ignore[arg-type]
        return
    assert QoSSpec(**fields) == spec  # type: ignore[arg-type]


@given(spec=QOS)
def test_any_spec_has_a_cube_and_reliable_means_ordered(spec: QoSSpec) -> None:
    assert spec.cube in ("voice", "video", "best effort")
    assert spec.ordered or not spec.reliable
