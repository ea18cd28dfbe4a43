"""Networks in a line: what is understood, and what is said about the rest."""

from __future__ import annotations

import pytest

from ouroboros.lab import DescriptionError, describe
from ouroboros.lab.description import Layer, Link, Node
from ouroboros.lab.grammar import parse, text_of


def edges(text: str) -> list[tuple[str, str]]:
    return [link.ends for link in parse(text).links]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a - b - c", [("a", "b"), ("b", "c")]),
        ("a-b-c", [("a", "b"), ("b", "c")]),
        ("a - b, b - c", [("a", "b"), ("b", "c")]),
        ("a - b\n# a comment\nb - c - a", [("a", "b"), ("b", "c"), ("c", "a")]),
        ("line 3", [("n0", "n1"), ("n1", "n2")]),
        ("ring 3 as r", [("r0", "r1"), ("r1", "r2"), ("r0", "r2")]),
        ("star 3", [("n0", "n1"), ("n0", "n2")]),
        ("full 3", [("n0", "n1"), ("n0", "n2"), ("n1", "n2")]),
        ("grid 2x2", [("n0", "n1"), ("n0", "n2"), ("n1", "n3"), ("n2", "n3")]),
        ("tree 1^3", [("n0", "n1"), ("n0", "n2"), ("n0", "n3")]),
        ("ring 3, n0 - ring", [("n0", "n1"), ("n1", "n2"), ("n0", "n2"), ("n0", "ring")]),
    ],
)
def test_a_line_is_a_graph(text: str, expected: list[tuple[str, str]]) -> None:
    assert edges(text) == expected


def test_nodes_are_in_the_order_in_which_they_are_named() -> None:
    assert parse("c, b - a, c - a").nodes == ("c", "b", "a")


def test_a_bad_link_is_bad_in_both_directions_or_in_one() -> None:
    both, one = parse("a -(loss=1%,delay=5ms)- b -(none|partition)- c").links
    assert (both.forth, both.back) == ("loss=1%,delay=5ms", "loss=1%,delay=5ms")
    assert (one.forth, one.back) == ("none", "partition")


def test_a_random_graph_is_connected_and_the_same_for_a_seed() -> None:
    assert edges("random 20/4/7") == edges("random 20/4/7")
    assert edges("random 20/4/7") != edges("random 20/4/8")
    assert len(edges("random 20/4/7")) == 40
    assert len(edges("random 20")) == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a network has one node at least, such as: a - b - c"),
        ("a -", "'-': a node is missing after it"),
        ("- a", "'-': a node stands here, not -"),
        ("1a - b", "'1': a node stands here, not 1; its name begins with a letter"),
        ("ring", "'ring': say ring COUNT"),
        ("a -> b", "'>': a link is -, such as: a - b"),
        ("a \N{EN DASH} b", "'\N{EN DASH}': a link is -, such as: a - b"),
        ("a = b", "'=': a link is -, such as: a - b"),
        (
            "a -loss=1%- b",
            "'=1%-': what happens on a link stands between -( and )-, such as: a -(loss=1%)- b",
        ),
        (
            "a - (b)",
            "'(b)': what happens on a link stands between -( and )-, such as: a -(loss=1%)- b",
        ),
        (
            "a(loss=1%) - b",
            "'(loss=1%)': of a node, say (stack=c); what happens on a link stands between -( and )-, such as: "
            "a -(loss=1%)- b",
        ),
        ("a(stack=d) - b", "'d': no stack: choose from ours, c"),
        ("a - b c", "'c': between two nodes stands -"),
        ("a b", "'a': no shape: choose from line, ring, star, full, grid, tree, random, or put - between two nodes"),
        ("a - a", "'a - a': a link leads to another node"),
        ("a - b - a", "'b - a': a link between the two is there already"),
        ("a - b%", "'%': not understood here: say nodes, and links between them, such as: a - b - c"),
        ("ring 2", "'2': 3 nodes at least"),
        ("ring 3x3", "'3x3': say ring COUNT"),
        ("grid 3", "'3': say grid WIDTHxHEIGHT"),
        ("grid 200x200", "'40000': 10000 nodes at most"),
        ("tree 99999^1", "'99999^1': 10000 levels at most"),
        ("ring 3 as", "'as': after ring 3 comes nothing, or as NAME"),
        ("ring 3, line 2", "'n0': is there already: name the nodes of the shape with line 2 as NAME"),
        ("_a - b", "'_a': no name of a node: it begins with a letter, and has letters, digits and _ only, 31 at most"),
        ("a -(loss=1)- b", "'loss=1': loss must look like 1% or 0.5%, not '1'"),
        ("a@b - c", "'a@b': @ is for layers over others"),
        ("a - b\nb - c -", "line 2: '-': a node is missing after it"),
        ("a - b\n\n!", "line 3: '!': not understood here: say nodes, and links between them, such as: a - b - c"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_word(text: str, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        describe(text)
    assert str(caught.value) == message


def test_over_a_network_lies_one_layer() -> None:
    description = describe("a - b - c")
    assert description.nodes == (Node("a"), Node("b"), Node("c"))
    assert description.links == (Link("a", "b"), Link("b", "c"))
    members = {"a": "a", "b": "b", "c": "c"}
    assert description.layers == (Layer("net1", members=members, adjacencies=(("a", "b"), ("b", "c"))),)


def test_a_node_has_the_stack_that_is_said_of_it() -> None:
    assert describe("ring 3, n1 ( stack = c )").nodes == (Node("n0"), Node("n1", "c"), Node("n2"))
    assert describe("p - q", over="a - b(stack=c)").nodes == (Node("a"), Node("b", "c"))


def test_members_of_a_layer_over_others_are_where_they_are_said_to_be_or_where_there_is_room() -> None:
    description = describe("a - b@y - z", over="x - y - z")
    assert description.layers[1].members == {"a": "x", "b": "y", "z": "z"}
    assert description.layers[1].over == "net1"
    three = describe("a - c", over=["k - l - m", "x - y - z"])
    assert three.layers[2].members == {"a": "x", "c": "y"}


@pytest.mark.parametrize(
    ("text", "over", "message"),
    [
        ("a - b - c", "x - y", "'c': no node of the network below is left for it: 2 are there"),
        ("a@q - b", "x - y", "'a@q': no member of the network below: there are x, y"),
        ("a@x - b@x", "x - y", "'b': node x has another member of the layer already"),
        ("a@x - b, a@y", "x - y", "'a@y': is on node x already"),
        ("a -(loss=1%)- b", "x - y", "'a - b': only links of the lowest network can be bad"),
        ("a(stack=c) - b", "x - y", "'a(stack=c)': is said of nodes, in the lowest network"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(text: str, over: str, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        describe(text, over)
    assert str(caught.value) == message


def test_a_graph_has_a_text_that_is_read_back() -> None:
    for text in ("a - b - c", "c, b - a, c - a", "a@x -(loss=1%|none)- b@y", "grid 3x3", "a", "a - b(stack=c) - c"):
        assert parse(text_of(parse(text))) == parse(text)
    assert text_of(parse("ring 3 as r")) == "r0 - r1 - r2, r0 - r2"
