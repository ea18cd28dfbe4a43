"""Whatever somebody on the way does to a request or a response: an error, or exactly what would have been without it."""

from __future__ import annotations

from functools import cache
from random import Random

import hypothesis.strategies as st
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from hypothesis import given, settings
from oap_support import NOW, Authority

from ouroboros.errors import ProtocolError
from ouroboros.oap import ClientHandshake, Encryption, OapError, Server, Session, Settings
from ouroboros.oap.certificates import Certificate
from ouroboros.oap.encodings import identify
from ouroboros.oap.negotiation import AVAILABLE
from ouroboros.wire.oap import FIXED_SIZE, ID_SIZE, Header, decode
from ouroboros.wire.suites import CIPHER_BY_NUMBER, CIPHERS, HASH_BY_NUMBER, HASHES, KEXES

ROOT = Authority()
PLAIN = Settings()
ENCRYPTED = Settings(Encryption("X25519"))
SIGNED = Settings(Encryption("X25519"), credentials=ROOT.issue("oping"), trust=ROOT.trust)
SIDES = {"plain": PLAIN, "encrypted": ENCRYPTED, "signed": SIGNED}

CIPHER_NUMBERS = st.sampled_from([0, *CIPHER_BY_NUMBER])
HASH_NUMBERS = st.sampled_from([0, *HASH_BY_NUMBER])


@st.composite
def headers(draw: st.DrawFn, response: bool = False) -> Header:
    certificate = draw(st.binary(max_size=100))
    return Header(
        id=draw(st.binary(min_size=ID_SIZE, max_size=ID_SIZE)),
        timestamp=draw(st.integers(0, 2**64 - 1)),
        cipher=draw(CIPHER_NUMBERS),
        kdf=draw(HASH_NUMBERS),
        digest=draw(HASH_NUMBERS),
        certificate=certificate,
        kex=draw(st.binary(max_size=100)),
        raw=draw(st.booleans()),
        encapsulated=draw(st.booleans()),
        data=draw(st.binary(max_size=100)),
        request_hash=draw(st.binary(min_size=48, max_size=48)) if response else b"",
        signature=draw(st.binary(max_size=80)) if certificate else b"",
    )


# --- the decoder


@given(headers())
def test_a_request_comes_back_as_it_was(header: Header) -> None:
    assert decode(header.encode()) == header


@given(headers(response=True))
def test_a_response_comes_back_as_it_was(header: Header) -> None:
    assert decode(header.encode(), 48) == header


@given(st.binary(max_size=300), st.sampled_from([0, 32, 48, 64]))
def test_bytes_are_a_protocol_error_or_encode_to_themselves(message: bytes, hash_size: int) -> None:
    try:
        header = decode(message, hash_size)
    except ProtocolError:
        return
    assert header.encode() == message


@given(headers(), st.data())
def test_changed_bytes_are_a_protocol_error_or_encode_to_themselves(header: Header, data: st.DataObject) -> None:
    message = bytearray(header.encode())
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    for changed in (bytes(message), bytes(message[:cut])):
        try:
            assert decode(changed).encode() == changed
        except ProtocolError:
            continue


@given(headers(), st.integers(0, FIXED_SIZE - 1))
def test_a_message_that_is_shorter_than_its_fixed_part_is_refused(header: Header, size: int) -> None:
    with pytest.raises(ProtocolError, match="the least is 36"):
        decode(header.encode()[:size])


@pytest.mark.parametrize("at", [30, 32, 34])
def test_a_field_that_is_longer_than_the_message_is_refused(at: int) -> None:
    message = bytearray(Header(id=bytes(16), timestamp=NOW).encode())
    message[at : at + 2] = b"\x3f\xff"
    with pytest.raises(ProtocolError, match="its fields are to have"):
        decode(bytes(message))


@given(st.integers(1, 0xFFFF), st.sampled_from([24, 26, 28]))
def test_a_number_that_is_not_in_the_tables_is_refused(number: int, at: int) -> None:
    message = bytearray(Header(id=bytes(16), timestamp=NOW).encode())
    message[at : at + 2] = number.to_bytes(2)
    known = CIPHER_BY_NUMBER if at == 24 else HASH_BY_NUMBER
    if number in known:
        decode(bytes(message))
        return
    with pytest.raises(ProtocolError, match=f"number {number}"):
        decode(bytes(message))


def test_the_numbers_of_the_prototypes_header_file_are_not_those_on_the_wire() -> None:
    assert {hash.name: hash.number for hash in HASHES if hash.name.startswith("sha3-")} == {
        "sha3-256": 1097,
        "sha3-384": 1098,
        "sha3-512": 1099,
    }
    assert 1096 not in HASH_BY_NUMBER
    assert [kex.rank for kex in KEXES] == list(range(1, 14))
    assert [cipher.rank for cipher in CIPHERS] == list(range(1, 8))
    assert [hash.rank for hash in HASHES] == list(range(1, 9))


@given(st.binary(max_size=1700), st.booleans())
def test_bytes_are_no_key(key: bytes, raw: bool) -> None:
    # A hybrid has no encoding but its size.
    assert identify(key, raw) in ((None, "X25519MLKEM768", "X448MLKEM1024") if raw else (None,))


# --- a server and a changed request


@cache
def request_of(side: str) -> bytes:
    return ClientHandshake("oping", SIDES[side], random=Random(1), wall=NOW, data=b"to you").request


@cache
def response_to(side: str) -> tuple[bytes, Session]:
    return Server().receive(request_of(side), SIDES[side], NOW).respond(random=Random(2), wall=NOW, data=b"to me")


