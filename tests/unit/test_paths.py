"""Where the runtime directory is, and when it is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ouroboros.errors import NodeError
from ouroboros.runtime.paths import make_runtime_dir, runtime_dir, socket_path

ROOT, USER = 0, 1234


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An ordinary user without any variable that counts."""
    for variable in ("OUROBOROS_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    return monkeypatch


@pytest.fixture
def free_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("user", [ROOT, USER])
def test_the_variable_of_the_package_comes_first_for_everybody(environment: pytest.MonkeyPatch, user: int) -> None:
    environment.setattr(os, "geteuid", lambda: user)
    environment.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    environment.setenv("OUROBOROS_RUNTIME_DIR", "/chosen/place")
    assert runtime_dir() == Path("/chosen/place")


def test_a_relative_variable_means_from_the_working_directory(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.chdir(tmp_path)
    environment.setenv("OUROBOROS_RUNTIME_DIR", "here")
    assert runtime_dir() == tmp_path / "here"


def test_root_has_the_directory_of_the_system(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(os, "geteuid", lambda: ROOT)
    environment.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert runtime_dir() == Path("/run/ouroboros")


def test_a_user_has_a_directory_in_that_of_the_session(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    assert runtime_dir() == Path("/run/user/1234/ouroboros")


def test_a_user_without_a_session_has_a_directory_of_his_own_in_tmp(environment: pytest.MonkeyPatch) -> None:
    assert runtime_dir() == Path("/tmp/ouroboros-1234")


def test_empty_variables_count_as_not_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OUROBOROS_RUNTIME_DIR", "")
    environment.setenv("XDG_RUNTIME_DIR", "")
    assert runtime_dir() == Path("/tmp/ouroboros-1234")


# --- the socket


def test_the_socket_lies_in_the_directory() -> None:
    assert socket_path(Path("/run/ouroboros")) == "/run/ouroboros/irm.sock"


def test_a_path_as_long_as_the_kernel_takes_is_fine_and_one_longer_is_refused() -> None:
    longest = Path("/" + "d" * (107 - len("//irm.sock")))
    assert len(socket_path(longest)) == 107
    with pytest.raises(NodeError, match=r"too long a path for a socket: set OUROBOROS_RUNTIME_DIR"):
        socket_path(Path(f"{longest}d"))


def test_the_length_of_a_path_counts_in_bytes() -> None:
    with pytest.raises(NodeError, match="too long"):
        socket_path(Path("/" + "é" * 50))


# --- making it


@pytest.mark.usefixtures("free_umask")
def test_a_users_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    directory = tmp_path / "a" / "node"
    # What is made belongs to whoever runs the tests, and root owns safely in the eyes of everybody.
    monkeypatch.setattr(os, "geteuid", lambda: owner or USER)
    make_runtime_dir(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.usefixtures("free_umask")
def test_roots_directory_lets_other_users_reach_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ROOT)
    if os.stat(tmp_path).st_uid != ROOT:
        pytest.skip("needs files of root")
    make_runtime_dir(tmp_path / "node")
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o755


def test_a_directory_that_is_there_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "irmd.lock").touch()
    tmp_path.chmod(0o750)
    make_runtime_dir(tmp_path)
    make_runtime_dir(tmp_path)
    assert (tmp_path / "irmd.lock").exists()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777], ids=oct)
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "node"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(NodeError, match="is not safe: it must be a directory of yours that nobody else can write"):
        make_runtime_dir(directory)


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    if owner == ROOT:
        owner = USER
        os.chown(tmp_path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(NodeError, match="is not safe"):
        make_runtime_dir(tmp_path)


def test_a_link_is_refused_even_to_a_directory_of_ours(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(NodeError, match="is not safe"):
        make_runtime_dir(tmp_path / "link")


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node").touch()
    with pytest.raises(NodeError, match=r"cannot use the runtime directory .*/node: File exists"):
        make_runtime_dir(tmp_path / "node")


def test_a_place_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeError, match="Not a directory"):
        make_runtime_dir(tmp_path / "file" / "node")
