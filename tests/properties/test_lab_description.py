"""Descriptions survive being written and read; no text makes more than a `DescriptionError`."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from random import Random

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.lab import Certificate, Description, DescriptionError, Event, Expectation, Policy, Program, describe
from ouroboros.lab.description import LINKS, STACKS, Layer, Link, Node, rounds
from ouroboros.lab.grammar import Graph, parse, text_of
from ouroboros.lab.scenario import read
from ouroboros.lab.scenario import text_of as scenario_text

NAMES = st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}", fullmatch=True), min_size=1, max_size=6, unique=True)
WORDS = st.sampled_from(["none", "loss=1%", "delay=5ms,jitter=1ms", "rate=10M", "partition", "loss=0.5%,seed=7"])
#: Pieces of networks, so that more than the first character is understood.
PIECES = st.sampled_from(
    [
        "a",
        "b",
        " - ",
        "-",
        "-(",
        ")-",
        "loss=1%",
        "|",
        "@",
        ",",
        "\n",
        " ",
        "ring",
        "grid",
        "3",
        "3x3",
        "as",
        "(stack=c)",
        "#",
        "é",
        "2^3",
        "/",
    ]
)


@st.composite
def links(draw: st.DrawFn, names: list[str]) -> tuple[Link, ...]:
    pairs = list(itertools.combinations(names, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=8)) if pairs else []
    return tuple(Link(*(pair if draw(st.booleans()) else pair[::-1]), draw(WORDS), draw(WORDS)) for pair in chosen)


def typed(draw: st.DrawFn, link: Link) -> Link:
    """Of any type; nothing but a cut happens to an Ethernet."""
    kind = draw(st.sampled_from(LINKS))
    good = {"forth": "none", "back": "none"} if kind.startswith("eth-") else {}
    return replace(link, type=kind, **good)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = draw(NAMES)
    places = {name: draw(st.sampled_from("xyz")) for name in names if draw(st.booleans())}
    stacks = {name: draw(st.sampled_from(STACKS)) for name in names if draw(st.booleans())}
    return Graph(tuple(names), draw(links(names)), tuple(places.items()), tuple(stacks.items()))


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    names = draw(NAMES)
    wires = tuple(typed(draw, link) for link in draw(links(names)))
    layers = [Layer("net1", members={name: name for name in names}, adjacencies=tuple(link.ends for link in wires))]
    if draw(st.booleans()):
        members = {f"m_{name}": name for name in names}
        layers.append(Layer("net2", members=members, over="net1", settings={"max_ttl": draw(st.integers(2, 200))}))
    if draw(st.booleans()):
        layers.append(Layer("here", "local", members={names[0]: names[0]}))
    if draw(st.booleans()):
        layers.append(replace(layers[0], name="hall", type="broadcast"))
    texts = st.text(st.characters(codec="utf-8"), max_size=8)
    served: st.SearchStrategy[list[str | None]] = st.sampled_from([[], [None], ["clock"]])
    certified: st.SearchStrategy[list[str | None]] = st.sampled_from([[], [None], ["net1", "clock"]])
    lines = st.sampled_from([None, (), ("require=encryption", "strength=192")])
    times = st.floats(0, 1000, allow_subnormal=False)
    ends = [f"cut {one}-{other}" for one, other in (link.ends for link in wires)]
    return Description(
        tuple(Node(name, draw(st.sampled_from(STACKS))) for name in names),
        wires,
        tuple(layers),
        programs=tuple(Program(names[0], (draw(texts),), name) for name in draw(served)),
        certificates=tuple(Certificate(names[0], "ann", to) for to in draw(certified)),
        policies=tuple(
            Policy(names[0], "clock", side, draw(lines), draw(st.sampled_from([None, (), ("cipher=aes-256-gcm",)])))
            for side in ("server", "client")
        ),
        events=tuple(Event(draw(times), do) for do in [*ends, f"kill {names[0]}", "wait 3"]),
        expectations=(Expectation(draw(times), f"no runs {names[0]}", draw(times)),),
        title=draw(texts),
        silence=draw(st.floats(0.1, 3600)),
    )


@given(graphs())
def test_a_graph_is_read_as_it_was_written(graph: Graph) -> None:
    found = parse(text_of(graph))
    assert (found.nodes, found.links, dict(found.places)) == (graph.nodes, graph.links, dict(graph.places))
    assert dict(found.stacks) == dict(graph.stacks)


@given(descriptions())
def test_a_scenario_is_read_as_it_was_written(description: Description) -> None:
    assert read(scenario_text(description)) == description


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_is_a_network_or_a_mistake_that_is_named(text: str) -> None:
    try:
        description = describe(text)
    except DescriptionError as error:
        line = error.line
    else:
        assert description.nodes
        assert read(scenario_text(description)) == description
        return
    assert line <= text.count("\n") + 1


@given(
    st.one_of(
        st.text(),
        st.lists(
            st.one_of(
                PIECES,
                st.sampled_from(["[[link]]\n", "network = ", '"', "'", "[[event]]\n", "at = 1\n", 'do = "cut a-b"\n']),
            )
        ).map("".join),
    )
)
def test_any_text_is_a_scenario_or_a_mistake_that_is_named(text: str) -> None:
    with contextlib.suppress(DescriptionError):
        assert read(text).nodes


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_rounds_join_pieces_of_a_graph_until_it_is_in_one(size: int, seed: int) -> None:
    random = Random(seed)
    pairs = [(f"n{random.randrange(number)}", f"n{number}") for number in range(1, size)]
    pairs += [(f"n{one}", f"n{other}") for one, other in (random.sample(range(size), 2) for _ in range(size // 2))]
    pairs = list({frozenset(pair): pair for pair in pairs}.values())
    found = rounds(pairs)
    assert sorted(pair for each in found for pair in each) == sorted(pairs)
    joined: nx.Graph[str] = nx.Graph()
    joined.add_nodes_from(f"n{number}" for number in range(size))
    for each in found:
        before = nx.number_connected_components(joined)
        if before > 1:
            joined.add_edges_from(each)
            # No two pairs join the same pieces.
            assert nx.number_connected_components(joined) == before - len(each) <= before / 2
    assert nx.number_connected_components(joined) == 1
