"""How the keys of an exchange look on the wire, and which exchange a key belongs to. Source: `security.md` 5.

Nothing but bytes: so a request is sorted out before anything is computed with its key. A key is taken in exactly one
encoding, which leaves nothing to a parser.
"""

from __future__ import annotations

import base64
from functools import cache

# What comes before the bare key in a SubjectPublicKeyInfo, and the size of the bare key. A point of a curve keeps the
# byte that says that it is uncompressed, but the prefix fixes its value.
_PREFIXES = {
    "prime256v1": (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), 65),
    "secp384r1": (bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"), 97),
    "secp521r1": (bytes.fromhex("30819b301006072a8648ce3d020106052b8104002303818600"), 133),
    "X25519": (bytes.fromhex("302a300506032b656e032100"), 32),
    "X448": (bytes.fromhex("3042300506032b656f033900"), 56),
    "ML-KEM-512": (bytes.fromhex("30820332300b06096086480165030404010382032100"), 800),
    "ML-KEM-768": (bytes.fromhex("308204b2300b0609608648016503040402038204a100"), 1184),
    "ML-KEM-1024": (bytes.fromhex("30820632300b06096086480165030404030382062100"), 1568),
}
_UNCOMPRESSED = 4
_CURVES = ("prime256v1", "secp384r1", "secp521r1")

#: Sizes of a hybrid key, ML-KEM first.
HYBRID_SIZES = {"X25519MLKEM768": (1184, 32), "X448MLKEM1024": (1568, 56)}
#: Sizes of what is encapsulated for a key.
CIPHERTEXT_SIZES = {"ML-KEM-768": 1088, "ML-KEM-1024": 1568, "X25519MLKEM768": 1120, "X448MLKEM1024": 1624}

#: Bits of the prime, and the number that its definition in RFC 7919 adds.
_FFDHE = {"ffdhe2048": (2048, 560_316), "ffdhe3072": (3072, 2_625_351), "ffdhe4096": (4096, 5_736_041)}


def wrap(kex: str, bare: bytes) -> bytes:
    """A bare public key as SubjectPublicKeyInfo."""
    prefix, size = _PREFIXES[kex]
    if len(bare) != size:
        raise ValueError(f"a bare {kex} key has {size} bytes, not {len(bare)}")
    return prefix + bare


def unwrap(kex: str, encoded: bytes) -> bytes:
    """The bare key. Raises `ValueError` when it is none of that exchange."""
    prefix, size = _PREFIXES[kex]
    if len(encoded) != len(prefix) + size or not encoded.startswith(prefix):
        raise ValueError(f"it is no {kex} key")
    if kex in _CURVES and encoded[len(prefix)] != _UNCOMPRESSED:
        raise ValueError(f"it is no uncompressed {kex} key")
    return encoded[len(prefix) :]


