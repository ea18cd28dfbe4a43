"""What comes out when two sides want different things, and what `cypher_s` adds."""

from __future__ import annotations

import contextlib
from random import Random

import msgspec
import pytest
from oap_support import NOW, Authority, shake

from ouroboros.oap import (
    EAUTH,
    ECRYPT,
    ClientHandshake,
    Encryption,
    OapError,
    Policy,
    Server,
    Settings,
    asking,
)
from ouroboros.oap.negotiation import AVAILABLE
from ouroboros.wire.oap import Header, decode
from ouroboros.wire.suites import CIPHER_BY_NAME, CIPHERS, HASH_BY_NUMBER, HASHES, KEX_BY_NAME

X25519 = Encryption("X25519")


def sides(client: str, server: str, item: str) -> tuple[Settings, Settings]:
    replace = msgspec.structs.replace
    return Settings(replace(X25519, **{item: client})), Settings(replace(X25519, **{item: server}))


# --- the table of the prototype


@pytest.mark.parametrize(
    ("client", "server", "agreed"),
    [
        ("aes-128-gcm", "aes-256-gcm", "aes-256-gcm"),
        ("aes-256-gcm", "aes-128-gcm", "aes-256-gcm"),
        ("aes-256-gcm", "chacha20-poly1305", "chacha20-poly1305"),
        ("chacha20-poly1305", "aes-256-gcm", "chacha20-poly1305"),
        ("aes-128-ctr", "aes-256-ctr", "aes-256-ctr"),
        # Not the 128 bits of the prototype: who asked for 256 gets them.
        ("aes-256-ctr", "aes-128-gcm", "aes-256-gcm"),
    ],
)
def test_the_stronger_cipher_is_used(client: str, server: str, agreed: str) -> None:
    allocated, accepted = shake(*sides(client, server, "cipher"))
    assert allocated == accepted
    assert allocated.cipher == CIPHER_BY_NAME[agreed].number
    assert allocated.strength == CIPHER_BY_NAME[agreed].strength


@pytest.mark.parametrize("client", [each.name for each in CIPHERS])
@pytest.mark.parametrize("server", [each.name for each in CIPHERS])
def test_no_side_gets_less_than_it_is_configured_for(client: str, server: str) -> None:
    allocated, _ = shake(*sides(client, server, "cipher"))
    agreed = next(each for each in CIPHERS if each.number == allocated.cipher)
    for wanted in (CIPHER_BY_NAME[client], CIPHER_BY_NAME[server]):
        assert agreed.rank >= wanted.rank
        assert agreed.strength >= wanted.strength


@pytest.mark.parametrize("client", [each.name for each in HASHES])
@pytest.mark.parametrize("server", [each.name for each in HASHES])
def test_the_stronger_derivation_is_used(client: str, server: str) -> None:
    allocated, accepted = shake(*sides(client, server, "kdf"))
    agreed = max((client, server), key=[each.name for each in HASHES].index)
    assert allocated == accepted
    assert allocated.suite is not None
    assert allocated.suite.endswith(agreed)


@pytest.mark.parametrize("client", AVAILABLE)
@pytest.mark.parametrize("server", ["ffdhe2048", "X25519", "secp521r1", "X448MLKEM1024"])
def test_the_exchange_of_the_client_is_used_unless_it_is_weaker(client: str, server: str) -> None:
    settings = sides(client, server, "kex")
    if KEX_BY_NAME[client].rank >= KEX_BY_NAME[server].rank:
        assert shake(*settings)[0].suite == f"{client}, aes-256-gcm, sha256"
        return
    with pytest.raises(
        OapError, match=f"offers {client}, which is weaker; this side wants at least {server}"
    ) as refusal:
        shake(*settings)
    assert refusal.value.code == ECRYPT


def test_a_server_without_configuration_goes_along_and_signs_by_default() -> None:
    client = ClientHandshake("oping", Settings(X25519), random=Random(1), wall=NOW)
    response, session = Server().receive(client.request, Settings(), NOW).respond(random=Random(2), wall=NOW)
    header = decode(response, 32)
    assert (header.cipher, header.kdf, header.digest) == (901, 672, 0)
    assert client.finish(response).key == session.key


