"""Where the runtime directory is, and when it is refused."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from ouroboros import backend
from ouroboros.errors import NodeError
from ouroboros.runtime import client, paths
from ouroboros.runtime.paths import (
    check_socket,
    make_runtime_dir,
    node_at,
    runtime_dir,
    security_dir,
    socket_path,
    state_dir,
    trusted_users,
)
from ouroboros.wire.control import NodeInfo

ROOT, USER = 0, 1234


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An ordinary user without any variable that counts."""
    for variable in (
        "OUROBOROS_RUNTIME_DIR",
        "OUROBOROS_STATE_DIR",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
    ):
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


# --- what outlives the next start of the machine


def test_what_is_remembered_is_where_the_system_keeps_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOME", "/home/somebody")
    assert state_dir(runtime_dir()) == Path("/home/somebody/.local/state/ouroboros")
    environment.setenv("XDG_STATE_HOME", "/state")
    assert state_dir(runtime_dir()) == Path("/state/ouroboros")
    environment.setattr(os, "geteuid", lambda: ROOT)
    assert state_dir(runtime_dir()) == Path("/var/lib/ouroboros")
    environment.setenv("OUROBOROS_STATE_DIR", "/chosen")
    assert state_dir(runtime_dir()) == state_dir(Path("/another")) == Path("/chosen")


def test_a_node_in_another_runtime_directory_shares_no_memory(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOME", "/home/somebody")
    environment.setenv("OUROBOROS_RUNTIME_DIR", "/another")
    assert state_dir(runtime_dir()) == Path("/another")
    # As the unit of systemd says it.
    assert state_dir(Path("/tmp/ouroboros-1234")) == Path("/home/somebody/.local/state/ouroboros")


def test_a_user_without_a_home_is_told_what_helps_and_remembers_in_the_runtime_directory(
    environment: pytest.MonkeyPatch,
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    environment.setattr(Path, "home", homeless)
    assert state_dir(runtime_dir()) == runtime_dir()
    for variable in ("OUROBOROS_SECURITY_DIR", "XDG_CONFIG_HOME"):
        environment.delenv(variable, raising=False)
    with pytest.raises(NodeError, match="user 1234 has no home directory: set HOME, XDG_CONFIG_HOME or OUROBOROS_SEC"):
        security_dir()


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
    with pytest.raises(NodeError, match="is not safe: others can write it: `chmod go-w "):
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
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for link, leads_to in (("link", "real"), ("dangling", "nowhere")):
        with pytest.raises(NodeError, match=f"is a symbolic link: set OUROBOROS_RUNTIME_DIR to .*/{leads_to}$"):
            make_runtime_dir(tmp_path / link)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node").touch()
    with pytest.raises(
        NodeError, match=r"cannot use the runtime directory .*/node: it is no directory: remove what is there"
    ):
        make_runtime_dir(tmp_path / "node")


def test_a_place_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeError, match="a part of its path, is no directory"):
        make_runtime_dir(tmp_path / "file" / "node")


# --- the way to it


@pytest.fixture
def way(tmp_path: Path) -> Path:
    """A runtime directory two directories down."""
    directory = tmp_path / "a" / "b" / "node"
    make_runtime_dir(directory)
    return directory


@pytest.mark.usefixtures("free_umask")
def test_directories_that_are_made_above_it_are_closed_to_others_whatever_the_umask(way: Path) -> None:
    assert {stat.S_IMODE(each.stat().st_mode) & 0o022 for each in way.parents[:2]} == {0}
    make_runtime_dir(way)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777], ids=oct)
@pytest.mark.parametrize("above", [0, 1])
def test_a_directory_above_it_that_others_can_write_is_refused(way: Path, above: int, mode: int) -> None:
    parent = way.parents[above]
    parent.chmod(mode)
    for check in (make_runtime_dir, lambda directory: check_socket(f"{directory}/irm.sock")):
        with pytest.raises(NodeError, match=rf"others can write {parent}, which leads to it: `chmod go-w {parent}`"):
            check(way)
    parent.chmod(mode | stat.S_ISVTX)
    make_runtime_dir(way)


