"""Handshakes and packets that were captured from the C prototype: ours are the same, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from oap_support import REQUEST_AT, RESPONSE_AT, VECTORS, Script, as_random
from packet_twin import Rejected, Twin, key_chain, phase, seal, unseal

from ouroboros.oap import ClientHandshake, Encryption, Server, Session, Settings, encodings, exchange
from ouroboros.oap.certificates import Certificate, TrustStore
from ouroboros.oap.derivation import Shared, hkdf
from ouroboros.oap.exchange import StaticKey
from ouroboros.wire.oap import decode
from ouroboros.wire.suites import CIPHER_BY_NAME, CIPHER_BY_NUMBER, HASH_BY_NAME, HASH_BY_NUMBER

HANDSHAKES = [
    VECTORS["handshake_p256"],
    *VECTORS["handshakes_by_kex"],
    *VECTORS["handshakes_by_cipher"],
    *VECTORS["handshakes_by_kdf"],
]
IDS = [f"{each['kex']}-{each['cipher']}-{each['kdf']}" for each in HANDSHAKES]
SERVER_KEMS = [each for each in VECTORS["kem"] if "client_mlkem_seed" in each]


def hexed(vector: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(vector[key])


def client_of(request: bytes, kex: str, *secrets: bytes, trust: TrustStore | None = None) -> ClientHandshake:
    """The client that sends this request, signature apart."""
    header = decode(request)
    encryption = Encryption(
        kex,
        CIPHER_BY_NUMBER[header.cipher].name,
        HASH_BY_NUMBER[header.kdf].name,
        HASH_BY_NUMBER[header.digest].name,
    )
    random = Script([*secrets, header.id])
    settings = Settings(encryption, trust=trust)
    return ClientHandshake("oping", settings, random=random, wall=header.timestamp, data=header.data)


def check_packets(session: Session, vector: dict[str, Any]) -> None:
    cipher = CIPHER_BY_NUMBER[session.cipher]
    for way in ("client_to_server", "server_to_client"):
        plain = "packet_plaintext" if way == "client_to_server" else "packet_server_plaintext"
        assert unseal(cipher, bytes(session.key), hexed(vector, f"packet_{way}")) == hexed(vector, plain)


# --- a key each way


@pytest.mark.parametrize("vector", HANDSHAKES, ids=IDS)
def test_client_sends_the_captured_request_and_derives_the_key_from_the_captured_response(
    vector: dict[str, Any],
) -> None:
    request = hexed(vector, "udp_request")[REQUEST_AT:]
    client = client_of(request, vector["kex"], as_random(vector["kex"], hexed(vector, "client_private")))
    assert client.request == request
    session = client.finish(hexed(vector, "udp_reply")[RESPONSE_AT:])
    assert session.key == hexed(vector, "key")
    assert session.suite == f"{vector['kex']}, {vector['cipher']}, {vector['kdf']}"
    assert session.strength == 8 * CIPHER_BY_NAME[vector["cipher"]].key
    for packet in vector["packets"]:
        opened = unseal(CIPHER_BY_NUMBER[session.cipher], bytes(session.key), hexed(packet, "udp")[4:])
        assert opened == hexed(packet, "plaintext")


@pytest.mark.parametrize("vector", HANDSHAKES, ids=IDS)
def test_server_sends_the_captured_response_and_derives_the_key(vector: dict[str, Any]) -> None:
    request, response = hexed(vector, "udp_request")[REQUEST_AT:], hexed(vector, "udp_reply")[RESPONSE_AT:]
    header = decode(response, 32)
    settings = Settings(Encryption(vector["kex"], vector["cipher"], vector["kdf"], HASH_BY_NUMBER[header.digest].name))
    received = Server().receive(request, settings, decode(request).timestamp)
    random = Script([as_random(vector["kex"], hexed(vector, "server_private"))])
    encoded, session = received.respond(random=random, wall=header.timestamp)
    assert encoded == response
    assert session.key == hexed(vector, "key")


def test_secret_of_a_finite_field_loses_its_leading_zeros() -> None:
    vector = VECTORS["ffdhe_leading_zero"]
    one, other = hexed(vector, "spki_a"), hexed(vector, "spki_b")
    assert (encodings.identify(one, False), encodings.identify(other, False)) == ("ffdhe2048", "ffdhe2048")
    offer = exchange.offer("ffdhe2048", Script([as_random("ffdhe2048", hexed(vector, "private_a"))]))
    assert offer.kex == one
    assert offer.finish(other).key(HASH_BY_NAME["sha256"]) == hexed(vector, "key")
    sent, shared = exchange.answer("ffdhe2048", one, Script([as_random("ffdhe2048", hexed(vector, "private_b"))]))
    assert sent == other
    assert shared.key(HASH_BY_NAME["sha256"]) == hexed(vector, "key")
    used = Shared.dhe(hexed(vector, "shared_secret_used"), one, other)
    assert used.key(HASH_BY_NAME["sha256"]) == hexed(vector, "key")


# --- encapsulation


@pytest.mark.parametrize("vector", SERVER_KEMS, ids=lambda vector: vector["name"].split()[0])
def test_client_opens_what_the_server_encapsulated(vector: dict[str, Any]) -> None:
    request, kex = hexed(vector, "request"), vector["name"].split()[0]
    secrets = [hexed(vector, key) for key in ("client_mlkem_seed", "client_x_private") if key in vector]
    client = client_of(request, kex, *secrets)
    assert client.request == request
    session = client.finish(hexed(vector, "response"))
    assert session.key == hexed(vector, "key")
    check_packets(session, vector)


def test_server_opens_what_a_client_encapsulated_for_its_published_key() -> None:
    vector = next(each for each in VECTORS["kem"] if "server_static_mlkem_seed" in each)
    private = MLKEM768PrivateKey.from_seed_bytes(hexed(vector, "server_static_mlkem_seed"))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    settings = Settings(Encryption("ML-KEM-768"), static=(StaticKey(pem),))
    request, response = hexed(vector, "request"), hexed(vector, "response")
    wall = decode(response, 32).timestamp
    encoded, session = Server().receive(request, settings, wall).respond(random=Script([]), wall=wall)
    assert encoded == response
    assert session.key == hexed(vector, "key")
    check_packets(session, vector)


# --- certificates


def test_captured_certificates_and_signatures_are_accepted_and_the_key_is_the_captured_one() -> None:
    vector = VECTORS["authenticated"][0]
    root = x509.load_der_x509_certificate(hexed(vector, "root_ca_der")).public_bytes(Encoding.PEM)
    trust = TrustStore({"root.pem": root})
    request, response = hexed(vector, "request"), hexed(vector, "response")
    header = decode(request)
    received = Server().receive(request, Settings(trust=trust), header.timestamp)
    assert received.peer_name == Certificate(header.certificate).name == "alice"
    client = client_of(request, "X25519", hexed(vector, "client_x25519_private"), trust=trust)
    # The signature of the captured request is another client's.
    assert request[36:].startswith(header.certificate + client.request[36:])
    client.request = request
    session = client.finish(response)
    assert session.peer_name == "oping"
    assert session.key == hexed(vector, "key")
    check_packets(session, vector)


def test_derivation_from_captured_secrets_gives_the_captured_keys() -> None:
    for vector in [*HANDSHAKES, *VECTORS["authenticated"]]:
        kdf = HASH_BY_NAME[vector.get("kdf", "sha256")].python
        made = hkdf(kdf, hexed(vector, "shared_secret"), hexed(vector, "hkdf_salt"), b"o7s-ossl-dhe")
        assert made == hexed(vector, "key")
    for vector in VECTORS["kem"]:
        made = hkdf("sha256", hexed(vector, "shared_secret"), hexed(vector, "hkdf_salt"), b"o7s-ossl-encap")
        assert made == hexed(vector, "key")


# --- packets


@pytest.mark.parametrize("vector", VECTORS["packets_fixed_key"], ids=lambda vector: vector["cipher"])
def test_twin_opens_and_makes_the_packets_of_the_prototype(vector: dict[str, Any]) -> None:
    packet, plain = hexed(vector, "packet"), hexed(vector, "plaintext")
    cipher = CIPHER_BY_NUMBER[vector["nid"]]
    assert cipher.name == vector["cipher"]
    assert unseal(cipher, hexed(vector, "key"), packet) == plain
    assert seal(cipher, hexed(vector, "key"), packet[: cipher.iv], plain, phase(packet)) == packet


@pytest.mark.parametrize("name", ["rotation", "rotation_live"])
def test_key_chain_opens_packets_of_each_epoch(name: str) -> None:
    vector = VECTORS[name]
    keys = [bytes.fromhex(each) for each in vector["keys"]]
    assert key_chain(keys[0], len(keys)) == keys
    twin = Twin(901, keys[0])
    for packet in vector["packets"]:
        encrypted = hexed(packet, "packet")
        assert phase(encrypted) == packet["phase_bit"]
        assert unseal(CIPHER_BY_NUMBER[901], keys[packet["epoch"]], encrypted) == hexed(packet, "plaintext")
        assert twin.open(encrypted) == hexed(packet, "plaintext")
        assert twin.epoch == packet["epoch"]


def test_encrypted_frcp_packets_open_apart_from_the_broken_retransmission() -> None:
    vector = VECTORS["frcp_encrypted"]
    twin = Twin(CIPHER_BY_NAME[vector["cipher"]].number, hexed(vector, "key"))
    broken = 0
    for packet in vector["packets"]:
        if "note" in packet:
            broken += 1
            with pytest.raises(Rejected):
                twin.open(hexed(packet, "packet"))
        else:
            assert twin.open(hexed(packet, "packet")) == hexed(packet, "plaintext")
    assert broken == 1


def test_header_of_every_captured_message_encodes_to_the_same_bytes() -> None:
    for vector in HANDSHAKES:
        request, response = hexed(vector, "udp_request")[REQUEST_AT:], hexed(vector, "udp_reply")[RESPONSE_AT:]
        assert decode(request).encode() == request
        assert decode(response, 32).encode() == response
