"""`ouroboros cert`: certificates that both sides accept, files where the node looks, keys that nobody else can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from oap_support import NOW, shake

from ouroboros.oap import Encryption, OapError, Settings, asking
from ouroboros.oap.certificates import Certificate, Credentials, TrustStore
from ouroboros.oap.directory import load_settings, load_trust
from ouroboros.oap.issuing import Issued, check_name, make_authority, make_certificate
from ouroboros.runtime.paths import security_dir
from ouroboros.tools.main import ouroboros

#: Both fit into one datagram of the prototype, 2048 bytes; so much is left for the certificate and the signature.
_ROOM = 500

Run = Callable[..., Result]


def authority(days: int = 3650) -> Issued:
    return make_authority("an authority", random=Random(1), wall=NOW, days=days)


def issue(name: str, days: int = 30) -> Issued:
    return make_certificate(name, authority(), random=Random(2), wall=NOW, days=days)


# --- what is issued


def test_an_issued_certificate_is_accepted_by_who_trusts_the_authority() -> None:
    made = issue("oping")
    trust = TrustStore({"ca": authority().certificate})
    settings = Settings(Encryption("X25519"), credentials=Credentials(made.certificate, made.key), trust=trust)
    allocated, accepted = shake(settings, settings)
    assert (allocated.peer_name, accepted.peer_name) == ("oping", "oping")


def test_an_issued_certificate_is_small_and_issues_nothing() -> None:
    made = issue("x" * 64)
    credentials = Credentials(made.certificate, made.key)
    assert len(credentials.certificate) + len(credentials.sign(b"", 0)) < _ROOM
    service = x509.load_pem_x509_certificate(made.certificate)
    assert not service.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    below = make_certificate("bank", made, random=Random(3), wall=NOW, days=1)
    store = TrustStore({"ca": authority().certificate}, {"service": made.certificate})
    with pytest.raises(OapError, match="is no CA"):
        store.verify(Certificate(Credentials(below.certificate, below.key).certificate), NOW)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "a/b",
        "a,b",
        "CN=a",
        "a=b",
        "a+b",
        'a"b',
        "a\\b",
        "#a",
        " a",
        "a ",
        "a\n",
        "a\0b",
        "\xe9",
        ".",
        "..",
    ],
)
def test_a_name_that_could_be_taken_for_another_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|character|in it"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "oping", "my service", "node-1.example:80", "x" * 64, "(a)"])
def test_an_ordinary_name_is_fine(name: str) -> None:
    check_name(name)
    assert Certificate(Credentials(issue(name).certificate, issue(name).key).certificate).name == name


def test_a_certificate_does_not_outlive_its_authority() -> None:
    with pytest.raises(ValueError, match="choose fewer days"):
        make_certificate("oping", authority(days=10), random=Random(2), wall=NOW, days=11)


def test_an_authority_that_cannot_be_used_says_so_and_not_more() -> None:
    good, other = authority(), make_authority("other", random=Random(9), wall=NOW, days=1)
    for bad in (Issued(good.certificate, other.key), Issued(b"", good.key), Issued(good.certificate, b"nonsense")):
        with pytest.raises(ValueError, match="authority"):
            make_certificate("oping", bad, random=Random(2), wall=NOW, days=1)
    assert repr(good) == "<Issued>"


# --- the command


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("OUROBOROS_SECURITY_DIR", str(tmp_path / "security"))

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(ouroboros, ["cert", *words])

    return invoke


def test_the_command_writes_what_the_node_reads(run: Run, tmp_path: Path) -> None:
    for words in (["authority"], ["server", "oping"], ["client", "alice", "--to", "oping"]):
        result = run(*words)
        assert result.exit_code == 0, result.output
    directory = tmp_path / "security"

    def read(path: str) -> bytes | None:
        file = directory / path
        return file.read_bytes() if file.exists() else None

    trust = load_trust({"authority.pem": (directory / "cacert/authority.pem").read_bytes()}, {})
    client = asking(load_settings(read, "client", "oping", trust), 128)
    made = Certificate(client.credentials.certificate).x509 if client.credentials else None
    assert made is not None
    now = int((made.not_valid_before_utc.timestamp() + 7200) * 10**9)
    allocated, accepted = shake(client, load_settings(read, "server", "oping", trust), wall=now)
    assert (allocated.peer_name, accepted.peer_name) == ("oping", "alice")


def test_keys_belong_to_their_owner_alone_whatever_the_umask(run: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run("authority")
        run("server", "oping")
    finally:
        os.umask(before)
    keys = sorted((tmp_path / "security").rglob("key.pem"))
    assert len(keys) == 2
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600, 0o600]


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    run("authority")
    run("server", "oping")
    files = {path: path.read_bytes() for path in (tmp_path / "security").rglob("*.pem")}
    for words in (["authority"], ["server", "oping"]):
        result = run(*words)
        assert result.exit_code == 1
        assert "remove it first" in result.output
    assert files == {path: path.read_bytes() for path in (tmp_path / "security").rglob("*.pem")}


def test_files_for_another_host_come_with_the_authoritys_certificate_but_not_its_key(run: Run, tmp_path: Path) -> None:
    run("authority")
    output = tmp_path / "for-b"
    assert run("server", "oping", "--output", str(output)).exit_code == 0
    made = sorted(str(path.relative_to(output)) for path in output.rglob("*.pem"))
    assert made == ["cacert/authority.pem", "server/oping/crt.pem", "server/oping/key.pem"]


def test_an_authority_whose_key_others_can_read_issues_nothing(run: Run, tmp_path: Path) -> None:
    run("authority")
    key = tmp_path / "security/authority/key.pem"
    key.chmod(0o644)
    result = run("server", "oping")
    assert result.exit_code == 1
    assert f"`chmod 600 {key}`" in "".join(result.output.splitlines())
    assert not (tmp_path / "security/server").exists()


def test_mistakes_are_told(run: Run) -> None:
    result = run("server", "oping")
    assert result.exit_code == 1
    assert "make one with ouroboros cert authority" in result.output
    run("authority", "--days", "10")
    for words, text in (
        (["server", "CN=oping"], "has = in it"),
        (["client", "alice", "--to", "../x"], "has / in it"),
        (["client", "alice", "--to", ".."], "is no name"),
        (["server", "oping", "--days", "11"], "choose fewer days"),
    ):
        result = run(*words)
        assert result.exit_code == 1
        assert text in result.output
    assert run("client", "alice").exit_code == 2


# --- the directory


def test_the_directory_is_the_chosen_one_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OUROBOROS_SECURITY_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert security_dir() == Path("/home/somebody/.config/ouroboros/security")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert security_dir() == Path("/config/ouroboros/security")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert security_dir() == Path("/etc/ouroboros/security")
    monkeypatch.setenv("OUROBOROS_SECURITY_DIR", "/chosen")
    assert security_dir() == Path("/chosen")