def serve(side: str, request: bytes) -> tuple[bytes, Session]:
    return Server().receive(request, SIDES[side], NOW).respond(random=Random(2), wall=NOW)


def finish(side: str, response: bytes) -> Session:
    client = ClientHandshake("oping", SIDES[side], random=Random(1), wall=NOW, data=b"to you")
    # Signatures are random: this is the client of that request.
    client.request = request_of(side)
    return client.finish(response)


@pytest.mark.parametrize("side", SIDES)
@given(data=st.data())
def test_a_flipped_bit_in_a_request_gives_a_client_that_knows(side: str, data: st.DataObject) -> None:
    request = bytearray(request_of(side))
    bit = data.draw(st.integers(0, 8 * len(request) - 1))
    request[bit // 8] ^= 1 << bit % 8
    try:
        received = Server().receive(bytes(request), SIDES[side], NOW)
        response, _ = received.respond(random=Random(2), wall=NOW)
    except OapError:
        return
    assert side != "signed"
    # The server has accepted something else; the hash of the request tells the client.
    with pytest.raises(OapError, match=r"not one to this request|response is none"):
        finish(side, response)


@pytest.mark.slow
def test_no_bit_of_a_signed_message_can_be_flipped() -> None:
    request, (response, _) = request_of("signed"), response_to("signed")
    for bit in range(8 * len(request)):
        changed = bytearray(request)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OapError):
            Server().receive(bytes(changed), SIGNED, NOW)
    for bit in range(8 * len(response)):
        changed = bytearray(response)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OapError):
            finish("signed", bytes(changed))


#: Not protected without a signature, and without meaning for the client: when the response was made, and by which hash.
_TIMESTAMP, _DIGEST = range(16, 24), range(28, 30)


def test_a_flipped_bit_of_an_unsigned_response_never_gives_another_suite_without_being_seen() -> None:
    """The key, a stronger cipher and the data can be changed by who is on the way; that is what signatures are for."""
    response, _ = response_to("encrypted")
    good = finish("encrypted", response)
    for bit in range(8 * len(response)):
        changed = bytearray(response)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            session = finish("encrypted", bytes(changed))
        except OapError:
            assert bit // 8 not in _TIMESTAMP
            continue
        assert session.strength >= good.strength
        if bit // 8 in _TIMESTAMP or bit // 8 in _DIGEST:
            assert session == good
        else:
            assert session.key != good.key or session.data != good.data


@pytest.mark.parametrize("side", SIDES)
@given(data=st.data())
def test_a_truncated_or_longer_message_is_refused(side: str, data: st.DataObject) -> None:
    for message, take in ((request_of(side), serve), (response_to(side)[0], finish)):
        size = data.draw(st.integers(0, len(message) - 1))
        longer = message + data.draw(st.binary(min_size=1, max_size=40))
        for changed in (message[:size], longer):
            with pytest.raises(OapError):
                take(side, changed)


@pytest.mark.parametrize("side", SIDES)
def test_reflected_messages_are_refused(side: str) -> None:
    request, (response, _) = request_of(side), response_to(side)
    with pytest.raises(OapError):
        finish(side, request)
    server = Server()
    server.receive(request, SIDES[side], NOW)
    with pytest.raises(OapError):
        server.receive(response, SIDES[side], NOW)


@pytest.mark.parametrize("side", SIDES)
def test_a_response_counts_once_and_for_one_request(side: str) -> None:
    client = ClientHandshake("oping", SIDES[side], random=Random(7), wall=NOW)
    response, accepted = Server().receive(client.request, SIDES[side], NOW).respond(random=Random(8), wall=NOW)
    with pytest.raises(OapError, match=r"not one to this request|response is none"):
        client.finish(response_to(side)[0])
    assert client.finish(response).key == accepted.key
    with pytest.raises(OapError, match="here before"):
        client.finish(response)


@pytest.mark.parametrize("kex", AVAILABLE)
@given(data=st.data())
@settings(max_examples=10)
def test_a_changed_key_is_refused_or_gives_other_keys(kex: str, data: st.DataObject) -> None:
    client = ClientHandshake("oping", Settings(Encryption(kex)), random=Random(1), wall=NOW)
    header = decode(client.request)
    key = bytearray(header.kex)
    key[data.draw(st.integers(0, len(key) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        received = Server().receive(msgspec.structs.replace(header, kex=bytes(key)).encode(), PLAIN, NOW)
        response, _ = received.respond(random=Random(2), wall=NOW)
    except OapError:
        return
    with pytest.raises(OapError, match="not one to this request"):
        client.finish(response)


# --- certificates


@pytest.mark.slow
@given(st.data())
@settings(max_examples=300)
def test_a_changed_certificate_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """Around what was signed there are bits that can be written in two ways, such as those behind a signature's end."""
    der = bytearray(_certificate())
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        changed = Certificate(bytes(der))
        ROOT.trust.verify(changed, NOW)
    except OapError:
        return
    original = Certificate(_certificate())
    assert changed.x509.tbs_certificate_bytes == original.x509.tbs_certificate_bytes
    assert changed.name == original.name


@cache
def _certificate() -> bytes:
    return ROOT.issue("oping", key=derive_private_key(1234567, SECP256R1())).certificate


@given(st.binary(max_size=400))
def test_bytes_are_no_certificate(der: bytes) -> None:
    with pytest.raises(OapError, match="cannot be read"):
        Certificate(der)