def test_a_cipher_without_integrity_is_used_only_where_the_server_asks_for_it() -> None:
    client = Settings(Encryption("X25519", "aes-192-ctr"))
    assert shake(client, Settings())[0].cipher == CIPHER_BY_NAME["aes-192-gcm"].number
    server = Settings(Encryption("X25519", "aes-128-ctr"))
    assert shake(client, server)[0].cipher == CIPHER_BY_NAME["aes-192-ctr"].number


# --- plaintext


@pytest.mark.parametrize(
    "server",
    [Settings(X25519), Settings(policy=Policy(encrypt=True)), Settings(policy=Policy(strength=128))],
    ids=["configured", "policy", "strength"],
)
def test_a_client_without_encryption_is_refused_where_it_is_wanted(server: Settings) -> None:
    client = ClientHandshake("oping", Settings(), random=Random(1), wall=NOW)
    with pytest.raises(OapError, match="client offers no encryption; this side") as refusal:
        Server().receive(client.request, server, NOW)
    assert refusal.value.code == ECRYPT
    assert "this side asks for no encryption, and the server wants more" in str(client.refused(refusal.value.code))


def test_a_refusal_says_what_this_side_wanted_and_what_may_be_wrong() -> None:
    client = ClientHandshake("oping", asking(Settings(), 256), random=Random(1), wall=NOW)
    assert "at least secp521r1, aes-256-gcm, sha3-256 with 256 bits" in str(client.refused(ECRYPT))
    assert "clocks" in str(client.refused(EAUTH))
    assert str(client.refused(-5000)) == "refused by the server (-5000): no reason known"


def answer_with(client: ClientHandshake, **fields: object) -> bytes:
    """A response to the client that somebody on the way has changed; nobody signs it."""
    response, _ = Server().receive(client.request, Settings(), NOW).respond(random=Random(2), wall=NOW)
    header = decode(response, HASH_BY_NUMBER[decode(client.request).digest or 673].size)
    return msgspec.structs.replace(header, **fields).encode()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cipher": 0}, "answers in plaintext; this side wants"),
        ({"cipher": 0, "kex": b"", "kdf": 0}, "answers in plaintext"),
        ({"cipher": 895}, "answers with aes-128-gcm, which is weaker"),
        ({"cipher": 906}, "answers with aes-256-ctr, which is weaker"),
        ({"kdf": 1057}, "derives keys with blake2s256"),
        ({"kex": b""}, "key of the server cannot be used"),
        ({"raw": True}, "a key of another kind"),
        ({"encapsulated": True}, "a key of another kind"),
    ],
)
def test_a_response_that_was_made_weaker_is_refused(fields: dict[str, object], text: str) -> None:
    client = ClientHandshake("oping", Settings(X25519), random=Random(1), wall=NOW)
    with pytest.raises(OapError, match=text) as refusal:
        client.finish(answer_with(client, **fields))
    assert refusal.value.code == ECRYPT


@pytest.mark.parametrize("fields", [{"cipher": 901}, {"kex": b"key"}, {"raw": True}])
def test_a_plain_client_does_not_believe_in_encryption(fields: dict[str, object]) -> None:
    client = ClientHandshake("oping", Settings(), random=Random(1), wall=NOW)
    with pytest.raises(OapError, match="which this side did not offer"):
        client.finish(answer_with(client, **fields))


@pytest.mark.parametrize("fields", [{"raw": True}, {"encapsulated": True}])
def test_a_request_with_flags_but_no_key_is_refused(fields: dict[str, bool]) -> None:
    request = Header(id=bytes(16), timestamp=NOW, raw="raw" in fields, encapsulated="encapsulated" in fields)
    with pytest.raises(OapError, match="sends none") as refusal:
        Server().receive(request.encode(), Settings(), NOW)
    assert refusal.value.code == ECRYPT


