"""Key exchanges. The client makes an offer, the server answers it, and both have the same `Shared`.

Three ways, told apart by the request: each side sends a key (Diffie and Hellman); the client sends a key and the server
a secret encapsulated for it; the client sends a secret encapsulated for a key that the server has published. The last
one has no forward secrecy: who gets at the server's key can read what was recorded before.

Every function raises `ValueError` for a key or a ciphertext of the peer that is bad. Source: `security.md` 5.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ouroboros.oap import encodings
from ouroboros.oap.derivation import Shared
from ouroboros.oap.session import Random
from ouroboros.wire.suites import KEX_BY_NAME


class Offer:
    """What a client sends, and how it gets the secret out of the answer."""

    def __init__(self, kex: bytes, finish: Callable[[bytes], Shared], *, encapsulated: bool = False) -> None:
        self.kex = kex
        self.encapsulated = encapsulated
        self.finish = finish


def offer(kex: str, random: Random) -> Offer:
    """Offer a fresh key."""
    if KEX_BY_NAME[kex].kem:
        own = _KEMS[kex](random)
        return Offer(own.public, lambda ciphertext: Shared.kem(own.open(ciphertext), own.public))
    own = _GROUPS[kex](random)
    return Offer(own.public, lambda peer: Shared.dhe(own.open(peer), own.public, peer))


def answer(kex: str, key: bytes, random: Random) -> tuple[bytes, Shared]:
    """The answer to the offer of a key."""
    if KEX_BY_NAME[kex].kem:
        ciphertext, secret = _seal(kex, key, random)
        return ciphertext, Shared.kem(secret, key)
    own = _GROUPS[kex](random)
    return own.public, Shared.dhe(own.open(key), own.public, key)


class PublishedKey:
    """The key of a server, as its clients have it: SubjectPublicKeyInfo in PEM, or for a hybrid the raw bytes."""

    def __init__(self, file: bytes) -> None:
        raw = not encodings.is_pem(file)
        self.public = file if raw else encodings.pem_body(file, "PUBLIC KEY")
        kex = encodings.identify(self.public, raw)
        if kex not in _KEMS:
            raise ValueError(f"it is no key for {', '.join(_KEMS)}")
        self.kex = kex

    def offer(self, random: Random) -> Offer:
        """Offer a secret that is encapsulated for the key."""
        ciphertext, secret = _seal(self.kex, self.public, random)

        def finish(answer: bytes) -> Shared:
            if answer:
                raise ValueError("there is a key where none belongs")
            return Shared.kem(secret, self.public)

        return Offer(ciphertext, finish, encapsulated=True)


class StaticKey:
    """The key that a server has published, private part: PKCS#8 in PEM, or for a hybrid the bare seed and key."""

    def __init__(self, file: bytes) -> None:
        self.kex, self._own = _ml_kem_from_pem(file) if encodings.is_pem(file) else _hybrid_from_raw(file)
        self.hybrid = KEX_BY_NAME[self.kex].hybrid
        self.public = self._own.public

    def open(self, ciphertext: bytes) -> Shared:
        return Shared.kem(self._own.open(ciphertext), self.public)


# --- key pairs


class _Pair:
    """A public key as it is sent, and how its owner gets a secret out of what the peer sends."""

    def __init__(self, public: bytes, open: Callable[[bytes], bytes]) -> None:
        self.public = public
        self.open = open


def _x25519(random: Random) -> _Pair:
    private = X25519PrivateKey.from_private_bytes(random.randbytes(32))

    # Refuses the points of small order, with which the secret would be zero.
    def agree(peer: bytes) -> bytes:
        with _refusing("X25519"):
            return private.exchange(X25519PublicKey.from_public_bytes(peer))

    return _Pair(private.public_key().public_bytes_raw(), agree)


def _x448(random: Random) -> _Pair:
    private = X448PrivateKey.from_private_bytes(random.randbytes(56))

    def agree(peer: bytes) -> bytes:
        with _refusing("X448"):
            return private.exchange(X448PublicKey.from_public_bytes(peer))

    return _Pair(private.public_key().public_bytes_raw(), agree)


def _on_curve(kex: str, curve: ec.EllipticCurve, random: Random) -> _Pair:
    size = (curve.group_order.bit_length() + 7) // 8
    # With 64 bits to spare, no scalar is likelier than another.
    number = int.from_bytes(random.randbytes(size + 8)) % (curve.group_order - 1) + 1
    private = ec.derive_private_key(number, curve)

    # Refuses points that are not on the curve.
    def agree(peer: bytes) -> bytes:
        with _refusing(kex):
            return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, peer))

    return _Pair(private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint), agree)


