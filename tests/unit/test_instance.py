"""The number by which a node tells a process from what its pid runs later."""

from __future__ import annotations

import os

import pytest

from ouroboros.runtime.instance import instance


def _no_files(*_: object, **__: object) -> None:
    raise PermissionError


def test_a_process_that_may_not_read_about_itself_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    before = instance()
    monkeypatch.setattr("builtins.open", _no_files)
    assert instance() == before


def test_a_fork_has_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = instance()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert instance() != before