def test_a_directory_above_it_of_somebody_else_is_refused(way: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = way.parent
    if parent.stat().st_uid != ROOT:
        pytest.skip("only root can give a directory away")
    os.chown(parent, USER, -1)
    with pytest.raises(NodeError, match=rf"{parent}, which leads to it, belongs to user {USER}"):
        make_runtime_dir(way)
    # To that user it is his own, and so is what root has in it.
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    make_runtime_dir(way)


def test_links_on_the_way_are_followed_and_what_they_pass_is_looked_at(way: Path) -> None:
    first, second = way.parents[2] / "first", way.parents[2] / "second"
    first.symlink_to("second")
    second.symlink_to(way.parent)
    make_runtime_dir(first / "node")
    way.parents[1].chmod(0o777)
    with pytest.raises(NodeError, match=f"others can write {way.parents[1]}"):
        make_runtime_dir(first / "node")
    way.parents[1].chmod(0o755)
    (way.parent / "link").symlink_to(way)
    with pytest.raises(NodeError, match="is not safe"):
        make_runtime_dir(first / "link")
    way.chmod(0o1777)
    with pytest.raises(NodeError, match="is not safe"):
        make_runtime_dir(first / "node")


def test_a_link_of_somebody_else_is_refused(way: Path) -> None:
    if way.stat().st_uid != ROOT:
        pytest.skip("only root can give a link away")
    link = way.parents[2] / "link"
    link.symlink_to(way.parent)
    os.chown(link, USER, -1, follow_symlinks=False)
    with pytest.raises(NodeError, match=rf"{link}, which leads to it, belongs to user {USER}"):
        make_runtime_dir(link / "node")


def test_links_in_a_circle_end(way: Path) -> None:
    (way.parent / "circle").symlink_to("circle")
    with pytest.raises(NodeError, match=r"cannot use the runtime directory .*circle/node"):
        make_runtime_dir(way.parent / "circle" / "node")
    with pytest.raises(NodeError, match="Too many levels of symbolic links"):
        check_socket(f"{way.parent}/circle/node/irm.sock")


def test_a_socket_that_is_a_link_is_refused_and_one_that_is_missing_is_not(way: Path) -> None:
    check_socket(f"{way}/irm.sock")
    check_socket(f"{way}/missing/irm.sock")
    (way / "irm.sock").symlink_to("/run/ouroboros/irm.sock")
    with pytest.raises(
        NodeError, match=r"irm\.sock is a symbolic link and leads to the socket of another node: remove it"
    ):
        check_socket(f"{way}/irm.sock")


# --- user namespaces

NOBODY = 65534


@pytest.mark.parametrize(
    ("map", "trusted"),
    [
        ("         0          0 4294967295\n", {0, NOBODY}),
        ("0 100000 65536\n", {0, NOBODY}),
        ("0 1000 1\n1 100000 65533\n", {0}),
        ("65534 1000 1\n", {0, NOBODY}),
        ("", {0}),
    ],
)
def test_a_user_whom_the_namespace_does_not_map_is_not_taken_for_another(
    map: str, trusted: set[int], environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(Path, "read_text", lambda _: map)
    environment.setattr(os, "geteuid", lambda: NOBODY)
    assert trusted_users() == trusted
    environment.setattr(os, "geteuid", lambda: USER)
    assert trusted_users() == {0, USER}


def test_in_a_namespace_the_directories_of_the_system_may_be_of_anybody(
    way: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way.stat().st_uid != ROOT:
        pytest.skip("only root can give a directory away")
    os.chown(way.parent, NOBODY, -1)
    with pytest.raises(NodeError, match="belongs to user 65534"):
        make_runtime_dir(way)
    monkeypatch.setattr(paths, "_is_anybody", lambda user: user == NOBODY)
    make_runtime_dir(way)
    os.chown(way, NOBODY, -1)
    with pytest.raises(NodeError, match="belongs to user 65534"):
        make_runtime_dir(way)


def test_calls_of_a_task_go_to_the_node_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of one program use two nodes, which the environment cannot say."""
    monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", "/named/by/the/environment")
    monkeypatch.setenv("OUROBOROS_BACKEND", "native")
    seen: dict[str, tuple[Path, bool]] = {}

    async def use(name: str, others: asyncio.Barrier) -> None:
        with node_at(Path(f"/nodes/{name}")):
            await others.wait()
            seen[name] = runtime_dir(), backend.is_our_node()

    async def both() -> None:
        barrier = asyncio.Barrier(2)
        await asyncio.gather(use("a", barrier), use("b", barrier))

    asyncio.run(both())
    assert seen == {"a": (Path("/nodes/a"), True), "b": (Path("/nodes/b"), True)}
    assert runtime_dir() == Path("/named/by/the/environment")


def test_no_node_is_started_in_the_place_of_one_that_a_task_names(tmp_path: Path) -> None:
    with node_at(tmp_path), pytest.raises(NodeError, match=f"no node runs in {tmp_path}"):
        client.request(NodeInfo())
    assert list(tmp_path.iterdir()) == []
