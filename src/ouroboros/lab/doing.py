"""Commands are carried out here, questions answered, and scenarios played."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt

from ouroboros.errors import NodeError
from ouroboros.lab import commands
from ouroboros.lab.commands import Command
from ouroboros.lab.description import Event, Expectation
from ouroboros.lab.errors import DescriptionError, LabError
from ouroboros.lab.lab import Lab

#: Seconds between two tries of a question.
_PAUSE = 0.1
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {"=": eq, "<": lt, ">": gt, "<=": le, ">=": ge}


def act(lab: Lab, command: Command) -> None:
    """Do what an event says."""
    verb, words = command.verb, command.words
    match verb:
        case "cut":
            lab.link(words[0], words[1]).cut()
        case "heal":
            lab.link(words[0], words[1]).heal()
        case "change":
            link = lab.link(words[0], words[1])
            link.change(None if command.one_way else words[2], forth=words[2] if command.one_way else None)
        case "kill" | "pause" | "resume" | "restart":
            getattr(lab[words[0]], verb)()
        case "wait":
            lab.wait(float(words[0]))
        case "converge":
            lab.converge(*map(float, words))
        case _:
            raise AssertionError(command)


def answer(lab: Lab, question: Command) -> tuple[bool, str]:
    """Whether it is so now, and what was found."""
    so, found = _ask(lab, question)
    return so != question.no, found


def _ask(lab: Lab, question: Command) -> tuple[bool, str]:
    words = question.words
    try:
        match question.verb:
            case "ping":
                ping = lab[words[0]].ping(words[1])
                return bool(ping), str(ping)
            case "path":
                path = lab[words[0]].path(words[1])
                return path == words[2:], " - ".join(path)
            case "hops":
                hops = lab[words[0]].hops(words[1])
                return hops == int(words[2]), str(hops)
            case "counter":
                node, layer, name, *_ = words
                return _compares(lab[node].counters(layer or None).get(name, 0), words)
            case "routes":
                return _compares(len(lab[words[0]].routes(words[1] or None)), words)
            case "flows":
                return _compares(len(lab[words[0]].flows()), words)
            case "runs":
                return lab[words[0]].runs, repr(lab[words[0]])
            case "converged":
                lab.converge(0)
                return True, "converged"
    except (LabError, NodeError) as error:
        return False, str(error)
    raise AssertionError(question)


def _compares(count: int, words: tuple[str, ...]) -> tuple[bool, str]:
    """Whether that is so of a number, as the last two words say."""
    than, number = words[-2:]
    return _COMPARISONS[than](count, int(number)), str(count)


# --- a scenario


@dataclass(frozen=True)
class Outcome:
    """Of an expectation. `found`: what was so instead, or what shows that it is so."""

    expectation: Expectation
    met: bool
    found: str

    def __str__(self) -> str:
        what = f"{'met' if self.met else 'NOT MET'}: at {self.expectation.at:g} s, {self.expectation.that}"
        return what if self.met else f"{what}\n    after {self.expectation.within:g} s: {self.found}"


@dataclass(frozen=True)
class Verdict:
    """Of a scenario: what became of each expectation, in the order of time. True if all are met."""

    outcomes: tuple[Outcome, ...]

    def __bool__(self) -> bool:
        return all(outcome.met for outcome in self.outcomes)

    @property
    def met(self) -> tuple[tuple[str, bool], ...]:
        """What is the same on all clocks."""
        return tuple((outcome.expectation.that, outcome.met) for outcome in self.outcomes)

    def __str__(self) -> str:
        unmet = sum(not outcome.met for outcome in self.outcomes)
        count = f"{len(self.outcomes)} expectation{'s' * (len(self.outcomes) != 1)}"
        return "\n".join([*map(str, self.outcomes), f"{count}, {f'{unmet} not met' if unmet else 'all met'}"])


def play(lab: Lab, told: Callable[[str], None] = lambda line: None) -> Verdict:
    """Let the events of the description of a laboratory happen, and see what is expected. `told`: is given each line of
    what happens. Raises `DescriptionError` before anything happens, and `LabError` when an event cannot be."""
    timeline = _timeline(lab)
    start, outcomes = lab.now, []
    for item, command in timeline:
        if (left := start + item.at - lab.now) > 0:
            lab.wait(left)
        if isinstance(item, Event):
            told(f"{item.at:g} s: {command}")
            act(lab, command)
            continue
        outcomes.append(_expect(lab, item, command))
        told(str(outcomes[-1]))
    return Verdict(tuple(outcomes))


def _timeline(lab: Lab) -> list[tuple[Event | Expectation, Command]]:
    """Events before expectations of the same time."""
    description = lab.description
    items: list[tuple[Event | Expectation, Command]] = []
    items += [(event, commands.read_event(event.do, description)) for event in description.events]
    items += [(each, commands.read_question(each.that, description)) for each in description.expectations]
    return sorted(items, key=lambda item: item[0].at)


def _expect(lab: Lab, expectation: Expectation, question: Command) -> Outcome:
    end = lab.now + expectation.within
    while True:
        met, found = answer(lab, question)
        if met or lab.now >= end:
            return Outcome(expectation, met, found)
        lab.wait(min(_PAUSE, max(0.0, end - lab.now)))


# --- the prompt


def say(lab: Lab, line: str) -> str:
    """Do what a line of the prompt says, and return what there is to be told. Raises `DescriptionError`, and `LabError`
    when it cannot be done."""
    command = commands.read_command(line, lab.description)
    shown = _SHOWN.get(command.verb)
    if shown is not None:
        return shown(lab, command)
    act(lab, command)
    return ""


def _help(lab: Lab, command: Command) -> str:
    lines = [(f"{verb} {usage}".strip(), what) for verb, (usage, what, _) in commands.PROMPT.items()]
    width = max(len(left) for left, _ in lines)
    return "\n".join(f"{left:<{width}}  {what}" for left, what in lines)


def _ping(lab: Lab, command: Command) -> str:
    source, target, *count = command.words
    return str(lab[source].ping(target, count=int(count[0]) if count else 1))


def _trace(lab: Lab, command: Command) -> str:
    trace = lab[command.words[0]].trace(command.words[1])
    hops = (
        f"{'  ' * len(hop.within)}{hop.layer} {hop.hop}  {hop.member or hop.address or '?'}  "
        f"{hop.state if hop.round_trip is None else f'{hop.round_trip * 1000:.3g} ms'}"
        for hop in trace.hops
    )
    return "\n".join([str(trace), "", *hops])


def _routes(lab: Lab, command: Command) -> str:
    node, *layer = command.words
    routes = lab[node].routes(*layer)
    addresses = {route.address: name for name, route in routes.items()}
    lines = [
        f"{name}  {route.hops} hop{'s' * (route.hops != 1)} via {', '.join(addresses.get(via, via) for via in route.via)}"
        for name, route in routes.items()
    ]
    return "\n".join(lines) or f"{node} has a way to nobody"


def _counters(lab: Lab, command: Command) -> str:
    node, *layer = command.words
    return "\n".join(f"{name}  {count}" for name, count in lab[node].counters(*layer).items() if count)


def _flows(lab: Lab, command: Command) -> str:
    flows = lab[command.words[0]].flows()
    return "\n".join(
        f"{flow.id}  {flow.name}  {flow.layer or 'on this node'} {flow.address}".rstrip() for flow in flows
    )


def _names(lab: Lab, command: Command) -> str:
    return "\n".join(f"{name.name}  {', '.join(name.layers)}".rstrip() for name in lab[command.words[0]].names())


def _run(lab: Lab, command: Command) -> str:
    try:
        return lab[command.words[0]].execute("sh", "-c", command.words[1]).rstrip("\n")
    except subprocess.CalledProcessError as error:
        raise LabError(f"{command.words[1]} ended with status {error.returncode}: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command.words[1]} did not end within {error.timeout:g} s, and was ended") from error


_SHOWN: dict[str, Callable[[Lab, Command], str]] = {
    "ping": _ping,
    "path": lambda lab, command: " - ".join(lab[command.words[0]].path(command.words[1])),
    "trace": _trace,
    "graph": lambda lab, command: lab.graph(),
    "routes": _routes,
    "counters": _counters,
    "flows": _flows,
    "names": _names,
    "log": lambda lab, command: lab[command.words[0]].log.rstrip("\n"),
    "run": _run,
    "help": _help,
    "quit": lambda lab, command: "",
}

__all__ = ["DescriptionError", "Outcome", "Verdict", "act", "answer", "play", "say"]
