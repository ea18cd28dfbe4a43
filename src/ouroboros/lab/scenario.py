"""Scenarios in TOML: the full form of a description, with what happens and what is to be so."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ouroboros.lab import commands
from ouroboros.lab.description import (
    Certificate,
    Description,
    Event,
    Expectation,
    Layer,
    Link,
    Node,
    Policy,
    Program,
)
from ouroboros.lab.errors import DescriptionError
from ouroboros.lab.grammar import describe, parse

T = TypeVar("T")


def load(path: str | os.PathLike[str]) -> Description:
    """Read a scenario. Raises `DescriptionError`, which names the file, the line and the word."""
    try:
        return read(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DescriptionError(f"cannot be read: {error.strerror}", word=str(path)) from error
    except UnicodeDecodeError as error:
        raise DescriptionError(f"no UTF-8 at byte {error.start}", word=str(path)) from error
    except DescriptionError as error:
        error.args = (f"{os.fspath(path)}: {error}",)
        raise


def read(text: str) -> Description:
    """Read the text of a scenario. Raises `DescriptionError`, which names the line and the word."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.fullmatch(r"(.*) \(at (?:line (\d+).*|end of document)\)", str(error), re.DOTALL)
        line = int(match[2]) if match and match[2] else len(text.splitlines())
        raise DescriptionError(match[1] if match else str(error), line=line) from error
    return _Reader(text, values).read()


class _Key(NamedTuple):
    """A key of a table. `kind`: of values. `what`: in words. `needed`: there is no table without it."""

    kind: type | tuple[type, ...]
    what: str
    needed: bool = False


_TEXT, _NUMBER = _Key(str, "a text"), _Key((int, float), "a number")
_TEXTS = _Key(list, "a list of texts")
_TOP = {
    "title": _TEXT,
    "network": _TEXT,
    "over": _Key((str, list), "a text, or a list of texts"),
    "links": _TEXT,
    "silence": _NUMBER,
}
_TABLES: dict[str, dict[str, _Key]] = {
    "node": {"name": _TEXT._replace(needed=True), "stack": _TEXT},
    "link": {"between": _TEXT._replace(needed=True), "type": _TEXT, "impair": _TEXT, "forth": _TEXT, "back": _TEXT},
    "layer": {
        "name": _TEXT._replace(needed=True),
        "type": _TEXT,
        "over": _TEXT,
        "members": _Key((list, dict), "a list of nodes, or a table of members and their nodes"),
        "adjacencies": _TEXTS,
        "settings": _Key(dict, "a table"),
    },
    "program": {"node": _TEXT._replace(needed=True), "run": _TEXTS._replace(needed=True), "serves": _TEXT},
    "certificate": {"node": _TEXT._replace(needed=True), "name": _TEXT._replace(needed=True), "to": _TEXT},
    "policy": {
        "node": _TEXT._replace(needed=True),
        "name": _TEXT._replace(needed=True),
        "side": _TEXT,
        "rules": _TEXTS,
        "encryption": _TEXTS,
    },
    "event": {"at": _NUMBER, "do": _TEXT._replace(needed=True)},
    "expect": {"at": _NUMBER, "that": _TEXT._replace(needed=True), "within": _NUMBER},
}


