"""The identity of the peer: certificates, the chain to a trusted authority, and signatures. Source: `security.md` 7.

A message carries one certificate and no chain; the certificates between it and a trusted one have to be here already.
Every function raises `OapError` with EAUTH and a text that says what is wrong with the certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from ouroboros.oap.session import EAUTH, OapError
from ouroboros.wire.suites import HASH_BY_NUMBER

#: Certificates between that of a peer and a trusted one.
_DEEPEST = 8

#: The hash of a signature whose header names none.
_DEFAULT_DIGEST = 672

_LEAST_RSA = 2048
_LEAST_CURVE = 256
_WEAK_HASHES = ("md5", "sha1", "sha224")

#: A certificate may insist on these; anything else that it insists on is not understood here.
_UNDERSTOOD = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
)

#: The uses of a certificate: of an acceptor, and of an allocator.
Role = Literal["server", "client"]
_USES = {
    "server": ("serverAuth", ExtendedKeyUsageOID.SERVER_AUTH),
    "client": ("clientAuth", ExtendedKeyUsageOID.CLIENT_AUTH),
}

_PREHASHED: dict[int, hashes.HashAlgorithm] = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}


class Certificate:
    """The certificate of a peer. Nothing in it is true before `TrustStore.verify` says so."""

    def __init__(self, der: bytes) -> None:
        with _reading():
            self.x509 = x509.load_der_x509_certificate(der)
            self.key = self.x509.public_key()
            names = self.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        self.der = der
        self._names = [str(each.value) for each in names]

    @property
    def name(self) -> str | None:
        """The common name in its subject, which is that of a service or a client; None unless there is exactly one."""
        return self._names[0] if len(self._names) == 1 else None

    def verify_signature(self, signature: bytes, message: bytes, digest: int) -> None:
        """Whether its owner signed the message, with the hash of that number."""
        key = self.key
        try:
            if isinstance(key, EllipticCurvePublicKey):
                hashed = _hash(digest, message)
                key.verify(signature, hashed, ECDSA(Prehashed(_PREHASHED[len(hashed)])))
            elif isinstance(key, RSAPublicKey):
                key.verify(signature, message, PKCS1v15(), _rsa_hash(digest))
            elif isinstance(key, Ed25519PublicKey) and not digest:
                key.verify(signature, message)
            else:
                raise _refused(f"its key, {_kind(key)}, cannot sign with {_digest_name(digest)}")
        except InvalidSignature as error:
            raise OapError(EAUTH, "the signature is wrong: the message was altered, or is not its owner's") from error


class Credentials:
    """Our own certificate and its key. The key is in no text."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Both are PEM. Raises `ValueError` when they cannot be used together."""
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
        except ValueError:
            raise ValueError("the certificate is no PEM certificate") from None
        try:
            private = load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The text of the library could quote the file.
            raise ValueError("the key is no unencrypted PEM key") from None
        if not isinstance(private, EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey):
            raise ValueError("the key is none of EC, RSA and Ed25519")
        if _spki(private.public_key()) != _spki(parsed.public_key()):
            raise ValueError("the key is not that of the certificate")
        self._parsed = parsed
        self.certificate = parsed.public_bytes(Encoding.DER)
        self._key = private

    @property
    def has_own_digest(self) -> bool:
        """Whether the key signs in one way only; a header that names a hash is then refused by the prototype."""
        return isinstance(self._key, Ed25519PrivateKey)

    def check_use(self, role: Role) -> None:
        """Raise `ValueError` when the certificate says that it is not for that: peers of ours would refuse it."""
        try:
            with _reading():
                _check_use(self._parsed, role)
        except OapError as error:
            raise ValueError(str(error).removeprefix(_REFUSED)) from None

    def sign(self, message: bytes, digest: int) -> bytes:
        key = self._key
        if isinstance(key, EllipticCurvePrivateKey):
            hashed = _hash(digest, message)
            return key.sign(hashed, ECDSA(Prehashed(_PREHASHED[len(hashed)])))
        if isinstance(key, RSAPrivateKey):
            return key.sign(message, PKCS1v15(), _rsa_hash(digest))
        return key.sign(message)


