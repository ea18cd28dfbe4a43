"""Scenarios in TOML: what they say, and what is said about mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouroboros.lab import Certificate, DescriptionError, Event, Expectation, Policy, Program
from ouroboros.lab.commands import read_command, read_event, read_question
from ouroboros.lab.description import Layer, Link, Node
from ouroboros.lab.grammar import describe
from ouroboros.lab.scenario import load, read

FULL = """
title = "all that there is"
network = "a - b"
silence = 0.5
links = "udp6"

[[node]]
name = "c"

[[node]]
name = "a"
stack = "c"

[[link]]
between = "b - c"
forth = "loss=1%"

[[link]]
between = "b - a"
type = "udp4"
impair = "delay=5ms"

[[layer]]
name = "campus"
members = { x = "a", y = "b", z = "c" }
adjacencies = ["x - y - z"]
settings = { routing = "lfa" }

[[layer]]
name = "top"
over = "campus"
members = ["a", "c"]
adjacencies = ["a - c"]

[[layer]]
name = "hall"
type = "broadcast"
over = "campus"
members = ["a", "c"]
adjacencies = ["a - c"]

[[layer]]
name = "desk"
type = "local"
members = ["a"]

[[program]]
node = "c"
run = ["python", "clock.py"]
serves = "clock"

[[certificate]]
node = "c"
name = "clock"

[[certificate]]
node = "a"
name = "ann"
to = "campus"

[[policy]]
node = "c"
name = "clock"
rules = ["allow=ann", "strength=256"]

[[policy]]
node = "a"
name = "clock"
side = "client"
encryption = []

[[event]]
at = 1
do = "change b->c delay=1s"

