"""Settings that are checked and described. From the description of a field come its check, its key in the command and in the
configuration file, and its line of help.

Each check gives back the value to keep, or raises with a text that begins after the name of the field or key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import msgspec

from ouroboros._arguments import NAME_LENGTH, FieldNames, shown
from ouroboros._values import plain_text, whole_number

#: The largest number that a range may end with and not say so.
UNLIMITED = 2**32 - 1

#: Bytes of a peer: a name, an address and a port.
_PEER_LENGTH = NAME_LENGTH + 64

#: Bytes of all names that are let in, and of each beside its name: they have to fit into what a member is told of its layer.
_ADMITTED_LENGTH, _ADMITTED_HEAD = 512, 4

_C = TypeVar("_C", bound="WordEnum")
_F = TypeVar("_F", bound=Callable[[Any], Any])
_S = TypeVar("_S", bound="Checked")


class WordEnum(IntEnum):
    """A choice. Words go over no wire, numbers do."""

    @property
    def word(self) -> str:
        """What the `irm` command calls it."""
        return self.name.lower()


# --- kinds of values


def _said(value: object) -> str:
    return str(value or "")


@dataclass(frozen=True)
class Check:
    """What a field may hold: called with a value, it gives back the one to keep.

    `sort`: what help calls a value. `read`: what a word of the command, or a string of the file, means; raises `ValueError`.
    `say`: a value as it would be given, empty for one that stands for none. `range`: which values there are, with their
    unit. `words`: all of them, if they can be listed. `toml`, `what`: the type in the file, and how that is said. `many`:
    the command gives it word by word. `emptied`: in the file, an empty string stands for none. `part`: the class of settings
    within settings; `without`: those without a use here.
    """

    check: Callable[[Any], Any]
    sort: str = "TEXT"
    read: Callable[[str], Any] = str
    say: Callable[[Any], str] = _said
    range: str = ""
    words: tuple[str, ...] = ()
    toml: Any = str
    what: str = "a string"
    many: bool = False
    emptied: bool = False
    part: type[Any] | None = None
    without: tuple[str, ...] = ()

    def __call__(self, value: Any) -> Any:  # noqa: ANN401
        return self.check(value)


def whole(least: int, most: int, unit: str = "", *, base: int = 10) -> Check:
    """A whole number. `unit`: plural, or a symbol."""
    known, example = "0123456789", "a whole number"
    if base == 16:
        known, example = f"{known}abcdef", "a hexadecimal number such as A000"
    behind = unit and f" {unit}"

    def check(value: Any) -> int:  # noqa: ANN401
        try:
            number = whole_number(value)
        except TypeError:
            raise TypeError(f"must be a whole number{unit and f' ({unit})'}, not {shown(value)}") from None
        if not least <= number <= most:
            begin, end, given = (f"0x{each:04X}" if base == 16 else each for each in (least, most, number))
            raise ValueError(f"must be from {begin} to {end}{behind}, not {given}")
        return number

    def read(word: str) -> int:
        digits = word.lower().removeprefix("0x") if base == 16 else word
        if not digits or not set(digits) <= set(known):
            raise ValueError(f"must be {example}, not {word}")
        return int(digits, base)

    def say(value: int) -> str:
        return f"{value:04X}" if base == 16 else str(value)

    range = f"{say(least)}{behind} or more" if most == UNLIMITED else f"{say(least)} to {say(most)}{behind}"
    return Check(check, "NUMBER", read, say, range, toml=int, what="a whole number")


def text(longest: int, *, optional: bool = False) -> Check:
    """A string of so many bytes at most. `optional`: None stands for none."""

    def check(value: Any) -> str | None:  # noqa: ANN401
        if value is None and optional:
            return None
        if not isinstance(value, str):
            raise TypeError(f"must be a string, not {shown(value)}")
        length = len(value.encode(errors="surrogatepass"))
        if length > longest:
            raise ValueError(f"has {length} bytes in UTF-8; at most {longest} fit")
        return plain_text(value)

    return Check(check)


def choice(kind: type[WordEnum]) -> Check:
    """A member of an enum. A plain number may stand for it, which is what the C prototype's interface takes."""
    by_word = {each.word: each for each in kind}
    alike = {_folded(word): each for word, each in by_word.items()}

    def check(value: Any) -> WordEnum:  # noqa: ANN401
        if isinstance(value, kind):
            return value
        # Of another enum it would be a mistake.
        if type(value) is not int:
            raise TypeError(f"must be of class {kind.__name__}, not {shown(value)}: {_suggestion(kind, value)}")
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(f"{each.name} ({each.value})" for each in kind)
            raise ValueError(f"must be one of {known}, not {value}") from None

    def read(word: str) -> WordEnum:
        if _folded(word) not in alike:
            raise ValueError(f"must be one of {', '.join(by_word)}, not {shown(word)}")
        return alike[_folded(word)]

    return Check(check, "WORD", read, lambda value: value.word, words=tuple(by_word))


