"""Mistakes that people make, and what they are told: rows for the tables of `test_mistakes.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from ouroboros import dev, event, irm, server

#: What nobody needs to know to use the package.
INSIDE = (
    "msgspec",
    "Endpoint",
    "BlockingFlow",
    "AwaitedFlow",
    "_held",
    "_check",
    "_get_",
    "_drop",
    "_watcher",
    "object has no attribute",
    "object is not",
    "not supported between",
    "cannot be interpreted as",
    "Can't extract",
    "strides is null",
    "invalid literal",
    "control message",
    "at `$",
    "Traceback",
    "errno",
    "[Errno",
)


class Row(NamedTuple):
    """A mistake. `code`: what was written. `kind`: of the exception. `words`: what its text has to have."""

    code: str
    kind: type[BaseException]
    words: tuple[str, ...]

    def check(self, scope: dict[str, Any]) -> None:
        with pytest.raises(self.kind) as caught:
            eval(self.code, scope)
        assert type(caught.value) is self.kind
        explains(str(caught.value), *self.words)


def row(code: str, kind: type[BaseException], *words: str) -> Any:
    return pytest.param(Row(code, kind, words), id=code)


def explains(text: str, *words: str) -> None:
    """A text says what it has to, in one line, and nothing of the inside."""
    for word in words:
        assert word in text, text
    for word in INSIDE:
        assert word not in text, text
    # A value that was given may be long; what is said of it is not.
    assert len(text) < 400
    assert "\n" not in text


def scope() -> dict[str, Any]:
    """What a program has imported that makes the mistakes."""
    modules = (dev, event, irm, server)
    return {name: getattr(module, name) for module in modules for name in module.__all__}


__all__ = ["INSIDE", "Row", "explains", "row", "scope"]
