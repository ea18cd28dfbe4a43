"""Lines, rings, grids and trees of whole nodes in virtual time, whose links lose, double, reorder and fail for minutes. What
has to hold at all times is looked at where it can break; in the end every name resolves, and every pair of a sample
exchanges packets, which go the shortest way."""

from __future__ import annotations

import os
import random
from collections import Counter

import networkx as nx
import pytest
from sim_world import RELIABLE
from unicast_world import Edges, Layer, grid, line, ring, tree

from ouroboros.layers.unicast.graph import MOST_HOPS, Table
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.qos import QOS_RAW
from ouroboros.settings import DtConfig, UnicastConfig, UnicastSettings

SEEDS = range(int(os.environ.get("OUROBOROS_SCENARIO_SEEDS", "20")))
KINDS = ["line", "ring", "grid", "tree"]
TROUBLES = [
    "loss=5%,delay=3ms,jitter=2ms",
    "loss=1%,duplicate=5%",
    "reorder=20%,delay=5ms",
    "loss=20%,duplicate=5%,reorder=10%,jitter=10ms,delay=10ms",
    "partition",
]
#: Packets of a flow that are followed.
FOLLOWED = 40
#: Counters of packets that took a wrong way.
ASTRAY = ["ttl", "returned", "no_route"]


def shape(kind: str, count: int) -> Edges:
    match kind:
        case "line":
            return line(count)
        case "ring":
            return ring(count)
        case "grid":
            rows = max(each for each in range(1, count) if count % each == 0 and each**2 <= count)
            return grid(count // rows, rows)
        case _:
            return tree(count)


class Watched(Layer):
    """A layer that looks at each table that a member gets, and at each address that one has."""

    swaps = 0

    def come(self, neighbours: list[int]) -> int:
        number = super().come(neighbours)
        member = self.member(number)
        addresses = Counter(self.member(each).core.address for each in range(len(self.nodes)))
        assert set(addresses.values()) == {1}
        tables: list[Table] = [member.link_state.table()]
        tell = member.link_state._changed

        def changed(table: Table, spread: bool, now: float) -> None:
            self.look_at(member, tables[0], table)
            tables[0] = dict(table)
            tell(table, spread, now)

        member.link_state._changed = changed
        return number

    def look_at(self, member: UnicastIpcp, before: Table, table: Table) -> None:
        """What is new in a table."""
        self.swaps += 1
        assert member.core.address not in table
        assert len(table) < len(self.nodes)
        for destination in (each for each, ways in table.items() if before.get(each) != ways):
            ways = table[destination]
            assert 0 < len(set(ways)) == len(ways) <= MOST_HOPS
            assert member.link_state.distance(destination) is not None
            # The first of them is a neighbour, and the destination itself if that is one.
            assert member.link_state.distance(ways[0]) == 1
            assert (ways[0] == destination) == (member.link_state.distance(destination) == 1)


class Scenario:
    """A layer, and what happens to it, by a seed."""

    def __init__(self, kind: str, count: int, seed: int) -> None:
        self.chance = random.Random(f"{kind} {count} {seed}")
        settings = UnicastSettings(unicast=UnicastConfig(dt=DtConfig(max_ttl=255)))
        self.layer = Watched(shape(kind, count), seed=seed, settings=settings)
        self.graph = nx.Graph(self.layer.edges)
        self.count = count
        self.served: dict[str, int] = {}

    def offer(self, names: int) -> None:
        for _ in range(names):
            name, number = f"name{len(self.served)}", self.chance.randrange(self.count)
            self.layer.offer(name, number)
            self.served[name] = number

    def trouble(self, seconds: float, events: int) -> None:
        """Links go bad and good again, and programs send all the while."""
        for _ in range(events):
            number = self.chance.randrange(self.count)
            self.layer.nodes[number].impair(self.chance.choice(TROUBLES))
            if self.chance.random() < 0.6:
                self.layer.nodes[self.chance.randrange(self.count)].impair(None)
            if self.chance.random() < 0.5:
                self.offer(1)
            self.layer.network.run(seconds / events)
            self.check_bounds()

    def check_bounds(self) -> None:
        assert self.layer.network.balance().missing == 0
        # Withdrawn and forgotten links stay for a while, as do those to addresses that nobody has.
        most = 2 * self.graph.number_of_edges() + self.count
        for each in range(self.count):
            assert len(self.layer.member(each).link_state._database) <= most

    def calm_down(self, seconds: float) -> None:
        """Nobody helps: what was lost is connected again by the nodes themselves."""
        for node in self.layer.nodes:
            node.impair(None)
        self.layer.network.run(seconds)
        self.layer.converge(1.0)

    def check(self, pairs: int) -> None:
        for name, far in self.served.items():
            self.exchange(name, self.other_than(far), far)
        for _ in range(pairs):
            far = self.chance.randrange(self.count)
            self.layer.offer(name := f"of{far}-{self.chance.random()}", far)
            self.layer.network.run(1.0)
            self.follow(name, self.other_than(far), far)
        self.layer.network.run(60.0)
        for each in range(self.count):
            assert self.layer.member(each)._core.eids == set()
            assert all("bug" not in text for text in self.layer.nodes[each].warnings)
        assert self.layer.swaps >= self.count - 1
        assert self.layer.network.counted()["stuck"] == 0

    def other_than(self, number: int) -> int:
        return self.chance.choice([each for each in range(self.count) if each != number])

    def exchange(self, name: str, near: int, far: int) -> None:
        client, server = self.layer.flow(name, near, far, RELIABLE)
        client.write(b"who is there?")
        assert server.read() == b"who is there?"
        server.write(name.encode())
        assert client.read() == name.encode()
        client.dealloc()
        server.dealloc()

    def follow(self, name: str, near: int, far: int) -> None:
        """Packets arrive, and each is passed on by those on the shortest way only."""
        client, server = self.layer.flow(name, near, far, QOS_RAW)
        self.layer.network.run(1.0)
        before = self.counted()
        for number in range(FOLLOWED):
            client.write(number.to_bytes(4))
            assert server.read() == number.to_bytes(4)
        after = self.counted()
        hops = nx.shortest_path_length(self.graph, near, far)
        # The receiver reports what came, by the same way.
        reports = after["words"] - before["words"]
        others = after["forwarded"] - before["forwarded"] - (FOLLOWED + reports) * (hops - 1)
        # Those of the members themselves are few.
        assert 0 <= others < FOLLOWED, (near, far, hops, reports, others)
        assert all(after[each] == before[each] for each in ASTRAY)
        client.dealloc()
        server.dealloc()

    def counted(self) -> Counter[str]:
        """Of all members together."""
        found: Counter[str] = Counter()
        for node, id in zip(self.layer.nodes, self.layer.ids, strict=True):
            found.update(node.counters(id))
        return found


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_members_for_ten_minutes(seed: int) -> None:
    scenario = Scenario(KINDS[seed % 4], 10, seed)
    scenario.offer(3)
    scenario.trouble(600.0, 20)
    scenario.calm_down(120.0)
    scenario.check(3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_members_for_ten_minutes(kind: str) -> None:
    scenario = Scenario(kind, 100, 1)
    scenario.offer(3)
    scenario.trouble(600.0, 6)
    scenario.calm_down(120.0)
    scenario.check(3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_hundred_members_for_two_minutes() -> None:
    scenario = Scenario("tree", 300, 1)
    scenario.offer(3)
    scenario.trouble(120.0, 4)
    scenario.calm_down(120.0)
    scenario.check(3)