[[expect]]
that = "no ping a c"
within = 3
"""


def test_a_scenario_has_all_that_a_description_has() -> None:
    found = read(FULL)
    assert (found.title, found.silence) == ("all that there is", 0.5)
    assert found.nodes == (Node("a", "c"), Node("b"), Node("c"))
    assert found.links == (Link("b", "a", "delay=5ms", "delay=5ms"), Link("b", "c", "loss=1%", type="udp6"))
    campus, top, hall, desk = found.layers
    assert campus == Layer(
        "campus",
        members={"x": "a", "y": "b", "z": "c"},
        adjacencies=(("x", "y"), ("y", "z")),
        settings={"routing": "lfa"},
    )
    assert campus.told().unicast.dt.routing.ls.pol.name == "LFA"
    assert (top.over, top.members) == ("campus", {"a": "a", "c": "c"})
    assert (hall.type, hall.is_between, hall.has_names) == ("broadcast", True, False)
    assert (desk.type, desk.members) == ("local", {"a": "a"})
    assert found.programs == (Program("c", ("python", "clock.py"), "clock"),)
    assert found.certificates == (Certificate("c", "clock"), Certificate("a", "ann", "campus"))
    assert found.policies == (
        Policy("c", "clock", rules=("allow=ann", "strength=256")),
        Policy("a", "clock", "client", encryption=()),
    )
    assert found.events == (Event(1.0, "change b->c delay=1s"),)
    assert found.expectations == (Expectation(0.0, "no ping a c", 3.0),)


def test_a_unicast_layer_over_the_links_has_all_nodes_unless_it_says_its_own() -> None:
    text = "network = 'a - b - c'\n[[layer]]\nname = 'campus'\nsettings = { max_ttl = 7 }\n"
    (layer,) = read(text).layers
    assert layer.members == {"a": "a", "b": "b", "c": "c"}
    assert layer.adjacencies == (("a", "b"), ("b", "c"))
    above = read(text + "[[layer]]\nname = 'top'\nover = 'campus'\n[[layer]]\nname = 'x'\nmembers = ['a']").layers[1:]
    assert [(dict(each.members), each.adjacencies) for each in above] == [({}, ()), ({"a": "a"}, ())]


def test_without_layers_of_its_own_a_scenario_has_those_of_its_lines() -> None:
    assert read('network = "a - b"\nover = "x - y"').layers == describe("a - b", "x - y").layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network = ", "line 1: Invalid value"),
        ("", "a network has one node at least, such as: a - b - c"),
        (
            "netwrk = 'a'",
            "line 1: 'netwrk': no key of a scenario: there are title, network, over, links, silence, [[node]], ",
        ),
        ("network = 3", "line 1: 'network': is a text, not 3"),
        ("title = 't'\nnetwork = 'a - a'", "line 2: 'a - a': a link leads to another node"),
        ("network = '''\na - b\nb - c -\n'''", "line 3: '-': a node is missing after it"),
        ("network = 'a'\nsilence = 0", "line 2: 'silence = 0': from 0.1 to 3600 seconds"),
        ("over = 'a'", "line 1: 'over': goes with network"),
        ("network = 'a - b'\n[event]\ndo = 'kill a'", "line 2: 'event': write [[event]]"),
        ("network = 'a - b'\n[[event]]\nat = 1", "line 2: 'do': is missing in [[event]]"),
        ("network = 'a - b'\n[[event]]\ndo = 'kill a'\nat = -1", "line 4: 'at': is a number from 0, not -1"),
        (
            "network = 'a - b'\n[[event]]\ndo = 'kill a'\nwhen = 1",
            "line 4: 'when': no key of [[event]]: there are at, do",
        ),
        (
            "network = 'a - b'\n[[event]]\ndo = 'kill a'\n[[event]]\nat = 1\ndo = 'kill q'",
            "line 6: 'q': there is no node of that name: there are a, b",
        ),
        (
            "network = 'a - b - c'\n[[event]]\ndo = 'cut a-c'",
            "line 3: 'a-c': there is no link between them: a is linked to b",
        ),
        (
            "network = 'a - b'\n[[expect]]\nthat = 'pong a b'",
            "line 3: 'pong': no expectation: there are ping, path, hops, counter, routes, flows, runs, converged",
        ),
        (
            "network = 'a - b'\n[[expect]]\nthat = 'ping a b'\n[[expect]]\nthat = 'counter a forwardde > 0'",
            "line 5: 'forwardde': nothing of that name is counted: perhaps forwarded",
        ),
        (
            "network = 'a - b - c'\n[[expect]]\n\nthat = 'counter a b-c lost = 0'",
            "line 4: 'b-c': no layer or link of node a: there are net1, a-b",
        ),
        ("network = 'a - b'\n[[expect]]\nthat = 'routes a = many'", "line 3: 'many': no number"),
        (
            "network = 'a - b'\n[[link]]\nbetween = 'a - q'",
            "line 3: 'q': there is no node of that name: there are a, b",
        ),
        ("network = 'a - b'\n[[link]]\nbetween = 'a'", "line 3: 'a': say between which two nodes: a - b"),
        ("network = 'a - b'\n[[program]]\nnode = 'q'\nrun = ['x']", "line 3: 'q': no node of that name"),
        (
            "network = 'a - b'\n[[node]]\nname = 'c'\n[[node]]\nname = 'c'",
            "line 3: 'c': a node of that name is there already",
        ),
        (
            "network = 'a - b'\n[[policy]]\nnode = 'a'\nname = 'clock'\nrules = ['permit=ann']",
            "line 5: 'permit=ann': ",
        ),
        (
            "network = 'a - b'\n[[policy]]\nnode = 'a'\nname = 'clock'\nside = 'left'",
            "line 5: 'left': no side: choose from server, client",
        ),
        (
            "network = 'a - b'\n[[policy]]\nnode = 'a'\nname = 'clock'\nencryption = [3]",
            "line 5: '3': encryption is a list of texts",
        ),
        ("network = 'a - b'\n[[node]]\nname = 'c'\nstack = 'd'", "line 4: 'd': no stack: choose from ours, c"),
        (
            "network = 'a'\n[[layer]]\nname = 'l'\nsettings = { tll = 3 }",
            "line 4: 'tll': no setting of a unicast layer: there are ",
        ),
        ("network = 'a'\n[[layer]]\nname = 'l'\nsettings = { max_ttl = 'x' }", "line 4: 'max_ttl': "),
        (
            "network = 'a'\n[[layer]]\nname = 'l'\ntype = 'ether'",
            "line 4: 'ether': no type of layer: choose from unicast, ",
        ),
        (
            "network = 'a'\n[[layer]]\nname = 'l'\nmembers = ['a']\nadjacencies = ['a - b']",
            "line 5: 'b': no member of layer l",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_word(text: str, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        read(text)
    assert str(caught.value).startswith(message), str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(DescriptionError, match="no UTF-8 at byte 9"):
        load(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text("\nnetwork = 'a -'")
    with pytest.raises(DescriptionError, match=r"wrong\.toml: line 2: '-': a node is missing after it"):
        load(tmp_path / "wrong.toml")


@pytest.mark.parametrize(
    "line", ["cut a-b", "heal b-a", "change a->b loss=1%,delay=5ms", "kill a", "wait 0.5", "converge"]
)
def test_events_are_shown_as_they_are_written(line: str) -> None:
    description = describe("a - b - c")
    assert str(read_event(line, description)) == line
    assert read_event(line.replace("-", " - ").replace(" - >", "->"), description) == read_event(line, description)


@pytest.mark.parametrize(
    "line",
    [
        "ping a c",
        "no ping a c",
        "path a c = a b c",
        "hops a c = 2",
        "no runs a",
        "converged",
        "counter b forwarded >= 1",
        "no counter b net1 no_route > 10",
        "counter b a-b received < 7",
        "routes a = 2",
        "routes a net1 <= 2",
        "flows c > 0",
    ],
)
def test_questions_are_shown_as_they_are_written(line: str) -> None:
    assert str(read_question(line, describe("a - b - c"))) == line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("counter a forwarded", "'a forwarded': say counter NODE [LAYER] COUNTER > COUNT"),
        ("counter a > 1", "'a > 1': say counter NODE [LAYER] COUNTER > COUNT"),
        ("counter > 1", "'> 1': say counter NODE [LAYER] COUNTER > COUNT"),
        ("counter q lost > 1", "'q': there is no node of that name: there are a, b, c"),
        ("counter a net7 lost > 1", "'net7': no layer or link of node a: there are net1, a-b"),
        ("counter a net1 lost => 1", "'a net1 lost => 1': say"),
        ("counter a net1 lost > 1 2", "'a net1 lost > 1 2': say"),
        ("counter a net1 lost > \u0661", "'\u0661': no number"),
        ("routes a net1 lost = 1", "'lost': say routes NODE [LAYER] = COUNT"),
        ("flows a net1 = 1", "'net1': say flows NODE = COUNT"),
    ],
)
def test_a_question_that_is_wrong_is_answered_with_how_to_ask_it(line: str, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        read_question(line, describe("a - b - c"))
    assert str(caught.value).startswith(message), str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no command: there are ping, path, trace, graph, routes, "),
        ("ping a", "'a': say ping A B [COUNT]"),
        ("ping a b many", "'many': a number of packets from 1 to 10000"),
        ("cut a", "'a': say cut A-B"),
        ("cut a->b", "'a->b': say cut A-B"),
        ("cut a-c", "'a-c': there is no link between them: a is linked to b"),
        ("change a-b", "'a-b': say change A-B WORDS"),
        ("change a-b los=1%", "'los=1%': unknown key 'los' in 'los=1%'"),
        ("kill", "'kill': say kill NODE"),
        ("kill a b", "'b': say kill NODE"),
        ("wait soon", "'soon': no number of seconds"),
        ("wait nan", "'nan': seconds from 0 to 1e+06"),
        ("graph now", "'now': say graph"),
        ("run a", "'a': say run NODE PROGRAM ..."),
    ],
)
def test_a_line_of_the_prompt_that_is_wrong_is_answered_with_how_to_say_it(line: str, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        read_command(line, describe("a - b - c"))
    assert str(caught.value).startswith(message), str(caught.value)
