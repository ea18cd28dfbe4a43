"""How networks look."""

from __future__ import annotations

from xml.etree import ElementTree

from ouroboros.lab import Lab, describe
from ouroboros.lab.graph import State, as_svg, as_text

_NAMESPACE = "{http://www.w3.org/2000/svg}"


def boxes(svg: str) -> dict[str, tuple[float, float]]:
    """Where the boxes are, by the text in them."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{_NAMESPACE}g"):
        rect, text = group.find(f"{_NAMESPACE}rect"), group.find(f"{_NAMESPACE}text")
        if rect is not None and text is not None:
            found[str(text.text)] = float(rect.get("x", "0")), float(rect.get("y", "0"))
    return found


def test_text_has_a_line_for_each_node_and_layer() -> None:
    description = describe("a - b -(loss=1%|none)- c", ())
    state = State(dead=frozenset("c"), paused=frozenset("b"), cut=frozenset(["a-b"]))
    assert as_text(description, state) == "\n".join(
        [
            "a - b (cut)",
            "b (paused) - a (cut), c (loss=1% | none)",
            "c (killed) - b (loss=1% | none)",
            "net1, unicast: a b c",
        ]
    )
    assert (
        as_text(describe("a - b(stack=c)"), State(dead=frozenset("b"))).splitlines()[1] == "b (C prototype, killed) - a"
    )
    ranks = as_text(describe("p@a - q", "a - b"), State())
    assert ranks == "a - b\nb - a\nnet2, unicast over net1: p@a q@b\nnet1, unicast: a b"


def test_in_the_picture_nodes_are_columns_and_ranks_are_rows() -> None:
    found = boxes(as_svg(describe("p - q - r", "a - b - c"), State()))
    for member, node in (("p", "a"), ("q", "b"), ("r", "c")):
        assert found[member][0] == found[node][0]
        assert found[member][1] < found[node][1]
    assert len({x for x, _ in found.values()}) == 3
    # Members of one layer stand in one row: those of net1 have the names of their nodes, and hide behind them here.
    assert found["p"][1] == found["q"][1] == found["r"][1]


def test_the_picture_shows_what_is_killed_and_cut_and_says_names_safely() -> None:
    svg = as_svg(describe("ring 4"), State(dead=frozenset(["n1"]), cut=frozenset(["n0-n1"])))
    assert svg.count('class="dead"') == 1
    assert svg.count('class="link cut"') == 1
    assert as_svg(describe("a - b(stack=c)"), State()).count('class="node prototype"') == 1
    ElementTree.fromstring(svg)


def test_a_laboratory_shows_itself_in_a_notebook() -> None:
    made = Lab("a - b", clock="virtual")
    assert made._repr_svg_() in made._repr_html_()
    with made:
        made.a.kill()
        assert 'class="dead"' in made._repr_svg_()
        assert made.graph().startswith("a (killed) - b\n")
