"""Handshakes for tests: captured ones, scripted randomness, and an authority with everything that it could issue."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ouroboros.oap import ClientHandshake, Server, Session, Settings
from ouroboros.oap.certificates import Credentials, TrustStore

#: When the captured handshakes ran, give or take an hour.
NOW = 1_795_368_186_773_007_710
SECOND = 10**9

VECTORS: Mapping[str, Any] = json.loads((Path(__file__).parent / "vectors" / "security.json").read_text())

#: Where the handshake begins in a datagram.
REQUEST_AT = 63
RESPONSE_AT = 47


class Script:
    """Randomness that is known beforehand, in the order in which it is asked for."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = list(chunks)

    def randbytes(self, n: int, /) -> bytes:
        chunk = self._chunks.pop(0)
        assert len(chunk) == n, f"{n} bytes are asked for, the script has {len(chunk)}"
        return chunk


def as_random(kex: str, private: bytes) -> bytes:
    """What has to be drawn for that private key to come out."""
    if kex in ("prime256v1", "secp384r1", "secp521r1"):
        return (int.from_bytes(private) - 1).to_bytes(len(private) + 8)
    sizes = {"ffdhe2048": 29, "ffdhe3072": 35, "ffdhe4096": 41}
    return private.rjust(sizes.get(kex, len(private)), b"\0")


# --- what an authority could issue


class Authority:
    """Issues anything: the opposite of `ouroboros cert`."""

    def __init__(self, subject: str | x509.Name = "root", *, by: Authority | None = None, **options: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = subject if isinstance(subject, x509.Name) else common_name(subject)
        options.setdefault("extensions", [(x509.BasicConstraints(True, None), True)])
        self.certificate = (by or self)._sign(self.subject, self.key, **options)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def trust(self) -> TrustStore:
        return TrustStore({"root.pem": self.pem})

    def issue(self, subject: str | x509.Name = "oping", *, key: Any = None, **options: Any) -> Credentials:
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = subject if isinstance(subject, x509.Name) else common_name(subject)
        certificate = self._sign(name, key, **options)
        return Credentials(certificate.public_bytes(Encoding.PEM), key_pem(key))

    def _sign(
        self,
        subject: x509.Name,
        key: Any,
        *,
        after: int = -86400,
        until: int = 86400,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        hash: hashes.SHA224 | hashes.SHA256 | None = None,
    ) -> x509.Certificate:
        now = datetime.fromtimestamp(NOW // SECOND, UTC)
        builder = (
            x509.CertificateBuilder(self.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now + timedelta(seconds=after))
            .not_valid_after(now + timedelta(seconds=until))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hash or hashes.SHA256())


def common_name(*names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in names])


def key_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


# --- a whole handshake


def shake(
    client: Settings, server: Settings, name: str = "oping", *, seed: int = 1, wall: int = NOW
) -> tuple[Session, Session]:
    """What client and server have in the end."""
    random = Random(seed)
    handshake = ClientHandshake(name, client, random=random, wall=wall)
    response, accepted = Server().receive(handshake.request, server, wall).respond(random=random, wall=wall)
    return handshake.finish(response), accepted
