"""The header of the Ouroboros Allocation Protocol: how it becomes bytes, and which bytes are one.

Source: `security.md` 2. A request and its response have the same layout, but only a response has a `request_hash`, and
its size is settled by the request. Whether a header is true is not decided here.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NoReturn

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.wire.suites import CIPHER_BY_NUMBER, HASH_BY_NUMBER

_FIXED = struct.Struct(">16sQHHHHHH")

#: Bytes of the smallest request.
FIXED_SIZE = _FIXED.size
ID_SIZE = 16

_RAW = 0x8000
_ENCAPSULATED = 0x4000
_KEX_LENGTH = 0x3FFF
_LENGTH = 0xFFFF
#: Messages of which is known what is in them.
_LAST = 4

#: What a request is hashed with when it names no digest.
DEFAULT_REQUEST_HASH = "sha384"


class Header(msgspec.Struct, frozen=True):
    """A request or a response. `timestamp` is nanoseconds since 1970; an algorithm of 0 is none.

    `raw`: the key is a hybrid one, without DER. `encapsulated`: the request brings a secret for the server's own key.
    """

    id: bytes
    timestamp: int
    cipher: int = 0
    kdf: int = 0
    digest: int = 0
    certificate: bytes = b""
    kex: bytes = b""
    raw: bool = False
    encapsulated: bool = False
    data: bytes = b""
    request_hash: bytes = b""
    signature: bytes = b""

    def __post_init__(self) -> None:
        if len(self.id) != ID_SIZE:
            raise ValueError(f"the id of an allocation has {ID_SIZE} bytes, not {len(self.id)}")
        if len(self.certificate) > _LENGTH or len(self.kex) > _KEX_LENGTH or len(self.data) > _LENGTH:
            self._refuse()

    def _refuse(self) -> NoReturn:
        """Say which part is too long."""
        parts = (("certificate", _LENGTH), ("kex", _KEX_LENGTH), ("data", _LENGTH))
        field, largest = next((field, most) for field, most in parts if len(getattr(self, field)) > most)
        raise ValueError(f"the {field} has {len(getattr(self, field))} bytes; an allocation takes {largest}")

    @property
    def signed_part(self) -> bytes:
        """Everything that a signature covers, which is everything before it."""
        lengths = len(self.kex) | (_RAW if self.raw else 0) | (_ENCAPSULATED if self.encapsulated else 0)
        fixed = _FIXED.pack(
            self.id,
            self.timestamp,
            self.cipher,
            self.kdf,
            self.digest,
            len(self.certificate),
            lengths,
            len(self.data),
        )
        return b"".join((fixed, self.certificate, self.kex, self.data, self.request_hash))

    def encode(self) -> bytes:
        return self.signed_part + self.signature


@lru_cache(_LAST)
def decode(message: bytes, hash_size: int = 0) -> Header:
    """Read a request, or with the `hash_size` that the request settled, a response. The last ones are known: layers look at
    what is in them for those, before the handshake reads the same.

    Raises `ProtocolError` that says which rule is broken. What is accepted encodes to the same bytes again.
    """
    if len(message) < FIXED_SIZE:
        raise ProtocolError(f"it has {len(message)} bytes; the least is {FIXED_SIZE}")
    id, timestamp, cipher, kdf, digest, crt_size, kex_word, data_size = _FIXED.unpack_from(message)
    _check_numbers(cipher, kdf, digest)
    kex_size = kex_word & _KEX_LENGTH
    claimed = FIXED_SIZE + crt_size + kex_size + data_size + hash_size
    if claimed > len(message):
        raise ProtocolError(f"it has {len(message)} bytes, but its fields are to have {claimed}")
    if not crt_size and claimed < len(message):
        raise ProtocolError(f"{len(message) - claimed} bytes follow its end, and there is no certificate to sign with")
    kex_at = FIXED_SIZE + crt_size
    data_at = kex_at + kex_size
    hash_at = data_at + data_size
    return Header(
        id=id,
        timestamp=timestamp,
        cipher=cipher,
        kdf=kdf,
        digest=digest,
        certificate=message[FIXED_SIZE:kex_at],
        kex=message[kex_at:data_at],
        raw=bool(kex_word & _RAW),
        encapsulated=bool(kex_word & _ENCAPSULATED),
        data=message[data_at:hash_at],
        request_hash=message[hash_at:claimed],
        signature=message[claimed:],
    )


def _check_numbers(cipher: int, kdf: int, digest: int) -> None:
    if cipher and cipher not in CIPHER_BY_NUMBER:
        raise ProtocolError(f"there is no cipher with the number {cipher}")
    for use, number in (("key derivation", kdf), ("signatures", digest)):
        if number and number not in HASH_BY_NUMBER:
            raise ProtocolError(f"there is no hash for {use} with the number {number}")