def _in_field(kex: str, random: Random) -> _Pair:
    """By Python's integers: OpenSSL has these groups, but `cryptography` is about to drop them.

    `pow` takes a time that depends on the exponent, but each exponent is used with one number only.
    """
    prime = encodings.ffdhe_prime(kex)
    private = int.from_bytes(random.randbytes(encodings.ffdhe_exponent_size(kex)))

    def agree(peer: bytes) -> bytes:
        secret = pow(encodings.unwrap_ffdhe(kex, peer), private, prime)
        # The prototype drops zero bytes in front, here and only here.
        return secret.to_bytes((secret.bit_length() + 7) // 8)

    return _Pair(encodings.wrap_ffdhe(kex, pow(2, private, prime)), agree)


def _ml_kem_768(random: Random) -> _Pair:
    return _ml_kem("ML-KEM-768", mlkem.MLKEM768PrivateKey.from_seed_bytes(random.randbytes(encodings.SEED_SIZE)))


def _ml_kem_1024(random: Random) -> _Pair:
    return _ml_kem("ML-KEM-1024", mlkem.MLKEM1024PrivateKey.from_seed_bytes(random.randbytes(encodings.SEED_SIZE)))


def _ml_kem(kex: str, private: mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey) -> _Pair:
    def decapsulate(ciphertext: bytes) -> bytes:
        with _refusing(kex):
            return private.decapsulate(ciphertext)

    return _Pair(private.public_key().public_bytes_raw(), decapsulate)


def _hybrid(kex: str, make_kem: _Make, make_group: _Make, random: Random) -> _Pair:
    """Both together, ML-KEM first: who breaks one of them has nothing yet."""
    kem, group = make_kem(random), make_group(random)

    def open(ciphertext: bytes) -> bytes:
        at = len(ciphertext) - len(group.public)
        if at <= 0:
            raise ValueError(f"it is no {kex} ciphertext")
        return kem.open(ciphertext[:at]) + group.open(ciphertext[at:])

    return _Pair(kem.public + group.public, open)


def _in_der(kex: str, bare: _Pair, *, kem: bool = False) -> _Pair:
    """The same pair with its public key, and that of the peer, as SubjectPublicKeyInfo. A ciphertext stays bare."""
    public = encodings.wrap(kex, bare.public)
    return _Pair(public, bare.open if kem else lambda peer: bare.open(encodings.unwrap(kex, peer)))


_Make = Callable[[Random], _Pair]

_GROUPS: dict[str, _Make] = {
    "ffdhe2048": lambda random: _in_field("ffdhe2048", random),
    "prime256v1": lambda random: _in_der("prime256v1", _on_curve("prime256v1", ec.SECP256R1(), random)),
    "X25519": lambda random: _in_der("X25519", _x25519(random)),
    "ffdhe3072": lambda random: _in_field("ffdhe3072", random),
    "secp384r1": lambda random: _in_der("secp384r1", _on_curve("secp384r1", ec.SECP384R1(), random)),
    "ffdhe4096": lambda random: _in_field("ffdhe4096", random),
    "X448": lambda random: _in_der("X448", _x448(random)),
    "secp521r1": lambda random: _in_der("secp521r1", _on_curve("secp521r1", ec.SECP521R1(), random)),
}

_KEMS: dict[str, _Make] = {
    "ML-KEM-768": lambda random: _in_der("ML-KEM-768", _ml_kem_768(random), kem=True),
    "ML-KEM-1024": lambda random: _in_der("ML-KEM-1024", _ml_kem_1024(random), kem=True),
    "X25519MLKEM768": lambda random: _hybrid("X25519MLKEM768", _ml_kem_768, _x25519, random),
    "X448MLKEM1024": lambda random: _hybrid("X448MLKEM1024", _ml_kem_1024, _x448, random),
}

#: The exchanges that this node can do.
AVAILABLE = frozenset((*_GROUPS, *_KEMS))

# --- encapsulation


def _seal(kex: str, public: bytes, random: Random) -> tuple[bytes, bytes]:
    """Ciphertext and secret for the owner of a key."""
    if not KEX_BY_NAME[kex].hybrid:
        return _SEALS[kex](encodings.unwrap(kex, public))
    size, _ = encodings.HYBRID_SIZES[kex]
    kem, make_group = ("ML-KEM-768", _x25519) if kex == "X25519MLKEM768" else ("ML-KEM-1024", _x448)
    ephemeral = make_group(random)
    ciphertext, secret = _SEALS[kem](public[:size])
    return ciphertext + ephemeral.public, secret + ephemeral.open(public[size:])


def _seal_768(bare: bytes) -> tuple[bytes, bytes]:
    with _refusing("ML-KEM-768"):
        secret, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(bare).encapsulate()
        return ciphertext, secret


def _seal_1024(bare: bytes) -> tuple[bytes, bytes]:
    with _refusing("ML-KEM-1024"):
        secret, ciphertext = mlkem.MLKEM1024PublicKey.from_public_bytes(bare).encapsulate()
        return ciphertext, secret


_SEALS = {"ML-KEM-768": _seal_768, "ML-KEM-1024": _seal_1024}


@contextlib.contextmanager
def _refusing(kex: str) -> Iterator[None]:
    """What the library raises, in the words of this module."""
    try:
        yield
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"it is no good {kex} key") from error


# --- files


class _Stored:
    """Bytes that were random when they were made."""

    def __init__(self, stored: bytes) -> None:
        self._rest = stored

    def randbytes(self, n: int, /) -> bytes:
        taken, self._rest = self._rest[:n], self._rest[n:]
        return taken


def _ml_kem_from_pem(file: bytes) -> tuple[str, _Pair]:
    kex, seed = encodings.ml_kem_seed(encodings.pem_body(file, "PRIVATE KEY"))
    if kex not in _KEMS:
        raise ValueError(f"it is a key for {kex}, and this node does {', '.join(_KEMS)}")
    return kex, _KEMS[kex](_Stored(seed))


def _hybrid_from_raw(file: bytes) -> tuple[str, _Pair]:
    for kex, (_, size) in encodings.HYBRID_SIZES.items():
        if len(file) == encodings.SEED_SIZE + size:
            return kex, _KEMS[kex](_Stored(file))
    raise ValueError(
        f"it has {len(file)} bytes; a hybrid key has 96 or 120, ML-KEM seed and elliptic key "
        "(an ML-KEM key in expanded form cannot be used)"
    )
