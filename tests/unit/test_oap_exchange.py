"""Every key exchange, and keys that are none, are another group's, or would give the secret away."""

from __future__ import annotations

import secrets
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from oap_support import NOW, shake

from ouroboros.oap import ECRYPT, ClientHandshake, Encryption, OapError, Server, Settings, encodings, exchange
from ouroboros.oap.derivation import Shared, hkdf
from ouroboros.oap.exchange import PublishedKey, StaticKey
from ouroboros.oap.negotiation import AVAILABLE
from ouroboros.wire.suites import CIPHERS, HASH_BY_NAME, HASHES, KEX_BY_NAME

SHA256 = HASH_BY_NAME["sha256"]
GROUPS = [name for name in AVAILABLE if not KEX_BY_NAME[name].kem]
KEMS = [name for name in AVAILABLE if KEX_BY_NAME[name].kem]


def published_and_static(kex: str) -> tuple[PublishedKey, StaticKey]:
    """As the files of the prototype have it; a hybrid private key is in our own form."""
    if KEX_BY_NAME[kex].hybrid:
        size = encodings.SEED_SIZE + encodings.HYBRID_SIZES[kex][1]
        static = StaticKey(secrets.token_bytes(size))
        return PublishedKey(static.public), static
    private = MLKEM768PrivateKey.generate() if kex == "ML-KEM-768" else MLKEM1024PrivateKey.generate()
    return (
        PublishedKey(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        StaticKey(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    )


def test_the_list_of_what_can_be_done_is_what_can_be_done() -> None:
    assert set(AVAILABLE) == exchange.AVAILABLE


@pytest.mark.parametrize("kex", AVAILABLE)
def test_both_sides_have_the_same_key_and_another_one_each_time(kex: str) -> None:
    keys = []
    for seed in range(2):
        allocated, accepted = shake(Settings(Encryption(kex)), Settings(), seed=seed)
        assert allocated.key == accepted.key
        assert len(allocated.key) == 32
        keys.append(bytes(allocated.key))
    assert len(set(keys)) == 2


@pytest.mark.parametrize("cipher", [each.name for each in CIPHERS])
@pytest.mark.parametrize("kdf", [each.name for each in HASHES])
def test_every_cipher_goes_with_every_derivation(cipher: str, kdf: str) -> None:
    settings = Settings(Encryption("X25519", cipher, kdf))
    allocated, accepted = shake(settings, settings)
    assert allocated == accepted
    assert allocated.suite == f"X25519, {cipher}, {kdf}"


@pytest.mark.parametrize("kex", KEMS)
def test_a_client_can_use_the_published_key_of_the_server(kex: str) -> None:
    published, static = published_and_static(kex)
    client = Settings(Encryption(kex, client_encapsulates=True), published=published)
    for encryption in (None, Encryption("ML-KEM-768")):
        allocated, accepted = shake(client, Settings(encryption, static=(static,)))
        assert allocated.key == accepted.key


def test_a_published_key_says_what_is_missing() -> None:
    published, static = published_and_static("ML-KEM-768")
    client = Settings(Encryption("ML-KEM-768", client_encapsulates=True), published=published)
    with pytest.raises(OapError, match="none of that kind here"):
        shake(client, Settings())
    with pytest.raises(OapError, match="wants at least X25519"):
        shake(client, Settings(Encryption("X25519"), static=(static,)))
    with pytest.raises(OapError, match="derives keys with sha256, this side wants at least sha512"):
        shake(client, Settings(Encryption("ML-KEM-768", kdf="sha512"), static=(static,)))
    other = published_and_static("ML-KEM-1024")[1]
    with pytest.raises(OapError, match="not ours, which is for ML-KEM-1024"):
        shake(client, Settings(static=(other,)))
    for held in (None, published_and_static("ML-KEM-1024")[0]):
        with pytest.raises(OapError, match="wants to use the published key"):
            shake(Settings(Encryption("ML-KEM-768", client_encapsulates=True), published=held), Settings())


def test_a_static_key_is_read_with_and_without_its_expanded_form() -> None:
    private = MLKEM768PrivateKey.generate()
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    seed = private.private_bytes_raw()
    assert encodings.ml_kem_seed(der) == ("ML-KEM-768", seed)
    # As OpenSSL writes it: sizes by hand, from RFC 9935.
    both = bytes.fromhex("308209be020100300b0609608648016503040402048209aa308209a60440") + seed
    both += bytes.fromhex("04820960") + bytes(2400)
    assert encodings.ml_kem_seed(both) == ("ML-KEM-768", seed)
    for wrong in (der[:-1], both[:-1], der + b"\0", b""):
        with pytest.raises(ValueError, match="no ML-KEM key with its seed"):
            encodings.ml_kem_seed(wrong)


def test_files_that_are_no_static_keys_say_so() -> None:
    for file, text in (
        (b"nonsense", "expanded form cannot be used"),
        (bytes(2432), "expanded form cannot be used"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no ML-KEM key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "does not end"),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n", "does not begin"),
    ):
        with pytest.raises(ValueError, match=text):
            StaticKey(file)
    for file in (b"nonsense", bytes(1216 + 1)):
        with pytest.raises(ValueError, match="it is no key for ML-KEM-768"):
            PublishedKey(file)


# --- keys that are none


@pytest.mark.parametrize("kex", AVAILABLE)
@pytest.mark.parametrize("other", AVAILABLE)
def test_an_answer_of_another_exchange_is_refused(kex: str, other: str) -> None:
    if other == kex:
        return
    offer = exchange.offer(kex, Random(1))
    answer, _ = exchange.answer(other, exchange.offer(other, Random(2)).kex, Random(3))
    with pytest.raises(ValueError, match="it is no"):
        offer.finish(answer)


@pytest.mark.parametrize("kex", AVAILABLE)
def test_a_key_of_another_size_is_none(kex: str) -> None:
    key = exchange.offer(kex, Random(1)).kex
    for wrong in (key[:-1], key + b"\0", b"", key * 2):
        assert encodings.identify(wrong, KEX_BY_NAME[kex].hybrid) is None
        with pytest.raises(ValueError, match="it is no"):
            exchange.answer(kex, wrong, Random(1))


@pytest.mark.parametrize(
    "point",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_points_of_small_order_are_refused_on_both_sides(point: str) -> None:
    key = encodings.wrap("X25519", bytes.fromhex(point))
    with pytest.raises(ValueError, match="no good X25519 key"):
        exchange.answer("X25519", key, Random(1))
    with pytest.raises(ValueError, match="no good X25519 key"):
        exchange.offer("X25519", Random(1)).finish(key)
    hybrid = exchange.offer("X25519MLKEM768", Random(1)).kex[:-32] + bytes.fromhex(point)
    with pytest.raises(ValueError, match="no good X25519 key"):
        exchange.answer("X25519MLKEM768", hybrid, Random(1))


@pytest.mark.parametrize("point", ["00" * 56, "01" + "00" * 55, "fe" + "ff" * 27 + "fe" + "ff" * 27])
def test_points_of_small_order_are_refused_on_the_larger_curve(point: str) -> None:
    with pytest.raises(ValueError, match="no good X448 key"):
        exchange.answer("X448", encodings.wrap("X448", bytes.fromhex(point)), Random(1))


@pytest.mark.parametrize(("kex", "size"), [("prime256v1", 32), ("secp384r1", 48), ("secp521r1", 66)])
def test_points_that_are_not_on_the_curve_are_refused(kex: str, size: int) -> None:
    for point in (bytes(2 * size), b"\1" * 2 * size, b"\xff" * 2 * size):
        with pytest.raises(ValueError, match="no good"):
            exchange.answer(kex, encodings.wrap(kex, b"\4" + point), Random(1))
    good = exchange.offer(kex, Random(1)).kex
    at = len(good) - 2 * size - 1
    for form in (0, 2, 3, 6, 7):
        wrong = good[:at] + bytes((form,)) + good[at + 1 :]
        assert encodings.identify(wrong, raw=False) is None


@pytest.mark.parametrize("kex", ["ffdhe2048", "ffdhe3072", "ffdhe4096"])
def test_numbers_of_a_finite_field_have_to_be_between_1_and_the_prime(kex: str) -> None:
    prime = encodings.ffdhe_prime(kex)
    for number in (prime - 1, prime, prime + 1):
        with pytest.raises(ValueError, match="out of range"):
            encodings.unwrap_ffdhe(kex, encodings.wrap_ffdhe(kex, number))
    # So small ones may not even look like a key.
    for number in (0, 1):
        with pytest.raises(ValueError, match=kex):
            encodings.unwrap_ffdhe(kex, encodings.wrap_ffdhe(kex, number))
    for number in (prime - 2, 1 << (prime.bit_length() - 10)):
        assert encodings.unwrap_ffdhe(kex, encodings.wrap_ffdhe(kex, number)) == number


@pytest.mark.slow
def test_primes_are_safe_and_of_their_size() -> None:
    for kex, bits in (("ffdhe2048", 2048), ("ffdhe3072", 3072), ("ffdhe4096", 4096)):
        prime = encodings.ffdhe_prime(kex)
        assert prime.bit_length() == bits
        # Fermat, for the prime and for half of it, which is the order of 2.
        assert pow(3, prime - 1, prime) == 1
        assert pow(3, prime // 2 - 1, prime // 2) == 1
        assert pow(2, prime // 2, prime) == 1


def test_a_finite_field_with_another_generator_or_prime_is_not_known() -> None:
    key = bytearray(exchange.offer("ffdhe2048", Random(1)).kex)
    at = bytes(key).index(b"\x02\x01\x02") + 2
    for position in (at, 100, 10):
        wrong = bytearray(key)
        wrong[position] ^= 1
        assert encodings.identify(bytes(wrong), raw=False) is None


def test_ml_kem_keys_with_coefficients_out_of_range_are_refused() -> None:
    for kex, size in (("ML-KEM-768", 1184), ("ML-KEM-1024", 1568)):
        with pytest.raises(ValueError, match="no good"):
            exchange.answer(kex, encodings.wrap(kex, b"\xff" * size), Random(1))


def test_ml_kem_512_and_unknown_curves_are_refused_before_anything_is_computed() -> None:
    secp256k1 = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200") + b"\4" + bytes(64)
    for key, text in (
        (encodings.wrap("ML-KEM-512", bytes(800)), "offers ML-KEM-512, which this node cannot do"),
        (secp256k1, "of a kind that is not known"),
    ):
        client = ClientHandshake("oping", Settings(Encryption("X25519")), random=Random(1), wall=NOW)
        request = client.request[:32] + len(key).to_bytes(2) + client.request[34:36] + key
        with pytest.raises(OapError, match=text) as refusal:
            Server().receive(request, Settings(), NOW)
        assert refusal.value.code == ECRYPT


# --- secrets


@pytest.mark.parametrize("kex", AVAILABLE)
def test_no_text_of_any_object_has_the_key_in_it(kex: str) -> None:
    settings = Settings(Encryption(kex))
    handshake = ClientHandshake("oping", settings, random=Random(1), wall=NOW)
    received = Server().receive(handshake.request, settings, NOW)
    response, accepted = received.respond(random=Random(2), wall=NOW)
    allocated = handshake.finish(response)
    key = bytes(allocated.key)
    texts = "".join(map(repr, (handshake, received, allocated, accepted, allocated.__rich_repr__(), vars(handshake))))
    assert repr(key)[2:-1] not in texts
    assert key.hex() not in texts


def test_a_key_can_be_overwritten() -> None:
    session, _ = shake(Settings(Encryption("X25519")), Settings())
    session.wipe()
    assert session.key == bytes(32)


def test_a_secret_is_overwritten_by_making_the_key() -> None:
    shared = Shared(b"secret", b"salt", b"info")
    assert shared.key(SHA256) == hkdf("sha256", b"secret", b"salt", b"info")
    assert b"secret" not in bytes(shared._secret)
