"""What outlives a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouroboros.layers.effects import Remember
from ouroboros.runtime.memory import Memory


def again(directory: Path) -> dict[str, bytes]:
    """What the next node has."""
    memory = Memory(directory)
    memory.load()
    return memory.kept


def test_the_next_node_has_what_was_to_be_remembered(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.load()
    for effect in (Remember("a", b"\0\1"), Remember("b", b"x"), Remember("a", b"\2"), Remember("c", b"x")):
        memory.remember(effect)
    memory.remember(Remember("c", b""))
    assert memory.kept == again(tmp_path) == {"a": b"\2", "b": b"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


@pytest.mark.parametrize("data", [b"", b"\x81\xa1a", b"\x93\1\2\3", b"\x81\xa1a\1"])
def test_a_file_that_is_none_is_forgotten_and_said(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "memory").write_bytes(data)
    assert again(tmp_path) == {}
    assert "is forgotten" in caplog.text


def test_a_file_that_cannot_be_written_is_said_and_the_node_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(tmp_path / "gone")
    memory.remember(Remember("a", b"x"))
    assert memory.kept == {"a": b"x"}
    assert "cannot be written" in caplog.text
