"""The security directory on the disk: whose keys are taken, and which files are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ouroboros.runtime.security import SecurityDirectory

KEY = b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"
USER = 1234


@pytest.fixture
def directory(tmp_path: Path) -> SecurityDirectory:
    (tmp_path / "server/x").mkdir(parents=True)
    return SecurityDirectory(tmp_path)


def write(path: Path, content: bytes, mode: int) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o620, 0o601, 0o777], ids=oct)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("key.pem", KEY),
        ("key.pem", KEY.replace(b"PRIVATE", b"EC PRIVATE")),
        ("kex.key.pem", KEY),
        ("kex.key.raw", bytes(96)),
        # Wherever it is.
        ("crt.pem", b"-----BEGIN CERTIFICATE-----\n" + KEY),
    ],
)
def test_a_private_key_that_others_can_use_is_refused(
    directory: SecurityDirectory, tmp_path: Path, name: str, content: bytes, mode: int
) -> None:
    path = write(tmp_path / "server/x" / name, content, mode)
    text = rf"private key that other users can use \(mode {mode:04o}\): `chmod 600 {path}`"
    for way in (f"server/x/{name}", str(path)):
        with pytest.raises(OSError, match=text):
            directory.read(way)
    path.chmod(0o600)
    assert directory.read(f"server/x/{name}") == content
    path.chmod(0o400)
    assert directory.read(f"server/x/{name}") == content


def test_a_key_behind_a_link_is_looked_at_itself(directory: SecurityDirectory, tmp_path: Path) -> None:
    key = write(tmp_path / "elsewhere", KEY, 0o644)
    (tmp_path / "server/x/key.pem").symlink_to(key)
    with pytest.raises(OSError, match="other users can use"):
        directory.read("server/x/key.pem")
    key.chmod(0o600)
    assert directory.read("server/x/key.pem") == KEY


def test_what_is_no_key_may_be_read_by_everybody(directory: SecurityDirectory, tmp_path: Path) -> None:
    for name, content in {
        "enc.conf": b"",
        "crt.pem": b"-----BEGIN CERTIFICATE-----\n",
        "kex.srv.pub.raw": b"x",
    }.items():
        write(tmp_path / "server/x" / name, content, 0o644)
        assert directory.read(f"server/x/{name}") == content


def test_a_key_of_root_may_be_given_to_a_node_by_its_group(
    directory: SecurityDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "server/x/key.pem", KEY, 0o640)
    # To a node of another user, what is ours is that of somebody else.
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + USER)
    assert directory.read("server/x/key.pem") == KEY
    for mode in (0o644, 0o660, 0o641):
        path.chmod(mode)
        with pytest.raises(OSError, match=r"`chmod 640 .*key\.pem`"):
            directory.read("server/x/key.pem")


def test_files_of_a_folder_are_looked_at_as_well(directory: SecurityDirectory, tmp_path: Path) -> None:
    (tmp_path / "cacert").mkdir()
    write(tmp_path / "cacert/root.pem", KEY, 0o644)
    with pytest.raises(OSError, match="private key that other users can use"):
        directory.files("cacert")
