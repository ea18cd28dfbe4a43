"""What outlives a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ouroboros.layers.effects import Remember
from ouroboros.runtime.memory import Memory


def again(directory: Path) -> dict[str, bytes]:
    """What the next node has."""
    memory = Memory(directory)
    memory.load()
    memory.close()
    return memory.kept


def test_the_next_node_has_what_was_to_be_remembered(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "ouroboros"
    memory = Memory(directory)
    memory.load()
    assert not directory.exists()
    for effect in (Remember("a", b"\0\1"), Remember("b", b"x"), Remember("a", b"\2"), Remember("c", b"x")):
        memory.remember(effect)
    memory.remember(Remember("c", b""))
    memory.close()
    memory.remember(Remember("a", b"\3"))
    assert again(directory) == {"a": b"\2", "b": b"x"}
    assert sorted(path.name for path in directory.iterdir()) == ["memory", "memory.lock"]
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_file_is_of_one_node_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Memory(tmp_path), Memory(tmp_path)
    first.remember(Remember("a", b"x"))
    second.load()
    second.remember(Remember("a", b"y"))
    second.remember(Remember("b", b"y"))
    assert second.kept == {"a": b"y", "b": b"y"}
    assert caplog.text.count("is in use by another node") == 1
    second.close()
    first.close()
    assert again(tmp_path) == {"a": b"x"}


def test_two_nodes_that_found_no_file_do_not_share_the_one_that_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Memory(tmp_path), Memory(tmp_path)
    first.load()
    second.load()
    first.remember(Remember("a", b"x"))
    second.remember(Remember("a", b"y"))
    assert "is in use by another node" in caplog.text
    second.close()
    first.close()
    assert again(tmp_path) == {"a": b"x"}


def test_what_is_no_regular_file_does_not_stop_the_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "memory")
    assert again(tmp_path) == {}
    assert "is forgotten" in caplog.text


@pytest.mark.parametrize(
    "data", [b"", b"\x81\xa1a", b"\x93\1\2\3", b"\x81\xa1a\1", b"\x81\xa1\x80\xc4\1a", b"\x91" * 5000]
)
def test_a_file_that_is_none_is_forgotten_and_said(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "memory").write_bytes(data)
    assert again(tmp_path) == {}
    assert "is forgotten" in caplog.text


def test_a_file_that_cannot_be_written_is_said_and_the_node_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file" / "state")
    memory.load()
    memory.remember(Remember("a", b"x"))
    assert memory.kept == {"a": b"x"}
    assert "cannot be written" in caplog.text
    assert "OUROBOROS_STATE_DIR" in caplog.text
