"""Who is believed to be whom: chains, names, dates, signatures, and the tricks that were tried on others."""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from oap_support import NOW, SECOND, Authority, common_name, key_pem, shake

from ouroboros.oap import EAUTH, ClientHandshake, Encryption, OapError, Policy, Server, Settings
from ouroboros.oap.certificates import Certificate, Credentials, TrustStore
from ouroboros.wire.suites import HASHES

ROOT = Authority()
RSA_KEY = rsa.generate_private_key(65537, 2048)
DAY = 86400


def verify(credentials: Credentials, trust: TrustStore = ROOT.trust, wall: int = NOW) -> None:
    trust.verify(Certificate(credentials.certificate), wall)


def ca(**fields: Any) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.BasicConstraints(True, fields.get("path_length")), True)]


def usage(**set: bool) -> x509.KeyUsage:
    all = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{each: set.get(each, False) for each in all.split()})


# --- both sides


def test_both_sides_know_each_other() -> None:
    client = Settings(Encryption("X25519"), credentials=ROOT.issue("alice"), trust=ROOT.trust)
    server = Settings(Encryption("X25519"), credentials=ROOT.issue("oping"), trust=ROOT.trust)
    allocated, accepted = shake(client, server)
    assert (allocated.peer_name, accepted.peer_name) == ("oping", "alice")
    assert allocated.key == accepted.key
    assert accepted.peer_certificate == client.credentials.certificate  # type: ignore[union-attr]


def test_certificates_work_without_encryption() -> None:
    settings = Settings(credentials=ROOT.issue("oping"), trust=ROOT.trust)
    allocated, accepted = shake(settings, settings)
    assert (allocated.peer_name, accepted.peer_name, allocated.cipher) == ("oping", "oping", 0)


@pytest.mark.parametrize("name", ["Oping", "oping ", "opin", "oping2", "other"])
def test_the_server_has_to_have_the_name_that_was_asked_for(name: str) -> None:
    server = Settings(credentials=ROOT.issue(name))
    with pytest.raises(OapError, match=r"is for .*, not for 'oping'") as refusal:
        shake(Settings(trust=ROOT.trust), server)
    assert refusal.value.code == EAUTH


@pytest.mark.parametrize(
    "subject",
    [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "CN=oping"), *common_name("evil")]),
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "CN=oping")]),
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "oping")]),
        common_name("oping,x"),
        common_name("oping/x"),
        common_name("oping\0.evil"),
        common_name("evil/CN=oping"),
        common_name("oping", "evil"),
        common_name("evil", "oping"),
        common_name("\N{CYRILLIC SMALL LETTER O}ping"),
        x509.Name([]),
    ],
    ids=repr,
)
def test_a_subject_that_only_looks_like_the_name_is_refused(subject: x509.Name) -> None:
    with pytest.raises(OapError, match="not for 'oping'"):
        shake(Settings(trust=ROOT.trust), Settings(credentials=ROOT.issue(subject)))


def test_an_alternative_name_is_not_the_name() -> None:
    alternative = (x509.SubjectAlternativeName([x509.DNSName("oping")]), False)
    credentials = ROOT.issue("evil", extensions=[alternative])
    with pytest.raises(OapError, match="not for 'oping'"):
        shake(Settings(trust=ROOT.trust), Settings(credentials=credentials))


def test_a_name_with_slashes_and_commas_is_one_name() -> None:
    shake(Settings(trust=ROOT.trust), Settings(credentials=ROOT.issue("a/b,c")), "a/b,c")


# --- policies


def test_a_server_without_a_certificate_is_refused_by_who_requires_one() -> None:
    client = Settings(policy=Policy(authenticate=True), trust=ROOT.trust)
    with pytest.raises(OapError, match="server of 'oping' has no certificate") as refusal:
        shake(client, Settings())
    assert refusal.value.code == EAUTH


@pytest.mark.parametrize("policy", [Policy(authenticate=True), Policy(peers=("alice",))])
def test_a_client_without_a_certificate_is_refused_by_who_requires_one(policy: Policy) -> None:
    with pytest.raises(OapError, match="client has no certificate") as refusal:
        shake(Settings(), Settings(policy=policy, trust=ROOT.trust))
    assert refusal.value.code == EAUTH


