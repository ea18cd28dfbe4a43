"""Unicast layers of whole nodes, with chance: members join and end, links come and go and lose packets, names move. When it
is quiet again, every member has a way to all others and finds every name, and nothing is left of what is over."""

from __future__ import annotations

import os
import random
from itertools import pairwise

import pytest
from sim_world import RELIABLE
from unicast_world import Layer

from ouroboros.qos import QOS_RAW
from ouroboros.wire.control import DestroyIpcp, UnregisterName

#: How many runs there are: more of them, or one that failed, are asked for by the environment.
SEEDS = [int(seed) for seed in os.environ.get("OUROBOROS_UNICAST_SEEDS", "1 2 3").split()]
MEMBERS = 8
EVENTS = 40


class Story:
    """What happens to a layer, by a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.layer = Layer([], seed=seed)
        self.alive: dict[int, None] = {0: None}
        self.served: dict[str, int] = {}
        self.last = 0
        self.cut_off: set[int] = set()

    def grow(self) -> None:
        """A newcomer, which enrolls with one of the members and connects to a few."""
        known = [each for each in self.alive if each not in self.cut_off]
        neighbours = self.chance.sample(known, min(len(known), self.chance.randint(1, 3)))
        number = len(self.layer.nodes)
        self.layer.add(neighbours)
        self.alive[number] = None

    def happen(self) -> None:
        """One event."""
        alive = list(self.alive)
        match self.chance.randint(0, 5):
            case 0 if len(alive) < MEMBERS and self.cut_off < self.alive.keys():
                self.grow()
            case 1 if len(alive) > 3:
                self.end(self.chance.choice(alive[1:]))
            case 2:
                words = self.chance.choice([None, "loss=3%,delay=3ms,jitter=2ms", "loss=1%,duplicate=3%", "partition"])
                number = self.chance.choice(alive)
                self.layer.nodes[number].impair(words)
                (self.cut_off.add if words == "partition" else self.cut_off.discard)(number)
            case 3:
                self.last += 1
                name, number = f"name{self.last}", self.chance.choice(alive)
                self.layer.offer(name, number)
                self.served[name] = number
            case 4 if self.served:
                self.move(self.chance.choice(list(self.served)))
            case _:
                self.layer.network.run(self.chance.choice([0.01, 1.0, 30.0]))
        self.layer.network.run(self.chance.random())

    def end(self, number: int) -> None:
        """A member ends."""
        del self.alive[number]
        self.layer.nodes[number].manage(DestroyIpcp(self.layer.ids[number])).wait()
        for name in [name for name, where in self.served.items() if where == number]:
            del self.served[name]

    def move(self, name: str) -> None:
        """Another member serves a name."""
        before, after = self.served[name], self.chance.choice(list(self.alive))
        self.layer.nodes[before].manage(UnregisterName(name, self.layer.ids[before])).value  # noqa: B018
        self.layer.offer(name, after)
        self.served[name] = after

    def calm_down(self) -> None:
        """All links are good, and none is missing between members of the row of those that are left."""
        for node in self.layer.nodes:
            node.impair(None)
        self.layer.network.run(60.0)
        alive = list(self.alive)
        for one, other in pairwise(alive):
            self.layer.know(other, one)
            self.layer.connect(other, one)
        self.layer.network.run(180.0)

    def check(self) -> None:
        alive = list(self.alive)
        for number in alive:
            reached = self.layer.member(number).link_state.members()
            assert set(reached) == {self.layer.member(each).core.address for each in alive} - {
                self.layer.member(number).core.address
            }
            assert all(reached.values())
        for name, far in self.served.items():
            near = self.chance.choice([each for each in alive if each != far])
            for qos in (QOS_RAW, RELIABLE):
                client, server = self.layer.flow(name, near, far, qos)
                client.write(b"who is there?")
                assert server.read() == b"who is there?"
                server.write(name.encode())
                assert client.read() == name.encode()
                client.dealloc()
                server.dealloc()
        self.layer.network.run(60.0)
        for number in alive:
            assert self.layer.member(number)._core.eids == set()
            assert all("bug" not in text for text in self.layer.nodes[number].warnings)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_layer_is_whole_again_when_it_is_quiet(seed: int) -> None:
    story = Story(seed)
    for _ in range(3):
        story.grow()
    for _ in range(EVENTS):
        story.happen()
    story.calm_down()
    story.check()