def identify(encoded: bytes, raw: bool) -> str | None:
    """The exchange that a public key belongs to."""
    if raw:
        return next((kex for kex, sizes in HYBRID_SIZES.items() if len(encoded) == sum(sizes)), None)
    for kex in _PREFIXES:
        try:
            unwrap(kex, encoded)
        except ValueError:
            continue
        return kex
    # Prime and number are of one size, and there are some 40 bytes around them.
    near = (kex for kex, (bits, _) in _FFDHE.items() if bits // 4 + 20 < len(encoded) < bits // 4 + 60)
    return next((kex for kex in near if _ffdhe_number(kex, encoded) is not None), None)


# --- files of ML-KEM keys

#: Bytes that an ML-KEM key pair is made from.
SEED_SIZE = 64
_EXPANDED_SIZES = {"ML-KEM-512": 1632, "ML-KEM-768": 2400, "ML-KEM-1024": 3168}


def is_pem(file: bytes) -> bool:
    return file.lstrip().startswith(b"-----BEGIN ")


def pem_body(file: bytes, label: str) -> bytes:
    """What is in the first block of a PEM file. Raises `ValueError` when it has another label."""
    lines = file.decode("ascii").split()
    begin, end = f"-----BEGIN {label}-----".split(), f"-----END {label}-----".split()
    if lines[: len(begin)] != begin:
        raise ValueError(f"it does not begin with {' '.join(begin)}")
    for at in range(len(begin), len(lines)):
        if lines[at : at + len(end)] == end:
            return base64.b64decode("".join(lines[len(begin) : at]), validate=True)
    raise ValueError(f"it does not end with {' '.join(end)}")


def ml_kem_seed(der: bytes) -> tuple[str, bytes]:
    """The exchange and the seed in a PKCS#8 key, with the expanded key behind it or without (RFC 9935)."""
    for kex, size in _EXPANDED_SIZES.items():
        for prefix, rest in ((_seed_prefix(kex), 0), (_both_prefix(kex, size), 4 + size)):
            if der.startswith(prefix) and len(der) == len(prefix) + SEED_SIZE + rest:
                return kex, der[len(prefix) : len(prefix) + SEED_SIZE]
    raise ValueError("it is no ML-KEM key with its seed")


def _seed_prefix(kex: str) -> bytes:
    return _pkcs8(kex, _tlv(0x80, bytes(SEED_SIZE)))[:-SEED_SIZE]


def _both_prefix(kex: str, size: int) -> bytes:
    both = _tlv(0x30, _tlv(0x04, bytes(SEED_SIZE)) + _tlv(0x04, bytes(size)))
    return _pkcs8(kex, both)[: -(SEED_SIZE + 4 + size)]


def _pkcs8(kex: str, key: bytes) -> bytes:
    # The same AlgorithmIdentifier as in a public key.
    algorithm = _PREFIXES[kex][0][4:17]
    return _tlv(0x30, _integer(0) + algorithm + _tlv(0x04, key))


# --- finite fields


@cache
def ffdhe_prime(kex: str) -> int:
    """The prime of a group, by its definition in RFC 7919, appendix A."""
    bits, addend = _FFDHE[kex]
    return (1 << bits) - (1 << (bits - 64)) + ((_euler(bits - 130) + addend) << 64) - 1


def ffdhe_exponent_size(kex: str) -> int:
    """Bytes of a secret exponent: at least what RFC 7919 asks for."""
    return {"ffdhe2048": 29, "ffdhe3072": 35, "ffdhe4096": 41}[kex]


def wrap_ffdhe(kex: str, public: int) -> bytes:
    return _tlv(0x30, _ffdhe_algorithm(kex) + _tlv(0x03, b"\0" + _integer(public)))


def unwrap_ffdhe(kex: str, encoded: bytes) -> int:
    """The number. Raises `ValueError` when it is none of that group, or one that gives the secret away."""
    public = _ffdhe_number(kex, encoded)
    if public is None:
        raise ValueError(f"it is no {kex} key")
    if not 2 <= public <= ffdhe_prime(kex) - 2:
        raise ValueError(f"it is a {kex} key with a number out of range")
    return public


def _ffdhe_number(kex: str, encoded: bytes) -> int | None:
    """The number that encodes to this. There is only one way to encode it, so everything else is none."""
    algorithm = _ffdhe_algorithm(kex)
    at = encoded.find(algorithm, 0, 4 + len(algorithm))
    if at < 0:
        return None
    # Behind 8 or 9 bytes of headers, by the size of the number.
    candidates = (int.from_bytes(encoded[at + len(algorithm) + header :]) for header in (8, 9))
    return next((each for each in candidates if wrap_ffdhe(kex, each) == encoded), None)


@cache
def _ffdhe_algorithm(kex: str) -> bytes:
    """AlgorithmIdentifier: dhKeyAgreement with the prime and 2, without a size of the exponent."""
    oid = bytes.fromhex("06092a864886f70d010301")
    return _tlv(0x30, oid + _tlv(0x30, _integer(ffdhe_prime(kex)) + _integer(2)))


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def _euler(bits: int) -> int:
    """e * 2^bits, rounded down."""
    spare = 64
    term = total = 1 << (bits + spare)
    divisor = 1
    while term:
        term //= divisor
        total += term
        divisor += 1
    return total >> spare