def test_a_key_without_a_cipher_is_refused_when_no_side_names_one() -> None:
    client = ClientHandshake("oping", Settings(X25519), random=Random(1), wall=NOW)
    request = msgspec.structs.replace(decode(client.request), cipher=0).encode()
    with pytest.raises(OapError, match="a key but no cipher"):
        Server().receive(request, Settings(), NOW)
    received = Server().receive(request, Settings(X25519), NOW)
    assert received.respond(random=Random(1), wall=NOW)[1].cipher == 901


# --- cypher_s


def test_nothing_is_asked_for_by_0() -> None:
    for settings in (Settings(), Settings(X25519)):
        assert asking(settings, 0) == settings


@pytest.mark.parametrize(
    ("cypher_s", "strength"),
    [(1, 128), (128, 128), (129, 192), (192, 192), (193, 256), (256, 256), (257, 256), (65535, 256)],
)
def test_bits_become_a_suite(cypher_s: int, strength: int) -> None:
    settings = asking(Settings(), cypher_s)
    assert settings.encryption is not None
    assert settings.encryption.kex == "secp521r1"
    assert settings.encryption.kdf == "sha3-256"
    allocated, accepted = shake(settings, Settings())
    assert (allocated.strength, accepted.strength) == (strength, strength)


@pytest.mark.parametrize("kex", AVAILABLE)
@pytest.mark.parametrize("cipher", [each.name for each in CIPHERS])
@pytest.mark.parametrize("cypher_s", [1, 192, 256])
def test_bits_never_weaken_what_is_configured(kex: str, cipher: str, cypher_s: int) -> None:
    own = Encryption(kex, cipher, "sha512", "sha3-512")
    asked = asking(Settings(own), cypher_s).encryption
    assert asked is not None
    assert asked.exchange.rank >= max(own.exchange.rank, KEX_BY_NAME["secp521r1"].rank)
    assert asked.encryption.rank >= own.encryption.rank
    assert asked.encryption.strength >= max(own.encryption.strength, min(cypher_s, 256))
    assert asked.encryption.authenticated
    assert (asked.kdf, asked.digest) == ("sha512", "sha3-512")


def test_asking_twice_is_asking_once() -> None:
    once = asking(Settings(X25519), 256)
    assert asking(once, 256) == asking(once, 0) == asking(once, 128) == once


def test_bits_are_never_answered_with_fewer() -> None:
    client = ClientHandshake("oping", asking(Settings(), 192), random=Random(1), wall=NOW)
    for cipher in (0, 895, 904, 905, 906):
        with pytest.raises(OapError, match=r"weaker|plaintext"):
            client.finish(answer_with(client, cipher=cipher))


def test_a_policy_of_the_client_encrypts_without_configuration() -> None:
    allocated, _ = shake(Settings(policy=Policy(encrypt=True)), Settings())
    assert allocated.strength == 256


@pytest.mark.parametrize("cipher", ["aes-128-gcm", "aes-128-ctr", "aes-192-gcm", "chacha20-poly1305"])
def test_a_policy_of_the_server_raises_the_cipher(cipher: str) -> None:
    client = Settings(Encryption("X25519", cipher))
    for own in (None, Encryption("X25519", "aes-128-gcm")):
        allocated, _ = shake(client, Settings(own, policy=Policy(strength=256)))
        assert allocated.strength == 256


def test_an_exchange_that_cannot_be_done_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(OapError, match="cannot do ML-KEM-512; it does ffdhe2048"):
        ClientHandshake("oping", Settings(Encryption("ML-KEM-512")), random=Random(1), wall=NOW)


# --- order


def test_a_refused_request_is_not_remembered() -> None:
    server, root = Server(), Authority()
    client = ClientHandshake("oping", Settings(credentials=root.issue("alice")), random=Random(1), wall=NOW)
    for _ in range(2):
        with pytest.raises(OapError, match="CA store is empty"):
            server.receive(client.request, Settings(), NOW)
    server.receive(client.request, Settings(trust=root.trust), NOW)
    with pytest.raises(OapError, match="here before"):
        server.receive(client.request, Settings(trust=root.trust), NOW)


