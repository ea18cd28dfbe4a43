"""Hostile bytes for members of unicast layers: a fixed number of them, by chance and by a fuzzer that sees which code they
reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from oap_attack import altered
from sim_world import RELIABLE
from support import fuzz
from unicast_attack import Message, attack, deliver, messages, recorded, say_again, seeds, small_layer, spoiled
from unicast_world import Layer

from ouroboros.errors import FlowNameException
from ouroboros.wire.control import DisconnectIpcp, UnregisterName

RUNS = 20_000
#: Messages to the members of one layer.
MESSAGES = 150
#: Of the fuzzer, which is slow at first.
FUZZED = 5_000

pytestmark = pytest.mark.slow


def test_each_decoder_takes_what_members_say_to_each_other() -> None:
    # Else the tests below would never get past the first check.
    assert {seed[0] for seed in seeds()} == set(range(9))
    assert {eid for eid, _ in recorded()} == {-1, 0, 1}


@pytest.mark.parametrize("message", messages(), ids=lambda each: each.name)
def test_a_message_with_any_field_wrong_is_read_or_refused_by_every_decoder(message: Message) -> None:
    for data in spoiled(message):
        for decoder in range(9):
            try:
                attack(bytes([decoder]) + data)
            except Exception as error:
                error.add_note(f"decoder {decoder}, the input was {data.hex()}")
                raise


@pytest.mark.parametrize("series", range(4))
def test_altered_messages_cause_nothing_but_the_error_that_is_meant_for_them(series: int) -> None:
    random, start = Random(series), seeds()
    for _ in range(RUNS // 4):
        message = altered(random.choice(start), start, random)
        try:
            attack(message)
        except Exception as error:
            error.add_note(f"the input was {message.hex()}")
            raise


@pytest.mark.parametrize("seed", range(6))
def test_members_outlive_whatever_their_neighbours_say(seed: int) -> None:
    random, layer = Random(seed), small_layer()
    start = list(recorded())
    for _ in range(MESSAGES):
        eid, data = random.choice(start)
        data = altered(data, [each for _, each in start], random)
        try:
            deliver(layer, random.randrange(3), eid, data)
            layer.network.run(random.choice((0, 0.01, 1.5)))
        except Exception as error:
            error.add_note(f"the message was {eid} {data.hex()}")
            raise
    layer.network.run(700)
    assert layer.network.balance().missing == 0


@pytest.mark.parametrize(
    "order",
    [lambda each: each, lambda each: each[::-1], lambda each: Random(1).sample(each, len(each)), lambda each: each * 3],
    ids=["as it was", "backwards", "mixed", "three times"],
)
def test_what_was_said_before_changes_nothing_when_it_is_said_again(order: Callable[[list[Any]], list[Any]]) -> None:
    """All that members said to each other while a layer began, a name and a flow came and went, and a link was lost."""
    layer = Layer([])
    captures = [layer.nodes[0].capture(layer.ids[0])]
    for number, neighbours in enumerate(([0], [0, 1], [2]), 1):
        layer.add(neighbours)
        captures.append(layer.nodes[number].capture(layer.ids[number]))
    layer.offer("clock", 0)
    layer.offer("gone", 1)
    layer.network.run(2)
    client, server = layer.flow("clock", 3, 0, RELIABLE)
    layer.flow("gone", 3, 1)[0].dealloc()
    layer.nodes[1].manage(UnregisterName("gone", layer.ids[1])).value  # noqa: B018 - or its error
    layer.nodes[2].manage(DisconnectIpcp(layer.ids[2], "Data Transfer", "m1")).wait().value  # noqa: B018
    layer.network.run(10)
    tables = [layer.member(number).link_state.table() for number in range(4)]
    addresses = [layer.member(number).core.address for number in range(4)]
    assert say_again(layer, captures, order) > 50
    layer.network.run(60)
    assert [layer.member(number).link_state.table() for number in range(4)] == tables
    assert [layer.member(number).core.address for number in range(4)] == addresses
    client.write(b"tick")
    assert server.read() == b"tick"
    layer.flow("clock", 2, 0)[0].dealloc()
    with pytest.raises(FlowNameException):
        layer.nodes[3].program("late").alloc("gone").wait().flow  # noqa: B018 - its error
    assert layer.network.balance().missing == 0
    assert all(not node.warnings for node in layer.nodes)


def test_a_fuzzer_finds_nothing_in_a_few_thousand_runs(tmp_path: Path) -> None:
    fuzz("unicast", FUZZED, tmp_path)