def _folded(word: str) -> str:
    """The prototype writes some words in two ways, such as `link-state` and `link_state`."""
    return word.lower().replace("-", "_")


def _suggestion(kind: type[WordEnum], value: object) -> str:
    meant = [f"{kind.__name__}.{each.name}" for each in kind if value in (each.name, each.word)]
    if meant:
        return f"write {meant[0]}"
    return f"choose from {', '.join(each.name for each in kind)}"


def as_choice(kind: type[_C], value: object, what: str) -> _C:
    """A member of `kind`, which a plain number may stand for. Raises `TypeError` or `ValueError` naming the argument."""
    try:
        return kind(choice(kind)(value))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} {error}") from None


def address(kind: type[IPv4Address | IPv6Address]) -> Check:
    """An IP address of one version, as text; the unspecified one stands for none."""

    def check(value: Any) -> str:  # noqa: ANN401
        try:
            # The constructors of ipaddress take numbers, too.
            return str(kind(str(value)))
        except ValueError:
            raise ValueError(
                f"must be an {kind.__name__.removesuffix('Address')} address, not {shown(value)}"
            ) from None

    def read(word: str) -> str:
        # Of either version: the command reads it before it knows the type.
        try:
            return str(ip_address(word))
        except ValueError:
            raise ValueError(f"must be an IP address, not {word}") from None

    def say(value: str) -> str:
        return "" if ip_address(value).is_unspecified else value

    return Check(check, "ADDRESS", read, say, what="an address", emptied=True)


def peers() -> Check:
    """Names with addresses, a tuple."""

    def check(value: Any) -> tuple[str, ...]:  # noqa: ANN401
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"must be a tuple of strings such as ('clock@192.0.2.7',), not {shown(value)}")
        return tuple(map(text(_PEER_LENGTH), value))

    def read(word: str) -> str:
        if not all(word.rpartition("@")):
            raise ValueError(f"must be NAME@ADDRESS such as clock@192.0.2.7, not {word}")
        return word

    what = 'an array of strings such as "clock@192.0.2.7"'
    return Check(check, "NAME@ADDRESS", read, toml=list[str], what=what, many=True)


def names(what: str) -> Check:
    """Names of things that are called `what`; a tuple of strings."""

    def check(value: Any) -> tuple[str, ...]:  # noqa: ANN401
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"must be a tuple of names of {what}, not {shown(value)}")
        return tuple(dict.fromkeys(map(text(NAME_LENGTH), value)))

    return Check(check, "NAME", toml=list[str], what=f"an array of names of {what}", many=True)


def admission(*words: str) -> Check:
    """Who is let in: one of the words, or the names of those who are; a tuple of strings."""

    def check(value: Any) -> tuple[str, ...]:  # noqa: ANN401
        names = (value,) if isinstance(value, str) else value
        if not isinstance(names, Iterable):
            raise TypeError(f"must be one of {', '.join(words)}, or a tuple of names, not {shown(value)}")
        admitted = tuple(map(text(NAME_LENGTH), names))
        if not admitted:
            raise ValueError(f"has no names in it: write {words[-1]} if that is meant")
        if len(set(admitted)) > 1 and (mixed := set(admitted) & set(words)):
            raise ValueError(f"has {min(mixed)} among names: it stands for itself")
        if not all(name.isprintable() and name for name in admitted):
            raise ValueError("has a name that is empty, or has control characters in it")
        if (length := sum(_ADMITTED_HEAD + len(name.encode()) for name in admitted)) > _ADMITTED_LENGTH:
            raise ValueError(f"has names of {length} bytes together, {_ADMITTED_HEAD} for each; {_ADMITTED_LENGTH} fit")
        return tuple(dict.fromkeys(admitted))

    what = f"{', '.join(map(repr, words))}, or an array of names"
    return Check(check, "|".join(words) + "|NAME", say=" ".join, toml=str | list[str], what=what, many=True)


