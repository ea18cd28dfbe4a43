"""Checks of what callers give. Each gives the value back, or raises with a text that names the argument."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

import msgspec

from ouroboros._values import plain_text, whole_number

#: Names, layers and programs are at most this many bytes of UTF-8 (C prototype: 255).
NAME_LENGTH = 255

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


def shown(value: object) -> str:
    """A value for the text of an error; a long one is cut."""
    return _repr.repr(value)


def as_text(value: object, what: str) -> str:
    """Raises `TypeError`."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {shown(value)}")
    return plain_text(value)


def as_name(text: str, what: str, refused: type[Exception]) -> str:
    """Raises `refused` for a text that can be the name of nothing."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise refused(f"the {what} {shown(text)} is not valid UTF-8: {error.reason}") from error
    if not text:
        raise refused(f"the {what} is empty: give one of 1 to {NAME_LENGTH} bytes")
    if length > NAME_LENGTH:
        raise refused(f"the {what} has {length} bytes in UTF-8; at most {NAME_LENGTH} are allowed")
    if not text.isprintable():
        raise refused(f"the {what} {shown(text)} has control characters in it: leave them out, line ends included")
    return plain_text(text)


def as_whole(value: object, what: str, least: int = 0, most: int = 2**63 - 1) -> int:
    """Raises `TypeError` or `ValueError`."""
    try:
        number = whole_number(value)
    except TypeError:
        raise TypeError(f"{what} is a whole number, not {shown(value)}") from None
    if number < least:
        raise ValueError(f"{what} must be at least {least}, not {number}")
    if number > most:
        raise ValueError(f"{what} must be at most {most}, not {number}")
    return number


def as_texts(value: Iterable[str] | None, what: str, instead: str = "") -> list[str]:
    """Raises `TypeError`, also for a text where a list of them belongs; `instead` is what to write for that one."""
    if isinstance(value, str):
        raise TypeError(f"{what} is a list of str, not {shown(value)}: write {instead or f'{what}=[{shown(value)}]'}")
    try:
        found = list(value or ())
    except TypeError:
        raise TypeError(f"{what} is a list of str, not {shown(value)}") from None
    return [as_text(each, f"each of {what}") for each in found]


class FieldNames(msgspec.StructMeta):
    """Of a class of settings: a field that does not exist, or is left out, is an error that names the class and its
    fields."""

    def __call__(cls, *values: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return super().__call__(*values, **named)
        except TypeError as error:
            wrong = _wrong_fields(cls, values, named)
            if wrong is None:
                raise
            raise TypeError(f"{cls.__name__}: {wrong}") from error


def _wrong_fields(kind: Any, values: tuple[Any, ...], named: dict[str, Any]) -> str | None:  # noqa: ANN401
    fields: tuple[str, ...] = kind.__struct_fields__
    if unknown := [field for field in named if field not in fields]:
        return f"there is no field {unknown[0]!r} (known: {', '.join(fields)})"
    if len(values) > len(fields):
        return f"{len(values)} values were given for {len(fields)} fields ({', '.join(fields)}): give them by name"
    if twice := [field for field in fields[: len(values)] if field in named]:
        return f"{twice[0]} was given twice, by its place and by its name"
    required = fields[: len(fields) - len(kind.__struct_defaults__)]
    if missing := [field for field in required[len(values) :] if field not in named]:
        return f"{missing[0]} is missing"
    return None


__all__ = ["NAME_LENGTH", "FieldNames", "as_name", "as_text", "as_texts", "as_whole", "shown"]