def test_a_request_whose_certificate_was_cut_off_is_a_repetition() -> None:
    server, root = Server(), Authority()
    client = ClientHandshake("oping", Settings(credentials=root.issue("alice")), random=Random(1), wall=NOW)
    stripped = msgspec.structs.replace(decode(client.request), certificate=b"", signature=b"").encode()
    server.receive(client.request, Settings(trust=root.trust), NOW)
    with pytest.raises(OapError, match="with or without a certificate"):
        server.receive(stripped, Settings(trust=root.trust), NOW)


def test_a_flood_of_anonymous_requests_does_not_touch_those_that_are_signed() -> None:
    server, root = Server(capacity=10), Authority()
    trusting = Settings(trust=root.trust)
    signed = ClientHandshake("oping", Settings(credentials=root.issue("alice")), random=Random(0), wall=NOW)
    for each in range(1, 101):
        plain = ClientHandshake("oping", Settings(), random=Random(each), wall=NOW + each)
        server.receive(plain.request, trusting, NOW + each)
    server.receive(signed.request, trusting, NOW + 200)
    with pytest.raises(OapError, match="here before"):
        server.receive(signed.request, trusting, NOW + 300)


def test_what_is_cheap_to_refuse_is_refused_before_a_certificate_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Authority()

    def looked(*_: object) -> None:
        raise AssertionError("the certificate was looked at")

    monkeypatch.setattr("ouroboros.oap.certificates.Certificate.__init__", looked)
    settings = Settings(Encryption("secp521r1"), policy=Policy(peers=("alice",)), trust=root.trust)
    signed = Settings(X25519, credentials=root.issue("alice"))
    late = ClientHandshake("oping", signed, random=Random(1), wall=NOW - 10**12)
    weak = ClientHandshake("oping", signed, random=Random(1), wall=NOW)
    anonymous = ClientHandshake("oping", Settings(Encryption("secp521r1")), random=Random(1), wall=NOW)
    for client, text in ((late, "old"), (weak, "weaker"), (anonymous, "no certificate")):
        with pytest.raises(OapError, match=text):
            Server().receive(client.request, settings, NOW)
    with pytest.raises(AssertionError):
        Server().receive(weak.request, Settings(trust=root.trust), NOW)


# --- how much strangers get


def taken(server: Server, settings: Settings, kex: str, wall: int, tries: int) -> int:
    """How many requests of that time are taken, which differ in their ids only."""
    header = decode(ClientHandshake("oping", Settings(Encryption(kex)), random=Random(1), wall=wall).request)
    count = 0
    for each in range(tries):
        with contextlib.suppress(OapError):
            server.receive(msgspec.structs.replace(header, id=each.to_bytes(16)).encode(), settings, wall)
            count += 1
    return count


def test_strangers_get_a_share_of_the_node_for_slow_exchanges_and_no_more() -> None:
    server = Server()
    assert taken(server, Settings(), "ffdhe4096", NOW, 50) == 10
    assert taken(server, Settings(), "ffdhe4096", NOW + 10**8, 50) == 1
    assert taken(server, Settings(), "ffdhe2048", NOW + 10**9, 100) == 54
    # The clock was set back: nothing is gained, nothing is lost for ever.
    assert taken(server, Settings(), "ffdhe4096", NOW - 10**9, 50) == 0
    assert taken(server, Settings(), "ffdhe4096", NOW + 1, 50) == 10
    assert taken(server, Settings(), "X25519", NOW + 2, 100) == 100


def test_clients_that_are_known_are_not_held_up() -> None:
    server, root = Server(), Authority()
    client = Settings(Encryption("ffdhe4096"), credentials=root.issue("alice"))
    taken(server, Settings(), "ffdhe4096", NOW, 50)
    handshake = ClientHandshake("oping", client, random=Random(1), wall=NOW)
    assert server.receive(handshake.request, Settings(trust=root.trust), NOW).peer_name == "alice"