def test_only_the_clients_of_the_list_are_let_in() -> None:
    server = Settings(policy=Policy(peers=("alice", "bob")), trust=ROOT.trust)
    _, accepted = shake(Settings(credentials=ROOT.issue("bob")), server)
    assert accepted.peer_name == "bob"
    with pytest.raises(OapError, match="client is 'mallory'; allowed are 'alice', 'bob'"):
        shake(Settings(credentials=ROOT.issue("mallory")), server)


def test_a_certificate_is_refused_when_nobody_is_trusted() -> None:
    with pytest.raises(OapError, match="CA store is empty"):
        shake(Settings(), Settings(credentials=ROOT.issue()))


# --- dates


@pytest.mark.parametrize(
    ("after", "until", "text"),
    [(1, DAY, "not valid before"), (-2 * DAY, -1, "expired on")],
)
def test_a_certificate_from_another_time_is_refused(after: int, until: int, text: str) -> None:
    with pytest.raises(OapError, match=text):
        verify(ROOT.issue(after=after, until=until))


def test_an_expired_authority_is_none_any_more() -> None:
    with pytest.raises(OapError, match="'CN=root' expired"):
        verify(ROOT.issue(until=10 * DAY), wall=NOW + 2 * DAY * SECOND)


# --- chains


def test_a_certificate_of_somebody_with_the_same_name_is_refused() -> None:
    with pytest.raises(OapError, match="nobody in the CA store issued it"):
        verify(Authority("root").issue())


def test_a_self_signed_certificate_is_trusted_only_as_one_of_the_store() -> None:
    own = Authority("oping", extensions=[])
    credentials = Credentials(own.pem, key_pem(own.key))
    with pytest.raises(OapError, match="nobody"):
        verify(credentials)
    verify(credentials, TrustStore({"own.pem": own.pem}))


def test_what_is_in_untrusted_is_not_trusted() -> None:
    with pytest.raises(OapError, match="nobody"):
        verify(ROOT.issue(), TrustStore({}, {"root.pem": ROOT.pem}))
    own = Authority("oping")
    with pytest.raises(OapError, match="nobody"):
        verify(Credentials(own.pem, key_pem(own.key)), TrustStore({"root.pem": ROOT.pem}, {"own.pem": own.pem}))


def test_a_chain_goes_by_authorities_that_are_here() -> None:
    middle = Authority("middle", by=ROOT)
    credentials = middle.issue()
    verify(credentials, TrustStore({"root.pem": ROOT.pem}, {"middle.pem": middle.pem}))
    verify(credentials, TrustStore({"both.pem": ROOT.pem + middle.pem}))
    with pytest.raises(OapError, match="nobody"):
        verify(credentials)
    with pytest.raises(OapError, match="nobody"):
        verify(credentials, TrustStore({"middle.pem": middle.pem}))


def test_a_longer_way_is_found_when_the_short_one_is_closed() -> None:
    old = Authority("middle", by=ROOT, until=-1)
    new = Authority("middle", by=ROOT)
    new.key = old.key
    new.certificate = ROOT._sign(new.subject, old.key, extensions=ca())
    verify(old.issue(), TrustStore({"root.pem": ROOT.pem}, {"old.pem": old.pem, "new.pem": new.pem}))


def test_a_certificate_of_a_service_cannot_issue_others() -> None:
    for extensions in ([], [(x509.BasicConstraints(False, None), True)]):
        service = Authority("oping", by=ROOT, extensions=extensions)
        store = TrustStore({"root.pem": ROOT.pem}, {"service.pem": service.pem})
        with pytest.raises(OapError, match="is no CA"):
            verify(service.issue("bank"), store)


def test_an_authority_is_held_to_what_its_certificate_says() -> None:
    inner = Authority("inner", by=(outer := Authority("outer", extensions=ca(path_length=0))))
    with pytest.raises(OapError, match="more CAs below"):
        verify(inner.issue(), TrustStore({"outer.pem": outer.pem}, {"inner.pem": inner.pem}))
    verify(outer.issue(), outer.trust)
    sealed = Authority("sealed", extensions=[*ca(), (usage(crl_sign=True), True)])
    with pytest.raises(OapError, match="may not issue"):
        verify(sealed.issue(), sealed.trust)
    constrained = x509.NameConstraints([x509.DNSName("example.org")], None)
    narrow = Authority("narrow", extensions=[*ca(), (constrained, False)])
    with pytest.raises(OapError, match="some names only"):
        verify(narrow.issue(), narrow.trust)


