"""The encryption of packets once more, slow and in Python: an oracle for the engine, and the judge of captured packets.

Source: `security.md` 10.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as Stream
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ouroboros.wire.suites import CIPHER_BY_NUMBER, Cipher

_PHASE = 0x80


class Rejected(Exception):
    """No key opens the packet."""


def next_key(key: bytes, salt: bytes) -> bytes:
    prk = hmac.digest(salt, key, "sha256")
    return hmac.digest(prk, b"o7s-key-rotation\x01", "sha256")


def key_chain(first: bytes, length: int) -> list[bytes]:
    salt = hashlib.sha256(first).digest()
    keys = [first]
    while len(keys) < length:
        keys.append(next_key(keys[-1], salt))
    return keys


def phase(packet: bytes) -> int:
    return packet[0] >> 7


def seal(cipher: Cipher, key: bytes, iv: bytes, plain: bytes, bit: int) -> bytes:
    iv = bytes((iv[0] & ~_PHASE | (_PHASE if bit else 0),)) + iv[1:]
    if not cipher.authenticated:
        encryptor = Stream(algorithms.AES(key[: cipher.key]), modes.CTR(iv)).encryptor()
        return iv + encryptor.update(plain)
    return iv + _aead(cipher, key).encrypt(iv, plain, None)


def unseal(cipher: Cipher, key: bytes, packet: bytes) -> bytes:
    """The plaintext. Raises `Rejected`."""
    if len(packet) < cipher.iv + cipher.tag:
        raise Rejected
    iv, body = packet[: cipher.iv], packet[cipher.iv :]
    if not cipher.authenticated:
        decryptor = Stream(algorithms.AES(key[: cipher.key]), modes.CTR(iv)).decryptor()
        return decryptor.update(body)
    try:
        return _aead(cipher, key).decrypt(iv, body, None)
    except InvalidTag as error:
        raise Rejected from error


def _aead(cipher: Cipher, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if cipher.name.startswith("chacha") else AESGCM(key[: cipher.key])


@dataclass
class Twin:
    """One end of a flow that tolerates loss: it tries the keys around its own and follows the peer's later ones.

    `limit`: packets that a key is used for, own ones and authenticated ones of the peer.
    """

    number: int
    first: bytes
    limit: int = 1 << 20
    epoch: int = 0
    used: int = 0

    def seal(self, iv: bytes, plain: bytes) -> bytes:
        self._count()
        return seal(self._cipher, self._key(self.epoch), iv, plain, self.epoch & 1)

    def open(self, packet: bytes) -> bytes:
        for epoch in (self.epoch, self.epoch + 1, self.epoch - 1, self.epoch + 2):
            if epoch < 0:
                continue
            try:
                plain = unseal(self._cipher, self._key(epoch), packet)
            except Rejected:
                continue
            if epoch > self.epoch:
                self.epoch, self.used = epoch, 0
            self._count()
            return plain
        raise Rejected

    @property
    def _cipher(self) -> Cipher:
        return CIPHER_BY_NUMBER[self.number]

    def _key(self, epoch: int) -> bytes:
        return key_chain(self.first, epoch + 1)[epoch]

    def _count(self) -> None:
        if self.used >= self.limit:
            self.epoch, self.used = self.epoch + 1, 0
        self.used += 1
