"""Shortest paths, computed step by step: what networkx finds from the beginning is right."""

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given
from routing_world import oracle

from ouroboros.layers.unicast.graph import NOT_EQUAL, Graph, Table
from ouroboros.settings import LinkStatePolicy

SIMPLE, LFA, ECMP = LinkStatePolicy.SIMPLE, LinkStatePolicy.LFA, LinkStatePolicy.ECMP
POLICIES = [SIMPLE, LFA, ECMP]

Edge = tuple[int, int]


def link(graph: Graph, one: int, other: int) -> None:
    graph.announce(one, other)
    graph.announce(other, one)


class TestSmallLayers:
    def test_only_links_that_both_ends_announce_are_used(self) -> None:
        graph = Graph(1, SIMPLE)
        graph.announce(1, 2)
        assert not graph.compute()
        assert graph.table() == {}
        graph.announce(2, 1)
        assert graph.changed
        assert graph.compute()
        assert graph.table() == {2: (2,)}
        graph.retract(1, 2)
        assert graph.compute()
        assert graph.table() == {}
        assert graph.distance(2) is None

    def test_a_layer_of_one_has_no_routes(self) -> None:
        graph = Graph(1, SIMPLE)
        assert not graph.compute()
        assert graph.table() == {}
        assert graph.distance(1) == 0
        assert list(graph.reachable()) == [1]

    @pytest.mark.parametrize(
        ("policy", "hops"),
        [(SIMPLE, {3: (2, 4)}), (LFA, {3: (2, 4)}), (ECMP, {3: (2, 4)})],
        ids=["simple", "lfa", "ecmp"],
    )
    def test_two_ways_around_a_square(self, policy: LinkStatePolicy, hops: Table) -> None:
        graph = Graph(1, policy)
        for one, other in ((1, 2), (2, 3), (3, 4), (4, 1)):
            link(graph, one, other)
        graph.compute()
        assert graph.table() == {2: (2,), 4: (4,)} | hops

    @pytest.mark.parametrize(
        ("policy", "table"),
        [
            (SIMPLE, {2: (2, 3), 3: (3, 2)}),
            (LFA, {2: (2, 3), 3: (3, 2)}),
            (ECMP, {2: (2, NOT_EQUAL, 3), 3: (3, NOT_EQUAL, 2)}),
        ],
        ids=["simple", "lfa", "ecmp"],
    )
    def test_alternate_that_is_not_the_shortest(self, policy: LinkStatePolicy, table: Table) -> None:
        """In a triangle the third member is a way to the second: a packet does not come back from there."""
        graph = Graph(1, policy)
        for one, other in ((1, 2), (2, 3), (3, 1)):
            link(graph, one, other)
        graph.compute()
        assert graph.table() == table

    def test_of_equal_paths_the_primary_ends_by_the_smallest_address(self) -> None:
        """`unicast-control.md` 6.5: the predecessor counts, not the neighbour."""
        graph = Graph(1, SIMPLE)
        for one, other in ((1, 2), (1, 3), (2, 9), (3, 8), (9, 5), (8, 5)):
            link(graph, one, other)
        graph.compute()
        assert graph.table()[5] == (3, 2)

    def test_no_more_than_eight_next_hops(self) -> None:
        graph = Graph(1, ECMP)
        for each in range(10, 30):
            link(graph, 1, each)
            link(graph, each, 99)
        graph.compute()
        assert graph.table()[99] == tuple(range(10, 18))

    def test_nothing_is_computed_when_a_link_came_and_went(self) -> None:
        graph = Graph(1, SIMPLE)
        link(graph, 1, 2)
        graph.compute()
        link(graph, 2, 3)
        graph.retract(3, 2)
        assert not graph.changed
        assert not graph.compute()

    def test_a_table_that_was_given_stays_as_it_is(self) -> None:
        graph = Graph(1, SIMPLE)
        link(graph, 1, 2)
        graph.compute()
        table = graph.table()
        link(graph, 2, 3)
        graph.compute()
        assert table == {2: (2,)}

    def test_neighbours_that_come_and_go_leave_nothing(self) -> None:
        graph = Graph(1, LFA)
        announced: dict[Edge, None] = {}
        for each in range(2, 500):
            for edge in ((1, each), (each, 1), (each, each - 1), (each - 1, each)):
                graph.announce(*edge)
                announced[edge] = None
            if each > 9:
                graph.retract(1, each - 7)
                announced.pop((1, each - 7))
            graph.compute()
        assert graph.table() == oracle(announced, 1, LFA)
        assert len(graph._hops._neighbours) < 100


@pytest.mark.parametrize("policy", POLICIES)
@given(data=st.data(), vertices=st.integers(2, 9))
def test_tables_are_right_after_any_changes(policy: LinkStatePolicy, data: st.DataObject, vertices: int) -> None:
    edges = st.tuples(st.integers(1, vertices), st.integers(1, vertices)).filter(lambda edge: edge[0] != edge[1])
    changes = st.lists(st.tuples(edges, st.sampled_from(["up", "up", "half", "down"])), max_size=12)
    graph, announced = Graph(1, policy), dict[Edge, None]()
    for batch in data.draw(st.lists(changes, max_size=8)):
        before = graph.table()
        for edge, kind in batch:
            for each in (edge,) if kind == "half" else (edge, edge[::-1]):
                if kind == "down":
                    graph.retract(*each)
                    announced.pop(each, None)
                else:
                    graph.announce(*each)
                    announced[each] = None
        assert graph.compute() == (graph.table() != before)
        assert graph.table() == oracle(announced, 1, policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_tables_are_right_in_larger_layers(policy: LinkStatePolicy, seed: int) -> None:
    random = Random(seed)
    graph, announced = Graph(1, policy), dict[Edge, None]()
    for _ in range(40):
        for _ in range(random.choice([1, 3, 40])):
            one, other = random.sample(range(1, 60), 2)
            for edge in ((one, other), (other, one)):
                if random.random() < 0.6:
                    graph.announce(*edge)
                    announced[edge] = None
                else:
                    graph.retract(*edge)
                    announced.pop(edge, None)
        graph.compute()
        assert graph.table() == oracle(announced, 1, policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_a_change_far_away_touches_little_of_a_thousand_members(
    policy: LinkStatePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid of 32 by 32, from its corner. The far corner loses a link, and gets it back."""
    side = 32
    graph, announced = Graph(0, policy), dict[Edge, None]()
    for vertex in range(side * side):
        for other in (vertex + 1, vertex + side):
            if other < side * side and (other % side or other != vertex + 1):
                link(graph, vertex, other)
                announced[vertex, other] = announced[other, vertex] = None
    graph.compute()
    assert graph.table() == oracle(announced, 0, policy)
    visited: list[int] = []
    approach = graph._hops._approach

    def counted(level: int, vertex: int) -> tuple[int, int]:
        visited.append(vertex)
        return approach(level, vertex)

    monkeypatch.setattr(graph._hops, "_approach", counted)
    last = side * side - 1
    for there in (False, True):
        if there:
            link(graph, last - 1, last)
            announced[last - 1, last] = None
        else:
            graph.retract(last - 1, last)
            announced.pop((last - 1, last))
        graph.compute()
        assert graph.table() == oracle(announced, 0, policy)
    assert len(visited) < 10