def test_a_chain_has_an_end() -> None:
    chain = [ROOT]
    for number in range(12):
        chain.append(Authority(f"ca{number}", by=chain[-1]))
    store = TrustStore({"root.pem": ROOT.pem}, {each.certificate.subject.rfc4514_string(): each.pem for each in chain})
    verify(chain[8].issue(), store)
    with pytest.raises(OapError, match="too long"):
        verify(chain[-1].issue(), store)


def test_two_authorities_that_issue_each_other_are_no_anchor() -> None:
    one, other = Authority("one", by=ROOT), Authority("other", by=ROOT)
    crossed = [
        one._sign(other.subject, other.key, extensions=ca()),
        other._sign(one.subject, one.key, extensions=ca()),
    ]
    store = TrustStore({}, {str(at): each.public_bytes(Encoding.PEM) for at, each in enumerate(crossed)})
    with pytest.raises(OapError, match="refused"):
        verify(one.issue(), store)


def test_a_demand_that_is_not_understood_is_refused() -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    verify(ROOT.issue(extensions=[(strange, False)]))
    with pytest.raises(OapError, match=r"insists on 1\.2\.3\.4"):
        verify(ROOT.issue(extensions=[(strange, True)]))


SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
CODE, ANY = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def uses(*allowed: x509.ObjectIdentifier, critical: bool = False) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.ExtendedKeyUsage(allowed), critical)] if allowed else []


def roles_of(credentials: Credentials, trust: TrustStore = ROOT.trust) -> set[str]:
    """What peers take a certificate for; the node that has it must see it alike."""
    taken = set()
    for role in ("server", "client"):
        with contextlib.suppress(OapError):
            trust.verify(Certificate(credentials.certificate), NOW, role)
            taken.add(role)
    return taken


BOTH = {"server", "client"}


@pytest.mark.parametrize("critical", [False, True])
@pytest.mark.parametrize(
    ("allowed", "roles"),
    [
        ((), BOTH),
        ((SERVER, CLIENT), BOTH),
        ((ANY,), BOTH),
        ((CODE, ANY), BOTH),
        ((SERVER,), {"server"}),
        ((CODE, CLIENT), {"client"}),
        ((CODE,), set()),
    ],
)
def test_a_certificate_is_good_for_what_it_says(
    allowed: tuple[x509.ObjectIdentifier, ...], roles: set[str], critical: bool
) -> None:
    certificate = ROOT.issue(extensions=uses(*allowed, critical=critical))
    assert roles_of(certificate) == roles
    own = set()
    for role in ("server", "client"):
        with contextlib.suppress(ValueError):
            certificate.check_use(role)
            own.add(role)
    assert own == roles


@pytest.mark.parametrize(("allowed", "roles"), [((CLIENT,), {"client"}), ((CODE,), set()), ((), BOTH)])
def test_what_an_issuer_is_for_bounds_what_it_issues(
    allowed: tuple[x509.ObjectIdentifier, ...], roles: set[str]
) -> None:
    between = Authority("between", by=ROOT, extensions=ca() + uses(*allowed))
    store = TrustStore({"root.pem": ROOT.pem}, {"between.pem": between.pem})
    assert roles_of(between.issue(), store) == roles
    top = Authority("top", extensions=ca() + uses(*allowed))
    assert roles_of(top.issue(), top.trust) == roles


def test_a_trusted_certificate_of_the_peer_itself_is_good_for_what_it_says() -> None:
    own = Authority("own", extensions=uses(CLIENT))
    credentials = Credentials(own.pem, key_pem(own.key))
    assert roles_of(credentials, own.trust) == {"client"}


def test_a_key_that_is_not_for_signatures_proves_nothing() -> None:
    verify(ROOT.issue(extensions=[(usage(digital_signature=True, key_encipherment=True), True)]))
    with pytest.raises(OapError, match="its key is not for signatures"):
        verify(ROOT.issue(extensions=[(usage(key_encipherment=True), False)]))


def test_each_side_wants_a_certificate_for_the_role_of_the_other() -> None:
    server, client = ROOT.issue(extensions=uses(SERVER)), ROOT.issue(extensions=uses(CLIENT))

    def settings(credentials: Credentials) -> Settings:
        return Settings(Encryption("X25519"), credentials=credentials, trust=ROOT.trust)

    shake(settings(client), settings(server))
    with pytest.raises(OapError, match="it is for other uses only: extended key usage without clientAuth"):
        shake(settings(server), settings(server))
    with pytest.raises(OapError, match="it is for other uses only: extended key usage without serverAuth"):
        shake(settings(client), settings(client))


