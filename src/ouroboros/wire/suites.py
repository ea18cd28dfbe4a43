"""The algorithms that two nodes can agree on: numbers on the wire, words in files, ranks and sizes.

Source: `security.md` 4. A rank is the place in the order from weakest to strongest; it is only ever compared.
"""

from __future__ import annotations

import msgspec


class Cipher(msgspec.Struct, frozen=True):
    """How packets are encrypted. Sizes are bytes; without a tag nothing notices that a packet was altered."""

    name: str
    number: int
    rank: int
    key: int
    iv: int
    tag: int

    @property
    def strength(self) -> int:
        """The size of its key in bits, as `QoSSpec.cypher_s` counts."""
        return 8 * self.key

    @property
    def authenticated(self) -> bool:
        return self.tag > 0

    @property
    def overhead(self) -> int:
        """Bytes by which a packet grows."""
        return self.iv + self.tag


class Hash(msgspec.Struct, frozen=True):
    """A hash, for deriving keys and for signatures. `size` is bytes, `python` what hashlib calls it."""

    name: str
    number: int
    rank: int
    size: int
    python: str


class Kex(msgspec.Struct, frozen=True):
    """A key exchange. It has no number: the receiver sees by the key which one it is.

    `kem`: one side encapsulates a secret for the other's key, instead of each sending a key. `hybrid`: an ML-KEM key
    and an elliptic one together, without a DER wrapping.
    """

    name: str
    rank: int
    kem: bool = False
    hybrid: bool = False


CIPHERS = (
    Cipher("aes-128-ctr", 904, 1, 16, 16, 0),
    Cipher("aes-192-ctr", 905, 2, 24, 16, 0),
    Cipher("aes-256-ctr", 906, 3, 32, 16, 0),
    Cipher("aes-128-gcm", 895, 4, 16, 12, 16),
    Cipher("aes-192-gcm", 898, 5, 24, 12, 16),
    Cipher("aes-256-gcm", 901, 6, 32, 12, 16),
    Cipher("chacha20-poly1305", 1018, 7, 32, 12, 16),
)

# The SHA-3 numbers are those on the wire; the prototype's header file has others.
HASHES = (
    Hash("blake2s256", 1057, 1, 32, "blake2s"),
    Hash("sha256", 672, 2, 32, "sha256"),
    Hash("sha3-256", 1097, 3, 32, "sha3_256"),
    Hash("sha384", 673, 4, 48, "sha384"),
    Hash("sha3-384", 1098, 5, 48, "sha3_384"),
    Hash("blake2b512", 1056, 6, 64, "blake2b"),
    Hash("sha512", 674, 7, 64, "sha512"),
    Hash("sha3-512", 1099, 8, 64, "sha3_512"),
)

KEXES = (
    Kex("ffdhe2048", 1),
    Kex("prime256v1", 2),
    Kex("X25519", 3),
    Kex("ffdhe3072", 4),
    Kex("secp384r1", 5),
    Kex("ffdhe4096", 6),
    Kex("X448", 7),
    Kex("secp521r1", 8),
    Kex("ML-KEM-512", 9, kem=True),
    Kex("ML-KEM-768", 10, kem=True),
    Kex("ML-KEM-1024", 11, kem=True),
    Kex("X25519MLKEM768", 12, kem=True, hybrid=True),
    Kex("X448MLKEM1024", 13, kem=True, hybrid=True),
)

CIPHER_BY_NUMBER = {cipher.number: cipher for cipher in CIPHERS}
CIPHER_BY_NAME = {cipher.name: cipher for cipher in CIPHERS}
HASH_BY_NUMBER = {hash.number: hash for hash in HASHES}
HASH_BY_NAME = {hash.name: hash for hash in HASHES}
KEX_BY_NAME = {kex.name: kex for kex in KEXES}