class _Reader:
    def __init__(self, text: str, values: dict[str, Any]) -> None:
        self._text = text
        self._values = values

    def read(self) -> Description:
        self._check_top()
        silence = {"silence": self._values["silence"]} if "silence" in self._values else {}
        with_lines = self._at_key("network", self._from_lines)
        said = list(self._tables("node", lambda table: Node(**table)))
        there = [node.name for node in with_lines.nodes]
        changed = {node.name: node for node in said if node.name in there}
        nodes = [changed.get(node.name, node) for node in with_lines.nodes]
        nodes += [node for node in said if node.name not in there]
        known = [node.name for node in nodes]
        links = list(with_lines.links)
        for link in self._tables("link", self._link(known)):
            same = [at for at, each in enumerate(links) if set(each.ends) == set(link.ends)]
            if same:
                links[same[0]] = link
            else:
                links.append(link)
        layers = self._tables("layer", self._layer(known, links))
        if all(layer.type != "unicast" for layer in layers):
            layers = [*with_lines.layers, *layers]
        description = self._at_key(
            "",
            lambda: Description(
                tuple(nodes), tuple(links), tuple(layers), title=self._values.get("title", ""), **silence
            ),
        )
        return replace(
            description,
            programs=tuple(self._tables("program", self._program(description))),
            certificates=tuple(self._tables("certificate", self._certificate(description))),
            policies=tuple(self._tables("policy", self._policy(description))),
            events=tuple(self._tables("event", self._event(description))),
            expectations=tuple(self._tables("expect", self._expectation(description))),
        )

    # --- parts

    def _from_lines(self) -> Description | _Lines:
        network = self._values.get("network")
        if network is None:
            return _Lines()
        return describe(network, self._values.get("over", ()), links=self._type)

    @property
    def _type(self) -> str:
        """Of links that do not say theirs."""
        kind: str = self._values.get("links", "udp4")
        return kind

    def _link(self, known: list[str]) -> Callable[[dict[str, Any]], Link]:
        def link(table: dict[str, Any]) -> Link:
            graph = parse(table["between"])
            if len(graph.links) != 1:
                raise DescriptionError("say between which two nodes: a - b", word=table["between"])
            (one, other), both = graph.links[0].ends, table.get("impair", "none")
            for name in (one, other):
                if name not in known:
                    raise DescriptionError(f"there is no node of that name: there are {', '.join(known)}", word=name)
            return Link(one, other, table.get("forth", both), table.get("back", both), table.get("type", self._type))

        return link

    def _layer(self, known: list[str], links: list[Link]) -> Callable[[dict[str, Any]], Layer]:
        def layer(table: dict[str, Any]) -> Layer:
            members, adjacencies = table.get("members", {}), table.get("adjacencies", ())
            named = dict(members) if isinstance(members, dict) else {name: name for name in members}
            for name, node in named.items():
                if not isinstance(node, str) or not isinstance(name, str):
                    raise DescriptionError("members are nodes, or are on nodes", word=str(name))
            pairs = tuple(pair for text in adjacencies for pair in _pairs(text))
            given = {key: table[key] for key in ("type", "over", "settings") if key in table}
            made = Layer(table["name"], members=named, adjacencies=pairs, **given)
            if made.has_names and made.over is None and not table.keys() & {"members", "adjacencies"}:
                return replace(
                    made, members={name: name for name in known}, adjacencies=tuple(link.ends for link in links)
                )
            return made

        return layer

    def _program(self, description: Description) -> Callable[[dict[str, Any]], Program]:
        def program(table: dict[str, Any]) -> Program:
            for word in table["run"]:
                if not isinstance(word, str):
                    raise DescriptionError("run is a list of texts", word=str(word))
            made = Program(table["node"], tuple(table["run"]), table.get("serves"))
            replace(description, programs=(made,))
            return made

        return program

    def _certificate(self, description: Description) -> Callable[[dict[str, Any]], Certificate]:
        def certificate(table: dict[str, Any]) -> Certificate:
            made = Certificate(**table)
            replace(description, certificates=(made,))
            return made

        return certificate

    def _policy(self, description: Description) -> Callable[[dict[str, Any]], Policy]:
        def policy(table: dict[str, Any]) -> Policy:
            given = dict(table)
            for key in {"rules", "encryption"} & table.keys():
                given[key] = tuple(table[key])
                for line in given[key]:
                    if not isinstance(line, str):
                        raise DescriptionError(f"{key} is a list of texts", word=str(line))
            made = Policy(**given)
            replace(description, policies=(made,))
            return made

        return policy

    def _event(self, description: Description) -> Callable[[dict[str, Any]], Event]:
        def event(table: dict[str, Any]) -> Event:
            commands.read_event(table["do"], description)
            return Event(float(table.get("at", 0)), table["do"])

        return event

    def _expectation(self, description: Description) -> Callable[[dict[str, Any]], Expectation]:
        def expectation(table: dict[str, Any]) -> Expectation:
            commands.read_question(table["that"], description)
            more = {"within": float(table["within"])} if "within" in table else {}
            return Expectation(float(table.get("at", 0)), table["that"], **more)

        return expectation

    # --- tables

    def _check_top(self) -> None:
        for key, value in self._values.items():
            if key in _TABLES:
                if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
                    raise DescriptionError(f"write [[{key}]]", word=key, line=self._line_of(key))
            elif key not in _TOP:
                known = ", ".join([*_TOP, *(f"[[{name}]]" for name in _TABLES)])
                raise DescriptionError(f"no key of a scenario: there are {known}", word=key, line=self._line_of(key))
            else:
                self._check(key, value, _TOP[key], self._line_of(key))
        for each in self._values["over"] if isinstance(self._values.get("over"), list) else ():
            if not isinstance(each, str):
                raise DescriptionError("over is a text, or a list of texts", word=str(each), line=self._line_of("over"))
        if "over" in self._values and "network" not in self._values:
            raise DescriptionError("goes with network", word="over", line=self._line_of("over"))

    def _check(self, key: str, value: object, rule: _Key, line: int) -> None:
        if not isinstance(value, rule.kind) or isinstance(value, bool):
            raise DescriptionError(f"is {rule.what}, not {value!r}", word=key, line=line)
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise DescriptionError(f"is a number from 0, not {value!r}", word=key, line=line)

    def _tables(self, name: str, make: Callable[[dict[str, Any]], T]) -> list[T]:
        made = []
        for number, table in enumerate(self._values.get(name, ())):
            self._check_table(name, number, table)
            try:
                made.append(make(table))
            except DescriptionError as error:
                raise error.at(self._line(name, number, table, error.word)) from None
        return made

    def _check_table(self, name: str, number: int, table: dict[str, Any]) -> None:
        keys = _TABLES[name]
        for key, value in table.items():
            line = self._line(name, number, table, key)
            if key not in keys:
                raise DescriptionError(f"no key of [[{name}]]: there are {', '.join(keys)}", word=key, line=line)
            self._check(key, value, keys[key], line)
        for key, rule in keys.items():
            if rule.needed and key not in table:
                line = self._line(name, number, table, "")
                raise DescriptionError(f"is missing in [[{name}]]", word=key, line=line)

    # --- lines

    def _at_key(self, key: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except DescriptionError as error:
            start = self._line_of(key) if key else self._line_with(error.word)
            # A text of several lines begins behind the quotes.
            more = error.line - 1 + self._begins_below(start) if error.line else 0
            raise error.at(start + more) from None

    def _begins_below(self, line: int) -> int:
        return int(self._text.splitlines()[line - 1].rstrip().endswith(('"""', "'''"))) if line else 0

    def _line_of(self, key: str) -> int:
        """Of a key at the top, or a table."""
        wanted = re.compile(rf"\s*(\[\[?\s*)?[\"']?{re.escape(key)}[\"']?\s*(=|\]|\.)")
        return next((number for number, line in enumerate(self._text.splitlines(), 1) if wanted.match(line)), 0)

    def _line_with(self, word: str) -> int:
        return next((number for number, line in enumerate(self._text.splitlines(), 1) if word and word in line), 0)

    def _line(self, name: str, number: int, table: Mapping[str, Any], word: str) -> int:
        """Of what a table says about a word; else of its head."""
        heads = list(self._heads(name))
        if number >= len(heads):
            return self._line_of(name)
        lines = self._text.splitlines()
        wanted = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        end = heads[number + 1] - 1 if number + 1 < len(heads) else len(lines)
        for at in range(heads[number], end):
            if at > heads[number] - 1 and re.match(r"\s*\[\[", lines[at]):
                break
            if word and wanted.search(lines[at]):
                return at + 1
        return heads[number]

    def _heads(self, name: str) -> Iterator[int]:
        for number, line in enumerate(self._text.splitlines(), 1):
            if re.match(rf"\s*\[\[\s*{name}\s*\]\]", line):
                yield number


class _Lines(NamedTuple):
    """What no line says."""

    nodes: tuple[Node, ...] = ()
    links: tuple[Link, ...] = ()
    layers: tuple[Layer, ...] = ()


def _pairs(text: object) -> Iterator[tuple[str, str]]:
    if not isinstance(text, str):
        raise DescriptionError("adjacencies are texts such as a - b", word=str(text))
    for link in parse(text).links:
        yield link.ends


# --- the other way round


def text_of(description: Description) -> str:
    """The scenario in TOML, in full."""
    lines = [f"title = {_toml(description.title)}"] if description.title else []
    lines.append(f"silence = {_toml(description.silence)}")
    for node in description.nodes:
        lines += _table("node", _changed(node, name=node.name))
    for link in description.links:
        given = {"between": f"{link.one} - {link.other}"}
        given |= {key: getattr(link, key) for key in ("forth", "back") if getattr(link, key) != "none"}
        lines += _table("link", given | ({} if link.type == "udp4" else {"type": link.type}))
    for layer in description.layers:
        lines += _table("layer", _layer_table(layer))
    for program in description.programs:
        serves = {} if program.serves is None else {"serves": program.serves}
        lines += _table("program", {"node": program.node, "run": list(program.run), **serves})
    for certificate in description.certificates:
        lines += _table("certificate", _changed(certificate, node=certificate.node))
    for policy in description.policies:
        lines += _table("policy", _changed(policy, node=policy.node))
    for event in description.events:
        lines += _table("event", {"at": event.at, "do": event.do})
    for each in description.expectations:
        lines += _table("expect", {"at": each.at, "that": each.that, "within": each.within})
    return "\n".join(lines) + "\n"


def _layer_table(layer: Layer) -> dict[str, Any]:
    table: dict[str, Any] = {"name": layer.name, "type": layer.type, "members": dict(layer.members)}
    if layer.over is not None:
        table["over"] = layer.over
    if layer.adjacencies:
        table["adjacencies"] = [f"{one} - {other}" for one, other in layer.adjacencies]
    return table | ({"settings": dict(layer.settings)} if layer.settings else {})


def _changed(value: Any, **given: Any) -> dict[str, Any]:  # noqa: ANN401
    """With the fields that are not at their defaults."""
    more = {each.name: getattr(value, each.name) for each in fields(value) if each.name not in given}
    return given | {
        each.name: more[each.name] for each in fields(value) if each.name in more and more[each.name] != each.default
    }


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return ["", f"[[{name}]]", *(f"{key} = {_toml(value)}" for key, value in values.items())]


def _toml(value: object) -> str:
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return str(value).lower()
        case float():
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }" if value else "{}"
    return str(value)