def test_keys_and_hashes_that_can_be_broken_are_refused() -> None:
    with pytest.raises(OapError, match="too short"):
        verify(ROOT.issue(key=rsa.generate_private_key(65537, 1024)))
    with pytest.raises(OapError, match="too short"):
        verify(ROOT.issue(key=ec.generate_private_key(ec.SECP224R1())))
    with pytest.raises(OapError, match="sha224"):
        verify(ROOT.issue(hash=hashes.SHA224()))


def test_bytes_that_are_no_certificate_are_refused() -> None:
    for der in (b"\0", b"0\0", ROOT.certificate.public_bytes(Encoding.DER) + b"\0"):
        with pytest.raises(OapError, match="cannot be read"):
            Certificate(der)


# --- signatures


@pytest.mark.parametrize("digest", [hash.name for hash in HASHES])
def test_an_elliptic_key_signs_with_every_digest(digest: str) -> None:
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        credentials = ROOT.issue(key=ec.generate_private_key(curve))
        settings = Settings(Encryption("X25519", digest=digest), credentials=credentials, trust=ROOT.trust)
        shake(settings, settings)


@pytest.mark.parametrize("digest", [hash.name for hash in HASHES if not hash.name.startswith("blake")])
def test_an_rsa_key_signs_with_every_digest_but_blake2(digest: str) -> None:
    settings = Settings(Encryption("X25519", digest=digest), credentials=ROOT.issue(key=RSA_KEY), trust=ROOT.trust)
    shake(settings, settings)


def test_an_rsa_key_says_that_it_cannot_sign_with_blake2() -> None:
    settings = Settings(Encryption(digest="blake2b512"), credentials=ROOT.issue(key=RSA_KEY))
    with pytest.raises(OapError, match="cannot sign with blake2b512: choose a digest of sha256"):
        shake(settings, settings)


def test_an_ed25519_key_signs_without_naming_a_digest() -> None:
    credentials = ROOT.issue(key=Ed25519PrivateKey.generate())
    for encryption in (None, Encryption("X25519")):
        settings = Settings(encryption, credentials=credentials, trust=ROOT.trust)
        shake(settings, settings)
    certificate = Certificate(credentials.certificate)
    certificate.verify_signature(credentials.sign(b"message", 0), b"message", 0)
    with pytest.raises(OapError, match="cannot sign with sha256"):
        certificate.verify_signature(credentials.sign(b"message", 0), b"message", 672)


def test_a_signature_of_somebody_else_is_refused() -> None:
    alice, mallory = ROOT.issue("alice"), ROOT.issue("mallory")
    forged = Credentials.__new__(Credentials)
    forged.certificate, forged._key = alice.certificate, mallory._key
    with pytest.raises(OapError, match="signature is wrong"):
        shake(Settings(credentials=forged), Settings(trust=ROOT.trust))


def test_a_certificate_without_a_signature_is_refused() -> None:
    request = ClientHandshake("oping", Settings(credentials=ROOT.issue()), random=Random(1), wall=NOW).request
    size = 36 + int.from_bytes(request[30:32])
    with pytest.raises(OapError, match="signature is wrong"):
        Server().receive(request[:size], Settings(trust=ROOT.trust), NOW)


# --- our own files


def test_credentials_that_do_not_belong_together_say_so_and_not_more() -> None:
    one, other = Authority("one"), Authority("other")
    for certificate, key, text in (
        (one.pem, key_pem(other.key), "not that of the certificate"),
        (b"nonsense", key_pem(other.key), "no PEM certificate"),
        (one.pem, b"nonsense", "no unencrypted PEM key"),
        (one.pem, key_pem(ed448.Ed448PrivateKey.generate()), "none of EC, RSA"),
    ):
        with pytest.raises(ValueError, match=text) as error:
            Credentials(certificate, key)
        assert "PRIVATE" not in str(error.value)


def test_a_store_names_the_file_that_is_no_certificate() -> None:
    with pytest.raises(ValueError, match=r"broken\.pem: it is no PEM certificate"):
        TrustStore({"root.pem": ROOT.pem, "broken.pem": b"nonsense"})