def part(kind: type[_S], *, optional: bool = False, without: tuple[str, ...] = ()) -> Check:
    """Settings within settings. None stands for their defaults, or for none."""

    def check(value: Any) -> _S | None:  # noqa: ANN401
        if value is None:
            return None if optional else kind()
        if not isinstance(value, kind):
            raise TypeError(f"must be of class {kind.__name__}, not {shown(value)}")
        return value

    return Check(check, part=kind, without=without)


# --- descriptions


@dataclass(frozen=True)
class Setting:
    """A field that has a key, in the command and in the configuration file. `sort`, `file`: what help calls a value, and the
    key in the file, if another. `also`: one more there, which examples of the prototype have. `required`: nobody can guess
    it. `quiet`: the type has no use for it, and the command takes it all the same."""

    check: Check
    key: str
    help: str
    sort: str = ""
    file: str = ""
    also: str = ""
    required: bool = False
    quiet: bool = False

    def __call__(self, value: Any) -> Any:  # noqa: ANN401
        return self.check(value)

    def value(self, words: list[str]) -> Any:  # noqa: ANN401
        """The value that words of the command give. Raises `ValueError`."""
        read = self.check.read
        return self.check(tuple(map(read, words)) if self.check.many else read(words[0]))

    def about(self, default: Any) -> str:  # noqa: ANN401
        """Its line of help."""
        range, usual = self.check.range, self.check.say(default)
        end = " (required)" if self.required else f" (default {usual})" if usual else ""
        return f"{self.help}{range and f', {range}'}{end}"


def fields(**checks: _F) -> Mapping[str, _F]:
    """The checks of a class by its fields, in the order in which the command looks their keys up."""
    return MappingProxyType(checks)


class Checked(msgspec.Struct, metaclass=FieldNames):
    """Settings with a check for each of their fields."""

    checks: ClassVar[Mapping[str, Callable[[Any], Any]]] = fields()

    def __post_init__(self) -> None:
        for field in self.checks:
            setattr(self, field, getattr(self, field))

    def __setattr__(self, field: str, value: Any) -> None:  # noqa: ANN401
        if field not in self.checks:
            if field in self.__struct_fields__:
                super().__setattr__(field, value)
                return
            known = ", ".join(self.__struct_fields__)
            raise AttributeError(f"{type(self).__name__} has no field {field!r} (known: {known})")
        try:
            checked = self.checks[field](value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{type(self).__name__}: {field} {error}") from None
        super().__setattr__(field, checked)


def described(kind: type[Checked], without: tuple[str, ...] = ()) -> Iterator[tuple[Setting, Any]]:
    """The settings of a class and of its parts with their defaults, in the order in which the command looks them up."""
    for field, check in kind.checks.items():
        if isinstance(check, Check) and check.part is not None:
            yield from described(check.part, check.without)
        elif isinstance(check, Setting) and field not in without:
            yield check, getattr(kind(), field)


def told(settings: Checked, without: tuple[str, ...] = ()) -> Iterator[tuple[Setting, Any]]:
    """The settings with their values, in the order of `described`; of parts, those that there are."""
    for field, check in settings.checks.items():
        value = getattr(settings, field)
        if isinstance(check, Check) and check.part is not None:
            yield from told(value, check.without) if value is not None else ()
        elif isinstance(check, Setting) and field not in without:
            yield check, value


def assembled(kind: type[_S], values: Mapping[str, Any]) -> _S:
    """Settings of that class with values for keys; the others have their defaults."""
    fields: dict[str, Any] = {}
    for field, check in kind.checks.items():
        if isinstance(check, Check) and check.part is not None:
            fields[field] = assembled(check.part, values)
        elif isinstance(check, Setting) and check.key in values:
            fields[field] = values[check.key]
    return kind(**fields)