class TrustStore:
    """The certificates that end a chain, and those that may be inside one.

    A self-signed certificate is trusted when it is in `cacert`. In `untrusted` it is of no use: the prototype trusts it
    there as well.
    """

    def __init__(self, cacert: Mapping[str, bytes], untrusted: Mapping[str, bytes] | None = None) -> None:
        """PEM files by their names; a file may hold several. Raises `ValueError` naming a file that holds none."""
        known = [each for name, file in cacert.items() for each in _load(name, file)]
        self._anchors = [each for each in known if _self_signed(each)]
        others = [each for name, file in (untrusted or {}).items() for each in _load(name, file)]
        self._between = [each for each in (*known, *others) if not _self_signed(each)]

    def __len__(self) -> int:
        return len(self._anchors)

    def verify(self, certificate: Certificate, wall: int, role: Role | None = None) -> None:
        """Raise `OapError` unless there is a chain from somebody trusted to this certificate, valid at that time and for
        that role, by default for either."""
        now = datetime.fromtimestamp(wall // 10**9, UTC)
        with _reading():
            _check_use(certificate.x509, role)
            if certificate.x509 in self._anchors:
                _check_dates(certificate.x509, now)
                return
            _check_strength(certificate.x509)
            _critical(certificate.x509)
            self._climb(certificate.x509, now, 0, role)

    def _climb(self, child: x509.Certificate, now: datetime, below: int, role: Role | None) -> None:
        """Find an issuer that is good, and one for that, up to an anchor. `below`: issuers up to here."""
        _check_dates(child, now)
        wrong = _refused(f"nobody in the CA store issued it: its issuer is {_text(child.issuer)}")
        # An anchor first: then the chain is as short as can be.
        for issuer in (*self._anchors, *self._between):
            if issuer.subject != child.issuer or not _issued(child, issuer):
                continue
            try:
                _check_issuer(issuer, below)
                _check_extended_use(issuer, role, f"its issuer, {_text(issuer.subject)},")
                if issuer in self._anchors:
                    _check_dates(issuer, now)
                    return
                if below >= _DEEPEST:
                    raise _refused("the chain is too long")
                self._climb(issuer, now, below + 1, role)
                return
            except OapError as error:
                wrong = error
        raise wrong


# --- chains


def _load(name: str, file: bytes) -> list[x509.Certificate]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return x509.load_pem_x509_certificates(file)
    except ValueError as error:
        raise ValueError(f"{name}: it is no PEM certificate") from error


def _self_signed(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject and _issued(certificate, certificate)


def _issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    of = f"the certificate of {_text(certificate.subject)}"
    if now < certificate.not_valid_before_utc:
        raise OapError(EAUTH, f"{of} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if now > certificate.not_valid_after_utc:
        raise OapError(EAUTH, f"{of} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


def _check_use(certificate: x509.Certificate, role: Role | None) -> None:
    """The uses of its key that a certificate names count, whether it insists on them or not. Most name none."""
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.digital_signature:
            raise _refused("its key is not for signatures (key usage)")
    _check_extended_use(certificate, role, "it")


def _check_extended_use(certificate: x509.Certificate, role: Role | None, what: str) -> None:
    """The same of an issuer means what those are for that it issues."""
    wanted = [_USES[role]] if role is not None else list(_USES.values())
    for extension in certificate.extensions:
        uses = extension.value
        if not isinstance(uses, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in uses:
            continue
        if not any(oid in uses for _, oid in wanted):
            names = " or ".join(name for name, _ in wanted)
            raise _refused(f"{what} is for other uses only: extended key usage without {names}")


def _check_issuer(issuer: x509.Certificate, below: int) -> None:
    _check_strength(issuer)
    if issuer.version is x509.Version.v1:
        # Older than the mark for certificates of a CA. It is among the trusted ones, so the operator says that it is one.
        if _self_signed(issuer):
            return
        raise _refused(f"its issuer, {_text(issuer.subject)}, is no CA")
    _critical(issuer)
    if any(each.oid == ExtensionOID.NAME_CONSTRAINTS for each in issuer.extensions):
        raise _refused(f"its issuer, {_text(issuer.subject)}, may issue some names only, which is not understood here")
    constraints = [each.value for each in issuer.extensions if isinstance(each.value, x509.BasicConstraints)]
    if not constraints or not constraints[0].ca:
        raise _refused(f"its issuer, {_text(issuer.subject)}, is no CA")
    if constraints[0].path_length is not None and constraints[0].path_length < below:
        raise _refused(f"there are more CAs below {_text(issuer.subject)} than it allows")
    usages = [each.value for each in issuer.extensions if isinstance(each.value, x509.KeyUsage)]
    if usages and not usages[0].key_cert_sign:
        raise _refused(f"its issuer, {_text(issuer.subject)}, may not issue certificates")


def _critical(certificate: x509.Certificate) -> list[x509.Extension[x509.ExtensionType]]:
    """The extensions that it insists on."""
    critical = [each for each in certificate.extensions if each.critical]
    for extension in critical:
        if extension.oid not in _UNDERSTOOD:
            raise _refused(
                f"{_text(certificate.subject)} insists on {extension.oid.dotted_string}, not understood here"
            )
    return critical


def _check_strength(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    small = (isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA) or (
        isinstance(key, EllipticCurvePublicKey) and key.key_size < _LEAST_CURVE
    )
    if small:
        raise _refused(f"the key of {_text(certificate.subject)} is too short")
    hash = certificate.signature_hash_algorithm
    if hash is not None and hash.name in _WEAK_HASHES and not _self_signed(certificate):
        raise _refused(f"{_text(certificate.subject)} was signed with {hash.name}, which can be forged")


# --- texts and details

_REFUSED = "the peer's certificate is refused: "


def _refused(why: str) -> OapError:
    return OapError(EAUTH, f"{_REFUSED}{why}")


def _text(name: x509.Name) -> str:
    return repr(name.rfc4514_string())


def _kind(key: object) -> str:
    return type(key).__name__.removesuffix("PublicKey")


def _digest_name(digest: int) -> str:
    return HASH_BY_NUMBER[digest].name if digest else "a hash of its own"


def _hash(digest: int, message: bytes) -> bytes:
    return hashlib.new(HASH_BY_NUMBER[digest or _DEFAULT_DIGEST].python, message).digest()


def _rsa_hash(digest: int) -> hashes.HashAlgorithm:
    name = HASH_BY_NUMBER[digest or _DEFAULT_DIGEST].name
    if name not in _RSA_HASHES:
        raise OapError(EAUTH, f"an RSA key cannot sign with {name}: choose a digest of {', '.join(_RSA_HASHES)}")
    return _RSA_HASHES[name]


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turn errors of the library about a certificate into a refusal. It warns where it is about to raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except (
        ValueError,
        TypeError,
        # Version 48 for a kind of string that it does not know.
        KeyError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        Warning,
    ) as error:
        raise _refused("it cannot be read") from error
