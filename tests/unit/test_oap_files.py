"""The files of the security directory: what they mean, and what is said about those that are wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

import hypothesis.strategies as st
import pytest
from cryptography.x509 import ExtendedKeyUsage
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from oap_support import Authority, key_pem, shake

from ouroboros.oap import EAUTH, ECRYPT, Encryption, OapError, Policy, Settings
from ouroboros.oap.directory import Paths, Reader, has_directory, load_settings, load_trust
from ouroboros.oap.exchange import StaticKey
from ouroboros.oap.files import parse_encryption, parse_policy

ROOT = Authority()
OWN = Authority("oping", by=ROOT, extensions=[])
CREDENTIALS = {"crt.pem": OWN.pem, "key.pem": key_pem(OWN.key)}


def files(content: Mapping[str, bytes]) -> Reader:
    return content.get


def below(directory: str, content: Mapping[str, bytes]) -> Reader:
    return files({f"{directory}/{name}": file for name, file in content.items()})


def trouble(parse: Callable[[str, bytes], object], file: bytes) -> str | None:
    try:
        parse("the/file", file)
    except OapError as error:
        return str(error)
    return None


# --- enc.conf


@pytest.mark.parametrize(
    ("file", "meaning"),
    [
        (b"", Encryption()),
        (b"\n\n   \n", Encryption()),
        (b"none\n", None),
        (b"# nothing\n\nnone\n# more\nnone", None),
        (b"kex=X25519", Encryption("X25519")),
        (b"  cipher =  aes-128-ctr  \r\n", Encryption(cipher="aes-128-ctr")),
        (b"# kex=X448\n  # more\nkdf=blake2s256\ndigest=sha3-512\n", Encryption(kdf="blake2s256", digest="sha3-512")),
        (b"kex=X25519\nkex=X448\n", Encryption("X448")),
        (b"kex=ML-KEM-768\nkem_mode=client\n", Encryption("ML-KEM-768", client_encapsulates=True)),
        (b"kex=ML-KEM-768\nkem_mode=server\n", Encryption("ML-KEM-768")),
    ],
)
def test_a_file_that_is_right_says_what_is_offered(file: bytes, meaning: Encryption | None) -> None:
    assert parse_encryption("enc.conf", file) == meaning


def test_the_defaults_are_those_of_the_prototype() -> None:
    assert Encryption() == Encryption("prime256v1", "aes-256-gcm", "sha256", "sha256", client_encapsulates=False)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (b"kex=x25519", r"enc\.conf, line 1: kex=x25519 is not known; allowed are ffdhe2048, prime256v1, X25519"),
        (b"\n\nkex=ML-KEM-512", r"line 3: kex=ML-KEM-512 is not known"),
        (b"cipher=aes-256-cbc", "allowed are aes-128-ctr, .*chacha20-poly1305"),
        (b"cipher=aes-256-gcm # strong", "is not known"),
        (b"kdf=md5", "allowed are blake2s256, sha256, sha3-256"),
        (b"kem_mode=both", "allowed are server, client"),
        (b"ciper=aes-256-gcm", "'ciper=aes-256-gcm' is none of kex=..., cipher=..., kdf=..., digest=..., kem_mode="),
        (b"encrypt", "'encrypt' is none of"),
        (b"None", "'None' is none of"),
        (b"kex=", "nothing behind kex="),
        (b"kex=X25519\nkem_mode=client", "goes with a kex of ML-KEM-768"),
        (b"kex=\xff", "line 1: it is not UTF-8"),
        (b"#" + b"x" * 255, "it has 256 bytes, at most 255"),
        (b"kex=nonsense\nnone", "kex=nonsense is not known"),
        (b"none\nkex=nonsense", "line 2: kex=nonsense is not known"),
        (b"none\ngarbage", "line 2: 'garbage' is none of"),
        (b"none\n\xff", "line 2: it is not UTF-8"),
        (b"none\n#" + b"x" * 255, "line 2: it has 256 bytes"),
        (b"kex=X25519\nnone\n", "line 2: 'none' and kex=X25519 contradict each other"),
        (b"none\n\ncipher=aes-256-gcm", "line 1: 'none' and cipher=aes-256-gcm contradict each other"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what_is_allowed(file: bytes, text: str) -> None:
    with pytest.raises(OapError, match=text) as refusal:
        parse_encryption("enc.conf", file)
    assert refusal.value.code == ECRYPT


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_is_settings_or_an_error_that_names_it(file: bytes) -> None:
    for parse in (parse_encryption, parse_policy):
        text = trouble(parse, file)
        assert text is None or text.startswith("the/file")


# --- policy.conf


@pytest.mark.parametrize(
    ("file", "policy"),
    [
        (b"", Policy()),
        (b"require=encryption", Policy(encrypt=True)),
        (b"require=certificate\nrequire = encryption", Policy(encrypt=True, authenticate=True)),
        (b"strength=192", Policy(encrypt=True, strength=192)),
        (b"allow=alice\nallow=bob c", Policy(authenticate=True, peers=("alice", "bob c"))),
    ],
)
def test_a_policy_says_what_a_peer_has_to_do(file: bytes, policy: Policy) -> None:
    assert parse_policy("policy.conf", file) == policy


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (b"require=everything", "line 1: require=everything is not known; allowed are encryption, certificate"),
        (b"strength=512", "allowed are 128, 192, 256"),
        (b"deny=mallory", "is none of require=..., strength=..., allow="),
        (b"allow=", "nothing behind allow="),
        (b"none", "is none of"),
    ],
)
def test_a_policy_that_is_wrong_says_where(file: bytes, text: str) -> None:
    with pytest.raises(OapError, match=text):
        parse_policy("policy.conf", file)


def test_a_list_of_clients_means_nothing_to_a_client() -> None:
    content = {"policy.conf": b"allow=alice"}
    assert load_settings(below("server/oping", content), "server", "oping").policy.peers == ("alice",)
    with pytest.raises(OapError, match="allow= is for server/oping"):
        load_settings(below("client/oping", content), "client", "oping")


# --- the directory


def test_without_files_there_is_nothing() -> None:
    assert load_settings(files({}), "server", "oping") == Settings()
    assert load_trust({}, {}) is None


def test_each_side_has_files_of_its_own() -> None:
    read = files({"server/oping/enc.conf": b"kex=X25519", "client/oping/enc.conf": b"kex=X448"})
    for side, kex in (("server", "X25519"), ("client", "X448")):
        loaded = load_settings(read, "server" if side == "server" else "client", "oping")
        assert loaded == Settings(Encryption(kex))
    assert load_settings(read, "server", "other") == Settings()


def test_files_make_a_handshake() -> None:
    static = StaticKey(bytes(range(96)))
    trust = load_trust({"root.pem": ROOT.pem}, {})
    enc = b"kex=X25519MLKEM768\nkem_mode=client"
    policy = b"require=certificate"
    server = {**CREDENTIALS, "enc.conf": b"kex=ML-KEM-768", "kex.key.raw": bytes(range(96))}
    client = {"enc.conf": enc, "policy.conf": policy, "kex.srv.pub.raw": static.public}
    allocated, accepted = shake(
        load_settings(below("client/oping", client), "client", "oping", trust),
        load_settings(below("server/oping", server), "server", "oping", trust),
    )
    assert allocated.key == accepted.key
    assert (allocated.peer_name, accepted.peer_name) == ("oping", None)


def test_files_can_be_elsewhere_and_then_have_to_exist() -> None:
    read = files(
        {"/a/enc": b"kex=X448", "/a/crt": OWN.pem, "/a/key": key_pem(OWN.key), "server/oping/enc.conf": b"none"}
    )
    loaded = load_settings(read, "server", "oping", paths=Paths("/a/enc", "/a/crt", "/a/key"))
    assert loaded.encryption == Encryption("X448")
    assert loaded.credentials is not None
    with pytest.raises(OapError, match="/b/enc is configured, but there is no such file") as refusal:
        load_settings(read, "server", "oping", paths=Paths(encryption="/b/enc"))
    assert refusal.value.code == ECRYPT


@pytest.mark.parametrize("missing", ["crt.pem", "key.pem"])
def test_half_of_the_credentials_is_an_error_not_anonymity(missing: str) -> None:
    half = {name: file for name, file in CREDENTIALS.items() if name != missing}
    with pytest.raises(OapError, match=f"but no client/oping/{missing}") as refusal:
        load_settings(below("client/oping", half), "client", "oping")
    assert refusal.value.code == EAUTH


def test_a_certificate_of_our_own_for_the_other_side_is_an_error_that_names_it() -> None:
    certificate = Authority("oping", by=ROOT, extensions=[(ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)])
    content = {"crt.pem": certificate.pem, "key.pem": key_pem(certificate.key)}
    assert load_settings(below("client/oping", content), "client", "oping").credentials is not None
    with pytest.raises(OapError, match=r"server/oping/crt\.pem: it is for other uses only: .* without serverAuth"):
        load_settings(below("server/oping", content), "server", "oping")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("enc.conf", r"server/oping/enc\.conf, line 1"),
        ("policy.conf", r"server/oping/policy\.conf, line 1"),
        ("crt.pem", r"server/oping/crt\.pem, server/oping/key\.pem: the certificate is no PEM"),
        ("key.pem", r"server/oping/key\.pem: the key is no unencrypted PEM key"),
        ("kex.key.pem", r"server/oping/kex\.key\.pem: "),
        ("kex.key.raw", r"server/oping/kex\.key\.raw: "),
    ],
)
def test_a_file_that_is_broken_is_named(name: str, text: str) -> None:
    content = {**CREDENTIALS, name: b"-----BEGIN nonsense"}
    with pytest.raises(OapError, match=text):
        load_settings(below("server/oping", content), "server", "oping")


def test_a_file_that_cannot_be_read_is_not_a_missing_one() -> None:
    def read(path: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with pytest.raises(OapError, match=r"client/oping/enc\.conf cannot be read: Permission denied"):
        load_settings(read, "client", "oping")


@pytest.mark.parametrize("name", ["..", "../other", "a/../b", "/etc", "a//b", "a/", ".", "", "a\0b"])
def test_a_name_does_not_lead_out_of_the_directory(name: str) -> None:
    def read(path: str) -> bytes:
        raise AssertionError(f"{path} was read")

    assert not has_directory(name)
    assert load_settings(read, "client", name) == Settings()


def test_a_name_with_slashes_has_directories() -> None:
    assert load_settings(below("client/a/b", {"enc.conf": b""}), "client", "a/b") == Settings(Encryption())


def test_a_store_with_a_broken_file_is_an_error_that_names_it() -> None:
    with pytest.raises(OapError, match=r"odd\.pem: it is no PEM certificate"):
        load_trust({"root.pem": ROOT.pem}, {"odd.pem": b""})
