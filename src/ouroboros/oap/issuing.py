"""An authority and the certificates that it issues: all in PEM, all with keys on the curve P-256.

They are as small as can be, because a certificate has to fit into one datagram together with the rest of a request.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from ouroboros.oap.session import Random

#: Room of a common name.
_LONGEST_NAME = 64
#: The prototype looks for the name in a text, where these end it or begin another one.
_TRICKY = frozenset('/,=+<>#;"\\')

#: A certificate is valid a little earlier, for the sake of clocks that are behind.
_SLACK = timedelta(hours=1)


class Issued(msgspec.Struct, frozen=True):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "<Issued>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


def make_authority(name: str, *, random: Random, wall: int, days: int) -> Issued:
    """An authority. It can issue certificates, but no other authorities."""
    key = _make_key(random)
    subject = _subject(name)
    builder = (
        _builder(subject, subject, key, random, wall, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issuing=True), critical=True)
    )
    return _issued(builder.sign(key, hashes.SHA256()), key)


def make_certificate(name: str, authority: Issued, *, random: Random, wall: int, days: int) -> Issued:
    """A key, and a certificate that says whose it is: that of a service or a client.

    Raises `ValueError` for a name that no certificate should have, for an authority that cannot be used, and for a time
    that ends after the authority's.
    """
    issuer, issuer_key = _load(authority)
    key = _make_key(random)
    builder = (
        _builder(_subject(name), issuer.subject, key, random, wall, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(issuing=False), critical=True)
    )
    certificate = builder.sign(issuer_key, hashes.SHA256())
    if certificate.not_valid_after_utc > issuer.not_valid_after_utc:
        raise ValueError(f"the authority is valid until {issuer.not_valid_after_utc:%Y-%m-%d} only; choose fewer days")
    return _issued(certificate, key)


def check_name(name: str) -> None:
    """Raise `ValueError` for a name that somebody could take for another one."""
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise ValueError(f"the name has {len(name)} characters; a certificate takes 1 to {_LONGEST_NAME}")
    if not name.isascii() or not name.isprintable() or name != name.strip():
        raise ValueError(f"{name!r} has characters that a certificate should not have: use ASCII without blanks around")
    if name in (".", ".."):
        raise ValueError(f"{name!r} is no name: it could not have a directory")
    if tricky := sorted(_TRICKY.intersection(name)):
        raise ValueError(f"{name!r} has {' '.join(tricky)} in it, with which some programs take it for another name")


def _subject(name: str) -> x509.Name:
    check_name(name)
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _make_key(random: Random) -> ec.EllipticCurvePrivateKey:
    curve = ec.SECP256R1()
    return ec.derive_private_key(int.from_bytes(random.randbytes(40)) % (curve.group_order - 1) + 1, curve)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, random: Random, wall: int, days: int
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(wall // 10**9, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(random.randbytes(16)) | 1)
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, issuing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issuing,
        key_cert_sign=issuing,
        crl_sign=issuing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(certificate.public_bytes(Encoding.PEM), pem)


def _load(authority: Issued) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        key = load_pem_private_key(authority.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says could quote the key.
        raise ValueError("the authority is no certificate and unencrypted key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the key is not that of the authority, or not on an elliptic curve")
    return certificate, key
