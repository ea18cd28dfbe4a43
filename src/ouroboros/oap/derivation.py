"""From the secret of a key exchange to the key of a flow. Source: `security.md` 5.2."""

from __future__ import annotations

import hashlib
import hmac

from ouroboros.wire.suites import Hash

#: Bytes of the key of a flow, whatever its cipher takes of them.
KEY_SIZE = 32

_DHE = b"o7s-ossl-dhe"
_KEM = b"o7s-ossl-encap"


class Shared:
    """The secret that both sides have. It is in no text, and gone once a key was made of it."""

    __slots__ = ("_info", "_salt", "_secret")

    def __init__(self, secret: bytes, salt: bytes, info: bytes) -> None:
        self._secret = bytearray(secret)
        self._salt = salt
        self._info = info

    @classmethod
    def dhe(cls, secret: bytes, one: bytes, other: bytes) -> Shared:
        """By two keys, as they were on the wire."""
        low, high = sorted((one, other))
        return cls(secret, hashlib.sha256(low + high).digest(), _DHE)

    @classmethod
    def kem(cls, secret: bytes, public: bytes) -> Shared:
        """By the key that the secret was encapsulated for."""
        return cls(secret, hashlib.sha256(public).digest(), _KEM)

    def key(self, kdf: Hash) -> bytearray:
        """The key of the flow. Can be asked for once."""
        key = bytearray(hkdf(kdf.python, bytes(self._secret), self._salt, self._info))
        self._secret[:] = bytes(len(self._secret))
        return key


def hkdf(hash: str, secret: bytes, salt: bytes, info: bytes, size: int = KEY_SIZE) -> bytes:
    """RFC 5869, for any hash of hashlib. The one of `cryptography` does not take BLAKE2."""
    prk = hmac.digest(salt, secret, hash)
    key = block = b""
    for number in range(1, 256):
        block = hmac.digest(prk, block + info + bytes((number,)), hash)
        key += block
        if len(key) >= size:
            return key[:size]
    raise ValueError(f"{hash} gives no key of {size} bytes")
