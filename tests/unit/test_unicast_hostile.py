"""A member that lies, floods and forges, in a unicast layer of honest ones in virtual time."""

from __future__ import annotations

import struct
from random import Random

import pytest
from unicast_world import Layer, Liar, line, packet, ring

from ouroboros.layers.unicast.core import ALLOCATOR, DIRECTORY
from ouroboros.testing.sim import Flow
from ouroboros.wire.unicast.lsu import LinkStateUpdate, Updates

EVIL = 0x66666666


def addresses(layer: Layer) -> list[int]:
    return [layer.member(each).core.address for each in range(len(layer.nodes))]


def settled(edges: list[tuple[int, int]]) -> Layer:
    layer = Layer(edges)
    layer.converge()
    layer.network.run(3.0)
    return layer


def exchange(layer: Layer, client: Flow, server: Flow, count: int, every: float = 0.01) -> int:
    """How many of so many packets come back, one after the other."""
    returned = 0
    for number in range(count):
        asked = struct.pack(">Q", number)
        client.offer(asked)
        layer.network.run(every)
        while (heard := server.poll()) is not None:
            server.offer(heard)
        layer.network.run(every)
        while (answer := client.poll()) is not None:
            returned += answer == asked
    return returned


def number_of(layer: Layer, ahead: int = 0) -> int:
    return (layer.network.wall // 10**9 + ahead) << 16


@pytest.mark.parametrize("ours", [True, False], ids=["node", "prototype"])
def test_whoever_says_that_he_has_our_addresses_moves_each_member_once_an_hour(ours: bool) -> None:
    """By announcements of their links, and by greetings with their addresses."""
    layer = settled(line(3))
    before = addresses(layer)
    for attempt in range(8):
        liar = Liar(layer, 1, EVIL, ours=ours)
        liar.join()
        for step in range(5):
            for each in addresses(layer):
                number = number_of(layer) + (1 << 30) + attempt * 100 + step
                liar.say(LinkStateUpdate(EVIL, each, number).encode())
            layer.network.run(1.5)
        taken = liar.flow()
        taken.offer(liar.greeting("Management", address=layer.member(1).core.address, ours=None).encode())
        layer.network.run(1.0)
    after = addresses(layer)
    assert all(one != other for one, other in zip(before, after, strict=True))
    moved = [sum("from now on" in text for text in node.warnings) for node in layer.nodes]
    assert moved == [1, 1, 1]
    assert layer.member(1).core.counters["moves_refused"] > 5
    layer.offer("clock", 0)
    layer.network.run(3.0)
    client, server = layer.flow("clock", 2, 0)
    assert exchange(layer, client, server, 20) == 20
