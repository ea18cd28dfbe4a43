"""The grammar of the `irm` command: what words become. Pure.

`parse` turns words into a `Command` by the table `VERBS`. The grammar is that of the C prototype: keys in any order, and a
prefix of an object, verb or key stands for the first one in the table that begins with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ouroboros.tools.irm_table import OBJECTS, VERBS, Key, Verb


class UsageError(Exception):
    """The words are no command; the text says which word is wrong. `help_for`: words whose help fits."""

    def __init__(self, text: str, *help_for: str) -> None:
        super().__init__(text)
        self.help_for = help_for


@dataclass(frozen=True)
class Command:
    """A parsed command line. `values`: for each key that was given, its values in order; a flag has none.

    `operand` is empty when none was given, `args` is None without a `--`.
    """

    verb: Verb
    operand: str = ""
    values: dict[str, list[str]] = field(default_factory=dict)
    args: list[str] | None = None
    json: bool = False

    def has(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> str:
        """The first value of the key, or the empty string, which no key can have."""
        return self.values[key][0] if key in self.values else ""


@dataclass(frozen=True)
class Help:
    """The user asked for help on `words`, or for the version."""

    words: tuple[str, ...] = ()
    version: bool = False


def parse(words: Sequence[str]) -> Command | Help:
    """Turn the words after `irm` into a command; raise `UsageError` naming the word that is wrong."""
    _check_text(words)
    before, args = _split_args(words)
    options = [word for word in before if word.startswith("--") or word == "-h"]
    rest = [word for word in before if word not in options]
    if "--help" in options or "-h" in options:
        return Help(tuple(rest))
    if (about := _help_words(rest)) is not None:
        return Help(tuple(about))
    if "--version" in options:
        return Help(version=True)
    for option in options:
        if option != "--json":
            raise UsageError(f"no such option: {option} (known: --json, --help, --version)")
    verb, rest = parse_verb(rest)
    operand, rest = _parse_operand(verb, rest)
    if args is not None and not verb.takes_args:
        raise UsageError(f"'{verb.words}' takes no arguments after --", *verb.words.split())
    if options and not verb.shows:
        raise UsageError("--json goes with the lists only", verb.object, verb.name)
    return Command(verb, operand, _parse_keys(verb, rest), args, json=bool(options))


def _check_text(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{word!r} is not valid UTF-8") from error


def _split_args(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    if "--" not in words:
        return list(words), None
    cut = words.index("--")
    return list(words[:cut]), list(words[cut + 1 :])


def _help_words(words: Sequence[str]) -> Sequence[str] | None:
    """The words that `help` is asked about: it stands in the place of an object or of a verb."""
    if not words:
        return None
    object_ = _match(words[0], [*OBJECTS, "help"])
    if object_ == "help":
        return words[1:]
    verbs = [verb.name for verb in VERBS if verb.object == object_]
    if any(verbs) and len(words) > 1 and _match(words[1], [*verbs, "help"]) == "help":
        return words[:1]
    return None


def parse_object(words: Sequence[str]) -> str:
    """The object that the first word means."""
    if not words:
        raise UsageError(f"nothing asked for: begin with {either(OBJECTS)}")
    object_ = _match(words[0], OBJECTS)
    if object_ is None:
        raise UsageError(f"no such object: {words[0]} (known: {', '.join(OBJECTS)})")
    return object_


def parse_verb(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that the first two words mean, and the words after them."""
    object_ = parse_object(words)
    verbs = {verb.name: verb for verb in VERBS if verb.object == object_}
    if "" in verbs:
        return verbs[""], list(words[1:])
    if len(words) < 2:
        raise UsageError(f"nothing asked for: after '{object_}' comes {either(verbs)}", object_)
    name = _match(words[1], verbs)
    if name is None:
        raise UsageError(f"'{object_}' has no verb {words[1]} (known: {', '.join(verbs)})", object_)
    return verbs[name], list(words[2:])


def _parse_operand(verb: Verb, words: list[str]) -> tuple[str, list[str]]:
    if verb.operand and words:
        return words[0], words[1:]
    if verb.operand.startswith("<"):
        raise UsageError(f"'{verb.object} {verb.name}' needs a {verb.operand}", verb.object, verb.name)
    return "", words


def _parse_keys(verb: Verb, words: list[str]) -> dict[str, list[str]]:
    here = verb.object, verb.name
    keys = {key.name: key for key in verb.keys}
    values: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        name = _match(word, keys)
        if name is None:
            raise UsageError(f"no such key: {word} (known: {', '.join(keys) or 'none'})", *here)
        if name in values and not keys[name].many:
            raise UsageError(f"key '{name}' is given twice", *here)
        given = values.setdefault(name, [])
        if keys[name].value:
            given.append(_parse_value(verb, keys[name], next(rest, None)))
    for key in verb.keys:
        if key.required and key.name not in values:
            raise UsageError(f"key '{key.name}' is missing", *here)
    return values


def _parse_value(verb: Verb, key: Key, word: str | None) -> str:
    here = verb.object, verb.name
    if not word:
        raise UsageError(f"key '{key.name}' needs a value", *here)
    if key.words:
        value = _match(word, key.words)
        if value is None:
            raise UsageError(f"key '{key.name}' cannot be {word}: say {either(key.words)}", *here)
        return value
    if key.settings:
        try:
            key.check(word)
        except ValueError as error:
            raise UsageError(f"key '{key.name}' {error}", *here) from None
    return word


def type_in(verb: Verb, words: Sequence[str]) -> str | None:
    """The type of IPC process that is given among the words after a verb, which need not be complete."""
    keys = {key.name: key for key in verb.keys}
    rest = iter(words)
    for word in rest:
        name = _match(word, keys)
        value = next(rest, None) if name is not None and keys[name].value else None
        if name == "type" and value is not None:
            return _parse_value(verb, keys[name], value)
    return None


def _match(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` is, or the first that it begins; upper and lower case are the same."""
    folded = {name.lower(): name for name in known}
    if word.lower() in folded:
        return folded[word.lower()]
    return next((name for low, name in folded.items() if word and low.startswith(word.lower())), None)


def either(words: Iterable[str]) -> str:
    """The words as a sentence offers them for choice."""
    *most, last = [*words] or [""]
    return f"{', '.join(most)} or {last}" if most else last
