"""The words of the prompt, of events, and of expectations: `cut a-b`, `ping a c`. Read here, done in `doing.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from ouroboros.lab.counted import COUNTERS
from ouroboros.lab.description import Description, check_impairment
from ouroboros.lab.errors import DescriptionError

_PAIR = re.compile(r"([A-Za-z]\w*)\s*(->|-|\s)\s*([A-Za-z]\w*)(?:\s+(.*))?", re.ASCII)
_COMPARISON = re.compile(r"([^<>=]*)(<=|>=|<|>|=)\s*(\S+)")
_LONGEST = 1e6


class Command(NamedTuple):
    """`words`: of the verb, checked: names of nodes first. `one_way`: of a link, from the first node to the second
    only. `no`: it is not to be so."""

    verb: str
    words: tuple[str, ...] = ()
    one_way: bool = False
    no: bool = False

    def __str__(self) -> str:
        no, (verb, words) = "no " * self.no, self[:2]
        if verb in LINKS:
            pair = ("->" if self.one_way else "-").join(words[:2])
            return f"{no}{' '.join([verb, pair, *words[2:]])}"
        if verb in ("path", "hops") and words[2:]:
            return f"{no}{verb} {' '.join(words[:2])} = {' '.join(words[2:])}"
        return f"{no}{' '.join([verb, *filter(None, words)])}"


Reader = Callable[[str, Description], Command]

#: Verbs that are about a link.
LINKS = ("cut", "heal", "change")


def read_event(text: str, description: Description) -> Command:
    """What an event does. Raises `DescriptionError`."""
    return _read(text, description, EVENTS, "event")


def read_question(text: str, description: Description) -> Command:
    """What is to be so. Raises `DescriptionError`."""
    stripped = text.strip()
    no = stripped.startswith("no ")
    command = _read(stripped[3:] if no else stripped, description, QUESTIONS, "expectation")
    return command._replace(no=no)


def read_command(text: str, description: Description) -> Command:
    """A line of the prompt. Raises `DescriptionError`."""
    return _read(text, description, PROMPT, "command")


def _read(text: str, description: Description, verbs: dict[str, tuple[str, str, Reader]], kind: str) -> Command:
    verb, _, rest = text.strip().partition(" ")
    if verb not in verbs:
        raise DescriptionError(f"no {kind}: there are {', '.join(verbs)}", word=verb)
    usage, _, reader = verbs[verb]
    try:
        return reader(rest.strip(), description)._replace(verb=verb)
    except _UsageError as error:
        raise DescriptionError(f"say {f'{verb} {usage}'.strip()}", word=error.args[0] or verb) from None


class _UsageError(Exception):
    """The word that does not fit."""


def _node(name: str, description: Description) -> str:
    if name not in description.names:
        raise DescriptionError(f"there is no node of that name: there are {', '.join(description.names)}", word=name)
    return name


def _nothing(text: str, description: Description) -> Command:
    if text:
        raise _UsageError(text)
    return Command("")


def _one_node(text: str, description: Description) -> Command:
    return _node_and(0)(text, description)


def _node_and(most: int) -> Reader:
    """A node, and so many words more at the most."""

    def read(text: str, description: Description) -> Command:
        words = text.split()
        if not words or len(words) > 1 + most:
            raise _UsageError(" ".join(words[1 + most :]))
        return Command("", (_node(words[0], description), *words[1:]))

    return read


def _seconds(least: int) -> Reader:
    def read(text: str, description: Description) -> Command:
        words = text.split()
        if not least <= len(words) <= 1:
            raise _UsageError(text)
        return Command("", tuple(_number(word.removesuffix("s")) for word in words))

    return read


def _number(word: str) -> str:
    try:
        seconds = float(word)
    except ValueError:
        raise DescriptionError("no number of seconds", word=word) from None
    if not 0 <= seconds <= _LONGEST:
        raise DescriptionError(f"seconds from 0 to {_LONGEST:g}", word=word)
    return f"{seconds:g}"


def _pair(text: str, description: Description) -> tuple[tuple[str, str], bool, str]:
    match = _PAIR.fullmatch(text)
    if match is None:
        raise _UsageError(text)
    one, way, other, rest = match.groups()
    return (_node(one, description), _node(other, description)), way == "->", rest or ""


def _link(text: str, description: Description) -> Command:
    ends, one_way, rest = _pair(text, description)
    if rest or one_way:
        raise _UsageError(rest or text)
    description.link(*ends)
    return Command("", ends)


def _change(text: str, description: Description) -> Command:
    ends, one_way, rest = _pair(text, description)
    if not rest:
        raise _UsageError(text)
    description.link(*ends)
    return Command("", (*ends, check_impairment(rest.replace(" ", ""))), one_way)


def _two_nodes(text: str, description: Description) -> Command:
    ends, _, rest = _pair(text, description)
    if rest:
        raise _UsageError(rest)
    return Command("", ends)


def _count(text: str, description: Description) -> Command:
    ends, _, rest = _pair(text, description)
    if rest and not (rest.isdecimal() and 1 <= int(rest) <= 10_000):
        raise DescriptionError("a number of packets from 1 to 10000", word=rest)
    return Command("", (*ends, *([rest] if rest else [])))


def _is(values: Callable[[Sequence[str], Description], None]) -> Reader:
    def read(text: str, description: Description) -> Command:
        left, equals, right = text.partition("=")
        words = right.split()
        if not equals or not words:
            raise _UsageError(text)
        ends, _, rest = _pair(left.strip(), description)
        if rest:
            raise _UsageError(rest)
        values(words, description)
        return Command("", (*ends, *words))

    return read


def _are_nodes(words: Sequence[str], description: Description) -> None:
    for word in words:
        _node(word, description)


def _is_count(words: Sequence[str], description: Description) -> None:
    if len(words) != 1 or not words[0].isdecimal():
        raise DescriptionError("a number of hops", word=" ".join(words))


def _comparison(text: str, words: int) -> tuple[list[str], str, str]:
    """What is compared, in so many words at the most; how; and with which number."""
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise _UsageError(text)
    left = match[1].split()
    if not left or len(left) > words:
        raise _UsageError(" ".join(left[words:]) or text)
    if not (match[3].isascii() and match[3].isdecimal()):
        raise DescriptionError("no number", word=match[3])
    return left, match[2], str(int(match[3]))


def _part(node: str, name: str, description: Description) -> str:
    """A layer that a node is in, or a link of it, by its name."""
    one, _, other = name.partition("-")
    if other:
        link = description.link(one, other)
        if node in link.ends:
            return link.name
    layers = [layer.name for layer in description.layers if layer.member_on(node) is not None]
    if name in layers:
        return name
    parts = [*layers, *(link.name for link in description.links if node in link.ends)]
    raise DescriptionError(f"no layer or link of node {node}: there are {', '.join(parts) or 'none'}", word=name)


def _counter(text: str, description: Description) -> Command:
    (node, *part), than, number = _comparison(text, 3)
    if not part:
        raise _UsageError(text)
    *layer, name = part
    _node(node, description)
    if name not in COUNTERS:
        near = get_close_matches(name, COUNTERS, 3) or sorted(COUNTERS)
        raise DescriptionError(f"nothing of that name is counted: perhaps {', '.join(near)}", word=name)
    return Command("", (node, _part(node, layer[0], description) if layer else "", name, than, number))


def _routes(text: str, description: Description) -> Command:
    (node, *layer), than, number = _comparison(text, 2)
    _node(node, description)
    return Command("", (node, _part(node, layer[0], description) if layer else "", than, number))


def _flows(text: str, description: Description) -> Command:
    (node,), than, number = _comparison(text, 1)
    return Command("", (_node(node, description), than, number))


def _program(text: str, description: Description) -> Command:
    name, _, rest = text.partition(" ")
    if not rest.strip():
        raise _UsageError(text)
    return Command("", (_node(name, description), rest.strip()))


#: What can be done: how it is written, what it does.
EVENTS: dict[str, tuple[str, str, Reader]] = {
    "cut": ("A-B", "let nothing through a link", _link),
    "heal": ("A-B", "end the cut", _link),
    "change": ("A-B WORDS", "have other things happen to packets on a link; A->B for one direction", _change),
    "kill": ("NODE", "end a node as kill -9 does", _one_node),
    "pause": ("NODE", "have a node stand still", _one_node),
    "resume": ("NODE", "have it go on", _one_node),
    "restart": ("NODE", "start a node anew, with all that it had", _one_node),
    "converge": ("[SECONDS]", "wait until all tables say what the network is", _seconds(0)),
    "wait": ("SECONDS", "let time pass", _seconds(1)),
}

#: What can be so.
QUESTIONS: dict[str, tuple[str, str, Reader]] = {
    "ping": ("A B", "packets come from one node to another and back", _two_nodes),
    "path": ("A B = A ... B", "the tables lead over these nodes", _is(_are_nodes)),
    "hops": ("A B = COUNT", "so many hops are between two nodes", _is(_is_count)),
    "counter": (
        "NODE [LAYER] COUNTER > COUNT",
        "a node has counted more for a layer or a link; or <, =, <=, >=",
        _counter,
    ),
    "routes": ("NODE [LAYER] = COUNT", "a node has ways to so many others", _routes),
    "flows": ("NODE = COUNT", "a node has so many flows", _flows),
    "runs": ("NODE", "a node was neither killed nor paused", _one_node),
    "converged": ("", "all tables say what the network is", _nothing),
}

#: What can be said at the prompt.
PROMPT: dict[str, tuple[str, str, Reader]] = {
    "ping": ("A B [COUNT]", "send packets to a node and back", _count),
    "path": ("A B", "the nodes on the way, as the tables say", _two_nodes),
    "trace": ("A B", "the nodes that answer on the way, in each layer", _two_nodes),
    "graph": ("", "the network as it is now", _nothing),
    "routes": ("NODE [LAYER]", "the table of a node", _node_and(1)),
    "counters": ("NODE [LAYER]", "what a node counts for a layer, or for a link", _node_and(1)),
    "flows": ("NODE", "the flows of a node", _one_node),
    "names": ("NODE", "the names that a node knows", _one_node),
    "log": ("NODE", "what a node had to say", _one_node),
    **EVENTS,
    "run": ("NODE PROGRAM ...", "run a program on a node, as a shell would", _program),
    "help": ("", "this list", _nothing),
    "quit": ("", "end the laboratory", _nothing),
}
